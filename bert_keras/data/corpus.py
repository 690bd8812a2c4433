"""Tokenised text on disk: flat memory-mapped arrays of tokens, sentences and documents."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bert_keras.data.corpus_build import build
from bert_keras.data.corpus_format import open_arrays
from bert_keras.text import TextEncoder


class Corpus:
    """A tokenised text. `Corpus.prepare` makes one, `Corpus.open` opens what was made.

    Attributes:
        directory: where it is kept.
        tokens: `(num_tokens,)` uint16 or int32, the ids of all sentences end to end, without special tokens.
        sentence_offsets: `(num_sentences + 1,)` int64: sentence s is
            `tokens[sentence_offsets[s]:sentence_offsets[s + 1]]`.
        document_offsets: `(num_documents + 1,)` int64: document d is sentences `document_offsets[d]` to
            `document_offsets[d + 1] - 1`.
        num_tokens, num_sentences, num_documents: their numbers.
        vocab_size: of the text encoder.
        fingerprint: of the text encoder.
        meta: all that is known of it.

    All three arrays are memory-mapped and read-only. There are no empty sentences and no empty documents.

    Example:

    ```python
    corpus = Corpus.prepare(text_encoder, "corpus.txt")
    text_encoder.decode(corpus.sentence(0))
    generator = lm_generator(text_encoder, corpus)
    ```
    """

    def __init__(self, directory: Path, meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.directory = directory
        self.meta = meta
        self.tokens = arrays["tokens"]
        self.sentence_offsets = arrays["sentence_offsets"]
        self.document_offsets = arrays["document_offsets"]
        self.num_tokens = self.tokens.size
        self.num_sentences = self.sentence_offsets.size - 1
        self.num_documents = self.document_offsets.size - 1
        self.vocab_size: int = meta["vocab_size"]
        self.fingerprint: str = meta["fingerprint"]

    @classmethod
    def prepare(
        cls,
        text_encoder: TextEncoder,
        source: str | Path | Iterable[str | Path],
        *,
        cache_dir: str | Path | None = None,
        one_document_per_line: bool = False,
        sentence_splitter: Callable[[str], Iterable[str]] | None = None,
        verbose: bool = False,
    ) -> Corpus:
        """Tokenise text once, in bounded memory, and open the result; open it at once if it was made before.

        The result is kept under a name made of what the text, the text encoder and the options are, so it
        never has to be deleted because something changed. It appears whole or not at all.

        Args:
            text_encoder: turns sentences into ids.
            source: a file, several files, or a directory, as UTF-8, plain or compressed with gzip. One
                sentence on each line, a blank line between documents; the end of a file ends a document too.
                What comes to no ids is dropped. A line of more than 4 MB counts as several.
            cache_dir: where prepared corpora are kept. By default the environment variable BERT_KERAS_CACHE
                names it, else it is `bert_keras/corpora` in the user's cache directory (XDG_CACHE_HOME,
                `~/.cache`).
            one_document_per_line: whether each line is a whole document, which is then cut into sentences.
            sentence_splitter: cuts a document into sentences. By default `split_sentences`, which goes by
                punctuation.
            verbose: whether to tell the progress, on standard error.

        Returns:
            The corpus.

        Raises:
            FileNotFoundError: a file does not exist.
            ValueError: a file is not UTF-8 text, there is no text at all, or `sentence_splitter` is given
                without `one_document_per_line`.

        Example:

        ```python
        corpus = Corpus.prepare(text_encoder, ["a.txt", "b.txt.gz"], verbose=True)
        ```
        """
        return cls.open(
            build(text_encoder, source, cache_dir, one_document_per_line, sentence_splitter, verbose)
        )

    @classmethod
    def open(cls, directory: str | Path) -> Corpus:
        """Open a prepared corpus.

        Args:
            directory: where it is, as in `corpus.directory`.

        Raises:
            FileNotFoundError: there is no prepared corpus.
            ValueError: it is damaged, or of another format.
        """
        directory = Path(directory).absolute()
        return cls(directory, *open_arrays(directory))

    def sentence(self, number: int) -> np.ndarray:
        """Return the ids of a sentence, a read-only view."""
        if not 0 <= number < self.num_sentences:
            raise IndexError(f"`number` must be from 0 to {self.num_sentences - 1}. Received: {number}")
        return self.tokens[self.sentence_offsets[number] : self.sentence_offsets[number + 1]]

    def document(self, number: int) -> list[np.ndarray]:
        """Return the sentences of a document, read-only views."""
        if not 0 <= number < self.num_documents:
            raise IndexError(f"`number` must be from 0 to {self.num_documents - 1}. Received: {number}")
        return [
            self.sentence(s) for s in range(self.document_offsets[number], self.document_offsets[number + 1])
        ]

    def __reduce__(self) -> tuple[Any, ...]:
        return Corpus.open, (str(self.directory),)

    def __repr__(self) -> str:
        return (
            f"<Corpus: {self.num_documents:,} documents, {self.num_sentences:,} sentences, "
            f"{self.num_tokens:,} tokens, "
            f"{str(self.directory)!r}>"
        )
