"""What only the author of a model can say of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*|multilingual|code")
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Told:
    """The part of a model card that its author writes. `save_pretrained` explains the fields.

    Raises:
        ValueError: for a language that is no code, or a name that the Hub could not have.
    """

    name: str
    description: str | None
    data: str | None
    license: str | None
    language: tuple[str, ...]
    datasets: tuple[str, ...]
    base_model: str | None
    tags: tuple[str, ...]
    limitations: str | None

    def __post_init__(self) -> None:
        for field in ("name", "description", "data", "license", "limitations"):
            value = getattr(self, field)
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise ValueError(f"`{field}` must be a text, or None. Received: {field}={value!r:.100}")
        if "\n" in self.name:
            raise ValueError(f"`name` must be one line. Received: name={self.name!r}")
        for code in self.language:
            if not _LANGUAGE.fullmatch(code):
                raise ValueError(
                    "`language` must be codes of languages as the Hub knows them, such as 'en' or 'de', "
                    f"or 'multilingual'. Received: {code!r}"
                )
        names = {"datasets": self.datasets, "base_model": (self.base_model,) if self.base_model else ()}
        for field, given in names.items():
            for name in given:
                if not _HUB_NAME.fullmatch(name):
                    raise ValueError(
                        f"`{field}` must be given as on the Hub: 'name' or 'owner/name'. Received: {name!r}. "
                        "What has no such name is told in `data` and `description`."
                    )


def several(name: str, value: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return one text or a sequence of them as a tuple.

    Raises:
        ValueError: if it is anything else.
    """
    if value is None:
        return ()
    values = (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(each, str) and each for each in values):
        raise ValueError(f"`{name}` must be a text or several of them. Received: {name}={value!r:.100}")
    return values
