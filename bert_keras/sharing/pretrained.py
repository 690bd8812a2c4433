"""A loaded model with its text encoder: one object that answers on raw texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from bert_keras.data.rows import Text
from bert_keras.sharing.form import CARD_FILE, has_heads
from bert_keras.text import TextEncoder
from bert_keras.training.model import MultiTaskModel
from bert_keras.training.prediction import predict
from bert_keras.use import answer, classify, embed, fill_mask, generate, tag
from bert_keras.use.texts import one_or_many


@dataclass(frozen=True, eq=False, repr=False)
class Pretrained:
    """A model that is ready for use. `load_pretrained` returns it.

    Every method takes one text or any number of them, and gives one result or an iterator over results, in
    order and in constant memory. Options are those of the function of the same name.

    Attributes:
        model: a `MultiTaskModel`, or an encoder alone.
        text_encoder: the one that belongs to it.
        directory: where it was loaded from.
        config: what `config.json` says; empty for a run of the command line.
        training: what `training.json` says of the training; empty for such a run.

    Example:

    ```python
    save_pretrained(model, "my_sentiment", text_encoder)
    pretrained = load_pretrained("my_sentiment")
    pretrained.classify("A fine film.").label
    for vector in pretrained.embed(["A fine film.", "Dull."], normalize=True):
        print(vector.shape)
    ```
    """

    model: keras.Model
    text_encoder: TextEncoder
    directory: Path
    config: Mapping[str, Any]
    training: Mapping[str, Any]

    @property
    def encoder(self) -> keras.Model:
        """The encoder without heads."""
        return self.model.encoder if has_heads(self.model) else self.model

    @property
    def card(self) -> str | None:
        """The model card, or None where there is none."""
        path = self.directory / CARD_FILE
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def predict(self, texts: Text | Iterable[Text], **options: Any) -> Any:
        """Predict all tasks but `lm` and `is_next`: see `bert_keras.predict`."""
        model = self._with_tasks()

        def run(some: Iterable[Text]) -> Iterator[dict[str, Any]]:
            return predict(model, self.text_encoder, some, **{"verbose": 0, **options})

        return one_or_many(texts, run)

    def classify(self, texts: Text | Iterable[Text], **options: Any) -> Any:
        """Tell the label of texts: see `bert_keras.classify`."""
        return classify(self._with_tasks(), self.text_encoder, texts, **options)

    def tag(self, texts: Text | Iterable[Text], **options: Any) -> Any:
        """Tell the labels of the words of texts: see `bert_keras.tag`."""
        return tag(self._with_tasks(), self.text_encoder, texts, **options)

    def answer(self, questions: tuple[str, str] | Iterable[tuple[str, str]], **options: Any) -> Any:
        """Find answers in texts: see `bert_keras.answer`."""
        return answer(self._with_tasks(), self.text_encoder, questions, **options)

    def fill_mask(self, texts: Text | Iterable[Text], **options: Any) -> Any:
        """Tell what belongs in gaps: see `bert_keras.fill_mask`."""
        return fill_mask(self._with_tasks(), self.text_encoder, texts, **options)

    def embed(self, texts: Text | Iterable[Text], **options: Any) -> Any:
        """Turn texts into vectors: see `bert_keras.embed`."""
        return embed(self.model, self.text_encoder, texts, **options)

    def generate(self, prompts: str | Iterable[str], **options: Any) -> Any:
        """Go on with texts, by a causal model: see `bert_keras.generate`."""
        return generate(self.model, self.text_encoder, prompts, **options)

    def __repr__(self) -> str:
        names = [task.name for task in self.model.tasks] if has_heads(self.model) else []
        return f"<Pretrained: {type(self.encoder).__name__}, tasks={names}, from {str(self.directory)!r}>"

    def _with_tasks(self) -> MultiTaskModel:
        if not has_heads(self.model):
            raise ValueError(
                f"{str(self.directory)!r} holds an encoder without tasks. `embed` gives its vectors; "
                "train_model(pretrained.encoder, tasks, ...) gives it tasks."
            )
        return self.model
