"""`GradualUnfreezing`: heads learn first, then one block after the other, from the top."""

from __future__ import annotations

from typing import Any

import keras

from bert_keras.training.layer_rates import LayerRates, model_depths, rates_of, updates_for


class GradualUnfreezing(keras.callbacks.Callback):
    """Lets the layers of an encoder learn one after the other, from the top, the embeddings last.

    The heads learn from the start (with what follows the last block); block k of n begins after n - k
    intervals, the embeddings after n + 1. Until then a layer stays exactly as it was: no step, no weight
    decay, no momentum. The optimizer sees to it by its count of batches, so nothing is compiled anew, and a
    resumed run goes on rightly. Gradients are computed for all layers from the start: to save that time too,
    use `freeze`.

    Each epoch's logs say in `open_blocks` how many blocks learn at its end.

    Args:
        epochs: epochs from one block to the next.
        steps: in place of it, batches from one block to the next. With gradient accumulation a block begins
            with the first update that is made of later batches only.
        start_blocks: blocks that learn from the start.

    Raises:
        ValueError: if not exactly one of `epochs` and `steps` is given, or a number is out of its range. In
            training: if the optimizer cannot do it; those of recipes and of `create_optimizer` can.

    Example:

    ```python
    model = train_model(encoder, [sentiment], finetune_generator=reviews, finetune_epochs=6,
                        finetune_callbacks=[GradualUnfreezing(epochs=1)])
    ```

    Source: Howard and Ruder 2018 (ULMFiT), section 3.3.
    """

    def __init__(
        self, *, epochs: float | None = None, steps: int | None = None, start_blocks: int = 0
    ) -> None:
        super().__init__()
        if (epochs is None) == (steps is None):
            raise ValueError(f"Give either `epochs` or `steps`. Received: epochs={epochs}, steps={steps}")
        if (steps or epochs or 0) <= 0 or start_blocks < 0:
            raise ValueError(
                "`epochs` or `steps` must be above 0 and `start_blocks` at least 0. "
                f"Received: epochs={epochs}, steps={steps}, start_blocks={start_blocks}"
            )
        self.epochs, self.steps, self.start_blocks = epochs, steps, start_blocks
        self._optimizer: LayerRates | None = None
        self._opens: list[int] = []

    def prepare(self, model: keras.Model, steps_per_epoch: int | None) -> None:
        """Tell the optimizer of a compiled model when layers open. `train_model` does this.

        Args:
            model: an encoder, or a model with heads on one.
            steps_per_epoch: batches of an epoch.

        Raises:
            ValueError: if the optimizer has no rates by depth, or epochs are counted and their length is not
                known.
        """
        optimizer: Any = rates_of(model)
        if optimizer is None:
            raise ValueError(
                "`GradualUnfreezing` needs an optimizer that gives rates by depth: a recipe's, one of "
                f"`create_optimizer`, or `Muon`. Received: {type(model.optimizer).__name__}"
            )
        if self.steps is None and steps_per_epoch is None:
            raise ValueError("The length of an epoch is not known: give `steps` in place of `epochs`.")
        interval = self.steps if self.steps is not None else (self.epochs or 0) * (steps_per_epoch or 0)
        optimizer.place(model)
        top = model_depths(model).num_blocks + 1
        now = int(keras.ops.convert_to_numpy(optimizer.iterations))
        self._opens = []
        for depth in range(top + 1):
            intervals = max(0, top - depth - self.start_blocks) if depth < top else 0
            wait = updates_for(round(intervals * interval), optimizer.gradient_accumulation_steps)
            self._opens.append(now + wait if wait else 0)
        optimizer.open_at(self._opens)
        self._optimizer = optimizer

    def set_params(self, params: Any) -> None:
        super().set_params(params)  # before any callback restores the optimizer
        if self._optimizer is None or self._optimizer is not rates_of(self.model):
            self.prepare(self.model, params.get("steps"))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is not None:
            made = int(keras.ops.convert_to_numpy(rates_of(self.model).iterations))  # type: ignore[union-attr]
            logs["open_blocks"] = sum(opens < max(made, 1) for opens in self._opens[1:-1])
