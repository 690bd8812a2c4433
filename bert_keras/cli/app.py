"""The commands of `bert-keras`, their flags and their help."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bert_keras.cli.settings import FinetuneSettings, PretrainSettings
from bert_keras.version import __version__

STOPPED = 130  # as of programs that Ctrl-C ends

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")]
Config = Annotated[Path | None, typer.Option(help="A TOML file with the settings; flags override it.")]
Resume = Annotated[Path | None, typer.Option(help="Folder of a stopped run to go on with.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a run that is in the folder.")]
_P, _F = PretrainSettings(), FinetuneSettings()
_RECIPE = "How it is trained: modern, bert or gentle."
_FORMS = ("huggingface", "pretrained", "onnx", "saved-model", "litert", "bert-keras")


def _setting(text: str, default: Any = None, *flags: str) -> Any:
    """Return an option that may also stand in the TOML file, so that its own default is None."""
    shown = text if default is None else f"{text} [default: {default}]"
    return typer.Option(*flags, help=shown, show_default=False)


def main() -> None:
    """Run the command line."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bert-keras {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Pretrain and fine-tune text encoders. `bert-keras COMMAND --help` shows an example.

    The backend is Keras' choice: set KERAS_BACKEND to tensorflow, jax or torch.
    """


@app.command()
def tokenizer(
    source: Annotated[list[str], typer.Argument(help="Text files, patterns or folders.")],
    output: Annotated[Path, typer.Option(help="Folder for the text encoder.")],
    vocab_size: Annotated[int, typer.Option(help="Number of ids, special tokens included.")] = 8000,
    kind: Annotated[str, typer.Option(help="sentencepiece or wordpiece.")] = "sentencepiece",
    lower_case: Annotated[bool, typer.Option("--lower-case", help="Write all in lower case.")] = False,
    as_json: Json = False,
) -> None:
    """Train a text encoder.

    Example: bert-keras tokenizer corpus.txt --output my_tokenizer --vocab-size 8000
    """

    def run() -> dict[str, Any]:
        from bert_keras.text import BERTTextEncoder, SentencePieceTextEncoder

        kinds: dict[str, Any] = {"sentencepiece": SentencePieceTextEncoder, "wordpiece": BERTTextEncoder}
        if kind not in kinds:
            raise ValueError(f"--kind must be one of {sorted(kinds)}. Received: {kind!r}")
        text_encoder = kinds[kind].train(source, vocab_size=vocab_size, lower_case=lower_case)
        text_encoder.save(output)
        return {
            "output": str(output),
            "vocab_size": text_encoder.vocab_size,
            "fingerprint": text_encoder.fingerprint,
        }

    _report(run, as_json)


@app.command()
def corpus(
    source: Annotated[list[str], typer.Argument(help="Text files, patterns or folders.")],
    text_encoder: Annotated[Path, typer.Option(help="Folder of the text encoder.")],
    output: Annotated[Path | None, typer.Option(help="Where corpora are kept; by default the cache.")] = None,
    one_document_per_line: Annotated[bool, typer.Option("--one-document-per-line")] = False,
    as_json: Json = False,
) -> None:
    """Tokenise text once, for pretraining. One sentence a line, a blank line between documents.

    Example: bert-keras corpus corpus.txt --text-encoder my_tokenizer
    """

    def run() -> dict[str, Any]:
        from bert_keras.data import Corpus
        from bert_keras.text import load_text_encoder

        prepared = Corpus.prepare(
            load_text_encoder(text_encoder),
            source,
            cache_dir=output,
            one_document_per_line=one_document_per_line,
            verbose=not as_json,
        )
        names = ("num_documents", "num_sentences", "num_tokens")
        counts = {name: getattr(prepared, name) for name in names}
        return {"output": str(prepared.directory), **counts}

    _report(run, as_json)


@app.command()
def pretrain(
    corpus: Annotated[str | None, typer.Argument(help="Text files, or a folder that `corpus` made.")] = None,
    output: Annotated[str | None, _setting("Folder for the result.")] = None,
    text_encoder: Annotated[str | None, _setting("Folder that `tokenizer` made.")] = None,
    start: Annotated[str | None, _setting("Model to go on from: folder, name on the Hub, openai.")] = None,
    held_out: Annotated[str | None, _setting("Text to measure on.")] = None,
    size: Annotated[str | None, _setting("Of a fresh encoder: tiny to large.", _P.size)] = None,
    architecture: Annotated[str | None, _setting("Of a fresh encoder: or bert.", _P.architecture)] = None,
    is_causal: Annotated[bool | None, _setting("Next tokens, as GPT.", "masked", "--causal/--masked")] = None,
    max_len: Annotated[int | None, _setting("Tokens of a row.", _P.max_len)] = None,
    batch_size: Annotated[int | None, _setting("Rows of a batch.", _P.batch_size)] = None,
    steps: Annotated[int | None, _setting("Batches in all.", _P.steps)] = None,
    recipe: Annotated[str | None, _setting(_RECIPE, "modern, or gentle with --start")] = None,
    learning_rate: Annotated[float | None, _setting("The peak.", "the recipe's")] = None,
    dtype: Annotated[str | None, _setting("float32 or mixed_bfloat16.", _P.dtype)] = None,
    seed: Annotated[int | None, _setting("Of all that is drawn.", _P.seed)] = None,
    config: Config = None,
    resume: Resume = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Pretrain an encoder on text.

    It learns masked tokens and is_next, or (--causal) next tokens.

    The folder gets model.weights.h5, text_encoder/, history.csv and run.toml, which repeats the run with
    --config. Ctrl-C saves a checkpoint; --resume goes on from it.

    Example: bert-keras pretrain corpus.txt --text-encoder my_tokenizer --output my_encoder --steps 10000
    """
    flags = {name: value for name, value in locals().items() if name not in _NOT_SETTINGS}

    def run() -> dict[str, Any]:
        from bert_keras.cli.running import pretrain as run_pretraining

        return run_pretraining(config, resume, overwrite, flags)

    _report(run, as_json)


@app.command()
def finetune(
    train: Annotated[str | None, typer.Argument(help="Labelled texts: .tsv .csv .jsonl .conll")] = None,
    start: Annotated[str | None, _setting("Model to begin with: folder, name on the Hub, openai.")] = None,
    output: Annotated[str | None, _setting("Folder for the result.")] = None,
    validation: Annotated[str | None, _setting("Labelled texts to measure on.")] = None,
    text: Annotated[str | None, _setting("Column of the text: name, or number from 0.", _F.text)] = None,
    label: Annotated[str | None, _setting("Column of the label.", _F.label)] = None,
    second_text: Annotated[str | None, _setting("Column of the second text of pairs.")] = None,
    word: Annotated[int | None, _setting("Column of the word (.conll).", _F.word)] = None,
    task: Annotated[str | None, _setting("Name of the task.", _F.task)] = None,
    kind: Annotated[str | None, _setting("Or multi_label, regression.", _F.kind)] = None,
    label_separator: Annotated[str | None, _setting("Between labels, for multi_label.")] = None,
    read_from: Annotated[str | None, _setting("Or mean, max.", _F.read_from)] = None,
    max_len: Annotated[int | None, _setting("Tokens of a row.", _F.max_len)] = None,
    batch_size: Annotated[int | None, _setting("Rows of a batch.", _F.batch_size)] = None,
    epochs: Annotated[int | None, _setting("Times that each example is seen.", _F.epochs)] = None,
    recipe: Annotated[str | None, _setting(_RECIPE, _F.recipe)] = None,
    learning_rate: Annotated[float | None, _setting("The peak.", "the recipe's")] = None,
    dtype: Annotated[str | None, _setting("Or mixed_bfloat16.", _F.dtype)] = None,
    seed: Annotated[int | None, _setting("Of all that is drawn.", _F.seed)] = None,
    config: Config = None,
    resume: Resume = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a model on labelled texts. By default: two columns, the text and its label, without header.

    The folder gets model.weights.h5, text_encoder/, history.csv and run.toml, which repeats the run with
    --config. Ctrl-C saves a checkpoint; --resume goes on from it.

    Example: bert-keras finetune train.tsv --start all-MiniLM-L6-v2 --output my_model --validation dev.tsv
    """
    flags = {name: value for name, value in locals().items() if name not in _NOT_SETTINGS}

    def run() -> dict[str, Any]:
        from bert_keras.cli.running import finetune as run_finetuning

        return run_finetuning(config, resume, overwrite, flags)

    _report(run, as_json)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Folder of a run, or of save_pretrained.")],
    source: Annotated[str, typer.Argument(help="A text on each line; - for standard input.")] = "-",
    output: Annotated[Path | None, typer.Option(help="Where to; by default standard output.")] = None,
    pair: Annotated[bool, typer.Option("--pair", help="Two texts on each line, with a tab between.")] = False,
    batch_size: int = 32,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object on each line.")] = False,
) -> None:
    """Predict the labels of texts.

    Line by line: for each task its label and the label's probability, with tabs between.

    Example: bert-keras predict my_model new.txt --output predicted.tsv
    """

    def run() -> None:
        from bert_keras.cli.using import predict_texts

        predict_texts(model, source, output, as_json, batch_size, pair)

    _guarded(run)


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="A run, a published model, or a name on the Hub.")],
    output: Annotated[Path, typer.Argument(help="Folder for the result.")],
    to: Annotated[str, typer.Option(help=f"One of: {', '.join(_FORMS)}.")] = "huggingface",
    task: Annotated[str | None, typer.Option(help="Which task, where there are several.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older result.")] = False,
    as_json: Json = False,
) -> None:
    """Write a model in another format.

    One of ours for `transformers` (huggingface), to be shared (pretrained: with a model card), or to be
    served (onnx, saved-model, litert); or a published one as ours (bert-keras).

    Example: bert-keras convert my_model my_model_for_transformers
    """

    def run() -> dict[str, Any]:
        from bert_keras.cli.using import convert as run_conversion

        if to not in _FORMS:
            raise ValueError(f"--to must be one of {', '.join(_FORMS)}. Received: {to!r}")
        return run_conversion(source, output, to, task, overwrite)

    _report(run, as_json)


@app.command()
def inspect(
    path: Annotated[
        Path, typer.Argument(help="Weights, run, shared or published model, text encoder, corpus.")
    ],
    as_json: Json = False,
) -> None:
    """Tell what is in a file or folder.

    Arrays, tasks, and where it comes from.

    Example: bert-keras inspect my_model
    """

    def run() -> dict[str, Any]:
        from bert_keras.cli.inspecting import inspect as look

        return look(path)

    _report(run, as_json)


@app.command()
def demo(
    directory: Annotated[Path, typer.Argument(help="Where files are kept.")] = Path("bert_keras_quickstart"),
    steps: Annotated[int, typer.Option(help="Pretraining steps.")] = 1000,
) -> None:
    """Run the quick start.

    From text to a fine-tuned model, in under three minutes on two cores, without a download.

    Example: bert-keras demo
    """

    def run() -> None:
        from bert_keras.__main__ import main as quick_start

        quick_start([str(directory), "--steps", str(steps)])

    _guarded(run)


_NOT_SETTINGS = ("config", "resume", "overwrite", "as_json")


def _report(run: Callable[[], Mapping[str, Any]], as_json: bool) -> None:
    result = _guarded(run)
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
    else:
        for line in _lines(result):
            typer.echo(line)


def _guarded(run: Callable[[], Any]) -> Any:
    """Run, and turn what users can mend into a message and an exit code: 1, or 130 where it was stopped."""
    try:
        return run()
    except (ValueError, TypeError, OSError, ImportError) as error:
        if isinstance(error, BrokenPipeError):  # whoever read our output has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from error
        typer.echo("\n".join([f"error: {error}", *getattr(error, "__notes__", ())]), err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        typer.echo("stopped" if not error.args else str(error), err=True)
        raise typer.Exit(STOPPED) from error


def _lines(value: Mapping[str, Any], indent: str = "") -> list[str]:
    """Return a result as people read it."""
    lines = []
    for name, part in value.items():
        if isinstance(part, Mapping):
            lines += [f"{indent}{name}:", *_lines(part, indent + "  ")]
        elif isinstance(part, list) and part and isinstance(part[0], Mapping):
            lines.append(f"{indent}{name}:")
            for each in part:
                known = ", ".join(f"{k}={v!r}" for k, v in each.items() if v is not None and k != "name")
                lines.append(f"{indent}  {each.get('name', '-')}: {known}")
        elif isinstance(part, float):
            lines.append(f"{indent}{name}: {part:.4g}")
        elif isinstance(part, int) and not isinstance(part, bool):
            lines.append(f"{indent}{name}: {part:,}")
        else:
            lines.append(f"{indent}{name}: {part}")
    return lines
