"""BERTTextEncoder against Google's algorithm, id by id."""

import sys
import unicodedata

import google_bert
import pytest
from samples import STRANGE, novel_lines, python_lines, random_texts
from tokenizers.normalizers import BertNormalizer as RustNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from bert_keras.text import BERTTextEncoder
from bert_keras.text.bert_normalizer import BertNormalizer


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def text_encoder(request):
    lines = python_lines(4000) + 3 * STRANGE
    return BERTTextEncoder.train(lines, vocab_size=3001, lower_case=request.param)


def check(text_encoder, texts):
    vocab = {text_encoder.id_to_token(i): i for i in range(text_encoder.vocab_size)}
    expected = [google_bert.encode(text, vocab, text_encoder.lower_case) for text in texts]
    for text, actual, reference in zip(texts, text_encoder.encode_batch(texts), expected, strict=True):
        assert actual == reference, text
    ids, lengths = text_encoder.encode_flat(texts)
    assert ids.tolist() == sum(expected, []) and lengths.tolist() == list(map(len, expected))


def test_agrees_on_python_text(text_encoder):
    check(text_encoder, python_lines(10_000))


def test_agrees_on_novels(text_encoder):
    check(text_encoder, novel_lines(4000))


def test_agrees_on_all_of_unicode(text_encoder):
    check(text_encoder, STRANGE + random_texts(3000))


def test_agrees_with_transformers(text_encoder, tmp_path):
    slow = pytest.importorskip("transformers.models.bert.tokenization_bert")
    path = tmp_path / "vocab.txt"
    tokens = [text_encoder.id_to_token(i) for i in range(text_encoder.vocab_size)]
    path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    port = slow.BertTokenizer(str(path), do_lower_case=text_encoder.lower_case, do_basic_tokenize=True)
    for line in python_lines(1000):
        if "[" not in line:  # The port looks for special tokens in text first.
            expected = port.convert_tokens_to_ids(port.tokenize(line))
            assert text_encoder.encode(line) == expected, line


@pytest.mark.parametrize("lower_case", [True, False])
def test_rust_and_google_agree_on_every_plain_character(lower_case):
    """The set of characters left to Rust is right for the Unicode tables of this Python and this library."""
    normalizer = BertNormalizer(lower_case)
    plain = [c for c in map(chr, range(0x10000)) if normalizer.is_plain(c)]
    assert len(plain) > 40_000
    rust, split = RustNormalizer(lowercase=lower_case), BertPreTokenizer()
    for c in plain:
        for text in (f"a{c}B", c, f"é{c}{c} {c}"):
            tokens = [token for token, _ in split.pre_tokenize_str(rust.normalize_str(text))]
            assert tokens == google_bert.basic_tokens(text, lower_case), ascii(c)


@pytest.mark.parametrize("lower_case", [True, False])
def test_python_path_agrees_on_every_character(lower_case):
    normalizer = BertNormalizer(lower_case)
    for code in range(0, sys.maxunicode + 1, 1 if lower_case else 7):
        c = chr(code)
        if unicodedata.category(c) not in ("Cn", "Co", "Cs") and not "\u4e00" < c < "\ud800":
            text = f"a{c}B {c}"
            assert normalizer(text).split(" ") == google_bert.basic_tokens(text, lower_case), ascii(c)


def test_worked_example(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nun\n##aff\n##able\n!\nou\n", encoding="utf-8")
    text_encoder = BERTTextEncoder(path)
    assert text_encoder.encode("UNAFFABLE! unaffablex Où") == [5, 6, 7, 8, 1, 9]
    assert text_encoder.encode("un" + "able" * 60) == [1]  # 242 characters
    assert text_encoder.encode_words(["un", "unaffable", "", "!!"]) == (
        [5, 5, 6, 7, 8, 8],
        [0, 1, 1, 1, 3, 3],
    )
    assert (text_encoder.pad_id, text_encoder.unk_id, text_encoder.bos_id, text_encoder.msk_id) == (
        0,
        1,
        2,
        4,
    )
    assert text_encoder.eos_id == text_encoder.del_id == 3
    assert text_encoder.decode([2, 5, 6, 7, 8, 3]) == "unaffable!"
    assert text_encoder.starts_word([[2, 5, 6, 7, 8, 3, 0], [2, 6, 7, 5, 6, 0, 0]]).astype(int).tolist() == [
        [1, 1, 0, 0, 1, 1, 1],
        [1, 1, 0, 1, 0, 1, 1],
    ]


def test_missing_special_tokens_are_appended(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("a\n[UNK]\n[unused1]\n", encoding="utf-8")
    text_encoder = BERTTextEncoder(path)
    assert [text_encoder.id_to_token(i) for i in range(3, 7)] == ["[PAD]", "[CLS]", "[SEP]", "[MASK]"]
    assert text_encoder.vocab_size == 7 and text_encoder.special_ids == {1, 2, 3, 4, 5, 6}
    assert text_encoder.encode("a b") == [0, 1]


def test_a_text_of_megabytes_has_the_ids_of_its_parts(text_encoder):
    part = "The quick brown fox, jumps. Ünïcode! "
    ids = text_encoder.encode(part)
    assert text_encoder.encode(part * 60_000) == ids * 60_000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no piece '\\[UNK\\]'"),
        (b"[UNK]\na\n\nb\n", "line 3"),
        (b"[UNK]\na\nb\na\n", "lines 2 and 4.*'a'"),
        (b"[UNK]\nsome words\n", "line 2.*without white space"),
        (b"a\nb\n", "no piece '\\[UNK\\]'"),
        (b"[UNK]\n\x00\x01", "NUL"),
        (b"[UNK]\n\xff\xfe", "UTF-8"),
    ],
)
def test_files_that_are_no_vocabulary(tmp_path, content, words):
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        BERTTextEncoder(path)


def test_missing_vocabulary(tmp_path):
    with pytest.raises(FileNotFoundError, match="vocab_file"):
        BERTTextEncoder(tmp_path / "vocab.txt")
    with pytest.raises(ValueError, match="directory"):
        BERTTextEncoder(tmp_path)


def test_training_keeps_its_promises(tmp_path):
    lines = python_lines(3000)
    text_encoder = BERTTextEncoder.train(lines, 1500, vocab_file=tmp_path / "vocab.txt")
    assert text_encoder.vocab_size == 1500
    assert BERTTextEncoder(tmp_path / "vocab.txt").fingerprint == text_encoder.fingerprint
    ids, _ = text_encoder.encode_flat(lines)
    assert (ids == text_encoder.unk_id).mean() < 0.001
    with pytest.raises(ValueError, match="expected at least"):
        BERTTextEncoder.train(lines, 20)
    with pytest.raises(ValueError, match="expected at most"):
        BERTTextEncoder.train(lines[:10], 5000)
    assert BERTTextEncoder.train(["aé b c"] * 9, 9, max_alphabet=2).vocab_size == 9
