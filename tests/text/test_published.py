"""Published tokenizer files: the ids of `transformers`, from and to disk."""

import json
import os
import shutil
from pathlib import Path

import pytest
from test_byte_level_encoder import ODD, real_lines
from tokenizers import BertWordPieceTokenizer

from bert_keras.text import (
    BERTTextEncoder,
    ByteLevelBPETextEncoder,
    OpenAITextEncoder,
    SentencePieceTextEncoder,
    load_text_encoder,
    save_tokenizer_files,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)
TEXTS = [text for text in ODD if "<s>" not in text and "\x00" not in text]


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def wordpiece_files(request, tmp_path_factory):
    """A vocabulary trained by another library, with the files that `transformers` writes."""
    transformers = pytest.importorskip("transformers")
    directory = tmp_path_factory.mktemp("wordpiece")
    trained = BertWordPieceTokenizer(lowercase=request.param)
    trained.train_from_iterator(real_lines(3000), vocab_size=900, show_progress=False)
    trained.save_model(str(directory))
    transformers.BertTokenizerFast(str(directory / "vocab.txt"), do_lower_case=request.param).save_pretrained(
        directory
    )
    return directory


def with_type(source, target, model_type):
    shutil.copytree(source, target)
    (target / "config.json").write_text(json.dumps({"model_type": model_type}))
    return target


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "electra"])
@pytest.mark.parametrize("use_fast", [True, False])
def test_wordpiece_ids_are_those_of_transformers(wordpiece_files, model_type, use_fast, tmp_path):
    transformers = pytest.importorskip("transformers")
    directory = with_type(wordpiece_files, tmp_path / "model", model_type)
    theirs = transformers.AutoTokenizer.from_pretrained(directory, use_fast=use_fast)
    check_ids(load_text_encoder(directory), theirs, [*TEXTS, *real_lines(10_000)])
    (directory / "vocab.txt").unlink()
    assert (
        load_text_encoder(directory).encode_batch(TEXTS)
        == theirs(TEXTS, add_special_tokens=False)["input_ids"]
    )


def check_ids(text_encoder, theirs, lines):
    expected = theirs(lines, add_special_tokens=False)["input_ids"]
    for line, found, wanted in zip(lines, text_encoder.encode_batch(lines), expected, strict=True):
        assert found == wanted, line


def test_roberta_files(byte_level_files, tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.RobertaTokenizerFast(
        str(byte_level_files / "vocab.json"), str(byte_level_files / "merges.txt")
    )
    theirs.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta"}))
    check_ids(load_text_encoder(tmp_path), theirs, TEXTS)
    (tmp_path / "vocab.json").unlink()
    check_ids(load_text_encoder(tmp_path), theirs, TEXTS)


def gpt_files(directory):
    data = os.environ.get("BERT_KERAS_DATA")
    if data is None:
        pytest.skip("needs BERT_KERAS_DATA/openai-gpt")
    directory.mkdir(exist_ok=True)
    folder = Path(data) / "openai-gpt"
    shutil.copyfile(folder / "encoder_bpe_40000.json", directory / "vocab.json")
    shutil.copyfile(folder / "vocab_40000.bpe", directory / "merges.txt")
    (directory / "config.json").write_text(json.dumps({"model_type": "openai-gpt"}))
    return directory


def test_gpt_ids_are_those_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    directory = gpt_files(tmp_path / "gpt")
    theirs = transformers.OpenAIGPTTokenizer(str(directory / "vocab.json"), str(directory / "merges.txt"))
    check_ids(load_text_encoder(directory), theirs, real_lines(10_000))


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "electra", "roberta", "openai-gpt"])
def test_transformers_reads_what_is_written(model_type, wordpiece_files, byte_level_files, tmp_path):
    transformers = pytest.importorskip("transformers")
    if model_type == "roberta":
        ours = ByteLevelBPETextEncoder(byte_level_files / "vocab.json", byte_level_files / "merges.txt")
    elif model_type == "openai-gpt":
        ours = load_text_encoder(gpt_files(tmp_path / "gpt"))
    else:
        ours = load_text_encoder(wordpiece_files).extended(["cytokine"])
    out = tmp_path / "out"
    save_tokenizer_files(ours, out, model_type)
    (out / "config.json").write_text(json.dumps({"model_type": model_type}))
    theirs = transformers.AutoTokenizer.from_pretrained(out, use_fast=model_type != "openai-gpt")
    lines = [*real_lines(1000), "a cytokine in the blood"]
    check_ids(ours, theirs, lines)
    assert (theirs.pad_token_id, theirs.unk_token_id, theirs.mask_token_id) == (
        ours.pad_id,
        ours.unk_id,
        ours.msk_id,
    )
    assert len(theirs) == ours.vocab_size
    if model_type != "openai-gpt":
        first, *_, last = theirs("a bird")["input_ids"]
        assert (first, last) == (ours.bos_id, ours.eos_id)
    again = load_text_encoder(out)
    assert again.fingerprint == ours.fingerprint


def test_googles_directories(wordpiece_files, tmp_path):
    for name, lower_case in (("uncased_L-2", True), ("cased_L-2", False), ("chinese_L-12", True)):
        directory = tmp_path / name
        directory.mkdir()
        shutil.copyfile(wordpiece_files / "vocab.txt", directory / "vocab.txt")
        text_encoder = load_text_encoder(directory)
        assert (text_encoder.lower_case, text_encoder.max_word_characters) == (lower_case, 200)
        assert load_text_encoder(directory, lower_case=not lower_case).lower_case != lower_case


def test_accents_may_stay(tmp_path):
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "école", "ecole", "École"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    for settings, wanted in (
        ({"do_lower_case": True}, [6]),
        ({"do_lower_case": True, "strip_accents": False}, [5]),
        ({"do_lower_case": False, "strip_accents": None}, [7]),
    ):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        text_encoder = load_text_encoder(tmp_path)
        assert text_encoder.encode("École") == wanted
        assert BERTTextEncoder.from_state(text_encoder.get_state()).encode("École") == wanted


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("tokenizer.json", "{", "is not JSON, or it is damaged"),
        ("tokenizer.json", "[]", "expected a JSON object, got a list"),
        ("tokenizer_config.json", '{"tokenize_chinese_chars": false}', "is not supported"),
        (
            "tokenizer_config.json",
            '{"do_lower_case": "yes"}',
            "`do_lower_case` to be true, false or null, got 'yes'",
        ),
        ("tokenizer.json", '{"model": {"type": "Unigram"}}', "expected `model` of type WordPiece"),
        ("tokenizer.json", '{"normalizer": {"type": "NFC"}}', "expected `normalizer` of type BertNormalizer"),
        ("tokenizer.json", '{"model": {"max_input_chars_per_word": 0}}', "of at least 1, got 0"),
        ("added_tokens.json", '{"new": 99}', "without gaps, got .*99, 'new'"),
        ("config.json", '{"model_type": "t5"}', "has model_type 't5', expected one of"),
    ],
)
def test_what_is_not_supported_is_said(tmp_path, name, content, problem):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=problem):
        load_text_encoder(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither config.json nor tokenizer files"):
        load_text_encoder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "roberta"}')
    with pytest.raises(FileNotFoundError, match="expected vocab.json and merges.txt, or tokenizer.json"):
        load_text_encoder(tmp_path)


def test_what_transformers_cannot_read(tmp_path):
    sentencepiece = SentencePieceTextEncoder.train(["a bird in the hand"] * 9, vocab_size=17)
    with pytest.raises(ValueError, match="reads no SentencePieceTextEncoder for model_type 'bert'"):
        save_tokenizer_files(sentencepiece, tmp_path, "bert")
    assert not list(tmp_path.iterdir())
    assert OpenAITextEncoder.__name__ in str(
        pytest.raises(ValueError, save_tokenizer_files, sentencepiece, tmp_path, "openai-gpt").value
    )
