"""Operations of a step, each in the ways that were considered: milliseconds, gradient included.

    KERAS_BACKEND=... python -m benchmarks.operations [--smoke] [--rounds N] [--only WORD ...] [--json FILE]

The sizes are those of the steps that `benchmarks.best_step` and `benchmarks.learning` measure. The ways of
one operation take turns, compiled as the backend compiles (torch: eager); medians. The ratio is to the first
way, which is the library's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from benchmarks.common import alternate, environment, parser, report, summary
from bert_keras.encoders.attention import attend, attend_by_products, rotary_angles, rotate
from bert_keras.encoders.dropout import drop_features
from bert_keras.encoders.norms import RMSNorm, activation
from bert_keras.tasks import TaskMetadata
from bert_keras.training.losses import label_losses
from bert_keras.training.metrics import _first_largest
from bert_keras.training.muon import orthogonalize


class Question(NamedTuple):
    """One operation.

    Attributes:
        name: of it and the size.
        ways: from an array to an array, by name; the first is the library's.
        array: float32, what they are applied to.
        dtype: in which.
        has_gradient: whether its gradient is computed too.
    """

    name: str
    ways: dict[str, Callable[[Any], Any]]
    array: np.ndarray
    dtype: str = "bfloat16"
    has_gradient: bool = True


class SeedFrom(keras.random.SeedGenerator):
    """Seeds that come from an array, so that no compiler takes what is drawn for a constant."""

    def __init__(self, array: Any) -> None:
        self.array, self._initial_seed = array, 0  # Keras' own has a variable, which nothing here needs

    def next(self, ordered: bool = True) -> Any:
        numbers = ops.cast(ops.reshape(self.array, (-1,))[:2], "float32")
        dtype = "uint32" if keras.backend.backend() == "jax" else "int64"
        return ops.cast(ops.abs(numbers) * 1e6, dtype)


def questions(small: bool) -> Iterator[Question]:
    rng = np.random.default_rng(0)
    size = 16 if small else 1

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=(max(1, shape[0] // size), *shape[1:])).astype("float32")

    yield Question(
        "dropout, 16 x 4 x 128 x 128",
        {
            "sixteen bits": lambda x: drop_features(x, 0.1, SeedFrom(x)),
            "keras.random": lambda x: keras.random.dropout(x, 0.1, seed=SeedFrom(x)),
        },
        normal(16, 4, 128, 128),
    )
    yield Question(
        "activation, 16 x 128 x 1,024",
        {
            "exact GELU": activation("gelu", True, training=True),
            "exact GELU, keras.ops": lambda x: ops.gelu(x, approximate=False),
            "tanh GELU": lambda x: ops.gelu(x, approximate=True),
            "SiLU": ops.silu,
            "squared ReLU": lambda x: ops.square(ops.relu(x)),
        },
        normal(16, 128, 1024),
    )
    rms, keras_norm = RMSNorm(1e-6), keras.layers.LayerNormalization()
    for layer in (rms, keras_norm):
        layer.build((None, None, 256))
    ones = ops.ones((256,))
    yield Question(
        "norm, 32 x 128 x 256",
        {
            "RMS": rms,
            "RMS, keras.ops": lambda x: ops.rms_normalization(x, ones, axis=-1),
            "layer norm, Keras": keras_norm,
        },
        normal(32, 128, 256),
        "float32",
    )
    yield from over_the_vocabulary(normal(320, 30_522))
    visible = ops.ones((1, 1, 128, 128), "bool")
    for dtype in ("bfloat16", "float32"):
        yield Question(
            "attention, 32 x 128 x 4 x 64",
            {
                "as here": lambda x: attend(x, x, x, visible),
                "keras.ops": lambda x: ops.dot_product_attention(x, x, x, mask=visible),
                "plain products": lambda x: attend_by_products(x, x, x, visible),
            },
            normal(32, 128, 4, 64),
            dtype,
        )
    cosines, sines = rotary_angles(ops.expand_dims(ops.arange(128), 0), 64)
    wide = [ops.tile(angles, (1, 1, 8, 1)) for angles in (cosines, sines)]
    yield Question(
        "rotary positions of query and key, 32 x 128 x 8 x 64",
        {
            "one after the other": lambda x: ops.concatenate(
                [rotate(part, cosines, sines) for part in ops.split(x, 2, axis=2)], axis=2
            ),
            "together": lambda x: rotate(x, cosines, sines),
            "angles spread beforehand": lambda x: rotate(x, *wide),
        },
        normal(32, 128, 8, 64),
    )
    for shape in ((16, 256, 256), (8, 256, 1024)):
        yield Question(
            "orthogonalising {} matrices {} x {:,}".format(*shape),
            {
                "together, bfloat16": lambda x: orthogonalize(x),
                "together, float32": lambda x: orthogonalize(x, dtype="float32"),
                "one by one, bfloat16": one_by_one,
            },
            normal(*shape),
            "float32",
            has_gradient=False,
        )


def over_the_vocabulary(logits: np.ndarray) -> Iterator[Question]:
    number = logits.shape[0]
    targets = ops.convert_to_tensor(np.arange(number) % 30_522, "int32")
    task = TaskMetadata("lm", True, logits.shape[1])
    yield Question(
        "cross entropy, 320 x 30,522",
        {
            "as here": lambda x: label_losses(task, x, targets),
            "keras.ops": lambda x: ops.sparse_categorical_crossentropy(targets, x, from_logits=True),
        },
        logits,
        "float32",
    )
    yield Question(
        "the largest, 320 x 30,522",
        {"as here": _first_largest, "keras.ops.argmax": lambda x: ops.argmax(x, axis=-1)},
        logits,
        "float32",
        has_gradient=False,
    )


def one_by_one(matrices: Any) -> Any:
    return ops.concatenate([orthogonalize(one) for one in ops.split(matrices, matrices.shape[0], axis=0)])


def compiled(question: Question, way: Callable[[Any], Any]) -> Callable[[], Any]:
    """Return a function that computes it, with the gradient of a sum if it has one, and waits for it."""

    def total(x: Any) -> Any:
        return ops.sum(ops.cast(way(ops.cast(x, question.dtype)), "float32"))

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        array = tf.constant(question.array)

        @tf.function
        def run_on_tensorflow() -> Any:
            if not question.has_gradient:
                return way(tf.cast(array, question.dtype))
            with tf.GradientTape() as tape:
                tape.watch(array)
                result = total(array)
            return tape.gradient(result, array)

        return lambda: run_on_tensorflow().numpy()
    if backend == "torch":
        import torch

        values = torch.tensor(question.array, requires_grad=question.has_gradient)

        def run_on_torch() -> Any:
            if not question.has_gradient:
                return way(ops.cast(values, question.dtype))
            values.grad = None
            total(values).backward()
            return values.grad

        return run_on_torch
    import jax

    run = jax.jit(jax.grad(total) if question.has_gradient else lambda x: way(ops.cast(x, question.dtype)))
    given = jax.numpy.asarray(question.array)
    return lambda: run(given).block_until_ready()


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--rounds", type=int, default=9)
    command.add_argument("--only", nargs="+", metavar="WORD", help="operations whose name begins with one")
    options = command.parse_args()
    rows, seconds = [], {}
    for question in questions(options.smoke):
        if options.only and not question.name.startswith(tuple(options.only)):
            continue
        sides = {name: compiled(question, way) for name, way in question.ways.items()}
        found = alternate(sides, 1 if options.smoke else options.rounds)
        seconds[f"{question.name}, {question.dtype}"] = found
        first = summary(next(iter(found.values())))["median"]
        for name, times in found.items():
            median = summary(times)["median"]
            rows.append([question.name, name, question.dtype, 1000 * median, median / first])
    result = {"question": "operations", "seconds": seconds}
    result |= environment(["keras", keras.backend.backend()])
    title = f"Operations of a step on {keras.backend.backend()}, gradients included"
    report(title, ["operation", "way", "precision", "ms", "ratio"], rows, result, options.json)


if __name__ == "__main__":
    main()
