"""Byte-level BPE: further words, control tokens, and bytes that a vocabulary lacks."""

import json
import random

import numpy as np
import pytest

from bert_keras.text import ByteLevelBPETextEncoder, TextEncoder


@pytest.fixture(scope="module")
def text_encoder(byte_level_files):
    return ByteLevelBPETextEncoder(byte_level_files / "vocab.json", byte_level_files / "merges.txt")


@pytest.mark.parametrize("add_prefix_space", [False, True])
def test_byte_level_text_around_a_new_word_is_spelled_as_before(byte_level_files, add_prefix_space):
    """Putting the word's old pieces in the place of its id gives the old ids, whatever stands around it."""
    paths = (byte_level_files / "vocab.json", byte_level_files / "merges.txt")
    old = ByteLevelBPETextEncoder(*paths, add_prefix_space=add_prefix_space)
    longer, new = old.extended(["cytokine"]), old.vocab_size
    bare = ByteLevelBPETextEncoder(*paths)
    spellings = (bare.encode(" cytokine"), bare.encode("cytokine"))
    generator = random.Random(0)
    spaces = ["", " ", "  ", "\n", "\n\n", " \n ", "\t", "\u00a0", "\u3000 "]
    around = [*spaces, "(", '"', "'s", "'", ".", ", ", "the", "x "]
    for _ in range(3000):
        before, after = ("".join(generator.choices(around, k=generator.randint(0, 3))) for _ in range(2))
        if before[-1:].isalnum() or after[:1].isalnum() or before.endswith("'"):  # No whole word, or its end.
            continue
        text = f"{before}cytokine{after}"
        ids = longer.encode(text)
        assert ids.count(new) == 1, text
        place = ids.index(new)
        possible = [ids[:place] + spelling + ids[place + 1 :] for spelling in spellings]
        assert old.encode(text) in possible, text
        if not add_prefix_space:
            assert longer.encode(longer.decode(ids)) == ids, text


def test_byte_level_words_are_whole(byte_level_files):
    old = ByteLevelBPETextEncoder(byte_level_files / "vocab.json", byte_level_files / "merges.txt")
    longer = old.extended(["IL", "IL-2", "C++"])
    for text in ("cILs", "ILs", "IL\u0301", "x_IL", "IL2", "IL_"):
        assert longer.encode(text) == old.encode(text), text
    new = [i - old.vocab_size for i in longer.encode("IL IL-2 (C++), IL-23 IL") if i >= old.vocab_size]
    assert new == [0, 1, 2, 0, 0]  # In "IL-23" the word is "IL".
    assert longer.decode(longer.encode("IL-2 and\nIL")) == "IL-2 and\n IL"
    assert longer.starts_word(np.array(longer.encode("a IL b"))).tolist() == [True, True, True]


def test_a_byte_that_the_vocabulary_lacks_is_unknown_and_does_not_vanish(byte_level_files):
    vocab = json.loads((byte_level_files / "vocab.json").read_text())
    tokens = [token for token in sorted(vocab, key=vocab.__getitem__) if "Q" not in token]
    merges = [line for line in (byte_level_files / "merges.txt").read_text().splitlines() if "Q" not in line]
    text_encoder = ByteLevelBPETextEncoder.from_vocabulary(tokens, merges[1:])
    ids = text_encoder.encode("aQb")
    assert [text_encoder.id_to_token(i) for i in ids] == ["a", "<unk>", "b"]


def test_control_tokens(text_encoder, tmp_path):
    state = text_encoder.get_state()
    vocab = [*state["vocab"], "<e1>", "<|end|>"]
    longer = ByteLevelBPETextEncoder.from_vocabulary(vocab, state["merges"], control_tokens=["<e1>"])
    new = {len(vocab) - 2, len(vocab) - 1}
    assert longer.special_ids == text_encoder.special_ids | new
    assert not new & set(longer.encode("<e1> x<e1> <|end|>"))
    longer.save(tmp_path)
    assert TextEncoder.load(tmp_path).special_ids == longer.special_ids
    with pytest.raises(ValueError, match=r"control_tokens: expected pieces of the vocabulary, got \['no'\]"):
        ByteLevelBPETextEncoder.from_vocabulary(vocab, state["merges"], control_tokens=["no"])


@pytest.mark.parametrize(
    "damage", [{"vocab": None}, {"words": "ab"}, {"add_prefix_space": 1}, {"control_tokens": {}}]
)
def test_damaged_states(text_encoder, damage):
    with pytest.raises(ValueError, match="the saved file is damaged"):
        ByteLevelBPETextEncoder.from_state({**text_encoder.get_state(), **damage})
    with pytest.raises(ValueError, match="expected pieces to be strings"):
        ByteLevelBPETextEncoder.from_state({**text_encoder.get_state(), "vocab": [["a"]]})
    with pytest.raises(ValueError, match="some come twice"):
        ByteLevelBPETextEncoder.from_state({**text_encoder.get_state(), "vocab": ["a", "a"]})
