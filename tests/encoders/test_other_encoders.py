"""LSTM, QRNN and TextCNN: their equations in NumPy, padding, packing, saving, learning."""

import keras
import numpy as np
import pytest

from bert_keras import (
    TaskMetadata,
    create_lstm,
    create_qrnn,
    create_text_cnn,
    create_transformer,
    evaluate_model,
    load_model,
    train_model,
)
from bert_keras.encoders.neighbours import linear_recurrence
from bert_keras.training import create_optimizer
from tests.compiled import called

MAKERS = {
    "lstm": lambda **a: create_lstm(40, 8, **{"num_layers": 2, **a}),
    "causal_lstm": lambda **a: create_lstm(40, 7, num_layers=1, bidirectional=False, **a),
    "qrnn": lambda **a: create_qrnn(40, 8, **{"num_layers": 2, **a}),
    "wide_qrnn": lambda **a: create_qrnn(40, 6, num_layers=1, window=3, bidirectional=False, **a),
    "text_cnn": lambda **a: create_text_cnn(40, 8, **{"num_layers": 2, **a}, num_filters=5),
    "transformer": lambda **a: transformer(**a),
    "sinusoidal_transformer": lambda **a: transformer(position_embedding="sinusoidal", **a),
    "rotary_transformer": lambda **a: transformer(position_embedding="rotary", norm_placement="pre", **a),
    "causal_transformer": lambda **a: transformer(is_causal=True, **a),
}
OTHERS = [name for name in MAKERS if "transformer" not in name]


def transformer(**arguments):
    return create_transformer(40, 8, 32, 2, 2, 16, **{"seed": 1, **arguments})


def make(name, **arguments):
    """An encoder whose biases and scales differ from 0 and 1."""
    encoder = MAKERS[name](seed=3, **arguments)
    rng = np.random.default_rng(0)
    for variable in encoder.weights:
        variable.assign(rng.normal(0, 0.5, variable.shape) + ("gamma" in variable.path))
    return encoder


def arrays(*rows, length=16):
    """Rows, each a list of sequences of token ids, packed one after the other. (One length for most tests:
    JAX compiles every operation anew for each.)"""
    made = {name: np.zeros((len(rows), length), "int32") for name in ("token_ids", "segment_ids")}
    made |= {name: np.zeros((len(rows), length), "int32") for name in ("position_ids", "sequence_ids")}
    for number, row in enumerate(rows):
        start = 0
        for sequence, tokens in enumerate(row, 1):
            where = slice(start, start + len(tokens))
            made["token_ids"][number, where] = tokens
            made["segment_ids"][number, where] = np.arange(len(tokens)) > 2
            made["position_ids"][number, where] = np.arange(len(tokens))
            made["sequence_ids"][number, where] = sequence
            start += len(tokens)
    return made


def run(encoder, inputs):
    return keras.ops.convert_to_numpy(keras.ops.cast(called(encoder, inputs), "float32"))


def tokens(size, seed=0):
    return np.random.default_rng([seed, size]).integers(5, 40, size).tolist()


# The equations, for one sequence at a time.


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normalised(x, weights):
    gamma, beta = weights
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * gamma + beta


def lstm_direction(x, kernel, bias, recurrent):
    output, cell, outputs = np.zeros(recurrent.shape[0]), 0, []
    for now in x:
        enter, forget, candidate, leave = np.split(now @ kernel + bias + output @ recurrent, 4)
        cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(candidate)
        output = sigmoid(leave) * np.tanh(cell)
        outputs.append(output)
    return np.array(outputs)


def qrnn_direction(x, kernel, bias, window):
    cell, outputs = 0, []
    padded = np.concatenate([np.zeros((window - 1, x.shape[1])), x])
    for t in range(len(x)):
        seen = padded[t : t + window][::-1].reshape(-1)
        candidate, forget, leave = np.split(seen @ kernel + bias, 3)
        cell = sigmoid(forget) * cell + (1 - sigmoid(forget)) * np.tanh(candidate)
        outputs.append(sigmoid(leave) * cell)
    return np.array(outputs)


def expected(name, encoder, ids, segments):
    weights = {v.path: keras.ops.convert_to_numpy(v.value).astype("float64") for v in encoder.weights}

    def of(part):
        return [value for path, value in weights.items() if path.startswith(f"{part}/")]

    hidden = weights["embeddings/token_embedding/embeddings"][ids]
    hidden = hidden + weights["embeddings/segment_embedding/embeddings"][segments]
    for number in range(encoder.config.num_layers):
        x = normalised(hidden, of(f"norm_{number}"))
        if "cnn" in name:
            found = []
            for width in (2, 3, 4, 5):
                y = x
                for step in range(2):
                    before, after = (width - 1) // 2, width // 2
                    padded = np.pad(y, [(before, after), (0, 0)])
                    windows = [padded[t : t + width].reshape(-1) for t in range(len(y))]
                    kernel, bias = of(f"cnn_{number}/convolution_{width}_{step}")
                    y = np.maximum(
                        0,
                        normalised(
                            np.array(windows) @ kernel + bias, of(f"cnn_{number}/norm_{width}_{step}")
                        ),
                    )
                found.append(y)
            kernel, bias = of(f"cnn_{number}/projection")
            made = np.concatenate(found, -1) @ kernel + bias
        else:
            kind, made = ("lstm" if "lstm" in name else "qrnn"), []
            for direction in range(2 if encoder.config.bidirectional else 1):
                own = [weights[f"{kind}_{number}/{part}_{direction}"] for part in ("kernel", "bias")]
                turned = x[::-1] if direction else x
                if kind == "lstm":
                    y = lstm_direction(turned, *own, weights[f"lstm_{number}/recurrent_kernel_{direction}"])
                else:
                    y = qrnn_direction(turned, *own, encoder.config.window)
                made.append(y[::-1] if direction else y)
            made = np.concatenate(made, -1)
        hidden = hidden + made
    return normalised(hidden, of("final_norm"))


@pytest.mark.parametrize("name", OTHERS)
def test_the_equations(name):
    encoder, rows = make(name), [[tokens(9)], [tokens(4), tokens(5, 1)], [tokens(2)]]
    inputs = arrays(*rows)
    found = run(encoder, inputs)
    for row, sequences in enumerate(rows):
        for number in range(1, len(sequences) + 1):
            own = inputs["sequence_ids"][row] == number
            ids, segments = inputs["token_ids"][row, own], inputs["segment_ids"][row, own]
            np.testing.assert_allclose(
                found[row, own], expected(name, encoder, ids, segments), rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_padding_and_neighbours_change_nothing(name, dtype):
    encoder = make(name, dtype=dtype)
    assert encoder.supports_packing
    first, second, third = tokens(5), tokens(7, 1), tokens(3, 2)
    packed, longer = arrays([first, second, third]), arrays([first, second, third], length=24)
    longer["token_ids"][:, 15:] = 17
    alone = [run(encoder, arrays([part]))[0, : len(part)] for part in (first, second, third)]
    tightly = run(encoder, arrays([second], length=7))[0]
    tolerance = 2e-5 if dtype == "float32" else 0.06
    np.testing.assert_allclose(alone[1], tightly, rtol=tolerance, atol=tolerance)
    for inputs in (packed, longer):
        np.testing.assert_allclose(
            run(encoder, inputs)[0, :15], np.concatenate(alone), rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("name", MAKERS)
def test_gradients_are_the_same_alone_and_packed(name):
    """The gradient of what one sequence says, by the embeddings of another sequence's tokens, is zero, and by
    its own what it is alone: shown by what one step of training changes."""
    first, second = tokens(6), [t + 5 if t < 35 else 35 for t in tokens(5, 1)]

    rates = (
        ["dropout"] if name in OTHERS else [f"{p}_dropout" for p in ("embedding", "attention", "residual")]
    )

    def step(inputs, weights_of_positions):
        encoder = make(name, **dict.fromkeys(rates, 0.0))
        output = keras.layers.Lambda(lambda x: x)(encoder.output)
        model = keras.Model(encoder.inputs, output)
        model.compile(keras.optimizers.SGD(1.0), loss=lambda y, p: keras.ops.sum(y * p))
        given = [inputs[tensor.name] for tensor in encoder.inputs]
        model.train_on_batch(given, weights_of_positions)
        return [keras.ops.convert_to_numpy(v.value) for v in encoder.weights]

    width = make(name).output.shape[-1]
    wanted = np.random.default_rng(0).normal(size=(1, 16, width)).astype("float32")
    wanted[:, len(first) :] = 0.0
    alone, packed = step(arrays([first]), wanted), step(arrays([first, second]), wanted)
    for one, other in zip(alone, packed, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("name", ["causal_lstm", "wide_qrnn"])
def test_one_direction_does_not_see_the_future(name):
    encoder, ids = make(name), tokens(9)
    assert encoder.is_causal
    changed = [*ids[:5], *tokens(4, 7)]
    one, other = run(encoder, arrays([ids])), run(encoder, arrays([changed]))
    np.testing.assert_array_equal(one[:, :5], other[:, :5])
    assert np.abs(one[:, 5] - other[:, 5]).max() > 1e-3
    assert not make(name.split("_")[1]).is_causal


@pytest.mark.parametrize("length", [1, 2, 5, 8, 33])
def test_recurrence_against_a_loop(length):
    rng = np.random.default_rng(length)
    keep, new = (
        rng.random((3, length, 4)).astype("float32"),
        rng.normal(size=(3, length, 4)).astype("float32"),
    )
    state, states = np.zeros((3, 4)), []
    for t in range(length):
        state = keep[:, t] * state + new[:, t]
        states.append(state)
    arrays_ = [keras.ops.convert_to_tensor(a) for a in (keep, new)]
    found = keras.ops.convert_to_numpy(linear_recurrence(*arrays_))
    np.testing.assert_allclose(found, np.stack(states, 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["lstm", "qrnn", "text_cnn"])
def test_they_learn_and_are_saved(name, toy, tmp_path):
    """Masked tokens follow from their neighbours; the loss goes below that of their frequencies."""
    makers = {"lstm": create_lstm, "qrnn": create_qrnn, "text_cnn": create_text_cnn}
    size = {"num_filters": 16} if name == "text_cnn" else {}
    encoder = makers[name](53, 32, 1, dropout=0.0, seed=5, **size)
    tasks = [TaskMetadata("lm", True, 53), TaskMetadata("parity", False, 2, read_from="max")]
    model = train_model(
        encoder, tasks, toy(batch_size=32), pretrain_steps=80,
        pretrain_optimizer=create_optimizer(80, 2e-2), verbose=0,
    )  # fmt: skip
    assert evaluate_model(model, toy())["lm_loss"] < np.log(48) - 0.5
    model.save_weights(tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    assert type(again.encoder) is type(encoder)
    assert again.encoder.get_config() == encoder.get_config()
    inputs = arrays([tokens(7)], [tokens(5, 1)])
    np.testing.assert_array_equal(run(again.encoder, inputs), run(encoder, inputs))


def test_seeds():
    one, same, other = (
        [keras.ops.convert_to_numpy(v.value) for v in create_lstm(40, 8, seed=seed).weights]
        for seed in (1, 1, 2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_dropout_and_segments():
    encoder = create_text_cnn(40, 8, num_segments=0, dropout=0.5)
    inputs = arrays([tokens(9)])
    with_segments = {**inputs, "segment_ids": 1 - inputs["segment_ids"]}
    np.testing.assert_array_equal(run(encoder, inputs), run(encoder, with_segments))
    dropped = keras.ops.convert_to_numpy(encoder(inputs, training=True))
    assert np.abs(dropped - run(encoder, inputs)).max() > 1e-2


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: create_lstm(0), "`vocab_size` must be a whole number of at least 1"),
        (lambda: create_lstm(9, 7), "`embedding_dim` must be even.*7"),
        (lambda: create_qrnn(9, 8, window=0), "`window`"),
        (lambda: create_qrnn(9, 8, dropout=1.0), "`dropout` must be at least 0 and below 1"),
        (lambda: create_text_cnn(9, size="huge"), r"`size` must be one of \['big', 'small', 'tiny'\]"),
        (lambda: create_text_cnn(9, filter_widths=()), "`filter_widths`"),
        (lambda: create_text_cnn(9, num_layers=1.5), "`num_layers`"),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()
