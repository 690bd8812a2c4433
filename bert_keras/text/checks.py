"""Which of many texts cannot be encoded, and why."""

from collections.abc import Sequence


def check_text(text: str) -> str:
    """Returns a text; TypeError if it is none."""
    if not isinstance(text, str):
        raise TypeError(f"text: expected a string, got {text!r} ({type(text).__name__}).")
    return text


def check_texts(texts: Sequence[str], argument: str = "texts") -> None:
    """Raises the error that says which text cannot be encoded, and why; returns if all of them can.

    The tokenizer libraries refuse such texts by themselves, so this is called only to explain a failure.
    """
    if isinstance(texts, str):
        raise TypeError(
            f"{argument}: expected a sequence of strings, got one string. Pass [text], or use encode()."
        )
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"{argument}[{i}]: expected a string, got {text!r} ({type(text).__name__}).")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{argument}[{i}]: character {error.start} is the lone surrogate "
                f"U+{ord(text[error.start]):04X}, which is not Unicode text. Decode the text anew, or "
                "replace the character, for example with text.encode('utf-8', 'replace').decode('utf-8')."
            ) from error
