"""The tables name every variable once, and the documentation is what they say."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from bert_keras.checkpoints.tables import EXPORTS, GOOGLE_BERT, HUGGINGFACE_TABLES, OPENAI
from bert_keras.checkpoints.transforms import ClassesReversed, Same, SideBySide, Transposed, Unstacked

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("table", [OPENAI, GOOGLE_BERT, *HUGGINGFACE_TABLES.values()], ids=lambda t: t.name)
def test_nothing_is_named_twice(table):
    rows = list(table.rows_for(2))
    targets, sources = [row.target for row in rows], [name for row in rows for name in row.sources]
    assert len(set(targets)) == len(targets)
    assert len(set(sources)) == len(sources)
    for copy, original in table.copies.items():
        heads = {name for head in table.heads for row in head.rows for name in row.sources}
        assert copy not in sources
        assert original in {*sources, *heads}


@pytest.mark.parametrize(
    ("transform", "shape"),
    [
        (Same(), (5, 7)),
        (Transposed(), (5, 7)),
        (Unstacked(), (5, 7)),
        (SideBySide(Same()), (12,)),
        (SideBySide(Transposed()), (5, 12)),
        (ClassesReversed(Transposed()), (5, 2)),
        (ClassesReversed(Same()), (2,)),
    ],
    ids=lambda x: getattr(x, "description", str(x)),
)
def test_every_change_can_be_undone(transform, shape):
    value = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    sources = transform.backward(value)
    assert len(sources) == transform.num_sources
    assert {source.shape for source in sources} == {transform.source_shape(shape)}
    np.testing.assert_array_equal(transform.forward(sources), value)


def test_worked_by_hand():
    query, key, value = ([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.zeros((3, 2)), np.ones((3, 2)))
    kernel = SideBySide(Transposed()).forward([np.array(query), key, value])
    np.testing.assert_array_equal(kernel, [[1, 3, 5, 0, 0, 0, 1, 1, 1], [2, 4, 6, 0, 0, 0, 1, 1, 1]])
    np.testing.assert_array_equal(ClassesReversed(Same()).forward([np.array([0.25, 0.5])]), [0.5, 0.25])


def test_the_documentation_is_up_to_date():
    page = runpy.run_path(str(DOCS / "make_checkpoints.py"))["document"]()
    assert (DOCS / "checkpoints.md").read_text(encoding="utf-8") == page, (
        "run python docs/make_checkpoints.py"
    )


def test_every_type_can_be_written():
    assert EXPORTS.keys() == HUGGINGFACE_TABLES.keys()
