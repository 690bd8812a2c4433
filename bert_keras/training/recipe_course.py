"""Masks and lengths of rows that follow a recipe's course."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bert_keras.data import MixedGenerator, SentenceBatch
from bert_keras.training.budget import TimeBudget
from bert_keras.training.recipes import Recipe


def course_of(recipe: Any, source: Any, num_steps: int, clock: TimeBudget | None) -> Any:
    """Return a source of batches as a recipe wants them in the course of the training.

    Args:
        recipe: a `Recipe`; of anything else the source stays as it is.
        source: any source of batches. What comes from an `lm_generator`, by itself or within a
            `mixed_generator`, is masked as the recipe says if it was made without shares of its own, and has
            shorter rows as long as the recipe wants them.
        num_steps: batches of the whole training.
        clock: tells in place of `num_steps` how far the training is.

    Raises:
        ValueError: if a generator cannot make rows as short as the recipe wants them.
    """
    if not isinstance(recipe, Recipe):
        return source
    course = RecipeCourse(source, recipe, clock.progress_at if clock else lambda step: step / num_steps)
    return course if course.changes_anything else source


class RecipeCourse:
    """The batches of a source as a recipe wants them for how far the training is.

    Args:
        source: whose batches these are.
        recipe: says which shares are masked, replaced and kept, and for how long rows are how short.
        progress: from the number of a batch to the share of the training behind it, from 0 to 1.

    Attributes:
        changes_anything: whether there is a generator in it that leaves something to the recipe.
    """

    def __init__(self, source: Any, recipe: Recipe, progress: Callable[[int], float]) -> None:
        self.source, self.recipe, self.progress = source, recipe, progress
        self._short = source if recipe.short_length is None else _of_each_text(source, self._shortened)
        self.changes_anything = self._short is not source or self._at(0.0) is not source

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "source":
            raise AttributeError(name)
        return getattr(self.source, name)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> SentenceBatch:
        return self._at(self.progress(index))[index]

    def _at(self, progress: float) -> Any:
        """Return the source as it is wanted then."""
        is_short = progress < (self.recipe.short_share or 0.0)
        masking = self.recipe.masking(progress)

        def masked(generator: Any) -> Any:
            return generator.with_masking(**masking) if generator.masks_are_open else generator

        return _of_each_text(self._short if is_short else self.source, masked)

    def _shortened(self, generator: Any) -> Any:
        length = self.recipe.short_length
        if length >= generator.max_len:
            return generator
        try:
            return generator.with_length(length)
        except ValueError as error:
            raise ValueError(
                f"An `lm_generator` cannot make the rows of {length} tokens that the recipe wants at first "
                f"(`short_length={length}`): {error} Change the recipe's `short_length`, or give None for it "
                "and for `short_share`."
            ) from error


def _of_each_text(source: Any, change: Callable[[Any], Any]) -> Any:
    """Return a source with each `lm_generator` in it changed, or itself if none is."""
    if isinstance(source, MixedGenerator):
        sources = {name: _of_each_text(one, change) for name, one in source.sources.items()}
        is_same = all(sources[name] is one for name, one in source.sources.items())
        return source if is_same else source.with_sources(sources)
    return change(source) if hasattr(source, "masks_are_open") else source
