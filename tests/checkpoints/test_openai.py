"""OpenAI's GPT: against a forward pass written from the paper, and its files as published."""

import json
import os
from pathlib import Path

import keras
import numpy as np
import pytest

from bert_keras import load_openai

VOCAB, WIDTH, LAYERS, HEADS, POSITIONS = 41, 28, 3, 7, 19


def arrays_of_a_gpt(seed=0, width=WIDTH, layers=LAYERS, vocab=VOCAB, positions=POSITIONS):
    """In the published order: positions, tokens, then twelve arrays a layer."""
    rng = np.random.default_rng(seed)
    shapes = [(positions, width), (vocab, width)]
    for _ in range(layers):
        shapes += [(1, width, 3 * width), (3 * width,), (1, width, width), (width,), (width,), (width,)]
        shapes += [(1, width, 4 * width), (4 * width,), (1, 4 * width, width), (width,), (width,), (width,)]
    return [(0.3 * rng.standard_normal(shape)).astype("float32") for shape in shapes]


def write(directory, arrays, cuts=(100, 1111, 5000)):
    directory.mkdir(exist_ok=True)
    flat = np.concatenate([array.reshape(-1) for array in arrays])
    stops = [0, *cuts, *np.linspace(cuts[-1], flat.size, 11 - len(cuts))[1:].astype(int)]
    for number in range(10):
        np.save(directory / f"params_{number}.npy", flat[stops[number] : stops[number + 1]])
    (directory / "params_shapes.json").write_text(json.dumps([list(array.shape) for array in arrays]))
    return directory


def norm(x, gain, shift):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * gain + shift


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gpt(arrays, tokens, heads):
    """Radford et al. 2018, section 3.1: h_0 = U W_e + W_p; h_l = block(h_{l-1}); one text, float64."""
    arrays = [array.astype("float64") for array in arrays]
    length = len(tokens)
    hidden = arrays[1][tokens] + arrays[0][:length]
    for layer in range((len(arrays) - 2) // 12):
        qkv, qkv_b, out, out_b, g1, b1, up, up_b, down, down_b, g2, b2 = arrays[
            2 + 12 * layer : 14 + 12 * layer
        ]
        query, key, value = np.split(hidden @ qkv[0] + qkv_b, 3, axis=-1)
        size = query.shape[-1] // heads
        context = np.zeros_like(query)
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            for row in range(length):
                scores = key[: row + 1, part] @ query[row, part] / np.sqrt(size)
                weights = np.exp(scores - scores.max())
                context[row, part] = weights @ value[: row + 1, part] / weights.sum()
        hidden = norm(hidden + context @ out[0] + out_b, g1, b1)
        hidden = norm(hidden + gelu(hidden @ up[0] + up_b) @ down[0] + down_b, g2, b2)
    return hidden


def inputs_for(tokens):
    tokens = np.asarray(tokens, "int32")
    return {
        "token_ids": tokens,
        "segment_ids": np.zeros_like(tokens),
        "position_ids": np.tile(np.arange(tokens.shape[1], dtype="int32"), (tokens.shape[0], 1)),
        "sequence_ids": np.ones_like(tokens),
    }


def test_numbers_agree_with_the_paper(tmp_path):
    arrays = arrays_of_a_gpt()
    encoder = load_openai(write(tmp_path, arrays), is_causal=True, num_heads=HEADS, verbose=0)
    tokens = np.random.default_rng(3).integers(0, VOCAB, (2, 13))
    found = keras.ops.convert_to_numpy(encoder(inputs_for(tokens)))
    for row in range(2):
        difference = np.abs(found[row] - gpt(arrays, tokens[row], HEADS))
        assert difference.mean() < 1e-5
        assert difference.max() < 1e-4


def test_special_tokens_and_positions(tmp_path):
    arrays = arrays_of_a_gpt()
    write(tmp_path, arrays)
    encoder = load_openai(tmp_path, num_heads=HEADS, max_len=11, seed=4, verbose=0)
    table = keras.ops.convert_to_numpy(encoder.token_embedding.embeddings.value)
    assert table.shape == (VOCAB + 5, WIDTH)
    np.testing.assert_array_equal(table[:VOCAB], arrays[1])
    assert 0.005 < table[VOCAB:].std() < 0.05
    assert (encoder.max_len, encoder.num_segments, encoder.is_causal) == (11, 2, False)
    assert f"embeddings/token_embedding/embeddings: rows {VOCAB} to {VOCAB + 4}" in encoder.load_report
    again = load_openai(tmp_path, num_heads=HEADS, max_len=11, seed=4, verbose=0)
    np.testing.assert_array_equal(table, keras.ops.convert_to_numpy(again.token_embedding.embeddings.value))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda arrays: arrays.pop(), "12 more for each layer, got 37"),
        (lambda arrays: arrays.__setitem__(7, arrays[7][:-1]), r"model/h0/ln_1/b: has shape \(27,\)"),
        (lambda arrays: arrays[1].__setitem__((3, 4), np.inf), "not finite.*model/we"),
    ],
)
def test_damaged_weights_are_refused(tmp_path, change, problem):
    arrays = arrays_of_a_gpt()
    change(arrays)
    with pytest.raises(ValueError, match=problem):
        load_openai(write(tmp_path, arrays), num_heads=HEADS, verbose=0)


def test_the_published_shapes_load(tmp_path):
    """All 116,534,784 parameters, as zeros but for a few: takes a gigabyte and ten seconds."""
    data = os.environ.get("BERT_KERAS_DATA")
    if data is None:
        pytest.skip("needs BERT_KERAS_DATA/openai-gpt/params_shapes.json")
    shapes = json.loads((Path(data) / "openai-gpt/params_shapes.json").read_text())
    sizes = [int(np.prod(shape)) for shape in shapes]
    flat = np.zeros(sum(sizes), "float32")
    flat[:] = np.arange(flat.size) % 251
    stops = np.linspace(0, flat.size, 11).astype(int)
    for number in range(10):
        np.save(tmp_path / f"params_{number}.npy", flat[stops[number] : stops[number + 1]])
    (tmp_path / "params_shapes.json").write_text(json.dumps(shapes))
    encoder = load_openai(tmp_path, is_causal=True, verbose=0)
    assert encoder.count_params() == 116_534_784 + 5 * 768
    last = next(v for v in encoder.weights if v.path == "layer_11/feedforward_out/kernel")
    start = sum(sizes[:-4])
    expected = flat[start : start + sizes[-4]].reshape(3072, 768)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(last.value), expected)
