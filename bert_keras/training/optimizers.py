"""Adam as encoders are trained with it: warm-up, decay, clipping, weight decay that spares biases and
norms."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from bert_keras.training.layer_rates import AdamW

# Pattern of the names of variables that are not decayed (Devlin et al. 2018: biases and layer normalisation).
# TensorFlow matches it against `block/norm/gamma:0`, the other backends against `gamma`.
NOT_DECAYED = r"(^|/)(bias|gamma|beta|scale)(:\d+)?$"


@keras.saving.register_keras_serializable(package="bert_keras")
class WarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate that rises linearly from 0 to its peak and then falls to zero.

    Args:
        peak: largest learning rate.
        num_steps: length of the training, in steps.
        warmup_steps: steps until the peak.
        decay: `"linear"`, `"cosine"`, or `"constant"` (no fall).

    Raises:
        ValueError: for an unknown decay or numbers that do not fit together.
    """

    def __init__(self, peak: float, num_steps: int, warmup_steps: int, decay: str = "linear") -> None:
        super().__init__()
        if decay not in ("linear", "cosine", "constant"):
            raise ValueError(f"`decay` must be 'linear', 'cosine' or 'constant'. Received: decay={decay!r}")
        if not 0 <= warmup_steps <= num_steps or num_steps < 1:
            raise ValueError(
                "`warmup_steps` must be from 0 to `num_steps`, and `num_steps` at least 1. "
                f"Received: warmup_steps={warmup_steps}, num_steps={num_steps}"
            )
        self.peak, self.num_steps, self.warmup_steps, self.decay = peak, num_steps, warmup_steps, decay

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        rise = (step + 1.0) / max(1, self.warmup_steps)
        left = (self.num_steps - step) / max(1, self.num_steps - self.warmup_steps)
        left = ops.clip(left, 0.0, 1.0)
        if self.decay == "cosine":
            left = 0.5 - 0.5 * ops.cos(3.141592653589793 * left)
        elif self.decay == "constant":
            left = ops.ones_like(left)
        return self.peak * ops.minimum(rise, left) if self.warmup_steps else self.peak * left

    def get_config(self) -> dict[str, Any]:
        return {
            "peak": self.peak,
            "num_steps": self.num_steps,
            "warmup_steps": self.warmup_steps,
            "decay": self.decay,
        }


SCHEDULES = ("linear", "cosine", "stable")


def rate_level(progress: Any, warmup: float, schedule: str, decay_share: float) -> Any:
    """Return which part of its peak the learning rate has.

    Args:
        progress: share of the training that is behind, from 0 to 1; a number or a tensor.
        warmup: share in which the rate rises linearly from zero.
        schedule: what follows: `"linear"` or `"cosine"` down to zero at the end, or `"stable"`: flat, then
            linear to zero.
        decay_share: with `"stable"`, share of the training in which the rate falls, at its end.
    """
    left = ops.clip(1.0 - ops.cast(progress, "float32"), 0.0, 1.0)
    if schedule == "stable":
        fall = ops.minimum(left / decay_share, 1.0)
    else:
        fall = ops.minimum(left / max(1.0 - warmup, 1e-6), 1.0)
        if schedule == "cosine":
            fall = 0.5 - 0.5 * ops.cos(3.141592653589793 * fall)
    return ops.minimum(fall, (1.0 - left) / warmup) if warmup else fall


@keras.saving.register_keras_serializable(package="bert_keras")
class ProgressDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate as a function of the share of the training that is behind.

    Args:
        peak: largest learning rate.
        num_steps: length of the training, in steps; None where a clock tells how far it is (`clock`).
        warmup, schedule, decay_share: as in `rate_level`.

    Attributes:
        clock: without `num_steps`, a float32 variable `(3,)`: the share of the training behind at a step, the
            share that a step takes, and that step. It belongs among the optimizer's variables.

    Raises:
        ValueError: for an unknown schedule, or shares that do not fit together.
    """

    def __init__(
        self, peak: float, num_steps: int | None, warmup: float, schedule: str, decay_share: float = 1.0
    ) -> None:
        super().__init__()
        if schedule not in SCHEDULES:
            raise ValueError(f"`schedule` must be one of {SCHEDULES}. Received: schedule={schedule!r}")
        if not (0.0 <= warmup < 1.0 and 0.0 < decay_share <= 1.0):
            raise ValueError(
                "`warmup` and `decay_share` must be shares of the training, from 0 to 1. "
                f"Received: warmup={warmup}, decay_share={decay_share}"
            )
        self.peak, self.num_steps, self.warmup = peak, num_steps, warmup
        self.schedule, self.decay_share = schedule, decay_share
        self.clock = None
        if num_steps is None:
            self.clock = keras.Variable([0.0, 0.0, 0.0], trainable=False, dtype="float32", name="clock")

    def __call__(self, step: Any) -> Any:
        middle = ops.cast(step, "float32") + 0.5
        if self.clock is None:
            progress = middle / self.num_steps
        else:
            clock = self.clock.value
            progress = clock[0] + clock[1] * (middle - clock[2])
        return self.peak * rate_level(progress, self.warmup, self.schedule, self.decay_share)

    def get_config(self) -> dict[str, Any]:
        return {
            "peak": self.peak,
            "num_steps": self.num_steps,
            "warmup": self.warmup,
            "schedule": self.schedule,
            "decay_share": self.decay_share,
        }


def create_optimizer(
    num_steps: int,
    learning_rate: float = 1e-4,
    *,
    warmup: float = 0.1,
    decay: str = "linear",
    weight_decay: float = 0.01,
    clip_norm: float | None = 1.0,
    beta_2: float = 0.999,
    epsilon: float = 1e-6,
    accumulation_steps: int = 1,
    layer_decay: float = 1.0,
    head_rate: float = 1.0,
) -> keras.optimizers.Optimizer:
    """Build AdamW with warm-up and decay, clipping by the global norm, and no weight decay on biases and
    norms.

    Args:
        num_steps: batches in the whole training: steps an epoch times epochs.
        learning_rate: the peak.
        warmup: share of the steps in which the learning rate rises to its peak.
        decay: how it falls afterwards: `"linear"`, `"cosine"` or `"constant"`.
        weight_decay: decoupled decay (Loshchilov and Hutter 2017) of matrices and embeddings.
        clip_norm: largest norm of the whole gradient; None for no clipping.
        beta_2: decay of the second moment.
        epsilon: added to the root of the second moment.
        accumulation_steps: batches whose gradients are averaged for one update.
        layer_decay: learning rate of each block as a multiple of that of the block above it (discriminative
            fine-tuning, Howard and Ruder 2018): the block k of n, from 0, has layer_decay ** (n - k) times
            `learning_rate`, the embeddings layer_decay ** (n + 1), the heads all of it. ELECTRA takes 0.8 or
            0.9.
        head_rate: learning rate of fresh classifiers, the layers that give a task's logits, as a multiple of
            `learning_rate`. Those that came with a checkpoint or were trained before, the pooler, and the
            head of language modelling learn like the encoder.

    Raises:
        ValueError: if a number is out of its range.

    Example:

    ```python
    train_model(encoder, tasks, generator, pretrain_steps=1000,
                pretrain_optimizer=create_optimizer(1000, 5e-4, accumulation_steps=4))
    ```

    Source: Devlin et al. 2018, appendix A.2.
    """
    if not 0.0 <= warmup <= 1.0:
        raise ValueError(f"`warmup` is a share of the steps, from 0 to 1. Received: warmup={warmup}")
    if learning_rate <= 0:
        raise ValueError(f"`learning_rate` must be above 0. Received: learning_rate={learning_rate}")
    if accumulation_steps < 1:
        raise ValueError(f"`accumulation_steps` must be at least 1. Received: {accumulation_steps}")
    optimizer = AdamW(
        WarmupDecay(learning_rate, num_steps, round(num_steps * warmup), decay),
        weight_decay=weight_decay,
        beta_2=beta_2,
        epsilon=epsilon,
        global_clipnorm=clip_norm,
        gradient_accumulation_steps=accumulation_steps if accumulation_steps > 1 else None,
        layer_decay=layer_decay,
        head_rate=head_rate,
    )
    optimizer.exclude_from_weight_decay(var_names=[NOT_DECAYED])
    return optimizer
