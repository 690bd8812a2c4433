"""SentencePiece behind the contract of text encoders: trained here, or loaded from any `.model`."""

import base64
import binascii
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from bert_keras.text.base import TextEncoder
from bert_keras.text.checks import check_texts
from bert_keras.text.files import Source, write_atomic
from bert_keras.text.sampling import sample_sentences

ModelType = Literal["unigram", "bpe", "char", "word"]

_NUM_THREADS = 4  # Part of the result: sums are split among so many threads, and rounded accordingly.
_SPACE = "\u2581"
_NUM_SPECIAL = 6
_CONTROL, _USER_DEFINED = 3, 4  # SentencePiece.Type of sentencepiece_model.proto

# What the special tokens are called here, and in the models of others.
_NAMES = {
    "pad": ("<pad>", "[PAD]"),
    "bos": ("<s>", "[CLS]", "<cls>", "<bos>", "[BOS]"),
    "eos": ("</s>", "[SEP]", "<sep>", "<eos>", "[EOS]"),
    "del": ("<del>", "[SEP]", "<sep>"),
    "msk": ("<msk>", "[MASK]", "<mask>"),
}


class SentencePieceTextEncoder(TextEncoder):
    """A SentencePiece model: the ids that the `sentencepiece` library gives, and nothing permuted.

    Special tokens are the control symbols of the model; those that it lacks are appended at the end, and
    `vocab_size` counts them. Control symbols are never found in text: a literal "<msk>" is not the mask.

    Args:
        model_file: a `.model` file, of any type (unigram, BPE, char, word).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a SentencePiece model.

    Example:
        >>> text_encoder = SentencePieceTextEncoder.train(["a bird in the hand"] * 9, vocab_size=17)
        >>> text_encoder.decode(text_encoder.encode("a hand in the bird"))
        'a hand in the bird'

    Source:
        https://github.com/google/sentencepiece; Kudo and Richardson, 2018, https://arxiv.org/abs/1808.06226.
    """

    kind = "SentencePieceTextEncoder"

    def __init__(self, model_file: str | Path) -> None:
        path = Path(model_file)
        if not path.is_file():
            raise FileNotFoundError(f"model_file: no file {str(path)!r}.")
        self._build(path.read_bytes(), f"model_file: {str(path)!r}")

    @classmethod
    def train(
        cls,
        source: Source,
        vocab_size: int = 8000,
        model_type: ModelType = "unigram",
        *,
        model_file: str | Path | None = None,
        character_coverage: float = 0.9995,
        lower_case: bool = False,
        byte_fallback: bool = False,
        max_sentences: int = 500_000,
        max_characters: int = 25_000_000,
        seed: int = 0,
    ) -> Self:
        """Trains a model. The same text gives the same model, byte by byte.

        Args:
            source: a file, a directory, several of them, or an iterable of lines. Files may be compressed
                with gzip.
            vocab_size: the number of pieces, the six special tokens included.
            model_type: "unigram", "bpe", "char" or "word".
            model_file: where to write the model, atomically; None to keep it in memory only.
            character_coverage: the share of the text's characters that get pieces of their own.
            lower_case: fold case (the others keep it).
            byte_fallback: spell characters without a piece as bytes, so that nothing is unknown. Needs 256
                pieces.
            max_sentences: train on a sample of at most so many lines (long lines count as several),
            max_characters: and of at most so many characters. Memory use is a small multiple of it.
            seed: decides the sample.

        Returns:
            The text encoder.

        Raises:
            ValueError: `vocab_size` is too large or too small for the text, or there is no text.
            FileNotFoundError: a file does not exist.

        Example:
            >>> text_encoder = SentencePieceTextEncoder.train(["a bird in the hand"] * 9, vocab_size=17)
            >>> text_encoder.encode("a bird") == text_encoder.encode("  a   bird ")
            True
        """
        if model_type not in get_args(ModelType):
            raise ValueError(f"model_type: expected one of {get_args(ModelType)}, got {model_type!r}.")
        if vocab_size <= _NUM_SPECIAL:
            raise ValueError(
                f"vocab_size: expected more than the {_NUM_SPECIAL} special tokens it counts, got "
                f"{vocab_size}."
            )
        if not 0 < character_coverage <= 1:
            raise ValueError(f"character_coverage: expected a share in (0, 1], got {character_coverage}.")
        sentences = sample_sentences(source, max_sentences, max_characters, seed)
        model = _train(
            sentences,
            vocab_size=vocab_size,
            model_type=model_type,
            character_coverage=character_coverage,
            normalization_rule_name="nmt_nfkc_cf" if lower_case else "nmt_nfkc",
            byte_fallback=byte_fallback,
        )
        text_encoder = cls.__new__(cls)
        text_encoder._build(model, "the trained model")
        if text_encoder.vocab_size < vocab_size:  # The trainer of characters does not say so itself.
            raise ValueError(_too_large(vocab_size, text_encoder.vocab_size))
        if model_file is not None:
            write_atomic(model_file, model)
        return text_encoder

    def _build(self, model: bytes, name: str) -> None:
        self._model = model
        self._processor = processor = _load(model, name)
        num_pieces = processor.get_piece_size()
        self._tokens = [processor.id_to_piece(i) for i in range(num_pieces)]
        own = [
            i
            for i in range(num_pieces)
            if processor.is_control(i) or processor.is_unknown(i) or processor.is_unused(i)
        ]
        control = {self._tokens[i]: i for i in own if processor.is_control(i)}
        self.unk_id = processor.unk_id()
        self.pad_id = self._special("pad", control, processor.pad_id())
        self.bos_id = self._special("bos", control, processor.bos_id())
        self.eos_id = self._special("eos", control, processor.eos_id())
        self.del_id = self._special("del", control)
        self.msk_id = self._special("msk", control)
        self._set_tokens(self._tokens)
        self.special_ids = frozenset((*own, *range(num_pieces, self.vocab_size)))
        self._suffixes = not any(token.startswith(_SPACE) for token in self._tokens if len(token) > 1)
        self._set_word_boundaries(
            (not self._suffixes and token.startswith(_SPACE) for token in self._tokens),
            (self._suffixes and token.endswith(_SPACE) for token in self._tokens),
        )

    def _special(self, role: str, control: dict[str, int], token_id: int = -1) -> int:
        """The id of a special token: the model's own, or a control symbol of a known name, or a new row."""
        if token_id >= 0:
            return token_id
        for name in _NAMES[role]:
            if name in control:
                return control[name]
        name = _NAMES[role][0]
        while name in self._tokens:
            if name in control:  # appended here before, under this name, and then written into the model
                return control[name]
            name = f"<{name}>"
        self._tokens.append(name)
        return len(self._tokens) - 1

    def encode(self, text: str) -> list[int]:
        try:
            if isinstance(text, str):
                return self._processor.encode(text, out_type=int)
        except (TypeError, UnicodeError, RuntimeError):
            check_texts([text], "text")
            raise
        return super().encode(text)

    def _encode_chunk(self, texts: Sequence[str]) -> list[list[int]]:
        return self._processor.encode(list(texts), out_type=int, num_threads=-1)

    def _surface(self, token_id: int) -> str | None:
        if token_id < self._processor.get_piece_size() and self._processor.is_byte(token_id):
            return None
        surface = super()._surface(token_id)
        return None if surface is None else surface.replace(_SPACE, "")

    def _decode(self, ids: list[int]) -> str:
        return self._processor.decode(ids)

    def _extended(self, words: list[str]) -> Self:
        """Appends pieces to the serialised model, which is what joining two protocol buffers does: first the
        special tokens that were appended here, so that ids stay."""
        appended = self._tokens[self._processor.get_piece_size() :]
        pieces = [(token, _CONTROL) for token in appended]
        forms = [f"{word}{_SPACE}" if self._suffixes else f"{_SPACE}{word}" for word in words]
        pieces += [(form, _USER_DEFINED) for form in forms]
        text_encoder = type(self).__new__(type(self))
        model = self._model + b"".join(_serialised(*piece) for piece in pieces)
        text_encoder._build(model, "the extended model")
        return text_encoder

    def save_model(self, model_file: str | Path) -> None:
        """Writes the bare `.model`, atomically, for other tools (appended tokens are not in it)."""
        write_atomic(model_file, self._model)

    def get_state(self) -> dict[str, Any]:
        return {"model": base64.b64encode(self._model).decode("ascii")}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        try:
            model = base64.b64decode(state["model"], validate=True)
        except (KeyError, TypeError, binascii.Error) as error:
            raise ValueError("expected a state with 'model' in base64; the saved file is damaged.") from error
        text_encoder = cls.__new__(cls)
        text_encoder._build(model, "the saved model")
        return text_encoder


def _load(model: bytes, name: str) -> SentencePieceProcessor:
    processor = SentencePieceProcessor()
    try:
        loaded = bool(model) and processor.LoadFromSerializedProto(model)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{name} is not a SentencePiece model, or it is damaged: {error}") from error
    if not loaded or processor.get_piece_size() == 0:
        raise ValueError(f"{name} is empty, expected a SentencePiece model ({len(model)} bytes read).")
    return processor


def _train(sentences: list[str], *, vocab_size: int, **options: Any) -> bytes:
    writer = io.BytesIO()
    lines: Iterator[str] = iter(sentences)
    try:
        SentencePieceTrainer.train(
            sentence_iterator=lines,
            model_writer=writer,
            vocab_size=vocab_size,
            pad_id=0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            pad_piece="<pad>",
            control_symbols="<del>,<msk>",
            num_threads=_NUM_THREADS,
            minloglevel=2,
            **options,
        )
    except (RuntimeError, ValueError, TypeError) as error:
        check_texts(sentences, "source")
        raise ValueError(_explain(str(error), vocab_size)) from error
    return writer.getvalue()


def _explain(message: str, vocab_size: int) -> str:
    if limit := re.search(r"too high.*?<= ?(\d+)", message, re.DOTALL):
        return _too_large(vocab_size, int(limit[1]))
    if limit := re.search(r"smaller than required_chars.*?\d+ vs (\d+)", message, re.DOTALL):
        return (
            f"vocab_size: expected at least {limit[1]} for the characters of this text, got {vocab_size}. "
            "Raise it, or lower character_coverage."
        )
    return f"SentencePiece could not train with vocab_size={vocab_size}: {message}"


def _too_large(vocab_size: int, limit: int) -> str:
    return (
        f"vocab_size: expected at most {limit} for this text, got {vocab_size}. Lower it, or train on more "
        "text."
    )


def _serialised(piece: str, kind: int) -> bytes:
    """One more entry of `ModelProto.pieces` (field 1): a text (1), a score (2, absent: 0) and a type (3)."""
    text = piece.encode()
    entry = b"\x0a" + _varint(len(text)) + text + b"\x18" + _varint(kind)
    return b"\x0a" + _varint(len(entry)) + entry


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
