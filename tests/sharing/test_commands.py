"""The command line and shared folders: a run is written as one, and one is used like a run."""

import json

import keras
import pytest
from command_line import invoke

from bert_keras import load_pretrained, save_pretrained
from bert_keras.sharing.runtimes import is_installed


@pytest.fixture
def run(model, text_encoder, tmp_path):
    """What `bert-keras finetune` leaves."""
    folder = tmp_path / "run"
    model.save_weights(folder / "model")
    text_encoder.save(folder / "text_encoder")
    (folder / "run.toml").write_text('train = "train.tsv"\nseed = 0\n', encoding="utf-8")
    table = "epoch,loss,val_mood_accuracy\n0,0.75,0.5\n1,0.25,NA\n"
    (folder / "history.csv").write_text(table, encoding="utf-8")
    return folder


def test_a_run_becomes_a_shared_folder_that_is_used_like_a_run(run, model, tmp_path):
    shared = tmp_path / "shared"
    made = json.loads(invoke("convert", run, shared, "--to", "pretrained", "--json").stdout)
    names = ["README.md", "config.json", "model.safetensors", "text_encoder", "training.json"]
    assert made == {"output": str(shared), "format": "pretrained", "files": names}
    phase = load_pretrained(shared).training["phases"]["finetune"]
    assert phase["history"] == {"loss": [0.75, 0.25], "val_mood_accuracy": [0.5, None]}
    found = json.loads(invoke("inspect", shared, "--json").stdout)
    assert found["kind"] == "model of save_pretrained" and found["parameters"] == model.count_params()
    assert found["tasks"][1]["labels"] == ["down", "up | away"]
    assert found["training"] == {"finetune": {"epochs": 2}}
    assert "mood: is_token_level=False" in invoke("inspect", shared).stdout
    text = "a good film\na dull play\n"
    assert invoke("predict", shared, text=text).stdout == invoke("predict", run, text=text).stdout
    error = invoke("convert", run, shared, "--to", "pretrained", code=1).stderr
    assert "is not empty" in error
    invoke("convert", run, shared, "--to", "pretrained", "--overwrite")
    error = invoke("convert", run, tmp_path / "x", "--overwrite", code=1).stderr
    assert "--overwrite is not for --to huggingface" in error


def test_training_starts_from_a_shared_folder(run, model, text_encoder, tmp_path):
    shared = save_pretrained(model.encoder, tmp_path / "shared", text_encoder, verbose=0)
    assert "holds an encoder without tasks" in invoke("predict", shared, code=1, text="a\n").stderr
    (tmp_path / "train.tsv").write_text("a good film\tup\na bad film\tdown\n" * 3, encoding="utf-8")
    command = ["finetune", tmp_path / "train.tsv", "--start", shared, "--output", tmp_path / "tuned"]
    invoke(*command, "--epochs", 1)
    assert load_pretrained(tmp_path / "tuned").classify("a good film").label in ("up", "down")


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow" or not is_installed("tf2onnx"),
    reason="needs TensorFlow and tf2onnx",
)
def test_a_shared_folder_is_exported(model, text_encoder, tmp_path):
    shared = save_pretrained(model, tmp_path / "shared", text_encoder, verbose=0)
    command = ["convert", shared, tmp_path / "served", "--to", "onnx", "--task", "mood", "--json"]
    made = json.loads(invoke(*command).stdout)
    assert made["files"] == ["model.onnx", "serving.json", "text_encoder"]
    facts = json.loads((tmp_path / "served" / "serving.json").read_text())
    assert facts["outputs"]["mood"]["labels"] == ["down", "up | away"] and len(facts["outputs"]) == 1
