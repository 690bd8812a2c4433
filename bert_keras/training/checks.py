"""What is found out about an encoder and a batch before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from bert_keras.data import SentenceBatch, TaskDataBatch
from bert_keras.encoders.inputs import encoder_inputs, input_names, select_inputs
from bert_keras.tasks import LM_TASK, TaskMetadata


@dataclass(frozen=True)
class EncoderFacts:
    """What training needs to know of an encoder. None stands for what cannot be known of it.

    Attributes:
        width: features of its hidden states.
        vocab_size, max_len, num_segments: numbers of rows of its tables.
        takes_any_length: whether rows may be longer than `max_len` (rotary positions).
        pooler_activation: what follows the pooler's dense layer.
        pooler_norm: whether the pooler has a norm.
        pool_everywhere: whether it comes before all classification heads.
        layer_norm_epsilon, use_exact_gelu, norm_kind, use_bias: for pooler and `lm` head, which do as the
            encoder does.
        is_causal: whether it says of itself that it does not see the future.
        dtype_policy: for the heads.
        tables: all embedding layers found.
        token_embedding: the one that holds the tokens.
    """

    width: int
    vocab_size: int | None
    max_len: int | None
    num_segments: int | None
    takes_any_length: bool
    pooler_activation: str
    pooler_norm: bool
    pool_everywhere: bool
    layer_norm_epsilon: float
    use_exact_gelu: bool
    norm_kind: str
    use_bias: bool
    is_causal: bool
    dtype_policy: Any
    tables: tuple[Any, ...]
    token_embedding: Any

    def tied_table(self, num_classes: int) -> Any:
        """Return the embedding layer that the `lm` decoder is tied to.

        Raises:
            ValueError: if none is found, or its rows are not `num_classes`.
        """
        table = self.token_embedding
        if table is None:
            fitting = [table for table in self.tables if table.input_dim == num_classes]
            if len(fitting) != 1:
                found = [(table.name, table.input_dim) for table in self.tables]
                raise ValueError(
                    "The task 'lm' needs the encoder's token embedding for its decoder: exactly one "
                    f"keras.layers.Embedding with input_dim={num_classes} (the task's num_classes), or one "
                    f"named 'token_embedding'. Embeddings found in the encoder, with input_dim: {found}"
                )
            table = fitting[0]
        if table.input_dim != num_classes:
            raise ValueError(
                f"The task 'lm' has num_classes={num_classes}, but the encoder's token embedding has "
                f"{table.input_dim} rows. Both must be the text encoder's vocab_size."
            )
        return table


def encoder_facts(encoder: keras.Model) -> EncoderFacts:
    """Look at an encoder.

    Raises:
        ValueError: if it is no model over the four inputs, or gives no `(batch, length, width)`.
    """
    if not isinstance(encoder, keras.Model):
        raise ValueError(
            "The encoder must be a keras.Model from token_ids, segment_ids, position_ids and sequence_ids "
            f"to hidden states (batch, length, width). Received: {encoder!r}"
        )
    input_names(encoder)
    shape = _output_shape(encoder)
    if len(shape) != 3 or shape[-1] is None:
        raise ValueError(
            "The encoder must give hidden states of shape (batch, length, width) with a known width. "
            f"Received an encoder with output shape {shape}"
        )
    layers = [layer for layer in encoder._flatten_layers() if isinstance(layer, keras.layers.Embedding)]
    tables = tuple({id(layer): layer for layer in layers}.values())
    token_embedding = getattr(encoder, "token_embedding", None)
    if token_embedding is None:
        named = [table for table in tables if len(tables) == 1 or table.name == "token_embedding"]
        token_embedding = named[0] if named else None
    vocab_size = getattr(encoder, "vocab_size", None)
    num_segments = getattr(encoder, "num_segments", None)
    if vocab_size is None and token_embedding is not None:
        vocab_size = token_embedding.input_dim
    return EncoderFacts(
        width=int(shape[-1]),
        vocab_size=vocab_size,
        max_len=getattr(encoder, "max_len", None),
        num_segments=num_segments if num_segments is None or num_segments > 1 else None,
        takes_any_length=getattr(encoder, "position_embedding", None) == "rotary",
        pooler_activation=getattr(encoder, "pooler_activation", "tanh"),
        pooler_norm=bool(getattr(encoder, "pooler_norm", False)),
        pool_everywhere=bool(getattr(encoder, "pool_everywhere", False)),
        layer_norm_epsilon=getattr(encoder, "layer_norm_epsilon", 1e-12),
        use_exact_gelu=bool(getattr(encoder, "use_exact_gelu", True)),
        norm_kind=getattr(encoder, "norm_kind", "layer"),
        use_bias=bool(getattr(encoder, "use_bias", True)),
        is_causal=bool(getattr(encoder, "is_causal", False)),
        dtype_policy=encoder.dtype_policy,
        tables=tables,
        token_embedding=token_embedding,
    )


def check_batch(batch: Any, tasks: Iterable[TaskMetadata], facts: EncoderFacts, where: str) -> None:
    """Check that a batch fits the tasks and the encoder.

    Args:
        batch: what a generator gave.
        tasks: the tasks that are active.
        facts: of the encoder.
        where: which batch of what, for messages.

    Raises:
        TypeError: if it is no `SentenceBatch`.
        ValueError: naming what does not fit.
    """
    if not isinstance(batch, SentenceBatch):
        raise TypeError(f"{where} must be a SentenceBatch. Received: {type(batch).__name__}")
    _check_range(
        f"{where}: token ids", batch.tokens, facts.vocab_size, "the encoder's token embedding has", "rows"
    )
    _check_range(f"{where}: segment ids", batch.segments, facts.num_segments, "the encoder knows", "segments")
    _check_sequences(batch, where)
    length = batch.tokens.shape[1]
    if batch.position_ids is not None:
        length = int(np.max(batch.position_ids, initial=0)) + 1
    if facts.max_len is not None and length > facts.max_len and not facts.takes_any_length:
        raise ValueError(
            f"{where} has {'sequences' if batch.is_packed else 'rows'} of {length} tokens, but the encoder "
            f"has max_len={facts.max_len} positions. Give the generator a smaller "
            "`max_len` or build the encoder with a larger one."
        )
    for task in tasks:
        labels = batch.token_classification if task.is_token_level else batch.sentence_classification
        if task.name not in labels:
            level = "token_classification" if task.is_token_level else "sentence_classification"
            raise ValueError(
                f"{where} has no labels for the active task '{task.name}' in `{level}`. "
                f"There were: token_classification={sorted(batch.token_classification)}, "
                f"sentence_classification={sorted(batch.sentence_classification)}. Give the batch these "
                "labels (a mask of False, or the index -1, marks examples without), or make the task "
                "inactive in this phase."
            )
        _check_labels(labels[task.name], task, batch, where)


def check_causality(batch: SentenceBatch, encoder: keras.Model, tasks: Iterable[TaskMetadata]) -> None:
    """Refuse next-token labels over an encoder that sees the next token.

    Raises:
        ValueError: if the `lm` labels are the tokens that follow and a later token changes an earlier hidden
            state.
    """
    if all(task.name != LM_TASK for task in tasks) or LM_TASK not in batch.token_classification:
        return
    if not _has_next_token_labels(batch):
        return
    if not encoder_facts(encoder).is_causal and _sees_future(encoder, batch):
        raise ValueError(
            "The labels of task 'lm' are the next tokens, but the encoder sees them: its hidden states "
            "depend on later tokens. Build the encoder with is_causal=True, or the generator with "
            "is_causal=False."
        )


def check_packing(batch: SentenceBatch, encoder: keras.Model) -> None:
    """Refuse a packed batch for an encoder that does not keep the sequences of a row apart.

    An encoder may say it of itself in `supports_packing`; of others it is found out by a try.

    Raises:
        ValueError: if it says that it does not, takes no `sequence_ids`, or lets the tokens of one sequence
            change the hidden states of another.
    """
    says = getattr(encoder, "supports_packing", None)
    if not batch.is_packed or says:
        return
    if says is not None:
        reason = f"its `supports_packing` is {says!r}"
    elif "sequence_ids" not in input_names(encoder):
        reason = f"it takes only {input_names(encoder)}, and not `sequence_ids`"
    elif _mixes_sequences(encoder, batch):
        reason = "the tokens of one change the hidden states of another, whatever `sequence_ids` say"
    else:
        return
    raise ValueError(
        f"The batches are packed, but the encoder does not keep the sequences of a row apart: {reason}. "
        "Build the generator with pack=False (`buckets` of labelled_generator save padding too), or let the "
        "encoder heed `sequence_ids`."
    )


def labelled_tasks(batch: SentenceBatch, tasks: Iterable[TaskMetadata]) -> list[TaskMetadata]:
    """Return those of the tasks that the batch has an entry for."""
    return [
        task
        for task in tasks
        if task.name in (batch.token_classification if task.is_token_level else batch.sentence_classification)
    ]


def _check_sequences(batch: SentenceBatch, where: str) -> None:
    """Check what only packed batches have."""
    shape = batch.tokens.shape
    for name, ids in (("sequence_ids", batch.sequence_ids), ("position_ids", batch.position_ids)):
        if ids is None:
            continue
        if ids.shape != shape or ids.dtype.kind not in "iu" or ids.min(initial=0) < 0:
            raise ValueError(
                f"{where}: `{name}` must be integers from 0 up of the shape {shape}, as the tokens. "
                f"Received: {ids.dtype} {ids.shape}, least {ids.min(initial=0)}"
            )
    ids, positions = batch.sequence_ids, batch.position_ids
    if ids is None or positions is None:
        return
    if ((ids > 0) != np.asarray(batch.padding_mask, bool)).any():
        raise ValueError(f"{where}: `sequence_ids` must be 0 at padding, and only there.")
    row, column = np.nonzero(ids)
    begins = batch.sequence_starts(int(ids.max(initial=0)))[row, ids[row, column] - 1]
    if (column - positions[row, column] != begins).any() or (begins < 0).any():
        raise ValueError(
            f"{where}: every sequence must be in one piece, and its `position_ids` must count from 0 at its "
            "first token. Leave `position_ids` out to have them made from `sequence_ids`."
        )


def _check_labels(labels: TaskDataBatch, task: TaskMetadata, batch: SentenceBatch, where: str) -> None:
    target, mask = (np.asarray(array) for array in labels)
    what = f"{where}: labels of task '{task.name}' ({task.kind})"
    shape = batch.tokens.shape
    expected: tuple[int | None, ...] = shape if task.is_token_level else shape[:1]
    if batch.is_packed and not task.is_token_level:
        expected = (shape[0], mask.shape[1] if mask.ndim == 2 else None)
    more = {"multi_label": (None,), "span": (2,)}.get(task.kind, ())
    if task.kind == "regression" and (task.num_classes > 1 or target.ndim > len(expected)):
        more = (task.num_classes,)
    fits = target.ndim == len((*expected, *more)) and all(
        size in (None, found) for size, found in zip((*expected, *more), target.shape, strict=True)
    )
    if not fits or mask.shape != expected:
        wanted = ", ".join("any" if size is None else str(size) for size in (*expected, *more))
        raise ValueError(
            f"{what} must have the shape ({wanted}) and a mask of the shape {expected}. "
            f"Received: target {target.shape}, target_mask {mask.shape}."
        )
    if target.dtype.kind not in ("iuf" if task.kind == "regression" else "iu"):
        raise ValueError(
            f"{what} must be {'numbers' if task.kind == 'regression' else 'integers'}. "
            f"Received: {target.dtype}. Is the task's `kind` right?"
        )
    is_labelled = mask.astype(bool) if task.is_token_level else mask >= 0
    used = target[is_labelled]
    if task.kind == "classification":
        _check_range(what, used, task.num_classes, "the task has", "classes")
    elif task.kind == "multi_label":
        _check_range(what, used[used != -1], task.num_classes, "the task has", "classes")
        ordered = np.sort(used, axis=-1)
        if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
            raise ValueError(f"{what} name a class twice. Give each label a set of different classes.")
    elif task.kind == "span":
        _check_range(what, used, shape[1], "rows have", "tokens")
    elif not np.isfinite(used).all():
        raise ValueError(f"{what} must be finite.")
    if not task.is_token_level:
        _check_range(f"{what}: their positions", mask[mask >= 0], shape[1], "rows have", "tokens")
        if batch.is_packed:
            _check_within_sequences(target, mask, task, batch, what)


def _check_within_sequences(
    target: np.ndarray, mask: np.ndarray, task: TaskMetadata, batch: SentenceBatch, what: str
) -> None:
    row, sequence = np.nonzero(mask >= 0)
    positions = mask[row, sequence][:, None]
    if task.kind == "span":
        positions = np.concatenate([positions, target[row, sequence]], axis=1)
    columns = positions + batch.sequence_starts(mask.shape[1])[row, sequence][:, None]
    ids = batch.sequence_ids
    if ids is None:
        return
    inside = columns < ids.shape[1]
    inside &= ids[row[:, None], np.minimum(columns, ids.shape[1] - 1)] == sequence[:, None] + 1
    if not inside.all():
        wrong = int(np.flatnonzero(~inside.all(axis=1))[0])
        raise ValueError(
            f"{what}: positions count from the first token of their own sequence and must be within it. "
            f"Received: {positions[wrong].tolist()} for sequence {sequence[wrong] + 1} of row {row[wrong]}."
        )


def _check_range(what: str, ids: np.ndarray, limit: int | None, holder: str, unit: str) -> None:
    if limit is None or ids.size == 0:
        return
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= limit:
        raise ValueError(
            f"{what} must be from 0 to {limit - 1}, as {holder} {limit} {unit}. Received: {low} to {high}."
        )


def _has_next_token_labels(batch: SentenceBatch) -> bool:
    target, mask = batch.token_classification[LM_TASK]
    mask = np.asarray(mask, bool)[:, :-1]
    following = np.asarray(target)[:, :-1] == batch.tokens[:, 1:]
    unlike_own = (np.asarray(target) != batch.tokens)[:, :-1]
    return bool(mask.any() and following[mask].mean() > 0.99 and unlike_own[mask].any())


def _sees_future(encoder: keras.Model, batch: SentenceBatch) -> bool:
    length = int(min(8, batch.padding_mask.sum(1).max()))
    row = int(batch.padding_mask.sum(1).argmax())
    tokens = np.repeat(batch.tokens[row : row + 1, :length], 2, axis=0).astype("int32")
    others = batch.tokens[batch.tokens != tokens[1, -1]]
    if length < 2 or others.size == 0:
        return False
    tokens[1, -1] = others[0]
    arrays = {
        "token_ids": tokens,
        "segment_ids": np.zeros_like(tokens),
        "position_ids": np.tile(np.arange(length, dtype="int32"), (2, 1)),
        "sequence_ids": np.ones_like(tokens),
    }
    hidden = keras.ops.convert_to_numpy(
        keras.ops.cast(encoder(select_inputs(encoder, arrays), training=False), "float32")
    )
    return float(np.abs(hidden[0, :-1] - hidden[1, :-1]).max()) > 1e-5


def _mixes_sequences(encoder: keras.Model, batch: SentenceBatch) -> bool:
    """Change the tokens of each half of a row's sequences, and see whether the other half's states move."""
    ids = np.asarray(batch.sequence_ids)
    row = int(ids.max(axis=1).argmax())
    middle = (int(ids[row].max()) + 1) // 2
    if middle == 0 or ids[row].max() < 2:
        return False
    parts = [(ids[row] > 0) & (ids[row] <= middle), ids[row] > middle]
    tokens = np.repeat(batch.tokens[row : row + 1], 3, axis=0).astype("int32")
    for number, part in enumerate(parts, 1):
        tokens[number, part] = np.roll(tokens[0], 1)[part] if part.sum() > 1 else tokens[0, 0]
        if (tokens[number] == tokens[0]).all():
            tokens[number, part] = batch.tokens.max()
    arrays = {"token_ids": tokens}
    others = {"segment_ids": batch.segments, "position_ids": batch.position_ids, "sequence_ids": ids}
    for name, array in others.items():
        arrays[name] = np.repeat(np.asarray(array)[row : row + 1], 3, axis=0).astype("int32")
    hidden = encoder(select_inputs(encoder, arrays), training=False)
    hidden = keras.ops.convert_to_numpy(keras.ops.cast(hidden, "float32"))
    moved = [np.abs(hidden[k] - hidden[0]).max(-1) for k in (1, 2)]
    return bool(moved[0][parts[1]].max() > 1e-5 or moved[1][parts[0]].max() > 1e-5)


def _output_shape(encoder: keras.Model) -> tuple:
    try:
        return tuple(encoder.output_shape)
    except (AttributeError, NotImplementedError):
        return tuple(encoder(select_inputs(encoder, encoder_inputs())).shape)
