"""Google's TensorFlow checkpoints, written here array by array under their published names."""

import json

import numpy as np
import pytest

tensorflow = pytest.importorskip("tensorflow")
pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from models import answers, check_close, make, rows  # noqa: E402
from transformers.models.bert.modeling_bert import load_tf_weights_in_bert  # noqa: E402

from bert_keras import MultiTaskModel, TaskMetadata, TaskWeightScheduler, load_bert, load_model  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
WIDTH, INNER, LAYERS = 30, 37, 3
CONFIG = {
    "vocab_size": 47,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 5,
    "intermediate_size": INNER,
    "max_position_embeddings": 23,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
}


def google_shapes():
    """Names and shapes as `modeling.py` and `run_pretraining.py` make them."""
    norm = {"LayerNorm/gamma": (WIDTH,), "LayerNorm/beta": (WIDTH,)}
    dense = {"dense/kernel": (WIDTH, WIDTH), "dense/bias": (WIDTH,)}
    shapes = {
        "bert/embeddings/word_embeddings": (47, WIDTH),
        "bert/embeddings/token_type_embeddings": (2, WIDTH),
        "bert/embeddings/position_embeddings": (23, WIDTH),
        **{f"bert/embeddings/{name}": shape for name, shape in norm.items()},
        **{f"bert/pooler/{name}": shape for name, shape in dense.items()},
        **{f"cls/predictions/transform/{name}": shape for name, shape in {**dense, **norm}.items()},
        "cls/predictions/output_bias": (47,),
        "cls/seq_relationship/output_weights": (2, WIDTH),
        "cls/seq_relationship/output_bias": (2,),
    }
    for layer in range(LAYERS):
        place = f"bert/encoder/layer_{layer}"
        for name in ("query", "key", "value"):
            shapes[f"{place}/attention/self/{name}/kernel"] = (WIDTH, WIDTH)
            shapes[f"{place}/attention/self/{name}/bias"] = (WIDTH,)
        shapes |= {f"{place}/attention/output/{name}": shape for name, shape in {**dense, **norm}.items()}
        shapes[f"{place}/intermediate/dense/kernel"] = (WIDTH, INNER)
        shapes[f"{place}/intermediate/dense/bias"] = (INNER,)
        shapes[f"{place}/output/dense/kernel"] = (INNER, WIDTH)
        shapes[f"{place}/output/dense/bias"] = (WIDTH,)
        shapes |= {f"{place}/output/{name}": shape for name, shape in norm.items()}
    return shapes


def write(directory, change=lambda arrays: None, **config):
    rng = np.random.default_rng(5)
    arrays = {
        name: (0.4 * rng.standard_normal(shape) + name.endswith("gamma")).astype("float32")
        for name, shape in google_shapes().items()
    }
    arrays |= {f"{name}/adam_{k}": array for name, array in list(arrays.items())[:3] for k in "mv"}
    arrays["global_step"] = np.int64(7)
    change(arrays)
    directory.mkdir(exist_ok=True)
    tensorflow.raw_ops.SaveV2(
        prefix=str(directory / "bert_model.ckpt"),
        tensor_names=list(arrays),
        shape_and_slices=[""] * len(arrays),
        tensors=list(arrays.values()),
    )
    (directory / "bert_config.json").write_text(json.dumps({**CONFIG, **config}))
    return arrays


def with_heads(encoder):
    schedule = TaskWeightScheduler(True, False)
    lm = TaskMetadata("lm", True, 47, 0.0, schedule)
    return MultiTaskModel(encoder, [lm, TaskMetadata("is_next", False, 2, 0.0, schedule)])


def test_numbers_agree_with_transformers_own_reader(tmp_path):
    write(tmp_path)
    theirs = load_tf_weights_in_bert(
        make("bert"), transformers.BertConfig(**CONFIG), str(tmp_path / "bert_model.ckpt")
    ).eval()
    encoder = load_bert(tmp_path, verbose=0)
    inputs = rows()
    expected, real = answers(theirs, inputs), inputs["sequence_ids"] > 0
    logits = with_heads(encoder)(inputs)
    check_close(encoder(inputs), expected["hidden"], real)
    check_close(logits["lm"], expected["lm"], real)
    check_close(logits["is_next"], expected["is_next"][:, ::-1], np.ones(3, bool))
    assert "adam" in encoder.load_report and "state of the optimizer" in encoder.load_report


def test_saved_and_loaded_again_every_bit_is_there(tmp_path):
    arrays = write(tmp_path)
    model = with_heads(load_bert(tmp_path, verbose=0))
    model.save_weights(tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    kernel = next(w for w in again.weights if w.path == "layer_1/qkv/kernel")
    place = "bert/encoder/layer_1/attention/self"
    parts = [arrays[f"{place}/{name}/kernel"] for name in ("query", "key", "value")]
    np.testing.assert_array_equal(np.array(kernel), np.concatenate(parts, axis=1))


def test_every_fault_is_named_at_once(tmp_path):
    def change(arrays):
        del arrays["bert/encoder/layer_2/output/dense/bias"]
        arrays["bert/embeddings/word_embeddings"] = np.ones((46, WIDTH), "float32")
        arrays["bert/unheard_of"] = np.ones(3, "float32")

    write(tmp_path, change)
    with pytest.raises(ValueError, match="3 faults") as caught:
        load_bert(tmp_path)
    for part in (
        r"bert/encoder/layer_2/output/dense/bias (30,): missing",
        r"bert/embeddings/word_embeddings: has shape (46, 30), expected (47, 30)",
        r"bert/unheard_of (3,): has no place in this encoder",
    ):
        assert part in str(caught.value)


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    def change(arrays):
        arrays["bert/encoder/layer_1/intermediate/dense/kernel"][3, 4] = np.nan

    write(tmp_path, change)
    with pytest.raises(ValueError, match="not finite.*bert/encoder/layer_1/intermediate/dense/kernel"):
        load_bert(tmp_path)
