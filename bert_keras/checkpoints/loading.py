"""`load_openai`, `load_bert` and `load_huggingface`: encoders that start from published weights."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from bert_keras.checkpoints.configs import CONFIG_TABLES, config_from_json
from bert_keras.checkpoints.download import openai_directory
from bert_keras.checkpoints.engine import LoadedValues, Match, check_copies, match, read_row
from bert_keras.checkpoints.sources import ArraySource, OpenAISource, SafetensorsSource, TensorFlowSource
from bert_keras.checkpoints.table import Table
from bert_keras.checkpoints.tables import GOOGLE_BERT, HUGGINGFACE_TABLES, OPENAI
from bert_keras.encoders.config import TransformerConfig
from bert_keras.encoders.transformer import Transformer
from bert_keras.text.files import read_json_object

GPT_VOCAB_SIZE = 40478  # of the published GPT, before special tokens
NUM_SPECIAL_TOKENS = 5  # that OpenAITextEncoder appends
_HUB_FILES = ("*.json", "*.safetensors", "vocab.txt", "merges.txt", "README.md")


def load_openai(
    path: str | Path | None = None,
    is_causal: bool = False,
    *,
    max_len: int | None = None,
    num_segments: int | None = None,
    num_special_tokens: int = NUM_SPECIAL_TOKENS,
    num_heads: int = 12,
    seed: int | None = None,
    name: str = "transformer",
    dtype: Any = None,
    verbose: int = 1,
) -> Transformer:
    """Load the GPT that OpenAI published in 2018.

    Args:
        path: directory with `params_shapes.json` and `params_0.npy` to `params_9.npy` as published, or with
            the Hugging Face form of the same weights (`config.json`, `model.safetensors`). By default the
            published files are downloaded once, about 470 MB, into the cache, and every one is verified.
        is_causal: as it was trained (a position sees only what is before it), or bidirectional, as the start
            of a BERT.
        max_len: longest sequence; by default all 512 positions of the model.
        num_segments: segment ids. By default none if causal, else two, which start from zeros and so make no
            difference at first.
        num_special_tokens: rows appended to the token embedding, with fresh values, for the special tokens
            of `OpenAITextEncoder`.
        num_heads: attention heads; the published arrays do not tell them.
        seed: seed of what is fresh and of dropout; by default drawn from Python's `random`.
        name: name of the model.
        dtype: dtype policy; by default Keras' global one.
        verbose: 1 prints what was loaded, ignored and left fresh; 0 does not.

    Returns:
        The encoder. `encoder.load_report` is what `verbose` prints.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if arrays do not fit, are damaged or not finite; all faults of form are named at once.
        OSError: if the files can neither be found nor downloaded.

    Example:

    ```python
    encoder = load_openai(max_len=128)
    text_encoder = load_text_encoder(openai_directory())
    lm = TaskMetadata("lm", is_token_level=True, num_classes=text_encoder.vocab_size)
    generator = lm_generator(text_encoder, "corpus.txt", batch_size=32, max_len=128)
    model = train_model(encoder, [lm], generator, pretrain_steps=1000)
    ```

    Source: Radford et al. 2018; https://github.com/openai/finetune-transformer-lm (`train.py`).
    """
    num_segments = (0 if is_causal else 2) if num_segments is None else num_segments
    changes: dict[str, Any] = {"is_causal": is_causal, "num_segments": num_segments}
    built: dict[str, Any] = {"seed": seed, "name": name, "dtype": dtype, "verbose": verbose}
    if path is not None and (Path(path) / "config.json").is_file():
        directory = Path(path)
        config = _read_config(directory, ("openai-gpt",))
        table, source = HUGGINGFACE_TABLES["openai-gpt"], SafetensorsSource(directory)
        changes["vocab_size"] = _with_special_tokens(config.vocab_size, num_special_tokens)
        return _build(table, config, _changed(config, max_len, **changes), source, **built)
    published = OpenAISource(openai_directory(path))
    config = _openai_config(published, num_heads)
    changes["vocab_size"] = config.vocab_size + num_special_tokens
    return _build(OPENAI, config, _changed(config, max_len, **changes), published, **built)


def load_bert(
    directory: str | Path,
    *,
    max_len: int | None = None,
    use_heads: bool = True,
    use_exact_gelu: bool = True,
    seed: int | None = None,
    name: str = "transformer",
    dtype: Any = None,
    verbose: int = 1,
) -> Transformer:
    """Load a BERT in the form in which Google published it. Needs TensorFlow, whatever the backend.

    Args:
        directory: with `bert_config.json` and `bert_model.ckpt.*`.
        max_len: longest sequence; by default all positions of the checkpoint.
        use_heads: whether pooler, masked-LM transform and next-sentence head come along and become those of
            the tasks `lm` and `is_next` in `train_model`; otherwise those start fresh.
        use_exact_gelu: GELU by the error function, as everybody computes this model, or by tanh, as Google's
            last code does.
        seed, name, dtype, verbose: as in `load_openai`.

    Returns:
        The encoder. `encoder.load_report` is what `verbose` prints.

    Raises:
        ImportError: if TensorFlow is not installed.
        FileNotFoundError, ValueError: as in `load_openai`.

    Example:

    ```python
    encoder = load_bert("uncased_L-12_H-768_A-12")
    ```

    Source: Devlin et al. 2018; https://github.com/google-research/bert (`modeling.py`, `run_pretraining.py`).
    """
    directory = Path(directory)
    config = _read_config(directory, ("bert",), "bert_config.json")
    changed = _changed(config, max_len, use_exact_gelu=use_exact_gelu)
    source = TensorFlowSource(directory)
    built: dict[str, Any] = {"seed": seed, "name": name, "dtype": dtype, "verbose": verbose}
    return _build(GOOGLE_BERT, config, changed, source, use_heads, **built)


def load_huggingface(
    directory_or_name: str | Path,
    *,
    max_len: int | None = None,
    use_heads: bool = True,
    seed: int | None = None,
    name: str = "transformer",
    dtype: Any = None,
    verbose: int = 1,
) -> Transformer:
    """Load an encoder that `transformers` saved: `bert`, `roberta`, `distilbert`, `electra`,
    `modernbert` or `openai-gpt`.

    Args:
        directory_or_name: a directory with `config.json` and `model.safetensors` (or its shards and
            `model.safetensors.index.json`), or a name on the Hugging Face Hub, for which the extra `hub` has
            to be installed.
        max_len: longest sequence; by default all positions of the checkpoint. ModernBERT, whose positions are
            rotary, may be given more.
        use_heads: whether the checkpoint's heads come along. In `train_model` the pooler then is that of all
            sentence-level tasks, and tasks named `lm`, `is_next` and `classifier` start from the masked-LM,
            next-sentence and classification head. A ModernBERT classifier may read sentences by a mean: the
            report then says so, and the task needs `read_from="mean"`.
        seed, name, dtype, verbose: as in `load_openai`.

    Returns:
        The encoder. `encoder.load_report` is what `verbose` prints.

    Raises:
        FileNotFoundError, ValueError: as in `load_openai`.
        ImportError: if a name is given and `huggingface_hub` is not installed.
        OSError: if the name cannot be had from the Hub.

    Example:

    ```python
    encoder = load_huggingface("all-MiniLM-L6-v2", max_len=256)
    text_encoder = load_text_encoder("all-MiniLM-L6-v2")
    ```
    """
    directory = huggingface_directory(directory_or_name)
    model_type = read_json_object(directory / "config.json").get("model_type")
    config = _read_config(directory, tuple(HUGGINGFACE_TABLES))
    source = SafetensorsSource(directory)
    changes = {}
    if model_type == "openai-gpt":
        changes["vocab_size"] = _with_special_tokens(config.vocab_size, NUM_SPECIAL_TOKENS)
    built: dict[str, Any] = {"seed": seed, "name": name, "dtype": dtype, "verbose": verbose}
    table = HUGGINGFACE_TABLES[str(model_type)]
    changed = _changed(config, max_len, **changes)
    notes = _notes(read_json_object(directory / "config.json")) if use_heads else ()
    return _build(table, config, changed, source, use_heads, notes, **built)


def huggingface_directory(directory_or_name: str | Path, revision: str | None = None) -> Path:
    """Return the directory itself, or that into which the Hub's files of this name were downloaded.

    Args:
        directory_or_name: a directory, or a name on the Hub.
        revision: of the name on the Hub: a branch, a tag or a commit.

    Raises:
        ImportError: if `huggingface_hub` is needed and not installed.
        OSError: if the Hub has no such name, or is out of reach.
    """
    directory = Path(directory_or_name)
    if directory.is_dir():
        return directory
    problem = f"There is no directory {str(directory_or_name)!r}"
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            f"{problem}. If it is a name on the Hugging Face Hub: pip install 'bert_keras[hub]'."
        ) from error
    try:
        return Path(
            huggingface_hub.snapshot_download(
                str(directory_or_name), revision=revision, allow_patterns=list(_HUB_FILES)
            )
        )
    except (OSError, ValueError) as error:  # its own errors are of these two kinds
        raise OSError(
            f"{problem}, and the Hugging Face Hub gave none of this name: {error}. Check the spelling and "
            "the network, or download the model's files into a directory and pass that."
        ) from error


def _read_config(
    directory: Path, model_types: tuple[str, ...], file_name: str = "config.json"
) -> TransformerConfig:
    path = directory / file_name
    content = read_json_object(path)
    if content.get("format") == "bert_keras model":
        raise ValueError(f"{str(directory)!r} was written by save_pretrained: open it with load_pretrained.")
    model_type = content.get("model_type", model_types[0] if len(model_types) == 1 else None)
    if model_type not in model_types or model_type not in CONFIG_TABLES:
        raise ValueError(
            f"{str(path)!r}: `model_type` must be one of {list(model_types)}, but is {model_type!r}."
        )
    return config_from_json(model_type, content, str(path))


def _notes(content: Mapping[str, Any]) -> tuple[str, ...]:
    """What of a `config.json` the user has to act upon."""
    classes = content.get("architectures") or []
    if content.get("classifier_pooling") != "mean" or "ModernBertForSequenceClassification" not in classes:
        return ()
    return ('  note     head classifier was trained on a mean: give its task read_from="mean"',)


def _openai_config(source: OpenAISource, num_heads: int) -> TransformerConfig:
    tokens, positions = source.arrays["model/we"].shape, source.arrays["model/pe"].shape
    feedforward = source.arrays.get("model/h0/mlp/c_fc/b")
    if len(tokens) != 2 or len(positions) != 2 or feedforward is None or len(feedforward.shape) != 1:
        raise ValueError(
            f"{source}: the shapes are not those of a GPT: positions {positions}, tokens {tokens}, "
            f"feed-forward bias {feedforward}."
        )
    content = {
        "vocab_size": tokens[0],
        "n_embd": tokens[1],
        "n_positions": positions[0],
        "n_layer": sum(name.endswith("/ln_2/g") for name in source.arrays),
        "n_head": num_heads,
    }
    config = config_from_json("openai-gpt", content, str(source))
    return dataclasses.replace(config, d_hid=feedforward.shape[0])


def _with_special_tokens(vocab_size: int, num_special_tokens: int) -> int:
    """Rows for the text encoder's special tokens, if this is the published GPT, which has none for them. What
    was exported here has them already."""
    return vocab_size + num_special_tokens if vocab_size == GPT_VOCAB_SIZE else vocab_size


def _changed(config: TransformerConfig, max_len: int | None, **changes: Any) -> TransformerConfig:
    most = config.max_len if config.position_embedding != "rotary" else float("inf")
    if max_len is not None and not 1 <= max_len <= most:
        raise ValueError(
            f"`max_len` must be from 1 to {config.max_len}, the positions of the checkpoint. "
            f"Received: max_len={max_len}"
        )
    return dataclasses.replace(config, max_len=max_len or config.max_len, **changes)


def _build(
    table: Table,
    published: TransformerConfig,
    config: TransformerConfig,
    source: ArraySource,
    use_heads: bool = False,
    notes: tuple[str, ...] = (),
    *,
    seed: int | None,
    name: str,
    dtype: Any,
    verbose: int,
) -> Transformer:
    """Build the encoder from its checkpoint."""
    config = dataclasses.replace(config, seed=random.getrandbits(31) if seed is None else seed)
    found = match(table, published, config, source.arrays, str(source))
    check_copies(found, source)
    heads = {
        head: {path: read_row(row, source) for path, row in rows.items()}
        for head, rows in found.heads.items()
        if use_heads
    }
    encoder = Transformer(config, LoadedValues(config, found, source), name=name, dtype=dtype)
    encoder.pretrained_heads = MappingProxyType(heads)
    encoder.load_report = "\n".join([report(found, source, encoder, heads), *notes])
    if verbose:
        print(encoder.load_report)
    return encoder


def report(
    found: Match, source: ArraySource, encoder: Transformer, heads: Mapping[str, Mapping[str, np.ndarray]]
) -> str:
    """Return a short table of what was loaded, what ignored, and what starts fresh."""
    count = sum(len(row.sources) for row in found.rows.values())
    lines = [
        f"{source}",
        f"  loaded   encoder: {count} arrays into {len(found.rows)} variables, "
        f"{encoder.count_params():,} parameters",
    ]
    lines += [f"  loaded   head {name}" for name in heads]
    unused = [name for name in found.heads if name not in heads]
    lines += [f"  ignored  head {name}, as asked" for name in unused]
    reasons: dict[str, list[str]] = {}
    for name, reason in found.ignored.items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        lines.append(f"  ignored  {names[0]}{more}: {reason}")
    lines += [f"  fresh    {path}: {reason}" for path, reason in found.fresh.items()]
    missing = [name for name in ("pooler", "lm") if name not in heads and not encoder.is_causal]
    lines += [f"  fresh    head {name}, if a task needs it" for name in missing]
    return "\n".join(lines)
