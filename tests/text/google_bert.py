"""Google's published WordPiece algorithm, written anew in the plainest Python: a reference."""

import unicodedata


def is_control(c: str) -> bool:
    return c not in "\t\n\r" and unicodedata.category(c) in ("Cc", "Cf")


def is_space(c: str) -> bool:
    return c in " \t\n\r" or unicodedata.category(c) == "Zs"


def is_chinese(c: str) -> bool:
    ranges = [
        (0x4E00, 0x9FFF),
        (0x3400, 0x4DBF),
        (0x20000, 0x2A6DF),
        (0x2A700, 0x2B73F),
        (0x2B740, 0x2B81F),
        (0x2B820, 0x2CEAF),
        (0xF900, 0xFAFF),
        (0x2F800, 0x2FA1F),
    ]
    return any(low <= ord(c) <= high for low, high in ranges)


def is_punctuation(c: str) -> bool:
    code = ord(c)
    if 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126:
        return True
    return unicodedata.category(c)[0] == "P"


def basic_tokens(text: str, lower_case: bool) -> list[str]:
    cleaned = []
    for c in text:
        if c in "\x00\ufffd" or is_control(c):
            continue
        cleaned.append(" " if is_space(c) else c)
    spaced = "".join(f" {c} " if is_chinese(c) else c for c in cleaned)
    tokens: list[str] = []
    for token in spaced.split():
        if lower_case:
            token = unicodedata.normalize("NFD", token.lower())
            token = "".join(c for c in token if unicodedata.category(c) != "Mn")
        word = ""
        for c in token:
            if is_punctuation(c):
                tokens += [word, c]
                word = ""
            else:
                word += c
        tokens.append(word)
    return " ".join(tokens).split()


def wordpieces(token: str, vocab: dict[str, int], max_characters: int = 200) -> list[str]:
    if len(token) > max_characters:
        return ["[UNK]"]
    pieces = []
    start = 0
    while start < len(token):
        for end in range(len(token), start, -1):
            piece = ("##" if start else "") + token[start:end]
            if piece in vocab:
                break
        else:
            return ["[UNK]"]
        pieces.append(piece)
        start = end
    return pieces


def encode(text: str, vocab: dict[str, int], lower_case: bool) -> list[int]:
    return [vocab[p] for token in basic_tokens(text, lower_case) for p in wordpieces(token, vocab)]
