"""`predict` and `convert`: trained models in use, and in other formats."""

from __future__ import annotations

import csv
import json
import sys
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TextIO

from bert_keras.checkpoints import save_huggingface
from bert_keras.cli.settings import HISTORY_FILE, RUN_FILE
from bert_keras.cli.starts import load_run, load_start
from bert_keras.sharing import export_model, save_pretrained
from bert_keras.sharing.form import RUN_WEIGHTS
from bert_keras.tasks import LM_TASK, TaskMetadata
from bert_keras.text import read_lines
from bert_keras.training.model import MultiTaskModel
from bert_keras.training.prediction import LabelPrediction, SpanPrediction, WordPrediction, predict

EXPORTS = {"onnx": "onnx", "saved-model": "tf_saved_model", "litert": "litert"}


def predict_texts(
    model: Path, source: str, output: Path | None, as_json: bool, batch_size: int, is_pair: bool
) -> None:
    """Predict the label of each line, as they come, in constant memory.

    Args:
        model: folder of a run, or one that `save_pretrained` wrote.
        source: a file, or `-` for standard input: a text on each line; of a pair both, with a tab between.
        output: where to; by default standard output.
        as_json: a JSON object on each line, else columns with tabs between: for each task the label and its
            probability.
        batch_size: rows of a batch.
        is_pair: whether a line holds two texts.
    """
    start = load_run(model)
    if not isinstance(start.model, MultiTaskModel):
        raise ValueError(f"{model} holds an encoder without tasks: `bert-keras finetune` gives it one.")
    lines = (line.rstrip("\r\n") for line in sys.stdin) if source == "-" else read_lines(Path(source))
    texts = (_text(line, is_pair) for line in lines if line.strip())
    results = predict(start.model, start.text_encoder, texts, batch_size=batch_size)
    with nullcontext(sys.stdout) if output is None else open(output, "w", encoding="utf-8") as file:
        _write(results, file, as_json)


def _text(line: str, is_pair: bool) -> Any:
    if not is_pair:
        return line
    parts = line.split("\t")
    if len(parts) != 2:
        raise ValueError(f"With --pair each line holds two texts with a tab between. Received: {line!r:.100}")
    return parts[0], parts[1]


def _write(results: Iterable[dict[str, Any]], file: TextIO, as_json: bool) -> None:
    for result in results:
        if as_json:
            line = json.dumps({name: plain(value) for name, value in result.items()}, ensure_ascii=False)
        else:
            line = "\t".join(cell for value in result.values() for cell in _cells(value))
        file.write(line + "\n")
        if file is sys.stdout:
            file.flush()


def plain(value: Any) -> Any:
    """Return a prediction as JSON can hold it."""
    if isinstance(value, LabelPrediction | SpanPrediction | WordPrediction):
        return {name: plain(part) for name, part in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _cells(value: Any) -> Iterator[str]:
    if isinstance(value, LabelPrediction):
        yield str(value.label)
        yield f"{value.probability:.4f}"
    elif isinstance(value, SpanPrediction):
        yield "" if value.text is None else value.text.replace("\t", " ").replace("\n", " ")
        yield f"{value.probability:.4f}"
    elif isinstance(value, list) and value and isinstance(value[0], WordPrediction):
        yield " ".join(f"{word.word}/{word.label}" for word in value)
    elif isinstance(value, list):
        yield ",".join(str(each.label) for each in value)
    else:
        yield str(plain(value))


def convert(source: str, output: Path, to: str, task: str | None, overwrite: bool) -> dict[str, Any]:
    """Write a model in another format, and return what was written.

    Args:
        source: as in `load_start`.
        output: a folder.
        to: `"huggingface"`, `"pretrained"`, `"bert-keras"`, or one of `EXPORTS`.
        task: the task to write for Hugging Face or to export, if there are several.
        overwrite: whether a folder that was written in the same format may be replaced.

    Raises:
        ValueError: if the format cannot express the model.
        FileExistsError: if the folder exists, and it is not to be replaced.
    """
    if overwrite and to in ("huggingface", "bert-keras"):
        raise ValueError(f"--overwrite is not for --to {to}, which replaces files of the same names anyway.")
    start = load_start(source)
    options: dict[str, Any] = {"text_encoder": start.text_encoder, "verbose": 0}
    if to == "huggingface":
        save_huggingface(start.model, output, task=task, **options)
    elif to == "pretrained":
        history = _history(Path(source))
        save_pretrained(start.model, output, **options, history=history, overwrite=overwrite)
    elif to in EXPORTS:
        export_model(start.model, output, EXPORTS[to], tasks=task, overwrite=overwrite, **options)
    else:
        model = start.model
        if not isinstance(model, MultiTaskModel):
            lm = TaskMetadata(LM_TASK, True, model.vocab_size)
            model = MultiTaskModel(model, [lm])
        model.save_weights(output / RUN_WEIGHTS)
        start.text_encoder.save(output / "text_encoder")
    return {"output": str(output), "format": to, "files": sorted(path.name for path in output.iterdir())}


def _history(run: Path) -> dict[str, dict[str, list[float]]] | None:
    """Return what a run wrote of its training, by phase; None if there is nothing."""
    table, settings = run / HISTORY_FILE, run / RUN_FILE
    if not table.is_file() or not settings.is_file():
        return None
    told = tomllib.loads(settings.read_text(encoding="utf-8"))
    with open(table, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name != "epoch"] if rows else []
    history = {name: [float("nan" if row[name] == "NA" else row[name]) for row in rows] for name in names}
    return {"finetune" if "train" in told else "pretrain": history}
