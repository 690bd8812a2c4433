"""Text encoders from the files that are published beside weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert_keras.text.base import FILE_NAME, TextEncoder
from bert_keras.text.bert_encoder import BERTTextEncoder
from bert_keras.text.byte_level_encoder import (
    ByteLevelBPETextEncoder,
    pieces_in_order,
    read_merges,
    read_vocab_json,
)
from bert_keras.text.files import read_lines
from bert_keras.text.modernbert_encoder import ModernBERTTextEncoder
from bert_keras.text.openai_encoder import OpenAITextEncoder
from bert_keras.text.tokenizer_files import (
    BYTE_LEVEL_PARTS,
    BYTE_LEVEL_SETTINGS,
    MODERNBERT_PARTS,
    MODERNBERT_SETTINGS,
    OPENAI_SETTINGS,
    WORDPIECE_PARTS,
    WORDPIECE_SETTINGS,
    WORDPIECE_TYPES,
    Allowed,
    added_tokens,
    check_options,
    check_parts,
    has_file,
    listed_tokens,
    read_object,
)


def load_text_encoder(directory: str | Path, *, lower_case: bool | None = None) -> TextEncoder:
    """The text encoder that belongs to published weights.

    Ids are those of `transformers`, of Google's or of OpenAI's code, whosever files they are. For GPT the
    first and the last differ at words such as "Mr." (see `OpenAITextEncoder`'s `lower_case_first`). Where
    `transformers` departs from Google's WordPiece, at characters that few texts have, ids are Google's.
    Special tokens that were added to a vocabulary keep their ids and are in `special_ids`: no text encodes to
    them.

    Args:
        directory: with the tokenizer files of Hugging Face's `bert`, `distilbert`, `electra`, `roberta`,
            `modernbert` or `openai-gpt`, of Google's BERT (`vocab.txt`), of OpenAI's GPT
            (`encoder_bpe_40000.json`, `vocab_40000.bpe`), or a text encoder that was saved here.
        lower_case: whether a WordPiece vocabulary is lower-cased, where no file says so. By default it is,
            unless the directory's name has "cased" without "un" before it, as Google's names say it.

    Raises:
        FileNotFoundError: none of these files is there.
        ValueError: a file is damaged, contradicts another or `lower_case`, or asks for what is not supported.

    Example:
        >>> load_text_encoder("all-MiniLM-L6-v2").encode("A bird.")  # doctest: +SKIP
        [1037, 4743, 1012]
    """
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"directory: expected a directory, got the file {str(directory)!r}.")
    if has_file(directory / FILE_NAME):
        return TextEncoder.load(directory)
    if has_file(directory / "encoder_bpe_40000.json"):
        return OpenAITextEncoder(directory / "encoder_bpe_40000.json", directory / "vocab_40000.bpe")
    files = _Files(directory)
    model_type = files.config.get("model_type") or _guess(files)
    others = {"roberta": _load_byte_level, "modernbert": _load_modernbert, "openai-gpt": _load_openai}
    if model_type not in (*WORDPIECE_TYPES, *others):
        raise ValueError(
            f"directory: {str(directory)!r} has model_type {model_type!r}, expected one of "
            f"{[*WORDPIECE_TYPES, *others]}."
        )
    return others[model_type](files) if model_type in others else _load_wordpiece(files, lower_case)


class _Files:
    """What a directory has of Hugging Face's files; what it lacks is empty."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = read_object(directory / "config.json")
        self.tokenizer = read_object(directory / "tokenizer.json")
        self.settings = read_object(directory / "tokenizer_config.json")
        self.where = f"directory: {str(directory / 'tokenizer.json')!r}"

    def has(self, *names: str) -> bool:
        return all([has_file(self.directory / name) for name in names])

    def part(self, name: str) -> Mapping[str, Any]:
        part = self.tokenizer.get(name)
        return part if isinstance(part, dict) else {}

    def check_settings(self, allowed: Allowed) -> None:
        """Raises ValueError for a setting, in any of the files that have some, that is not supported."""
        names = {"tokenizer_class": self.config.get("tokenizer_class")}
        check_options(names, allowed, f"directory: {str(self.directory / 'config.json')!r}")
        for name in ("tokenizer_config.json", "special_tokens_map.json"):
            path = self.directory / name
            check_options(read_object(path), allowed, f"directory: {str(path)!r}")

    def option(self, setting: str, part: str, name: str) -> bool | None:
        """A flag that tokenizer_config.json or else a part of tokenizer.json decides; None if neither."""
        value = self.settings.get(setting, self.part(part).get(name))
        if value is not None and not isinstance(value, bool):
            raise ValueError(f"{self.where}: expected `{setting}` to be true, false or null, got {value!r}.")
        return value

    def check_same(self, name: str, ours: list[str], theirs: list[str]) -> None:
        """Raises ValueError if a file of the vocabulary and tokenizer.json differ."""
        if self.tokenizer and theirs != ours:
            raise ValueError(
                f"directory: {str(self.directory / name)!r} and tokenizer.json beside it differ. Remove the "
                "one that does not belong to the weights."
            )


def _guess(files: _Files) -> str:
    """The type of a directory without `config.json`, from the files that are there."""
    kind = files.part("model").get("type")
    if files.has("vocab.txt") or kind == "WordPiece":
        return "bert"
    if files.has("vocab.json", "merges.txt"):
        vocab = read_vocab_json(files.directory / "vocab.json", "directory")
        return "openai-gpt" if any(token.endswith("</w>") for token in vocab) else "roberta"
    if kind == "BPE":
        return "modernbert" if files.part("normalizer").get("type") == "NFC" else "roberta"
    raise FileNotFoundError(
        f"directory: {str(files.directory)!r} has neither config.json nor tokenizer files that are known "
        f"here: expected {FILE_NAME}, vocab.txt, tokenizer.json, or vocab.json and merges.txt."
    )


def _load_wordpiece(files: _Files, lower_case: bool | None) -> BERTTextEncoder:
    check_parts(files.tokenizer, WORDPIECE_PARTS, files.where)
    files.check_settings(WORDPIECE_SETTINGS)
    model = files.part("model")
    if files.has("vocab.txt"):
        vocab = [line.strip() for line in read_lines(files.directory / "vocab.txt")]
        if "vocab" in model:
            files.check_same("vocab.txt", vocab, pieces_in_order(model["vocab"], files.where))
    else:
        vocab = pieces_in_order(model.get("vocab"), files.where)
    further = added_tokens(files.directory, files.tokenizer, files.settings, vocab)
    said = files.option("do_lower_case", "normalizer", "lowercase")
    if None not in (lower_case, said) and lower_case != said:
        raise ValueError(
            f"lower_case: got {lower_case}, but the files in {str(files.directory)!r} say {said}."
        )
    if said is None and lower_case is None:
        name = files.directory.resolve().name.lower()
        lower_case = "cased" not in name or "uncased" in name
    is_google = not files.tokenizer and not files.settings and not files.config
    longest = model.get("max_input_chars_per_word", 200 if is_google else 100)
    if type(longest) is not int or not 1 <= longest < 1 << 31:
        raise ValueError(
            f"{files.where}: expected `max_input_chars_per_word` of at least 1, got {longest!r:.40}."
        )
    return BERTTextEncoder.from_vocabulary(
        [*vocab, *further],
        bool(lower_case if said is None else said),
        files.option("strip_accents", "normalizer", "strip_accents"),
        longest,
        [token for token, is_control in further.items() if is_control],
    )


def _load_byte_level(files: _Files) -> ByteLevelBPETextEncoder:
    check_parts(files.tokenizer, BYTE_LEVEL_PARTS, files.where)
    files.check_settings(BYTE_LEVEL_SETTINGS)
    model = files.part("model")
    if files.has("vocab.json", "merges.txt"):
        vocab = read_vocab_json(files.directory / "vocab.json", "directory")
        merges = read_merges(files.directory / "merges.txt", "directory")
        if "vocab" in model:
            files.check_same("vocab.json", vocab, pieces_in_order(model["vocab"], files.where))
            files.check_same("merges.txt", merges, _merges(files))
    elif not files.tokenizer:
        raise FileNotFoundError(
            f"directory: expected vocab.json and merges.txt, or tokenizer.json, in {str(files.directory)!r}."
        )
    else:
        vocab, merges = pieces_in_order(model.get("vocab"), files.where), _merges(files)
    further = added_tokens(files.directory, files.tokenizer, files.settings, vocab)
    if words := [token for token, is_control in further.items() if not is_control]:
        raise ValueError(
            f"directory: {str(files.directory)!r} adds {words[:5]} to the vocabulary, not as special tokens. "
            "Published byte-level vocabularies find such tokens inside of words too, which is not supported."
        )
    prefix = files.option("add_prefix_space", "pre_tokenizer", "add_prefix_space")
    return ByteLevelBPETextEncoder.from_vocabulary(
        [*vocab, *further], merges, bool(prefix), control_tokens=list(further)
    )


def _load_modernbert(files: _Files) -> ModernBERTTextEncoder:
    if not files.tokenizer:
        raise FileNotFoundError(f"directory: expected tokenizer.json in {str(files.directory)!r}.")
    check_parts(files.tokenizer, MODERNBERT_PARTS, files.where)
    files.check_settings(MODERNBERT_SETTINGS)
    vocab = pieces_in_order(files.part("model").get("vocab"), files.where)
    vocab += added_tokens(files.directory, files.tokenizer, files.settings, vocab)
    listed = listed_tokens(files.directory, files.tokenizer, files.settings, files.where)
    prefix = files.option("add_prefix_space", "pre_tokenizer", "add_prefix_space")
    known = ModernBERTTextEncoder.special_tokens
    return ModernBERTTextEncoder.from_vocabulary(
        vocab,
        _merges(files),
        bool(prefix),
        control_tokens=[token for token in vocab if listed.get(token) is True and token not in known],
        plain_tokens=[token for token in vocab if listed.get(token) is False],
    )


def _merges(files: _Files) -> list[str]:
    """The merges of tokenizer.json, which has them as lines or, since 2024, as pairs."""
    merges = files.part("model").get("merges")
    if not isinstance(merges, list):
        raise ValueError(f"{files.where}: expected a model with a list of merges, got {merges!r:.40}.")
    return [" ".join(map(str, merge)) if isinstance(merge, list) else merge for merge in merges]


def _load_openai(files: _Files) -> OpenAITextEncoder:
    files.check_settings(OPENAI_SETTINGS)
    directory = files.directory
    text_encoder = OpenAITextEncoder(
        directory / "vocab.json", directory / "merges.txt", lower_case_first=True
    )
    vocab: list[str] = text_encoder.get_state()["vocab"]
    further = list(added_tokens(directory, files.tokenizer, files.settings, vocab))
    ours = [text_encoder.id_to_token(i) for i in range(len(vocab), text_encoder.vocab_size)]
    if further not in ([], ours):
        raise ValueError(
            f"directory: {str(directory)!r} adds {further[:5]} to GPT's vocabulary, where this library has "
            f"{ours}: ids would mean other tokens."
        )
    return text_encoder
