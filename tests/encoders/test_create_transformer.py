"""What `create_transformer` builds, and what it refuses."""

import keras
import numpy as np
import pytest

from bert_keras import TRANSFORMER_SIZES, create_transformer, encoder_inputs
from bert_keras.encoders.inputs import ENCODER_INPUTS, input_names, select_inputs


def make(**arguments):
    shape = {"embedding_dim": 20, "max_len": 13, "num_layers": 1, "num_heads": 5, "d_hid": 28, "seed": 3}
    return create_transformer(41, **{**shape, **arguments})


def arrays(rows=2, length=7, seed=0):
    tokens = np.random.default_rng(seed).integers(0, 41, (rows, length)).astype("int32")
    return {
        "token_ids": tokens,
        "segment_ids": np.zeros_like(tokens),
        "position_ids": np.tile(np.arange(length, dtype="int32"), (rows, 1)),
        "sequence_ids": np.ones_like(tokens),
    }


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))


def num_parameters(vocab_size, embedding_dim, max_len, num_layers, d_hid, **_):
    embeddings = (vocab_size + max_len + 2) * embedding_dim + 2 * embedding_dim
    attention = 4 * (embedding_dim + 1) * embedding_dim + 2 * embedding_dim
    network = 2 * embedding_dim * d_hid + d_hid + embedding_dim + 2 * embedding_dim
    return embeddings + num_layers * (attention + network)


def test_the_named_sizes_are_the_published_ones():
    """Counts with the pooler, as published (and as `transformers` counts them)."""
    published = {
        "tiny": 4_385_920, "mini": 11_170_560, "small": 28_763_648, "medium": 41_373_184, "base": 109_482_240,
        "large": 335_141_888,
    }  # fmt: skip
    for size, count in published.items():
        shape = TRANSFORMER_SIZES[size]
        pooler = shape["embedding_dim"] * (shape["embedding_dim"] + 1)
        assert num_parameters(30522, max_len=512, **shape) + pooler == count, size
        assert shape["num_heads"] * 64 == shape["embedding_dim"]
    encoder = create_transformer(30522, size="tiny")
    assert encoder.count_params() + 128 * 129 == published["tiny"]


def test_the_defaults_are_bert_base():
    config = make(embedding_dim=None, num_layers=None, num_heads=None, d_hid=None, size="tiny").get_config()
    assert (config["embedding_dim"], config["num_layers"], config["num_heads"], config["d_hid"]) == (
        128,
        2,
        2,
        512,
    )
    assert (
        config["layer_norm_epsilon"] == 1e-12 and config["use_exact_gelu"] and config["embedding_layer_norm"]
    )
    wide = make(embedding_dim=192, num_heads=None, d_hid=None)
    assert (wide.num_heads, wide.d_hid) == (3, 768)


MODERN = {"architecture": "modern", "num_heads": 2}
LOCAL = {**MODERN, "local_window": 4, "global_every": 2, "local_rotary_base": 50.0, "num_layers": 3}


def test_the_modern_encoder_is_a_set_of_choices():
    encoder = make(**MODERN)
    spelled_out = make(
        position_embedding="rotary", norm_placement="pre", norm_kind="rms", use_gated_feedforward=True,
        use_bias=False, skip_first_norm=True, layer_norm_epsilon=1e-6, scale_residual_init=True, num_heads=2,
        embedding_dropout=0.0, attention_dropout=0.0, residual_dropout=0.0, pooler_activation="gelu",
        pooler_norm=True,
    )  # fmt: skip
    assert encoder.config == spelled_out.config
    np.testing.assert_array_equal(to_numpy(encoder(arrays())), to_numpy(spelled_out(arrays())))
    mixed = make(**MODERN, norm_placement="post", attention_dropout=0.2)
    assert (mixed.norm_placement, mixed.attention_dropout, mixed.norm_kind) == ("post", 0.2, "rms")
    assert not mixed.skip_first_norm  # there is no norm before attention that could be left out
    assert not make(**MODERN, embedding_layer_norm=False).skip_first_norm
    assert make(**MODERN, local_window=4).global_every == 3


def test_parameters_of_the_modern_encoder_counted_by_hand():
    embeddings = (41 + 2) * 20 + 20  # tokens and segments, and their norm
    matrices = 20 * 60 + 20 * 20 + 20 * 2 * 28 + 28 * 20  # q, k, v; output; both halves in; out
    norms = 1 * 20 + 2 * 20 + 20  # the first block has one norm, the second two; the last one
    assert make(**MODERN, num_layers=2).count_params() == embeddings + 2 * matrices + norms
    assert all(len(v.shape) == 2 for v in make(**MODERN).weights if not v.path.endswith("gamma"))


@pytest.mark.parametrize(("width", "inner"), [(20, 64), (256, 704), (512, 1344), (768, 2048)])
def test_gated_networks_have_about_as_many_parameters(width, inner):
    gated, plain = (
        make(embedding_dim=width, d_hid=None, num_heads=1, use_gated_feedforward=gated).config
        for gated in (True, False)
    )
    assert (gated.d_hid, plain.d_hid) == (inner, 4 * width)
    if width > 64:
        assert 3 * gated.d_hid == pytest.approx(2 * plain.d_hid, rel=0.04)


@pytest.mark.parametrize("arguments", [{"position_embedding": "rotary", "norm_placement": "pre"}, LOCAL])
def test_the_configuration_rebuilds_it(arguments):
    encoder = make(is_causal=True, **{"num_heads": 5, **arguments})
    again = type(encoder).from_config(encoder.get_config())
    np.testing.assert_array_equal(to_numpy(encoder(arrays())), to_numpy(again(arrays())))
    assert again.is_causal and again.position_embedding == "rotary" and again.max_len == 13


@pytest.mark.parametrize("arguments", [{}, LOCAL])
def test_a_keras_file_brings_it_back(arguments, tmp_path):
    encoder = make(**arguments)
    encoder.save(tmp_path / "encoder.keras")
    again = keras.models.load_model(tmp_path / "encoder.keras")
    np.testing.assert_array_equal(to_numpy(encoder(arrays())), to_numpy(again(arrays())))


def test_one_seed_gives_one_encoder():
    one, same, other = make(), make(), make(seed=4)
    for a, b in zip(one.weights, same.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b))
    kernels = [[to_numpy(v) for v in model.weights if v.path.endswith("kernel")] for model in (one, other)]
    assert all(np.abs(a - b).max() > 0 for a, b in zip(*kernels, strict=True))
    first = kernels[0]
    assert all(np.abs(a - b).max() > 0 for a in first for b in first if a is not b and a.shape == b.shape)


def test_matrices_start_at_the_asked_scale():
    encoder = create_transformer(500, 60, 50, 1, 5, 240, initializer_range=0.05, seed=1)
    for variable in encoder.weights:
        if variable.path.endswith(("kernel", "token_embedding/embeddings")):
            # Keras' truncated normal is cut at two deviations and not widened again: 0.88 of the asked one.
            assert to_numpy(variable).std() == pytest.approx(0.88 * 0.05, rel=0.05), variable.path
        elif variable.path.endswith(("bias", "beta")):
            assert not to_numpy(variable).any()


def test_what_is_added_to_the_hidden_states_starts_smaller():
    encoder = create_transformer(
        50, 60, 50, 2, 5, 240, initializer_range=0.05, scale_residual_init=True, seed=1
    )
    for variable in encoder.weights:
        if variable.path.endswith("kernel"):
            is_added = "attention_output" in variable.path or "feedforward_out" in variable.path
            stddev = 0.05 / 2 if is_added else 0.05  # the square root of twice two layers
            assert to_numpy(variable).std() == pytest.approx(0.88 * stddev, rel=0.05), variable.path


@pytest.mark.parametrize("arguments", [{}, LOCAL])
def test_lengths_are_open(arguments):
    encoder = make(**arguments)
    for length in (1, 7, 13):
        assert encoder(arrays(length=length)).shape == (2, length, 20)


@pytest.mark.parametrize(("one", "share"), [(True, 0.5), (False, 0.125)])
def test_one_or_three_embedding_dropouts(one, share):
    """With one dropout half of the sums are zero, with three those of which all parts were dropped."""
    encoder = make(
        embedding_dim=40, embedding_dropout=0.5, embedding_layer_norm=False, use_one_embedding_dropout=one
    )
    embeddings = encoder.get_layer("embeddings")
    inputs = arrays(rows=40, length=13)
    given = [inputs[name] for name in ("token_ids", "segment_ids", "position_ids")]
    zeros = (to_numpy(embeddings(*given, training=True)) == 0).mean()
    assert zeros == pytest.approx(share, abs=0.02)
    assert (to_numpy(embeddings(*given, training=False)) == 0).mean() < 0.001


@pytest.mark.parametrize("name", ["embedding_dropout", "attention_dropout", "residual_dropout"])
def test_each_dropout_works_in_training_only(name):
    off = {"embedding_dropout": 0.0, "attention_dropout": 0.0, "residual_dropout": 0.0}
    encoder = make(**{**off, name: 0.4})
    inputs = arrays()
    first, second = (to_numpy(encoder(inputs, training=True)) for _ in range(2))
    assert np.abs(first - second).max() > 1e-4
    np.testing.assert_array_equal(to_numpy(encoder(inputs)), to_numpy(encoder(inputs)))
    without = make(**off)
    np.testing.assert_allclose(to_numpy(encoder(inputs)), to_numpy(without(inputs)), atol=1e-6)
    np.testing.assert_allclose(to_numpy(without(inputs, training=True)), to_numpy(without(inputs)), atol=1e-5)


@pytest.mark.parametrize("arguments", [{}, LOCAL])
def test_mixed_precision_stays_close(arguments):
    full, mixed = make(**arguments), make(dtype="mixed_bfloat16", **arguments)
    assert {v.dtype for v in mixed.weights if "seed" not in v.path} == {"float32"}
    output = mixed(arrays())
    assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"
    np.testing.assert_allclose(to_numpy(output), to_numpy(full(arrays())), atol=0.1)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"size": "huge"}, "'base'.*size='huge'"),
        ({"num_heads": 3}, "num_heads=3, embedding_dim=20"),
        ({"max_len": 0}, "max_len=0"),
        ({"num_layers": 1.5}, "num_layers=1.5"),
        ({"d_hid": True}, "d_hid=True"),
        ({"attention_dropout": 1.0}, "attention_dropout=1.0"),
        ({"layer_norm_epsilon": float("inf")}, "layer_norm_epsilon=inf"),
        ({"initializer_range": 0.0}, "initializer_range=0.0"),
        ({"position_embedding": "relative"}, "'relative'"),
        ({"position_embedding": "rotary", "num_heads": 4}, "even width"),
        ({"norm_placement": "middle"}, "'middle'"),
        ({"norm_kind": "batch"}, "'layer_no_bias', 'rms'.*'batch'"),
        ({"activation": "tanh"}, "'tanh'"),
        ({"architecture": "old"}, "'bert', 'modern'.*architecture='old'"),
        ({"activation": "silu", "use_exact_gelu": False}, "use_exact_gelu=False, activation='silu'"),
        ({"rotary_base": 500.0}, "position_embedding='learned', rotary_base=500.0"),
        ({"rotary_base": 0.0}, "rotary_base=0.0"),
        ({**MODERN, "local_rotary_base": 500.0}, "local_rotary_base=500.0, .*local_window=None"),
        ({"local_window": 4, "global_every": 1}, "local_window=4, global_every=1"),
        ({"global_every": 2}, "local_window=None, global_every=2"),
        ({"global_every": 0}, "global_every=0"),
        ({"local_window": 0}, "local_window=0"),
        ({"local_window": True}, "local_window=True"),
        ({"skip_first_norm": True}, "skip_first_norm=True, norm_placement='post'"),
    ],
)
def test_bad_arguments(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        make(**arguments)


def test_inputs_are_given_as_an_encoder_takes_them():
    inputs, given = encoder_inputs(), {name: name for name in ENCODER_INPUTS}
    hidden = keras.layers.Embedding(5, 4)(inputs["token_ids"])
    assert select_inputs(keras.Model(inputs, hidden), given) == given
    assert select_inputs(keras.Model([inputs[n] for n in ENCODER_INPUTS[::-1]], hidden), given) == list(
        ENCODER_INPUTS[::-1]
    )
    assert select_inputs(keras.Model(inputs["token_ids"], hidden), given) == "token_ids"
    nameless = [keras.Input((None,), dtype="int32") for _ in range(4)]
    assert input_names(keras.Model(nameless, keras.layers.Embedding(5, 4)(nameless[0]))) == list(
        ENCODER_INPUTS
    )
    other = keras.Input((None,), dtype="int32", name="words")
    with pytest.raises(ValueError, match=r"token_ids.*inputs \['words'\]"):
        input_names(keras.Model(other, keras.layers.Embedding(5, 4)(other)))


def test_the_shapes_of_all_variables_are_known_beforehand():
    choices = [
        {},
        {"position_embedding": "rotary", "norm_placement": "pre", "num_heads": 2},
        {"position_embedding": "sinusoidal", "embedding_layer_norm": False, "num_layers": 2},
        {"token_embedding_dim": 6, "num_segments": 0, "position_offset": 2, "pooler_activation": "gelu"},
        LOCAL,
        {**MODERN, "norm_placement": "post", "norm_kind": "layer_no_bias", "token_embedding_dim": 6},
    ]
    for arguments in choices:
        encoder = make(**arguments)
        shapes = {variable.path: tuple(variable.shape) for variable in encoder.weights}
        assert list(encoder.config.variable_shapes().items()) == list(shapes.items()), arguments


def test_positions_may_begin_further_down_the_table_and_one_segment_is_everyones():
    inputs = arrays()
    encoder = make(position_offset=3, num_segments=1)
    with_segments = encoder({**inputs, "segment_ids": np.ones_like(inputs["segment_ids"])})
    np.testing.assert_array_equal(to_numpy(encoder(inputs)), to_numpy(with_segments))
    plain = make(max_len=16, num_segments=1)
    plain.set_weights(encoder.get_weights())
    moved = plain({**inputs, "position_ids": inputs["position_ids"] + 3})
    np.testing.assert_array_equal(to_numpy(encoder(inputs)), to_numpy(moved))


def test_narrow_tables_are_projected():
    encoder = make(token_embedding_dim=6, embedding_dropout=0.0)
    inputs = arrays()
    narrow = encoder.token_embedding(inputs["token_ids"])
    assert narrow.shape == (2, 7, 6)
    assert encoder(inputs).shape == (2, 7, 20)


def test_configurations_from_before_the_newest_fields_are_read():
    encoder = make()
    config = encoder.get_config()
    newest = (
        "token_embedding_dim", "position_offset", "pooler_activation", "norm_kind", "pooler_norm",
        "pool_everywhere", "use_bias", "use_gated_feedforward", "activation", "skip_first_norm",
        "scale_residual_init", "rotary_base", "local_rotary_base", "local_window", "global_every",
    )  # fmt: skip
    for field in newest:
        del config[field]
    assert type(encoder).from_config(config).get_config() == encoder.get_config()
