"""Where the time of one training step goes, on TensorFlow.

    KERAS_BACKEND=tensorflow python -m benchmarks.step_parts [--recipe modern] [--kinds 20]

The shape of `benchmarks.best_step` with AdamW, or, with `--recipe`, the modern encoder of 8,000 pieces and 32
rows under that recipe. The parts: the encoder forward; logits and loss with it; gradients with both; the
whole step. Then milliseconds of each kind of operation, from TensorFlow's profiler. Operations run beside
each other, so that their sum is more than the step.
"""

from __future__ import annotations

import collections
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.best_step import SHAPE, SMOKE, arrays
from benchmarks.common import environment, parser, report

PROFILED = 5


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--recipe", help="a recipe, and the modern encoder with it")
    command.add_argument("--dtype", default="mixed_bfloat16")
    command.add_argument("--rounds", type=int, default=12)
    command.add_argument("--kinds", type=int, default=20, help="kinds of operations that are listed")
    options = command.parse_args()
    shape = dict(SMOKE if options.smoke else SHAPE)
    if options.recipe and not options.smoke:
        shape |= {"vocab_size": 8000, "rows": 32, "predictions": 26}
    parts, step = measured(shape, options)
    result = {"question": "step_parts", "shape": shape} | environment(["keras", "tensorflow"])
    rows = [[name, 1000 * seconds] for name, seconds in parts.items()] + kinds(step, options.kinds)
    report("One training step, milliseconds", ["part, kind of operation", "ms"], rows, result, options.json)


def measured(shape: dict[str, int], options: Any) -> tuple[dict[str, float], Callable[[], Any]]:
    """Return seconds of the parts of a step, medians, and the step."""
    import tensorflow as tf

    from bert_keras import TaskMetadata, TaskWeightScheduler, create_recipe, create_transformer
    from bert_keras.data import SentenceBatch, TaskDataBatch
    from bert_keras.encoders.inputs import ENCODER_INPUTS
    from bert_keras.training import MultiTaskModel, training_arrays
    from bert_keras.training.layer_rates import AdamW
    from bert_keras.training.recipes import muon_arguments

    own = arrays(shape)
    lm = TaskMetadata("lm", True, shape["vocab_size"], 0.0, TaskWeightScheduler(True, False))
    encoder = create_transformer(
        shape["vocab_size"],
        shape["width"],
        shape["length"],
        shape["layers"],
        architecture="modern" if options.recipe else "bert",
        dtype=options.dtype,
    )
    model = MultiTaskModel(encoder, [lm])
    optimizer = AdamW(1e-4)
    if options.recipe:
        optimizer = create_recipe(options.recipe).create_optimizer(
            1000,
            width=shape["width"],
            batch_tokens=shape["rows"] * shape["length"],
            **muon_arguments(encoder),
        )
    model.compile(optimizer)
    labels = {"lm": TaskDataBatch(own["tokens"], own["mask"])}
    batch = SentenceBatch(own["masked"], own["segments"], np.ones(own["mask"].shape, bool), labels, {})
    x, y = training_arrays(batch, [lm], [1.0])
    x, y = (tf.nest.map_structure(tf.constant, some) for some in (x, y))
    inputs = {name: x[name] for name in ENCODER_INPUTS}
    places = tf.reshape(x["positions"]["lm"], [-1])

    def loss() -> Any:
        return model.compute_loss(x=x, y=y, y_pred=model(x, training=True))

    def gradients() -> Any:
        with tf.GradientTape() as tape:
            value = loss()
        found = tape.gradient(value, [variable.value for variable in model.trainable_variables])
        return [tf.reduce_sum(tf.convert_to_tensor(each)[..., :1]) for each in found if each is not None]

    sides = {
        "encoder forward": tf.function(lambda: encoder.states_at(inputs, places, training=True)),
        "and logits, loss, metrics": tf.function(loss),
        "and gradients": tf.function(gradients),
        "and update: the whole step": lambda: model.train_on_batch(x, y),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(2 + (1 if options.smoke else options.rounds)):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            if turn > 1:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}, run


def kinds(step: Callable[[], Any], number: int) -> list[list[Any]]:
    """Return the kinds of operations that take most of a step, with their milliseconds."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(PROFILED):
            step()
        tf.profiler.experimental.stop()
        (file,) = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(file.read_bytes())
    total: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                if ":" in name and "::" not in name and " " not in name:  # path:Kind
                    total[name.rsplit(":", 1)[1]] += event.duration_ps / 1e9 / PROFILED
    return [[kind, milliseconds] for kind, milliseconds in total.most_common(number)]


if __name__ == "__main__":
    main()
