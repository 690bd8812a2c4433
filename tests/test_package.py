"""The house rules: imports go one way, Keras comes only where it is needed, files stay small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bert_keras

ROOT = Path(bert_keras.__file__).parent
ORDER = [
    "version",
    "advice",
    "schedules",
    "tasks",
    "text",
    "data",
    "plots",
    "encoders",
    "checkpoints",
    "training",
]
ORDER += ["use", "sharing", "__main__", "cli"]


def sources():
    return sorted(ROOT.rglob("*.py"))


def test_imports_go_one_way():
    wrong = []
    for path in sources():
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts == ("__init__",):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                if name.startswith("bert_keras.") and ORDER.index(name.split(".")[1]) > ORDER.index(parts[0]):
                    wrong.append((str(path), name))
    assert wrong == []


@pytest.mark.parametrize("module", ["bert_keras", "bert_keras.text", "bert_keras.data", "bert_keras.tasks"])
def test_no_keras_where_none_is_needed(module):
    code = (
        f"import sys, {module}\n"
        "heavy = {'keras', 'tensorflow', 'jax', 'torch', 'spacy', 'ftfy', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there():
    assert all(getattr(bert_keras, name) is not None for name in bert_keras.__all__)
    assert set(bert_keras.__all__) <= set(dir(bert_keras))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = bert_keras.no_such_name


def test_type_checkers_see_the_same_names():
    source = (ROOT / "__init__.py").read_text(encoding="utf-8")
    block = next(node for node in ast.parse(source).body if isinstance(node, ast.If))
    imported = {(node.module, alias.asname) for node in block.body for alias in node.names}
    assert imported == {(home, name) for home, names in bert_keras._HOMES.items() for name in names}


def test_files_are_small():
    sizes = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    assert {path: size for path, size in sizes.items() if size > 400} == {}
