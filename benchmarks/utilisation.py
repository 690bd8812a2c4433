"""Which share of the machine's own rate of matrix products a training step reaches.

    KERAS_BACKEND=... python -m benchmarks.utilisation [--smoke] [--rounds N] [--json FILE]

The step of `benchmarks.best_step` (4 layers, width 256, vocabulary 30,522, batch 16 x 128, 20 predictions a
row, dropout 0.1, AdamW), beside the product of two matrices of 2,048 x 2,048, in the same precision and in
turn. Counted are the products that the model needs, forward once and backward twice: in the last block, the
network and the vocabulary only the positions that are predicted, no elementwise work and no update. What a
step computes beyond that counts as lost time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from benchmarks.best_step import SHAPE, SMOKE, bert_keras_step
from benchmarks.common import alternate, environment, parser, report, summary

SIDE = 2048


def needed_flops(shape: dict[str, int]) -> float:
    """Return the floating-point operations of the products in one step.

    A product of (m, k) and (k, n) is 2 m k n operations forward, and twice that backward.
    """
    width, length = shape["width"], shape["length"]
    tokens = shape["rows"] * length
    predicted = shape["rows"] * shape["predictions"]
    attention = 2 * length * width  # of one query: with all keys, and over all values
    block = tokens * (12 * width**2 + attention)
    last = tokens * 2 * width**2 + predicted * (10 * width**2 + attention)  # keys and values of all
    head = predicted * (width**2 + width * shape["vocab_size"])
    return 3 * 2.0 * ((shape["layers"] - 1) * block + last + head)


def product(dtype: str, side: int) -> Callable[[], Any]:
    """Return a function that multiplies two square matrices in the backend's own way, and waits."""
    rng = np.random.default_rng(0)
    one, other = (rng.normal(size=(side, side)).astype("float32") for _ in range(2))
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        a, b = tf.cast(one, dtype), tf.cast(other, dtype)
        multiply = tf.function(lambda: tf.matmul(a, b)[0, 0])
        return lambda: multiply().numpy()
    if backend == "torch":
        import torch

        c, d = (torch.tensor(array, dtype=getattr(torch, dtype)) for array in (one, other))
        return lambda: torch.matmul(c, d)
    import jax

    e, f = (jax.numpy.asarray(array, dtype) for array in (one, other))
    times = jax.jit(jax.numpy.matmul)
    return lambda: times(e, f).block_until_ready()


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--rounds", type=int, default=15)
    options = command.parse_args()
    rounds, shape, side = (1, SMOKE, 64) if options.smoke else (options.rounds, SHAPE, SIDE)
    backend = keras.backend.backend()
    precisions = ["float32", "mixed_bfloat16"][: 1 if backend == "jax" else 2]  # no faster in bfloat16 there
    needed, rows, seconds = needed_flops(shape), [], {}
    for precision in precisions:
        dtype = precision.removeprefix("mixed_")
        sides = {"product": product(dtype, side), "step": bert_keras_step(shape, precision)}
        seconds[precision] = alternate(sides, rounds, warmup=2)
        times = {name: summary(values)["median"] for name, values in seconds[precision].items()}
        rate, reached = 2.0 * side**3 / times["product"], needed / times["step"]
        rows.append([precision, 1000 * times["step"], reached / 1e9, rate / 1e9, f"{reached / rate:.0%}"])
    result = {"question": "utilisation", "shape": shape, "needed_flops": needed, "seconds": seconds}
    result |= environment(["keras", backend])
    columns = ["precision", "ms a step", "GFLOP/s of the step", "GFLOP/s of the product", "share"]
    title = f"{needed / 1e9:.1f} GFLOP of products in a step, on {backend}"
    report(title, columns, rows, result, options.json)


if __name__ == "__main__":
    main()
