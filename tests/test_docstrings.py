"""Every example in a docstring runs, in the same small world as those of the pages."""

import ast
import contextlib
import doctest
import importlib
import io
import pkgutil
import shutil
from pathlib import Path

import keras
import pytest
from docs_blocks import blocks_of

import bert_keras
from bert_keras import plots, use

pytest.importorskip("matplotlib")
if keras.backend.backend() != "tensorflow":
    pytest.skip("the examples run on TensorFlow, once", allow_module_level=True)

# What an example may leave out: objects of `World`, by name.
GIVEN = (
    "batch",
    "batches",
    "corpus",
    "encoder",
    "generator",
    "held_out",
    "is_next",
    "lm",
    "model",
    "report",
    "reviews",
    "pos",
    "rows",
    "seen",
    "sentiment",
    "tagged",
    "tasks",
    "text_encoder",
    "texts",
)
COMPILED_ONLY = {
    "bert_keras.checkpoints.download.download": "downloads; tests/checkpoints/test_download.py has a server",
    "bert_keras.training.comparison.compare_pretraining": "trains dozens; tests/training/test_comparison.py",
}


def modules():
    for info in pkgutil.walk_packages(bert_keras.__path__, "bert_keras."):
        if not info.name.endswith("__main__"):
            yield importlib.import_module(info.name)


def docstrings():
    """Names and texts of all docstrings with a block of code."""
    for module in modules():
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        for name, node in named(tree, module.__name__):
            text = ast.get_docstring(node) or ""
            if "```" in text:
                yield name, module, text


def named(node, name):
    yield name, node
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            yield from named(child, f"{name}.{child.name}")


EXAMPLES = list(docstrings())


@pytest.fixture(scope="module")
def shared(world, tmp_path_factory):
    """A working directory with a copy of all files."""
    folder = tmp_path_factory.mktemp("shared") / "here"
    shutil.copytree(world.folder, folder)
    return folder


@pytest.fixture
def here(shared, monkeypatch):
    monkeypatch.chdir(shared)
    monkeypatch.setenv("BERT_KERAS_CACHE", str(shared / "cache"))
    return shared


@pytest.mark.filterwarnings("ignore:.*experimental_run_functions_eagerly:UserWarning")
@pytest.mark.parametrize(("name", "module", "text"), EXAMPLES, ids=[name for name, _, _ in EXAMPLES])
def test_block(name, module, text, here, world):
    for block in blocks_of(text):
        code = compile(block.code, name, "exec")
        if name in COMPILED_ONLY:
            continue
        public = {each: getattr(bert_keras, each) for each in bert_keras.__all__}
        names = public | vars(plots) | vars(use) | vars(module) | {"keras": keras}
        exec("import numpy as np\nimport os\nfrom pathlib import Path", names)
        if "transformers." in block.code:
            names["transformers"] = pytest.importorskip("transformers")
        used = {node.id for node in ast.walk(ast.parse(block.code)) if isinstance(node, ast.Name)}
        names |= {each: world.get(each) for each in GIVEN if each in used}
        with contextlib.redirect_stdout(io.StringIO()):
            exec(code, names)


@pytest.mark.parametrize("module", [m for m in modules() if ">>>" in (Path(m.__file__).read_text("utf-8"))])
def test_session(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BERT_KERAS_CACHE", str(tmp_path))
    failed, tried = doctest.testmod(module, extraglobs=preset(module))
    assert not failed and (tried or "+SKIP" in Path(module.__file__).read_text("utf-8"))


def preset(module):
    import os

    import numpy as np

    return {"os": os, "np": np, "Path": Path, **vars(module)}


def test_public_names_have_an_example():
    lacking = []
    for home, names in bert_keras._HOMES.items():
        for name in names:
            each = getattr(importlib.import_module(home), name)
            text = getattr(each, "__doc__", "") or ""
            if callable(each) and "```" not in text and ">>>" not in text:
                lacking.append(f"{home}.{name}")
    assert lacking == []
