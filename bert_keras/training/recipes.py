"""Recipes: how an encoder is trained, as tables of figures with a source for each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import keras

from bert_keras.encoders.torch_kernels import is_torch
from bert_keras.training.layer_rates import AdamW, check_rates
from bert_keras.training.muon import Muon
from bert_keras.training.optimizers import NOT_DECAYED, SCHEDULES, ProgressDecay
from bert_keras.training.recipe_tables import TABLES

_POSITIVE = ("learning_rate", "epsilon", "reference_width", "reference_tokens", "clip_norm", "short_length")
_SHARES = ("beta_1", "beta_2", "warmup", "predicted_share", "mask_share", "random_share")
_LEVELS_OF_MASKING = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an encoder is trained. Frozen: change figures with `create_recipe` or `dataclasses.replace`.

    Attributes:
        name: of the table it came from.
        optimizer: `"adamw"`, or `"muon"`: Muon for the matrices between hidden states, Adam for the rest.
        learning_rate: Adam's peak, at the reference width and batch.
        matrix_learning_rate: Muon's peak there; the size of its steps is on Adam's scale. None without Muon.
        reference_width, width_exponent: all rates of matrices are multiplied by (reference_width / width) **
            width_exponent; with Adam alone, all rates.
        reference_tokens, batch_exponent: all rates are multiplied by (tokens of a batch / reference_tokens)
            ** batch_exponent; padding counts.
        beta_1, beta_2, epsilon: Adam's.
        momentum: Muon's. None without it.
        warmup: share of the steps in which the rate rises from zero.
        schedule: what follows: `"linear"`, `"cosine"`, or `"stable"`: flat, then linear to zero.
        decay_share: share of the steps in which a `"stable"` rate falls. None for other schedules.
        weight_decay: decoupled; not of biases and norms.
        clip_norm: largest norm of the whole gradient; None for no clipping.
        average_momentum: the model ends with an exponential moving average of its weights, of which each
            update keeps this share (Polyak and Juditsky 1992); None for the last weights.
        predicted_share: share of the tokens that is predicted, at the beginning.
        final_predicted_share: the same at the end; in between it changes in six equal steps. None for one
            share all the time.
        short_length: tokens of the rows of an `lm_generator` in the first part of the training, where its own
            `max_len` is larger. As many rows make a batch, so the batch grows with the length. None for one
            length all the time.
        short_share: share of the training in which rows are that short. None without `short_length`.
        mask_share, random_share: which part of those the mask replaces, and which a random token.
        layer_decay: rate of each block as a multiple of that of the block above it; 1 for one rate.
        head_rate: rate of fresh classifiers, the layers that give a task's logits, as a multiple of the
            others'. Those that came with a checkpoint or were trained before, the pooler, and the head of
            language modelling have the others'.

    Raises:
        ValueError: for a figure out of its range, or one that the others leave without a meaning.

    Example:

    ```python
    model = train_model(encoder, tasks, generator, recipe=create_recipe("modern", weight_decay=0.0))
    print(create_recipe("bert").to_markdown())
    ```
    """

    name: str
    optimizer: str
    learning_rate: float
    matrix_learning_rate: float | None
    reference_width: int
    width_exponent: float
    reference_tokens: int
    batch_exponent: float
    beta_1: float
    beta_2: float
    epsilon: float
    momentum: float | None
    warmup: float
    schedule: str
    decay_share: float | None
    weight_decay: float
    clip_norm: float | None
    predicted_share: float
    mask_share: float
    random_share: float
    layer_decay: float = 1.0  # these two are absent in files from before they were
    head_rate: float = 1.0
    final_predicted_share: float | None = None  # as are these
    average_momentum: float | None = None
    short_length: int | None = None
    short_share: float | None = None

    def __post_init__(self) -> None:
        if self.optimizer not in ("adamw", "muon"):
            raise ValueError(f"`optimizer` must be 'adamw' or 'muon'. Received: optimizer={self.optimizer!r}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"`schedule` must be one of {SCHEDULES}. Received: schedule={self.schedule!r}")
        for field in _POSITIVE:
            value = getattr(self, field)
            if value is not None and not 0.0 < value < float("inf"):
                raise ValueError(f"`{field}` must be above 0. Received: {field}={value!r}")
        for field in (*_SHARES, "final_predicted_share"):
            share = getattr(self, field)
            if share is not None and not 0.0 <= share <= 1.0:
                raise ValueError(f"`{field}` must be from 0 to 1. Received: {field}={share!r}")
        if not isinstance(self.short_length, int | None):
            raise ValueError(
                "`short_length` must be a whole number of tokens. "
                f"Received: short_length={self.short_length!r}"
            )
        if self.weight_decay < 0 or self.warmup == 1 or self.mask_share + self.random_share > 1 + 1e-9:
            raise ValueError(
                "`weight_decay` must be at least 0, `warmup` below 1, both shares of masks at most 1 in all. "
                f"Received: {self.weight_decay}, {self.warmup}, {self.mask_share}, {self.random_share}"
            )
        if self.average_momentum is not None and not 0.0 < self.average_momentum < 1.0:
            raise ValueError(
                "`average_momentum` must be above 0 and below 1, or None for no average. "
                f"Received: average_momentum={self.average_momentum!r}"
            )
        check_rates(self.layer_decay, self.head_rate)
        for fields, rules, needed in (
            (("matrix_learning_rate", "momentum"), "optimizer='muon'", self.optimizer == "muon"),
            (("decay_share",), "schedule='stable'", self.schedule == "stable"),
            (("short_share",), "`short_length`", self.short_length is not None),
        ):
            for field in fields:
                value = getattr(self, field)
                if needed != (value is not None) or (needed and not 0.0 < value <= 1.0):
                    raise ValueError(
                        f"`{field}` must be above 0 and at most 1 with {rules}, and None without. "
                        f"Received: {field}={value!r}"
                    )

    def rates(self, width: int, batch_tokens: int) -> dict[str, float]:
        """Return the peak learning rates for an encoder and a batch.

        Args:
            width: features of a hidden state.
            batch_tokens: rows times length of a batch (times the batches of one update).

        Returns:
            `learning_rate`, and with Muon `matrix_learning_rate`.
        """
        by_batch = (batch_tokens / self.reference_tokens) ** self.batch_exponent
        by_width = (self.reference_width / width) ** self.width_exponent
        if self.matrix_learning_rate is None:
            return {"learning_rate": self.learning_rate * by_batch * by_width}
        return {
            "learning_rate": self.learning_rate * by_batch,
            "matrix_learning_rate": self.matrix_learning_rate * by_batch * by_width,
        }

    def create_optimizer(
        self,
        num_steps: int | None,
        *,
        width: int,
        batch_tokens: int,
        splits: Mapping[str, int] | None = None,
        accumulation_steps: int = 1,
        product_dtype: str = "bfloat16",
    ) -> keras.optimizers.Optimizer:
        """Build the optimizer; `train_model` does this.

        Args:
            num_steps: batches of the whole training; None if a clock tells how far it is (`ProgressDecay`).
            width: features of a hidden state.
            batch_tokens: rows times length of a batch.
            splits: how many matrices stand side by side in kernels whose path contains the key.
            accumulation_steps: batches whose gradients are averaged for one update.
            product_dtype: of Muon's products; `train_model` gives the one that is fast for the encoder.
        """
        rates = self.rates(width, batch_tokens * accumulation_steps)
        rate = rates["learning_rate"]
        schedule = ProgressDecay(rate, num_steps, self.warmup, self.schedule, self.decay_share or 1.0)
        arguments: dict[str, Any] = {
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "weight_decay": self.weight_decay,
            "global_clipnorm": self.clip_norm,
            "gradient_accumulation_steps": accumulation_steps if accumulation_steps > 1 else None,
            "layer_decay": self.layer_decay,
            "head_rate": self.head_rate,
        }
        if self.average_momentum is not None:
            arguments |= {"use_ema": True, "ema_momentum": self.average_momentum}
        if self.optimizer == "muon":
            matrix_rate = rates["matrix_learning_rate"] / rate
            arguments |= {"matrix_rate": matrix_rate, "momentum": self.momentum, "splits": splits}
            optimizer = Muon(schedule, product_dtype=product_dtype, **arguments)
        else:
            optimizer = AdamW(schedule, **arguments)
        optimizer.exclude_from_weight_decay(var_names=[NOT_DECAYED])
        if schedule.clock is not None:
            optimizer._track_variable(schedule.clock)
        return optimizer

    def masking(self, progress: float = 0.0) -> dict[str, float]:
        """Return how `lm_generator` has to mask.

        `train_model` sees to it where a generator was made without shares of its own
        (`generator.masks_are_open`).

        Args:
            progress: share of the training that is behind, from 0 to 1.

        Returns:
            `keep_prob`, `mask_prob` and `rand_prob`.

        Example:

        ```python
        recipe = create_recipe("modern", predicted_share=0.4, final_predicted_share=0.2)
        generator = lm_generator(text_encoder, "corpus.txt", batch_size=32, max_len=128)
        late = generator.with_masking(**recipe.masking(progress=0.9))
        ```
        """
        share = self.predicted_share
        if self.final_predicted_share is not None:
            level = min(max(0, int(progress * _LEVELS_OF_MASKING)), _LEVELS_OF_MASKING - 1)
            share += level / (_LEVELS_OF_MASKING - 1) * (self.final_predicted_share - share)
        return {
            "keep_prob": 1.0 - share,
            "mask_prob": share * self.mask_share,
            "rand_prob": share * self.random_share,
        }

    def to_markdown(self) -> str:
        """Return the recipe as a table of figures and their sources."""
        lines = [f"| {self.name} | figure | source |", "| --- | --- | --- |"]
        plain = RECIPES.get(self.name)
        for field in dataclasses.fields(self):
            if field.name == "name":
                continue
            value = getattr(self, field.name)
            own = plain is None or getattr(plain, field.name) != value
            source = "yours" if own else SOURCES[self.name][field.name]
            lines.append(f"| {field.name} | {'none' if value is None else value} | {source} |")
        return "\n".join(lines)

    def get_config(self) -> dict[str, Any]:
        """Return the fields as a dictionary of plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Recipe:
        """Return the recipe that `get_config` told of.

        Raises:
            ValueError: if fields are missing or unknown, as in a file of a newer version.
        """
        fields = dataclasses.fields(cls)
        unknown = sorted({*config} - {field.name for field in fields})
        needed = {field.name for field in fields if field.default is dataclasses.MISSING}
        if unknown:
            raise ValueError(
                f"A saved recipe has fields that this version does not know: {unknown}. Install the "
                "bert_keras that wrote it."
            )
        if missing := sorted(needed - {*config}):
            raise ValueError(f"A saved recipe is damaged: it lacks the fields {missing}.")
        return cls(**config)


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        name: Recipe(name=name, **{field: figure for field, (figure, _) in table.items()})
        for name, table in TABLES.items()
    }
)
SOURCES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {name: {field: source for field, (_, source) in table.items()} for name, table in TABLES.items()}
)


def create_recipe(name: str, /, **changes: Any) -> Recipe:
    """Return a recipe by name, with figures of your own.

    Args:
        name: `"modern"`: from scratch, quick to learn (Muon). `"bert"`: Devlin et al. 2018, to the letter.
            `"gentle"`: for an encoder that has learnt before.
        changes: fields of `Recipe`, by name.

    Raises:
        ValueError: for an unknown name or field, or a figure out of its range.

    Example:

    ```python
    recipe = create_recipe("modern", learning_rate=1e-3, matrix_learning_rate=3e-3)
    ```
    """
    if name not in RECIPES:
        raise ValueError(f"`name` must be one of {sorted(RECIPES)}. Received: name={name!r}")
    fields = {field.name for field in dataclasses.fields(Recipe)} - {"name"}
    if unknown := sorted(set(changes) - fields):
        raise ValueError(f"A recipe has the fields {sorted(fields)}. Received others: {unknown}")
    return dataclasses.replace(RECIPES[name], **changes)


def is_from_scratch(encoder: keras.Model) -> bool:
    """Return whether nothing says that an encoder has learnt before.

    `load_model` and `train_model` mark what they return, and the loaders of published weights leave their
    report. A model of your own counts as fresh unless you set `encoder.is_trained = True`.
    """
    return not getattr(encoder, "is_trained", False) and getattr(encoder, "load_report", None) is None


def muon_arguments(encoder: keras.Model) -> dict[str, Any]:
    """Return what `Recipe.create_optimizer` has to know of an encoder for Muon: `splits` and
    `product_dtype`."""
    splits = {"qkv": 3}
    if getattr(encoder, "use_gated_feedforward", False):
        splits["feedforward_in"] = 2
    return {"splits": splits, "product_dtype": _fast_product_dtype(encoder)}


def _fast_product_dtype(encoder: keras.Model) -> str:
    """Return in which dtype products are fast: bfloat16 on a GPU; on a CPU what the encoder computes in, as
    one processor multiplies bfloat16 twice as fast as float32 and another half as fast (docs/log.md,
    Processors differ)."""
    if is_torch():
        on_cpu = keras.ops.zeros(()).device.type == "cpu"
    else:
        on_cpu = all("cpu" in device.lower() for device in keras.distribution.list_devices())
    return "float32" if on_cpu and encoder.dtype_policy.compute_dtype == "float32" else "bfloat16"
