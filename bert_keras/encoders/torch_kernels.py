"""PyTorch's own kernels, called without what Keras does around an operation.

On torch nothing is compiled, and for a small encoder, or on a GPU, what Keras does around each call takes as
long as the call (docs/log.md, The host's time on torch). What draws random numbers on a device takes its seed
from the host. Reading a seed that lies on the device would make the host wait for all that it has asked for,
so the host counts along.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras


class _Known(NamedTuple):
    state: Any  # the tensor
    version: int  # of its contents
    numbers: tuple[int, int]


_KNOWN: weakref.WeakKeyDictionary[Any, _Known] = weakref.WeakKeyDictionary()


def next_on_host(generator: Any) -> int:
    """Return the sum of what `generator.next()` gives, and let the generator go on as that does, without
    waiting for the device where the last number came from here.

    Args:
        generator: `keras.random.SeedGenerator`.
    """
    state = generator.state.value
    known = _KNOWN.get(generator)
    if known is None or known.state is not state or known.version != state._version:
        first, second = state.tolist()
    else:
        first, second = known.numbers
    generator.state.assign(state + _step(state.device))
    state = generator.state.value  # another one within a stateless scope
    _KNOWN[generator] = _Known(state, state._version, (first, second + 1))
    return first + second


@functools.cache
def _step(device: Any) -> Any:
    import torch

    return torch.tensor([0, 1], device=device)


def is_compiling() -> bool:
    """Return whether torch.compile reads the program, which then draws in its own way, from the device's own
    seed."""
    import torch

    return torch.compiler.is_compiling()


def attended(query: Any, key: Any, value: Any, visible: Any, rate: float, seed: int | None) -> Any:
    """Scaled dot-product attention in one kernel.

    Args:
        query, key, value: `(batch, length, heads, head_dim)`.
        visible: bool, broadcastable to `(batch, heads, length, length)`.
        rate: share of the probabilities to drop.
        seed: any whole number; None for the device's own.

    Returns:
        `(batch, length, heads, head_dim)`.
    """
    import torch

    by_head = [part.transpose(1, 2) for part in (query, key, value)]
    with _drawing(seed if rate else None, query.device):
        found = torch.nn.functional.scaled_dot_product_attention(*by_head, attn_mask=visible, dropout_p=rate)
    return found.transpose(1, 2)


def is_torch() -> bool:
    """Return whether PyTorch is Keras' backend."""
    return keras.backend.backend() == "torch"


def is_on_gpu(tensor: Any) -> bool:
    """Return whether PyTorch has a tensor on a GPU of Nvidia's or AMD's."""
    return is_torch() and tensor.device.type == "cuda"


def linear(features: Any, kernel: Any, bias: Any) -> Any:
    """Product and sum in one kernel.

    Args:
        features: `(..., inputs)`.
        kernel: `(inputs, units)`.
        bias: `(units,)`, or None.
    """
    import torch

    return torch.nn.functional.linear(features, kernel.t(), bias)


def layer_normed(features: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    """Layer normalisation over the last axis, computed in float32.

    Args:
        features: `(..., width)`.
        gamma, beta: scale and shift, float32, or None. On a GPU they are rounded to the dtype of the
            features, as the kernels of dense layers are: so one kernel does all.
        epsilon: added to the variance.
    """
    import torch

    shape, norm = features.shape[-1:], torch.nn.functional.layer_norm
    if features.device.type == "cuda":
        gamma, beta = (None if part is None else part.to(features.dtype) for part in (gamma, beta))
        return norm(features, shape, gamma, beta, epsilon)
    return norm(features.float(), shape, gamma, beta, epsilon).to(features.dtype)


def rms_normed(features: Any, gamma: Any, epsilon: float) -> Any:
    """Normalisation by the root mean square of the last axis, as `layer_normed`."""
    import torch

    if features.device.type == "cuda":
        gamma = gamma.to(features.dtype)
        return torch.nn.functional.rms_norm(features, features.shape[-1:], gamma, epsilon)
    x = features.float()
    return (x * torch.rsqrt(torch.mean(x * x, -1, keepdim=True) + epsilon) * gamma).to(features.dtype)


def rotated(features: Any, cosines: Any, sines: Any) -> Any:
    """Turn the pairs (k, k + head_dim / 2) of features `(batch, length, heads, head_dim)`."""
    import torch

    first, second = features.chunk(2, -1)
    cosines, sines = cosines.to(features.dtype), sines.to(features.dtype)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], -1)


@contextlib.contextmanager
def _drawing(seed: int | None, device: Any) -> Iterator[None]:
    """Within this context the device draws from a seed; afterwards as if nothing had been drawn."""
    if seed is None:
        yield
        return
    import torch

    index = torch.cuda.current_device() if device.index is None else device.index
    generator = torch.cuda.default_generators[index]
    before = generator.get_state()
    generator.manual_seed(seed & 0xFFFFFFFFFFFFFFFF)
    try:
        yield
    finally:
        generator.set_state(before)
