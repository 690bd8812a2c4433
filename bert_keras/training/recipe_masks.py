"""Masks that follow a recipe's course."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bert_keras.data import LMGenerator, SentenceBatch
from bert_keras.training.budget import TimeBudget
from bert_keras.training.recipes import Recipe


def masked_by(recipe: Any, source: Any, num_steps: int, clock: TimeBudget | None) -> Any:
    """Return a source of batches that is masked as a recipe says, if it leaves its masks to one.

    Args:
        recipe: a `Recipe`; of anything else the source stays as it is.
        source: any source of batches.
        num_steps: batches of the whole training.
        clock: tells in place of `num_steps` how far the training is.
    """
    if not (isinstance(recipe, Recipe) and getattr(source, "masks_are_open", False)):
        return source
    return RecipeMasks(source, recipe, clock.progress_at if clock else lambda step: step / num_steps)


class RecipeMasks:
    """The batches of a generator, masked as a recipe says for how far the training is.

    Args:
        generator: its masks are open.
        recipe: says which shares are masked, replaced and kept.
        progress: from the number of a batch to the share of the training behind it, from 0 to 1.
    """

    def __init__(self, generator: LMGenerator, recipe: Recipe, progress: Callable[[int], float]) -> None:
        self.generator, self.recipe, self.progress = generator, recipe, progress

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "generator":
            raise AttributeError(name)
        return getattr(self.generator, name)

    def __len__(self) -> int:
        return len(self.generator)

    def __getitem__(self, index: int) -> SentenceBatch:
        return self.generator.with_masking(**self.recipe.masking(self.progress(index)))[index]
