"""Loaded encoders and heads give the numbers of `transformers`, and go back bit by bit."""

import dataclasses

import keras
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from models import LM_CLASSES, TYPES, answers, check_close, make, make_published, rows  # noqa: E402
from safetensors import numpy as safetensors_numpy  # noqa: E402

from bert_keras import (  # noqa: E402
    MultiTaskModel,
    TaskMetadata,
    TaskWeightScheduler,
    load_huggingface,
    load_model,
    load_openai,
    save_huggingface,
    verify,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
SCHEDULE = TaskWeightScheduler(True, True)


def with_heads(encoder, *tasks):
    known = {
        "lm": TaskMetadata("lm", True, encoder.vocab_size, 0.0, SCHEDULE),
        "is_next": TaskMetadata("is_next", False, 2, 0.0, SCHEDULE),
        "sentence": TaskMetadata("classifier", False, 3, 0.0, SCHEDULE),
        "token": TaskMetadata("classifier", True, 3, 0.0, SCHEDULE),
    }
    return MultiTaskModel(encoder, [known[task] for task in tasks])


@pytest.mark.parametrize("model_type", TYPES)
def test_hidden_states_and_logits_agree(model_type, tmp_path):
    theirs = make(model_type)
    theirs.save_pretrained(tmp_path)
    encoder = load_huggingface(tmp_path, verbose=0)
    inputs = rows()
    expected, real = answers(theirs, inputs), inputs["sequence_ids"] > 0
    check_close(encoder(inputs), expected["hidden"], real)
    model = with_heads(encoder, *(["lm", "is_next"] if model_type == "bert" else ["lm"]))
    logits = model(inputs)
    check_close(logits["lm"], expected["lm"], real)
    if model_type == "bert":  # their class 0 says "is next", ours is 1
        check_close(logits["is_next"], expected["is_next"][:, ::-1], np.ones(3, bool))


@pytest.mark.parametrize("model_type", TYPES)
def test_published_shapes_agree(model_type, tmp_path):
    theirs = make_published(model_type)
    theirs.save_pretrained(tmp_path)
    encoder = load_huggingface(tmp_path, verbose=0)
    lengths = (150, 97) if model_type == "modernbert" else (64, 37)  # its local blocks see 64 to each side
    inputs = rows(vocab_size=30522, lengths=lengths)
    expected, real = answers(theirs, inputs), inputs["sequence_ids"] > 0
    check_close(encoder(inputs), expected["hidden"], real)
    check_close(
        with_heads(encoder, "lm")(inputs)["lm"][..., : theirs.config.vocab_size], expected["lm"], real
    )
    if model_type == "openai-gpt":
        assert encoder.vocab_size == 40483


@pytest.mark.parametrize("level", ["Sequence", "Token"])
@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert", "electra", "modernbert"])
def test_classifiers_agree_and_go_back(model_type, level, tmp_path):
    class_name = LM_CLASSES[model_type].split("For")[0] + f"For{level}Classification"
    theirs = make(model_type, class_name, num_labels=3)
    theirs.save_pretrained(tmp_path / "theirs")
    encoder = load_huggingface(tmp_path / "theirs", verbose=0)
    model = with_heads(encoder, "sentence" if level == "Sequence" else "token")
    inputs = rows()
    real = inputs["sequence_ids"] > 0 if level == "Token" else np.ones(3, bool)
    check_close(model(inputs)["classifier"], answers(theirs, inputs)["lm"], real)
    save_huggingface(model, tmp_path / "ours", labels=["a", "b", "c"], verbose=0)
    how = {"attn_implementation": theirs.config._attn_implementation}
    again = type(theirs).from_pretrained(tmp_path / "ours", **how)
    assert again.config.id2label == {0: "a", 1: "b", 2: "c"}
    same_arrays(tmp_path / "theirs", tmp_path / "ours")
    np.testing.assert_array_equal(answers(again, inputs)["lm"], answers(theirs, inputs)["lm"])


def same_arrays(one, other):
    one = safetensors_numpy.load_file(one / "model.safetensors")
    other = safetensors_numpy.load_file(other / "model.safetensors")
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.dtype == other[name].dtype
        np.testing.assert_array_equal(array.view("uint32"), other[name].view("uint32"), err_msg=name)


@pytest.mark.parametrize("model_type", TYPES)
def test_there_and_back_is_exact(model_type, tmp_path):
    theirs = make(model_type)
    theirs.save_pretrained(tmp_path / "theirs")
    encoder = load_huggingface(tmp_path / "theirs", verbose=0)
    model = with_heads(encoder, *(["lm", "is_next"] if model_type == "bert" else ["lm"]))
    save_huggingface(model, tmp_path / "ours", verbose=0)
    same_arrays(tmp_path / "theirs", tmp_path / "ours")
    how = {"attn_implementation": theirs.config._attn_implementation, "output_loading_info": True}
    again, report = type(theirs).from_pretrained(tmp_path / "ours", **how)
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    inputs = rows()
    for name, array in answers(theirs, inputs).items():
        np.testing.assert_array_equal(array, answers(again, inputs)[name])
    assert verify(load_huggingface(tmp_path / "ours", verbose=0), tmp_path / "ours", verbose=0) < 1e-6


@pytest.mark.parametrize("model_type", TYPES)
def test_bare_encoders_go_back(model_type, tmp_path):
    theirs = make(model_type, f"{LM_CLASSES[model_type].removesuffix('LMHeadModel').split('For')[0]}Model")
    theirs.save_pretrained(tmp_path / "theirs")
    encoder = load_huggingface(tmp_path / "theirs", verbose=0)
    save_huggingface(encoder, tmp_path / "ours", verbose=0)
    same_arrays(tmp_path / "theirs", tmp_path / "ours")
    check_close(encoder(rows()), answers(theirs, rows())["hidden"], rows()["sequence_ids"] > 0)


def test_what_was_loaded_survives_our_own_format(tmp_path):
    make("electra").save_pretrained(tmp_path / "theirs")
    model = with_heads(load_huggingface(tmp_path / "theirs", verbose=0), "lm")
    model.save_weights(tmp_path / "saved")
    save_huggingface(load_model(tmp_path / "saved"), tmp_path / "ours", verbose=0)
    same_arrays(tmp_path / "theirs", tmp_path / "ours")


def test_fewer_positions_are_the_first_ones(tmp_path):
    make("roberta").save_pretrained(tmp_path)
    whole, short = load_huggingface(tmp_path, verbose=0), load_huggingface(tmp_path, max_len=13, verbose=0)
    assert (whole.max_len, short.max_len) == (21, 13)
    inputs = rows()
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(whole(inputs)), keras.ops.convert_to_numpy(short(inputs))
    )
    with pytest.raises(ValueError, match="`max_len` must be from 1 to 21.*max_len=22"):
        load_huggingface(tmp_path, max_len=22)


def test_heads_stay_behind_on_request(tmp_path):
    make("bert").save_pretrained(tmp_path)
    encoder = load_huggingface(tmp_path, use_heads=False, verbose=0)
    assert not encoder.pretrained_heads
    assert "ignored  head lm, as asked" in encoder.load_report
    with_lm = with_heads(load_huggingface(tmp_path, verbose=0), "lm")
    fresh = with_heads(encoder, "lm")
    biases = [keras.ops.convert_to_numpy(model.heads["lm"].bias.value) for model in (with_lm, fresh)]
    assert np.abs(biases[0]).max() > 0.1
    assert np.abs(biases[1]).max() == 0.0
    assert with_lm.trained_heads == {"lm"} and not fresh.trained_heads


def test_a_head_of_another_shape_stays_fresh_with_a_warning(tmp_path):
    make("bert", "BertForTokenClassification", num_labels=5).save_pretrained(tmp_path)
    encoder = load_huggingface(tmp_path, verbose=0)
    with pytest.warns(UserWarning, match="head 'classifier' of the checkpoint has another shape"):
        assert not with_heads(encoder, "token").trained_heads


def test_gpt_may_start_a_bert(tmp_path):
    make("openai-gpt").save_pretrained(tmp_path)
    causal, both_ways = load_openai(tmp_path, is_causal=True, verbose=0), load_openai(tmp_path, verbose=0)
    inputs = rows(lengths=(7, 7, 7))
    inputs["token_ids"][:, -1] = inputs["token_ids"][0, -1]
    last_token = {**inputs, "token_ids": inputs["token_ids"].copy()}
    last_token["token_ids"][:, -1] += 1
    for encoder, sees_future in ((causal, False), (both_ways, True)):
        one, other = (keras.ops.convert_to_numpy(encoder(x))[:, :-1] for x in (inputs, last_token))
        assert (np.abs(one - other).max() > 1e-3) == sees_future
    assert both_ways.num_segments == 2
    assert "embeddings/segment_embedding/embeddings: zeros" in both_ways.load_report
    segments = {**inputs, "segment_ids": np.ones_like(inputs["segment_ids"])}
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(both_ways(x)) for x in (inputs, segments)))


def test_what_no_type_can_express_is_said(tmp_path):
    from bert_keras import create_transformer

    encoder = create_transformer(47, 30, 23, 1, 5, position_embedding="rotary", norm_placement="pre")
    with pytest.raises(ValueError, match=r"bert: position_embedding='rotary' \(must be 'learned'\)"):
        save_huggingface(encoder, tmp_path / "x")
    assert not (tmp_path / "x").exists()
    made_here = create_transformer(47, 30, 23, 2, 5)
    save_huggingface(with_heads(made_here, "lm", "is_next"), tmp_path / "made", verbose=0)
    assert dataclasses.replace(load_huggingface(tmp_path / "made", verbose=0).config, seed=0) == (
        dataclasses.replace(made_here.config, seed=0)
    )
    with pytest.raises(ValueError, match=r"several tasks, \['classifier', 'lm'\]: pass `task`"):
        save_huggingface(with_heads(made_here, "lm", "token"), tmp_path / "x")
    with pytest.raises(ValueError, match=r"`task` must be one of the model's \['lm'\]. Received: 'no'"):
        save_huggingface(with_heads(made_here, "lm"), tmp_path / "x", task="no")
    with pytest.raises(ValueError, match=r"`labels` must be 3 names.*\['a'\]"):
        save_huggingface(with_heads(made_here, "token"), tmp_path / "x", labels=["a"])


def test_kinds_of_sentence_level_tasks_and_their_names(tmp_path):
    from bert_keras import create_transformer

    encoder = create_transformer(47, 30, 23, 1, 5)
    transformers = pytest.importorskip("transformers")
    kinds = {"multi_label": "multi_label_classification", "regression": "regression"}
    for kind, problem in kinds.items():
        task = TaskMetadata("t", False, kind=kind, labels=("low", "high"))
        save_huggingface(MultiTaskModel(encoder, [task]), tmp_path / kind, verbose=0)
        theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / kind)
        assert theirs.config.problem_type == problem
        assert theirs.config.id2label == {0: "low", 1: "high"}
    for arguments in (dict(kind="span"), dict(num_classes=2, read_from="mean")):
        model = MultiTaskModel(encoder, [TaskMetadata("t", False, **arguments)])
        with pytest.raises(ValueError, match="task 't' cannot be written: `transformers` has no class for"):
            save_huggingface(model, tmp_path / "x")
    model = MultiTaskModel(encoder, [TaskMetadata("t", True, kind="regression")])
    with pytest.raises(ValueError, match="one class each, and its kind is 'regression'"):
        save_huggingface(model, tmp_path / "x")
    assert not (tmp_path / "x").exists()
