"""Readers of labelled data: TSV, CSV, JSON lines, CoNLL columns, fastText, SQuAD, dicts and `datasets`."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_keras.data.example import Example, Faults, OnError
from bert_keras.text import list_files, read_lines
from bert_keras.text.files import Source, parse_json, read_json_object

Column = str | int


def read_delimited(
    source: Source,
    *,
    text: Column,
    labels: Mapping[str, Column],
    second_text: Column | None = None,
    delimiter: str | None = None,
    label_separator: str | None = None,
    on_error: OnError = "raise",
) -> Iterator[Example]:
    """Read TSV or CSV files, a labelled text on each line.

    Args:
        source: a file, a pattern, a directory, or several.
        text: the column of the text: its name in the header, or its number from 0 in files without header.
        labels: from task name to column. An empty cell is no label.
        second_text: the column of the second text of pairs.
        delimiter: between columns: by default a comma in `.csv` files, and a tab in all others. With commas
            cells may be quoted (RFC 4180); with tabs quotes are characters like others.
        label_separator: what separates several labels in a cell, for multi-label tasks.
        on_error: `"raise"`, or `"skip"` and warn how many.

    Yields:
        The examples, one file after the other; a file is not held in memory.

    Raises:
        ValueError: naming file and line: a column that is not there, a line with too few or too many
            columns, an empty text, text that is not UTF-8.
        FileNotFoundError: there is no such file.

    Example:

    ```python
    examples = read_delimited("train.tsv", text="sentence", labels={"sentiment": "label"})
    ```
    """
    columns = {"text": text, **{f"labels[{task!r}]": column for task, column in labels.items()}}
    if second_text is not None:
        columns["second_text"] = second_text
    has_header = isinstance(text, str)
    if any(isinstance(column, str) != has_header for column in columns.values()):
        raise ValueError(f"Columns must all be names, or all be numbers. Received: {columns}")
    faults = Faults(on_error)
    for path in list_files(source):
        between = delimiter or ("," if ".csv" in path.suffixes else "\t")
        rows = _rows(path, between)
        header = next(rows, (1, []))[1] if has_header else None
        places = {name: _place(column, header, path, name) for name, column in columns.items()}
        width = None if header is None else len(header)
        for line, row in rows:
            where = f"{path}, line {line}"
            width = len(row) if width is None else width
            if len(row) != width or max(places.values()) >= width:
                faults.add(
                    f"{where}: expected {max(width, 1 + max(places.values()))} columns, got {len(row)}."
                )
                continue
            cells = {name: row[place] for name, place in places.items()}
            found = {task: cells[f"labels[{task!r}]"] for task in labels}
            yield Example(
                cells["text"],
                cells.get("second_text"),
                labels={
                    task: value.split(label_separator) if label_separator else value
                    for task, value in found.items()
                    if value.strip()
                },
                where=where,
            )
    faults.warn()


def read_jsonl(
    source: Source,
    *,
    text: str | None = "text",
    labels: Mapping[str, str],
    second_text: str | None = None,
    words: str | None = None,
    on_error: OnError = "raise",
) -> Iterator[Example]:
    """Read files with a JSON object on each line.

    Args:
        source: a file, a pattern, a directory, or several.
        text, second_text, words, labels: the keys, as in `read_records`.
        on_error: `"raise"`, or `"skip"` and warn how many.

    Yields:
        The examples.

    Raises:
        ValueError: naming file and line: a line that is no JSON object, or lacks a key.
        FileNotFoundError: there is no such file.

    Example:

    ```python
    examples = list(read_jsonl("reviews.jsonl", labels={"stars": "stars"}))
    ```
    """
    faults = Faults(on_error)

    def records() -> Iterator[tuple[str, Any]]:
        for path in list_files(source):
            for number, line in enumerate(read_lines(path), 1):
                if not line.strip():
                    continue
                try:
                    yield f"{path}, line {number}", parse_json(line.encode(), f"{path}, line {number}")
                except ValueError as error:
                    faults.add(str(error))

    yield from _from_records(records(), text, second_text, words, labels, {}, faults)
    faults.warn()


def read_records(
    records: Iterable[Mapping[str, Any]],
    *,
    text: str | None = "text",
    labels: Mapping[str, str],
    second_text: str | None = None,
    words: str | None = None,
    on_error: OnError = "raise",
) -> Iterator[Example]:
    """Read Python dicts, or a `datasets.Dataset`, whose class numbers become their names.

    Args:
        records: the dicts.
        text: key of the text, unless there are words.
        labels: from task name to key. None is no label.
        second_text: key of the second text of pairs.
        words: key of a list of words, for token-level tasks, instead of `text`.
        on_error: `"raise"`, or `"skip"` and warn how many.

    Yields:
        The examples.

    Raises:
        ValueError: naming the record (from 0) and the key that it lacks, or whose value is of a wrong type.

    Example:

    ```python
    read_records([{"text": "A fine film.", "stars": "5"}], labels={"stars": "stars"})
    ```
    """
    faults = Faults(on_error)
    numbered = ((f"record {number}", record) for number, record in enumerate(records))
    names = _class_names(getattr(records, "features", None) or {})
    yield from _from_records(numbered, text, second_text, words, labels, names, faults)
    faults.warn()


def read_conll(
    source: Source,
    *,
    labels: Mapping[str, int],
    word: int = 0,
    delimiter: str | None = None,
    on_error: OnError = "raise",
) -> Iterator[Example]:
    """Read words in columns, a word on each line and an empty line after each sentence.

    Lines that begin with `-DOCSTART-` are left out, and in CoNLL-U (`word=1`) comments, ranges of words
    (`1-2`) and empty nodes (`8.1`).

    Args:
        source: a file, a pattern, a directory, or several.
        labels: from task name to column, from 0; negative from the end. `_` is no label.
        word: the column of the word. 1 stands for CoNLL-U.
        delimiter: between columns; by default a tab if the line has one, else any white space.
        on_error: `"raise"`, or `"skip"` the sentence and warn how many.

    Yields:
        The sentences, with `words`.

    Raises:
        ValueError: naming file and line where a column is missing.
        FileNotFoundError: there is no such file.

    Example:

    ```python
    read_conll("train.conllu", word=1, labels={"pos": 3})
    ```
    """
    faults = Faults(on_error)
    least = 1 + max(column if column >= 0 else -column - 1 for column in (word, *labels.values()))
    for path in list_files(source):
        rows: list[list[str]] = []
        begin, problem = 1, ""
        for number, line in enumerate((*read_lines(path), ""), 1):
            if line.strip():
                begin = number if not rows else begin
                cells = line.split(delimiter or ("\t" if "\t" in line else None))
                if line.startswith("-DOCSTART-") or (word == 1 and not cells[0].isdigit()):
                    continue
                if len(cells) < least and not problem:
                    problem = f"{path}, line {number}: expected at least {least} columns, got {len(cells)}."
                rows.append(cells)
                continue
            if problem:
                faults.add(problem)
            elif rows:
                found = {
                    task: [None if row[column] == "_" else row[column] for row in rows]
                    for task, column in labels.items()
                }
                yield Example(words=[row[word] for row in rows], labels=found, where=f"{path}, line {begin}")
            rows, problem = [], ""
    faults.warn()


def read_fasttext(
    source: Source, task: str, *, prefix: str = "__label__", on_error: OnError = "raise"
) -> Iterator[Example]:
    """Read lines of words among which those with a prefix are labels, as fastText has them.

    Args:
        source: a file, a pattern, a directory, or several.
        task: name of the (multi-label) task.
        prefix: what labels begin with.
        on_error: `"raise"`, or `"skip"` and warn how many.

    Yields:
        The examples. A line without labels has an empty list of them.

    Raises:
        ValueError: naming file and line of a text without words.
        FileNotFoundError: there is no such file.

    Example:

    ```python
    examples = list(read_fasttext("topics.txt", "topics"))
    ```
    """
    faults = Faults(on_error)
    for path in list_files(source):
        for number, line in enumerate(read_lines(path), 1):
            words = line.split()
            found = [word.removeprefix(prefix) for word in words if word.startswith(prefix)]
            rest = [word for word in words if not word.startswith(prefix)]
            if rest:
                labels = {task: list(dict.fromkeys(found))}
                yield Example(" ".join(rest), labels=labels, where=f"{path}, line {number}")
            elif words:
                faults.add(f"{path}, line {number}: there are labels and no text.")
    faults.warn()


def read_squad(source: Source, task: str, *, on_error: OnError = "raise") -> Iterator[Example]:
    """Read questions and answers in the JSON of SQuAD 1.1 and 2.0.

    Args:
        source: a file, a pattern, a directory, or several.
        task: name of the span task.
        on_error: `"raise"`, or `"skip"` and warn how many.

    Yields:
        Pairs of question and context; the labels are the right answers, none where it is impossible.

    Raises:
        ValueError: naming the file and the question where something is missing or of a wrong type.
        FileNotFoundError: there is no such file.

    Example:

    ```python
    examples = list(read_squad("squad.json", "answer"))
    ```
    """
    faults = Faults(on_error)
    for path in list_files(source):
        try:
            articles = read_json_object(path)["data"]
            paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} is not in the form of SQuAD: there is no {error}.") from error
        for number, paragraph in enumerate(paragraphs):
            questions: list[Any] = paragraph.get("qas", []) if isinstance(paragraph, dict) else [None]
            for question in questions:
                where = f"{path}, paragraph {number}"
                try:
                    where = f"{path}, question {question['id']!r}"
                    answers = [] if question.get("is_impossible") else question["answers"]
                    found = [(int(answer["answer_start"]), str(answer["text"])) for answer in answers]
                    yield Example(
                        str(question["question"]), str(paragraph["context"]), None, {task: found}, where
                    )
                except (KeyError, TypeError, ValueError, AttributeError) as error:
                    faults.add(f"{where}: this is not in the form of SQuAD ({error}).")
    faults.warn()


def _rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    if delimiter != ",":
        for number, line in enumerate(read_lines(path), 1):
            if line:
                yield number, line.split(delimiter)
        return
    reader = csv.reader((f"{line}\n" for line in read_lines(path)), strict=True)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: {error}.") from error
        if row:
            yield reader.line_num, row


def _place(column: Column, header: Sequence[str] | None, path: Path, argument: str) -> int:
    if header is None:
        if not isinstance(column, int) or column < 0:
            raise ValueError(f"`{argument}` must be a column's number, from 0. Received: {column!r}")
        return column
    if header.count(str(column)) != 1:
        raise ValueError(f"{path} has no one column {column!r} (`{argument}`). Its header: {list(header)}")
    return list(header).index(str(column))


def _from_records(
    records: Iterable[tuple[str, Any]],
    text: str | None,
    second_text: str | None,
    words: str | None,
    labels: Mapping[str, str],
    names: Mapping[str, Callable[[Any], Any]],
    faults: Faults,
) -> Iterator[Example]:
    for where, record in records:
        if not isinstance(record, Mapping):
            faults.add(f"{where}: expected an object with keys, got {type(record).__name__}.")
            continue
        keys = [key for key in (text if words is None else None, second_text, words) if key is not None]
        if missing := [key for key in (*keys, *labels.values()) if key not in record]:
            faults.add(f"{where}: there is no {missing[0]!r}. Its keys: {sorted(map(str, record))}.")
            continue
        given = {key: record[key] for key in keys}
        if wrong := [k for k, value in given.items() if not isinstance(value, str) and k != words]:
            faults.add(f"{where}: {wrong[0]!r} must be a string. It is: {given[wrong[0]]!r:.80}.")
            continue
        if words is not None and not all(isinstance(word, str) for word in given[words]):
            faults.add(f"{where}: {words!r} must be a list of strings. It is: {given[words]!r:.80}.")
            continue
        yield Example(
            given[text] if words is None and text is not None else "",
            None if second_text is None else given[second_text],
            None if words is None else list(given[words]),
            {
                task: names.get(key, lambda value: value)(record[key])
                for task, key in labels.items()
                if record[key] is not None
            },
            where,
        )


def _class_names(features: Mapping[str, Any]) -> dict[str, Callable[[Any], Any]]:
    """Functions from numbers to names for the columns that have names, also those of lists."""
    functions: dict[str, Callable[[Any], Any]] = {}
    for key, feature in features.items():
        names = getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)
        if names:
            functions[key] = _namer(list(names))
    return functions


def _namer(names: list[str]) -> Callable[[Any], Any]:
    def name(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [name(part) for part in value]
        return names[value] if isinstance(value, int) and 0 <= value < len(names) else value

    return name
