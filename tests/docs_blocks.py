"""The code blocks of a Markdown page, and how they are run: as they stand, in a small world.

An HTML comment before a block, which readers do not see, says what it takes for granted (`given: model,
batches`, or `given: model = masked_model` for an object of `World` under another name) or why it cannot run
(`no-run: needs a GPU`)."""

import re
import textwrap
from dataclasses import dataclass

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```", re.S | re.M)
_COMMENT = re.compile(r"<!-- (given|no-run): ([^>]*?) -->\s*\Z", re.S)


@dataclass(frozen=True)
class Block:
    """One block of a page: its language, its first line, its code, and what the comments before it say."""

    language: str
    line: int
    code: str
    given: str
    no_run: str


def blocks_of(text):
    found = []
    for match in _FENCE.finditer(text):
        before, said = text[: match.start()], {"given": "", "no-run": ""}
        while comment := _COMMENT.search(before):
            said[comment[1]] = comment[2]
            before = before[: comment.start()]
        line = text[: match.start()].count("\n") + 2
        code = textwrap.dedent(match["code"])
        found.append(Block(match["language"], line, code, said["given"], said["no-run"]))
    return found


def names_given(text):
    """From "a, b = c" to {"a": "a", "b": "c"}."""
    pairs = (part.partition("=") for part in text.split(",") if part.strip())
    return {name.strip(): (source.strip() or name.strip()) for name, _, source in pairs}


def compiled(block, page):
    """The code, with the line numbers of the page."""
    return compile("\n" * (block.line - 1) + block.code, str(page), "exec")


def commands_of(block):
    """The command lines of a shell block: without comments, continued lines joined, joined commands apart."""
    text = re.sub(r"\\\n\s*", " ", block.code)
    lines = (line.split(" # ")[0].strip() for line in text.splitlines())
    return [part.strip() for line in lines if line and line[0] != "#" for part in line.split("&&")]
