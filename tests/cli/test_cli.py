"""The command line: from a two-column file to predictions; runs that stop and go on; what is printed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib

import numpy as np
import pytest
from command_line import invoke

from bert_keras import BERTTextEncoder, create_recipe, create_transformer, load_model, save_huggingface

WORDS = ["good", "fine", "great", "bad", "poor", "dull"]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A tiny BERT with random weights, as `transformers` writes it."""
    folder = tmp_path_factory.mktemp("published")
    text_encoder = BERTTextEncoder.train([f"a {word} film and play" for word in WORDS] * 3, vocab_size=60)
    encoder = create_transformer(text_encoder.vocab_size, 16, 24, 1, 2, seed=0)
    save_huggingface(encoder, folder, text_encoder=text_encoder, verbose=0)
    return folder


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Two columns, text and label, without header."""
    path = tmp_path_factory.mktemp("labelled") / "train.tsv"
    lines = [f"a {word} film\t{'up' if i < 3 else 'down'}" for i, word in enumerate(WORDS)] * 4
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


FLAGS = ["--epochs", 12, "--learning-rate", 0.01, "--batch-size", 6]


@pytest.fixture(scope="module")
def run(published, labelled, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "model"
    command = ["finetune", labelled, "--start", published, "--output", folder]
    result = invoke(*command, "--validation", labelled, *FLAGS, "--json")
    return folder, json.loads(result.stdout)


def test_a_two_column_file_becomes_predictions(run, tmp_path):
    folder, measured = run
    assert measured["steps"] == 48 and measured["held_out"]["label_accuracy"] == 1.0
    texts = tmp_path / "new.txt"
    texts.write_text("a great film\na dull film\n", encoding="utf-8")
    output = tmp_path / "predicted.tsv"
    invoke("predict", folder, texts, "--output", output)
    rows = [line.split("\t") for line in output.read_text(encoding="utf-8").splitlines()]
    assert [label for label, _ in rows] == ["up", "down"]
    assert all(0.5 < float(probability) <= 1.0 for _, probability in rows)
    result = invoke("predict", folder, "--json", text="a poor film\n\n")
    assert json.loads(result.stdout)["label"]["label"] == "down"


def test_a_run_tells_how_it_was_made(run, published):
    folder, _ = run
    saved = tomllib.loads((folder / "run.toml").read_text(encoding="utf-8"))
    assert saved["epochs"] == 12 and saved["start"] == str(published.resolve())
    assert {"backend", "git_commit", "version_keras", "started"} <= saved["environment"].keys()
    history = (folder / "history.csv").read_text().splitlines()
    assert len(history) == 13 and "label_loss" in history[0] and "val_label_accuracy" in history[0]
    assert not (folder / "checkpoint.weights.h5").exists()
    found = json.loads(invoke("inspect", folder, "--json").stdout)
    assert (found["kind"], found["state"]) == ("run", "finished")
    assert found["tasks"][0]["labels"] == ["down", "up"] and found["run"]["seed"] == 0
    sizes = [int(np.prod(shape)) for shape in found["arrays"].values()]
    assert found["parameters"] == sum(sizes) and "task_label/classifier/kernel" in found["arrays"]
    assert "labels=['down', 'up']" in invoke("inspect", folder).stdout


def test_the_saved_settings_repeat_the_run(run, tmp_path):
    folder, measured = run
    again = invoke("finetune", "--config", folder / "run.toml", "--output", tmp_path / "again", "--json")
    assert json.loads(again.stdout)["label_loss"] == pytest.approx(measured["label_loss"], rel=1e-4)


def test_a_run_is_not_replaced_unasked(run, published, labelled):
    folder, _ = run
    result = invoke("finetune", labelled, "--start", published, "--output", folder, code=1)
    assert "holds a run already (model.weights.h5). Give another --output, or --overwrite" in result.stderr


def test_overwriting_loses_nothing_before_the_new_run_begins(run, published, labelled, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(run[0], folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    bad = tmp_path / "bad.tsv"
    for content, message in (
        ("", "bad.tsv has no examples"),
        ("a film\n", "bad.tsv, line 1"),
        ("a film\tup\n", "All labels in .* are 'up'"),
    ):
        bad.write_text(content)
        command = ["finetune", bad, "--start", published, "--output", folder, "--overwrite"]
        assert re.search(message, invoke(*command, code=1).stderr)
    command = ["finetune", labelled, "--start", published, "--output", folder, "--overwrite"]
    assert "`name` must be one of" in invoke(*command, "--recipe", "none", code=1).stderr
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    invoke(*command, "--epochs", 1, "--task", "other")
    assert json.loads(invoke("inspect", folder, "--json").stdout)["tasks"][0]["name"] == "other"


def weights(folder):
    return [np.array(weight) for weight in load_model(folder / "model").get_weights()]


def test_a_stopped_run_goes_on_exactly(run, published, labelled, tmp_path, monkeypatch):
    from bert_keras.cli.running import Run

    folder, stopped = run[0], tmp_path / "stopped"
    steps_before = Run.on_train_batch_end

    def interrupted(self, batch, logs=None):
        if self.step == 16:
            os.kill(os.getpid(), signal.SIGINT)
        steps_before(self, batch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "on_train_batch_end", interrupted)
        command = ["finetune", labelled, "--start", published, "--output", stopped]
        result = invoke(*command, "--validation", labelled, *FLAGS, code=130)
    assert f"Stopped after 17 of 48 steps. To go on: add --resume {stopped}" in result.stderr
    assert json.loads(invoke("inspect", stopped, "--json").stdout)["state"].startswith("stopped")
    assert not (stopped / "model.weights.h5").exists()
    invoke("finetune", "--resume", stopped)
    for one, other in zip(weights(folder), weights(stopped), strict=True):
        np.testing.assert_array_equal(one, other)


def test_text_becomes_an_encoder(tmp_path):
    text = tmp_path / "corpus.txt"
    lines = [f"{word} is one thing\nand {word} is another" for word in WORDS * 3]
    text.write_text("\n\n".join(lines), encoding="utf-8")
    tokenizer, output = tmp_path / "tokenizer", tmp_path / "encoder"
    made = json.loads(invoke("tokenizer", text, "--output", tokenizer, "--vocab-size", 29, "--json").stdout)
    assert made["vocab_size"] == 29
    assert "vocab_size: 29" in invoke("inspect", tokenizer).stdout
    command = ["corpus", text, "--text-encoder", tokenizer, "--output", tmp_path / "cache", "--json"]
    corpus = json.loads(invoke(*command).stdout)
    assert corpus["num_documents"] == 18 and corpus["num_sentences"] == 36
    assert json.loads(invoke("inspect", corpus["output"], "--json").stdout)["kind"] == "corpus"
    shape = ["--size", "tiny", "--max-len", 16, "--batch-size", 3, "--steps", 3]
    command = ["pretrain", corpus["output"], "--text-encoder", tokenizer, "--output", output]
    result = json.loads(invoke(*command, *shape, "--held-out", corpus["output"], "--json").stdout)
    assert result["steps"] == 3 and 0 < result["held_out"]["lm_loss"] < 10
    found = json.loads(invoke("inspect", output, "--json").stdout)
    assert [task["name"] for task in found["tasks"]] == ["lm", "is_next"]
    assert found["encoder"]["config"]["norm_kind"] == "rms"
    assert load_model(output / "model").recipes["pretrain"] == create_recipe("modern")


def test_models_go_to_transformers_and_back(run, tmp_path):
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    made = json.loads(invoke("convert", run[0], theirs, "--json").stdout)
    assert {"config.json", "model.safetensors", "vocab.txt"} <= {*made["files"]}
    found = json.loads(invoke("inspect", theirs, "--json").stdout)
    assert found["config"]["id2label"] == {"0": "down", "1": "up"}
    invoke("convert", theirs, ours, "--to", "bert-keras")
    names = {path.name for path in ours.iterdir()}
    assert names == {"model.weights.h5", "text_encoder"}
    assert "'lm'" not in invoke("inspect", ours).stdout


@pytest.mark.parametrize(
    "command, message",
    [
        (["inspect", "nothing/here"], "There is no nothing/here"),
        (["predict", "nothing"], "nothing is no finished run: it has no model.weights.h5"),
        (["finetune", "x.tsv", "--start", "y"], "`output` is missing: give it as an argument or as --output"),
        (["finetune", "x.pdf", "--start", "y", "--output", "z"], "must end in .tsv, .csv or .txt"),
        (["finetune", "--resume", "nothing"], "there is nothing to go on with"),
        (["pretrain", "x.txt", "--output", "z"], "Give --text-encoder"),
        (["tokenizer", "x.txt", "--output", "z", "--kind", "no"], "--kind must be one of"),
        (["convert", "x", "z", "--to", "no"], "--to must be one of huggingface, pretrained"),
    ],
)
def test_mistakes_are_explained(command, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke(*command, code=1)
    assert message in result.stderr and "Traceback" not in result.stderr and result.stdout == ""


def test_settings_of_files_are_checked(tmp_path):
    path = tmp_path / "run.toml"
    for content, message in (
        ("epoch = 3", r"has unknown keys \['epoch'\]. Known are"),
        ("epochs = '3'", "`epochs` must be of type int. Received: '3'"),
        ("epochs = ", "is no TOML"),
    ):
        path.write_text(content)
        result = invoke("finetune", "--config", path, code=1)
        assert re.search(message, result.stderr), result.stderr


def test_help_shows_examples_and_comes_without_keras():
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom bert_keras.cli import app\n"
        "names = ['tokenizer', 'corpus', 'pretrain', 'finetune', 'predict', 'convert', 'inspect', 'demo']\n"
        "for name in names:\n"
        "    out = CliRunner().invoke(app, [name, '--help']).output\n"
        "    assert f'Example: bert-keras {name}' in out, out\n"
        "sys.exit('keras' if 'keras' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_flags_come_before_the_file_and_the_file_before_defaults(tmp_path):
    from bert_keras.cli.settings import FinetuneSettings, read_settings, save_settings

    path = tmp_path / "run.toml"
    path.write_text('epochs = 7\nlearning_rate = 1\ntask = "a \\"b\\" c"\n', encoding="utf-8")
    settings = read_settings(FinetuneSettings, path, {"epochs": 9, "seed": None})
    assert (settings.epochs, settings.learning_rate, settings.seed, settings.task) == (9, 1.0, 0, 'a "b" c')
    save_settings(settings, tmp_path / "saved")
    assert read_settings(FinetuneSettings, tmp_path / "saved" / "run.toml", {}) == settings
