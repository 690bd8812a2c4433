"""Which text becomes which example, checked token by token against the corpus."""

from collections import Counter

import numpy as np
import pytest
from number_text import Places, is_run, random_sizes, segments_of
from scipy.stats import binom, chi2_contingency, chisquare, ks_2samp

from bert_keras.data import lm_generator

SHAPES = [dict(max_len=23), dict(max_len=64, short_prob=0.5), dict(max_len=5), dict(max_len=31, fill=False)]


def examples(generator, encoder, num_batches):
    for index in range(num_batches):
        yield from segments_of(generator[index], encoder)


def check_pair(first, second, is_next, places, fill):
    assert is_run(first) and is_run(second)
    assert first[-1] in places.ends and second[0] in places.starts
    assert places.document_of[first[0]] == places.document_of[first[-1]]
    assert places.document_of[second[0]] == places.document_of[second[-1]]
    if is_next:
        assert second[0] == first[-1] + 1
        assert places.document_of[second[0]] == places.document_of[first[-1]]
    else:
        assert places.document_of[second[0]] != places.document_of[first[-1]]
    if not fill:
        assert places.sentence_of[first[0]] == places.sentence_of[first[-1]]
        assert places.sentence_of[second[0]] == places.sentence_of[second[-1]]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("shape", SHAPES)
def test_pairs_of_random_corpora(make_corpus, numbers, seed, shape):
    corpus, documents = make_corpus(
        random_sizes(seed, num_documents=3 + seed, max_tokens=(5, 17, 60)[seed % 3])
    )
    places = Places(documents)
    generator = lm_generator(numbers, corpus, batch_size=7, seed=seed, **shape)
    labels = Counter()
    for first, second, is_next in examples(generator, numbers, 30):
        check_pair(first, second, is_next, places, shape.get("fill", True))
        assert len(first) + len(second) + 3 <= shape["max_len"]
        labels[is_next] += 1
    assert 1e-5 < binom.cdf(labels[1], 210, 0.5) < 1 - 1e-5


@pytest.mark.parametrize("mismatch_prob", [0.5, 0.2, 0.0, 1.0])
@pytest.mark.parametrize("fill", [True, False])
def test_share_of_pairs_that_follow(large, numbers, mismatch_prob, fill):
    corpus, documents = large
    places = Places(documents)
    generator = lm_generator(
        numbers, corpus, batch_size=101, max_len=40, mismatch_prob=mismatch_prob, fill=fill
    )
    rows = list(examples(generator, numbers, 80))
    for row in rows:
        check_pair(*row, places, fill)
    follow = sum(is_next for _, _, is_next in rows)
    if mismatch_prob in (0.0, 1.0):
        assert follow == (1 - mismatch_prob) * len(rows)
    else:
        assert 1e-4 < binom.cdf(follow, len(rows), 1 - mismatch_prob) < 1 - 1e-4


@pytest.mark.parametrize(
    "sizes", [None, [[4, 5]] * 40 + [[300, 20, 9] * 5], [[3]] * 60 + [[9, 8, 7] * 9] * 2]
)
def test_sizes_do_not_give_the_label_away(large, make_corpus, numbers, sizes):
    corpus, _ = large if sizes is None else make_corpus(sizes)
    generator = lm_generator(numbers, corpus, batch_size=101, max_len=50, seed=3)
    rows = list(examples(generator, numbers, 100))
    for part in (0, 1):
        follow, others = ([len(r[part]) for r in rows if r[2] == label] for label in (1, 0))
        assert ks_2samp(follow, others).pvalue > 1e-4
    totals = [[len(a) + len(b) for a, b, n in rows if n == label] for label in (1, 0)]
    assert ks_2samp(*totals).pvalue > 1e-4


def test_size_of_the_first_sentence_of_b_does_not_give_the_label_away(numbers, make_corpus):
    """Starting B at the sentence around a random token would favour long sentences, five times over here."""
    rng = np.random.default_rng(0)
    corpus, documents = make_corpus([rng.choice([1, 2, 21], 60).tolist() for _ in range(40)])
    places = Places(documents)
    sizes = list(map(len, places.sentences))
    generator = lm_generator(numbers, corpus, batch_size=101, max_len=128)
    table = Counter(
        (is_next, sizes[places.sentence_of[b[0]]]) for _, b, is_next in examples(generator, numbers, 60)
    )
    counts = np.array([[table[label, size] for size in (1, 2, 21)] for label in (0, 1)])
    assert chi2_contingency(counts).pvalue > 1e-4


def test_pairs_fill_the_row_where_the_document_permits(large, numbers):
    corpus, documents = large
    places = Places(documents)
    for first, second, _ in examples(lm_generator(numbers, corpus, max_len=40, short_prob=0.0), numbers, 9):
        size = sum(map(len, documents[places.document_of[first[0]]]))
        assert len(first) + len(second) == min(37, size) or (first[0] in places.document_starts)
    generator = lm_generator(numbers, corpus, max_len=40, short_prob=0.0)
    sizes = [len(a) + len(b) for a, b, _ in examples(generator, numbers, 9)]
    assert np.mean(np.array(sizes) == 37) > 0.9


def test_short_share(numbers, make_corpus):
    corpus, _ = make_corpus([[7] * 200] * 3)
    for single in (True, False):
        generator = lm_generator(
            numbers, corpus, batch_size=100, max_len=83, short_prob=0.25, use_single_sentence=single
        )
        sizes = np.concatenate([generator[i].padding_mask.sum(1) for i in range(50)]) - (2 if single else 3)
        full = 83 - (2 if single else 3)
        short = np.count_nonzero(sizes < full)
        assert 1e-4 < binom.cdf(short, 5000, 0.25 * (full - 2) / (full - 1)) < 1 - 1e-4
        assert sizes.min() == 2


@pytest.mark.parametrize("single", [True, False])
def test_every_sentence_comes_up(large, numbers, single):
    """Within a few epochs all of the text is seen, the ends of documents included, and none of it all the "
    "time."""
    corpus, documents = large
    generator = lm_generator(
        numbers, corpus, batch_size=64, max_len=40, use_single_sentence=single, mismatch_prob=0
    )
    seen = Counter()
    for index in range(20 * len(generator)):
        for first, second, _ in segments_of(generator[index], numbers):
            seen.update(first + (second or []))
    usable = [s for d in documents if single or len(d) > 1 for s in d]
    counts = np.array([seen[token] for sentence in usable for token in sentence])
    assert counts.min() > 0
    assert 15 < counts.mean() < 30 and counts.max() < 90


@pytest.mark.parametrize("single", [True, False])
def test_long_sentences(make_corpus, numbers, single):
    """Of a sentence that is longer than a row all text is read; in pairs its two ends are."""
    corpus, documents = make_corpus([[500, 3], [4, 400], [1000], [2, 2, 2]])
    generator = lm_generator(numbers, corpus, batch_size=16, max_len=50, use_single_sentence=single)
    places, seen = Places(documents), Counter()
    for first, second, is_next in examples(generator, numbers, 60):
        seen.update(first)
        if not single:
            check_pair(first, second, is_next, places, True)
            seen.update(second)
    if single:
        assert all(seen[token] for d in documents for s in d for token in s)
    else:
        assert all(seen[token] for token in (499, 500, 502, 503, 506, 507))


@pytest.mark.parametrize("seed", range(4))
def test_single_segments(make_corpus, numbers, seed):
    corpus, documents = make_corpus(random_sizes(seed, max_tokens=40))
    places = Places(documents)
    generator = lm_generator(numbers, corpus, batch_size=5, max_len=30, use_single_sentence=True, seed=seed)
    for first, second, is_next in examples(generator, numbers, 30):
        assert second is None and is_next is None and is_run(first)
        document = documents[places.document_of[first[0]]]
        assert places.document_of[first[-1]] == places.document_of[first[0]]
        is_aligned = first[0] in places.starts or first[-1] in places.document_ends
        step = first[0] - documents_sentence_start(places, first[0])
        assert is_aligned or step > 0
        assert len(first) <= min(28, sum(map(len, document)))


def documents_sentence_start(places, token):
    return places.sentences[places.sentence_of[token]][0]


@pytest.mark.parametrize("epoch", [0, 3])
def test_one_sentence_each_exactly_once(make_corpus, numbers, epoch):
    corpus, documents = make_corpus(random_sizes(5, num_documents=11))
    generator = lm_generator(numbers, corpus, batch_size=1, max_len=12, fill=False, use_single_sentence=True)
    sentences = [s for d in documents for s in d]
    assert len(generator) == len(sentences)
    batches = (generator[epoch * len(generator) + i] for i in range(len(generator)))
    found = sorted(first for batch in batches for first, _, _ in segments_of(batch, numbers))
    assert found == sorted(s[:10] for s in sentences)


def test_one_pair_each_exactly_once(make_corpus, numbers):
    corpus, documents = make_corpus(random_sizes(6, num_documents=11, max_tokens=30))
    generator = lm_generator(numbers, corpus, batch_size=1, max_len=23, fill=False)
    expected = sorted(a[-1] for d in documents for a, _ in zip(d, d[1:], strict=False))
    found = sorted(first[-1] for batch in generator for first, _, _ in segments_of(batch, numbers))
    assert found == expected
    for first, second, _ in examples(generator, numbers, 50):
        places = Places(documents)
        sizes = [len(places.sentences[places.sentence_of[part[0]]]) for part in (first, second)]
        if sum(sizes) <= 20:
            assert [len(first), len(second)] == sizes
        else:  # The longer is cut first.
            assert len(first) + len(second) == 20 and min(len(first), len(second)) >= min(10, *sizes)


@pytest.mark.parametrize("options", [{}, dict(fill=False), dict(use_single_sentence=True, fill=False)])
@pytest.mark.parametrize("min_len", [9, 20, 29])
def test_min_len(make_corpus, numbers, options, min_len):
    corpus, documents = make_corpus([*random_sizes(8, 30), [14, 15, 13, 28, 26], [29, 27]])
    generator = lm_generator(
        numbers, corpus, batch_size=13, max_len=29, min_len=min_len, short_prob=0.8, **options
    )
    sizes = np.concatenate([generator[i].padding_mask.sum(1) for i in range(60)])
    assert sizes.min() >= min_len
    if options.get("fill", True) and min_len < 29:
        assert len({*sizes.tolist()}) == 30 - min_len


def test_documents_of_one_sentence_serve_as_b(make_corpus, numbers):
    corpus, documents = make_corpus([[5, 6, 7], [8, 9, 4], [6], [7]])
    places = Places(documents)
    rows = list(examples(lm_generator(numbers, corpus, batch_size=50, max_len=16), numbers, 10))
    assert {places.document_of[first[0]] for first, _, _ in rows} == {0, 1}
    assert {places.document_of[second[0]] for _, second, is_next in rows if not is_next} == {0, 1, 2, 3}
    for row in rows:
        check_pair(*row, places, True)


def test_corpora_without_pairs(make_corpus, numbers):
    one, _ = make_corpus([[5, 6, 7, 8]])
    for fill in (True, False):
        with pytest.raises(
            ValueError, match="no negative pair.*blank lines.*use_single_sentence=True.*mismatch_prob=0"
        ):
            lm_generator(numbers, one, max_len=16, fill=fill)
        generator = lm_generator(numbers, one, batch_size=4, max_len=16, fill=fill, mismatch_prob=0)
        assert all(is_next == 1 for _, _, is_next in examples(generator, numbers, 5))
        lm_generator(numbers, one, max_len=16, fill=fill, use_single_sentence=True)[0]
    lone, _ = make_corpus([[5], [6], [7]])
    for fill in (True, False):
        with pytest.raises(ValueError, match="no document of two sentences"):
            lm_generator(numbers, lone, max_len=16, fill=fill)
        lm_generator(numbers, lone, max_len=16, fill=fill, use_single_sentence=True)[0]
    for options in (
        {},
        dict(fill=False),
        dict(use_single_sentence=True),
        dict(fill=False, use_single_sentence=True),
    ):
        with pytest.raises(ValueError, match="min_len"):
            lm_generator(numbers, lone, max_len=64, min_len=40, **options)


def test_decoded_pairs_against_the_text(english, english_encoder, english_file):
    """Real text, decoded: B follows A in the file exactly where the label says so."""
    documents = [d.split("\n") for d in english_file.read_text(encoding="utf-8").split("\n\n")]
    decode = english_encoder.decode
    lines = [[decode(ids) for ids in english_encoder.encode_batch(document) if ids] for document in documents]
    successors = {(a, b) for document in lines for a, b in zip(document, document[1:], strict=False)}
    generator = lm_generator(english_encoder, english, batch_size=50, max_len=512, fill=False)
    counts = Counter()
    for index in range(20):
        batch = generator[index]
        for row, tokens in enumerate(batch.token_classification["lm"].target):
            first, second = (
                decode(tokens[batch.padding_mask[row] & (batch.segments[row] == segment)])
                for segment in (0, 1)
            )
            is_next = int(batch.sentence_classification["is_next"].target[row])
            counts[is_next] += 1
            if batch.padding_mask[row].all():
                continue
            if is_next:
                assert (first, second) in successors
            else:
                homes = [
                    {d for d, document in enumerate(lines) if part in document} for part in (first, second)
                ]
                assert len(homes[0] | homes[1]) > 1
    assert 1e-4 < binom.cdf(counts[1], 1000, 0.5) < 1 - 1e-4


def test_boundaries_are_drawn_evenly(make_corpus, numbers):
    corpus, _ = make_corpus([[5] * 400] * 2)
    generator = lm_generator(numbers, corpus, batch_size=100, max_len=43, short_prob=0.0)
    sizes = np.array([len(first) for first, _, _ in examples(generator, numbers, 60)])
    inner = sizes[sizes % 5 == 0]  # Chunks at the end of a document begin anywhere.
    assert inner.size > 0.9 * sizes.size
    assert chisquare(np.bincount(inner // 5, minlength=8)[1:8]).pvalue > 1e-4


def test_short_documents_hardly_shorten_b(make_corpus, numbers):
    """B comes from a document that has room, if need be after a few tries; half of the text has not."""
    corpus, documents = make_corpus([[4, 5]] * 60 + [[9] * 60, [9] * 60])
    places = Places(documents)
    generator = lm_generator(numbers, corpus, batch_size=100, max_len=63, short_prob=0.0)
    from_long = [(a, b) for a, b, _ in examples(generator, numbers, 20) if places.document_of[a[0]] >= 60]
    assert all(len(a) + len(b) == 60 for a, b in from_long if a[0] not in places.document_starts)
    # Half of the other text is long: four tries find it in 15 of 16 cases.
    assert np.mean([len(b) <= 9 for _, b in from_long]) < 1 / 6 + 1 / 16 + 0.06


def test_a_new_order_each_epoch(make_corpus, numbers):
    corpus, _ = make_corpus([[3] * 30])
    generator = lm_generator(numbers, corpus, batch_size=30, max_len=9, fill=False, use_single_sentence=True)
    orders = [tuple(a[0] for a, _, _ in segments_of(generator[epoch], numbers)) for epoch in range(20)]
    assert len({*orders}) == 20 and len({tuple(sorted(order)) for order in orders}) == 1
