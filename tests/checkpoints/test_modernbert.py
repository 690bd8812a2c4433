"""What ModernBERT has that the other types have not."""

import json
import math

import keras
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from bert_keras import (  # noqa: E402
    ModernBERTTextEncoder,
    MultiTaskModel,
    TaskMetadata,
    create_transformer,
    load_huggingface,
    load_model,
    load_text_encoder,
    save_huggingface,
)
from bert_keras.checkpoints.configs import config_from_json  # noqa: E402
from tests.checkpoints.models import answers, check_close, make, rows  # noqa: E402
from tests.checkpoints.test_parity import same_arrays, with_heads  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def change(directory, **fields):
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_packed_rows_agree_with_single_ones(tmp_path):
    theirs = make("modernbert")
    theirs.save_pretrained(tmp_path)
    single, lengths = rows(lengths=(13, 8, 11)), (13, 8, 11)
    expected = answers(theirs, single)
    packed = {
        name: np.concatenate([array[i, :length] for i, length in enumerate(lengths)])[None]
        for name, array in single.items()
    }
    packed["sequence_ids"] = np.repeat([1, 2, 3], lengths)[None].astype("int32")
    model = with_heads(load_huggingface(tmp_path, verbose=0), "lm")
    for ours, name in ((model.encoder(packed), "hidden"), (model(packed)["lm"], "lm")):
        together = np.concatenate([expected[name][i, :length] for i, length in enumerate(lengths)])[None]
        check_close(ours, together, np.ones((1, sum(lengths)), bool))


def test_longer_than_published_positions(tmp_path):
    theirs = make("modernbert")  # of 23 positions
    theirs.save_pretrained(tmp_path)
    inputs = rows(lengths=(61, 40))
    encoder = load_huggingface(tmp_path, max_len=61, verbose=0)
    check_close(encoder(inputs), answers(theirs, inputs)["hidden"], inputs["sequence_ids"] > 0)
    assert encoder.max_len == 61


def test_windows_matter_here(tmp_path):
    """The comparisons would mean little if a wrong window gave the same numbers."""
    make("modernbert").save_pretrained(tmp_path)
    inputs = rows()
    narrow = keras.ops.convert_to_numpy(load_huggingface(tmp_path, verbose=0)(inputs))
    for fields in ({"local_attention": 8}, {"local_rope_theta": 80.0}, {"global_attn_every_n_layers": 2}):
        change(tmp_path, local_attention=6, local_rope_theta=70.0, global_attn_every_n_layers=3)
        change(tmp_path, **fields)
        other = keras.ops.convert_to_numpy(load_huggingface(tmp_path, verbose=0)(inputs))
        assert np.abs(narrow - other)[inputs["sequence_ids"] > 0].max() > 1e-3, fields


def test_one_base_for_all(tmp_path):
    theirs = make("modernbert", local_rope_theta=None, global_rope_theta=300.0)
    theirs.save_pretrained(tmp_path / "theirs")
    encoder = load_huggingface(tmp_path / "theirs", verbose=0)
    assert (encoder.rotary_base, encoder.local_rotary_base) == (300.0, None)
    inputs = rows()
    check_close(encoder(inputs), answers(theirs, inputs)["hidden"], inputs["sequence_ids"] > 0)
    save_huggingface(encoder, tmp_path / "ours", verbose=0)
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["local_rope_theta"] is None
    check_close(
        encoder(inputs),
        answers(transformers.AutoModel.from_pretrained(tmp_path / "ours"), inputs)["hidden"],
        inputs["sequence_ids"] > 0,
    )


def test_sentences_may_be_read_by_a_mean(tmp_path):
    theirs = make(
        "modernbert", "ModernBertForSequenceClassification", num_labels=3, classifier_pooling="mean"
    )
    theirs.save_pretrained(tmp_path / "theirs")
    encoder = load_huggingface(tmp_path / "theirs", verbose=0)
    assert 'trained on a mean: give its task read_from="mean"' in encoder.load_report
    model = MultiTaskModel(encoder, [TaskMetadata("classifier", False, 3, read_from="mean")])
    inputs = rows()
    check_close(model(inputs)["classifier"], answers(theirs, inputs)["lm"], np.ones(3, bool))
    save_huggingface(model, tmp_path / "ours", verbose=0)
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["classifier_pooling"] == "mean"
    same_arrays(tmp_path / "theirs", tmp_path / "ours")


def test_a_text_encoder_goes_along(tmp_path):
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    tokens = [*letters, "ab", "   ", "[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    text_encoder = ModernBERTTextEncoder.from_vocabulary(tokens, ["a b"], plain_tokens=["   "])
    make("modernbert").save_pretrained(tmp_path / "theirs")
    encoder = load_huggingface(tmp_path / "theirs", verbose=0)
    save_huggingface(encoder, tmp_path / "ours", text_encoder=text_encoder, verbose=0)
    config = transformers.AutoConfig.from_pretrained(tmp_path / "ours")
    assert (config.pad_token_id, config.cls_token_id, config.sep_token_id) == (31, 29, 30)
    assert (config.bos_token_id, config.eos_token_id) == (29, 30)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert (
        theirs("abc   a")["input_ids"] == [29, *text_encoder.encode("abc   a"), 30] == [29, 26, 2, 27, 0, 30]
    )
    assert load_text_encoder(tmp_path / "ours").fingerprint == text_encoder.fingerprint


def test_it_survives_our_own_format(tmp_path):
    make("modernbert").save_pretrained(tmp_path / "theirs")
    model = with_heads(load_huggingface(tmp_path / "theirs", verbose=0), "lm")
    model.save_weights(tmp_path / "saved")
    save_huggingface(load_model(tmp_path / "saved"), tmp_path / "ours", verbose=0)
    same_arrays(tmp_path / "theirs", tmp_path / "ours")


@pytest.mark.parametrize(
    ("sizes", "millions"),
    [
        ({}, 149),
        (dict(hidden_size=1024, intermediate_size=2624, num_hidden_layers=28, num_attention_heads=16), 395),
    ],
)
def test_both_published_sizes(sizes, millions):
    """Counts of parameters without any: from our configuration, and from `transformers` without memory."""
    theirs = transformers.ModernBertConfig(**sizes)
    config = config_from_json("modernbert", theirs.to_dict(), "config.json")
    count = sum(math.prod(shape) for shape in config.variable_shapes().values())
    with torch.device("meta"):
        model = transformers.ModernBertModel(theirs)
    assert count == sum(parameter.numel() for parameter in model.parameters())
    head = config.embedding_dim**2 + config.embedding_dim + config.vocab_size
    assert round((count + head) / 1e6) in (millions, millions + 1)
    assert (config.max_len, config.local_window, config.global_every) == (8192, 128, 3)
    assert (config.rotary_base, config.local_rotary_base) == (160000.0, 10000.0)
    assert [config.is_local(layer) for layer in range(4)] == [False, True, True, False]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"norm_bias": True}, "`norm_bias` must be False, but is True"),
        (
            {"attention_bias": True, "mlp_bias": True},
            "`attention_bias` must be False.*`mlp_bias` must be False",
        ),
        ({"classifier_activation": "relu"}, "`classifier_activation` must be 'gelu', but is 'relu'"),
        ({"decoder_bias": False}, "`decoder_bias` must be True"),
        ({"hidden_activation": "silu"}, r"`hidden_activation` must be one of \['gelu'\], but is 'silu'"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "`rope_scaling` must be None"),
        ({"global_attn_every_n_layers": 1}, "global_every=1"),
        ({"local_rope_theta": "far"}, "`local_rope_theta` must be a number"),
        ({"hidden_size": None}, "`hidden_size` is missing"),
    ],
)
def test_what_is_not_supported_is_refused(fields, problem, tmp_path):
    make("modernbert").save_pretrained(tmp_path)
    change(tmp_path, **fields)
    with pytest.raises(ValueError, match=problem):
        load_huggingface(tmp_path)


def test_the_first_block_has_no_norm_before_attention(tmp_path):
    from safetensors import numpy as safetensors_numpy

    make("modernbert").save_pretrained(tmp_path)
    arrays = safetensors_numpy.load_file(tmp_path / "model.safetensors")
    arrays["model.layers.0.attn_norm.weight"] = arrays["model.layers.1.attn_norm.weight"]
    safetensors_numpy.save_file(arrays, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"model.layers.0.attn_norm.weight \(30,\): has no place"):
        load_huggingface(tmp_path)


def test_encoders_made_here_go_out_if_they_are_of_its_form(tmp_path):
    choices = dict(
        architecture="modern", norm_kind="layer_no_bias", num_segments=0, local_window=4, pool_everywhere=True
    )
    encoder = create_transformer(47, 30, 23, 4, 5, 37, **choices)
    save_huggingface(encoder, tmp_path / "ours", verbose=0)
    theirs = transformers.AutoModel.from_pretrained(tmp_path / "ours")
    assert type(theirs).__name__ == "ModernBertModel"
    inputs = rows()
    theirs.eval()
    check_close(encoder(inputs), answers(theirs, inputs)["hidden"], inputs["sequence_ids"] > 0)
    with pytest.raises(ValueError) as error:
        save_huggingface(create_transformer(47, 30, 23, 1, 5, architecture="modern"), tmp_path / "x")
    for problem in (
        "\n  bert: norm_kind='rms' (must be 'layer')",
        "use_bias=False (must be True)",
        "modernbert: ",
        "norm_kind='rms' (must be 'layer_no_bias')",
        "local_window=None (must be a number)",
        "pool_everywhere=False (must be True)",
    ):
        assert problem in str(error.value)
