"""For the API pages: a session of `>>>` below `Example:` is shown as code."""

import re
from typing import Any

import griffe


class SessionsAsCode(griffe.Extension):
    """Gives such a part of a docstring the title `Examples:`, by which griffe knows it."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of an object that was read."""
        if obj.docstring is not None:
            text = obj.docstring.value
            obj.docstring.value = re.sub(r"^Example:\n(?= +>>>)", "Examples:\n", text, flags=re.MULTILINE)
