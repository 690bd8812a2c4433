"""The pictures: what is drawn is what was given; they render; errors say what is wrong."""

import builtins
import io
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from bert_keras import SentenceBatch, TaskDataBatch, plots

matplotlib = pytest.importorskip("matplotlib")


def rendered(figure):
    """The figure, drawn as PNG: warnings of the layout are errors in tests."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert file.getvalue()[:4] == b"\x89PNG"
    return figure


def texts_of(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


HISTORY = {
    "pretrain": SimpleNamespace(
        history={
            "loss": [3.0, 2.0],
            "lm_loss": [3.0, 2.0],
            "lm_accuracy": [0.1, 0.3],
            "lm_weight": [1.0, 0.5],
            "lm_perplexity": [20.0, 7.0],
            "val_lm_loss": [2.5, 2.25],
        }
    ),
    "finetune": {"loss": [1.0] * 3, "topic_loss": [1.0, 0.5, 0.25], "topic_weight": [2.0, 2.0, 2.0]},
}


def test_curves_hold_losses_weights_and_phases():
    figure = rendered(plots.training_curves(HISTORY))
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    lines = {line.get_label(): line for line in panels["lm: loss"].get_lines()}
    np.testing.assert_array_equal(lines["training"].get_xydata(), [[1, 3.0], [2, 2.0]])
    np.testing.assert_array_equal(lines["validation"].get_ydata(), [2.5, 2.25])
    [topic] = [line for line in panels["topic: loss"].get_lines() if line.get_label() == "training"]
    np.testing.assert_array_equal(topic.get_xydata(), [[3, 1.0], [4, 0.5], [5, 0.25]])
    behind = [axes for axes in figure.axes if axes.get_ylabel() == "weight in force"]
    np.testing.assert_array_equal(behind[0].patches[0].get_data().values, [1.0, 0.5])
    assert "lm: accuracy" in panels and {" pretrain", " finetune"} <= set(texts_of(figure))


def test_curves_of_one_phase_and_of_nothing():
    figure = plots.training_curves(HISTORY["pretrain"])
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == ["lm: loss", "lm: accuracy"]
    with pytest.raises(ValueError, match=r"no finished epoch.*\['loss'\]"):
        plots.training_curves({"loss": [1.0]})
    with pytest.raises(ValueError, match="Received: int"):
        plots.training_curves(3)


def test_tasks_whose_names_begin_alike_keep_their_measures():
    history = {"ner_loss": [1.0], "ner_accuracy": [0.5], "ner_fine_loss": [2.0], "ner_fine_accuracy": [0.25]}
    panels = {axes.get_title(): axes for axes in plots.training_curves(history).axes}
    assert [line.get_ydata()[0] for line in panels["ner: accuracy"].get_lines()] == [0.5]


def rows_of_attention(length, *before):
    values = np.random.default_rng(0).random((*before, length, length))
    return values / values.sum(-1, keepdims=True)


def test_attention_map_shows_the_matrix():
    values = rows_of_attention(3)
    figure = rendered(plots.attention_map(values, ["a", "$b", ""], title="head"))
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), values)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", r"\$b", "''"]
    with pytest.raises(ValueError, match=r"shape \(2, 2\).*Received shape \(3, 3\)"):
        plots.attention_map(values, ["a", "b"])


def test_all_heads_are_drawn():
    values = rows_of_attention(5, 2, 3)
    figure = rendered(plots.attention_heads(values, list("abcde")))
    assert len(figure.axes) == 6
    np.testing.assert_allclose(figure.axes[4].images[0].get_array(), values[1, 1])
    with pytest.raises(ValueError, match=r"\(layers, heads, 5, 5\)"):
        plots.attention_heads(values[0], list("abcde"))


def test_head_view_draws_strong_attention_of_the_chosen_token():
    values = np.array([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.0, 0.0, 1.0]])
    figure = rendered(plots.head_view(values, ["x", "y", "z"], token=1, least=0.25))
    ends = [tuple(line.get_ydata()) for line in figure.axes[0].get_lines()]
    assert ends == [(1, 1), (1, 2)]
    widths = [line.get_linewidth() for line in figure.axes[0].get_lines()]
    assert widths[0] > widths[1]
    everything = rendered(plots.head_view(np.stack([values, values]), ["x", "y", "z"], least=0.6))
    assert sum(len(line.get_ydata()) == 2 for line in everything.axes[0].get_lines()) == 4
    even = rendered(plots.head_view(np.full((3, 3), 1 / 3), ["x", "y", "z"]))
    assert "no attention above 0.67; the strongest is 0.33" in texts_of(even)
    with pytest.raises(ValueError, match="`token` must be from 0 to 2. Received: token=3"):
        plots.head_view(values, ["x", "y", "z"], token=3)


class FakeTextEncoder:
    msk_id, special_ids = 4, frozenset({0, 1, 2, 3, 4})

    def id_to_token(self, number):
        return f"t{number}"


def test_batch_in_colour_shows_tokens_labels_and_padding():
    batch = SentenceBatch(
        np.array([[1, 7, 4, 3, 9, 2, 0], [1, 8, 2, 0, 0, 0, 0]], "int32"),
        np.array([[0, 0, 0, 0, 1, 1, 0], [0] * 7], "int32"),
        np.array([[1] * 6 + [0], [1] * 3 + [0] * 4], bool),
        {
            "lm": TaskDataBatch(np.full((2, 7), 6, "int32"), np.array([[0, 0, 1] + [0] * 4, [0] * 7], bool)),
            "pos": TaskDataBatch(np.full((2, 7), 5), np.array([[0, 1] + [0] * 5, [0] * 7], bool)),
        },
        {"is_next": TaskDataBatch(np.array([1, 0]), np.array([0, -1]))},
    )
    figure = rendered(plots.batch_in_colour(batch, FakeTextEncoder(), rows=2, tokens_per_line=4))
    texts = texts_of(figure)
    shown = [text for text in texts if text in ("5", "t1", "t7", "t4", "t6", "t3", "t9", "t2", "t8")]
    assert shown == ["t1", "t7", "5", "t4", "t6", "t3", "t9", "t2", "t1", "t8", "t2"]
    assert "row 0   is_next = 1   1 of padding" in texts and "row 1   is_next: -   4 of padding" in texts
    colours = [matplotlib.colors.to_hex(patch.get_facecolor()) for patch in figure.axes[0].patches]
    assert colours[0] == colours[3] and colours[1] != colours[4]  # special alike; segment A unlike B
    assert len(colours) == 9  # padding is not drawn
    framed = [patch.get_linewidth() > 1.5 for patch in figure.axes[0].patches]
    assert framed == [False, False, True, *[False] * 6]
    with pytest.raises(ValueError, match=r"numbers from 0 to 1.*rows=\[2\]"):
        plots.batch_in_colour(batch, FakeTextEncoder(), rows=[2])


def test_a_packed_batch_shows_the_labels_of_each_sequence():
    batch = SentenceBatch(
        np.array([[1, 7, 2, 1, 9, 2, 1, 8, 2, 0]], "int32"),
        np.zeros((1, 10), "int32"),
        np.array([[True] * 9 + [False]]),
        {},
        {"topic": TaskDataBatch(np.array([[5, 0, 6]]), np.array([[0, -1, 0]]))},
        np.array([[1, 1, 1, 2, 2, 2, 3, 3, 3, 0]], "int32"),
    )
    texts = texts_of(rendered(plots.batch_in_colour(batch, FakeTextEncoder())))
    assert "row 0   topic = 5, -, 6   1 of padding" in texts


def test_confusion_counts_by_hand():
    true, said = ["a", "a", "b", "b", "b"], ["a", "b", "b", "b", "b"]
    figure = rendered(plots.confusion_matrix(true, said, labels=["b", "a"]))
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), [[1.0, 0.0], [0.5, 0.5]])
    texts = texts_of(figure)
    assert "100%\n3" in texts and "50%\n1" in texts and "accuracy 80.0%" in texts and "a (2)" in texts
    with pytest.raises(ValueError, match=r"lacks classes that occur: \['b'\]"):
        plots.confusion_matrix(true, said, labels=["a"])
    with pytest.raises(ValueError, match="lengths 5 and 1"):
        plots.confusion_matrix(true, ["a"])


def test_principal_components_are_those_of_the_covariance():
    vectors = np.random.default_rng(3).normal(size=(40, 7)) @ np.diag([5, 1, 3, 1, 1, 1, 1])
    places, shares = plots.principal_components(vectors, 2)
    values, directions = np.linalg.eigh(np.cov(vectors.T))
    np.testing.assert_allclose(shares, values[::-1][:2] / values.sum())
    expected = (vectors - vectors.mean(0)) @ directions[:, ::-1][:, :2]
    np.testing.assert_allclose(np.abs(places), np.abs(expected), atol=1e-9)
    with pytest.raises(ValueError, match=r"Received shape \(1, 7\)"):
        plots.principal_components(vectors[:1])


def test_embedding_map_draws_groups_and_texts():
    vectors = np.random.default_rng(0).normal(size=(5, 4))
    figure = rendered(plots.embedding_map(vectors, texts=list("vwxyz"), groups=[0, 0, 1, 1, 1]))
    sizes = [len(points.get_offsets()) for points in figure.axes[0].collections]
    assert sizes == [2, 3]
    assert any("  5  z" in text for text in texts_of(figure))
    with pytest.raises(ValueError, match="`groups` must have one entry for each of 5 vectors. Received: 1"):
        plots.embedding_map(vectors, groups=[1])


def test_scores_are_drawn_with_their_intervals():
    rows = [
        SimpleNamespace(metric="f1", examples=n, side=side, mean=n / 1000, interval=i)
        for n, i in ((100, 0.01), (10, None))
        for side in ("scratch", "pretrained")
    ]
    figure = rendered(plots.score_against_labels(rows))
    [axes] = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["pretrained", "scratch"]
    np.testing.assert_allclose(axes.containers[0][0].get_xydata(), [[10, 0.01], [100, 0.1]])
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.score_against_labels([])


def test_no_state_of_pyplot_is_touched():
    code = (
        "import sys, bert_keras.plots as plots\n"
        "early = 'matplotlib' in sys.modules\n"
        "plots.confusion_matrix([1], [1])\n"
        "sys.exit('at import' if early else 'pyplot' if 'matplotlib.pyplot' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_missing_matplotlib_names_the_extra(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'pip install "bert_keras\[plots\]"'):
        plots.confusion_matrix([1], [1])
