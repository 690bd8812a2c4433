"""Loss against seconds from scratch: recipes, their ingredients one by one, and peers, under one time
budget.

    BERT_KERAS_DATA=... python -m benchmarks.learning [--budget 120] [--arms NAME ...] [--runs FILE]

The novels of `gutenberg/train.txt`, 8,000 WordPieces in lower case, 4 layers of width 256, rows of 128
tokens, 32 a batch (`--layers`, `--width` and `--rows` for others). The loss is that of 784 rows of two
other novels, masked once and for all (15 %);
beside it stands the loss of a unigram model. Every arm trains for the same seconds, from the first step
after compilation to the last, held-out evaluation left out. The learning rate of each arm is the best,
with the first seed, of as many as every other arm has, around the figure that its authors give; the other
seeds follow at that rate. KerasHub's `BertMaskedLM` and transformers' `BertForMaskedLM` see the same
masked rows, in the backend and precision that is fastest for them here (`--dtype float32` where that is
faster); their steps are planned from the speed of the first ones. Each run is a process of its own. With a
peer among the arms the table also says when each arm was where the best peer ended. `--picture FILE` draws
all curves; with `--kept` nothing is run, and table and picture show what FILE of `--runs` has, of every
backend.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import (
    RunLog,
    data_folder,
    environment,
    kerashub_masked_lm,
    mean_and_spread,
    parser,
    report,
    scaled_recipe,
    torch_device,
)

VOCAB_SIZE, WIDTH, LAYERS, MAX_LEN, ROWS = 8000, 256, 4, 128, 32
PREDICTIONS = 36  # a row, for peers that want a fixed number; rows have 19 on average


class Arm(NamedTuple):
    """One side of the study.

    Attributes:
        side: `"bert_keras"`, `"KerasHub"` or `"transformers"`.
        rates: learning rates to choose from; for recipes, factors of theirs.
        architecture: of our encoder.
        changes: of our encoder's arguments.
        recipe: name of our recipe.
        figures: of the recipe that are changed.
    """

    side: str = "bert_keras"
    rates: tuple[float, ...] = (0.5, 1.0, 2.0)
    architecture: str = "modern"
    changes: dict[str, Any] = {}
    recipe: str = "modern"
    figures: dict[str, Any] = {}


ADAM = {"optimizer": "adamw", "matrix_learning_rate": None, "momentum": None}
ARMS: dict[str, Arm] = {
    "modern": Arm(),
    "without Muon": Arm(figures=ADAM),
    "without rotary positions": Arm(changes={"position_embedding": "learned"}),
    "without pre-norm": Arm(changes={"norm_placement": "post"}),
    "layer norm for RMS": Arm(changes={"norm_kind": "layer"}),
    "without gates": Arm(changes={"use_gated_feedforward": False}),
    "with biases": Arm(changes={"use_bias": True}),
    "15 % predicted": Arm(figures={"predicted_share": 0.15, "final_predicted_share": None}),
    "flat, then falling": Arm(figures={"schedule": "stable", "decay_share": 0.5}),
    "weight decay 0.1": Arm(figures={"weight_decay": 0.1}),
    "weight decay 1.0": Arm(figures={"weight_decay": 1.0}),
    "bert": Arm(rates=(1.0, 3.0, 10.0), architecture="bert", recipe="bert"),
    "KerasHub": Arm("KerasHub", (5e-4, 1e-3, 2e-3)),
    "transformers": Arm("transformers", (1e-4, 3e-4, 1e-3)),
}


class Setting:
    """Text, text encoder and held-out rows, the same for all arms; the size of encoder and batch; and the
    precision of the sides that run on Keras, by default that which is fastest for their backend on a
    processor that is made for bfloat16."""

    def __init__(
        self,
        work: Path,
        smoke: bool,
        width: int = WIDTH,
        layers: int = LAYERS,
        rows: int = ROWS,
        dtype: str | None = None,
    ) -> None:
        from bert_keras.data import Corpus, lm_generator
        from bert_keras.text import BERTTextEncoder, TextEncoder

        self.width, self.layers, self.rows, self.dtype = width, layers, rows, dtype
        novels = data_folder() / "gutenberg"
        if not (work / "text_encoder").is_dir():
            BERTTextEncoder.train(novels / "train.txt", vocab_size=VOCAB_SIZE).save(work / "text_encoder")
        self.text_encoder = TextEncoder.load(work / "text_encoder")
        self.corpus = Corpus.prepare(self.text_encoder, novels / "train.txt", cache_dir=work)
        held_out = lm_generator(
            self.text_encoder,
            novels / "valid.txt",
            batch_size=56,
            max_len=MAX_LEN,
            use_single_sentence=True,
            short_prob=0.0,
            seed=1234,
            cache_dir=work,
        )
        self.held_out = [held_out[i] for i in range(1 if smoke else 14)]

    def batches(self, seed: int, batch_size: int | None = None, max_len: int = MAX_LEN) -> Any:
        from bert_keras.data import lm_generator

        shape: dict[str, Any] = {
            "batch_size": batch_size or self.rows,
            "max_len": max_len,
            "use_single_sentence": True,
        }
        return lm_generator(self.text_encoder, self.corpus, seed=seed, **shape)

    def unigram_loss(self) -> float:
        """Return the held-out loss in nats of a model that knows how often each id occurs."""
        counts = np.bincount(self.corpus.tokens, minlength=self.corpus.vocab_size) + 1.0
        nats = -np.log(counts / counts.sum())
        found = [nats[labels.target[labels.target_mask]] for labels in self._labels()]
        return float(np.concatenate(found).mean())

    def loss_of(self, logits_of: Callable[[Any], np.ndarray]) -> float:
        """Return the held-out loss of logits `(rows, length, vocabulary)` by batch."""
        nats = []
        for batch, labels in zip(self.held_out, self._labels(), strict=True):
            row, column = np.nonzero(labels.target_mask)
            logits = logits_of(batch)[row, column].astype("float64")
            top = logits.max(-1)
            log_sum = np.log(np.exp(logits - top[:, None]).sum(-1)) + top
            nats.append(log_sum - logits[np.arange(len(row)), labels.target[row, column]])
        return float(np.concatenate(nats).mean())

    def _labels(self) -> Iterator[Any]:
        return (batch.token_classification["lm"] for batch in self.held_out)


def train_ours(
    arm: Arm, rate: float, seed: int, budget: float, setting: Setting, points: int, save: str
) -> list[Any]:
    """Return seconds, rows and held-out loss at some points of a run; save the model, if a file is named."""
    import keras

    from bert_keras import TaskMetadata, TaskWeightScheduler, create_transformer, train_model

    recipe = scaled_recipe(arm.recipe, rate, **arm.figures)
    vocab_size = setting.text_encoder.vocab_size
    usual = "float32" if keras.backend.backend() == "jax" and not has_gpu() else "mixed_bfloat16"
    encoder = create_transformer(
        vocab_size,
        setting.width,
        MAX_LEN,
        setting.layers,
        architecture=arm.architecture,
        seed=seed,
        dtype=setting.dtype or usual,
        **arm.changes,
    )
    lm = TaskMetadata("lm", True, vocab_size, 0.0, TaskWeightScheduler(True, False))
    clock = _Clock(setting.rows)
    model = train_model(
        encoder,
        [lm],
        setting.batches(seed),
        pretrain_steps=max(1, points_apart(budget, points)),
        pretrain_budget=budget,
        recipe=recipe,
        pretrain_callbacks=[clock.callback()],
        validation_pretrain_generator=setting.held_out,
        seed=seed,
        verbose=0,
    )
    if save:
        Path(save).parent.mkdir(parents=True, exist_ok=True)
        model.save_weights(save)
    losses = model.training_history["pretrain"].history["val_lm_loss"]
    return [[*at, loss] for at, loss in zip(clock.points, losses, strict=True)]


def points_apart(budget: float, points: int) -> int:
    """Return a number of steps that takes about one of so many parts of the budget, at two steps a second, or
    twenty on a GPU."""
    return round(2 * budget / points) * (10 if has_gpu() else 1)


def has_gpu() -> bool:
    """Return whether Keras' backend has one."""
    import keras

    if keras.backend.backend() == "torch":
        return torch_device() == "cuda"
    return any("gpu" in device or "cuda" in device for device in keras.distribution.list_devices())


class _Clock:
    """Seconds and rows of training, without what is between epochs."""

    def __init__(self, rows: int) -> None:
        self.batch_rows, self.seconds, self.rows = rows, 0.0, 0
        self.points: list[list[float]] = []
        self.last: float | None = None

    def callback(self) -> Any:
        import keras

        clock = self

        class Callback(keras.callbacks.Callback):
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                float(logs["loss"])
                clock.step(clock.batch_rows)

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                clock.pause()

        return Callback()

    def step(self, rows: int) -> None:
        now = time.perf_counter()
        if self.last is not None:
            self.seconds += now - self.last
        self.last, self.rows = now, self.rows + rows

    def pause(self) -> None:
        self.points.append([self.seconds, self.rows])
        self.last = None


def train_peer(
    arm: Arm, rate: float, seed: int, budget: float, setting: Setting, points: int, save: str
) -> list[Any]:
    """Return the same for a peer: warm-up over a tenth of the steps, then linear to zero."""
    make = {"KerasHub": kerashub, "transformers": hugging_face}[arm.side]
    step, logits_of, set_rate, model = make(setting, seed)
    batches = setting.batches(seed)
    set_rate(0.0)
    step(batches[0])  # compiles
    seconds = []
    for number in range(8):
        start = time.perf_counter()
        step(batches[number])
        seconds.append(time.perf_counter() - start)
    planned = max(points, round(budget / statistics.median(seconds)))
    used, found = 0.0, []
    for number in range(planned):
        warmup = max(1.0, 0.1 * planned)
        set_rate(rate * min((number + 1) / warmup, (planned - number) / max(1.0, planned - warmup)))
        start = time.perf_counter()
        step(batches[number])
        used += time.perf_counter() - start
        if used >= budget * (len(found) + 1) / points or number == planned - 1:
            found.append([used, (number + 1) * setting.rows, setting.loss_of(logits_of)])
    if save and arm.side == "KerasHub":
        from benchmarks.kerashub_weights import save_kerashub

        Path(save).parent.mkdir(parents=True, exist_ok=True)
        save_kerashub(model.backbone, save)
    return found


def kerashub(setting: Setting, seed: int) -> Any:
    import keras

    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(setting.dtype or "mixed_bfloat16")
    model = kerashub_masked_lm(setting.text_encoder.vocab_size, setting.layers, setting.width, MAX_LEN)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum_over_batch_size")
    model.compile(keras.optimizers.AdamW(1e-4, weight_decay=0.01, global_clipnorm=1.0), loss=loss)

    def arrays(batch: Any, places: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "token_ids": batch.tokens,
            "segment_ids": batch.segments,
            "padding_mask": batch.padding_mask.astype("int32"),
            "mask_positions": places.astype("int32"),
        }

    def step(batch: Any) -> None:
        target, mask = batch.token_classification["lm"]
        places = np.argsort(~mask, axis=1, kind="stable")[:, :PREDICTIONS]
        weights = np.take_along_axis(mask, places, axis=1).astype("float32")
        y = np.take_along_axis(target, places, axis=1)
        model.train_on_batch(arrays(batch, places), y, weights * weights.size / weights.sum())

    def logits_of(batch: Any) -> np.ndarray:
        everywhere = np.broadcast_to(np.arange(MAX_LEN), batch.tokens.shape)
        return np.asarray(model.predict_on_batch(arrays(batch, everywhere))).astype("float32")

    def set_rate(rate: float) -> None:
        model.optimizer.learning_rate = rate

    return step, logits_of, set_rate, model


def hugging_face(setting: Setting, seed: int) -> Any:
    import torch
    import transformers

    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=setting.text_encoder.vocab_size,
        hidden_size=setting.width,
        num_hidden_layers=setting.layers,
        num_attention_heads=setting.width // 64,
        intermediate_size=4 * setting.width,
        max_position_embeddings=MAX_LEN,
    )
    model = transformers.BertForMaskedLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)

    def tensors(batch: Any) -> dict[str, Any]:
        return {
            "input_ids": torch.tensor(batch.tokens.astype("int64")),
            "attention_mask": torch.tensor(batch.padding_mask.astype("int64")),
        }

    def step(batch: Any) -> None:
        target, mask = batch.token_classification["lm"]
        labels = torch.tensor(np.where(mask, target, -100).astype("int64"))
        model.train()
        optimizer.zero_grad()
        model(**tensors(batch), labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    def logits_of(batch: Any) -> np.ndarray:
        model.eval()
        with torch.inference_mode():
            return model(**tensors(batch)).logits.numpy()

    def set_rate(rate: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate

    return step, logits_of, set_rate, model


def child(
    name: str,
    rate: str,
    seed: str,
    budget: str,
    points: str,
    work: str,
    smoke: str,
    save: str,
    dtype: str,
    *size: str,
) -> None:
    arm, setting = ARMS[name], Setting(Path(work), smoke == "smoke", *map(int, size), dtype=dtype or None)
    train = train_ours if arm.side == "bert_keras" else train_peer
    print("@" + json.dumps(train(arm, float(rate), int(seed), float(budget), setting, int(points), save)))


def carried_out(name: str, rate: float, seed: int, options: Any) -> dict[str, Any]:
    """Run one arm in a process of its own; return its curve."""
    size = "smoke" if options.smoke else "full"
    save = f"{options.save}/{name}-{rate:g}-{seed}".replace(" ", "-") if options.save else ""
    values = [name, rate, seed, options.budget, options.points, options.work, size, save]
    values.append(options.dtype or "")
    values += [options.width, options.layers, options.rows]
    command = [sys.executable, "-m", "benchmarks.learning", "--child", *map(str, values)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    curve = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("@"))[1:])
    return {"curve": curve, "loss": curve[-1][2], "seconds": curve[-1][0]}


def seconds_to(target: float, curve: list[list[Any]]) -> str:
    """Return when a curve came down to a loss, on the line between two measurements."""
    before: list[Any] | None = None
    for point in curve:
        if point[2] <= target:
            if before is None:
                return f"<{point[0]:.0f}"
            share = (before[2] - target) / (before[2] - point[2])
            return f"{before[0] + share * (point[0] - before[0]):.0f}"
        before = point
    return "-"


def draw(curves: dict[str, list[list[Any]]], unigram: float, file: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    by_seconds, by_rows = figure.subplots(1, 2, sharey=True)
    for number, (name, runs) in enumerate(curves.items()):
        style = {"label": name, "color": f"C{number % 10}", "linestyle": "-" if number < 10 else "--"}
        for axes, column in ((by_seconds, 0), (by_rows, 1)):
            for run in runs[:1]:
                axes.plot([point[column] for point in run], [point[2] for point in run], **style)
    for axes, label in ((by_seconds, "seconds of training"), (by_rows, "rows of 128 tokens")):
        axes.axhline(unigram, color="0.5", linewidth=0.8)
        axes.set(xlabel=label)
        axes.grid(alpha=0.3)
    by_seconds.set(ylabel="held-out loss, nats")
    by_rows.legend(fontsize=7, loc="upper right")
    figure.savefig(file, dpi=150)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        return child(*sys.argv[2:])
    command = parser(__doc__)
    command.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS), metavar="NAME")
    command.add_argument("--budget", type=float, default=120.0, help="seconds of training of each run")
    command.add_argument("--points", type=int, default=8, help="held-out measurements of each run")
    command.add_argument("--width", type=int, default=WIDTH)
    command.add_argument("--layers", type=int, default=LAYERS)
    command.add_argument("--rows", type=int, default=ROWS, help="of a batch")
    command.add_argument(
        "--dtype",
        choices=["float32", "mixed_bfloat16"],
        help="of the sides on Keras; by default each one's own",
    )
    command.add_argument("--seeds", type=int, default=3)
    command.add_argument("--rates", type=float, nargs="+", help="to choose from; by default each arm's own")
    command.add_argument("--work", default="weights/learning", help="where text encoder and corpus are kept")
    command.add_argument("--runs", metavar="FILE", help="keep finished runs there, and take them from there")
    command.add_argument("--kept", action="store_true", help="run nothing: show the runs that are kept")
    command.add_argument("--save", metavar="FOLDER", help="save the models there, as ARM-RATE-SEED")
    command.add_argument("--picture", metavar="FILE", help="draw the curves of the first seeds")
    options = command.parse_args()
    if options.smoke:
        options.budget, options.points, options.seeds = 3.0, 2, 1
        options.arms = ["modern", "KerasHub"] if options.arms == list(ARMS) else options.arms
    size = (options.width, options.layers, options.rows)
    if options.kept and not options.runs:
        command.error("--kept shows the runs of a file: give --runs FILE")
    log, setting = RunLog(options.runs), Setting(Path(options.work), options.smoke, *size)
    rows, curves, peers = [], {}, []
    setup = {"budget": options.budget, "size": None if size == (WIDTH, LAYERS, ROWS) else list(size)}
    setup["dtype"] = options.dtype
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    sides = [(name, None if backend == "tensorflow" else backend) for name in options.arms]
    if options.kept:
        every = [(name, backend) for name in options.arms for backend in (None, "torch", "jax")]
        sides = [
            (name, backend)
            for name, backend in every
            if log.having({**setup, "arm": name, "backend": backend, "seed": 0})
        ]
    for name, backend in sides:
        key = {"arm": name, **setup, "backend": backend}
        label = f"{name}, {backend}" if backend else name
        if ARMS[name].side != "bert_keras":
            peers.append(label)

        def loss_at(rate: float, seed: int, key: Any = key, name: str = name) -> dict[str, Any]:
            wanted = {**key, "learning_rate": rate, "seed": seed}
            return log.get(wanted, lambda: carried_out(name, rate, seed, options))

        rates = (options.rates or ARMS[name].rates)[: 1 if options.smoke else None]
        if options.kept:
            rates = [run["learning_rate"] for run in log.having({**key, "seed": 0})]
        best = min(rates, key=lambda rate: loss_at(rate, 0)["loss"])
        if options.kept:
            runs = log.having({**key, "learning_rate": best})
        else:
            runs = [loss_at(best, seed) for seed in range(options.seeds)]
        curves[label] = [run["curve"] for run in runs]
        steps = round(statistics.mean(run["curve"][-1][1] for run in runs) / options.rows)
        tried = " ".join(f"{rate:g}: {loss_at(rate, 0)['loss']:.3f}" for rate in rates)
        rows.append(
            [label, tried, f"{best:g}", len(runs), steps, mean_and_spread([run["loss"] for run in runs])]
        )
    header = ["arm", "rates tried (seed 0)", "rate", "seeds", "steps", "held-out loss"]
    if peers:
        target = min(statistics.mean(curve[-1][2] for curve in curves[name]) for name in peers)
        header.append(f"seconds to {target:.2f}")
        for row in rows:
            row.append(" ".join(seconds_to(target, curve) for curve in curves[row[0]]))
    unigram = setting.unigram_loss()
    if options.picture:
        draw(curves, unigram, options.picture)
    result = {"question": "learning", "unigram_loss": unigram, "runs": log.runs}
    result |= environment(["keras", "keras-hub", "transformers", "tensorflow", "jax", "torch"])
    title = f"Held-out loss after {options.budget:g} s of training; unigram {unigram:.2f}"
    report(title, header, rows, result, options.json)


if __name__ == "__main__":
    main()
