"""Documents to sentences, by punctuation."""

from __future__ import annotations

import re

# A sentence ends after . ! ? and their like (with closing quotes and brackets) before white space, or after
# the full stops of Chinese and Japanese (with theirs), which no white space follows. A run of them is tried
# once, from its first on: anything else takes quadratic time on a line of dots.
_END = re.compile(
    r"""(?<![.!?…‽؟۔।॥])[.!?…‽؟۔।॥]++["'”’»›)\]}]*+\s++(?=\S)|[。！？｡]++[」』”’）》〉】〕]*+\s*+"""
)
_NO_END = re.compile(
    r"(?:\b(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|Sr|Jr|St|Mt|Gen|Col|Capt|Lt|Sgt|Rev|Hon|Messrs|Mme|Mlle|vs|etc|e\.g|i\.e|cf|No|Nos|"
    r"Vol|Fig|p|pp|approx|Inc|Ltd|Co|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.)$"
)
_LONGEST_EXCEPTION = 8


def split_sentences(text: str) -> list[str]:
    """Cut a text into sentences at `. ! ? …`, at Chinese and Japanese full stops, and at line ends.

    Closing quotes and brackets stay with their sentence; common English abbreviations and initials do not end
    one. This is a rule of thumb that needs nothing installed: for better ones pass a function of your own to
    `Corpus.prepare`.

    Args:
        text: the text.

    Returns:
        The sentences, without white space around them; none is empty.

    Example:

    ```python
    split_sentences('Dr. No said "Stop!" He ran.')  # ['Dr. No said "Stop!"', 'He ran.']
    ```
    """
    sentences = []
    for line in text.splitlines():
        start = 0
        for match in _END.finditer(line):
            words = line[max(start, match.start() - _LONGEST_EXCEPTION) : match.start() + 1]
            is_abbreviation = match[0].rstrip() == "." and _NO_END.search(words)
            if is_abbreviation or line[match.end() : match.end() + 1].islower():
                continue
            sentences.append(line[start : match.end()].strip())
            start = match.end()
        sentences.append(line[start:].strip())
    return [sentence for sentence in sentences if sentence]
