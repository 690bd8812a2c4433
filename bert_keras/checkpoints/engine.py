"""Applies conversion tables, strictly: every variable from one place, every array to one, shapes equal."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from bert_keras.checkpoints.sources import ArrayInfo, ArraySource
from bert_keras.checkpoints.table import Head, Row, Table
from bert_keras.encoders.config import TransformerConfig
from bert_keras.encoders.layers import InitialValues

_FLOATS = ("float64", "float32", "float16", "bfloat16")
_MAX_FAULTS = 40  # a message that names more is no clearer
Shapes = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Match:
    """Where everything in a checkpoint goes.

    Attributes:
        rows: the encoder's variables that are read: the row with the names as they are in the file, by path.
        heads: the same for each head that came along.
        copies: arrays that have to equal another one, and which, as they are named in the file.
        ignored: arrays that are not used, and why.
        fresh: variables, or rows of them, that the checkpoint does not give, and what is known of them.
    """

    rows: Mapping[str, Row]
    heads: Mapping[str, Mapping[str, Row]]
    copies: Mapping[str, str]
    ignored: Mapping[str, str]
    fresh: Mapping[str, str]


def match(
    table: Table,
    published: TransformerConfig,
    config: TransformerConfig,
    arrays: Mapping[str, ArrayInfo],
    where: str,
) -> Match:
    """Find out where every array goes.

    Args:
        table: of the format.
        published: what the checkpoint says of itself; its arrays must be exactly of this form.
        config: the encoder that is to be filled, which may have fewer positions, more rows of tokens, and
            variables that the table calls fresh.
        arrays: what the checkpoint has.
        where: its place, for messages.

    Raises:
        ValueError: naming every array that is missing, unknown, or of another shape or dtype.
    """
    if published.num_layers > len(arrays):
        raise ValueError(
            f"{where}: its configuration says {published.num_layers} layers, but there are only "
            f"{len(arrays)} arrays."
        )
    faults: list[str] = []
    names = _canonical_names(table, published, arrays, faults)
    shapes = published.variable_shapes()
    wanted = {row.target: row for row in table.rows_for(published.num_layers) if row.target in shapes}
    fresh = _fresh(table, shapes, config.variable_shapes())
    faults += [
        f"the format {table.name!r} has nothing for our variable {path} {shape}"
        for path, shape in {**shapes, **config.variable_shapes()}.items()
        if path not in wanted and path not in fresh
    ]
    used: set[str] = set()
    for path, row in wanted.items():
        _check_row(row, shapes[path], names, arrays, faults)
        used.update(row.sources)
    heads, ignored = _match_heads(table, published, names, arrays, faults, used)
    used.update(table.copies)
    copies = {
        names[copy]: names[original]
        for copy, original in table.copies.items()
        if copy in names and original in names
    }
    faults += [
        f"{copy} should repeat {original}, but its shape differs"
        for copy, original in copies.items()
        if arrays[copy].shape != arrays[original].shape
    ]
    for name, actual in names.items():
        reason = ignored_because(table, name)
        if reason is not None:
            ignored[actual] = reason
        elif name not in used and actual not in ignored:
            faults.append(f"{actual} {arrays[actual].shape}: has no place in this encoder")
    if faults:
        more = f"\n  and {len(faults) - _MAX_FAULTS} more" if len(faults) > _MAX_FAULTS else ""
        raise ValueError(
            f"{where} does not fit the format {table.name!r} and its configuration; nothing was loaded. "
            f"{len(faults)} faults:\n  " + "\n  ".join(faults[:_MAX_FAULTS]) + more
        )

    def with_actual_names(row: Row) -> Row:
        return dataclasses.replace(row, sources=tuple(names[source] for source in row.sources))

    return Match(
        {path: with_actual_names(row) for path, row in wanted.items()},
        {name: {row.target: with_actual_names(row) for row in rows} for name, rows in heads.items()},
        copies,
        ignored,
        fresh,
    )


def ignored_because(table: Table, name: str) -> str | None:
    """Return the reason why an array is of no use, or None."""
    for pattern, reason in table.ignored.items():
        if re.fullmatch(pattern, name):
            return reason
    return None


def _canonical_names(
    table: Table, config: TransformerConfig, arrays: Mapping[str, ArrayInfo], faults: list[str]
) -> dict[str, str]:
    """Return the file's names by those that the table uses."""
    known = {source for row in table.rows_for(config.num_layers) for source in row.sources}
    known |= {source for head in table.heads for row in head.rows for source in row.sources}
    known |= set(table.copies)
    has_prefix = any(name.startswith(table.prefix) for name in arrays)
    names: dict[str, str] = {}
    for actual in arrays:
        name = actual
        for old, new in table.spellings.items():
            if name.endswith(old):
                name = name.removesuffix(old) + new
        candidates = [name] if has_prefix else [name, table.prefix + name]
        for candidate in candidates:
            if candidate in known or ignored_because(table, candidate) is not None:
                name = candidate
                break
        if name in names:
            faults.append(f"{names[name]} and {actual} are two spellings of one array")
        names[name] = actual
    return names


def _check_row(
    row: Row,
    shape: tuple[int, ...],
    names: Mapping[str, str],
    arrays: Mapping[str, ArrayInfo],
    faults: list[str],
) -> None:
    expected = row.transform.source_shape(shape)
    for source in row.sources:
        if source not in names:
            faults.append(f"{source} {expected}: missing")
            continue
        info = arrays[names[source]]
        if info.dtype not in _FLOATS:
            faults.append(f"{names[source]}: has dtype {info.dtype}, expected a floating one")
        if info.shape != expected:
            faults.append(f"{names[source]}: has shape {info.shape}, expected {expected}")


def _fresh(table: Table, published: Shapes, shapes: Shapes) -> dict[str, str]:
    """Return what of the encoder's variables the checkpoint cannot give."""
    fresh = {path: reason for path, reason in table.fresh.items() if path in shapes}
    for path, shape in shapes.items():
        if path in published and shape[0] > published[path][0]:
            fresh[path] = f"rows {published[path][0]} to {shape[0] - 1}"
    return fresh


def _match_heads(
    table: Table,
    config: TransformerConfig,
    names: Mapping[str, str],
    arrays: Mapping[str, ArrayInfo],
    faults: list[str],
    used: set[str],
) -> tuple[dict[str, tuple[Row, ...]], dict[str, str]]:
    heads: dict[str, tuple[Row, ...]] = {}
    ignored: dict[str, str] = {}
    for head in table.heads:
        sources = [source for row in head.rows for source in row.sources]
        found = [source for source in sources if source in names and source not in used]
        if not found or (head.sign is not None and head.sign not in names):
            continue
        if head.name in heads:
            ignored |= {names[source]: f"a second head {head.name!r}" for source in found}
            continue
        bias = names.get(head.rows[-1].sources[0])
        shapes = head_shapes(head.name, config, arrays[bias].shape[0] if bias else 0)
        for row in head.rows:
            _check_row(row, shapes[row.target], names, arrays, faults)
        used.update(sources)
        heads[head.name] = head.rows
    return heads, ignored


def head_shapes(name: str, config: TransformerConfig, num_classes: int) -> Shapes:
    """Return the shapes of a head's variables by their paths within it.

    Args:
        name: `"pooler"`, `"lm"`, `"is_next"` or `"classifier"`.
        config: of the encoder.
        num_classes: of a classifier.
    """
    width, narrow = config.embedding_dim, config.token_embedding_dim
    if name == "pooler":
        norm = config.norm_shapes("norm", width) if config.pooler_norm else {}
        return {"kernel": (width, width), **({"bias": (width,)} if config.use_bias else {}), **norm}
    if name == "lm":
        return {
            **config.dense_shapes("transform", width, narrow),
            **config.norm_shapes("norm", narrow),
            "bias": (config.vocab_size,),
        }
    num_classes = 2 if name == "is_next" else num_classes
    return {"classifier/kernel": (width, num_classes), "classifier/bias": (num_classes,)}


def read_row(row: Row, source: ArraySource) -> np.ndarray:
    """Read what a variable comes from and bring it into our layout.

    Raises:
        ValueError: if a number in it is not finite.
    """
    arrays = [source.read(name) for name in row.sources]
    for name, array in zip(row.sources, arrays, strict=True):
        # minimum and maximum pass NaN on, and need no second array
        if array.size and not (math.isfinite(array.min()) and math.isfinite(array.max())):
            raise ValueError(
                f"{source} holds numbers that are not finite (NaN or infinity) in {name}. The file is "
                "damaged, or its training diverged."
            )
    return row.transform.forward(arrays)


class LoadedValues(InitialValues):
    """Initial values of an encoder read from a checkpoint, each when its variable is made: nothing is drawn
    at random to be overwritten, and no array is held twice.

    Args:
        config: of the encoder.
        found: where everything is.
        source: what it is read from.
    """

    def __init__(self, config: TransformerConfig, found: Match, source: ArraySource) -> None:
        super().__init__(config)
        self._found, self._source = found, source

    def matrix(self, path: str) -> Any:
        return self._loaded(path, super().matrix(path))

    def zeros(self, path: str) -> Any:
        return self._loaded(path, super().zeros(path))

    def ones(self, path: str) -> Any:
        return self._loaded(path, super().ones(path))

    def _loaded(self, path: str, default: Any) -> Callable[..., Any] | str:
        if path not in self._found.rows:
            return "zeros" if path in self._found.fresh else default
        row = self._found.rows[path]

        def initializer(shape: Sequence[int], dtype: Any = None) -> Any:
            array = read_row(row, self._source)[: shape[0]]
            if array.shape[0] < shape[0]:
                rest = default((shape[0] - array.shape[0], *shape[1:]), dtype="float32")
                array = np.concatenate([array, keras.ops.convert_to_numpy(rest)])
            return handed_over(array)

        return initializer


def handed_over(array: np.ndarray) -> Any:
    """Return a copy of an array that the backend takes over as it is, instead of copying it once more.

    Its memory begins at a multiple of 64 bytes, which JAX asks for. TensorFlow copies NumPy arrays all the
    same, twice at the peak, but not what comes by DLPack.
    """
    memory = np.empty(array.nbytes + 64, "uint8")
    start = -memory.ctypes.data % 64
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    np.copyto(copy, array)
    if keras.backend.backend() != "tensorflow":
        return copy
    import tensorflow

    return tensorflow.experimental.dlpack.from_dlpack(copy.__dlpack__())


def check_copies(found: Match, source: ArraySource) -> None:
    """Check that arrays which should repeat others do so.

    Raises:
        ValueError: if one differs: its decoder is not tied to the embedding, and ours always is.
    """
    for copy, original in found.copies.items():
        if not np.array_equal(source.read(copy), source.read(original)):
            raise ValueError(
                f"{source}: {copy} differs from {original}. Its decoder is not tied to the embedding, which "
                "this encoder cannot express."
            )


def export_arrays(
    table: Table, num_layers: int, variables: Mapping[str, np.ndarray], heads: Sequence[Head]
) -> Iterator[tuple[str, np.ndarray]]:
    """Give all arrays of a format from our variables: the reverse of loading.

    Args:
        table: of the format.
        num_layers: of the encoder.
        variables: values by path; those of heads as `head/path`.
        heads: the heads to write.
    """
    rows = [row for row in table.rows_for(num_layers) if row.target in variables]
    rows += [
        dataclasses.replace(row, target=f"{head.name}/{row.target}") for head in heads for row in head.rows
    ]
    for row in rows:
        parts = row.transform.backward(variables[row.target])
        for name, part in zip(row.sources, parts, strict=True):
            yield name, np.ascontiguousarray(part)
