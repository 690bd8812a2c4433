"""Exported models, run in the programs that serve them, against the model's own numbers."""

import json
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from bert_keras import (
    MultiTaskModel,
    TaskMetadata,
    classify,
    create_lstm,
    create_qrnn,
    create_text_cnn,
    encoder_inputs,
    export_model,
)
from bert_keras.sharing import exporting
from bert_keras.sharing.runtimes import is_installed

OPENERS = {name: form.open for name, form in exporting.FORMATS.items()}
FILES = {name: form.file for name, form in exporting.FORMATS.items()}
PACKAGES = ("tf2onnx", "onnx", "onnxruntime", "ai_edge_litert")

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="exported by the TensorFlow backend alone"
)
with_packages = pytest.mark.skipif(not all(map(is_installed, PACKAGES)), reason="needs the extra `export`")


@pytest.fixture(scope="module")
def all_kinds(text_encoder):
    return [
        TaskMetadata("lm", True, text_encoder.vocab_size),
        TaskMetadata("is_next", False, 2),
        TaskMetadata("mood", False, labels=("bad", "good")),
        TaskMetadata("mean", False, kind="regression", read_from="mean"),
        TaskMetadata("largest", False, kind="multi_label", read_from="max", labels=("x", "y", "z")),
        TaskMetadata("words", True, labels=("p", "q", "r", "s")),
        TaskMetadata("where", False, kind="span"),
    ]


def assert_alike(run, model, names, arrays, atol=1e-4):
    """At two shapes, padding included."""
    for shape in ((9, 2), (14, 5)):
        inputs = arrays(*shape)
        found = run(inputs)
        assert sorted(found) == sorted(names)
        expected = model(inputs, training=False)
        for name in names:
            ours = keras.ops.convert_to_numpy(keras.ops.cast(expected[name], "float32"))
            np.testing.assert_allclose(found[name], ours, rtol=1e-3, atol=atol, err_msg=name)
            assert found[name].dtype == np.float32


@on_tensorflow
@with_packages
@pytest.mark.parametrize("format", OPENERS)
@pytest.mark.parametrize("architecture", ["bert", "modern"])
def test_a_transformer_with_all_kinds_of_tasks(
    tiny, text_encoder, all_kinds, arrays, tmp_path, architecture, format
):
    encoder = tiny(architecture=architecture, initializer_range=0.5)
    model = MultiTaskModel(encoder, all_kinds, seed=2)
    names = [task.name for task in all_kinds]
    folder = export_model(model, tmp_path / "out", format, text_encoder=text_encoder, tasks=names, verbose=0)
    assert_alike(OPENERS[format](folder / FILES[format]), model, names, arrays)
    assert sorted(os.listdir(folder)) == sorted([FILES[format], "serving.json", "text_encoder"])
    facts = json.loads((folder / "serving.json").read_text())
    assert facts["largest_difference"] < 1e-4 and facts["max_len"] == (17 if architecture == "bert" else None)
    assert facts["outputs"]["words"] == {
        "shape": ["rows", "length", 4],
        "kind": "classification",
        "labels": ["p", "q", "r", "s"],
    }
    assert facts["special_ids"]["bos"] == text_encoder.bos_id and facts["file"] == FILES[format]


@on_tensorflow
@with_packages
@pytest.mark.parametrize("format", OPENERS)
@pytest.mark.parametrize("kind", ["text_cnn", "qrnn", "lstm"])
def test_other_encoders(text_encoder, all_kinds, arrays, tmp_path, kind, format):
    create = {"text_cnn": create_text_cnn, "qrnn": create_qrnn, "lstm": create_lstm}[kind]
    model = MultiTaskModel(create(text_encoder.vocab_size, 10, 1, seed=1), all_kinds[2:])
    folder = export_model(model, tmp_path / "out", format, verbose=0)
    run = OPENERS[format](folder / FILES[format])
    assert_alike(run, model, [task.name for task in all_kinds[2:]], arrays)


@on_tensorflow
@with_packages
@pytest.mark.parametrize("format", OPENERS)
def test_low_precision_is_exported_in_float32(tiny, all_kinds, arrays, tmp_path, format):
    model = MultiTaskModel(tiny(dtype="mixed_bfloat16"), all_kinds[2:3], seed=2)
    folder = export_model(model, tmp_path / "out", format, verbose=0)
    run = OPENERS[format](folder / FILES[format])
    assert_alike(run, model, ["mood"], arrays, atol=0.02)
    exact = MultiTaskModel(tiny(dtype="float32"), all_kinds[2:3], seed=2)
    assert_alike(run, exact, ["mood"], arrays, atol=1e-5)


@on_tensorflow
@with_packages
def test_encoders_alone_and_your_own(text_encoder, tiny, arrays, tmp_path):
    folder = export_model(tiny(num_segments=1), tmp_path / "alone", verbose=0)
    found = OPENERS["onnx"](folder / FILES["onnx"])(arrays(9))
    expected = tiny(num_segments=1)(arrays(9), training=False)
    np.testing.assert_allclose(
        found["hidden_states"], keras.ops.convert_to_numpy(expected), rtol=1e-3, atol=1e-5
    )
    inputs = encoder_inputs()["token_ids"]
    own = keras.Model(inputs, keras.layers.Embedding(text_encoder.vocab_size, 7)(inputs))
    folder = export_model(own, tmp_path / "own", verbose=0)
    found = OPENERS["onnx"](folder / FILES["onnx"])(arrays(9))
    np.testing.assert_allclose(found["hidden_states"], own.predict(arrays(9)["token_ids"], verbose=0))
    facts = json.loads((folder / "serving.json").read_text())
    assert [*facts["inputs"]] == ["token_ids"] and facts["special_ids"] == {}


@on_tensorflow
@with_packages
def test_tasks_are_chosen(model, tmp_path, capsys):
    folder = export_model(model, tmp_path / "own")
    facts = json.loads((folder / "serving.json").read_text())
    assert [*facts["outputs"]] == ["mood", "mood_word"]
    assert "onnx, ['mood', 'mood_word'], largest difference" in capsys.readouterr().out
    export_model(model, tmp_path / "own", tasks="lm", overwrite=True, verbose=0)
    assert [*json.loads((folder / "serving.json").read_text())["outputs"]] == ["lm"]
    for wrong in ("nothing", []):
        with pytest.raises(ValueError, match="`tasks`"):
            export_model(model, tmp_path / "x", tasks=wrong)


@on_tensorflow
@with_packages
def test_wrong_numbers_are_noticed_and_nothing_is_written(model, tmp_path, monkeypatch):
    right = exporting.open_onnx

    def wrong(path):
        run = right(path)
        return lambda arrays: {name: array + 0.01 for name, array in run(arrays).items()}

    form = exporting.FORMATS["onnx"]
    changed = exporting._Format(form.file, form.packages, form.runtime, wrong)
    monkeypatch.setattr(exporting, "FORMATS", {"onnx": changed})
    with pytest.raises(ValueError, match="does not give the model's numbers for 'mood' on 2 rows of 7"):
        export_model(model, tmp_path / "x")
    assert os.listdir(tmp_path) == []


@on_tensorflow
@pytest.mark.parametrize(
    ("format", "package", "hint"),
    [
        ("onnx", "tf2onnx", r"needs \['tf2onnx'\]: pip install 'bert_keras\[export\]'"),
        ("litert", "ai_edge_litert", r"with ai_edge_litert.*bert_keras\[export\]', or pass check=False"),
    ],
)
def test_a_missing_package_names_the_extra(model, tmp_path, monkeypatch, format, package, hint):
    monkeypatch.setattr(exporting, "is_installed", lambda name: name != package)
    with pytest.raises(ImportError, match=hint):
        export_model(model, tmp_path / "x", format)


@on_tensorflow
def test_what_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="`format` must be one of"):
        export_model(model, tmp_path / "x", "pickle")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        export_model(model, tmp_path / "full", "tf_saved_model")
    with pytest.raises(FileExistsError, match="notes.txt"):
        export_model(model, tmp_path / "full", "tf_saved_model", overwrite=True)
    inputs = encoder_inputs()["token_ids"]
    own = keras.Model(inputs, keras.layers.Embedding(9, 7)(inputs), name="own")
    own.dtype_policy = keras.dtype_policies.get("mixed_bfloat16")
    with pytest.raises(
        ValueError, match="'own' has the dtype policy 'mixed_bfloat16'. Build it with float32"
    ):
        export_model(own, tmp_path / "x", "tf_saved_model")


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="of the other backends")
@pytest.mark.parametrize("format", OPENERS)
def test_other_backends_say_how(model, tmp_path, format):
    name = {"tf_saved_model": "saved-model"}.get(format, format)
    with pytest.raises(ValueError, match=f"KERAS_BACKEND=tensorflow bert-keras convert .* --to {name}$"):
        export_model(model, tmp_path / "x", format)


@on_tensorflow
@with_packages
def test_serving_needs_no_keras(model, text_encoder, tmp_path):
    """The text encoder, NumPy and the runtime are enough."""
    folder = export_model(model, tmp_path / "out", text_encoder=text_encoder, verbose=0)
    code = """
        import json, sys
        import numpy as np
        import onnxruntime
        from bert_keras.text import TextEncoder

        facts = json.load(open("serving.json"))
        text_encoder = TextEncoder.load("text_encoder")
        ids = [facts["special_ids"]["bos"], *text_encoder.encode("a good film"), facts["special_ids"]["eos"]]
        row = np.array([ids], "int32")
        arrays = {"token_ids": row, "segment_ids": 0 * row, "sequence_ids": 0 * row + 1}
        arrays["position_ids"] = np.arange(row.shape[1], dtype="int32")[None]
        session = onnxruntime.InferenceSession("model.onnx")
        wanted = {each.name: arrays[each.name] for each in session.get_inputs()}
        [logits] = session.run(["mood"], wanted)
        print(json.dumps(logits[0].tolist()))
        sys.exit(bool({"keras", "tensorflow"} & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    probabilities = np.exp(json.loads(done.stdout)) / np.exp(json.loads(done.stdout)).sum()
    ours = classify(model, text_encoder, "a good film")
    assert probabilities.max() == pytest.approx(ours.probability, rel=1e-4)
    assert model.tasks[1].labels[int(probabilities.argmax())] == ours.label
