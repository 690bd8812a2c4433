"""Further words: one id each, where they stand as words, and nothing else changes."""

import os
import pickle
from pathlib import Path

import pytest

from bert_keras.text import (
    BERTTextEncoder,
    ByteLevelBPETextEncoder,
    OpenAITextEncoder,
    SentencePieceTextEncoder,
    TextEncoder,
)

LINES = ["the cell makes a protein", "a protein of the cell wall", "walls and cells and genes"] * 9
WORDS = ["cytokine", "interleukin"]
TEXT = "the cytokine of an interleukin, a cytokine!"
OTHERS = [*LINES, "cyto kine", "inter", "", "the  cell"]


def wordpiece():
    return BERTTextEncoder.train(LINES, vocab_size=60)


def sentencepiece(model_type="unigram"):
    return SentencePieceTextEncoder.train(LINES, vocab_size=30, model_type=model_type)


def openai():
    data = os.environ.get("BERT_KERAS_DATA")
    if data is None:
        pytest.skip("needs BERT_KERAS_DATA/openai-gpt")
    folder = Path(data) / "openai-gpt"
    return OpenAITextEncoder(folder / "encoder_bpe_40000.json", folder / "vocab_40000.bpe", num_workers=1)


@pytest.fixture(params=["WordPiece", "unigram", "bpe", "GPT", "byte level"])
def text_encoder(request, byte_level_files):
    if request.param == "WordPiece":
        return wordpiece()
    if request.param == "GPT":
        return openai()
    if request.param == "byte level":
        return ByteLevelBPETextEncoder(byte_level_files / "vocab.json", byte_level_files / "merges.txt")
    return sentencepiece(request.param)


def test_one_id_each_and_nothing_else_changes(text_encoder):
    size = text_encoder.vocab_size
    longer = text_encoder.extended(WORDS)
    assert longer.vocab_size == size + 2
    assert [i for i in longer.encode(TEXT) if i >= size] == [size, size + 1, size]
    assert longer.encode_batch(OTHERS) == text_encoder.encode_batch(OTHERS)
    assert [longer.id_to_token(i) for i in range(size)] == [text_encoder.id_to_token(i) for i in range(size)]
    roles = ("pad_id", "unk_id", "bos_id", "eos_id", "del_id", "msk_id", "special_ids")
    assert [getattr(longer, role) for role in roles] == [getattr(text_encoder, role) for role in roles]
    assert "cytokine" in longer.decode(longer.encode("the cytokine of"))
    assert longer.fingerprint != text_encoder.fingerprint
    assert text_encoder.vocab_size == size
    assert text_encoder.extended("cytokine").vocab_size == size + 1


def test_twice_and_from_disk(text_encoder, tmp_path):
    size = text_encoder.vocab_size
    longer = text_encoder.extended(WORDS[:1]).extended(WORDS[1:])
    assert longer.encode(TEXT) == text_encoder.extended(WORDS).encode(TEXT)
    longer.save(tmp_path)
    for again in (TextEncoder.load(tmp_path), pickle.loads(pickle.dumps(longer))):
        assert again.fingerprint == longer.fingerprint
        assert again.encode(TEXT) == longer.encode(TEXT)
        assert again.vocab_size == size + 2


def test_gpts_processes_know_the_words_too():
    longer = openai().extended(WORDS)
    parallel = pickle.loads(pickle.dumps(longer))
    parallel._num_workers = 2
    texts = [TEXT] * 10_000
    assert parallel.encode_batch(texts) == longer.encode_batch(texts[:1]) * len(texts)
    parallel.close()


def test_words_that_cannot_be_added(text_encoder):
    with pytest.raises(ValueError, match=r"'two words' is no single word; '' is no.*'gene' comes twice"):
        text_encoder.extended(["two words", "", "gene", "gene"])
    with pytest.raises(ValueError, match="there are none"):
        text_encoder.extended([])
    with pytest.raises(TypeError, match=r"words\[1\]: expected a string, got 3"):
        text_encoder.extended(["cytokine", 3])
    with pytest.raises(ValueError, match="'cytokine' is one piece already"):
        text_encoder.extended(["cytokine"]).extended(["cytokine"])


def test_the_form_has_to_be_that_of_the_text():
    with pytest.raises(ValueError, match="'Cytokine' would be spelled .*the form into which"):
        wordpiece().extended(["Cytokine"])
    with pytest.raises(ValueError, match="'IL-2' would be spelled"):
        openai().extended(["IL-2"])
