"""How an array of a published format becomes a variable of ours, and back."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import numpy as np

Shape = tuple[int, ...]


class Transform(abc.ABC):
    """A reversible change of layout between source arrays and one variable."""

    num_sources = 1
    description: str

    @abc.abstractmethod
    def source_shape(self, shape: Shape) -> Shape:
        """Return the shape that each source must have for a variable of this shape."""

    @abc.abstractmethod
    def forward(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Return the variable's value."""

    @abc.abstractmethod
    def backward(self, value: np.ndarray) -> list[np.ndarray]:
        """Return the source arrays."""


class Same(Transform):
    """The array as it is."""

    description = "as it is"

    def source_shape(self, shape: Shape) -> Shape:
        return shape

    def forward(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        return arrays[0]

    def backward(self, value: np.ndarray) -> list[np.ndarray]:
        return [value]


class Transposed(Transform):
    """`(out, in)`, as PyTorch keeps matrices, to `(in, out)`."""

    description = "transposed"

    def source_shape(self, shape: Shape) -> Shape:
        return shape[::-1]

    def forward(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        return arrays[0].T

    def backward(self, value: np.ndarray) -> list[np.ndarray]:
        return [value.T]


class Unstacked(Transform):
    """`(1, in, out)`, the kernel of a convolution over one position, to `(in, out)`."""

    description = "without the leading axis of one"

    def source_shape(self, shape: Shape) -> Shape:
        return (1, *shape)

    def forward(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        return arrays[0][0]

    def backward(self, value: np.ndarray) -> list[np.ndarray]:
        return [value[None]]


class SideBySide(Transform):
    """Three arrays, query, key and value, to one: columns of a matrix, or parts of a bias."""

    num_sources = 3

    def __init__(self, each: Transform) -> None:
        self.each = each
        self.description = "side by side" if isinstance(each, Same) else f"{each.description}, side by side"

    def source_shape(self, shape: Shape) -> Shape:
        return self.each.source_shape((*shape[:-1], shape[-1] // 3))

    def forward(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([self.each.forward([array]) for array in arrays], axis=-1)

    def backward(self, value: np.ndarray) -> list[np.ndarray]:
        return [self.each.backward(part)[0] for part in np.split(value, 3, axis=-1)]


class ClassesReversed(Transform):
    """Two classes in the other order: BERT's class 0 of the next-sentence task is our class 1, "is next"."""

    def __init__(self, each: Transform) -> None:
        self.each = each
        before = "" if isinstance(each, Same) else f"{each.description}, "
        self.description = before + "classes in reverse order"

    def source_shape(self, shape: Shape) -> Shape:
        return self.each.source_shape(shape)

    def forward(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        return self.each.forward(arrays)[..., ::-1]

    def backward(self, value: np.ndarray) -> list[np.ndarray]:
        return self.each.backward(value[..., ::-1])
