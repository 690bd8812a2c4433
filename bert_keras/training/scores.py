"""What whole sets of predictions are worth: F1, correlations, entities, answers. NumPy alone."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

_TAG = re.compile(r"O|[BIES](-.*)?")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def macro_f1(true: np.ndarray, said: np.ndarray) -> float:
    """Return the mean over classes of F1, for one class each: over the classes that occur among either, as
    scikit-learn's `f1_score(average="macro")`.

    Args:
        true, said: int, `(n,)`.
    """
    classes = np.unique(np.concatenate([true, said]))
    if not len(classes):
        return 0.0
    places = [np.searchsorted(classes, values) for values in (true, said)]
    counts = [np.bincount(values, minlength=len(classes)) for values in places]
    hits = np.bincount(places[0][true == said], minlength=len(classes))
    return float(np.mean(2 * hits / (counts[0] + counts[1])))


def set_f1(true: Sequence[np.ndarray], said: Sequence[np.ndarray], num_classes: int) -> tuple[float, float]:
    """Return micro and macro F1 of sets of classes. The macro mean is over all classes; one that never occurs
    counts as 0, as in scikit-learn's `f1_score` of indicator matrices.

    Args:
        true, said: for each example its classes, int, without repetition.
        num_classes: how many there are.
    """
    owners = [np.repeat(np.arange(len(sets)), [len(one) for one in sets]) for sets in (true, said)]
    classes = [np.concatenate([*sets, np.zeros(0, int)]).astype(np.int64) for sets in (true, said)]
    counts = [np.bincount(values, minlength=num_classes) for values in classes]
    pairs = [owner * num_classes + values for owner, values in zip(owners, classes, strict=True)]
    hits = np.bincount(np.intersect1d(pairs[0], pairs[1]) % num_classes, minlength=num_classes)
    total = counts[0] + counts[1]
    micro = 2 * hits.sum() / total.sum() if total.sum() else 0.0
    return float(micro), float(np.mean(2 * hits / np.maximum(total, 1)))


def pearson(true: np.ndarray, said: np.ndarray) -> float:
    """Return Pearson's correlation of two arrays of numbers `(n,)`; nan if one of them is constant."""
    true, said = (
        np.asarray(values, np.float64) - np.mean(values, dtype=np.float64) for values in (true, said)
    )
    norm = np.sqrt((true**2).sum() * (said**2).sum())
    return float((true * said).sum() / norm) if norm > 0 else float("nan")


def spearman(true: np.ndarray, said: np.ndarray) -> float:
    """Return Spearman's correlation, that of the ranks; equal values share the mean of their ranks."""
    return pearson(_ranks(true), _ranks(said))


def are_entity_tags(labels: Iterable[str] | None) -> bool:
    """Return whether class names are tags of entities: O, and B-, I-, E- or S- with a type."""
    labels = list(labels or ())
    return any("-" in label for label in labels) and all(_TAG.fullmatch(label) for label in labels)


def entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return type, first and last word of every entity in the tags of one sentence.

    Tags may be IOB1, IOB2, IOE or IOBES. As in CoNLL's evaluation script, and in `seqeval` by default, an
    entity also begins where a type begins without B, and where the type changes.

    Source: Tjong Kim Sang and De Meulder, 2003, conlleval.
    """
    found = []
    before, begin = "O", 0
    for place, tag in enumerate([*tags, "O"]):
        same_type = tag[1:] == before[1:]
        if before[0] in "ES" or (before[0] in "BI" and (tag[0] in "BSO" or not same_type)):
            found.append((before[2:] or "_", begin, place - 1))
        if tag[0] in "BS" or (tag[0] in "IE" and (before[0] in "ESO" or not same_type)):
            begin = place
        before = tag
    return found


def entity_scores(true: Sequence[Sequence[str]], said: Sequence[Sequence[str]]) -> tuple[float, float, float]:
    """Return precision, recall and F1 of entities: right are those with the right type, first and last word.

    Args:
        true, said: the tags of each sentence.
    """
    hits = num_true = num_said = 0
    for one, other in zip(true, said, strict=True):
        expected, given = {*entities(one)}, {*entities(other)}
        hits += len(expected & given)
        num_true += len(expected)
        num_said += len(given)
    precision = hits / num_said if num_said else 0.0
    recall = hits / num_true if num_true else 0.0
    return precision, recall, 2 * hits / (num_true + num_said) if num_true + num_said else 0.0


def position_f1(true: np.ndarray, said: np.ndarray) -> float:
    """Return the mean F1 of the tokens of spans, `(n, 2)` first and last positions, inclusive."""
    common = np.minimum(true[:, 1], said[:, 1]) - np.maximum(true[:, 0], said[:, 0]) + 1
    sizes = sum(np.maximum(spans[:, 1] - spans[:, 0] + 1, 0) for spans in (true, said))
    return float(np.mean(2 * np.maximum(common, 0) / np.maximum(sizes, 1))) if len(true) else 0.0


def answer_scores(answers: Sequence[str | None], gold: Sequence[Sequence[str]]) -> tuple[float, float]:
    """Return exact match and F1 of answers, as the official evaluation of SQuAD 1.1 and 2.0 (there in
    per cent).

    Args:
        answers: given answers; None or empty for "no answer".
        gold: for each question its right answers; none if it has no answer.

    Source: Rajpurkar et al. 2016 and 2018: lower case, without punctuation and articles; the best of the
    right answers counts.
    """
    exact, overlap = [], []
    for answer, right in zip(answers, gold, strict=True):
        words = _words(answer or "")
        choices = [_words(text) for text in right if _words(text)] or [[]]
        exact.append(max(float(words == choice) for choice in choices))
        overlap.append(max(_word_f1(words, choice) for choice in choices))
    return (float(np.mean(exact)), float(np.mean(overlap))) if exact else (0.0, 0.0)


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def _word_f1(words: list[str], right: list[str]) -> float:
    if not words or not right:
        return float(words == right)
    common = sum((Counter(words) & Counter(right)).values())
    return 2 * common / (len(words) + len(right))
