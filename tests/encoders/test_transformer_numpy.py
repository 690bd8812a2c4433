"""The transformer against a forward pass written in NumPy from the papers."""

import math

import keras
import numpy as np
import pytest

from bert_keras import create_transformer

VOCAB, WIDTH, MAX_LEN, LAYERS, HEADS, INNER, ROWS, LENGTH = 41, 20, 13, 3, 5, 28, 3, 7
EPSILON = 1e-5
erf = np.vectorize(math.erf)


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


class Reference:
    def __init__(self, encoder):
        self.encoder = encoder
        self.weights = {v.path: keras.ops.convert_to_numpy(v).astype("float64") for v in encoder.weights}

    def norm(self, x, name):
        if self.encoder.norm_kind == "rms":
            return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON) * self.weights[f"{name}/gamma"]
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
        beta = self.weights[f"{name}/beta"] if self.encoder.norm_kind == "layer" else 0
        return scaled * self.weights[f"{name}/gamma"] + beta

    def dense(self, x, name):
        bias = self.weights[f"{name}/bias"] if self.encoder.use_bias else 0
        return x @ self.weights[f"{name}/kernel"] + bias

    def feedforward(self, x, name):
        inner = self.dense(x, f"{name}/feedforward_in")
        if self.encoder.use_gated_feedforward:
            inner = self.activated(inner[:, :INNER]) * inner[:, INNER:]
        else:
            inner = self.activated(inner)
        return self.dense(inner, f"{name}/feedforward_out")

    def activated(self, x):
        if self.encoder.activation == "silu":
            return x / (1 + np.exp(-x))
        if self.encoder.activation == "relu_squared":
            return np.maximum(x, 0) ** 2
        if self.encoder.use_exact_gelu:
            return 0.5 * x * (1 + erf(x / np.sqrt(2)))
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    def rotated(self, x, positions, base):
        half = x.shape[-1] // 2
        turned = np.empty_like(x)
        for k in range(half):
            angle = positions[:, None] * base ** (-2 * k / x.shape[-1])
            a, b = x[..., k], x[..., k + half]
            turned[..., k] = a * np.cos(angle) - b * np.sin(angle)
            turned[..., k + half] = a * np.sin(angle) + b * np.cos(angle)
        return turned

    def attention(self, x, layer, positions, sequences, mask):
        encoder, name = self.encoder, f"layer_{layer}"
        is_local = encoder.local_window is not None and layer % encoder.global_every > 0
        base = encoder.local_rotary_base if is_local and encoder.local_rotary_base else encoder.rotary_base
        reach = encoder.local_window // 2 if is_local else len(x)
        query, key, value = (
            part.reshape(len(x), HEADS, -1) for part in np.split(self.dense(x, f"{name}/qkv"), 3, axis=-1)
        )
        if self.encoder.position_embedding == "rotary":
            query, key = self.rotated(query, positions, base), self.rotated(key, positions, base)
        result = np.zeros_like(query)
        for i in range(len(x)):
            seen = [
                j
                for j in range(len(x))
                if sequences[i] == sequences[j]
                and not (encoder.is_causal and j > i)
                and mask[i, j]
                and abs(positions[i] - positions[j]) <= reach
            ]
            for head in range(HEADS):
                scores = softmax(key[seen, head] @ query[i, head] / np.sqrt(WIDTH // HEADS))
                result[i, head] = scores @ value[seen, head]
        return self.dense(result.reshape(len(x), WIDTH), f"{name}/attention_output")

    def row(self, tokens, segments, positions, sequences, mask):
        w = self.weights
        x = (
            w["embeddings/token_embedding/embeddings"][tokens]
            + w["embeddings/segment_embedding/embeddings"][segments]
        )
        if self.encoder.position_embedding == "learned":
            x = x + w["embeddings/position_embedding/embeddings"][positions]
        elif self.encoder.position_embedding == "sinusoidal":
            for place, position in enumerate(positions):
                for column in range(WIDTH):
                    angle = position / 10000 ** ((column - column % 2) / WIDTH)
                    x[place, column] += math.cos(angle) if column % 2 else math.sin(angle)
        if self.encoder.embedding_layer_norm:
            x = self.norm(x, "embeddings/norm")
        for layer in range(LAYERS):
            name = f"layer_{layer}"
            if self.encoder.norm_placement == "pre":
                is_plain = layer == 0 and self.encoder.skip_first_norm
                normed = x if is_plain else self.norm(x, f"{name}/attention_norm")
                x = x + self.attention(normed, layer, positions, sequences, mask)
                x = x + self.feedforward(self.norm(x, f"{name}/feedforward_norm"), name)
            else:
                x = x + self.attention(x, layer, positions, sequences, mask)
                x = self.norm(x, f"{name}/attention_norm")
                x = self.norm(x + self.feedforward(x, name), f"{name}/feedforward_norm")
        return self.norm(x, "final_norm") if self.encoder.norm_placement == "pre" else x


LOCAL = {"local_window": 5, "global_every": 2, "local_rotary_base": 100.0, "rotary_base": 5000.0}
MODERN = {"architecture": "modern"}


def make(**arguments):
    arguments = {"layer_norm_epsilon": EPSILON, "initializer_range": 0.3, "seed": 11, **arguments}
    sizes = (VOCAB, WIDTH, arguments.pop("max_len", MAX_LEN), LAYERS, HEADS, INNER)
    encoder = create_transformer(*sizes, **arguments)
    rng = np.random.default_rng(2)
    for variable in encoder.weights:  # no norm or bias stays at 1 or 0
        if variable.path.endswith(("gamma", "beta", "bias")):
            variable.assign(rng.normal(0.5, 0.3, variable.shape))
    return encoder


def make_inputs(lengths=(7, 4, 2), seed=0):
    rng = np.random.default_rng(seed)
    real = np.arange(LENGTH) < np.array(lengths)[:, None]
    return {
        "token_ids": rng.integers(0, VOCAB, (ROWS, LENGTH)).astype("int32"),
        "segment_ids": rng.integers(0, 2, (ROWS, LENGTH)).astype("int32"),
        "position_ids": np.tile(np.arange(LENGTH, dtype="int32"), (ROWS, 1)),
        "sequence_ids": real.astype("int32"),
    }


def run(encoder, inputs):
    return keras.ops.convert_to_numpy(encoder(inputs, training=False))


def check(encoder, inputs, mask=None):
    given = run(encoder, inputs if mask is None else {**inputs, "attention_mask": mask})
    reference = Reference(encoder)
    mask = np.ones((ROWS, 1, LENGTH, LENGTH), bool) if mask is None else mask
    for row in range(ROWS):
        real = inputs["sequence_ids"][row] > 0
        names = ("token_ids", "segment_ids", "position_ids", "sequence_ids")
        expected = reference.row(*(inputs[name][row] for name in names), mask[row, 0])
        np.testing.assert_allclose(given[row][real], expected[real], atol=3e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"is_causal": True, "use_exact_gelu": False, "embedding_layer_norm": False},
        {"position_embedding": "sinusoidal"},
        {"position_embedding": "rotary"},
        {"position_embedding": "rotary", "norm_placement": "pre", "is_causal": True},
        {"norm_placement": "pre", "use_one_embedding_dropout": False},
        MODERN,
        {**MODERN, **LOCAL},
        {**MODERN, **LOCAL, "is_causal": True, "norm_kind": "layer_no_bias", "activation": "silu"},
        {**MODERN, "position_embedding": "learned", "local_window": 2, "norm_placement": "post"},
        {"norm_kind": "rms", "activation": "relu_squared", "use_gated_feedforward": True},
        {"norm_kind": "layer_no_bias", "use_bias": False, "local_window": 3, "use_exact_gelu": False},
    ],
)
def test_hidden_states_equal_the_papers(arguments):
    check(make(**arguments), make_inputs())


@pytest.mark.parametrize("arguments", [{}, {**MODERN, **LOCAL}])
def test_an_attention_mask_narrows_what_is_seen(arguments):
    mask = np.random.default_rng(5).random((ROWS, 1, LENGTH, LENGTH)) < 0.6
    mask |= np.eye(LENGTH, dtype=bool)
    check(make(**arguments), make_inputs(), mask)


@pytest.mark.parametrize(
    "arguments",
    [
        {"position_embedding": "learned"},
        {"position_embedding": "rotary"},
        {**MODERN, "local_window": 2},
        {**MODERN, **LOCAL, "is_causal": True},
    ],
)
def test_packed_sequences_do_not_see_one_another(arguments):
    encoder, inputs = make(**arguments), make_inputs((7, 7, 7))
    packed = dict(inputs)
    packed["sequence_ids"] = np.array([[1, 1, 1, 2, 2, 2, 0]] * ROWS, "int32")
    packed["position_ids"] = np.array([[0, 1, 2, 0, 1, 2, 0]] * ROWS, "int32")
    together = run(encoder, packed)
    for start in (0, 3):
        alone = {name: array[:, start : start + 3] for name, array in packed.items()}
        alone["sequence_ids"] = np.ones((ROWS, 3), "int32")
        np.testing.assert_allclose(together[:, start : start + 3], run(encoder, alone), atol=1e-5)


@pytest.mark.parametrize("arguments", [{}, {**MODERN, **LOCAL}])
def test_padding_and_the_future_leave_no_trace(arguments):
    encoder, inputs = make(**arguments), make_inputs()
    other = {name: array.copy() for name, array in inputs.items()}
    other["token_ids"][inputs["sequence_ids"] == 0] = 3
    real = inputs["sequence_ids"] > 0
    np.testing.assert_array_equal(run(encoder, inputs)[real], run(encoder, other)[real])
    causal, later = make(is_causal=True, **arguments), make_inputs((7, 7, 7))
    changed = {name: array.copy() for name, array in later.items()}
    changed["token_ids"][:, 4:] = 1
    np.testing.assert_array_equal(run(causal, later)[:, :4], run(causal, changed)[:, :4])
    assert np.abs(run(causal, later)[:, 4:] - run(causal, changed)[:, 4:]).max() > 1e-2


@pytest.mark.parametrize("arguments", [{}, {"norm_placement": "pre"}, MODERN, {**MODERN, **LOCAL}])
def test_states_at_are_those_of_the_whole_output(arguments):
    encoder, inputs = make(**arguments), make_inputs()
    places = np.array([0, 3, 3, 9, 15], "int32")
    states = keras.ops.convert_to_numpy(encoder.states_at(inputs, places))
    np.testing.assert_allclose(states, run(encoder, inputs).reshape(-1, WIDTH)[places], atol=1e-5)


def test_rotary_positions_go_on_beyond_max_len():
    check(make(**MODERN, **LOCAL, max_len=4), make_inputs())
