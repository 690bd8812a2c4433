"""The published algorithm of the 2018 GPT's text encoder, written anew in the plainest Python."""

import re
from collections.abc import Callable, Iterable


def standardize(text: str) -> str:
    for old, new in ("—-", "–-", "―-", "´'"):
        text = text.replace(old, new)
    text = text.replace("…", "...")
    for mark in '-~!";?+,)(/*[]}{|_':
        text = re.sub(f"({re.escape(mark)}+)", r" \1 ", text)
    text = re.sub(r"\s*\n\s*", " \n ", text)
    return re.sub(r"[^\S\n]+", " ", text).strip()


def byte_pairs(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    symbols = [*word[:-1], word[-1] + "</w>"]
    while True:
        known = [pair for pair in zip(symbols, symbols[1:], strict=False) if pair in ranks]
        if not known:
            return symbols
        best = min(known, key=lambda pair: ranks[pair])
        symbols = join_pairs(symbols, best)


def encode(
    text: str,
    vocab: dict[str, int],
    ranks: dict[tuple[str, str], int],
    fix_text: Callable[[str], str],
    split: Callable[[str], Iterable[str]],
    cache: dict[str, list[int]],
) -> list[int]:
    ids = []
    for token in split(standardize(fix_text(text))):
        word = token.lower()
        if word not in cache:
            spelled = " ".join(byte_pairs(word, ranks))
            if spelled == "\n  </w>":
                spelled = "\n</w>"
            cache[word] = [vocab.get(piece, 0) for piece in spelled.split(" ")]
        ids += cache[word]
    return ids


def learn_merges(words: dict[str, int], num_merges: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A small vocabulary in the published format, learned from words and their counts."""
    spelled = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    characters = sorted({c for word in words for c in word})
    pieces = ["<unk>", *characters, *(f"{c}</w>" for c in characters)]
    merges: list[tuple[str, str]] = []
    for _ in range(num_merges):
        counts: dict[tuple[str, str], int] = {}
        for word, symbols in spelled.items():
            for pair in zip(symbols, symbols[1:], strict=False):
                counts[pair] = counts.get(pair, 0) + words[word]
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        for word, symbols in spelled.items():
            if best[0] in symbols:
                spelled[word] = join_pairs(symbols, best)
    pieces += [a + b for a, b in merges]
    return {piece: i for i, piece in enumerate(dict.fromkeys([*pieces, "\n</w>"]))}, merges


def join_pairs(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    i = 0
    while i < len(symbols):
        step = 2 if tuple(symbols[i : i + 2]) == pair else 1
        merged.append("".join(symbols[i : i + step]))
        i += step
    return merged
