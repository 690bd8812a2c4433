"""Google's rules for what BERT reads: cleaning, case, accents, and where words end."""

import re
import unicodedata
from collections.abc import Callable

# Where Google's Python and the Rust `BertNormalizer` and `BertPreTokenizer` agree character by character, in
# every context: the letters, marks, punctuation and symbols that have long been in Unicode. Outside of them
# the two differ: unassigned and private characters, characters newer than Rust's tables, final sigma, some
# controls and separators.
_PLAIN = (
    "\x00-\x7e\xa0-\xac\xae-\u02ff\u0370-\u0373\u0376-\u0377\u037a-\u037d\u0384-\u038a\u038e-\u03a1\u03a4-\u0482"
    "\u048a-\u0527"
    "\u05d0-\u05ea\u0621-\u063a\u0641-\u064a\u0660-\u0669\u0671-\u06d3\u0905-\u0939\u1e00-\u1eff"
    "\u2010-\u2027\u2030-\u205e\u20a0-\u20ba\u2100-\u214f\u2190-\u23f3\u2500-\u26ff\u3001-\u3029\u3030-\u303f"
    "\u3041-\u3096\u309b-\u30ff\u3400-\u4db5\u4e00-\u9fcc\uac00-\ud7a3\uff01-\uffbe"
)


class BertNormalizer:
    """The basic tokenizer of BERT in plain Python, and the test of which texts need it.

    For ordinary text the Rust library does the same, on all cores; `is_plain` tells. Called on a text, this
    returns its words and punctuation marks, cleaned and joined by single spaces: exactly the tokens of
    `BasicTokenizer` in https://github.com/google-research/bert/blob/master/tokenization.py, with the Unicode
    tables of the running Python.

    Args:
        lower_case: lower-case the text.
        strip_accents: remove its accents; by default if `lower_case`.

    Example:
        >>> BertNormalizer(lower_case=True)("Où est-il?")
        'ou est - il ?'
    """

    def __init__(self, lower_case: bool, strip_accents: bool | None = None) -> None:
        self.lower_case = lower_case
        self.strip_accents = lower_case if strip_accents is None else strip_accents
        self._special = re.compile(f"[^{_PLAIN}]")
        self._clean = _CharacterTable(_clean)
        self._split = _CharacterTable(_strip_and_split if self.strip_accents else _split)

    def is_plain(self, text: str) -> bool:
        """Whether the Rust library treats the text as Google's code does."""
        return text.isascii() or self._special.search(text) is None

    def __call__(self, text: str) -> str:
        text = text.translate(self._clean)
        if self.lower_case:
            text = text.lower()
        if self.strip_accents:
            text = unicodedata.normalize("NFD", text)
        return " ".join(text.translate(self._split).split())


class _CharacterTable(dict[int, str]):
    """A table for `str.translate` that computes its entries when they are first asked for."""

    def __init__(self, rule: Callable[[str], str]) -> None:
        super().__init__()
        self._rule = rule

    def __missing__(self, code: int) -> str:
        replacement = self[code] = self._rule(chr(code))
        return replacement


def _clean(character: str) -> str:
    """Controls vanish, white space becomes a space, Chinese characters stand alone."""
    category = unicodedata.category(character)
    if character in "\t\n\r" or category == "Zs":
        return " "
    if character == "\ufffd" or category in ("Cc", "Cf"):
        return ""
    return f" {character} " if _is_chinese(ord(character)) else character


def _split(character: str) -> str:
    """Punctuation stands alone; ASCII symbols count as punctuation."""
    is_symbol = (
        character.isascii() and character.isprintable() and not character.isalnum() and character != " "
    )
    return f" {character} " if is_symbol or unicodedata.category(character).startswith("P") else character


def _strip_and_split(character: str) -> str:
    return "" if unicodedata.category(character) == "Mn" else _split(character)


def _is_chinese(code: int) -> bool:
    return (
        0x4E00 <= code <= 0x9FFF
        or 0x3400 <= code <= 0x4DBF
        or 0x20000 <= code <= 0x2A6DF
        or 0x2A700 <= code <= 0x2CEAF
        or 0xF900 <= code <= 0xFAFF
        or 0x2F800 <= code <= 0x2FA1F
    )
