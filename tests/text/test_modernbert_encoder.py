"""ModernBERT's text encoder against the Rust tokenizer that its published form describes."""

import json
import unicodedata

import pytest
from conftest import modernbert_from
from test_byte_level_encoder import ODD, real_lines
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from bert_keras.text import ModernBERTTextEncoder, TextEncoder, load_text_encoder, save_tokenizer_files

SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
TEXTS = [
    *(text for text in ODD if "[" not in text and "\x00" not in text),
    "two  spaces,   three, and twelve            of them",
    "    indented\n        twice",
    "write to |||MAIL||| or [unused0].",
    unicodedata.normalize("NFD", "Déjà vu à l'école, Ångström, 한국어, ệ"),
    "a\u0327\u0301b x\u0301\u0323 \u2126\u212b",
]


@pytest.fixture
def ours(byte_level_files):
    return modernbert_from(byte_level_files)


@pytest.fixture
def published(ours, tmp_path):
    """Files as they are published: added tokens apart from the vocabulary, the mask with its space."""
    state = ours.get_state()
    count = state["vocab"].index(" " * 9)
    merges = [tuple(merge.split(" ")) for merge in state["merges"]]
    rust = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(state["vocab"][:count])}, merges=merges))
    rust.normalizer = normalizers.NFC()
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for token in state["vocab"][count:]:
        is_special = token in SPECIAL
        added = AddedToken(token, lstrip=token == "[MASK]", normalized=not is_special, special=is_special)
        (rust.add_special_tokens if is_special else rust.add_tokens)([added])
    rust.save(str(tmp_path / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "cls_token": "[CLS]", "mask_token": "[MASK]"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "modernbert"}))
    return tmp_path, rust


def change(directory, edit):
    path = directory / "tokenizer.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_ids_are_those_of_the_published_form(published, ours):
    directory, rust = published
    loaded = load_text_encoder(directory)
    assert loaded.fingerprint == ours.fingerprint
    for text in [*TEXTS, *real_lines(2000)]:
        assert loaded.encode(text) == rust.encode(text, add_special_tokens=False).ids, text
    special = (loaded.unk_id, loaded.bos_id, loaded.eos_id, loaded.pad_id, loaded.msk_id)
    assert [loaded.id_to_token(i) for i in special] == SPECIAL
    assert loaded.special_ids == set(special) and loaded.del_id == loaded.eos_id
    assert not loaded.special_ids & set(loaded.encode("a [MASK] [SEP]"))


def test_transformers_reads_what_is_written(ours, tmp_path):
    transformers = pytest.importorskip("transformers")
    save_tokenizer_files(ours, tmp_path, "modernbert")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "modernbert"}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = [*TEXTS, *real_lines(1000)]
    assert ours.encode_batch(texts) == theirs(texts, add_special_tokens=False)["input_ids"]
    pair = theirs("a bird", "birds")["input_ids"]
    assert pair == [
        ours.bos_id, *ours.encode("a bird"), ours.eos_id, *ours.encode("birds"), ours.eos_id
    ]  # fmt: skip
    assert (theirs.pad_token_id, theirs.mask_token_id) == (ours.pad_id, ours.msk_id)
    assert len(theirs) == ours.vocab_size
    (tmp_path / "text_encoder.json").unlink()
    assert load_text_encoder(tmp_path).fingerprint == ours.fingerprint
    (tmp_path / "config.json").unlink()
    assert type(load_text_encoder(tmp_path)) is ModernBERTTextEncoder


def test_offsets_are_those_of_the_text_as_it_was_given(ours):
    composed = "Déjà  vu à l'école"
    given = unicodedata.normalize("NFD", composed)
    ids, spans = ours.encode_with_offsets(given)
    same_ids, composed_spans = ours.encode_with_offsets(composed)
    assert ids == same_ids and len(given) > len(composed)
    for (a, b), (c, d) in zip(spans, composed_spans, strict=True):
        assert unicodedata.normalize("NFC", given[a:b]) == composed[c:d]
    for text in TEXTS:
        ids, spans = ours.encode_with_offsets(text)
        assert ids == ours.encode(text)
        starts = [start for start, _ in spans]
        assert starts == sorted(starts) and all(0 <= a <= b <= len(text) for a, b in spans)
        if unicodedata.is_normalized("NFC", text) and text.isascii():
            pieces = [ours.decode([i]).strip() for i in ids]
            assert [text[a:b].strip() for a, b in spans] == pieces, text


def test_words_come_back_from_a_file(ours, tmp_path):
    longer = ours.extended(["cytokine"])
    text = "a cytokine  in |||MAIL|||"
    assert longer.vocab_size - 1 in longer.encode(text) and longer.decode(longer.encode(text)) == text
    longer.save(tmp_path)
    again = TextEncoder.load(tmp_path)
    assert again.fingerprint == longer.fingerprint and again.encode(text) == longer.encode(text)
    with pytest.raises(ValueError, match="list 'plain_tokens'"):
        ModernBERTTextEncoder.from_state({**ours.get_state(), "plain_tokens": [3]})
    with pytest.raises(ValueError, match="plain_tokens: expected pieces of the vocabulary, got .'none'"):
        ModernBERTTextEncoder.from_state({**ours.get_state(), "plain_tokens": ["none"]})


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda c: c.update(normalizer={"type": "NFKC"}), "`normalizer` of type NFC"),
        (lambda c: c.update(pre_tokenizer={"type": "Whitespace"}), "`pre_tokenizer` of type ByteLevel"),
        (lambda c: c["model"].update(unk_token="<unk>"), "`unk_token` '<unk>' is not supported"),
        (lambda c: c["added_tokens"][0].update(rstrip=True), r"has \['rstrip'\], which is not supported"),
        (lambda c: c["added_tokens"][0].update(id=5), "without gaps, got .*5, "),
    ],
)
def test_what_would_change_ids_is_refused(published, edit, problem):
    change(published[0], edit)
    with pytest.raises(ValueError, match=problem):
        load_text_encoder(published[0])


def test_it_needs_its_file(published, ours):
    (published[0] / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="expected tokenizer.json"):
        load_text_encoder(published[0])
    with pytest.raises(ValueError, match="no ModernBERTTextEncoder for model_type 'roberta'"):
        save_tokenizer_files(ours, published[0], "roberta")
