"""What a conversion table is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from bert_keras.checkpoints.transforms import Same, Transform


@dataclasses.dataclass(frozen=True)
class Row:
    """One variable of ours and the arrays it comes from.

    Attributes:
        target: path of the variable, within the encoder or within a head; `{layer}` stands for each layer.
        sources: names in the published format.
        transform: from the sources to the variable.
    """

    target: str
    sources: tuple[str, ...]
    transform: Transform = Same()

    def for_layer(self, layer: int) -> Row:
        """Return the row with the layer's number in its names."""
        return dataclasses.replace(
            self,
            target=self.target.replace("{layer}", str(layer)),
            sources=tuple(source.replace("{layer}", str(layer)) for source in self.sources),
        )


@dataclasses.dataclass(frozen=True)
class Head:
    """A head that may come with a checkpoint: all of its arrays, or none.

    Attributes:
        name: `"pooler"`, or the name of the task that takes it.
        rows: targets are paths within that head.
        sign: the array by which the head is known, where others of its arrays may belong to another head.
    """

    name: str
    rows: tuple[Row, ...]
    sign: str | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """All arrays of one published format.

    Attributes:
        name: of the format.
        rows: the encoder's.
        heads: heads that are read if they are there; of several with one name the first that is there.
        prefix: beginning of the encoder's source names, which all of them may lack.
        copies: sources that repeat another one, by name; they have to be equal to it.
        ignored: sources that are of no use here: pattern (regular expression) and reason.
        spellings: older endings of source names, and what stands here for them.
        fresh: variables that the format does not have but an encoder may add: path, and why they are zeros.
    """

    name: str
    rows: tuple[Row, ...]
    heads: tuple[Head, ...] = ()
    prefix: str = ""
    copies: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ignored: Mapping[str, str] = dataclasses.field(default_factory=dict)
    spellings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fresh: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def rows_for(self, num_layers: int) -> Iterator[Row]:
        """Give the encoder's rows, those of layers once for each of them."""
        for row in self.rows:
            if "{layer}" in row.target:
                yield from (row.for_layer(layer) for layer in range(num_layers))
            else:
                yield row
