"""English text for benchmarks: novels if BERT_KERAS_DATA names the data sets, else what every Python brings."""

from __future__ import annotations

import os
import pydoc_data.topics
from pathlib import Path


def english_text() -> str:
    """One sentence (or line) on each line, blank lines between documents; a few hundred kilobytes or more."""
    if "BERT_KERAS_DATA" in os.environ:
        return Path(os.environ["BERT_KERAS_DATA"], "gutenberg", "train.txt").read_text(encoding="utf-8")
    topics = pydoc_data.topics.topics
    documents = ("\n".join(line.strip() for line in topics[name].split("\n") if line.strip()) for name in sorted(topics))
    return "\n\n".join(documents)
