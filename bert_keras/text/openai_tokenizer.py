"""How the 2018 GPT reads text: clean-up, spaCy's words, byte-pair pieces. One process, one thread."""

import importlib.util
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers.models import BPE

_MAX_CACHED_WORDS = 200_000
_MAX_SPACY_STRINGS = 500_000

# The original writes its pattern in a plain string, where the doubled backslash before a plus is one
# backslash: the plus sign is set apart, the backslash is not. Ports that made it a raw string set backslashes
# apart.
_PUNCTUATION = re.compile(r'(-+|~+|!+|"+|;+|\?+|\++|,+|\)+|\(+|\/+|\*+|\[+|\]+|}+|{+|\|+|_+)')
_NEWLINE = re.compile(r"\s*\n\s*")
_SPACE = re.compile(r"[^\S\n]+")
_REPLACED = str.maketrans({"—": "-", "–": "-", "―": "-", "…": "...", "´": "'"})


def standardize(text: str) -> str:
    """Plain dashes, dots and apostrophes, spaces around punctuation, and single white space.

    Example:
        >>> standardize("Wait—what?  (No…)")
        'Wait - what ? ( No... )'
    """
    text = _PUNCTUATION.sub(r" \1 ", text.translate(_REPLACED))
    return _SPACE.sub(" ", _NEWLINE.sub(" \n ", text)).strip()


def require_extra() -> None:
    """ImportError naming the extra to install, if `ftfy` or `spacy` is missing."""
    missing = [name for name in ("ftfy", "spacy") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"OpenAITextEncoder needs {' and '.join(missing)} for ids exactly as published. Install the "
            "extra: "
            'pip install "bert_keras[openai]"'
        )


class OpenAITokenizer:
    """Text to ids, as https://github.com/openai/finetune-transformer-lm/blob/master/text_utils.py has them.

    Args:
        vocab: the published ids of the pieces.
        merges: the published merges, each two pieces separated by a space, the first to apply first.
        words: ids of whole words that are not spelled by pieces.
        lower_case_first: lower-case a text before it is split, not its words afterwards.

    Raises:
        ImportError: `ftfy` or `spacy` is not installed.
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Sequence[str],
        words: Mapping[str, int] | None = None,
        lower_case_first: bool = False,
    ) -> None:
        require_extra()
        import ftfy

        self._fix_text = ftfy.fix_text
        self._spell = BPE(
            vocab=dict(vocab),
            merges=[(first, second) for first, second in (merge.split() for merge in merges)],
            unk_token="<unk>",
            end_of_word_suffix="</w>",
        ).tokenize
        self._words, self._lower_case_first = dict(words or {}), lower_case_first
        self._newline = [vocab.get("\n</w>", 0)]
        self._ids_of: dict[int, list[int]] = {}  # By spaCy's hash of the word.
        self._start_spacy()

    def _start_spacy(self) -> None:
        from spacy.attrs import ORTH
        from spacy.lang.en import English

        self._orth = ORTH
        english = English()
        self._split, self._strings = english.tokenizer, english.vocab.strings

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The ids laid end to end, `(n,)` int32, and how many each text has, `(len(texts),)` int64."""
        ids: list[int] = []
        ends = [0]
        for text in texts:
            self._append(text, ids)
            ends.append(len(ids))
        return np.array(ids, np.int32), np.diff(np.array(ends, np.int64))

    def _append(self, text: str, ids: list[int]) -> None:
        text = text.lower() if self._lower_case_first else text
        words: Any = self._split(standardize(self._fix_text(text)))
        ids_of = self._ids_of
        for word in words.to_array(self._orth).tolist():
            known = ids_of.get(word)
            if known is None:
                known = ids_of[word] = self._word_ids(self._strings[word].lower())
            ids += known
        if len(ids_of) > _MAX_CACHED_WORDS:
            ids_of.clear()
        if len(self._strings) > _MAX_SPACY_STRINGS:  # spaCy forgets no word it has seen.
            self._start_spacy()

    def _word_ids(self, word: str) -> list[int]:
        # The only word with a space is spaCy's "\n ", which the original spells as it spells "\n".
        if word in self._words:
            return [self._words[word]]
        return self._newline if word in ("\n", "\n ") else [piece.id for piece in self._spell(word)]
