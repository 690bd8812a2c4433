"""The text encoder of the 2018 GPT."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from bert_keras.text.base import TextEncoder
from bert_keras.text.checks import check_texts
from bert_keras.text.chunks import concatenate_flat, text_chunks
from bert_keras.text.files import read_lines
from bert_keras.text.openai_pool import OpenAIPool
from bert_keras.text.openai_tokenizer import OpenAITokenizer, require_extra

_SPECIAL = ("<pad>", "<bos>", "<del>", "<eos>", "<msk>")
_UNKNOWN = "<unk>"
_END = "</w>"
_SMALL_BATCH_CHARACTERS = 400_000  # Less than this is done before further processes have started.
_CHUNK_CHARACTERS = 100_000


class OpenAITextEncoder(TextEncoder):
    """The ids of the original GPT.

    `ftfy` and GPT's own rules clean the text, spaCy's English tokenizer splits it, it is lower-cased, and
    byte-pair encoding spells each word.

    The published 40,478 ids stay as they are, the unknown `<unk>` (0) among them. Five rows follow: padding,
    start, delimiter, end and mask, in this order (`pad_id` 40478, `bos_id` 40479, `del_id` 40480, `eos_id`
    40481, `msk_id` 40482; `vocab_size` 40483). No text encodes to them.

    Large batches are tokenised by one process for each core, started when first needed and kept until
    `close`, or until the text encoder is collected.

    Args:
        encoder_path: the published `encoder_bpe_40000.json`: pieces and their ids.
        bpe_path: the published `vocab_40000.bpe`: a line with the version, then the merges.
        num_workers: how many processes tokenise large batches; 1 for none but this one, None for one for each
            core.
        lower_case_first: lower-case a text before it is split into words, as `transformers` does since it has
            this tokenizer, and not the words afterwards, as the original does: "Mr." then is two words. The
            weights were trained with the original's ids.

    Raises:
        ImportError: `ftfy` or `spacy` is missing; `pip install "bert_keras[openai]"` brings both.
        FileNotFoundError: a file does not exist.
        ValueError: a file is damaged, or the two do not belong together.

    Example:
        >>> text_encoder = OpenAITextEncoder("encoder_bpe_40000.json", "vocab_40000.bpe")  # doctest: +SKIP
        >>> text_encoder.decode(text_encoder.encode("Hello, world!"))  # doctest: +SKIP
        'hello , world !'

    Source:
        https://github.com/openai/finetune-transformer-lm/blob/master/text_utils.py (Radford et al., 2018).
    """

    kind = "OpenAITextEncoder"

    def __init__(
        self,
        encoder_path: str | Path,
        bpe_path: str | Path,
        *,
        num_workers: int | None = None,
        lower_case_first: bool = False,
    ) -> None:
        vocab, merges = _read_vocab(Path(encoder_path)), _read_merges(Path(bpe_path))
        self._build(vocab, merges, num_workers, lower_case_first=lower_case_first)

    def _build(
        self,
        vocab: dict[str, int],
        merges: list[str],
        num_workers: int | None = None,
        words: Sequence[str] = (),
        lower_case_first: bool = False,
    ) -> None:
        require_extra()
        if num_workers is not None and num_workers < 1:
            raise ValueError(
                f"num_workers: expected at least 1, or None for one for each core, got {num_workers}."
            )
        _check_vocab(vocab, merges)
        self._vocab, self._merges, self.lower_case_first = vocab, merges, lower_case_first
        self._num_workers = num_workers
        own = [*sorted(vocab, key=vocab.__getitem__), *_SPECIAL]
        self._words = {word: len(own) + i for i, word in enumerate(words)}
        self._set_tokens([*own, *(f"{word}{_END}" for word in words)])
        self.unk_id = vocab[_UNKNOWN]
        self.pad_id, self.bos_id, self.del_id, self.eos_id, self.msk_id = (
            self._ids[token] for token in _SPECIAL
        )
        self.special_ids = frozenset((self.unk_id, *(self._ids[token] for token in _SPECIAL)))
        self._set_word_boundaries(
            (False for _ in self._tokens), (token.endswith(_END) for token in self._tokens)
        )
        self._tokenizer: OpenAITokenizer | None = None
        self._pool: OpenAIPool | None = None

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        # ftfy would silently replace lone surrogates, so the texts are checked first; it costs little beside
        # spaCy.
        check_texts(texts)
        pool = self._pool_for(sum(map(len, texts)))
        if pool is not None:
            return concatenate_flat(pool.encode(list(text_chunks(texts, _CHUNK_CHARACTERS))))
        if self._tokenizer is None:
            self._tokenizer = OpenAITokenizer(**self._setup())
        return self._tokenizer(texts)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        ids, lengths = self.encode_flat(texts)
        flat, ends = ids.tolist(), np.cumsum(lengths).tolist()
        return [flat[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=False)]

    def _encode_chunk(self, texts: Sequence[str]) -> list[list[int]]:
        return self.encode_batch(texts)

    def _pool_for(self, num_characters: int) -> OpenAIPool | None:
        """The processes, started if need be; None if this process is better or the only one possible."""
        num_workers = self._num_workers or _num_cores()
        if num_workers == 1 or num_characters < _SMALL_BATCH_CHARACTERS:
            return None
        if self._pool is None or not self._pool.is_usable:
            try:
                self._pool = OpenAIPool(self._setup(), num_workers)
            except OSError:  # No more processes allowed, or no Python executable: slower, not worse.
                self._num_workers = 1
                return None
        return self._pool

    def _setup(self) -> dict[str, Any]:
        return {
            "vocab": self._vocab,
            "merges": self._merges,
            "words": self._words,
            "lower_case_first": self.lower_case_first,
        }

    def close(self) -> None:
        """Ends the processes that tokenise large batches. The next large batch starts them again."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _surface(self, token_id: int) -> str | None:
        surface = super()._surface(token_id)
        return None if surface is None else surface.removesuffix(_END)

    def _decode(self, ids: list[int]) -> str:
        text = "".join(self._tokens[i] for i in ids).replace(_END, " ")
        return text.replace(" \n ", "\n").strip(" ")

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"vocab": self._tokens[: len(self._vocab)], "merges": self._merges}
        if self._words:
            state["words"] = list(self._words)
        if self.lower_case_first:
            state["lower_case_first"] = True
        return state

    def _extended(self, words: list[str]) -> Self:
        text_encoder = type(self).__new__(type(self))
        words = [*self._words, *words]
        text_encoder._build(
            self._vocab, self._merges, self._num_workers, words, lower_case_first=self.lower_case_first
        )
        return text_encoder

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        tokens, merges, words = state.get("vocab"), state.get("merges"), state.get("words", [])
        if not isinstance(tokens, list) or not isinstance(merges, list) or not isinstance(words, list):
            raise ValueError("expected a state with lists 'vocab' and 'merges'; the saved file is damaged.")
        text_encoder = cls.__new__(cls)
        vocab = {token: i for i, token in enumerate(tokens)}
        lower_case_first = bool(state.get("lower_case_first", False))
        text_encoder._build(vocab, merges, None, words, lower_case_first)
        return text_encoder


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read_vocab(path: Path) -> dict[str, int]:
    text = "\n".join(_existing_lines(path, "encoder_path"))
    try:
        vocab = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"encoder_path: {str(path)!r} is not JSON, or it is truncated: {error}.") from error
    if not isinstance(vocab, dict) or sorted(map(str, vocab.values())) != sorted(map(str, range(len(vocab)))):
        raise ValueError(
            "encoder_path: expected a JSON object that gives pieces the ids from 0 without gaps, "
            f"{str(path)!r} is not one."
        )
    return vocab


def _read_merges(path: Path) -> list[str]:
    lines = _existing_lines(path, "bpe_path")
    if not lines or not lines[0].startswith("#version"):
        raise ValueError(f"bpe_path: expected '#version' on the first line of {str(path)!r}.")
    return lines[1:]


def _existing_lines(path: Path, argument: str) -> list[str]:
    if path.is_dir():
        raise ValueError(f"{argument}: expected a file, got the directory {str(path)!r}.")
    if not path.exists():
        raise FileNotFoundError(f"{argument}: no file {str(path)!r}.")
    return list(read_lines(path))


def _check_vocab(vocab: dict[str, int], merges: list[str]) -> None:
    if _UNKNOWN not in vocab:
        raise ValueError(f"encoder_path: expected the piece {_UNKNOWN!r} in the vocabulary.")
    if taken := [token for token in _SPECIAL if token in vocab]:
        raise ValueError(f"encoder_path: expected a vocabulary without {taken}; these are appended to it.")
    for number, merge in enumerate(merges, 2):
        pieces = merge.split() if isinstance(merge, str) else []
        if len(pieces) != 2:
            raise ValueError(
                f"bpe_path: expected two pieces on line {number}, got {merge!r}. Is the file truncated?"
            )
        for piece in (*pieces, "".join(pieces)):
            if piece not in vocab:
                raise ValueError(
                    f"bpe_path: line {number} is {merge!r}, but the vocabulary has no piece {piece!r}. Do "
                    "the two files belong together, and are they whole?"
                )
