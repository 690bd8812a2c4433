"""Published tokenizer files that ask for something else, contradict each other, or are damaged."""

import json
import shutil

import pytest
from tokenizers import Tokenizer

from bert_keras.text import BERTTextEncoder, ByteLevelBPETextEncoder, load_text_encoder, save_tokenizer_files

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "bird", "##s", "entity", "##mark", "new"]


@pytest.fixture
def bert(tmp_path):
    """A directory as `transformers` writes it, and nothing of ours."""
    return written(BERTTextEncoder.from_vocabulary(VOCAB, max_word_characters=100), tmp_path / "b", "bert")


@pytest.fixture
def roberta(byte_level_files, tmp_path):
    ours = ByteLevelBPETextEncoder(byte_level_files / "vocab.json", byte_level_files / "merges.txt")
    return written(ours, tmp_path / "r", "roberta")


def written(text_encoder, directory, model_type):
    save_tokenizer_files(text_encoder, directory, model_type)
    (directory / "text_encoder.json").unlink()
    (directory / "config.json").write_text(json.dumps({"model_type": model_type}))
    assert load_text_encoder(directory).fingerprint == text_encoder.fingerprint
    return directory


def change(path, **fields):
    """Sets fields of a JSON file; `a__b` is field `b` of `a`."""
    content = json.loads(path.read_text()) if path.exists() else {}
    for name, value in fields.items():
        *outer, last = name.split("__")
        place = content
        for key in outer:
            place = place[key]
        place[last] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"model__unk_token": "oov"}, "`model`: `unk_token` 'oov' is not supported"),
        ({"model__continuing_subword_prefix": "@@"}, "`continuing_subword_prefix` '@@' is not supported"),
        ({"model__max_input_chars_per_word": 1 << 70}, "`max_input_chars_per_word` of at least 1"),
        ({"normalizer": None}, "expected `normalizer` of type BertNormalizer, got None"),
        ({"normalizer__clean_text": False}, "`normalizer`: `clean_text` False is not supported"),
        ({"normalizer__handle_chinese_chars": False}, "`handle_chinese_chars` False is not supported"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "expected `pre_tokenizer` of type BertPreTokenizer"),
        ({"model__vocab__a": 6, "model__vocab__bird": 5}, "vocab.txt' and tokenizer.json beside it differ"),
        ({"added_tokens": None}, "expected `added_tokens` of tokenizer.json to be a list"),
        ({"added_tokens": ["x"]}, "expected added tokens to be text with an id, got None with None"),
        ({"added_tokens": [{"id": 11}]}, "expected added tokens to be text with an id, got None with 11"),
        ({"added_tokens": [{"id": 6, "content": "a"}]}, "'a' the id 6, but also the id 5"),
    ],
)
def test_wordpiece_in_tokenizer_json(bert, fields, problem):
    change(bert / "tokenizer.json", **fields)
    with pytest.raises(ValueError, match=problem):
        load_text_encoder(bert)


@pytest.mark.parametrize(
    ("name", "fields", "problem"),
    [
        ("tokenizer_config.json", {"do_basic_tokenize": False}, "`do_basic_tokenize` False is not supported"),
        ("tokenizer_config.json", {"never_split": ["a"]}, r"`never_split` \['a'\] is not supported"),
        ("tokenizer_config.json", {"cls_token": "<s>"}, "`cls_token` '<s>' is not supported"),
        ("special_tokens_map.json", {"unk_token": {"content": "oov"}}, "map.json': `unk_token` 'oov' is not"),
        ("tokenizer_config.json", {"tokenizer_class": "BertJapaneseTokenizer"}, "'BertJapaneseTokenizer' is"),
        ("config.json", {"tokenizer_class": "BertJapaneseTokenizer"}, "'BertJapaneseTokenizer' is not"),
        ("config.json", {"model_type": ["bert"]}, r"has model_type \['bert'\], expected one of"),
        ("added_tokens.json", {"x": 11, "y": None}, "expected added tokens to be text with an id, got 'y'"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"z": {"content": "x"}}}, "got 'x' with 'z'"),
    ],
)
def test_wordpiece_settings(bert, name, fields, problem):
    change(bert / name, **fields)
    with pytest.raises(ValueError, match=problem):
        load_text_encoder(bert)


@pytest.mark.parametrize(
    ("name", "fields", "problem"),
    [
        ("tokenizer.json", {"normalizer": {"type": "NFC"}}, "`normalizer` {'type': 'NFC'} is not supported"),
        ("tokenizer.json", {"pre_tokenizer__use_regex": False}, "`use_regex` False is not supported"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Whitespace"}}, "`pre_tokenizer` of type ByteLevel"),
        ("tokenizer.json", {"model__dropout": 0.1}, "`dropout` 0.1 is not supported"),
        ("tokenizer.json", {"model__end_of_word_suffix": "</w>"}, "`end_of_word_suffix` '</w>' is not"),
        ("tokenizer.json", {"model__ignore_merges": True}, "`ignore_merges` True is not supported"),
        ("tokenizer.json", {"model__merges": []}, "merges.txt' and tokenizer.json beside it differ"),
        ("tokenizer.json", {"model__merges": None}, "expected a model with a list of merges, got None"),
        ("tokenizer_config.json", {"bos_token": "<|endoftext|>"}, "`bos_token` .* is not supported"),
        ("tokenizer_config.json", {"tokenizer_class": "BertweetTokenizer"}, "'BertweetTokenizer' is not"),
        ("tokenizer_config.json", {"add_prefix_space": "no"}, "to be true, false or null, got 'no'"),
        ("added_tokens.json", {"<e1>": 9999}, "without gaps, got .*9999, '<e1>'"),
        (
            "added_tokens.json",
            {"cytokine": 700},
            r"adds \['cytokine'\] to the vocabulary, not as special tokens",
        ),
    ],
)
def test_byte_level(roberta, name, fields, problem):
    change(roberta / name, **fields)
    with pytest.raises(ValueError, match=problem):
        load_text_encoder(roberta)


def test_added_special_tokens_keep_their_ids_and_are_special(bert, roberta):
    for directory, text in ((bert, "a bird entitymark [E1] birds"), (roberta, "a bird entitymark <e1>")):
        before = load_text_encoder(directory)
        size = before.vocab_size
        rust = Tokenizer.from_file(str(directory / "tokenizer.json"))
        rust.add_special_tokens(["[E1]", "entitymark"])
        rust.save(str(directory / "tokenizer.json"))
        after = load_text_encoder(directory)
        assert [after.token_to_id(token) for token in ("[E1]", "entitymark")] == [size, size + 1]
        assert after.special_ids == before.special_ids | {size, size + 1}
        assert after.encode(text) == before.encode(text)
        assert type(after).from_state(after.get_state()).special_ids == after.special_ids
        assert after.extended(["zebra"]).special_ids == after.special_ids
        change(directory / "added_tokens.json", **{"[E1]": size, "entitymark": size + 1})
        assert load_text_encoder(directory).fingerprint == after.fingerprint


def test_added_words_of_a_wordpiece_vocabulary_are_spelled(bert):
    change(bert / "added_tokens.json", cytokine=len(VOCAB))
    text_encoder = load_text_encoder(bert)
    assert text_encoder.encode("a cytokine") == [5, len(VOCAB)]
    assert len(VOCAB) not in text_encoder.special_ids


def test_lower_case_may_not_contradict_the_files(bert):
    assert load_text_encoder(bert, lower_case=True).lower_case
    with pytest.raises(ValueError, match="lower_case: got False, but the files in .* say True"):
        load_text_encoder(bert, lower_case=False)


def test_the_limit_is_that_of_whose_files_they_are(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    (tmp_path / "bert_config.json").write_text("{}")
    assert load_text_encoder(tmp_path).max_word_characters == 200
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert load_text_encoder(tmp_path).max_word_characters == 100


def test_without_config_the_vocabulary_tells(roberta):
    expected = load_text_encoder(roberta).fingerprint
    for name in ("config.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json"):
        (roberta / name).unlink()
        assert load_text_encoder(roberta).fingerprint == expected


def test_gpts_added_tokens_have_to_be_ours(gpt_files, tmp_path):
    pytest.importorskip("spacy")
    pytest.importorskip("ftfy")
    for source, name in zip(gpt_files, ("vocab.json", "merges.txt"), strict=True):
        shutil.copyfile(source, tmp_path / name)
    text_encoder = load_text_encoder(tmp_path)  # Its pieces end in "</w>".
    size = len(text_encoder.get_state()["vocab"])
    ours = {text_encoder.id_to_token(i): i for i in range(size, text_encoder.vocab_size)}
    (tmp_path / "added_tokens.json").write_text(json.dumps(ours))
    assert load_text_encoder(tmp_path).fingerprint == text_encoder.fingerprint
    (tmp_path / "added_tokens.json").write_text(json.dumps({"[CLS]": size}))
    with pytest.raises(ValueError, match=r"adds \['\[CLS\]'\] to GPT's vocabulary, where this library has"):
        load_text_encoder(tmp_path)


def test_paths_that_are_no_files(bert):
    with pytest.raises(ValueError, match="expected a directory, got the file"):
        load_text_encoder(bert / "vocab.txt")
    (bert / "added_tokens.json").mkdir()
    with pytest.raises(ValueError, match="added_tokens.json' to be a file; it is a directory"):
        load_text_encoder(bert)
