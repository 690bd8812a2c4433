"""SentencePieceTextEncoder against plain implementations of its four algorithms."""

import io

import numpy as np
import pytest
import sentencepiece
from samples import STRANGE, novel_lines, python_lines, random_texts

from bert_keras.text import SentencePieceTextEncoder

SPACE = "\u2581"
SIZES = {"unigram": 1201, "bpe": 1301, "char": 71, "word": 1101}


@pytest.fixture(scope="module")
def text_encoders():
    lines = python_lines(4000)
    return {kind: SentencePieceTextEncoder.train(lines, size, kind) for kind, size in SIZES.items()}


class Reference:
    """Reads pieces and scores from the model, and finds the segmentation by itself."""

    def __init__(self, text_encoder, kind, folder):
        path = folder / f"{kind}.model"
        text_encoder.save_model(path)
        self.model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        size = self.model.get_piece_size()
        normal = [i for i in range(size) if not (self.model.is_control(i) or self.model.is_unknown(i))]
        self.ids = {self.model.id_to_piece(i): i for i in normal}
        self.scores = {piece: np.float32(self.model.get_score(i)) for piece, i in self.ids.items()}
        self.longest = max(map(len, self.ids))
        self.unknown_score = np.float32(min(self.scores.values()) - np.float32(10))
        self.split = getattr(self, kind)

    def encode(self, text):
        ids = [self.ids.get(piece, self.model.unk_id()) for piece in self.split(self.model.normalize(text))]
        return [i for n, i in enumerate(ids) if not (n and i == ids[n - 1] == self.model.unk_id())]

    def unigram(self, text):
        """The most probable path, in the precision of the original."""
        best = [(np.float32(0), 0)] + [None] * len(text)
        for start in range(len(text)):
            for end in range(start + 1, min(len(text), start + self.longest) + 1):
                score = self.scores.get(text[start:end])
                if score is None:
                    if end > start + 1:
                        continue
                    score = self.unknown_score
                total = score + best[start][0]
                if best[end] is None or total > best[end][0]:
                    best[end] = (total, start)
        pieces, end = [], len(text)
        while end:
            start = best[end][1]
            pieces.append(text[start:end])
            end = start
        return pieces[::-1]

    def bpe(self, text):
        """Joins the best pair, the first of equals, until none is left. No piece crosses a space."""
        pieces = []
        for word in text.replace(SPACE, f"\n{SPACE}").split("\n"):
            symbols = list(word)
            while True:
                pairs = [
                    (-self.scores[a + b], i)
                    for i, (a, b) in enumerate(zip(symbols, symbols[1:], strict=False))
                    if a + b in self.scores
                ]
                if not pairs:
                    break
                i = min(pairs)[1]
                symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
            pieces += symbols
        return pieces

    def char(self, text):
        return list(text)

    def word(self, text):
        return [word for word in text.replace(SPACE, f"\n{SPACE}").split("\n") if word]


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("source", ["python", "novels", "unicode"])
def test_agrees_with_the_reference(text_encoders, kind, source, tmp_path):
    texts = {
        "python": lambda: python_lines(10_000 if kind == "unigram" else 3000),
        "novels": lambda: novel_lines(3000 if kind == "unigram" else 1000),
        "unicode": lambda: STRANGE + random_texts(1000),
    }[source]()
    reference = Reference(text_encoders[kind], kind, tmp_path)
    expected = [reference.encode(text) for text in texts]
    for text, actual, ids in zip(texts, text_encoders[kind].encode_batch(texts), expected, strict=True):
        assert actual == ids, text
    ids, lengths = text_encoders[kind].encode_flat(texts)
    assert ids.tolist() == sum(expected, []) and lengths.tolist() == list(map(len, expected))


def test_special_tokens_are_the_first_six(text_encoders):
    for text_encoder in text_encoders.values():
        names = ["<pad>", "<unk>", "<s>", "</s>", "<del>", "<msk>"]
        assert [text_encoder.id_to_token(i) for i in range(6)] == names
        ids = [text_encoder.pad_id, text_encoder.unk_id, text_encoder.bos_id, text_encoder.eos_id]
        assert [*ids, text_encoder.del_id, text_encoder.msk_id] == list(range(6))
        assert text_encoder.special_ids == set(range(6))


@pytest.mark.parametrize("kind", SIZES)
def test_vocab_size_is_what_was_asked_for(text_encoders, kind):
    assert text_encoders[kind].vocab_size == SIZES[kind]


def test_literal_special_tokens_in_the_training_text_do_not_become_special():
    lines = ["some<msk>text <del> and<s>more</s> <pad> with < and > signs"] * 50
    text_encoder = SentencePieceTextEncoder.train(lines, 40, "bpe")
    assert set(text_encoder.encode(lines[0])).isdisjoint(text_encoder.special_ids - {text_encoder.unk_id})


def test_byte_fallback_and_lower_case():
    lines = python_lines(1000)
    text_encoder = SentencePieceTextEncoder.train(lines, 900, byte_fallback=True, lower_case=True)
    text = "smile 😀 中文 ë"
    assert text_encoder.decode(text_encoder.encode(text)) == text
    assert text_encoder.encode("HELLO World") == text_encoder.encode("hello world")


def foreign_model(**options):
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(python_lines(500)),
        model_writer=writer,
        vocab_size=300,
        minloglevel=2,
        **options,
    )
    return writer.getvalue()


def test_a_model_without_special_tokens_gets_rows_at_the_end(tmp_path):
    path = tmp_path / "foreign.model"
    path.write_bytes(foreign_model(bos_id=-1))
    text_encoder = SentencePieceTextEncoder(path)
    bare = sentencepiece.SentencePieceProcessor(model_file=str(path))
    assert text_encoder.vocab_size == 304
    assert [text_encoder.id_to_token(i) for i in range(300, 304)] == ["<pad>", "<s>", "<del>", "<msk>"]
    assert (text_encoder.unk_id, text_encoder.eos_id) == (bare.unk_id(), bare.eos_id())
    assert text_encoder.special_ids == {bare.unk_id(), bare.eos_id(), 300, 301, 302, 303}
    for line in python_lines(100):
        assert text_encoder.encode(line) == bare.encode(line)
    assert text_encoder.decode([303, *text_encoder.encode("the class"), 301]) == "the class"


def test_a_model_with_special_tokens_of_other_names_keeps_them(tmp_path):
    path = tmp_path / "foreign.model"
    path.write_bytes(
        foreign_model(pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, control_symbols="[CLS],[SEP],[MASK]")
    )
    text_encoder = SentencePieceTextEncoder(path)
    assert text_encoder.vocab_size == 300
    assert text_encoder.bos_id == text_encoder.token_to_id("[CLS]")
    assert text_encoder.del_id == text_encoder.eos_id == text_encoder.token_to_id("[SEP]")
    assert text_encoder.msk_id == text_encoder.token_to_id("[MASK]")


@pytest.mark.parametrize("suffix", [False, True])
def test_words_begin_at_spaces(tmp_path, suffix):
    path = tmp_path / "foreign.model"
    path.write_bytes(foreign_model(treat_whitespace_as_suffix=suffix))
    text_encoder = SentencePieceTextEncoder(path)
    text = "a class statement defines something"
    ids, words = text_encoder.encode_words(text.split())
    starts = [i == 0 or words[i] != words[i - 1] for i in range(len(words))]
    assert text_encoder.starts_word(np.array(ids)).tolist() == starts
    assert ids == text_encoder.encode(text)


@pytest.mark.parametrize("kind", SIZES)
def test_sizes_that_do_not_fit_the_text(kind):
    lines = ["a bird in the hand is worth two in the bush"] * 3
    with pytest.raises(ValueError, match=r"vocab_size: expected at most \d+ .* got 8000") as error:
        SentencePieceTextEncoder.train(lines, 8000, kind)
    limit = int(str(error.value).split("at most ")[1].split()[0])
    assert SentencePieceTextEncoder.train(lines, limit, kind).vocab_size == limit
    for size in (-1, 0, 6):
        with pytest.raises(ValueError, match="vocab_size: expected more than the 6"):
            SentencePieceTextEncoder.train(lines, size, kind)
    if kind in ("unigram", "bpe"):
        with pytest.raises(ValueError, match=r"vocab_size: expected at least \d+ .* got 9"):
            SentencePieceTextEncoder.train(lines, 9, kind)


def test_wrong_options():
    with pytest.raises(ValueError, match="model_type.*unigram"):
        SentencePieceTextEncoder.train(["text"], model_type="wordpiece")
    with pytest.raises(ValueError, match="character_coverage"):
        SentencePieceTextEncoder.train(["text"], character_coverage=1.5)


def test_files_that_are_no_model(tmp_path, text_encoders):
    text_encoders["unigram"].save_model(tmp_path / "good.model")
    good = (tmp_path / "good.model").read_bytes()
    path = tmp_path / "bad.model"
    for content in (b"", b"some text\n", bytes(range(256)), good[: len(good) // 2], good[:100]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="bad.model"):
            SentencePieceTextEncoder(path)
    with pytest.raises(FileNotFoundError, match="missing.model"):
        SentencePieceTextEncoder(tmp_path / "missing.model")


def test_lines_that_name_folders_are_lines():
    lines = ["a bird in the hand", ".", "/", ".."] * 9
    assert SentencePieceTextEncoder.train(lines, vocab_size=18).encode(".")
