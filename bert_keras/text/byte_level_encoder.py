"""Byte-level BPE, as in GPT-2 and RoBERTa, by the Rust `tokenizers` library."""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Self

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from bert_keras.text.base import TextEncoder
from bert_keras.text.checks import check_texts
from bert_keras.text.files import read_json, read_lines
from bert_keras.text.offsets import Spans, byte_spans

_WHITE_SPACE = r"[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
_PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that are written as themselves
_BYTE_OF = {chr(byte): byte for byte in _PRINTED}
_BYTE_OF |= {chr(256 + i): byte for i, byte in enumerate(b for b in range(256) if b not in _PRINTED)}
_SPACES = tuple(chr(256 + byte) for byte in range(33))  # bytes 0 to 32, as this scheme writes them


class ByteLevelBPETextEncoder(TextEncoder):
    """The ids of RoBERTa: byte-pair encoding of UTF-8 bytes, so that nothing is unknown (`<unk>` stands for
    bytes that a vocabulary lacks; published ones have all).

    `<s>` starts, `</s>` ends and delimits (`eos_id` and `del_id` are the same), `<pad>` pads and `<mask>`
    masks; one that the vocabulary lacks is appended at its end. No text encodes to them: a literal "<mask>"
    is spelled by bytes. A word within a text carries the space before it: `encode_words` puts one before
    every word but the first.

    Args:
        vocab_file: `vocab.json`: pieces and their ids.
        merges_file: `merges.txt`: pairs of pieces, the first to merge first; a line with `#version` may
            precede.
        add_prefix_space: treat the first word of a text as if a space stood before it.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file is damaged, or the two do not belong together.

    Example:
        >>> text_encoder = ByteLevelBPETextEncoder("vocab.json", "merges.txt")  # doctest: +SKIP
        >>> text_encoder.decode(text_encoder.encode("Ça va ?"))  # doctest: +SKIP
        'Ça va ?'

    Source:
        Radford et al., 2019 (GPT-2; https://github.com/openai/gpt-2, `encoder.py`); Liu et al., 2019
        (RoBERTa).
    """

    kind = "ByteLevelBPETextEncoder"
    special_tokens: ClassVar[tuple[str, ...]] = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")

    def __init__(
        self, vocab_file: str | Path, merges_file: str | Path, *, add_prefix_space: bool = False
    ) -> None:
        vocab = read_vocab_json(Path(vocab_file), "vocab_file")
        self._build(vocab, read_merges(Path(merges_file), "merges_file"), add_prefix_space)

    @classmethod
    def from_vocabulary(
        cls,
        vocab: Sequence[str],
        merges: Sequence[str],
        add_prefix_space: bool = False,
        *,
        control_tokens: Sequence[str] = (),
        words: Sequence[str] = (),
    ) -> Self:
        """A text encoder for pieces in the order of their ids. Errors are the constructor's.

        Args:
            vocab, merges, add_prefix_space: what the constructor reads.
            control_tokens: pieces of the vocabulary that no text encodes to, besides RoBERTa's own.
            words: further words with an id each, after all others.
        """
        text_encoder = cls.__new__(cls)
        text_encoder._build(vocab, merges, add_prefix_space, control_tokens, words)
        return text_encoder

    def _build(
        self,
        vocab: Sequence[str],
        merges: Sequence[str],
        add_prefix_space: bool,
        control_tokens: Sequence[str] = (),
        words: Sequence[str] = (),
    ) -> None:
        check_merges(vocab, merges, "merges_file")
        if missing := [token for token in control_tokens if token not in vocab]:
            raise ValueError(f"control_tokens: expected pieces of the vocabulary, got {missing[:5]}.")
        self._vocab, self._merges, self._words = list(vocab), list(merges), list(words)
        self._control, self.add_prefix_space = list(control_tokens), add_prefix_space
        own = [*vocab, *(token for token in self.special_tokens if token not in vocab)]
        self._word_ids = {word: len(own) + i for i, word in enumerate(words)}
        self._set_tokens([*own, *(f"{_SPACES[32]}{word}" for word in words)])
        self.bos_id, self.pad_id, self.eos_id, self.unk_id, self.msk_id = (
            self._ids[token] for token in self.special_tokens
        )
        self.del_id = self.eos_id
        named = (i for i, token in enumerate(own) if token.startswith("<|") and token.endswith("|>"))
        controls = (self._ids[token] for token in (*self.special_tokens, *control_tokens))
        self.special_ids = frozenset((*controls, *named))
        self._set_word_boundaries(token.startswith(_SPACES) for token in self._tokens)
        self._rust = self._rust_tokenizer(own, add_prefix_space)
        self._rust_parts = self._rust_tokenizer(own, False)
        self._word = _word_pattern(words)
        self._decoder = ByteLevelDecoder()

    def _rust_tokenizer(self, tokens: Sequence[str], add_prefix_space: bool) -> Tokenizer:
        return rust_byte_level(tokens, self._merges, add_prefix_space, self.special_tokens[3])

    def _encode_chunk(self, texts: Sequence[str]) -> list[list[int]]:
        if self._word is None:
            return _rust_ids(self._rust, texts)
        cuts = {i: cut for i, text in enumerate(texts) if len(cut := list(self._cut(text))) > 1}
        results = _rust_ids(self._rust, ["" if i in cuts else text for i, text in enumerate(texts)])
        parts = [(i, text) for i, cut in cuts.items() for text, _ in cut]
        words = [word for cut in cuts.values() for _, word in cut]
        encoded = _rust_ids(self._rust_parts, [text for _, text in parts])
        for (i, _), ids, word in zip(parts, encoded, words, strict=True):
            results[i] += [*ids, self._word_ids[word]] if word else ids
        return results

    def _cut(self, text: str) -> Iterator[tuple[str, str]]:
        """What stands before each further word, and the word; at the end what remains, and no word.

        White space before a word is a part of its own, as it would be for any word, so that the rest of the
        text is spelled as if nothing had been cut; a single space belongs to the word.
        """
        if self._word is None:
            return
        if self.add_prefix_space and not text.startswith(" "):
            text = f" {text}"
        start = 0
        for match in self._word.finditer(text):
            if unicodedata.category(text[match.end() : match.end() + 1] or " ").startswith("M"):
                continue  # A combining mark belongs to the word, which is another one.
            space, word = match.groups()
            if space in ("", " "):
                yield text[start : match.start()], word
            else:
                yield text[start : match.start()], ""
                yield space, word
            start = match.end()
        yield text[start:], ""

    def encode_words(self, words: Sequence[str]) -> tuple[list[int], list[int]]:
        """`TextEncoder.encode_words`, each word but the first with a space before it."""
        check_texts(words)
        spaced = [f" {word}" if i else word for i, word in enumerate(words)]
        pieces = self.encode_batch([word if word.strip() else "" for word in spaced])
        return list(chain.from_iterable(pieces)), [i for i, piece in enumerate(pieces) for _ in piece]

    def encode_batch_with_offsets(self, texts: Sequence[str]) -> list[tuple[list[int], Spans]]:
        return [
            (ids, byte_spans(text, [self._bytes(i) for i in ids]))
            for text, ids in zip(texts, self.encode_batch(texts), strict=True)
        ]

    def _bytes(self, token_id: int) -> bytes:
        """What a piece stands for: nothing is normalised here."""
        if token_id >= self.vocab_size - len(self._words):
            return f" {self._tokens[token_id][1:]}".encode()
        return bytes(_BYTE_OF[character] for character in self._tokens[token_id])

    def _decode(self, ids: list[int]) -> str:
        text: str = self._decoder.decode([self._tokens[i] for i in ids])
        is_word = bool(ids) and ids[0] >= self.vocab_size - len(self._words)
        return text.removeprefix(" ") if self.add_prefix_space or is_word else text

    def get_state(self) -> dict[str, Any]:
        state = {
            "vocab": self._vocab,
            "merges": self._merges,
            "add_prefix_space": self.add_prefix_space,
            "words": self._words,
        }
        if self._control:
            state["control_tokens"] = self._control
        return state

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        parts = [state.get(name) for name in ("vocab", "merges", "words")]
        control, prefix = state.get("control_tokens", []), state.get("add_prefix_space")
        if not all(isinstance(part, list) for part in (*parts, control)) or not isinstance(prefix, bool):
            raise ValueError(
                "expected a state with lists 'vocab', 'merges' and 'words'; the saved file is damaged."
            )
        vocab, merges, words = (list(part or []) for part in parts)
        return cls.from_vocabulary(vocab, merges, prefix, control_tokens=control, words=words)

    def _extended(self, words: list[str]) -> Self:
        return self.from_vocabulary(
            self._vocab,
            self._merges,
            self.add_prefix_space,
            control_tokens=self._control,
            words=[*self._words, *words],
        )


def rust_byte_level(
    vocab: Sequence[str], merges: Sequence[str], add_prefix_space: bool, unk_token: str = "<unk>"
) -> Tokenizer:
    """The tokenizer of the library, without special tokens."""
    tokenizer = Tokenizer(
        BPE(
            vocab={token: i for i, token in enumerate(vocab)},
            merges=[(first, second) for first, second in (merge.split(" ") for merge in merges)],
            unk_token=unk_token,  # Otherwise a byte that the vocabulary lacks would vanish.
        )
    )
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=add_prefix_space, use_regex=True)
    tokenizer.decoder = ByteLevelDecoder()
    return tokenizer


def _rust_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def _word_pattern(words: Sequence[str]) -> re.Pattern[str] | None:
    """Finds whole words, the longest first, with a white space before them if there is one."""
    if not words:
        return None
    longest_first = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    return re.compile(rf"({_WHITE_SPACE}?)(?<!\w)({longest_first})(?!\w)")


def read_vocab_json(path: Path, argument: str) -> list[str]:
    """The pieces of a `vocab.json` in the order of their ids.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON object that gives pieces the ids from 0 without gaps.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{argument}: no file {str(path)!r}.")
    return pieces_in_order(read_json(path), f"{argument}: {str(path)!r}")


def pieces_in_order(vocab: Any, where: str) -> list[str]:
    """The keys of a mapping from pieces to the ids 0, 1, ..., in that order; ValueError if it is none."""
    if isinstance(vocab, Mapping) and all(type(token_id) is int for token_id in vocab.values()):
        tokens = sorted(vocab, key=vocab.__getitem__)
        if [vocab[token] for token in tokens] == list(range(len(tokens))) and tokens:
            return tokens
    raise ValueError(f"{where}: expected an object that gives pieces the ids from 0 without gaps.")


def read_merges(path: Path, argument: str) -> list[str]:
    """The lines of a `merges.txt` without its line for the version.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{argument}: no file {str(path)!r}.")
    lines = list(read_lines(path))
    return [
        line for i, line in enumerate(lines) if line.strip() and not (i == 0 and line.startswith("#version"))
    ]


def check_merges(vocab: Sequence[Any], merges: Sequence[Any], argument: str) -> None:
    """Finds merges that the vocabulary does not have the pieces for; ValueError says which."""
    if not all(isinstance(token, str) for token in vocab):
        raise ValueError("vocab_file: expected pieces to be strings.")
    known = set(vocab)
    if len(known) < len(vocab):
        raise ValueError("vocab_file: expected every piece once; some come twice.")
    for number, merge in enumerate(merges, 1):
        pieces = merge.split(" ") if isinstance(merge, str) else []
        if len(pieces) != 2 or not all(piece in known for piece in (*pieces, "".join(pieces))):
            raise ValueError(
                f"{argument}: merge {number} is {merge!r}, expected two pieces of the vocabulary that are "
                "one piece together. Do the two files belong together, and are they whole?"
            )
