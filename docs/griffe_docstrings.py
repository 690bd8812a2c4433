"""For the API pages: what of our docstrings griffe does not know by itself."""

import re
from typing import Any

import griffe

_TITLES = ("Args:", "Attributes:")
_SEVERAL = re.compile(r" {4}(\w+(?:, \w+)+): ")


class OurDocstrings(griffe.Extension):
    """A session of `>>>` below `Example:` becomes code; names that share an entry get one each."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of an object that was read."""
        if obj.docstring is not None:
            text = obj.docstring.value
            text = re.sub(r"^Example:\n(?= +>>>)", "Examples:\n", text, flags=re.MULTILINE)
            obj.docstring.value = "\n".join(_lines(text))


def _lines(text: str) -> list[str]:
    """Return the lines, with `a, b: text` as `a: see b` and `b: text` in lists of names."""
    lines, is_list = [], False
    for line in text.split("\n"):
        if line and not line.startswith(" "):
            is_list = line in _TITLES
        if is_list and (match := _SEVERAL.match(line)):
            (*others, last), said = match[1].split(", "), line[match.end() :]
            lines += [f"    {name}: {said if said[:5] == 'as in' else f'see `{last}`.'}" for name in others]
            line = f"    {last}: {said}"
        lines.append(line)
    return lines
