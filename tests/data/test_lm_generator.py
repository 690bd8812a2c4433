"""The generator as a whole: pure, sized, indexable, open to further labels, and strict about its "
"arguments."""

import hashlib
import os
import pickle
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
from number_text import NumberEncoder, Places, originals

from bert_keras.data import (
    Corpus,
    Sentence,
    SentenceTaskData,
    TokenTaskData,
    lm_generator,
)

MODES = [
    {},
    dict(use_single_sentence=True),
    dict(fill=False),
    dict(fill=False, use_single_sentence=True),
    dict(is_causal=True),
    dict(whole_word=True, min_len=10),
]


FROZEN_BATCHES = {"pairs": "c265e0e3d71194cd", "words": "4efbd2072bfede4b", "sentences": "394df761d173f81c"}


def arrays(batch):
    levels = (batch.token_classification, batch.sentence_classification)
    labels = [array for level in levels for name in sorted(level) for array in level[name]]
    return [batch.tokens, batch.segments, batch.padding_mask, *labels]


def digest(batch):
    result = hashlib.sha256()
    for array in arrays(batch):
        result.update(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return result.hexdigest()


@pytest.mark.parametrize("options", MODES)
def test_shapes(large, numbers, options):
    corpus, _ = large
    generator = lm_generator(numbers, corpus, batch_size=7, max_len=29, **options)
    batch = generator[3]
    for array, dtype in zip(arrays(batch), (np.int32, np.int32, bool, np.int32, bool), strict=False):
        assert array.shape == (7, 29) and array.dtype == dtype
    assert set(batch.token_classification) == {"lm"}
    if options.get("use_single_sentence"):
        assert batch.sentence_classification == {}
    else:
        target, index = batch.sentence_classification["is_next"]
        assert target.shape == index.shape == (7,) and target.dtype == index.dtype == np.int32
    assert (generator.vocab_size, generator.batch_size, generator.max_len) == (60_000, 7, 29)
    assert generator.corpus is corpus


@pytest.mark.parametrize("options", MODES)
def test_batches_are_pure(large, numbers, options):
    """Any order, any number of times, from any object, past the end of the epoch: the same batch."""
    corpus, _ = large
    generator = lm_generator(numbers, corpus, batch_size=16, max_len=40, seed=5, **options)
    indices = [*range(len(generator) - 3, len(generator) + 4), 0, 1, 10_000, 10**12]
    expected = {i: digest(generator[i]) for i in indices}
    assert len({*expected.values()}) == len(expected)
    other = pickle.loads(
        pickle.dumps(
            lm_generator(
                numbers,
                Corpus.open(corpus.directory),
                **{**dict(batch_size=16, max_len=40, seed=5), **options},
            )
        )
    )
    for index in np.random.default_rng(0).permutation(indices * 2):
        assert digest((generator, other)[index % 2][index]) == expected[index]
    seeded = lm_generator(numbers, corpus, batch_size=16, max_len=40, seed=6, **options)
    assert all(digest(seeded[i]) != expected[i] for i in indices)


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from number_text import NumberEncoder
from test_lm_generator import MODES, digest
from bert_keras.data import Corpus, lm_generator
corpus = Corpus.open(sys.argv[2])
for options in MODES:
    generator = lm_generator(NumberEncoder(), corpus, batch_size=16, max_len=40, seed=5, **options)
    print(*(digest(generator[i]) for i in (700, 3, 0)))
"""


def test_batches_are_the_same_in_another_process(large, numbers):
    corpus, _ = large
    command = [sys.executable, "-c", SCRIPT, os.path.dirname(__file__), str(corpus.directory)]
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    expected = []
    for options in MODES:
        generator = lm_generator(numbers, corpus, batch_size=16, max_len=40, seed=5, **options)
        expected.append(" ".join(digest(generator[i]) for i in (700, 3, 0)))
    assert done.stdout.split("\n")[:-1] == expected


def test_batches_are_the_same_for_ever(make_corpus, numbers):
    """The numbers that a seed stands for are part of the interface: a run can be resumed under a later "
    "version."""
    corpus, _ = make_corpus([[5, 3, 8], [4, 4], [9], [2, 7, 1, 6]])
    found = {}
    for name, options in (("pairs", {}), ("words", dict(whole_word=True)), ("sentences", dict(fill=False))):
        generator = lm_generator(numbers, corpus, batch_size=3, max_len=16, seed=1, **options)
        found[name] = hashlib.sha256("".join(digest(generator[i]) for i in range(9)).encode()).hexdigest()[
            :16
        ]
    assert found == FROZEN_BATCHES


def test_epochs(large, numbers):
    corpus, _ = large
    generator = lm_generator(numbers, corpus, batch_size=50, max_len=40)
    epoch = [digest(batch) for batch in generator]
    assert len(epoch) == len(generator) == -(-generator.num_examples // 50)
    assert [digest(b) for b in generator] == epoch
    two = [digest(b) for b in generator.epochs(2)]
    assert two[: len(epoch)] == epoch and len(two) == 2 * len(epoch) == len({*two})
    assert [digest(b) for b in islice(generator.epochs(), len(two))] == two


def test_epoch_reads_about_as_many_tokens_as_the_corpus_has(large, numbers):
    corpus, _ = large
    for options in ({}, dict(short_prob=0.6), dict(use_single_sentence=True)):
        generator = lm_generator(numbers, corpus, batch_size=10, max_len=23, **options)
        num_special = 2 if options.get("use_single_sentence") else 3
        tokens = sum(int(b.padding_mask.sum()) - num_special * 10 for b in generator)
        assert 0.95 < tokens / corpus.num_tokens < 1.25


def test_indices(large, numbers):
    generator = lm_generator(numbers, large[0], batch_size=3, max_len=20)
    assert digest(generator[np.int64(4)]) == digest(generator[4])
    with pytest.raises(IndexError, match="-1"):
        generator[-1]
    for index in (1.0, "1", slice(2)):
        with pytest.raises(TypeError):
            generator[index]


def test_tiny_corpus_and_large_batch(make_corpus, numbers):
    corpus, _ = make_corpus([[1, 1], [1, 1]])
    generator = lm_generator(numbers, corpus, batch_size=97, max_len=5)
    assert len(generator) == 1 and generator.num_examples == 2
    assert originals(generator[2]).shape == (97, 5)


def test_from_text_files(tmp_path, numbers):
    for name, text in (("a.txt", "1 2\n3 4\n\n5\n6"), ("b.txt", "7\n8 9")):
        (tmp_path / name).write_text(text)
    options = dict(batch_size=2, max_len=9, cache_dir=tmp_path / "cache")
    found = [
        digest(lm_generator(numbers, source, **options)[5])
        for source in ([tmp_path / "a.txt", str(tmp_path / "b.txt")],)
    ]
    (tmp_path / "folder").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).rename(tmp_path / "folder" / name)
    assert digest(lm_generator(numbers, tmp_path / "folder", **options)[5]) == found[0]
    assert lm_generator(numbers, str(tmp_path / "folder" / "a.txt"), **options).corpus.num_documents == 2


def describe(sentence):
    """Labels that can be checked: the number of tokens, the document, and which tokens are even."""
    size = len(sentence.tokens)
    labels = {
        "size": SentenceTaskData(size, size - 1),
        "even": TokenTaskData([t % 2 for t in sentence.tokens], [True] * size),
    }
    if sentence.document % 2:
        labels["document"] = SentenceTaskData(sentence.document, 0)
    return labels


def test_label_function(large, numbers):
    corpus, documents = large
    places = Places(documents)
    seen = []

    def function(sentence):
        seen.append(sentence)
        return describe(sentence)

    generator = lm_generator(numbers, corpus, batch_size=9, max_len=33, label_function=function)
    plain = lm_generator(numbers, corpus, batch_size=9, max_len=33)
    for index in (0, 55):
        seen.clear()
        batch = generator[index]
        sizes = batch.padding_mask.sum(1)
        np.testing.assert_array_equal(batch.tokens, plain[index].tokens)
        size = batch.sentence_classification["size"]
        assert size.target.tolist() == sizes.tolist() and size.target_mask.tolist() == (sizes - 1).tolist()
        even = batch.token_classification["even"]
        np.testing.assert_array_equal(even.target_mask, batch.padding_mask)
        np.testing.assert_array_equal(even.target, originals(batch) % 2 * batch.padding_mask)
        label = batch.sentence_classification["document"]
        for row, sentence in enumerate(seen):
            assert isinstance(sentence, Sentence) and all(sentence.padding_mask)
            assert sentence.tokens == originals(batch)[row, : sizes[row]].tolist()
            assert sentence.segments == batch.segments[row, : sizes[row]].tolist()
            is_next = int(batch.sentence_classification["is_next"].target[row])
            assert sentence.sentence_classification == {"is_next": (is_next, 0)}
            document = places.document_of[sentence.tokens[1] - 6]
            assert sentence.document == document
            expected = (document, 0) if document % 2 else (0, -1)
            assert (label.target[row], label.target_mask[row]) == expected


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ({"lm": SentenceTaskData(1, 0)}, ValueError, "'lm'.*another name"),
        ({"is_next": SentenceTaskData(1, 0)}, ValueError, "'is_next'.*another name"),
        ({"t": TokenTaskData([1], [True])}, ValueError, "'t'.*each of the .* tokens"),
        ({"t": SentenceTaskData(1, 99)}, ValueError, "'t'.*position 99"),
        ({"t": SentenceTaskData("a", 0)}, ValueError, "'t'.*integer"),
        ({"t": SentenceTaskData(1, 0.5)}, ValueError, "'t'.*integer position"),
        ({"t": SentenceTaskData(np.nan, 0)}, ValueError, "'t'.*finite"),
        ({"t": SentenceTaskData(True, 0)}, ValueError, "'t'.*integer"),
        ({"t": SentenceTaskData(-1, 0)}, ValueError, "'t'.*0 or more"),
        ({"t": 1}, TypeError, "'t'.*TokenTaskData or SentenceTaskData.*1"),
        ({"t": (1, 0)}, TypeError, "'t'.*TokenTaskData or SentenceTaskData"),
        ({5: SentenceTaskData(1, 0)}, TypeError, "strings"),
        (None, TypeError, "mapping.*None"),
    ],
)
def test_bad_labels(large, numbers, labels, error, message):
    generator = lm_generator(numbers, large[0], batch_size=3, max_len=33, label_function=lambda _: labels)
    with pytest.raises(error, match=f"label_function.*{message}"):
        generator[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: (["a"] * n, [True] * n), "integers"),
        (lambda n: ([0] * n, [0.3] * n), "bools"),
        (lambda n: ([-1] * n, [True] * n), "0 or more"),
        (lambda n: ([0] * n, [True] * (n - 1)), "each of the"),
        (lambda n: ([[0], *[0] * (n - 1)], [True] * n), "all be tuples"),
        (lambda n: ([[0, -1]] * n, [True] * n), "0 or more"),
    ],
)
def test_bad_token_labels(large, numbers, change, message):
    function = lambda s: {"t": TokenTaskData(*change(len(s.tokens)))}  # noqa: E731
    with pytest.raises(ValueError, match=f"label_function.*'t'.*{message}"):
        lm_generator(numbers, large[0], batch_size=3, max_len=33, label_function=function)[0]


def test_label_on_both_levels(large, numbers):
    count = iter(range(99))
    choices = (SentenceTaskData(1, 0), TokenTaskData([0] * 33, [True] * 33))
    function = lambda s: {"t": choices[next(count) % 2]}  # noqa: E731
    generator = lm_generator(
        numbers, large[0], batch_size=2, max_len=33, short_prob=0, label_function=function
    )
    with pytest.raises(ValueError, match="either token-level or sentence-level.*'t'"):
        generator[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(keep_prob=0.9), r"add up to at most 1.*0.9 \+ 0.12 \+ 0.015 = 1.035"),
        (dict(keep_prob=-0.1), "keep_prob"),
        (dict(mask_prob=1.2), "mask_prob"),
        (dict(rand_prob=float("nan")), "rand_prob"),
        (dict(mismatch_prob=1.01), "mismatch_prob"),
        (dict(short_prob=-1), "short_prob"),
        (dict(batch_size=0), "batch_size.*at least 1.*0"),
        (dict(max_len=4), "max_len.*at least 5.*4"),
        (dict(max_len=2, use_single_sentence=True), "max_len.*at least 3.*2"),
        (dict(max_len=20, min_len=21), "min_len.*max_len.*21.*20"),
        (dict(min_len=-1), "min_len"),
        (dict(seed=-1), "seed"),
        (dict(seed=2**64), "seed"),
        (dict(is_causal=True, whole_word=True), "whole_word.*is_causal"),
    ],
)
def test_bad_arguments(large, numbers, options, message):
    with pytest.raises(ValueError, match=message):
        lm_generator(numbers, large[0], **options)


def test_bad_types(large, numbers):
    for options in (dict(batch_size=2.0), dict(max_len="9"), dict(seed=0.5), dict(batch=3)):
        with pytest.raises(TypeError):
            lm_generator(numbers, large[0], **options)
    with pytest.raises(FileNotFoundError, match="missing"):
        lm_generator(numbers, "missing")


def test_other_text_encoder(large):
    with pytest.raises(ValueError, match="another text encoder.*vocab_size=60000.*vocab_size=60001"):
        lm_generator(NumberEncoder(60_001), large[0])


def test_extreme_seeds(large, numbers):
    digests = {
        digest(lm_generator(numbers, large[0], batch_size=2, max_len=9, seed=s)[0]) for s in (0, 1, 2**64 - 1)
    }
    assert len(digests) == 3


def test_no_keras_is_imported():
    code = (
        "import sys, bert_keras.data\n"
        "print([m for m in ('keras', 'tensorflow', 'jax', 'torch', 'pandas', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
