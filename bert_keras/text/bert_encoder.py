"""BERT's text encoder: Google's basic tokenizer and WordPiece, by the Rust `tokenizers` library."""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Self

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer as RustNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, CharDelimiterSplit

from bert_keras.text.base import TextEncoder
from bert_keras.text.bert_normalizer import BertNormalizer
from bert_keras.text.checks import check_texts
from bert_keras.text.chunks import CHUNK_CHARACTERS, text_chunks
from bert_keras.text.files import Source, read_lines, write_atomic
from bert_keras.text.sampling import sample_sentences
from bert_keras.text.wordpiece_training import train_wordpieces

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CHINESE = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"


class BERTTextEncoder(TextEncoder):
    """The ids of Google's BERT for a WordPiece vocabulary.

    Text is cleaned, split at white space and punctuation, and cut into the longest pieces that the vocabulary
    has, exactly as in Google's code on any Unicode (where the Rust library differs, a text is prepared in
    Python). `[CLS]` starts (`bos_id`), `[SEP]` ends and delimits (`eos_id` and `del_id` are the same),
    `[PAD]` pads and `[MASK]` masks; one that the vocabulary lacks is appended at its end, and `vocab_size`
    counts it. A literal "[MASK]" in a text is three pieces, as in Google's code, and never the mask.

    Args:
        vocab_file: `vocab.txt`: a piece on each line, whose id is the number of the line, from 0.
        lower_case: lower-case text; has to be what the vocabulary was made with.
        strip_accents: remove accents from text; by default if `lower_case`, as in Google's code.
        max_word_characters: longer words are unknown: 200 in Google's code, 100 in Hugging Face's.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a WordPiece vocabulary: it has no `[UNK]`, blank lines, duplicates or
            white space within a piece.

    Example:
        >>> from pathlib import Path
        >>> Path("vocab.txt").write_text("[PAD]\\n[UNK]\\n[CLS]\\n[SEP]\\n[MASK]\\nun\\n##aff\\n##able\\n")
        47
        >>> BERTTextEncoder("vocab.txt").encode("Unaffable?")
        [5, 6, 7, 1]

    Source:
        https://github.com/google-research/bert/blob/master/tokenization.py (with its limit of 200 characters
        a word).
    """

    kind = "BERTTextEncoder"

    def __init__(
        self,
        vocab_file: str | Path,
        lower_case: bool = True,
        *,
        strip_accents: bool | None = None,
        max_word_characters: int = 200,
    ) -> None:
        self._build(_read_vocab(Path(vocab_file)), lower_case, strip_accents, max_word_characters)

    @classmethod
    def train(
        cls,
        source: Source,
        vocab_size: int = 8000,
        lower_case: bool = True,
        *,
        vocab_file: str | Path | None = None,
        min_frequency: int = 2,
        max_alphabet: int = 1000,
        max_sentences: int = 500_000,
        max_characters: int = 50_000_000,
        seed: int = 0,
    ) -> Self:
        """Trains a WordPiece vocabulary. The same text gives the same vocabulary, on every machine.

        Args:
            source: a file, a directory, several of them, or an iterable of lines. Files may be compressed
                with gzip.
            vocab_size: the number of pieces, the five special tokens included.
            lower_case: lower-case text and strip accents.
            vocab_file: where to write `vocab.txt`, atomically; None to keep it in memory only.
            min_frequency: pairs of pieces seen less often are not joined.
            max_alphabet: how many characters get pieces of their own, the most frequent first.
            max_sentences: train on a sample of at most so many lines (long lines count as several),
            max_characters: and of at most so many characters. Memory use is a small multiple of it.
            seed: decides the sample.

        Returns:
            The text encoder.

        Raises:
            ValueError: `vocab_size` is too large or too small for the text, or there is no text.
            FileNotFoundError: a file does not exist.

        Example:
            >>> text_encoder = BERTTextEncoder.train(["a bird in the hand"] * 9, vocab_size=30)
            >>> text_encoder.decode(text_encoder.encode("A hand in the bird"))
            'a hand in the bird'
        """
        sentences = sample_sentences(source, max_sentences, max_characters, seed)
        for sentence in sentences:
            if not sentence.isascii():
                check_texts([sentence], "source")
        normalizer = BertNormalizer(lower_case)
        vocab = train_wordpieces(
            map(normalizer, sentences), vocab_size, _SPECIAL, min_frequency, max_alphabet
        )
        text_encoder = cls.__new__(cls)
        text_encoder._build(vocab, lower_case)
        if vocab_file is not None:
            write_atomic(vocab_file, "".join(f"{token}\n" for token in vocab).encode())
        return text_encoder

    @classmethod
    def from_vocabulary(
        cls,
        vocab: Sequence[str],
        lower_case: bool = True,
        strip_accents: bool | None = None,
        max_word_characters: int = 200,
        control_tokens: Sequence[str] = (),
    ) -> Self:
        """A text encoder for pieces in the order of their ids. Arguments and errors are the constructor's.

        Args:
            control_tokens: pieces that no text encodes to, besides BERT's own.
        """
        _check_vocab(list(vocab), "the vocabulary")
        text_encoder = cls.__new__(cls)
        text_encoder._build(vocab, lower_case, strip_accents, max_word_characters, control_tokens)
        return text_encoder

    def _build(
        self,
        vocab: Sequence[str],
        lower_case: bool,
        strip_accents: bool | None = None,
        max_word_characters: int = 200,
        control_tokens: Sequence[str] = (),
    ) -> None:
        self.lower_case, self.max_word_characters = lower_case, max_word_characters
        self.strip_accents = lower_case if strip_accents is None else strip_accents
        self._vocab, self._control = list(vocab), list(control_tokens)
        if missing := [token for token in control_tokens if token not in vocab]:
            raise ValueError(f"control_tokens: expected pieces of the vocabulary, got {missing[:5]}.")
        self._set_tokens([*vocab, *(token for token in _SPECIAL if token not in vocab)])
        self.pad_id, self.unk_id, self.bos_id, self.eos_id, self.msk_id = (
            self._ids[token] for token in _SPECIAL
        )
        self.del_id = self.eos_id
        unused = (i for token, i in self._ids.items() if re.fullmatch(r"\[unused\d+\]", token))
        self.special_ids = frozenset((*(self._ids[token] for token in (*_SPECIAL, *control_tokens)), *unused))
        self._set_word_boundaries(not token.startswith("##") for token in self._tokens)
        model = WordPiece(
            {token: i for i, token in enumerate(vocab) if token not in control_tokens},
            unk_token="[UNK]",
            max_input_chars_per_word=max_word_characters,
        )
        self._normalizer = BertNormalizer(lower_case, self.strip_accents)
        self._rust = Tokenizer(model)
        self._rust.normalizer = RustNormalizer(lowercase=lower_case, strip_accents=self.strip_accents)
        self._rust.pre_tokenizer = BertPreTokenizer()
        self._rust_prepared = Tokenizer(model)
        self._rust_prepared.pre_tokenizer = CharDelimiterSplit(" ")

    def _encode_chunk(self, texts: Sequence[str]) -> list[list[int]]:
        is_plain = self._normalizer.is_plain
        others = [i for i, text in enumerate(texts) if len(text) > CHUNK_CHARACTERS or not is_plain(text)]
        if not others:
            return _rust_ids(self._rust, texts)
        plain = list(texts)
        for i in others:
            plain[i] = ""
        results = _rust_ids(self._rust, plain)
        pieces = [(i, piece) for i in others for piece in _cut_at_spaces(self._normalizer(texts[i]))]
        encoded = map(
            partial(_rust_ids, self._rust_prepared), text_chunks([p for _, p in pieces], CHUNK_CHARACTERS)
        )
        for (i, _), ids in zip(pieces, chain.from_iterable(encoded), strict=True):
            results[i] += ids
        return results

    def _surface(self, token_id: int) -> str | None:
        surface = super()._surface(token_id)
        return surface if surface is None or len(surface) < 3 else surface.removeprefix("##")

    def _decode(self, ids: list[int]) -> str:
        """Joins pieces to words, punctuation to its word, and Chinese characters to each other."""
        text = " ".join(self._tokens[i] for i in ids).replace(" ##", "").removeprefix("##")
        text = re.sub(r" ([.,!?;:%)\]}])", r"\1", text)
        text = re.sub(r"([(\[{$#]) ", r"\1", text)
        text = re.sub(r"(?<=\w) (['’]) (?=\w)", r"\1", text)
        return re.sub(f"(?<=[{_CHINESE}]) (?=[{_CHINESE}])", "", text)

    def get_state(self) -> dict[str, Any]:
        state = {"vocab": self._vocab, "lower_case": self.lower_case}
        if self.strip_accents != self.lower_case:
            state["strip_accents"] = self.strip_accents
        if self.max_word_characters != 200:  # absent where it is Google's: fingerprints stay what they were
            state["max_word_characters"] = self.max_word_characters
        if self._control:
            state["control_tokens"] = self._control
        return state

    def _extended(self, words: list[str]) -> Self:
        return self.from_vocabulary(
            [*self._tokens, *words],
            self.lower_case,
            self.strip_accents,
            self.max_word_characters,
            self._control,
        )

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        vocab, lower_case = state.get("vocab"), state.get("lower_case")
        strip_accents, longest = state.get("strip_accents"), state.get("max_word_characters", 200)
        control = state.get("control_tokens", [])
        options = ((strip_accents, bool | None), (longest, int), (control, list))
        if (
            not isinstance(vocab, list)
            or not isinstance(lower_case, bool)
            or not all(isinstance(value, kind) for value, kind in options)
            or longest < 1
        ):
            raise ValueError(
                "expected a state with a list 'vocab' and a bool 'lower_case'; the saved file is damaged."
            )
        return cls.from_vocabulary(vocab, lower_case, strip_accents, longest, control)


def _rust_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def _cut_at_spaces(text: str) -> Iterator[str]:
    """Runs of words of bounded length: pieces never cross a space, so their ids are those of the whole."""
    start = 0
    while len(text) - start > CHUNK_CHARACTERS:
        end = text.rfind(" ", start, start + CHUNK_CHARACTERS)
        if end < 0:
            end = text.find(" ", start)
        if end < 0:
            break
        yield text[start:end]
        start = end + 1
    yield text[start:]


def _read_vocab(path: Path) -> list[str]:
    if path.is_dir():
        raise ValueError(f"vocab_file: expected a file such as vocab.txt, got the directory {str(path)!r}.")
    if not path.exists():
        raise FileNotFoundError(f"vocab_file: no file {str(path)!r}.")
    vocab = [line.strip() for line in read_lines(path)]
    _check_vocab(vocab, repr(str(path)))
    return vocab


def _check_vocab(vocab: list[Any], name: str) -> None:
    """Finds here what would show only as nonsense much later."""
    seen: dict[str, int] = {}
    for number, token in enumerate(vocab, 1):
        if not isinstance(token, str) or len(token.split()) != 1:
            raise ValueError(
                f"vocab_file: line {number} of {name} is {token!r}, expected one piece without white space."
            )
        if token in seen:
            raise ValueError(f"vocab_file: lines {seen[token]} and {number} of {name} are both {token!r}.")
        seen[token] = number
    if "[UNK]" not in seen:
        raise ValueError(
            f"vocab_file: {name} has no piece '[UNK]' among its {len(vocab)} lines. Expected a WordPiece "
            "vocabulary, one piece on each line."
        )
