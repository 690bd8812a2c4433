"""Going on with texts: equal to `transformers`, equal to computing without a cache, and fair draws."""

import keras
import numpy as np
import pytest

from bert_keras import (
    MultiTaskModel,
    SentencePieceTextEncoder,
    TaskMetadata,
    create_lstm,
    create_transformer,
    generate,
)
from bert_keras.use.generation import kept_probabilities

PROMPTS = ["the cat", "a dog ran to the end of it and", "it"]


@pytest.fixture(scope="module")
def text_encoder():
    lines = ["the cat sat on the mat and ran", "a dog ran to the end of it", "it sat"] * 5
    return SentencePieceTextEncoder.train(lines, vocab_size=29)


@pytest.fixture(scope="module", params=["learned", "rotary"])
def model(request, text_encoder):
    encoder = create_transformer(
        text_encoder.vocab_size,
        12,
        31,
        2,
        3,
        is_causal=True,
        position_embedding=request.param,
        norm_placement="pre" if request.param == "rotary" else "post",
        seed=3,
    )
    rng = np.random.default_rng(2)  # the same weights on every backend
    for variable in encoder.weights:
        if len(variable.shape) == 2:
            variable.assign(0.6 * rng.normal(size=variable.shape))
    set_end_row(encoder, text_encoder, np.zeros(12))
    return MultiTaskModel(encoder, [TaskMetadata("lm", True, text_encoder.vocab_size)])


def set_end_row(encoder, text_encoder, row):
    """The end token's logit is the product with this row."""
    table = np.array(keras.ops.convert_to_numpy(encoder.token_embedding.embeddings.value))
    table[text_encoder.eos_id] = row
    encoder.token_embedding.embeddings.assign(table)
    return table


def without_cache(model, text_encoder, prompt, count, add_bos=True):
    """The greedy text by reading everything anew at every step."""
    ids = [text_encoder.bos_id] * add_bos + text_encoder.encode(prompt)
    never = sorted(text_encoder.special_ids - {text_encoder.eos_id})
    start = len(ids)
    while len(ids) < start + count:
        row = np.array([ids + [0] * (31 - len(ids))], "int32")  # one shape: JAX compiles once
        arrays = {"token_ids": row, "segment_ids": 0 * row, "sequence_ids": 0 * row + 1}
        arrays["position_ids"] = np.arange(31, dtype="int32")[None]
        logits = np.asarray(model.predict_on_batch(arrays)["lm"])[0, len(ids) - 1].copy()
        logits[never] = -np.inf
        ids.append(int(logits.argmax()))
        if ids[-1] == text_encoder.eos_id:
            break
    return text_encoder.decode(ids[start:])


def test_the_cache_changes_nothing(model, text_encoder):
    expected = [without_cache(model, text_encoder, prompt, 6) for prompt in PROMPTS]
    assert list(generate(model, text_encoder, PROMPTS, max_new_tokens=6, batch_size=2)) == expected
    assert generate(model, text_encoder, PROMPTS[1], max_new_tokens=6) == expected[1]
    assert len({*expected}) == 3 and all(expected)
    bare = generate(model.encoder, text_encoder, PROMPTS[0], max_new_tokens=4, add_bos=False)
    assert bare == without_cache(model, text_encoder, PROMPTS[0], 4, add_bos=False)


def test_the_end_token_ends_a_text_and_not_its_neighbours(model, text_encoder):
    whole = generate(model, text_encoder, PROMPTS[0], max_new_tokens=6)
    table = set_end_row(model.encoder, text_encoder, np.zeros(12))
    set_end_row(model.encoder, text_encoder, 1.5 * table[text_encoder.encode(whole)[3]])
    try:
        expected = [without_cache(model, text_encoder, prompt, 6) for prompt in PROMPTS]
        assert list(generate(model, text_encoder, PROMPTS, max_new_tokens=6)) == expected
    finally:
        set_end_row(model.encoder, text_encoder, np.zeros(12))
    assert len(expected[0]) < len(whole)
    assert len({len(text_encoder.encode(text)) for text in expected}) > 1


def test_greedy_text_is_that_of_transformers(text_encoder, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from bert_keras import load_huggingface

    torch.manual_seed(0)
    config = transformers.OpenAIGPTConfig(
        vocab_size=text_encoder.vocab_size, n_embd=30, n_layer=3, n_head=5, n_positions=41
    )
    theirs = transformers.OpenAIGPTLMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(6.0).add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path)
    encoder = load_huggingface(tmp_path, verbose=0)
    never = sorted(text_encoder.special_ids - {text_encoder.eos_id})
    ours = list(generate(encoder, text_encoder, PROMPTS, max_new_tokens=12, add_bos=False, batch_size=2))
    for prompt, text in zip(PROMPTS, ours, strict=True):
        ids = torch.tensor([text_encoder.encode(prompt)])
        with torch.no_grad():
            out = theirs.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=12,
                suppress_tokens=never,
                eos_token_id=text_encoder.eos_id,
                pad_token_id=text_encoder.pad_id,
            )
        assert text == text_encoder.decode(out[0, ids.shape[1] :].tolist())
    assert len({*ours}) == 3


def test_draws_depend_on_seed_and_number_alone(model, text_encoder):
    options = {"temperature": 1.5, "max_new_tokens": 3, "seed": 4}
    one = list(generate(model, text_encoder, PROMPTS * 2, batch_size=4, **options))
    assert one == list(generate(model, text_encoder, PROMPTS * 2, batch_size=2, **options))
    assert one != list(generate(model, text_encoder, PROMPTS * 2, **{**options, "seed": 5}))
    narrow = generate(model, text_encoder, PROMPTS[0], temperature=9.0, top_k=1, max_new_tokens=6)
    assert narrow == generate(model, text_encoder, PROMPTS[0], max_new_tokens=6)


def test_probabilities_that_are_kept_by_hand():
    logits = np.log([0.1, 0.4, 0.2, 0.3])
    np.testing.assert_allclose(kept_probabilities(logits, None, 1.0), [0.1, 0.4, 0.2, 0.3])
    np.testing.assert_allclose(kept_probabilities(logits, 2, 1.0), [0, 4 / 7, 0, 3 / 7])
    np.testing.assert_allclose(kept_probabilities(logits, None, 0.4), [0, 1, 0, 0])
    np.testing.assert_allclose(kept_probabilities(logits, None, 0.41), [0, 4 / 7, 0, 3 / 7])
    np.testing.assert_allclose(kept_probabilities(logits, 3, 0.99), [0, 4 / 9, 2 / 9, 3 / 9])
    never = np.array([-np.inf, 0.0, 0.0])
    np.testing.assert_allclose(kept_probabilities(never, 3, 1.0), [0, 0.5, 0.5])


def test_draws_follow_the_probabilities():
    from bert_keras.use.generation import _chooser

    choose, rng = _chooser(2.0, 3, 1.0), np.random.default_rng(0)
    logits = 2.0 * np.log([0.5, 0.3, 0.2, 0.001])
    counts = np.bincount([choose(logits, rng) for _ in range(4000)], minlength=4) / 4000
    np.testing.assert_allclose(counts, [0.5, 0.3, 0.2, 0.0], atol=0.03)  # 4 standard deviations


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"temperature": -1.0}, "`temperature` must be at least 0. Received: temperature=-1.0"),
        ({"temperature": 1.0, "top_k": 0}, "`top_k` must be at least 1 .*top_k=0"),
        ({"temperature": 1.0, "top_p": 0.0}, "`top_p` above 0 .*top_p=0.0"),
        ({"top_k": 3}, "with temperature=0 the most probable token is taken"),
        ({"max_new_tokens": 0}, "`max_new_tokens` must be at least 1"),
        ({"max_new_tokens": 30}, "A prompt has .* tokens; .*fit the encoder's 31"),
    ],
)
def test_generate_refuses(model, text_encoder, arguments, message):
    with pytest.raises(ValueError, match=message):
        generate(model, text_encoder, "the cat", **arguments)


def test_models_that_cannot_go_on_are_refused(model, text_encoder):
    both_ways = create_transformer(text_encoder.vocab_size, 6, 9, 1, 1)
    with pytest.raises(ValueError, match="must be causal and have the task 'lm'. Received: is_causal=False"):
        generate(both_ways, text_encoder, "it")
    with pytest.raises(TypeError, match="Only transformers .*Received: LSTMEncoder"):
        generate(create_lstm(text_encoder.vocab_size, 6, 1), text_encoder, "it")
    with pytest.raises(ValueError, match="must have 1 at least"):
        generate(model, text_encoder, "", add_bos=False)
    with pytest.raises(TypeError, match="Each prompt must be a string"):
        generate(model, text_encoder, ("a", "b"))
