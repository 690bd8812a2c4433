"""Muon for the matrices between hidden states, AdamW for everything else, as one optimizer."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from bert_keras.encoders.torch_kernels import is_torch
from bert_keras.training import torch_updates
from bert_keras.training.adam_kernel import apply_adam
from bert_keras.training.layer_rates import LayerRates, check_rates

# Quintic Newton-Schulz iteration (Jordan et al. 2024): steepest at zero, so that few iterations bring all
# singular values near 1; it does not converge, and need not.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)

# Kernels that do not lead from hidden states to hidden states: what is looked up, and the tasks' heads.
NOT_HIDDEN = ("embedding", r"(^|/)task_", r"(^|/)pooler/")


def orthogonalize(matrices: Any, num_iterations: int = 5, dtype: str = "bfloat16") -> Any:
    """Return about the nearest matrices whose singular values are all equal to 1.

    Args:
        matrices: float, `(..., rows, columns)`, with no more rows than columns.
        num_iterations: of Newton and Schulz; with 5 the singular values end between 0.7 and 1.2.
        dtype: of the products.

    Returns:
        float32, of the same shape.

    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".
    """
    if is_torch():
        return torch_updates.orthogonalized(matrices, _COEFFICIENTS, num_iterations, dtype)
    a, b, c = _COEFFICIENTS
    matrices = ops.cast(matrices, "float32")
    norm = ops.sqrt(ops.sum(ops.square(matrices), axis=(-2, -1), keepdims=True))
    x = ops.cast(matrices / (norm + 1e-7), dtype)
    for _ in range(num_iterations):
        gram = ops.matmul(x, ops.swapaxes(x, -1, -2))  # (..., rows, rows)
        x = a * x + ops.matmul(b * gram + c * ops.matmul(gram, gram), x)
    return ops.cast(x, "float32")


@keras.saving.register_keras_serializable(package="bert_keras")
class Muon(LayerRates, keras.optimizers.Optimizer):
    """Muon with Adam for what is no hidden matrix.

    A hidden matrix moves along the orthogonalised momentum of its gradient, so that all directions in it
    learn at one pace; the size of its step is that of Adam (root mean square 0.2 times its learning rate, Liu
    et al. 2025). Matrices of one shape are orthogonalised together. Unlike `keras.optimizers.Muon` it takes
    matrices that stand side by side in one kernel apart, spares biases of any rank, and has a learning rate
    for either part.

    Args:
        learning_rate: of Adam's part; a number or a schedule.
        matrix_rate: learning rate of the hidden matrices, as a multiple of `learning_rate`.
        momentum: of the hidden matrices (Nesterov's form).
        beta_1, beta_2, epsilon: Adam's.
        splits: how many matrices stand side by side in kernels whose path contains the key.
        excluded: patterns of paths (searched for) of two-dimensional kernels that Adam trains.
        num_iterations: of Newton and Schulz.
        product_dtype: of the products in them, `"bfloat16"` or `"float32"`. On a GPU bfloat16 is the faster
            one; of CPUs some multiply float32 faster (`benchmarks.operations`; recipes take what the
            encoder computes in there).
        weight_decay: decoupled, times the learning rate of the part.
        layer_decay, head_rate: as of `AdamW`: learning rates by depth, of both parts.
        kwargs: what every Keras optimizer takes.

    Raises:
        ValueError: if `matrix_rate`, `num_iterations` or `product_dtype` is out of its range.

    Example:

    ```python
    optimizer = Muon(2e-3, matrix_rate=3.0, splits={"qkv": 3})
    model = train_model(encoder, tasks, generator, pretrain_steps=1000, pretrain_optimizer=optimizer)
    ```

    Sources: Jordan et al. 2024 (Muon); Liu et al. 2025, "Muon is scalable for LLM training"; Loshchilov and
    Hutter 2017 (AdamW).
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        matrix_rate: float = 1.0,
        momentum: float = 0.95,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        splits: Mapping[str, int] | None = None,
        excluded: Sequence[str] = NOT_HIDDEN,
        num_iterations: int = 5,
        product_dtype: str = "bfloat16",
        weight_decay: float | None = None,
        layer_decay: float = 1.0,
        head_rate: float = 1.0,
        name: str = "muon",
        **kwargs: Any,
    ) -> None:
        if matrix_rate <= 0 or num_iterations < 1:
            raise ValueError(
                "`matrix_rate` must be above 0 and `num_iterations` at least 1. "
                f"Received: matrix_rate={matrix_rate}, num_iterations={num_iterations}"
            )
        if product_dtype not in ("bfloat16", "float32"):
            raise ValueError(
                f"`product_dtype` must be 'bfloat16' or 'float32'. Received: product_dtype={product_dtype!r}"
            )
        check_rates(layer_decay, head_rate)
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, name=name, **kwargs)
        self.layer_decay, self.head_rate = layer_decay, head_rate
        self.matrix_rate, self.momentum, self.num_iterations = matrix_rate, momentum, num_iterations
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        self.product_dtype = product_dtype
        self.splits, self.excluded = dict(splits or {}), tuple(excluded)

    def is_hidden_matrix(self, variable: Any) -> bool:
        """Return whether Muon, and not Adam, trains a variable."""
        return (
            len(variable.shape) == 2
            and variable.path.endswith("kernel")
            and not any(re.search(pattern, variable.path) for pattern in self.excluded)
        )

    def build(self, variables: Sequence[Any]) -> None:
        """Make the state: one array for each hidden matrix, two for every other variable."""
        if self.built:
            return
        super().build(variables)
        self._momenta = [self.add_variable_from_reference(v, name="momentum") for v in variables]
        self._velocities: list[Any] = []
        self._numbers: list[int] = []  # 0: Adam's; n: a kernel of n hidden matrices
        for variable in variables:
            is_hidden = self.is_hidden_matrix(variable)
            self._velocities.append(
                None if is_hidden else self.add_variable_from_reference(variable, name="velocity")
            )
            self._numbers.append(self._number_of_matrices(variable) if is_hidden else 0)

    def _number_of_matrices(self, variable: Any) -> int:
        number = next((n for key, n in self.splits.items() if key in variable.path), 1)
        if variable.shape[1] % number:
            raise ValueError(
                f"`splits` says that {number} matrices stand side by side in {variable.path}, whose "
                f"{variable.shape[1]} columns do not divide by that. Received: splits={self.splits}"
            )
        return number

    def _backend_update_step(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        if is_torch():
            self._update_on_torch(list(grads), trainable_variables, learning_rate)
            return
        dense = [_dense(*pair) for pair in zip(grads, trainable_variables, strict=True)]
        directions = self._directions(dense, trainable_variables)
        super()._backend_update_step(directions, trainable_variables, learning_rate)

    def _directions(self, grads: list[Any], variables: Sequence[Any]) -> list[Any]:
        """Put the orthogonalised momentum in the place of each hidden matrix's gradient."""
        indices = [self._get_variable_index(variable) for variable in variables]
        places = [place for place, index in enumerate(indices) if self._numbers[index]]
        if not places:
            return grads
        momenta = [self._momenta[indices[place]] for place in places]
        groups: dict[tuple[int, ...], list[tuple[int, Any]]] = {}
        for place, moved in zip(places, self._ahead([grads[p] for p in places], momenta), strict=True):
            stack = _apart(moved, self._numbers[indices[place]])
            groups.setdefault(tuple(stack.shape[1:]), []).append((place, stack))
        for members in groups.values():
            stacks = [stack for _, stack in members]
            stacked = ops.concatenate(stacks, axis=0)
            directions = orthogonalize(stacked, self.num_iterations, self.product_dtype)
            start = 0
            for place, stack in members:
                end = start + stack.shape[0]
                grads[place] = _together(directions[start:end], variables[place].shape)
                start = end
        return grads

    def _ahead(self, grads: Sequence[Any], momenta: Sequence[Any]) -> list[Any]:
        if is_torch():
            return torch_updates.ahead(torch_updates.values_of(momenta), grads, self.momentum)
        found = []
        for gradient, momentum in zip(grads, momenta, strict=True):
            gradient = ops.cast(gradient, momentum.dtype)
            new = self.momentum * momentum + (1.0 - self.momentum) * gradient
            momentum.assign(new)
            found.append(self.momentum * new + (1.0 - self.momentum) * gradient)
        return found

    def _update_on_torch(self, grads: list[Any], variables: Sequence[Any], learning_rate: Any) -> None:
        """`update_step` for all variables that have one rate, one part and one decay together."""
        import torch

        groups: dict[tuple[Any, bool, bool], list[tuple[Any, Any, int]]] = {}
        with torch.no_grad():
            rate = ops.convert_to_tensor(learning_rate)
            for direction, variable in zip(self._directions(grads, variables), variables, strict=True):
                index = self._get_variable_index(variable)
                place = None if self.is_plain else self._place_of(variable)
                decays = self.weight_decay is not None and self._use_weight_decay(variable)
                key = (place, self._numbers[index] > 0, decays)
                groups.setdefault(key, []).append((direction, variable, index))
            for (_, is_hidden, decays), members in groups.items():
                directions, some, indices = map(list, zip(*members, strict=True))
                own = rate if self.is_plain else rate * self.rate_factor(some[0])
                own = own * self.matrix_rate if is_hidden else own
                values = torch_updates.values_of(some)
                if decays:
                    torch_updates.decay(values, own * self.weight_decay)
                if is_hidden:
                    sizes = [
                        _step_size(v.shape, self._numbers[i]) for v, i in zip(some, indices, strict=True)
                    ]
                    torch_updates.move(values, directions, sizes, own)
                    continue
                with self._counting(some[0]):
                    torch_updates.adam(
                        values,
                        torch_updates.values_of([self._momenta[i] for i in indices]),
                        torch_updates.values_of([self._velocities[i] for i in indices]),
                        directions,
                        rate=own,
                        beta_1=self.beta_1,
                        beta_2=self.beta_2,
                        epsilon=self.epsilon,
                        step=ops.convert_to_tensor(self.iterations) + 1,
                    )

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Move one variable; of a hidden matrix, `gradient` is its direction already."""
        index = self._get_variable_index(variable)
        placed = self._trainable_variables[index]
        factor = 1.0 if self.is_plain else self.rate_factor(placed)
        rate = ops.cast(learning_rate * factor, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        if number := self._numbers[index]:
            rate = rate * self.matrix_rate
            step = _step_size(variable.shape, number) * gradient
        if self.weight_decay is not None and self._use_weight_decay(variable):
            self.assign_sub(variable, rate * self.weight_decay * variable)
        if number:
            self.assign_sub(variable, rate * step)
            return
        with self._counting(placed):
            self._adam_step(gradient, variable, self._momenta[index], self._velocities[index], rate)

    def _adam_step(self, gradient: Any, variable: Any, momentum: Any, velocity: Any, rate: Any) -> None:
        """Kingma and Ba 2014, algorithm 1."""
        step = ops.cast(self.iterations + 1, velocity.dtype)
        root = ops.sqrt(1.0 - ops.power(ops.cast(self.beta_2, velocity.dtype), step))
        epsilon = self.epsilon * root
        done = apply_adam(
            variable,
            momentum,
            velocity,
            gradient,
            learning_rate=rate,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=epsilon,
            step=step,
        )
        if done:
            return
        new_momentum = self.beta_1 * momentum + (1.0 - self.beta_1) * gradient
        new_velocity = self.beta_2 * velocity + (1.0 - self.beta_2) * ops.square(gradient)
        self.assign(momentum, new_momentum)
        self.assign(velocity, new_velocity)
        size = rate * root / (1.0 - ops.power(ops.cast(self.beta_1, velocity.dtype), step))
        self.assign_sub(variable, size * new_momentum / (ops.sqrt(new_velocity) + epsilon))

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        """Nothing: `update_step` does it, since the two parts decay at rates of their own."""

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "matrix_rate": self.matrix_rate,
            "momentum": self.momentum,
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "splits": self.splits,
            "excluded": self.excluded,
            "num_iterations": self.num_iterations,
            "product_dtype": self.product_dtype,
            "layer_decay": self.layer_decay,
            "head_rate": self.head_rate,
        }


def _dense(gradient: Any, variable: Any) -> Any:
    """Return a gradient as an array: TensorFlow gives rows of a table (`IndexedSlices`), unless they are
    clipped."""
    return ops.add(gradient, ops.zeros_like(variable)) if hasattr(gradient, "dense_shape") else gradient


def _step_size(shape: Sequence[int], number: int) -> float:
    """Return what gives an orthogonal matrix entries of a root mean square of 0.2 (Liu et al. 2025)."""
    return 0.2 * math.sqrt(max(shape[0], shape[1] // number))


def _apart(kernel: Any, number: int) -> Any:
    """Return `(rows, number * columns)` as `(number, rows, columns)`, turned to no more rows than columns."""
    rows, columns = kernel.shape
    if is_torch():
        stack = kernel.unflatten(1, (number, columns // number)).transpose(0, 1)
        return stack.mT if rows > columns // number else stack
    stack = ops.transpose(ops.reshape(kernel, (rows, number, columns // number)), (1, 0, 2))
    return ops.swapaxes(stack, 1, 2) if rows > columns // number else stack


def _together(stack: Any, shape: Sequence[int]) -> Any:
    """Undo `_apart`."""
    rows, columns = shape
    if is_torch():
        stack = stack if stack.shape[1] == rows else stack.mT
        return stack.transpose(0, 1).reshape(rows, columns)
    if stack.shape[1] != rows:
        stack = ops.swapaxes(stack, 1, 2)
    return ops.reshape(ops.transpose(stack, (1, 0, 2)), (rows, columns))
