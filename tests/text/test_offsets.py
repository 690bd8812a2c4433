"""Which characters ids stand for, and where words are."""

import unicodedata

import numpy as np
import pytest
import regex
from samples import STRANGE, python_lines
from test_byte_level_encoder import real_lines

from bert_keras.text import BERTTextEncoder, ByteLevelBPETextEncoder, split_words


def lines():
    return [*STRANGE, *python_lines(3000)]


def test_ids_and_bounds(any_encoder):
    texts = lines()
    for text, (ids, offsets) in zip(texts, any_encoder.encode_batch_with_offsets(texts), strict=True):
        assert ids == any_encoder.encode(text)
        assert len(offsets) == len(ids)
        spans = np.array(offsets).reshape(-1, 2)
        assert (spans >= 0).all() and (spans <= len(text)).all() and (spans[:, 0] <= spans[:, 1]).all()
        assert (np.diff(spans[:, 0]) >= 0).all(), (text, offsets)


def test_plain_text_is_covered_piece_by_piece(any_encoder):
    """Where nothing is changed but case, each piece is what stands in the text, and nothing is left over."""
    checked = 0
    for text in [line for line in python_lines(3000) if line.isascii() and line.isprintable()]:
        ids, offsets = any_encoder.encode_with_offsets(text)
        if any_encoder.unk_id in ids:
            continue
        for token_id, (start, end) in zip(ids, offsets, strict=True):
            piece = any_encoder.decode([token_id]).strip().removeprefix("##")
            assert text[start:end].strip().lower() == piece.lower(), (text, token_id)
        covered = np.zeros(len(text), bool)
        for start, end in offsets:
            covered[start:end] = True
        assert all(covered[i] or text[i].isspace() for i in range(len(text))), text
        checked += len(ids)
    assert checked > 20_000


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a \U0001f600 b", ["a", "\U0001f600", "b"]),
        ("Cafe\u0301 x", ["Cafe\u0301", "x"]),
        ("ﬁne É", ["ﬁne", "É"]),
        ("naïve\u00adly —  ok", ["naïve\u00adly", "—", "ok"]),
    ],
)
def test_words_of_changed_text_keep_their_place(any_encoder, text, wanted):
    """What the pieces of a word span together is the word, also where it was normalised or is unknown."""
    ids, offsets = any_encoder.encode_with_offsets(text)
    for word in wanted:
        start, end = text.index(word), text.index(word) + len(word)
        inside = [span for span in offsets if span[0] >= start and span[1] <= end and span[0] < span[1]]
        assert inside, (word, offsets)
        assert (min(a for a, _ in inside), max(b for _, b in inside)) == (start, end), (word, offsets)


def test_unknown_words_between_known_ones(tmp_path):
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", ",", "##ness", "day"]))
    encoder = BERTTextEncoder(vocab)
    text = "Góod,☃☃ goodness xyzzy day"
    ids, offsets = encoder.encode_with_offsets(text)
    assert [encoder.id_to_token(i) for i in ids] == ["good", ",", "[UNK]", "good", "##ness", "[UNK]", "day"]
    assert [text[a:b] for a, b in offsets] == ["Góod", ",", "☃☃", "good", "ness", "xyzzy", "day"]


def test_against_transformers(byte_level_files, tmp_path):
    """Published tokenizers say the same wherever they do not count a character twice."""
    transformers = pytest.importorskip("transformers")
    bert = BERTTextEncoder.train(python_lines(2000), 1019)
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("".join(f"{bert.id_to_token(i)}\n" for i in range(bert.vocab_size)), encoding="utf-8")
    byte_level = ByteLevelBPETextEncoder(byte_level_files / "vocab.json", byte_level_files / "merges.txt")
    files = [str(byte_level_files / name) for name in ("vocab.json", "merges.txt")]
    pairs = [
        (bert, transformers.BertTokenizerFast(str(vocab))),
        (byte_level, transformers.RobertaTokenizerFast(*files, trim_offsets=True)),
    ]
    texts = [line for line in [*python_lines(800), *real_lines(800)] if line.strip()]
    for ours, theirs in pairs:
        encoded = theirs(texts, add_special_tokens=False, return_offsets_mapping=True)
        for text, (ids, offsets), their_ids, expected in zip(
            texts,
            ours.encode_batch_with_offsets(texts),
            encoded["input_ids"],
            encoded["offset_mapping"],
            strict=True,
        ):
            if ids == their_ids:
                for own, other in zip(offsets, expected, strict=True):
                    if text[slice(*other)].strip():
                        assert own == tuple(other), (text, text[slice(*own)], text[slice(*other)])


WORDS = {
    "Don't panic! It's 3.14.": ["Don't", "panic", "!", "It's", "3.14", "."],
    "  👩‍👩‍👧‍👦🇩🇪 cafe\u0301 (नमस्ते) ": ["👩‍👩‍👧‍👦", "🇩🇪", "cafe\u0301", "(", "नमस्ते", ")"],
    "我爱。東京タワー": ["我", "爱", "。", "東", "京", "タワー"],
    "a\n\n b\u00a0c": ["a", "b", "c"],
    "": [],
    " \t\n": [],
}


@pytest.mark.parametrize("text", WORDS)
def test_words(text):
    assert [text[start:end] for start, end in split_words(text)] == WORDS[text]


def test_words_are_whole_and_cover_the_text():
    for text in lines():
        spans = split_words(text)
        borders = {0, *(match.end() for match in regex.finditer(r"\X", text))}
        covered = np.zeros(len(text), bool)
        end_before = 0
        for start, end in spans:
            assert end_before <= start < end
            assert {start, end} <= borders, (text[start:end],)
            covered[start:end], end_before = True, end
        left = {c for c, is_in in zip(text, covered, strict=True) if not is_in}
        assert all(c.isspace() or unicodedata.category(c) in ("Cc", "Zs") for c in left), left
