"""The two ways of the README from a two-column file to predictions, as they stand there."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

import bert_keras
from bert_keras import BERTTextEncoder, create_transformer, save_huggingface
from bert_keras.cli import app

README = (Path(bert_keras.__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SECTION = README.split("## Your own labels, from a published encoder")[1].split("\n## ")[0]
WORDS = {"good": "up", "fine": "up", "bad": "down", "poor": "down"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What a newcomer has: a published encoder, labelled texts, new texts."""
    lines = [f"a {word} film\t{label}" for word, label in WORDS.items()] * 9
    (tmp_path / "train.tsv").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "new.txt").write_text("a fine film\na poor film\n", encoding="utf-8")
    text_encoder = BERTTextEncoder.train([line.split("\t")[0] for line in lines], vocab_size=43)
    encoder = create_transformer(text_encoder.vocab_size, 16, 24, 1, 2, seed=0)
    save_huggingface(encoder, tmp_path / "bert-directory", text_encoder=text_encoder, verbose=0)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def block(language):
    [found] = re.findall(rf"```{language}\n(.*?)```", SECTION, flags=re.DOTALL)
    return found


def test_three_commands(folder):
    commands = block("sh").splitlines()
    assert len(commands) == 3
    for command in commands:
        name, *arguments = shlex.split(command)
        assert name == "bert-keras"
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
    rows = (folder / "predicted.tsv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 2
    assert all(re.fullmatch(r"(up|down)\t[01]\.\d{4}", row) for row in rows)


def test_fifteen_lines(folder):
    code = block("python")
    assert len([line for line in code.splitlines() if line.strip()]) < 15
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README", "exec"), {})
    told = printed.getvalue().splitlines()[-2:]
    assert all(re.fullmatch(r"(up|down) [01]\.\d+", line) for line in told)
