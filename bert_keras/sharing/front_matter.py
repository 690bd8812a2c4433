"""The little of YAML that a model card's front matter needs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

# Line breaks to YAML 1.1, or not printable to it. JSON leaves them as they are.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def to_yaml(value: Mapping[str, Any], indent: str = "") -> str:
    """Return a mapping of strings, numbers, and non-empty sequences and mappings of such as YAML. All strings
    are quoted, so none is taken for something else (`no`, `1.0`).

    Example:
        >>> print(to_yaml({"language": ["no"], "scores": [{"f1": 0.5}]}), end="")
        language:
        - "no"
        scores:
        - f1: 0.5
    """
    lines = []
    for name, part in value.items():
        if isinstance(part, Mapping):
            lines.append(f"{indent}{name}:\n{to_yaml(part, indent + '  ')}")
        elif isinstance(part, Sequence) and not isinstance(part, str):
            lines.append(f"{indent}{name}:\n" + "".join(_item(each, indent) for each in part))
        else:
            lines.append(f"{indent}{name}: {_scalar(part)}\n")
    return "".join(lines)


def _item(value: Any, indent: str) -> str:
    if isinstance(value, Mapping):
        block = to_yaml(value, indent + "  ")
        return f"{indent}- {block[len(indent) + 2 :]}"
    return f"{indent}- {_scalar(value)}\n"


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        quoted = json.dumps(value, ensure_ascii=False)
        return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)
    number = json.dumps(value)
    # YAML 1.1 takes 1e-05 for a text: it wants a point.
    return number.replace("e", ".0e") if isinstance(value, float) and "." not in number else number
