"""The page of benchmarks: what is kept is what it shows."""

from __future__ import annotations

import json

import numpy as np
import pytest

import benchmarks.__main__ as benchmarks
import benchmarks.learning as learning
from benchmarks.common import RunLog, kerashub_masked_lm, searched
from bert_keras import load_model


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmarks, "RESULTS", tmp_path)
    return tmp_path


def test_a_result_becomes_a_section_with_its_script_and_table(results):
    result = {
        "title": "Growth of the test",
        "columns": ["what", "size"],
        "rows": [["step", 3]],
        "python": "3.11.0",
        "versions": {"keras": "3.15.1", "jax": None},
        "hardware": {"cores": 2, "processor": "A Processor"},
    }
    (results / "growth_tensorflow.json").write_text(json.dumps(result))
    page = benchmarks.rendered()
    assert "## Growth\n\nHow cost grows with the size of the corpus" in page
    assert "```sh\nKERAS_BACKEND=... python -m benchmarks.growth" in page
    assert "**Growth of the test**\n\n| what | size |\n| --- | --- |\n| step | 3 |" in page
    assert "Python 3.11.0, keras 3.15.1; 2 cores, A Processor." in page
    assert "## Starting" not in page


def test_the_committed_page_is_the_rendered_one():
    assert benchmarks.PAGE.read_text(encoding="utf-8") == benchmarks.rendered()


def test_every_script_of_the_plan_exists_and_explains_itself():
    for runs in benchmarks.PLAN.values():
        for run in runs:
            assert len(benchmarks.explained(run.script)) > 100, run.script


def test_a_log_of_runs_is_taken_up_again(tmp_path):
    calls = []

    def run(rate, seed):
        calls.append((rate, seed))
        return {"score": -abs(rate - 2.0) + 0.1 * seed}

    for _ in range(2):
        log = RunLog(str(tmp_path / "runs.jsonl"))
        best, runs = searched(log, {"side": "ours"}, [1.0, 2.0, 4.0], 3, run, lambda found: found["score"])
        assert best == 2.0
        assert [found["score"] for found in runs] == [0.0, 0.1, 0.2]
    assert calls == [(1.0, 0), (2.0, 0), (4.0, 0), (2.0, 1), (2.0, 2)]


def test_kept_runs_are_shown_and_nothing_is_run(tmp_path, monkeypatch, capsys):
    runs = [
        {"arm": "modern", "rate": 1.0, "curve": [[40.0, 320, 7.0], [80.0, 640, 5.0]]},
        {"arm": "KerasHub", "rate": 5e-4, "curve": [[50.0, 320, 7.0], [100.0, 640, 6.5]]},
        {"arm": "KerasHub", "rate": 1e-3, "curve": [[50.0, 320, 7.0], [100.0, 640, 6.0]]},
        {"arm": "KerasHub", "rate": 1e-3, "curve": [[50.0, 320, 7.0], [100.0, 640, 1.0]], "size": [8, 1, 2]},
    ]
    with open(tmp_path / "runs.jsonl", "w") as file:
        for run in runs:
            run |= {"budget": 100.0, "learning_rate": run.pop("rate"), "seed": 0, "loss": run["curve"][-1][2]}
            file.write(json.dumps(run) + "\n")
    setting = type("Setting", (), {"__init__": lambda self, *_: None, "unigram_loss": lambda self: 6.55})
    monkeypatch.setattr(learning, "Setting", setting)
    monkeypatch.setattr(learning, "carried_out", lambda *_: pytest.fail("a run was started"))
    arguments = ["learning", "--kept", "--budget", "100", "--runs", str(tmp_path / "runs.jsonl")]
    monkeypatch.setattr("sys.argv", arguments)
    learning.main()
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    [modern] = [line for line in shown if line[:1] == ["modern"]]
    [kerashub] = [line for line in shown if line[:1] == ["KerasHub"]]
    assert modern[-1] == "60"  # 6.0 lies half-way from 7.0 at 40 s to 5.0 at 80 s
    assert kerashub[1:5] == ["0.0005:", "6.500", "0.001:", "6.000"]
    assert kerashub[-1] == "100"


def test_a_curve_that_begins_below_a_loss_or_never_gets_there():
    curve = [[40.0, 320, 5.0], [80.0, 640, 4.0]]
    assert learning.seconds_to(5.5, curve) == "<40"
    assert learning.seconds_to(3.0, curve) == "-"


def test_kerashub_s_encoder_is_ours(tmp_path):
    pytest.importorskip("keras_hub")
    import keras

    from benchmarks.kerashub_weights import save_kerashub

    model = kerashub_masked_lm(50, 2, 128, 16)
    rng = np.random.default_rng(0)
    for variable in model.backbone.weights:
        variable.assign(variable + rng.normal(0, 0.2, variable.shape).astype("float32"))
    save_kerashub(model.backbone, str(tmp_path / "theirs"))
    ids, real = rng.integers(1, 50, (3, 16)).astype("int32"), np.ones((3, 16), "int32")
    real[1, 10:] = 0
    inputs = {"token_ids": ids, "segment_ids": (np.arange(16) > 7) * np.ones_like(ids)}
    wanted = model.backbone({**inputs, "padding_mask": real})["sequence_output"]
    places = np.arange(16, dtype="int32") * np.ones_like(ids)
    encoder = load_model(tmp_path / "theirs").encoder
    found = encoder({**inputs, "position_ids": places, "sequence_ids": real})
    found, wanted = (keras.ops.convert_to_numpy(states)[real > 0] for states in (found, wanted))
    np.testing.assert_allclose(found, wanted, atol=3e-5)
    assert np.abs(wanted).mean() > 0.3
