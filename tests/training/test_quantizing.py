"""int8 by hand, in prediction and in files; what is refused."""

import keras
import numpy as np
import pytest

from bert_keras import (
    BERTTextEncoder,
    TaskMetadata,
    add_lora,
    create_lstm,
    create_transformer,
    embed,
    encoder_arrays,
    encoder_inputs,
    extend_vocabulary,
    fill_mask,
    load_model,
    merge_lora,
    predict,
    quantize,
    save_huggingface,
    train_model,
    unfreeze,
)
from bert_keras.training import MultiTaskModel

numpy = keras.ops.convert_to_numpy
WORDS = 53


def tiny(**arguments):
    return create_transformer(WORDS, 12, 16, 2, 3, 20, seed=5, initializer_range=0.3, **arguments)


def tasks():
    return [TaskMetadata("lm", True, WORDS, 0.0), TaskMetadata("parity", False, 2, 0.0)]


def logits_of(model, toy):
    return model.predict_on_batch(encoder_arrays(toy()[0]))


def kernels_of(encoder):
    return {v.path: np.array(numpy(v)) for v in encoder.weights if v.path.endswith(("kernel", "embeddings"))}


def test_integers_by_hand():
    encoder = tiny()
    before, weights = kernels_of(encoder), len(encoder.weights)
    size = quantize(encoder)
    assert size.num_layers == 2 * 4 + 1 and len(encoder.weights) == weights + size.num_layers
    dense = 2 * (12 * 36 + 12 * 12 + 2 * 12 * 20)
    scales = 2 * (36 + 12 + 20 + 12) + WORDS
    assert size.bytes_before - size.bytes_after == 3 * (dense + WORDS * 12) - 4 * scales
    assert f"{size.bytes_after / 1e6:.1f} MB now; 9 layers are int8" in str(size)
    for path, value in kernels_of(encoder).items():
        if "segment" in path or "position" in path:
            np.testing.assert_array_equal(value, before[path])
            continue
        axis = 1 if path.endswith("embeddings") else 0
        scale = 127 / np.abs(before[path]).max(axis=axis, keepdims=True)
        assert value.dtype == np.int8
        assert np.abs(value - np.round(before[path] * scale)).max() <= 1  # Keras adds an epsilon
        assert np.abs(value / scale - before[path]).max() <= 0.51 / scale.min()
    others = [v for v in encoder.weights if not v.path.endswith(("kernel", "embeddings"))]
    assert all(keras.backend.standardize_dtype(v.dtype) == "float32" for v in others)


@pytest.mark.parametrize(("activations", "error"), [(False, 0.05), (True, 0.1)])
@pytest.mark.parametrize("architecture", ["bert", "modern"])
def test_predictions_stay_near(toy, activations, error, architecture):
    model = MultiTaskModel(tiny(architecture=architecture), tasks())
    before = logits_of(model, toy)
    quantize(model, "int8", activations=activations)
    after = logits_of(model, toy)
    for name in before:
        spread = before[name].std()
        assert 0 < np.abs(after[name] - before[name]).mean() < error * spread, name


def test_the_tied_decoder_uses_the_scales():
    model = MultiTaskModel(tiny(), tasks())
    quantize(model)
    table = model.encoder.token_embedding
    rows = numpy(table.embeddings).astype("float32") / numpy(table.embeddings_scale)[:, None]
    features = np.random.default_rng(0).normal(size=(5, 12)).astype("float32")
    head = model.heads["lm"]
    transformed = numpy(head.norm(head.transform(features)))
    expected = transformed @ rows.T + numpy(head.bias)
    np.testing.assert_allclose(numpy(head(features)), expected, rtol=1e-4, atol=1e-5)


def test_files_keep_integers(toy, tmp_path):
    model = MultiTaskModel(tiny(), tasks())
    model.save_weights(tmp_path / "float")
    quantize(model, activations=True)
    model.save_weights(tmp_path / "small")
    expected = logits_of(model, toy)
    given = tiny()
    for loaded in (load_model(tmp_path / "small"), load_model(tmp_path / "small", given)):
        for name, logits in logits_of(loaded, toy).items():
            np.testing.assert_array_equal(logits, expected[name])
    with pytest.raises(ValueError, match="kernel_scale"):
        load_model(tmp_path / "float", given)
    with pytest.raises(ValueError, match="kernel_scale: .* absent here"):
        MultiTaskModel(tiny(), tasks()).load_weights(tmp_path / "small")
    other = MultiTaskModel(tiny(), tasks())
    quantize(other)  # without activations
    with pytest.raises(ValueError, match="other LoRA or int8"):
        other.load_weights(tmp_path / "small")


def test_training_is_refused(toy, tmp_path):
    model = MultiTaskModel(tiny(), tasks())
    quantize(model)
    for use in (
        lambda: train_model(model, tasks(), finetune_generator=toy(), finetune_steps=1, verbose=0),
        lambda: model.fit([toy()[0]]),
        lambda: unfreeze(model),
        lambda: quantize(model),
        lambda: add_lora(model),
        lambda: save_huggingface(model.encoder, tmp_path / "published"),
        lambda: extend_vocabulary(model, None, ["word"]),
    ):
        with pytest.raises(ValueError, match="quantised to int8, so it only predicts"):
            use()


def test_what_cannot_be_quantised():
    encoder = tiny()
    with pytest.raises(ValueError, match="mode='int3'"):
        quantize(encoder, "int3")
    add_lora(encoder, rank=1)
    with pytest.raises(ValueError, match="merge_lora"):
        quantize(encoder)
    merge_lora(encoder)
    assert quantize(encoder).num_layers == 9
    assert quantize(create_lstm(WORDS, 12, 1, seed=1)).num_layers == 1  # the embeddings
    inputs = encoder_inputs()
    bare = keras.Model(inputs, keras.ops.one_hot(inputs["token_ids"], 8))
    with pytest.raises(ValueError, match="no dense layers"):
        quantize(bare)


def test_raw_texts():
    text_encoder = BERTTextEncoder.train([f"the {word} film" for word in ("good", "bad", "fine")] * 2, 33)
    encoder = create_transformer(text_encoder.vocab_size, 12, 16, 1, 3, 20, seed=5)
    model = MultiTaskModel(
        encoder, [TaskMetadata("lm", True, text_encoder.vocab_size), TaskMetadata("kind", False, 2)]
    )
    texts = ["the good film", "the bad"]
    vectors = np.stack(list(embed(model, text_encoder, texts)))
    quantize(model)
    near = np.stack(list(embed(model, text_encoder, texts)))
    assert 0 < np.abs(near - vectors).max() < 0.1
    assert len(list(predict(model, text_encoder, texts, verbose=0))) == 2
    assert fill_mask(model, text_encoder, "the [MASK] film")[0]
