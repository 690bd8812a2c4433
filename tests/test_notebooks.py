"""The notebooks as they are kept: executed from top to bottom, without faults, paths or names that are gone.

That they run is tested by `.ci/run`, which executes each of them.
"""

import ast
import base64
import json
import pkgutil
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = [ROOT / "tutorial.ipynb", *sorted((ROOT / "notebooks").glob("*.ipynb"))]
PATHS = re.compile(
    r"(?<![\w./])/(?:tmp|home|root|work|usr|opt|var|mnt|Users|private)\b|\b[A-Z]:\\\w|site-packages"
)
TEMPORARY = re.compile(r"bert_keras_(?=\w*[_\d])\w{8}\b")  # as `tempfile` names folders

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def source(cell):
    """The Python of a cell, without IPython's magics."""
    lines = "".join(cell["source"]).splitlines()
    return "\n".join("" if line.startswith(("%", "!")) else line for line in lines)


def printed(output):
    """All that an output shows as text."""
    data = output.get("data", {})
    texts = [output.get("text", ""), *(data[kind] for kind in data if kind.startswith("text/"))]
    return "\n".join("".join(text) for text in texts)


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 6


@each_notebook
def test_executed_once_from_top_to_bottom(path):
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    assert sum(bool(cell["outputs"]) for cell in cells) >= len(cells) / 2


@each_notebook
def test_outputs_are_results(path):
    for number, cell in enumerate(code_cells(path), 1):
        for output in cell["outputs"]:
            where = f"{path.name}, cell [{number}]"
            assert output["output_type"] != "error", where
            assert output.get("name") != "stderr", f"{where} has a warning or a log: {printed(output)[:200]}"
            assert not {"\r", "\x1b"} & {*printed(output)}, f"{where} has a progress bar"
            assert not re.search(r"(?m)^WARNING|Warning: ", printed(output)), f"{where} has a warning"
            if picture := output.get("data", {}).get("image/png"):
                assert base64.b64decode("".join(picture)).startswith(b"\x89PNG"), where


@each_notebook
def test_outputs_tell_nothing_of_the_machine(path):
    for number, cell in enumerate(code_cells(path), 1):
        text = "\n".join(map(printed, cell["outputs"]))
        found = [match.group() for pattern in (PATHS, TEMPORARY) for match in pattern.finditer(text)]
        assert found == [], f"{path.name}, cell [{number}]"


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("/tmp/bert_keras_ab12cd3_/train.txt", True),
        ("written to /home/ada/x", True),
        ("C:\\Users\\ada", True),
        ("lib/python3.11/site-packages/keras", True),
        ("bert_keras_0a_1x2y3: BertModel", True),
        ("and/or, text/plain, //tmp", False),
        ("bert_keras_check.safetensors, bert_keras_quickstart", False),
    ],
)
def test_paths_are_recognised(text, is_found):
    assert bool(PATHS.search(text) or TEMPORARY.search(text)) is is_found


def names_used(path):
    """All names of this package that the code cells of a notebook take, dotted."""
    trees = [ast.parse(source(cell)) for cell in code_cells(path)]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    aliases = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            aliases |= {each.asname or each.name: each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            aliases |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    used = {*aliases.values()}
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            used.add(f"{aliases[node.value.id]}.{node.attr}")
    return {name for name in used if name.startswith("bert_keras.")}


def is_there(name):
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


@each_notebook
def test_names_of_the_library_exist(path):
    used = names_used(path)
    if path.stem != "backends_and_precision":  # its code is in a program of its own
        assert len(used) > 5
    assert [name for name in sorted(used) if not is_there(name)] == []


def test_missing_names_are_found(tmp_path):
    path = tmp_path / "x.ipynb"
    lines = [
        "import bert_keras as bk\n",
        "from bert_keras.data import Example, gone\n",
        "bk.missing(bk.plots)",
    ]
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": lines}]}), encoding="utf-8")
    missing = {name for name in names_used(path) if not is_there(name)}
    assert missing == {"bert_keras.data.gone", "bert_keras.missing"}
