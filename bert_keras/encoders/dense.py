"""Dense layers: Keras', and one whose kernel is several matrices side by side, each of which LoRA can adapt
on its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from bert_keras.encoders.torch_kernels import is_torch, linear


@keras.saving.register_keras_serializable(package="bert_keras")
class Dense(keras.layers.Dense):
    """Keras' dense layer; on torch product and bias by one kernel."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if not is_torch():
            return super().call(inputs, training=training)
        kernel, bias = (getattr(v, "value", v) for v in (self.kernel, self.bias))  # variables, or LoRA's sum
        found = linear(inputs, kernel, bias)
        return found if self.activation is None else self.activation(found)


@keras.saving.register_keras_serializable(package="bert_keras")
class JoinedDense(Dense):
    """Dense layer with names for the matrices of one shape that its kernel joins.

    One product for query, key and value is faster than three. LoRA would see one matrix in it: one `A` for
    all, and no choice among them. Here each chosen matrix has an `A` and a `B` of its own (Hu et al. 2021).

    Args:
        units: columns of all matrices together.
        parts: names of the matrices, from left to right.
        kwargs: as of `keras.layers.Dense`.

    Raises:
        ValueError: if the columns do not divide among the parts.
    """

    def __init__(self, units: int, parts: Sequence[str], **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        if units % len(parts):
            raise ValueError(f"`units` must divide among the parts {list(parts)}. Received: units={units}")
        self.parts = tuple(parts)
        self.lora_enabled = False
        self.lora_parts: tuple[str, ...] = ()

    def enable_lora(
        self,
        rank: int,
        lora_alpha: float | None = None,
        a_initializer: Any = "he_uniform",
        b_initializer: Any = "zeros",
        parts: Sequence[str] | None = None,
    ) -> None:
        """Add `alpha / rank * A B` to some of the matrices, and freeze the kernel.

        Args:
            rank: columns of `A`, rows of `B`.
            lora_alpha: by default the rank.
            a_initializer, b_initializer: what `A` and `B` start from.
            parts: which matrices; by default all.

        Raises:
            ValueError: if the layer is not built, has LoRA already, or has no such part.
        """
        parts = self.parts if parts is None else tuple(parts)
        if not self.built or self.lora_enabled or not set(parts) <= set(self.parts) or not parts:
            raise ValueError(
                f"LoRA needs a built layer without LoRA, and parts among {list(self.parts)}. "
                f"Received: built={self.built}, lora_enabled={self.lora_enabled}, parts={list(parts)}"
            )
        rows, columns = self._kernel.shape[0], self.units // len(self.parts)
        self._tracker.unlock()
        for part in parts:
            for name, shape, initializer in (
                (f"lora_{part}_a", (rows, rank), a_initializer),
                (f"lora_{part}_b", (rank, columns), b_initializer),
            ):
                made = self.add_weight(
                    name=name, shape=shape, initializer=keras.initializers.get(initializer), dtype="float32"
                )
                setattr(self, name, made)
        self._kernel.trainable = False
        self._tracker.lock()
        self.lora_enabled, self.lora_rank, self.lora_parts = True, rank, parts
        self.lora_alpha = rank if lora_alpha is None else lora_alpha

    @property
    def kernel(self) -> Any:
        """The matrices side by side, with what LoRA adds to them."""
        if not self.lora_enabled:
            return super().kernel
        kernel = ops.convert_to_tensor(self._kernel)
        changes = [ops.cast(self._change(part), kernel.dtype) for part in self.parts]
        return ops.cast(ops.add(kernel, ops.concatenate(changes, axis=1)), self.compute_dtype)

    def _change(self, part: str) -> Any:
        if part not in self.lora_parts:
            return ops.zeros((self._kernel.shape[0], self.units // len(self.parts)))
        a, b = getattr(self, f"lora_{part}_a"), getattr(self, f"lora_{part}_b")
        return (self.lora_alpha / self.lora_rank) * ops.matmul(a, b)

    def load_own_variables(self, store: Any) -> None:
        """Read kernel and bias; what LoRA adds is zero again, as in Keras' dense layer."""
        if not self.lora_enabled:
            super().load_own_variables(store)
            return
        self._kernel.assign(store["0"])
        if self.bias is not None:
            self.bias.assign(store["1"])
        for part in self.lora_parts:
            factor = getattr(self, f"lora_{part}_b")
            factor.assign(ops.zeros(factor.shape))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "parts": self.parts}
