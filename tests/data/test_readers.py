"""From files of labels to sentences: columns, JSON, fastText, CoNLL, SQuAD; what is refused or skipped."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bert_keras import BERTTextEncoder, TaskMetadata
from bert_keras.data import (
    Example,
    encode_examples,
    label_names,
    labelled_generator,
    read_conll,
    read_delimited,
    read_fasttext,
    read_jsonl,
    read_records,
    read_squad,
)

WORDS = ["a", "b", "c", "d", "e", "f", "##s", "who", "?", ",", "é"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    vocab = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    vocab.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]), encoding="utf-8")
    return BERTTextEncoder(vocab)


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8", newline="")
    return path


def test_columns(tmp_path):
    tsv = write(tmp_path, "a.tsv", 'text\tlabel\tmore\na "b\tpos\tx\nc\t\ty\n')
    read = list(read_delimited(tsv, text="text", labels={"s": "label", "m": "more"}))
    assert [(e.text, e.labels) for e in read] == [('a "b', {"s": "pos", "m": "x"}), ("c", {"m": "y"})]
    assert read[1].where == f"{tsv}, line 3"
    numbered = write(tmp_path, "b.tsv", "1.5\tone\ttwo\n")
    [pair] = read_delimited(numbered, text=1, second_text=2, labels={"score": 0})
    assert (pair.text, pair.second_text, pair.labels) == ("one", "two", {"score": "1.5"})
    table = write(tmp_path, "c.csv", 'text,tags\n"a, ""b""\nc",x|y\nd,\n')
    read = list(read_delimited(table, text="text", labels={"t": "tags"}, label_separator="|"))
    assert [(e.text, e.labels) for e in read] == [('a, "b"\nc', {"t": ["x", "y"]}), ("d", {})]
    both = read_delimited([tsv, tsv], text="text", labels={"s": "label"})
    assert sum(1 for _ in both) == 4


def test_json_lines_and_records(tmp_path):
    path = write(tmp_path, "a.jsonl", '{"t": "a", "y": ["p", "q"]}\n\n{"t": "b", "y": null}\n')
    read = list(read_jsonl(path, text="t", labels={"x": "y"}))
    assert [(e.text, dict(e.labels)) for e in read] == [("a", {"x": ["p", "q"]}), ("b", {})]
    assert read[1].where.endswith("line 3")
    [words] = read_records([{"w": ["a", "b"], "tags": ["N", None]}], words="w", labels={"pos": "tags"})
    assert (words.words, words.labels) == (["a", "b"], {"pos": ["N", None]})


def test_a_dataset_with_class_names():
    class Dataset(list):
        features = {
            "label": SimpleNamespace(names=["neg", "pos"]),
            "tags": SimpleNamespace(feature=SimpleNamespace(names=["O", "B-X"])),
            "text": SimpleNamespace(dtype="string"),
        }

    rows = Dataset([{"text": "a", "label": 1, "tags": [1, 0]}, {"text": "b", "label": -1, "tags": []}])
    first, second = read_records(rows, labels={"s": "label", "t": "tags"})
    assert first.labels == {"s": "pos", "t": ["B-X", "O"]}
    assert second.labels["s"] == -1


def test_conll(tmp_path):
    text = "-DOCSTART- X\n\n# a comment\n1-2\tab\t_\n1\ta\tN\n2\tb\tV\n2.1\te\tE\n\n\n1\t#\tP\n2\tc\t_\n"
    first, second = read_conll(write(tmp_path, "a.conllu", text), word=1, labels={"pos": 2})
    assert (first.words, first.labels) == (["a", "b"], {"pos": ["N", "V"]})
    assert (second.words, second.labels) == (["#", "c"], {"pos": ["P", None]})
    [spaces] = read_conll(write(tmp_path, "b.txt", "# O\nb B-X\n"), labels={"ner": -1})
    assert (spaces.words, spaces.labels) == (["#", "b"], {"ner": ["O", "B-X"]})


def test_fasttext(tmp_path):
    path = write(tmp_path, "a.txt", "__label__1 a  b __label__2 __label__1\nc\n\n")
    read = list(read_fasttext(path, "t"))
    assert [(e.text, e.labels) for e in read] == [("a b", {"t": ["1", "2"]}), ("c", {"t": []})]


def squad(*questions, context="a b cs d"):
    return json.dumps({"data": [{"paragraphs": [{"context": context, "qas": list(questions)}]}]})


def test_squad(tmp_path, encoder):
    found = {"id": "1", "question": "who ?", "answers": [{"text": "cs", "answer_start": 4}]}
    none = {"id": "2", "question": "who ?", "is_impossible": True, "answers": []}
    examples = list(read_squad(write(tmp_path, "a.json", squad(found, none)), "answer"))
    assert [e.labels for e in examples] == [{"answer": [(4, "cs")]}, {"answer": []}]
    sentences = encode_examples(encoder, examples, [TaskMetadata("answer", False, kind="span")])
    tokens = [encoder.id_to_token(i) for i in sentences[0].tokens]
    assert tokens == ["[CLS]", "who", "?", "[SEP]", "a", "b", "c", "##s", "d", "[SEP]"]
    assert sentences[0].segments == [0] * 4 + [1] * 6
    assert [s.sentence_classification["answer"].target for s in sentences] == [(6, 7), (0, 0)]
    wrong = Example("who ?", "a b", labels={"answer": [(1, "b")]}, where="x.json")
    with pytest.raises(ValueError, match='x.json: the answer "b".*not at character 1.*where there is " "'):
        encode_examples(encoder, [wrong], [TaskMetadata("answer", False, kind="span")])


def test_answers_in_windows(encoder):
    context = " ".join("abcdef"[i % 6] for i in range(40))
    task, start = TaskMetadata("answer", False, kind="span"), 2 * 22
    example = Example("who ?", context, labels={"answer": [(start, context[start : start + 5])]})
    rows = encode_examples(encoder, [example], [task], max_len=20, stride=6, long_texts="windows")
    ids, found = encoder.encode(context), 0
    for row, begin in zip(rows, range(0, 40, 9), strict=False):
        own = row.tokens[4:-1]
        assert own == ids[begin : begin + 15]
        target = row.sentence_classification["answer"].target
        if begin <= 22 and 24 < begin + 15:
            assert target == (4 + 22 - begin, 4 + 24 - begin)
            found += 1
        else:
            assert target == (0, 0)
    assert found >= 1 and len(rows) == 4


def test_labels_become_numbers(encoder):
    tasks = [
        TaskMetadata("s", False, labels=("no", "yes")),
        TaskMetadata("m", False, kind="multi_label", labels=("x", "y", "z")),
        TaskMetadata("r", False, kind="regression"),
        TaskMetadata("t", True, labels=("N", "V")),
        TaskMetadata("plain", False, 3),
    ]
    examples = [
        Example("a b", labels={"s": "yes", "m": ["z", "x"], "r": "1.5", "plain": "2", "unknown": "?"}),
        Example("a", "b cs", labels={"m": [], "r": 2}),
        Example(words=["as", "", "b"], labels={"t": ["V", "N", None], "s": "no"}),
    ]
    one, two, three = encode_examples(encoder, examples, tasks)
    assert one.sentence_classification == {"s": (1, 0), "m": ((0, 2), 0), "r": (1.5, 0), "plain": (2, 0)}
    assert two.sentence_classification == {"m": ((), 0), "r": (2.0, 0)}
    assert [encoder.id_to_token(i) for i in two.tokens] == ["[CLS]", "a", "[SEP]", "b", "c", "##s", "[SEP]"]
    assert three.token_classification["t"].target == [0, 1, 0, 0, 0]
    assert three.token_classification["t"].target_mask == [False, True, False, False, False]
    assert encode_examples(encoder, examples[:1], tasks, read_from="last")[0].sentence_classification[
        "s"
    ] == (1, 3)
    batch = labelled_generator([one, two, three], pad_id=0, batch_size=3, shuffle=False)[0]
    assert batch.sentence_classification["r"].target.dtype == np.float32
    assert label_names(examples, "m") == ("x", "z")
    assert label_names(examples, "t") == ("N", "V")


@pytest.mark.parametrize("long_texts", ["cut_end", "cut_start", "windows"])
def test_long_texts(encoder, long_texts):
    words = ["abcdef"[i % 6] for i in range(30)]
    task = TaskMetadata("t", True, 30)
    example = Example(words=words, labels={"t": [str(i) for i in range(30)]})
    rows = encode_examples(encoder, [example], [task], max_len=12, stride=4, long_texts=long_texts)
    seen = []
    for row in rows:
        target, mask = row.token_classification["t"]
        assert len(row.tokens) <= 12
        for token, number, has in zip(row.tokens, target, mask, strict=True):
            if has:
                assert token == encoder.token_to_id(words[number])
                seen.append(number)
    wanted = {"cut_end": range(10), "cut_start": range(20, 30), "windows": range(30)}[long_texts]
    assert sorted(seen) == list(wanted)
    with pytest.raises(ValueError, match="32 tokens, more than max_len=12"):
        encode_examples(encoder, [example], [task], max_len=12, long_texts="refuse")


GOOD = {"sentence.tsv": "text\tlabel\na\tx\n"}


@pytest.mark.parametrize(
    ("name", "content", "read", "message"),
    [
        ("a.tsv", "text\tlabel\na\tx\nb\n", "delimited", r"a.tsv, line 3: expected 2 columns, got 1"),
        ("a.tsv", "sentence\tlabel\na\tx\n", "delimited", r"no one column 'text'.*\['sentence', 'label'\]"),
        ("a.tsv", "text\ttext\tlabel\na\tb\tx\n", "delimited", "no one column 'text'"),
        ("a.csv", 'text,label\n"a,x\n', "delimited", "a.csv, line 2: unexpected end of data"),
        ("a.jsonl", '{"text": "a", "label": "x"}\n{"text": \n', "jsonl", "a.jsonl, line 2"),
        ("a.jsonl", "[1]\n", "jsonl", "line 1: expected an object with keys, got list"),
        ("a.jsonl", '{"text": "a"}\n', "jsonl", r"line 1: there is no 'label'. Its keys: \['text'\]"),
        ("a.jsonl", '{"text": 3, "label": "x"}\n', "jsonl", "'text' must be a string. It is: 3"),
        ("a.conll", "a x\nb\n\n", "conll", "a.conll, line 2: expected at least 2 columns, got 1"),
        ("a.txt", "__label__a\n", "fasttext", "line 1: there are labels and no text"),
        ("a.json", '{"version": 1}', "squad", "no 'data'"),
        ("a.json", '{"data": [{"paragraphs": [{"qas": [{"id": 1}]}]}]}', "squad", "question 1: .*'answers'"),
    ],
)
def test_faulty_files(tmp_path, name, content, read, message):
    path = write(tmp_path, name, content)
    readers = {
        "delimited": lambda **a: read_delimited(path, text="text", labels={"t": "label"}, **a),
        "jsonl": lambda **a: read_jsonl(path, labels={"t": "label"}, **a),
        "conll": lambda **a: read_conll(path, labels={"t": 1}, **a),
        "fasttext": lambda **a: read_fasttext(path, "t", **a),
        "squad": lambda **a: read_squad(path, "t", **a),
    }
    with pytest.raises(ValueError, match=f"(?s){message}"):
        list(readers[read]())


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (Example(" \t", labels={"s": "yes"}), "the text is empty"),
        (Example("a", " ", labels={"s": "yes"}), "the second text is empty"),
        (
            Example("a", labels={"s": "maybe"}),
            r"the label \"maybe\" of task 's' is unknown. Known are \['no', 'yes'\]",
        ),
        (Example("a", labels={"r": "much"}), "the label \"much\" of task 'r' is no number"),
        (Example("a", labels={"p": "3"}), "no class from 0 to 2"),
        (Example("a", labels={"t": ["N"]}), "'t' is token-level and needs `words`"),
        (Example(words=["a", "b"], labels={"t": ["N"]}), "2 words, labels"),
    ],
)
def test_faulty_examples_are_refused_or_skipped(encoder, example, message):
    tasks = [
        TaskMetadata("s", False, labels=("no", "yes")),
        TaskMetadata("r", False, kind="regression"),
        TaskMetadata("p", False, 3),
        TaskMetadata("t", True, labels=("N",)),
    ]
    example.where = "some.tsv, line 7"
    with pytest.raises(ValueError, match=f"some.tsv, line 7: .*{message}.*on_error='skip'"):
        encode_examples(encoder, [example], tasks)
    good = Example("a b", labels={"s": "no"})
    with pytest.warns(UserWarning, match="1 examples were left out. The first: some.tsv, line 7"):
        kept = encode_examples(encoder, [example, good], tasks, on_error="skip")
    assert len(kept) == 1


def test_skipped_lines_are_counted(tmp_path):
    path = write(tmp_path, "a.tsv", "text\tlabel\n" + "a\tx\nb\n" * 5)
    with pytest.warns(UserWarning, match="5 examples were left out. The first: .*line 3.*line 5.*line 7"):
        read = list(read_delimited(path, text="text", labels={"t": "label"}, on_error="skip"))
    assert len(read) == 5


@pytest.mark.skipif("BERT_KERAS_DATA" not in os.environ, reason="needs BERT_KERAS_DATA")
def test_real_files():
    data = Path(os.environ["BERT_KERAS_DATA"])
    sst2 = list(read_delimited(data / "sst2/train.tsv", text=0, labels={"s": 1}))
    assert len(sst2) == 6920 and label_names(sst2, "s") == ("0", "1")
    pairs = list(read_delimited(data / "stsb/dev.tsv", text=1, second_text=2, labels={"r": 0}))
    assert np.mean([float(e.labels["r"]) for e in pairs]) == pytest.approx(2.364, abs=1e-3)
    pos = list(read_conll(data / "ud-ewt/dev.tsv", labels={"pos": 1}))
    assert (len(pos), sum(len(e.words) for e in pos)) == (2001, 25147)
    assert len(label_names(pos, "pos")) == 17
    ner = list(read_conll(data / "ner/train.tsv", labels={"ner": 1}))
    assert (len(ner), len(label_names(ner, "ner"))) == (3394, 13)
    topics = list(read_fasttext(data / "multi-label/train.txt", "topics"))
    assert (len(topics), len(label_names(topics, "topics"))) == (7500, 1989)
