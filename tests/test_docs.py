"""Every block of README and docs runs. Encoders are tiny and trainings stop after two steps; all else is as
it stands."""

import ast
import contextlib
import importlib.util
import io
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import keras
import pytest
from docs_blocks import blocks_of, commands_of, compiled, names_given
from typer.testing import CliRunner

import bert_keras
from bert_keras import plots
from bert_keras.cli import app
from bert_keras.cli.settings import FinetuneSettings, read_settings

pytest.importorskip("matplotlib")
if keras.backend.backend() != "tensorflow":
    pytest.skip("the pages run on TensorFlow, once", allow_module_level=True)

ROOT = Path(bert_keras.__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"python", "sh", "toml", "text", ""}
NOT_RUN = {"demo"}  # commands that take minutes; .ci/run has the quick start as a step of its own
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture
def here(world, tmp_path, monkeypatch):
    """A working directory with a copy of all files."""
    shutil.copytree(world.folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BERT_KERAS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def where(path):
    return str(path.relative_to(ROOT))


@pytest.mark.filterwarnings("ignore:.*experimental_run_functions_eagerly:UserWarning")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page.read_text("utf-8"))], ids=where)
def test_page(page, here, world):
    text = page.read_text(encoding="utf-8")
    names = {"__name__": "page"}
    if page.name == "README.md":  # its blocks leave the imports out
        exec("import numpy as np\nfrom bert_keras import *", names)
    for block in blocks_of(text):
        assert block.language in LANGUAGES, f"{where(page)}, line {block.line}: ```{block.language}"
        names |= {name: world.get(source) for name, source in names_given(block.given).items()}
        if block.language == "python":
            code = compiled(block, page)
            if block.no_run:
                check_names(block.code)
                continue
            with contextlib.redirect_stdout(io.StringIO()):
                exec(code, names)
        elif block.language == "sh":
            for command in commands_of(block):
                run_command(command, block.no_run)
        elif block.language == "toml":
            (here / "run.toml").write_text(block.code, encoding="utf-8")
            read_settings(FinetuneSettings, here / "run.toml", {})


def check_names(code):
    """What a block that cannot run imports from the package has to be there."""
    for module, found in re.findall(r"^\s*from (bert_keras[\w.]*) import ([^\n(]+|\([^)]*\))", code, re.M):
        for name in re.findall(r"\w+", found):
            assert hasattr(importlib.import_module(module), name), f"{module} has no {name}"


def run_command(command, no_run):
    words = shlex.split(command)
    while "=" in words[0]:
        words.pop(0)
    if words[0] == "bert-keras":
        name = next((word for word in words[1:] if not word.startswith("-")), None)
        assert name is None or name in {command.name or command.callback.__name__ for command in commands()}
        if name in NOT_RUN or no_run:
            return
        result = CliRunner().invoke(app, words[1:])
        assert result.exit_code == 0, f"{command}\n{result.output}"
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2].split("[")[0]) or words[2] in ("venv", "notebook"), command
        if words[2] == "pip":
            check_extras(command)
    else:
        assert words[0] in ("pip", "source", "mkdocs", "cd", "export", "tensorboard"), command
        check_extras(command)


def commands():
    return app.registered_commands


def check_extras(command):
    for extras in re.findall(r"\[([\w,]+)\]", command):
        assert {*extras.split(",")} <= {*PYPROJECT["project"]["optional-dependencies"]}, command


def test_every_block_that_does_not_run_has_a_reason():
    reasons = [block.no_run for page in PAGES for block in blocks_of(page.read_text("utf-8")) if block.no_run]
    assert len(reasons) <= 12 and all(len(reason) > 8 for reason in reasons)


def test_recipes_are_current(tmp_path):
    spec = importlib.util.spec_from_file_location("make_recipes", ROOT / "docs" / "make_recipes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert module.with_tables(page) == page, "run `python docs/make_recipes.py`"


def test_every_picture_has_an_example():
    page = (ROOT / "docs" / "pictures.md").read_text(encoding="utf-8")
    for name in plots.__all__:
        assert re.search(rf"\b{name}\(", page), f"docs/pictures.md has no example of {name}"
        if name != "principal_components":
            assert f"(pictures/{name}.png)" in page
    for other in ("concepts.md", "learning.md"):
        page += (ROOT / "docs" / other).read_text(encoding="utf-8")
    shown = set(re.findall(r"\(pictures/(\w+\.png)\)", page))
    files = {path.name: path.stat().st_size for path in (ROOT / "docs" / "pictures").iterdir()}
    assert shown == {*files} and max(files.values()) < 100_000


def test_the_api_pages_name_everything_public():
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md"))
    named = set(re.findall(r"^::: (\S+)$", pages, re.M))
    missing = [f"{home}.{name}" for home, names in bert_keras._HOMES.items() for name in names]
    for package in (*bert_keras._HOMES, "bert_keras.plots"):
        missing += [f"{package}.{name}" for name in getattr(importlib.import_module(package), "__all__", ())]
    assert not sorted({*missing} - named)
    for name in named:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_links_lead_somewhere():
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{where(page)}: {target}"


def test_troubleshooting_quotes_what_the_code_prints():
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    said = "\n".join(strings_of(path) for path in (ROOT / "bert_keras").rglob("*.py"))
    for block in blocks_of(page):
        if block.language == "text":
            for part in re.split(r"…|\n", block.code):
                assert part.strip(" .") in said, f"nothing prints {part!r}"
    symptoms = ast.parse((ROOT / "bert_keras" / "training" / "symptoms.py").read_text(encoding="utf-8"))
    doctor = ast.parse((ROOT / "bert_keras" / "training" / "doctor.py").read_text(encoding="utf-8"))
    names = [call.args[0] for tree in (symptoms, doctor) for call in ast.walk(tree) if is_finding(call)]
    assert len(names) >= 13
    for name in names:
        heading = text_of(name).replace("…", "lm")
        assert f"### {heading}\n" in page, heading


def is_finding(node):
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding"


def strings_of(path):
    return "\n".join(text_of(node) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def text_of(node):
    """A string as it is printed, with … for what is filled in; nothing for other nodes."""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
