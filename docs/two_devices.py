"""Is training on two devices that of one? `python docs/two_devices.py`, on JAX, makes two of one CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys

RESULT = "result: "


def train(num_devices: int) -> dict[str, list[float]]:
    """Train a small encoder for some steps, validate, and return what was measured."""
    import keras
    from make_pictures import documents, small_text_encoder

    from bert_keras import TaskMetadata, create_transformer, lm_generator, train_model

    if num_devices > 1:
        devices = keras.distribution.list_devices("cpu")
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    train, _ = documents()
    folder, text_encoder = small_text_encoder(train[:2000])
    generator = lm_generator(text_encoder, folder / "train.txt", batch_size=8, max_len=32, cache_dir=folder)
    encoder = create_transformer(text_encoder.vocab_size, 32, 32, 2, 4, architecture="modern", seed=1)
    tasks = [TaskMetadata("lm", True, text_encoder.vocab_size), TaskMetadata("is_next", False, 2)]
    model = train_model(
        encoder,
        tasks,
        generator,
        pretrain_steps=6,
        pretrain_epochs=2,
        validation_pretrain_generator=[generator[50], generator[51]],
        verbose=0,
    )
    return model.training_history["pretrain"].history


def main() -> None:
    """Run both, each in a process of its own, and compare."""
    found = []
    for number in (1, 2):
        flags = f"--xla_force_host_platform_device_count={number}"
        environment = {**os.environ, "KERAS_BACKEND": "jax", "XLA_FLAGS": flags}
        command = [sys.executable, __file__, str(number)]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(done.stdout.split(RESULT)[1]))
    one, two = found
    for name, values in one.items():
        largest = max(abs(a - b) / max(abs(a), 1e-9) for a, b in zip(values, two[name], strict=True))
        print(f"{name:<20} {values[-1]:>10.5f} {two[name][-1]:>10.5f}   largest difference {largest:.0e}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(RESULT + json.dumps(train(int(sys.argv[1]))))
    else:
        main()
