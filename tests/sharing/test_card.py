"""The model card: what the Hub reads, what people read, and code that runs."""

import contextlib
import io
import re

import pytest

from bert_keras import (
    MultiTaskModel,
    TaskMetadata,
    evaluate_model,
    save_pretrained,
)
from bert_keras.sharing.card import table
from bert_keras.sharing.front_matter import to_yaml
from bert_keras.sharing.scores import given_scores

SCORES = {"loss": 0.7, "mood_accuracy": 0.8125, "mood_word_entity_f1": 0.5, "mood_macro_f1": float("nan")}


@pytest.fixture(scope="module")
def card(model, text_encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("card") / "moods"
    save_pretrained(
        model,
        folder,
        text_encoder,
        description="Tells the mood of a line.",
        data="Five lines, written by hand.",
        license="apache-2.0",
        language=["en", "no"],
        datasets="stanfordnlp/sst2",
        base_model="google-bert/bert-base-uncased",
        tags="film",
        scores={"SST-2, validation": SCORES},
        limitations="It has seen five lines.",
        verbose=0,
    )
    return (folder / "README.md").read_text(encoding="utf-8")


def section(card, name):
    return re.search(rf"^## {name}\n\n(.*?)(?=^## |\Z)", card, re.DOTALL | re.MULTILINE)[1]


def test_the_front_matter_is_yaml(card):
    yaml = pytest.importorskip("yaml")
    content = yaml.safe_load(card.split("---\n")[1])
    assert {name: content[name] for name in ("library_name", "pipeline_tag", "license", "language")} == {
        "library_name": "bert_keras",
        "pipeline_tag": "text-classification",
        "license": "apache-2.0",
        "language": ["en", "no"],
    }
    assert content["tags"] == [
        "bert_keras", "keras", "fill-mask", "text-classification", "token-classification", "film",
    ]  # fmt: skip
    assert content["datasets"] == ["stanfordnlp/sst2"]
    assert content["base_model"] == "google-bert/bert-base-uncased"
    [model] = content["model-index"]
    found = [
        (each["task"]["type"], each["dataset"], metric["type"], metric["value"])
        for each in model["results"]
        for metric in each["metrics"]
    ]
    data = {"type": "stanfordnlp/sst2", "name": "SST-2, validation"}
    assert model["name"] == "moods" and found == [
        ("text-classification", data, "loss", 0.7),
        ("text-classification", data, "accuracy", 0.8125),
        ("token-classification", data, "f1", 0.5),
    ]


def test_the_hub_reads_it(card):
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard(card).data
    assert data.license == "apache-2.0" and data.library_name == "bert_keras" and data.model_name == "moods"
    assert [(each.metric_type, each.metric_value) for each in data.eval_results] == [
        ("loss", 0.7),
        ("accuracy", 0.8125),
        ("f1", 0.5),
    ]


def test_people_read_it(card, model):
    assert "# moods\n\nTells the mood of a line.\n" in card
    assert "| `mood` | the text | classification | 2 | down, up \\| away |" in section(card, "Tasks")
    assert "| `mood_word` | each token | classification | 2 | no, yes |" in section(card, "Tasks")
    scores = section(card, "Scores")
    assert "| SST-2, validation | `mood` | accuracy | 0.8125 |" in scores
    assert "| SST-2, validation | `mood_word` | entity f1 | 0.5 |" in scores
    assert "| SST-2, validation | `mood` | macro f1 |  |" in scores
    last = model.training_history["finetune"].history["val_mood_word_accuracy"][-1]
    assert f"| validation of phase finetune | `mood_word` | accuracy | {last:.4g} |" in scores
    assert "weight" not in scores
    data = section(card, "Data")
    assert data.startswith("Five lines, written by hand.") and "datasets/stanfordnlp/sst2" in data
    facts = section(card, "Model")
    assert "| layers | 2 |" in facts and "| width | 12 |" in facts and "bert-base-uncased" in facts
    assert f"| parameters | {model.count_params():,} |" in facts
    losses = model.training_history["finetune"].history["loss"]
    training = section(card, "Training")
    assert f"| finetune | `modern` | 2 | 2 | {losses[0]:.4g} | {losses[-1]:.4g} |" in training
    assert "| matrix_learning_rate | 0.01 |" in training and "keras 3." in training
    assert section(card, "Limitations") == "It has seen five lines.\n"


def run_code(card):
    [code] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README", "exec"), {})
    return printed.getvalue()


def test_its_code_runs(model, text_encoder, tmp_path, monkeypatch):
    save_pretrained(model, tmp_path / 'my "moods"', text_encoder, verbose=0)
    monkeypatch.chdir(tmp_path)
    printed = run_code((tmp_path / 'my "moods"' / "README.md").read_text())
    assert "MaskPrediction" in printed and "LabelPrediction" in printed and "WordPrediction" in printed
    assert printed.endswith("(12,)\n")


def test_code_for_other_tasks_runs(text_encoder, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    causal = MultiTaskModel(tiny(is_causal=True), [TaskMetadata("lm", True, text_encoder.vocab_size)])
    save_pretrained(causal, "causal", text_encoder, verbose=0)
    card = (tmp_path / "causal" / "README.md").read_text()
    assert 'pipeline_tag: "text-generation"' in card and run_code(card)
    span = MultiTaskModel(tiny(), [TaskMetadata("where", False, kind="span")])
    save_pretrained(span, "span", text_encoder, verbose=0)
    card = (tmp_path / "span" / "README.md").read_text()
    assert 'pipeline_tag: "question-answering"' in card and "SpanPrediction" in run_code(card)
    save_pretrained(tiny(), "encoder", text_encoder, verbose=0)
    card = (tmp_path / "encoder" / "README.md").read_text()
    assert 'pipeline_tag: "feature-extraction"' in card and run_code(card) == "(12,)\n"
    assert "model-index" not in card and "The author has not said." in section(card, "Data")


def test_a_name_on_the_hub_is_what_the_code_loads(model, text_encoder, tmp_path):
    folder = save_pretrained(model, tmp_path / "x", text_encoder, name="ann/moods", verbose=0)
    assert 'load_pretrained("ann/moods")' in (folder / "README.md").read_text()


def test_scores_of_evaluate_model(model, text_encoder, tmp_path, toy):
    scores = evaluate_model(model, toy())
    folder = save_pretrained(model, tmp_path / "x", text_encoder, scores=scores, verbose=0)
    line = f"| held-out data | `lm` | perplexity | {scores['lm_perplexity']:.4g} |"
    assert line in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"language": "English"}, "`language` must be codes .* Received: 'English'"),
        ({"datasets": ["two words"]}, "`datasets` must be given as on the Hub"),
        ({"base_model": "/somewhere/else/x"}, "`base_model` must be given as on the Hub"),
        ({"license": ""}, "`license` must be a text, or None"),
        ({"description": 3}, "`description` must be a text, or None"),
        ({"name": "two\nlines"}, "`name` must be one line"),
        ({"tags": [1]}, "`tags` must be a text or several"),
        ({"scores": {"x": "good"}}, "`scores` must be numbers by name"),
        ({"scores": {"x": {"accuracy": True}}}, "`scores` must be numbers by name"),
        ({"scores": {"x": 1.0, "y": {"z": 1.0}}}, "`scores` must be numbers by name"),
    ],
)
def test_what_the_hub_would_not_read_is_refused(model, text_encoder, tmp_path, arguments, problem):
    with pytest.raises(ValueError, match=problem):
        save_pretrained(model, tmp_path / "x", text_encoder, **arguments)
    assert not (tmp_path / "x").exists()


def test_names_of_scores_are_cut_at_the_longest_task(tasks):
    found = given_scores({"mood_word_f1": 1, "mood_f1": 0.5, "f1": 0.25}, tasks)
    assert [(score.task, score.measure, score.value) for score in found] == [
        ("mood_word", "f1", 1.0),
        ("mood", "f1", 0.5),
        ("", "f1", 0.25),
    ]


STRINGS = ["no", "1.0", "null", "- a: b", '"', "\\", "a\nb", "\x85", "\u2028x", "\x7f", "ø 東京 🙂", "#", " "]


def test_yaml_says_what_was_meant():
    yaml = pytest.importorskip("yaml")
    content = {
        "strings": STRINGS,
        "numbers": [1, -2, 0.5, 1e-05, 1e22, 1.5e-07, 123456789.125],
        "nested": {"a": {"b": [{"c": "d", "e": [{"f": 1}]}, {"g": 2}]}},
    }
    assert yaml.safe_load(to_yaml(content)) == content


def test_tables_escape_what_would_break_them():
    assert table(("a", "b"), [("x|y\nz", True)]) == "| a | b |\n| --- | --- |\n| x\\|y z | True |\n"
