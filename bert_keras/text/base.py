"""The contract that every text encoder keeps: text in, ids out, and back."""

import abc
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from bert_keras.text.checks import check_text, check_texts
from bert_keras.text.chunks import CHUNK_CHARACTERS, concatenate_flat, join_ids, text_chunks
from bert_keras.text.files import read_json_object, write_atomic
from bert_keras.text.offsets import Spans, align_parts, chunk_spans

FILE_NAME = "text_encoder.json"
_FORMAT = 1
_T = TypeVar("_T")


class TextEncoder(abc.ABC):
    """Turns text into ids of a fixed vocabulary and back.

    Subclasses provide the tokenisation and their state; saving, pickling, fingerprints, decoding and word
    boundaries are the same for all and live here.

    Attributes:
        vocab_size: the number of ids, special tokens included; ids are 0 to `vocab_size - 1`.
        pad_id, unk_id, bos_id, eos_id, del_id, msk_id: the ids of padding, unknown, start, end, delimiter and
            mask.
        special_ids: those six and all other control ids. They are never masked, predicted or drawn at random,
            and no text encodes to them (save `unk_id`, for what the vocabulary cannot spell).

    Example:
        >>> from bert_keras.text import SentencePieceTextEncoder, TextEncoder
        >>> text_encoder = SentencePieceTextEncoder.train(["a bird in the hand"] * 9, vocab_size=17)
        >>> text_encoder.decode(text_encoder.encode("a hand in the bird"))
        'a hand in the bird'
        >>> text_encoder.save("my_text_encoder")
        >>> TextEncoder.load("my_text_encoder").fingerprint == text_encoder.fingerprint
        True
    """

    vocab_size: int
    pad_id: int
    unk_id: int
    bos_id: int
    eos_id: int
    del_id: int
    msk_id: int
    special_ids: frozenset[int]

    _tokens: list[str]  # the pieces by id
    _ids: dict[str, int]  # the reverse
    _begins: np.ndarray  # (vocab_size,) bool: the piece begins a word, whatever stands before it
    _ends: np.ndarray  # (vocab_size,) bool: whatever stands after the piece begins a word

    # What a subclass provides.

    kind: ClassVar[str]

    @abc.abstractmethod
    def _encode_chunk(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of a moderate amount of text, on all cores.

        May raise TypeError, AttributeError or UnicodeError for what is not a string or not Unicode text; the
        callers explain it.
        """

    @abc.abstractmethod
    def get_state(self) -> dict[str, Any]:
        """All that decides the ids, as JSON values: `from_state` builds an equal text encoder from it."""

    @classmethod
    @abc.abstractmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """A text encoder from what `get_state` returned; ValueError if it is not that."""

    @abc.abstractmethod
    def _decode(self, ids: list[int]) -> str:
        """Text for ids that are in range and not special."""

    def _extended(self, words: list[str]) -> Self:
        """A text encoder with these words as further pieces, at the end, in order; if the subclass can."""
        raise NotImplementedError(f"{type(self).__name__} has a vocabulary that cannot be extended.")

    # What all share.

    def encode(self, text: str) -> list[int]:
        """The ids of one text, without special tokens.

        Args:
            text: any text that can be written as UTF-8. The empty string has no ids.

        Raises:
            ValueError: the text holds a lone surrogate; the message names it and its position.
            TypeError: not a string.
        """
        return self.encode_batch([check_text(text)])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` for many texts at once, on all cores.

        Args:
            texts: the texts.

        Returns:
            A list of ids for each text.

        Raises:
            ValueError: a text holds a lone surrogate.
            TypeError: `texts` is one string, or one of them is not a string.
        """
        return list(chain.from_iterable(self._map_chunks(self._encode_chunk, texts)))

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """`encode_batch` into arrays: the fast path for corpora.

        Args:
            texts: the texts.

        Returns:
            The ids of all texts laid end to end, `(n,)` int32, and the number of ids of each text,
            `(len(texts),)` int64.

        Raises:
            ValueError: a text holds a lone surrogate.
            TypeError: `texts` is one string, or one of them is not a string.
        """
        return concatenate_flat(self._map_chunks(lambda chunk: join_ids(self._encode_chunk(chunk)), texts))

    def _map_chunks(self, function: Callable[[Sequence[str]], _T], texts: Sequence[str]) -> list[_T]:
        """Two chunks are under way at a time: Python collects ids while the library works on the next."""
        if isinstance(texts, str) or not {str}.issuperset(map(type, texts)):
            check_texts(texts)
        chunks = list(text_chunks(texts, CHUNK_CHARACTERS))
        executor = ThreadPoolExecutor(2)
        try:
            return list((map if len(chunks) < 2 else executor.map)(function, chunks))
        except (TypeError, AttributeError, UnicodeError):
            check_texts(texts)
            raise
        finally:
            executor.shutdown(cancel_futures=True)

    def encode_words(self, words: Sequence[str]) -> tuple[list[int], list[int]]:
        """The ids of a text that is already split into words, and the word that each id came from.

        Args:
            words: the words, encoded each on its own. A word may come to several ids or, if it is
                empty or nothing but white space, to none.

        Returns:
            The ids, and for each id the index of its word in `words`.

        Raises:
            ValueError: a word holds a lone surrogate.
            TypeError: `words` is one string, or one of them is not a string.
        """
        pieces = self.encode_batch(words)
        return list(chain.from_iterable(pieces)), [i for i, piece in enumerate(pieces) for _ in piece]

    def encode_with_offsets(self, text: str) -> tuple[list[int], Spans]:
        """`encode`, and for each id the characters that it stands for.

        Args:
            text: as in `encode`.

        Returns:
            The ids, and for each of them start and end in `text`: `text[start:end]` is the piece as it is
            written there, without white space around it. Starts never fall. Pieces of one character share its
            span; what no piece stands for (stripped marks, control characters) belongs to the one before.

        Raises:
            ValueError: the text holds a lone surrogate.
            TypeError: not a string.

        Example:
            >>> text_encoder.encode_with_offsets("Déjà vu")[1]  # doctest: +SKIP
            [(0, 4), (5, 7)]
        """
        return self.encode_batch_with_offsets([check_text(text)])[0]

    def encode_batch_with_offsets(self, texts: Sequence[str]) -> list[tuple[list[int], Spans]]:
        """`encode_with_offsets` for many texts. Errors are those of `encode_batch`."""
        all_ids = self.encode_batch(texts)
        parts = [chunk_spans(text) for text in texts]
        chunks = [text[a:b] for text, spans in zip(texts, parts, strict=True) for a, b in spans]
        ids_of_chunks = iter(self.encode_batch(chunks))
        results = []
        for text, ids, spans in zip(texts, all_ids, parts, strict=True):
            pieces = [next(ids_of_chunks) for _ in spans]
            if list(chain.from_iterable(pieces)) != ids:  # white space is not what separates here
                spans, pieces = [(0, len(text))], [ids]
            surfaces = [[self._surface(i) for i in some] for some in pieces]
            results.append((ids, align_parts(text, spans, surfaces)))
        return results

    def _surface(self, token_id: int) -> str | None:
        """What a piece says, without marks of its place in a word; None if unknown."""
        return None if token_id == self.unk_id else self._tokens[token_id]

    def decode(self, ids: Iterable[int]) -> str:
        """The text that the ids stand for, as near to the original as the vocabulary permits.

        Args:
            ids: a sequence or a one-dimensional array of ids. Special tokens are skipped.

        Raises:
            ValueError: an id is not in the vocabulary.
        """
        ids = [int(i) for i in ids]
        for i in ids:
            self._check_id(i)
        return self._decode([i for i in ids if i not in self.special_ids])

    def id_to_token(self, token_id: int) -> str:
        """The piece of the vocabulary that has this id; ValueError if there is none."""
        self._check_id(token_id)
        return self._tokens[token_id]

    def token_to_id(self, token: str) -> int:
        """The id of a piece of the vocabulary; ValueError if it has none."""
        if token not in self._ids:
            raise ValueError(
                f"token: {token!r} is not one of the {self.vocab_size} pieces of the vocabulary."
            )
        return self._ids[token]

    def starts_word(self, ids: np.ndarray) -> np.ndarray:
        """Where words begin.

        Args:
            ids: `(..., length)`, integer. Text runs along the last axis. A special token is a word of its
                own.

        Returns:
            Bool, of the same shape: True where a piece begins a word.

        Raises:
            ValueError: an id is not in the vocabulary.
        """
        ids = np.asarray(ids)
        if ids.size and not 0 <= ids.min() <= ids.max() < self.vocab_size:
            raise ValueError(
                f"ids: expected ids from 0 to {self.vocab_size - 1}, got {ids.min()} to {ids.max()}. Do "
                "these ids come from another text encoder?"
            )
        starts = self._begins[ids]
        starts[..., :1] = True
        starts[..., 1:] |= self._ends[ids[..., :-1]]
        return starts

    def extended(self, words: Iterable[str]) -> Self:
        """A text encoder that spells further words with an id each; all ids up to now stay what they are.

        Args:
            words: whole words, or one, without white space, in the form into which this text encoder brings
                text (lower case, if it lower-cases; split as it splits).

        Returns:
            A new text encoder: `words[i]`, wherever it stands as a word of a text, is `vocab_size + i`. In a
            WordPiece or SentencePiece vocabulary longer words that begin with it may be spelled with it too.

        Raises:
            ValueError: naming all words that repeat, are one piece already, have white space, or would not be
                found in a text.
            TypeError: one is not a string.

        Example:
            >>> longer = text_encoder.extended(["cytokine"])  # doctest: +SKIP
            >>> longer.encode("a cytokine")[-1] == text_encoder.vocab_size  # doctest: +SKIP
            True
        """
        words = [words] if isinstance(words, str) else list(words)
        check_texts(words, "words")
        faults = [f"{word!r} is no single word" for word in words if len(word.split()) != 1]
        faults += [f"{word!r} comes twice" for word in sorted({w for w in words if words.count(w) > 1})]
        before = dict(zip(words, map(self.encode_word, words), strict=True))
        faults += [
            f"{word!r} is one piece already, {ids[0]}"
            for word, ids in before.items()
            if len(ids) == 1 and ids[0] != self.unk_id
        ]
        if not words:
            faults = ["there are none"]
        if not faults:
            text_encoder = self._extended(words)
            faults = [
                f"{word!r} would be spelled {found}; give the form into which the text encoder brings text"
                for i, word in enumerate(words)
                if (found := text_encoder.encode_word(word)) != [self.vocab_size + i]
            ]
        if faults:
            raise ValueError("words: " + "; ".join(faults) + ".")
        return text_encoder

    def encode_word(self, word: str) -> list[int]:
        """The ids of a word as it stands behind others in a text. Errors are those of `encode_words`."""
        ids, word_of = self.encode_words(["a", word])
        return [token_id for token_id, number in zip(ids, word_of, strict=True) if number == 1]

    @property
    def fingerprint(self) -> str:
        """A hash (64 hex digits) of all that decides the ids, the same in every process."""
        state = json.dumps([self.kind, self.get_state()], sort_keys=True)
        return hashlib.sha256(state.encode()).hexdigest()

    def save(self, directory: str | Path) -> None:
        """Writes the text encoder to `text_encoder.json` in a directory, which is made if need be.

        The file is written atomically: if a text encoder was there, it stays whole until the new one is.

        Args:
            directory: where to save.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        write_atomic(directory / FILE_NAME, self.saved_form())

    def saved_form(self) -> bytes:
        """The content of the file that `save` writes."""
        content = {"format": _FORMAT, "kind": self.kind, "state": self.get_state()}
        return json.dumps(content, ensure_ascii=False).encode()

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """The text encoder that `save` wrote to a directory: the same ids for every input.

        Args:
            directory: where it was saved. `TextEncoder.load` returns whichever kind is there; on a subclass,
                `load` returns that kind only.

        Raises:
            FileNotFoundError: there is no saved text encoder.
            ValueError: the file is damaged, or holds another kind of text encoder.
        """
        path = Path(directory) / FILE_NAME
        if not path.is_file():
            raise FileNotFoundError(
                f"directory: {str(directory)!r} holds no saved text encoder (no {FILE_NAME})."
            )
        kind, state = _read_saved(path)
        kinds = {subclass.kind: subclass for subclass in _concrete_subclasses(cls)}
        if kind not in kinds:
            raise ValueError(
                f"{str(path)!r} holds a text encoder of kind {kind!r}, expected one of {sorted(kinds)}."
            )
        return kinds[kind].from_state(state)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.get_state())

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: vocab_size={self.vocab_size}, fingerprint={self.fingerprint[:12]}>"

    def _check_id(self, token_id: int) -> None:
        if not 0 <= token_id < self.vocab_size:
            raise ValueError(
                f"expected an id from 0 to {self.vocab_size - 1}, got {token_id}. Does it come from another "
                "text encoder?"
            )

    def _set_tokens(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._ids = {token: i for i, token in enumerate(tokens)}
        self.vocab_size = len(tokens)

    def _set_word_boundaries(self, begins: Iterable[bool], ends: Iterable[bool] | None = None) -> None:
        """Fills the tables behind `starts_word`; a special token begins and ends a word."""
        special = sorted(self.special_ids)
        self._begins = np.fromiter(begins, bool, self.vocab_size)
        self._begins[special] = True
        no_ends = (False for _ in range(self.vocab_size))
        self._ends = np.fromiter(no_ends if ends is None else ends, bool, self.vocab_size)
        self._ends[special] = True


def _read_saved(path: Path) -> tuple[str, dict[str, Any]]:
    content = read_json_object(path)
    if not isinstance(content.get("state"), dict) or "kind" not in content:
        raise ValueError(f"{str(path)!r} is not a saved text encoder.")
    if content.get("format") != _FORMAT:
        raise ValueError(f"{str(path)!r} has format {content.get('format')!r}, expected {_FORMAT}.")
    return content["kind"], content["state"]


def _concrete_subclasses(cls: type[TextEncoder]) -> Iterator[type[Any]]:
    if "kind" in cls.__dict__:
        yield cls
    for subclass in cls.__subclasses__():
        yield from _concrete_subclasses(subclass)


def _restore(cls: type[TextEncoder], state: dict[str, Any]) -> TextEncoder:
    return cls.from_state(state)
