"""What the tokenizer files of Hugging Face say: read, and refused where it is not supported."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_keras.text.files import read_json_object

Allowed = Mapping[str, tuple[Any, ...]]

WORDPIECE_TYPES = {
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "electra": "ElectraTokenizer",
}

_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend", None)
_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

# For each part of tokenizer.json the values with which ids are those of our text encoders; None: no part.
WORDPIECE_PARTS: Mapping[str, Allowed | None] = {
    "model": {"type": ("WordPiece",), "unk_token": ("[UNK]",), "continuing_subword_prefix": ("##",)},
    "normalizer": {"type": ("BertNormalizer",), "clean_text": (True,), "handle_chinese_chars": (True,)},
    "pre_tokenizer": {"type": ("BertPreTokenizer",)},
}
BYTE_LEVEL_PARTS: Mapping[str, Allowed | None] = {
    "model": {
        "type": ("BPE",),
        "dropout": (None, 0),
        "unk_token": (None, "<unk>"),
        "continuing_subword_prefix": (None, ""),
        "end_of_word_suffix": (None, ""),
        "fuse_unk": (None, False),
        "byte_fallback": (None, False),
        "ignore_merges": (None, False),
    },
    "normalizer": None,
    "pre_tokenizer": {"type": ("ByteLevel",), "use_regex": (True,)},
}

# The same for tokenizer_config.json, special_tokens_map.json and config.json.
WORDPIECE_SETTINGS: Allowed = {
    "tokenizer_class": (
        *(f"{name}Tokenizer{fast}" for name in ("Bert", "DistilBert", "Electra") for fast in ("", "Fast")),
        *_CLASSES,
    ),
    "do_basic_tokenize": (True, None),
    "never_split": (None, []),
    "tokenize_chinese_chars": (True, None),
    "unk_token": ("[UNK]", None),
    "sep_token": ("[SEP]", None),
    "pad_token": ("[PAD]", None),
    "cls_token": ("[CLS]", None),
    "mask_token": ("[MASK]", None),
}
BYTE_LEVEL_SETTINGS: Allowed = {
    "tokenizer_class": ("RobertaTokenizer", "RobertaTokenizerFast", *_CLASSES),
    "bos_token": ("<s>", None),
    "eos_token": ("</s>", None),
    "unk_token": ("<unk>", None),
    "sep_token": ("</s>", None),
    "pad_token": ("<pad>", None),
    "cls_token": ("<s>", None),
    "mask_token": ("<mask>", None),
}
MODERNBERT_PARTS: Mapping[str, Allowed | None] = {
    **BYTE_LEVEL_PARTS,
    "model": {**(BYTE_LEVEL_PARTS["model"] or {}), "unk_token": (None, "[UNK]")},
    "normalizer": {"type": ("NFC",)},
}
MODERNBERT_SETTINGS: Allowed = {
    "tokenizer_class": _CLASSES,
    "unk_token": ("[UNK]", None),
    "sep_token": ("[SEP]", None),
    "pad_token": ("[PAD]", None),
    "cls_token": ("[CLS]", None),
    "mask_token": ("[MASK]", None),
}
OPENAI_SETTINGS: Allowed = {
    "tokenizer_class": ("OpenAIGPTTokenizer", "OpenAIGPTTokenizerFast", None),
    "unk_token": ("<unk>", None),
}


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is no such file.

    Raises:
        ValueError: what is there is no file, or no JSON object.
    """
    return read_json_object(path) if has_file(path) else {}


def has_file(path: Path) -> bool:
    """Whether the file is there; ValueError if something of its name is there that is no file."""
    if path.exists() and not path.is_file():
        raise ValueError(f"directory: expected {str(path)!r} to be a file; it is a directory or a device.")
    return path.is_file()


def check_parts(tokenizer: Mapping[str, Any], parts: Mapping[str, Allowed | None], where: str) -> None:
    """Compares the parts of a `tokenizer.json` with what is supported; options that are absent are.

    Raises:
        ValueError: naming the first option that would change ids.
    """
    for name, allowed in parts.items():
        if name not in tokenizer:
            continue
        part = tokenizer[name]
        if allowed is None:
            if part is not None:
                raise ValueError(f"{where}: `{name}` {part!r:.80} is not supported, expected null.")
            continue
        expected = allowed["type"][0]
        if not isinstance(part, dict) or part.get("type", expected) != expected:
            raise ValueError(f"{where}: expected `{name}` of type {expected}, got {part!r:.80}.")
        check_options(part, allowed, f"{where}: `{name}`")


def check_options(options: Mapping[str, Any], allowed: Allowed, where: str) -> None:
    """Compares options with what is supported; ValueError names the first that is not."""
    for name, values in allowed.items():
        value = _content(options.get(name, values[0]))
        if value not in values:
            raise ValueError(
                f"{where}: `{name}` {value!r:.80} is not supported, expected one of {list(values)}."
            )


def added_tokens(
    directory: Path, tokenizer: Mapping[str, Any], settings: Mapping[str, Any], vocab: Sequence[str]
) -> dict[str, bool]:
    """Tokens beyond the vocabulary, in the order of their ids, and whether each is a control token.

    Args:
        directory: where `added_tokens.json` and `special_tokens_map.json` may be.
        tokenizer: `tokenizer.json`, or empty.
        settings: `tokenizer_config.json`, or empty.
        vocab: the pieces of the vocabulary, by id.

    Raises:
        ValueError: ids leave gaps, contradict each other or the vocabulary, or an entry is damaged.
    """
    known = {token: token_id for token_id, token in enumerate(vocab)}
    further: dict[str, int] = {}
    control = set(_named(settings)) | set(_named(read_object(directory / "special_tokens_map.json")))
    for token, token_id, is_control in _entries(directory, tokenizer, settings):
        if not isinstance(token, str) or not token or type(token_id) is not int:
            raise ValueError(
                f"directory: {str(directory)!r}: expected added tokens to be text with an id, got "
                f"{token!r} with {token_id!r}."
            )
        if known.get(token, further.get(token, token_id)) != token_id:
            raise ValueError(
                f"directory: {str(directory)!r} gives the added token {token!r} the id {token_id}, but also "
                f"the id {known.get(token, further.get(token))}. Do these files belong together?"
            )
        if token not in known:
            further[token] = token_id
        if is_control:
            control.add(token)
    in_order = sorted(further, key=further.__getitem__)
    if [further[token] for token in in_order] != list(range(len(vocab), len(vocab) + len(further))):
        raise ValueError(
            f"directory: {str(directory)!r}: expected added tokens to follow the {len(vocab)} of the "
            f"vocabulary without gaps, got {[(further[token], token) for token in in_order[:5]]}."
        )
    return {token: token in control for token in in_order}


def listed_tokens(
    directory: Path, tokenizer: Mapping[str, Any], settings: Mapping[str, Any], where: str
) -> dict[str, bool]:
    """Tokens that are found in texts as they stand, or, if special, are for control: all that the files list,
    those of the vocabulary too, and whether each is special.

    Raises:
        ValueError: one is found in part of the places only, or with the white space beside it.
    """
    listed = {token: is_control for token, _, is_control in _entries(directory, tokenizer, settings)}
    listed |= dict.fromkeys(_named(settings), True)
    for entry in tokenizer.get("added_tokens", []):
        options = [name for name in ("single_word", "lstrip", "rstrip") if entry.get(name)]
        if options and not listed[entry["content"]]:
            raise ValueError(
                f"{where}: the added token {entry['content']!r} has {options}, which is not supported."
            )
    return listed


def _entries(
    directory: Path, tokenizer: Mapping[str, Any], settings: Mapping[str, Any]
) -> Iterator[tuple[Any, Any, bool]]:
    """Each added token of each file with its id, and whether the file calls it special."""
    for token, token_id in read_object(directory / "added_tokens.json").items():
        yield token, token_id, False
    decoder = settings.get("added_tokens_decoder", {})
    listed = tokenizer.get("added_tokens", [])
    if not isinstance(decoder, dict) or not isinstance(listed, list):
        raise ValueError(
            f"directory: {str(directory)!r}: expected `added_tokens` of tokenizer.json to be a list and "
            "`added_tokens_decoder` of tokenizer_config.json to be an object."
        )
    numbered = [(entry, int(key) if key.isdecimal() else key) for key, entry in decoder.items()]
    numbered += [(entry, entry.get("id") if isinstance(entry, dict) else None) for entry in listed]
    for entry, token_id in numbered:
        fields = entry if isinstance(entry, dict) else {}
        yield fields.get("content"), token_id, fields.get("special") is True


def _named(settings: Mapping[str, Any]) -> Iterator[str]:
    """The special tokens that a file names."""
    values = [settings.get(role) for role in _ROLES]
    for name in ("additional_special_tokens", "extra_special_tokens"):
        more = settings.get(name) or []
        values += more.values() if isinstance(more, dict) else more if isinstance(more, list) else []
    yield from (token for token in map(_content, values) if isinstance(token, str))


def _content(value: Any) -> Any:
    """The text of a token that may be given with its options."""
    return value["content"] if isinstance(value, dict) and "content" in value else value
