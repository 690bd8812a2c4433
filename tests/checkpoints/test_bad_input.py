"""What is wrong with a checkpoint is said before anything is built."""

import json
import string

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from bert_keras import (
    BERTTextEncoder,
    MultiTaskModel,
    SentencePieceTextEncoder,
    TaskMetadata,
    create_transformer,
    load_huggingface,
    load_openai,
    save_huggingface,
    verify,
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A small BERT with its masked-LM head, as `save_huggingface` writes it."""
    directory = tmp_path_factory.mktemp("exported")
    encoder = create_transformer(43, 12, 17, 2, 3, 20, seed=1)
    save_huggingface(MultiTaskModel(encoder, [TaskMetadata("lm", True, 43)]), directory, verbose=0)
    return directory


def changed(exported, tmp_path, arrays=lambda a: None, config=lambda c: None):
    """A copy with other arrays or another configuration."""
    content = json.loads((exported / "config.json").read_text())
    loaded = safetensors_numpy.load_file(exported / "model.safetensors")
    config(content)
    arrays(loaded)
    (tmp_path / "config.json").write_text(json.dumps(content))
    safetensors_numpy.save_file(loaded, tmp_path / "model.safetensors")
    return tmp_path


def test_the_unchanged_copy_loads(exported, tmp_path, capsys):
    encoder = load_huggingface(changed(exported, tmp_path))
    printed = capsys.readouterr().out
    assert "loaded   encoder: 37 arrays into 29 variables" in printed
    assert "loaded   head lm" in printed and "fresh    head pooler" in printed
    assert encoder.load_report in printed
    assert verify(encoder, exported) < 1e-6
    assert "largest difference of hidden states" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        (
            lambda a: a.pop("bert.encoder.layer.1.output.dense.weight"),
            r"1 faults:\s+bert.encoder.layer.1.output.dense.weight \(12, 20\): missing",
        ),
        (
            lambda a: a.update({"bert.encoder.layer.2.output.dense.weight": np.ones((12, 20), "float32")}),
            r"layer.2.output.dense.weight \(12, 20\): has no place",
        ),
        (
            lambda a: a.update({"bert.embeddings.LayerNorm.bias": np.ones(13, "float32")}),
            r"LayerNorm.bias: has shape \(13,\), expected \(12,\)",
        ),
        (
            lambda a: a.update({"bert.embeddings.LayerNorm.bias": np.ones(12, "int64")}),
            "LayerNorm.bias: has dtype int64, expected a floating one",
        ),
        (
            lambda a: a.update({"bert.embeddings.LayerNorm.beta": np.ones(12, "float32")}),
            "two spellings of one array",
        ),
        (lambda a: a.pop("cls.predictions.bias"), r"cls.predictions.bias \(43,\): missing"),
        (
            lambda a: a["bert.encoder.layer.0.attention.self.key.weight"].__setitem__((3, 4), np.nan),
            "not finite.*layer.0.attention.self.key.weight",
        ),
        (
            lambda a: a["cls.predictions.transform.dense.bias"].__setitem__(2, -np.inf),
            "not finite.*cls.predictions.transform.dense.bias",
        ),
        (
            lambda a: a.update({"cls.predictions.decoder.weight": np.ones((43, 12), "float32")}),
            "decoder is not tied",
        ),
        (
            lambda a: a.update({"cls.predictions.decoder.weight": np.ones((4, 12), "float32")}),
            "should repeat .*word_embeddings.weight, but its shape differs",
        ),
    ],
)
def test_arrays_that_do_not_fit(exported, tmp_path, arrays, problem):
    with pytest.raises(ValueError, match=problem):
        load_huggingface(changed(exported, tmp_path, arrays), verbose=0)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (lambda c: c.update(model_type="t5"), r"`model_type` must be one of \['bert', .*but is 't5'"),
        (lambda c: c.pop("model_type"), "`model_type` must be one of .*but is None"),
        (lambda c: c.pop("hidden_size"), "`hidden_size` is missing"),
        (lambda c: c.update(hidden_size="12"), "`hidden_size` must be a number, but is '12'"),
        (lambda c: c.update(num_attention_heads=5), "`num_heads` must divide `embedding_dim`"),
        (lambda c: c.update(hidden_act="relu6"), "`hidden_act` must be one of .*but is 'relu6'"),
        (lambda c: c.update(hidden_act=["gelu"]), "`hidden_act` must be one of"),
        (lambda c: c.update(is_decoder=True), "`is_decoder` must be False, but is True"),
        (lambda c: c.update(position_embedding_type="relative_key"), "must be 'absolute'"),
        (lambda c: c.update(num_hidden_layers=1), "bert.encoder.layer.1.*: has no place"),
        (lambda c: c.update(num_hidden_layers=3), "16 faults.*bert.encoder.layer.2.*: missing"),
        (lambda c: c.update(num_hidden_layers=10**9), "says 1000000000 layers, but there are only 42 arrays"),
        (lambda c: c.update(max_position_embeddings=16), r"has shape \(17, 12\), expected \(16, 12\)"),
        (lambda c: c.update(vocab_size=44), r"has shape \(43, 12\), expected \(44, 12\)"),
    ],
)
def test_configurations_that_contradict(exported, tmp_path, config, problem):
    with pytest.raises(ValueError, match=f"(?s){problem}"):
        load_huggingface(changed(exported, tmp_path, config=config), verbose=0)


def test_files_that_are_not_there(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"no file config\.json"):
        load_huggingface(tmp_path)
    (tmp_path / "config.json").write_text("[1")
    with pytest.raises(ValueError, match="not JSON, or it is damaged"):
        load_huggingface(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match="expected a JSON object, got a list"):
        load_huggingface(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"params_shapes\.json"):
        load_openai(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="bert_keras_check"):
        verify(create_transformer(43, 12, 17, 1, 3), tmp_path)


def test_a_name_without_the_hub_or_its_library(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"no directory 'some/name'.*bert_keras\[hub\]"):
        load_huggingface("some/name")


def test_a_name_that_the_hub_does_not_give(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    pytest.importorskip("huggingface_hub.errors")

    def fail(name, **_):
        raise hub.errors.LocalEntryNotFoundError(f"cannot reach the Hub for {name}")

    monkeypatch.setattr(hub, "snapshot_download", fail)
    with pytest.raises(OSError, match="no directory 'some/name', and the Hugging Face Hub gave none"):
        load_huggingface("some/name")


def test_verify_finds_other_weights(exported, tmp_path):
    def other(arrays):
        arrays["bert.encoder.layer.0.output.dense.bias"][3] += 0.5

    assert verify(load_huggingface(changed(exported, tmp_path, other), verbose=0), exported, verbose=0) > 0.01
    with pytest.raises(ValueError, match=r"hidden states of shape \(3, 16, 12\), the encoder gives"):
        verify(create_transformer(43, 15, 17, 1, 3), exported)
    content = (exported / "bert_keras_check.safetensors").read_bytes()
    (tmp_path / "bert_keras_check.safetensors").write_bytes(content[:-7])
    with pytest.raises(ValueError, match="is damaged"):
        verify(load_huggingface(exported, verbose=0), tmp_path)


def test_a_failed_export_leaves_what_was_there(exported, tmp_path, monkeypatch):
    copy = changed(exported, tmp_path)
    before = (copy / "model.safetensors").read_bytes()

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(safetensors_numpy, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_huggingface(load_huggingface(exported, verbose=0), copy, verbose=0)
    assert (copy / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in copy.iterdir()) == ["config.json", "model.safetensors"]


def test_a_text_encoder_that_cannot_be_written_is_refused_before_anything_is(exported, tmp_path):
    copy = changed(exported, tmp_path)
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.ascii_letters]))
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    encoder = load_huggingface(exported, verbose=0)
    sentencepiece = SentencePieceTextEncoder.train(["a bird in the hand"] * 9, vocab_size=17)
    with pytest.raises(ValueError, match="reads no SentencePieceTextEncoder for model_type 'bert'"):
        save_huggingface(encoder, copy, text_encoder=sentencepiece, verbose=0)
    larger = BERTTextEncoder(vocabulary)
    with pytest.raises(ValueError, match=rf"`text_encoder` has {larger.vocab_size} ids.*43 rows"):
        save_huggingface(encoder, copy, text_encoder=larger, verbose=0)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


def test_what_is_left_out_is_said(tmp_path, capsys):
    encoder = create_transformer(43, 12, 17, 1, 3)
    tasks = [TaskMetadata("lm", True, 43), TaskMetadata("to", True, 3), TaskMetadata("is_next", False, 2)]
    save_huggingface(MultiTaskModel(encoder, tasks), tmp_path, task="to")
    assert "BertForTokenClassification, without the tasks ['is_next', 'lm']" in capsys.readouterr().out
