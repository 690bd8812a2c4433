"""ModernBERT's text encoder: byte-level BPE of normalised text, with tokens that are found as they stand."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from tokenizers import AddedToken, Tokenizer
from tokenizers.normalizers import NFC

from bert_keras.text.byte_level_encoder import ByteLevelBPETextEncoder
from bert_keras.text.offsets import Spans

_NORMALIZER = NFC()


class ModernBERTTextEncoder(ByteLevelBPETextEncoder):
    """The ids of ModernBERT: byte-pair encoding of the UTF-8 bytes of text in Unicode's normal form C.

    `[CLS]` starts, `[SEP]` ends and delimits, `[PAD]` pads, `[MASK]` masks; one that the vocabulary lacks is
    appended at its end. No text encodes to them: a literal "[MASK]" is spelled by bytes. Some tokens of the
    vocabulary, such as runs of spaces, are found in a text as they stand, before all else, the longest first.

    Use `load_text_encoder` for published files, or `from_vocabulary`.

    Args:
        vocab_file, merges_file, add_prefix_space: as in `ByteLevelBPETextEncoder`.

    Example:
        >>> text_encoder = load_text_encoder("ModernBERT-base")  # doctest: +SKIP
        >>> text_encoder.decode(text_encoder.encode("Ça va ?"))  # doctest: +SKIP
        'Ça va ?'

    Source:
        Warner et al., 2024; https://huggingface.co/answerdotai/ModernBERT-base (`tokenizer.json`).
    """

    kind = "ModernBERTTextEncoder"
    special_tokens: ClassVar[tuple[str, ...]] = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")
    _plain: tuple[str, ...] = ()

    @classmethod
    def from_vocabulary(
        cls,
        vocab: Sequence[str],
        merges: Sequence[str],
        add_prefix_space: bool = False,
        *,
        control_tokens: Sequence[str] = (),
        plain_tokens: Sequence[str] = (),
        words: Sequence[str] = (),
    ) -> Self:
        """A text encoder for pieces in the order of their ids. Errors are the constructor's.

        Args:
            vocab, merges, add_prefix_space: what the constructor reads.
            control_tokens: pieces of the vocabulary that no text encodes to, besides the five.
            plain_tokens: pieces of the vocabulary that are found in texts as they stand.
            words: further words with an id each, after all others.
        """
        if missing := [token for token in plain_tokens if not token or token not in vocab]:
            raise ValueError(f"plain_tokens: expected pieces of the vocabulary, got {missing[:5]}.")
        text_encoder = cls.__new__(cls)
        text_encoder._plain = tuple(plain_tokens)
        text_encoder._build(vocab, merges, add_prefix_space, control_tokens, words)
        blank = {text_encoder._ids[token] for token in plain_tokens if token.isspace()}
        text_encoder._begins[sorted(blank)] = text_encoder._ends[sorted(blank)] = True
        return text_encoder

    def _rust_tokenizer(self, tokens: Sequence[str], add_prefix_space: bool) -> Tokenizer:
        tokenizer = super()._rust_tokenizer(tokens, add_prefix_space)
        tokenizer.add_tokens([AddedToken(token, normalized=False) for token in self._plain])
        return tokenizer

    def _encode_chunk(self, texts: Sequence[str]) -> list[list[int]]:
        return super()._encode_chunk([_normal(text) for text in texts])

    def encode_batch_with_offsets(self, texts: Sequence[str]) -> list[tuple[list[int], Spans]]:
        normal = [_normal(text) for text in texts]
        found = super().encode_batch_with_offsets(normal)
        return [
            pair if text == plain else (pair[0], _in_original(text, pair[1]))
            for text, plain, pair in zip(texts, normal, found, strict=True)
        ]

    def _bytes(self, token_id: int) -> bytes:
        token = self._tokens[token_id]
        return token.encode() if token in self._plain else super()._bytes(token_id)

    def get_state(self) -> dict[str, Any]:
        state = super().get_state()
        return {**state, "plain_tokens": list(self._plain)} if self._plain else state

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        plain = state.get("plain_tokens", [])
        if not isinstance(plain, list) or not all(isinstance(token, str) for token in plain):
            raise ValueError("expected a state with a list 'plain_tokens'; the saved file is damaged.")
        text_encoder = super().from_state(state)
        return text_encoder._again(plain, text_encoder._words) if plain else text_encoder

    def _extended(self, words: list[str]) -> Self:
        return self._again(self._plain, [*self._words, *words])

    def _again(self, plain_tokens: Sequence[str], words: Sequence[str]) -> Self:
        return self.from_vocabulary(
            self._vocab,
            self._merges,
            self.add_prefix_space,
            control_tokens=self._control,
            plain_tokens=plain_tokens,
            words=words,
        )


def _normal(text: str) -> str:
    if text.isascii():
        return text
    normal: str = _NORMALIZER.normalize_str(text)
    return normal


def _in_original(text: str, spans: Spans) -> Spans:
    """Spans of the normalised text as spans of the text: each character has those that it was made of."""
    origins: list[tuple[int, int]] = []  # by normalised character
    start = 0
    for place in range(1, len(text) + 1):
        if place < len(text) and _joins(text[start:place], text[place]):
            continue
        origins += [(start, place)] * len(_normal(text[start:place]))
        start = place
    origins.append((len(text), len(text)))
    return [(origins[a][0], origins[b - 1][1] if a < b else origins[a][0]) for a, b in spans]


def _joins(before: str, character: str) -> bool:
    """Whether a character and those before it are normalised otherwise together than apart."""
    if character.isascii():
        return False
    apart = _normal(before) + _normal(character)
    return unicodedata.combining(character) != 0 or _normal(before + character) != apart
