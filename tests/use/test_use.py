"""Trained models in use: numbers by independent computations, order, streams, and what is refused."""

import itertools

import keras
import numpy as np
import pytest

from bert_keras import (
    MultiTaskModel,
    SentencePieceTextEncoder,
    TaskMetadata,
    answer,
    attention_of,
    classify,
    create_lstm,
    create_transformer,
    embed,
    encoder_arrays,
    fill_mask,
    labelled_generator,
    predict,
    sentence_from_text,
    tag,
)
from bert_keras.encoders.inspection import attention_probabilities

TEXTS = ["the cat sat", "a dog", "the cat and the dog sat on the mat and ran", "the end of it"]


@pytest.fixture(scope="module")
def text_encoder():
    lines = ["the cat sat on the mat and ran", "a dog ran to the end of it", "it sat"] * 5
    return SentencePieceTextEncoder.train(lines, vocab_size=29)


@pytest.fixture(scope="module")
def model(text_encoder):
    encoder = create_transformer(
        text_encoder.vocab_size, 12, 61, 2, 3, initializer_range=0.6, position_embedding="rotary", seed=3
    )
    tasks = [
        TaskMetadata("lm", True, text_encoder.vocab_size),
        TaskMetadata("is_next", False, 2),
        TaskMetadata("mood", False, labels=("bad", "good")),
        TaskMetadata("pos", True, labels=("x", "y", "z")),
        TaskMetadata("where", False, kind="span"),
    ]
    return MultiTaskModel(encoder, tasks, seed=1)


def hidden_states(model, text_encoder, text):
    """Of one text alone, `(length, width)`."""
    row = sentence_from_text(text_encoder, text)
    [batch] = labelled_generator([row], pad_id=text_encoder.pad_id, batch_size=1, length_multiple=1)
    return keras.ops.convert_to_numpy(model.encoder(encoder_arrays(batch), training=False))[0]


@pytest.mark.parametrize("pooling", ["mean", "max", "first", "last"])
def test_vectors_are_pooled_hidden_states(model, text_encoder, pooling):
    pool = {"mean": lambda h: h.mean(0), "max": lambda h: h.max(0), "first": lambda h: h[0]}
    pool["last"] = lambda h: h[-1]
    expected = np.stack([pool[pooling](hidden_states(model, text_encoder, text)) for text in TEXTS])
    found = np.stack(list(embed(model, text_encoder, TEXTS, pooling=pooling, batch_size=3)))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(embed(model, text_encoder, TEXTS[2], pooling=pooling), expected[2], atol=1e-5)
    unit = embed(model.encoder, text_encoder, TEXTS[0], pooling=pooling, normalize=True)
    np.testing.assert_allclose(unit, expected[0] / np.linalg.norm(expected[0]), atol=1e-5)


def test_pairs_have_two_segments_and_long_texts_are_cut(model, text_encoder):
    pair, joined = (
        embed(model, text_encoder, ("the cat", "a dog")),
        embed(model, text_encoder, "the cat a dog"),
    )
    assert pair.shape == (12,) and np.abs(pair - joined).max() > 1e-3
    whole_words = "the cat sat the cat"
    room = len(text_encoder.encode(whole_words)) + 2
    cut = embed(model, text_encoder, "the cat sat " * 30, max_len=room)
    np.testing.assert_allclose(cut, embed(model, text_encoder, whole_words), atol=1e-5)


def test_streams_are_read_as_they_are_used(model, text_encoder):
    read = itertools.count()

    def stream():
        while True:
            yield TEXTS[next(read) % 4]

    vectors = embed(model, text_encoder, stream(), batch_size=4)
    first = [next(vectors) for _ in range(5)]
    np.testing.assert_allclose(first[4], first[0], atol=1e-5)
    assert next(read) < 1100


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"pooling": "cls"}, r"`pooling` must be one of .*Received: pooling='cls'"),
        ({"batch_size": 0}, "`batch_size` must be at least 1. Received: batch_size=0"),
        ({"max_len": 2}, "`max_len` must be from 3 to the encoder's 61. Received: 2"),
    ],
)
def test_embed_refuses(model, text_encoder, arguments, message):
    with pytest.raises(ValueError, match=message):
        embed(model, text_encoder, "the cat", **arguments)


def test_only_rotary_positions_go_beyond_max_len(model, text_encoder):
    text = "the cat sat on the mat and ran " * 8
    learned = create_transformer(text_encoder.vocab_size, 12, 61, 2, 3)
    with pytest.raises(ValueError, match="`max_len` must be from 3 to the encoder's 61. Received: 62"):
        embed(learned, text_encoder, text, max_len=62)
    expected = hidden_states(model, text_encoder, text)
    assert len(expected) > 61
    np.testing.assert_allclose(embed(model, text_encoder, text, max_len=500), expected.mean(0), atol=1e-5)


def test_short_texts_are_not_padded_to_max_len(model, text_encoder, monkeypatch):
    seen = []
    for each in (model, model.encoder):
        run = each.predict_on_batch

        def predict_on_batch(x, run=run):
            seen.append(x["token_ids"].shape)
            return run(x)

        monkeypatch.setattr(each, "predict_on_batch", predict_on_batch)
    fill_mask(model, text_encoder, "the [MASK] sat")
    embed(model, text_encoder, "the cat sat")
    classify(model, text_encoder, "the cat sat", task="mood")
    assert len(seen) == 3 and all(length <= 16 for _, length in seen)


def test_what_is_no_text_is_refused(model, text_encoder):
    with pytest.raises(TypeError, match="Received: 3"):
        list(embed(model, text_encoder, ["the cat", 3]))


def test_masks_are_filled_by_the_lm_head(model, text_encoder):
    text, place = "the <gap> sat", 1 + len(text_encoder.encode("the"))
    ids = [*text_encoder.encode("the"), text_encoder.msk_id, *text_encoder.encode("sat")]
    ids = np.array([[text_encoder.bos_id, *ids, text_encoder.eos_id]], "int32")
    arrays = {"token_ids": ids, "segment_ids": 0 * ids, "sequence_ids": 0 * ids + 1}
    arrays["position_ids"] = np.arange(ids.size, dtype="int32")[None]
    logits = np.asarray(keras.ops.convert_to_numpy(model(arrays)["lm"]))[0, place]
    probabilities = np.exp(logits) / np.exp(logits).sum()
    ordinary = [i for i in np.argsort(-logits) if i not in text_encoder.special_ids]
    [found] = fill_mask(model, text_encoder, text, mask="<gap>", top_k=3)
    assert [each.token_id for each in found] == ordinary[:3]
    np.testing.assert_allclose([each.probability for each in found], probabilities[ordinary[:3]], rtol=1e-4)


def test_several_gaps_and_texts_keep_their_order(model, text_encoder):
    texts = ["a [MASK] ran to [MASK] end", "[MASK]", "the cat and the dog sat on the [MASK]"]
    together = list(fill_mask(model, text_encoder, texts, batch_size=2))
    assert [len(gaps) for gaps in together] == [2, 1, 1]
    for text, gaps in zip(texts, together, strict=True):
        alone = fill_mask(model, text_encoder, text)
        for one, other in zip(itertools.chain(*alone), itertools.chain(*gaps), strict=True):
            assert one.token_id == other.token_id
            assert one.probability == pytest.approx(other.probability, rel=1e-3)


def test_fill_mask_refuses(model, text_encoder):
    with pytest.raises(ValueError, match=r"must have a gap, written '\[MASK\]'. Received: 'the cat'"):
        fill_mask(model, text_encoder, "the cat")
    with pytest.raises(ValueError, match="`top_k` must be from 1 to .*top_k=0"):
        fill_mask(model, text_encoder, "[MASK]", top_k=0)
    with pytest.raises(ValueError, match="tokens, more than 61"):
        fill_mask(model, text_encoder, "[MASK]" + " the" * 80)
    with pytest.raises(TypeError, match="must be a string"):
        list(fill_mask(model, text_encoder, [("a", "b")]))
    causal = MultiTaskModel(
        create_transformer(text_encoder.vocab_size, 6, 9, 1, 1, is_causal=True), model.tasks[:1]
    )
    with pytest.raises(ValueError, match="is causal"):
        fill_mask(causal, text_encoder, "[MASK]")
    with pytest.raises(ValueError, match=r"must have the task 'lm'. It has: \['mood'\]"):
        fill_mask(MultiTaskModel(model.encoder, [model.tasks[2]]), text_encoder, "[MASK]")


def test_labels_are_those_of_predict(model, text_encoder):
    expected = list(predict(model, text_encoder, TEXTS, tasks=["mood", "pos"], verbose=0))
    assert list(classify(model, text_encoder, TEXTS)) == [each["mood"] for each in expected]
    assert list(tag(model, text_encoder, TEXTS)) == [each["pos"] for each in expected]
    assert classify(model, text_encoder, TEXTS[1]).label == expected[1]["mood"].label
    assert [word.word for word in tag(model, text_encoder, TEXTS[1])] == ["a", "dog"]
    question = ("who ran?", "a dog ran to the end of it")
    [span] = predict(model, text_encoder, [question], tasks=["where"], verbose=0)
    assert answer(model, text_encoder, question) == span["where"]
    is_next = classify(model, text_encoder, ("it sat", "a dog ran"), task="is_next")
    assert is_next.label in (0, 1)


def test_a_task_that_is_not_clear_is_refused(model, text_encoder):
    told = r"a sentence-level task of the model: \['a', 'b'\]. Received: task=None"
    several = MultiTaskModel(model.encoder, [TaskMetadata("a", False, 2), TaskMetadata("b", False, 2)])
    with pytest.raises(ValueError, match=told):
        classify(several, text_encoder, "it")
    with pytest.raises(ValueError, match=r"a token-level task of the model: \[\]. .*tasks: \['a', 'b'\]"):
        tag(several, text_encoder, "it")
    with pytest.raises(ValueError, match=r"a span task of the model: \['where'\]. Received: task='pos'"):
        answer(model, text_encoder, ("it", "it"), task="pos")


def softmax_by_hand(encoder, arrays):
    """Attention of a pre- or post-norm transformer with rotary positions, in float64, pair by pair."""
    weights = {
        variable.path: np.array(keras.ops.convert_to_numpy(variable.value), "float64")
        for variable in encoder.weights
    }

    def norm(x, path):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + encoder.layer_norm_epsilon)
        return x * weights[f"{path}/gamma"] + weights[f"{path}/beta"]

    def dense(x, path):
        return x @ weights[f"{path}/kernel"] + weights[f"{path}/bias"]

    ids, heads = arrays["token_ids"], encoder.num_heads
    x = weights["embeddings/token_embedding/embeddings"][ids]
    x = x + weights["embeddings/segment_embedding/embeddings"][arrays["segment_ids"]]
    x = norm(x, "embeddings/norm")
    size = encoder.embedding_dim // heads
    angles = arrays["position_ids"][..., None] * 10000.0 ** (-np.arange(0, size, 2) / size)
    maps = []
    for layer in range(encoder.num_layers):
        query, key, value = np.split(dense(x, f"layer_{layer}/qkv"), 3, -1)
        context = np.zeros_like(x)
        own = np.zeros((len(ids), heads, ids.shape[1], ids.shape[1]))
        for row, head in itertools.product(range(len(ids)), range(heads)):
            part = slice(head * size, (head + 1) * size)

            def turned(y, row=row, part=part):
                y = y[row, :, part]
                z = (y[:, : size // 2] + 1j * y[:, size // 2 :]) * np.exp(1j * angles[row])
                return np.concatenate([z.real, z.imag], -1)

            scores = turned(query) @ turned(key).T / np.sqrt(size)
            seen = arrays["sequence_ids"][row][:, None] == arrays["sequence_ids"][row][None]
            if encoder.is_causal:
                seen &= np.tri(len(seen), dtype=bool)
            weight = np.where(seen, np.exp(scores - scores.max()), 0.0)
            own[row, head] = weight / weight.sum(-1, keepdims=True)
            context[row, :, part] = own[row, head] @ value[row, :, part]
        maps.append(own)
        x = norm(x + dense(context, f"layer_{layer}/attention_output"), f"layer_{layer}/attention_norm")
        inner = keras.ops.convert_to_numpy(
            keras.ops.gelu(dense(x, f"layer_{layer}/feedforward_in"), approximate=False)
        )
        x = norm(x + dense(inner, f"layer_{layer}/feedforward_out"), f"layer_{layer}/feedforward_norm")
    return np.stack(maps)


@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_is_the_softmax_by_hand(is_causal):
    encoder = create_transformer(
        23, 12, 11, 2, 3, 7, is_causal, position_embedding="rotary", initializer_range=0.7, seed=5
    )
    rng = np.random.default_rng(0)
    arrays = {
        "token_ids": rng.integers(0, 23, (2, 7)).astype("int32"),
        "segment_ids": rng.integers(0, 2, (2, 7)).astype("int32"),
        "position_ids": np.tile(np.arange(7, dtype="int32"), (2, 1)),
        "sequence_ids": np.array([[1] * 7, [1] * 3 + [2] * 2 + [0] * 2], "int32"),
    }
    before = keras.ops.convert_to_numpy(encoder(arrays, training=False))
    found = attention_probabilities(encoder, arrays)
    assert found.shape == (2, 2, 3, 7, 7)
    np.testing.assert_allclose(found, softmax_by_hand(encoder, arrays), atol=2e-5)
    assert found.max() > 0.5  # not a case of even attention
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(encoder(arrays, training=False)), before)


def test_attention_of_a_text_has_its_tokens(model, text_encoder):
    seen = attention_of(model, text_encoder, ("the cat", "a dog"))
    ids = [*text_encoder.encode("the cat"), text_encoder.del_id, *text_encoder.encode("a dog")]
    ids = [text_encoder.bos_id, *ids, text_encoder.eos_id]
    assert seen.tokens == [text_encoder.id_to_token(i) for i in ids]
    assert seen.probabilities.shape == (2, 3, len(ids), len(ids))
    np.testing.assert_allclose(seen.probabilities.sum(-1), 1.0, atol=1e-5)


def test_only_transformers_have_attention(text_encoder):
    with pytest.raises(TypeError, match="Only transformers .*Received: LSTMEncoder"):
        attention_of(create_lstm(text_encoder.vocab_size, 8, 1), text_encoder, "the cat")
