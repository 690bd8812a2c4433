"""From raw texts to the user's labels, words and spans."""

import itertools

import keras
import numpy as np
import pytest

from bert_keras import (
    BERTTextEncoder,
    MultiTaskModel,
    TaskMetadata,
    create_transformer,
    labelled_generator,
    predict,
    sentence_from_text,
    sentence_from_words,
    train_model,
)
from bert_keras.training import encoder_arrays
from tests.compiled import called

WORDS = ["red", "green", "blue", "cat", "dog", "bird", "sees", "and", ",", ".", "?", "what", "##s", "!"]


@pytest.fixture(scope="module")
def text_encoder(tmp_path_factory):
    vocab = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    vocab.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    return BERTTextEncoder(vocab)


TASKS = [
    TaskMetadata("colour", False, labels=("red", "green", "blue")),
    TaskMetadata("animals", False, kind="multi_label", labels=("cat", "dog", "bird"), read_from="max"),
    TaskMetadata("size", False, kind="regression", read_from="mean"),
    TaskMetadata("part", True, labels=("other", "animal", "colour")),
    TaskMetadata("answer", False, kind="span"),
]


@pytest.fixture(scope="module")
def model(text_encoder):
    encoder = create_transformer(text_encoder.vocab_size, 24, 32, 2, 3, 40, seed=5)
    model = MultiTaskModel(encoder, TASKS, seed=3)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if variable.path.endswith(("kernel", "embeddings")):
            variable.assign(rng.normal(0, 0.5, variable.shape))
    return model


def texts(number, seed=0, longest=20):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS[:8], rng.integers(1, longest))) for _ in range(number)]


def logits_of(model, sentence, pad_id=0):
    batch = labelled_generator([sentence], pad_id=pad_id, batch_size=1, length_multiple=1)[0]
    return {k: keras.ops.convert_to_numpy(v)[0] for k, v in called(model, encoder_arrays(batch)).items()}


def softmax(logits):
    return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()


def test_results_are_those_of_each_text_alone(model, text_encoder):
    """In batches of texts of mixed lengths, in order, each equal to the model's logits for the text."""
    given = [*texts(45), "", "red  cat!", "☃ \U0001f600 sees CÁT"]
    results = list(predict(model, text_encoder, given, batch_size=4))
    assert len(results) == len(given)
    for text, result in zip(given, results, strict=True):
        logits = logits_of(model, sentence_from_text(text_encoder, text, max_len=32))
        best = int(logits["colour"].argmax())
        assert result["colour"].label == TASKS[0].labels[best]
        assert result["colour"].probability == pytest.approx(softmax(logits["colour"])[best], rel=1e-4)
        probabilities = 1 / (1 + np.exp(-logits["animals"]))
        expected = {TASKS[1].labels[i]: probabilities[i] for i in np.flatnonzero(probabilities >= 0.5)}
        assert dict(result["animals"]) == pytest.approx(expected, rel=1e-4)
        assert [p for _, p in result["animals"]] == sorted((p for _, p in result["animals"]), reverse=True)
        assert result["size"] == pytest.approx(float(logits["size"][0]), rel=1e-4, abs=1e-5)
        classes = logits["part"][1:-1].argmax(-1)
        ids, word_of = text_encoder.encode_words([word.word for word in result["part"]])
        firsts = [i for i in range(len(ids)) if i == 0 or word_of[i] != word_of[i - 1]]
        assert [word.label for word in result["part"]] == [TASKS[3].labels[classes[i]] for i in firsts]
        assert all(text[word.start : word.end] == word.word for word in result["part"])


def test_single_words_pairs_and_numbers_for_labels(text_encoder):
    encoder = create_transformer(text_encoder.vocab_size, 12, 32, 1, 3, 20)
    model = MultiTaskModel(encoder, [TaskMetadata("same", False, 2), TaskMetadata("tag", True, 4)])
    [result] = predict(model, text_encoder, [("red cat", "blue dog")], tasks="same")
    logits = logits_of(model, sentence_from_text(text_encoder, "red cat", "blue dog"))["same"]
    assert result["same"].label == int(logits.argmax())
    assert result["same"].probability == pytest.approx(softmax(logits).max(), rel=1e-5)
    [result] = predict(model, text_encoder, [["red", "", "cats"]])
    assert [(w.word, w.start) for w in result["tag"]] == [("red", None), ("", None), ("cats", None)]
    assert result["tag"][1].label is None and result["tag"][2].label in range(4)
    with pytest.raises(ValueError, match="single texts or lists of words. Received a pair"):
        list(predict(model, text_encoder, [("red cat", "blue dog")]))


def test_long_texts_in_windows(model, text_encoder):
    """Every word is labelled, each in the window where it is farthest from the edges."""
    [text] = texts(1, seed=4, longest=200)
    words = text.split()
    assert len(words) > 100
    [result] = predict(model, text_encoder, [text], max_len=24, stride=10)
    assert [word.word for word in result["part"]] == words
    room, step, means = 22, 12, []
    seen = {}
    for start in range(0, max(1, len(words) - 10), step):
        logits = logits_of(model, sentence_from_text(text_encoder, " ".join(words[start : start + room])))
        means.append(logits["colour"])
        size = len(words[start : start + room])
        for i in range(size):
            left = i if start else 10**6
            right = size - 1 - i if start + size < len(words) else 10**6
            if min(left, right) > seen.get(start + i, (-1,))[0]:
                seen[start + i] = min(left, right), int(logits["part"][i + 1].argmax())
    assert [w.label for w in result["part"]] == [TASKS[3].labels[seen[i][1]] for i in range(len(words))]
    mean = softmax(np.mean(means, axis=0))
    assert result["colour"].probability == pytest.approx(mean.max(), rel=1e-4)
    [cut] = predict(model, text_encoder, [text], max_len=24, long_texts="cut_end")
    assert [w.label is None for w in cut["part"]] == [i >= room for i in range(len(words))]
    [cut] = predict(model, text_encoder, [text], max_len=24, long_texts="cut_start")
    assert [w.label is None for w in cut["part"]] == [i < len(words) - room for i in range(len(words))]


def test_answers_are_the_best_spans(model, text_encoder):
    for number, text in enumerate(texts(30, seed=2)):
        question = "what sees cats ?"
        [result] = predict(model, text_encoder, [(question, text)], tasks=["answer"], max_answer_len=4)
        scores = logits_of(model, sentence_from_text(text_encoder, question, text))["answer"]
        head = len(text_encoder.encode(question)) + 2
        words = text.split()
        best = max(
            (scores[head + i, 0] + scores[head + j, 1], i, j)
            for i, j in itertools.product(range(len(words)), repeat=2)
            if 0 <= j - i < 4
        )
        answer = result["answer"]
        if best[0] <= scores[0].sum():
            assert (answer.text, answer.start) == (None, None), number
            continue
        assert answer.text == " ".join(words[best[1] : best[2] + 1]) == text[answer.start : answer.end]
        by_hand = softmax(scores[:, 0])[head + best[1]] * softmax(scores[:, 1])[head + best[2]]
        assert answer.probability == pytest.approx(by_hand, rel=1e-4)


def test_an_answer_beyond_the_first_window(text_encoder):
    """A model that looks for "!": it is found wherever it is, with its place in the raw text."""
    bang = text_encoder.token_to_id("!")
    inputs = keras.Input((None,), dtype="int32", name="token_ids")
    table = np.zeros((text_encoder.vocab_size, 2), "float32")
    table[bang] = 9
    table[text_encoder.bos_id] = 5
    embedding = keras.layers.Embedding(text_encoder.vocab_size, 2, weights=[table])
    model = MultiTaskModel(
        keras.Model(inputs, embedding(inputs)), [TaskMetadata("answer", False, kind="span")]
    )
    model.heads["answer"].classifier.set_weights([np.eye(2, dtype="float32"), np.zeros(2, "float32")])
    text = "Red\u0301 \U0001f600 " + "cat  " * 60 + "! dog"
    [found] = predict(model, text_encoder, [("what ?", text)], max_len=20, stride=5)
    assert found["answer"][:3] == ("!", text.index("!"), text.index("!") + 1)
    [nothing] = predict(model, text_encoder, [("what ?", text[:-5])], max_len=20, stride=5)
    assert nothing["answer"][:3] == (None, None, None)


def test_what_was_learned_comes_back_on_raw_text(text_encoder):
    colours, animals = WORDS[:3], WORDS[3:6]
    tagged = [
        sentence_from_words(
            text_encoder,
            words,
            token_labels={"part": [1 if w in animals else 2 if w in colours else 0 for w in words]},
        )
        for words in (text.split() for text in texts(60, longest=8))
    ]
    encoder = create_transformer(text_encoder.vocab_size, 24, 32, 1, 3, 40, seed=5)
    model = train_model(
        encoder, [TASKS[3]], finetune_generator=labelled_generator(tagged, pad_id=0, batch_size=20),
        finetune_epochs=40, finetune_optimizer=keras.optimizers.Adam(5e-3), verbose=0,
    )  # fmt: skip
    [result] = predict(model, text_encoder, ["Réd CATS\u00a0dogs and\nBIRDS"])
    assert [(w.word, w.label) for w in result["part"] if w.label != "other"] == [
        ("Réd", "colour"), ("CATS", "animal"), ("dogs", "animal"), ("BIRDS", "animal"),
    ]  # fmt: skip


def test_texts_are_read_as_they_are_needed(model, text_encoder):
    taken = 0

    def source():
        nonlocal taken
        for text in itertools.cycle(texts(7)):
            taken += 1
            yield text

    results = predict(model, text_encoder, source(), tasks=["colour"], batch_size=2)
    assert taken == 0
    for _ in range(130):
        next(results)
    assert taken == 256


@pytest.mark.parametrize(
    ("given", "arguments", "error", "message"),
    [
        ("red", {}, TypeError, r"`texts` must be an iterable of texts: give \[text\]"),
        ([3], {}, TypeError, "string, a pair.*Received: 3"),
        ([("a", "b", "c")], {}, TypeError, "pair"),
        (["a"], {"tasks": ["lm"]}, ValueError, r"`tasks`.*\['colour'.*Received: \['lm'\]"),
        (["a"], {"long_texts": "cut"}, ValueError, "`long_texts` must be one of.*'cut'"),
        (["a"], {"max_len": 33}, ValueError, "`max_len` must be from 8 to the encoder's 32. Received: 33"),
        (["a"], {"batch_size": 0}, ValueError, "`batch_size` must be at least 1"),
    ],
)
def test_bad_input(model, text_encoder, given, arguments, error, message):
    with pytest.raises(error, match=message):
        list(predict(model, text_encoder, given, **arguments))


def test_little_is_computed_for_padding(model, text_encoder, monkeypatch):
    """Rows are as long as the longest of their batch; where lengths are compiled, few of them occur."""
    shapes, run = [], model.predict_on_batch
    monkeypatch.setattr(model, "predict_on_batch", lambda x: (shapes.append(x["token_ids"].shape), run(x))[1])
    given = [" ".join(["cat"] * (1 + 7 * number % 29)) for number in range(40)]
    list(predict(model, text_encoder, given, tasks=["colour"], batch_size=8))
    sizes = sorted((3 + 7 * number % 29 for number in range(40)), reverse=True)
    longest = sizes[::8]
    expected = [min(32, -(-size // 16) * 16) for size in longest]
    assert shapes == [(8, size) for size in (expected if keras.backend.backend() == "jax" else longest)]
