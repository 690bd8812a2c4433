"""The model card: `README.md` with a front matter that the Hugging Face Hub reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from bert_keras.sharing.form import has_heads, is_rebuildable
from bert_keras.sharing.front_matter import to_yaml
from bert_keras.sharing.scores import Score, last_validation, model_index
from bert_keras.sharing.told import Told
from bert_keras.tasks import IS_NEXT_TASK, LM_TASK, TaskMetadata

_MOST_LABELS = 20  # shown of one task
_NOT_SAID = "The author has not said."
_FACTS = {  # attributes of encoders, where they have them
    "num_layers": "layers",
    "embedding_dim": "width",
    "num_heads": "attention heads",
    "d_hid": "inner width of the feed-forward network",
    "num_filters": "filters of each width",
    "position_embedding": "positions",
    "norm_kind": "kind of norm",
    "vocab_size": "vocabulary",
    "max_len": "longest text in tokens",
    "is_causal": "reads only from left to right",
}


@dataclass(frozen=True)
class Card:
    """All that a model card tells.

    Args:
        model: a model with tasks, or an encoder.
        told: by its author.
        scores: measured on data.
        record: of the training (`training_record`).
        source: what `load_pretrained` is to be given: a folder's name, or a name on the Hub.
    """

    model: keras.Model
    told: Told
    scores: Sequence[Score]
    record: Mapping[str, Any]
    source: str

    @property
    def tasks(self) -> list[TaskMetadata]:
        """The model's tasks; an encoder has none."""
        return list(self.model.tasks) if has_heads(self.model) else []

    @property
    def encoder(self) -> keras.Model:
        """The model's encoder."""
        return self.model.encoder if has_heads(self.model) else self.model

    def to_markdown(self) -> str:
        """Return the whole card."""
        told = self.told
        validation = last_validation(self.record["phases"], self.tasks)
        parts = [
            f"---\n{to_yaml(self.front_matter())}---\n",
            f"# {told.name}\n",
            f"{told.description or self._summary()}\n",
            "## Tasks\n",
            self._tasks(),
            "## Use\n",
            self._use(),
            "## Scores\n",
            _score_table([*self.scores, *validation]),
            "## Data\n",
            self._data(),
            "## Model\n",
            self._model(),
            "## Training\n",
            self._training(),
            "## Limitations\n",
            f"{told.limitations or _NOT_SAID}\n",
        ]
        return "\n".join(parts)

    def front_matter(self) -> dict[str, Any]:
        """Return the metadata that the Hub reads.

        Source: https://huggingface.co/docs/hub/model-cards#model-card-metadata
        """
        told, types = self.told, {task.name: hub_task(task, self._is_causal) for task in self.tasks}
        own = [types[task.name] for task in self.tasks if task.name != IS_NEXT_TASK]
        main = next((kind for kind in own if kind not in ("fill-mask", "text-generation")), None)
        main = main or next(iter(own), "feature-extraction")
        content = {
            "library_name": "bert_keras",
            "pipeline_tag": main,
            "tags": list(dict.fromkeys(["bert_keras", "keras", *own, *told.tags])),
            "license": told.license,
            "language": list(told.language),
            "datasets": list(told.datasets),
            "base_model": told.base_model,
            "model-index": model_index(told.name, self.scores, told.datasets, types, main),
        }
        return {name: value for name, value in content.items() if value}

    @property
    def _is_causal(self) -> bool:
        return bool(getattr(self.encoder, "is_causal", False))

    def _summary(self) -> str:
        what = f"An encoder of texts (`{type(self.encoder).__name__}`)"
        names = ", ".join(f"`{task.name}`" for task in self.tasks)
        heads = f" with heads for {names}" if names else ""
        return f"{what}{heads}, of {self.record['parameters']['all']:,} parameters, made with bert_keras."

    def _tasks(self) -> str:
        if not self.tasks:
            return "None: it turns texts into vectors, and is a start for training.\n"
        rows = [
            (
                f"`{task.name}`",
                "each token" if task.is_token_level else "the text",
                task.kind,
                task.num_classes,
                _labels(task),
            )
            for task in self.tasks
        ]
        return table(("task", "about", "kind", "numbers", "labels"), rows)

    def _use(self) -> str:
        lines = ["```python", "from bert_keras import load_pretrained", ""]
        arguments = json.dumps(self.source, ensure_ascii=False)
        text = ""
        if not is_rebuildable(self.encoder):
            arguments += ", encoder=encoder"
            text = (
                f"The encoder is a model of its author's own (a `{type(self.encoder).__name__}` named "
                f"`{self.encoder.name}`), which bert_keras cannot build. Build it as its author did, as "
                "`encoder`; its weights come from here.\n\n"
            )
        lines.append(f"pretrained = load_pretrained({arguments})")
        lines += [self._call(task) for task in self.tasks if task.name != IS_NEXT_TASK]
        lines += ['print(pretrained.embed("A text.").shape)', "```"]
        return text + "\n".join(lines) + "\n\nMany texts at once are given as a list.\n"

    def _call(self, task: TaskMetadata) -> str:
        if task.name == LM_TASK:
            if self._is_causal:
                return 'print(pretrained.generate("A text", max_new_tokens=2))'
            return 'print(pretrained.fill_mask("A text with a [MASK].", top_k=1))'
        name = json.dumps(task.name, ensure_ascii=False)
        if task.kind == "span":
            return f'print(pretrained.answer(("What is this?", "This is a text."), task={name}))'
        return f'print(pretrained.{"tag" if task.is_token_level else "classify"}("A text.", task={name}))'

    def _data(self) -> str:
        named = ", ".join(f"[{name}](https://huggingface.co/datasets/{name})" for name in self.told.datasets)
        listed = f"On the Hub: {named}.\n" if named else ""
        return "\n".join(part for part in (f"{self.told.data or _NOT_SAID}\n", listed) if part)

    def _model(self) -> str:
        encoder, parameters = self.encoder, self.record["parameters"]
        rows: list[tuple[Any, ...]] = [("encoder", f"`{type(encoder).__name__}`")]
        for name, words in _FACTS.items():
            value = getattr(encoder, name, None)
            if value is not None:
                rows.append((words, ("no", "yes")[value] if isinstance(value, bool) else value))
        rows += [("parameters", parameters["all"]), ("of these in the encoder", parameters["encoder"])]
        rows.append(("dtype policy", f"`{encoder.dtype_policy.name}`"))
        base = self.told.base_model
        if base:
            rows.append(("begun with", f"[{base}](https://huggingface.co/{base})"))
        return table(("", ""), rows)

    def _training(self) -> str:
        phases, recipes = self.record["phases"], self.record["recipes"]
        parts = []
        rows = []
        for phase in dict.fromkeys([*recipes, *phases]):
            known = phases.get(phase, {"epochs": None, "batches_per_epoch": None, "history": {}})
            losses = known["history"].get("loss") or [None]
            recipe = f"`{recipes[phase]['name']}`" if phase in recipes else None
            rows.append((phase, recipe, known["epochs"], known["batches_per_epoch"], losses[0], losses[-1]))
        if rows:
            columns = ("phase", "recipe", "epochs", "batches an epoch", "first loss", "last loss")
            parts.append(table(columns, rows))
        if recipes:
            figures = sorted({figure for recipe in recipes.values() for figure in recipe} - {"name"})
            known_figures = [(name, *(recipe.get(name) for recipe in recipes.values())) for name in figures]
            parts.append(table(("figure", *recipes), known_figures))
        versions = ", ".join(f"{name} {version}" for name, version in self.record["versions"].items())
        parts.append(f"Written with {versions}. `training.json` has the histories of all measures.\n")
        return "\n".join(parts)


def hub_task(task: TaskMetadata, is_causal: bool) -> str:
    """Return what the Hub calls a task.

    Source: https://huggingface.co/tasks
    """
    if task.name == LM_TASK:
        return "text-generation" if is_causal else "fill-mask"
    if task.kind == "span":
        return "question-answering"
    return "token-classification" if task.is_token_level else "text-classification"


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table.

    Example:
        >>> print(table(("a", "b"), [(1234, None)]), end="")
        | a | b |
        | --- | --- |
        | 1,234 |  |
    """
    lines = [columns, ["---"] * len(columns), *([_cell(value) for value in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _score_table(scores: Sequence[Score]) -> str:
    if not scores:
        return "None were given.\n"
    rows = [
        (score.data, f"`{score.task}`" if score.task else "all", score.measure.replace("_", " "), score.value)
        for score in scores
    ]
    return table(("data", "task", "measure", "score"), rows)


def _labels(task: TaskMetadata) -> str | None:
    if task.labels is None:
        return None
    more = len(task.labels) - _MOST_LABELS
    shown = ", ".join(task.labels[:_MOST_LABELS])
    return f"{shown} and {more:,} more (`config.json`)" if more > 0 else shown


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return " ".join(str(value).replace("|", "\\|").split())
