"""Documents to sentences."""

import time

import pytest

from bert_keras.data import split_sentences

CASES = [
    ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
    (
        'He said "Stop!" Then he ran. (So did I.) We met.',
        ['He said "Stop!"', "Then he ran.", "(So did I.)", "We met."],
    ),
    ('"Stop!" he said. “Why?” she asked… Nothing.', ['"Stop!" he said.', "“Why?” she asked…", "Nothing."]),
    ("Dr. No met Mrs. A. B. Smith at 3.14 p.m. today.", ["Dr. No met Mrs. A. B. Smith at 3.14 p.m. today."]),
    ("What?! No... Really.", ["What?!", "No...", "Really."]),
    ("今天很好。明天呢？「好！」他说。", ["今天很好。", "明天呢？", "「好！」", "他说。"]),
    ("これはペンです。 それは本です｡", ["これはペンです。", "それは本です｡"]),
    ("Это дом. Где он? здесь. Да.", ["Это дом.", "Где он? здесь.", "Да."]),
    ("यह घर है। वह कहाँ है? هل هو هنا؟ نعم.", ["यह घर है।", "वह कहाँ है?", "هل هو هنا؟", "نعم."]),
    ("first line\n\nsecond line. Third", ["first line", "second line.", "Third"]),
    ("", []),
    (" \t ", []),
    ("...", ["..."]),
    ("no end", ["no end"]),
]


@pytest.mark.parametrize(("text", "sentences"), CASES)
def test_sentences(text, sentences):
    assert split_sentences(text) == sentences


@pytest.mark.parametrize("unit", [".", ". ", "。", '."', "a", "a. ", " ", "?!)", "Mr. ", "\n"])
def test_long_lines_take_linear_time(unit):
    text = unit * (500_000 // len(unit))
    start = time.perf_counter()
    sentences = split_sentences(text)
    assert time.perf_counter() - start < 5
    assert "".join("".join(sentences).split()) == "".join(text.split())
