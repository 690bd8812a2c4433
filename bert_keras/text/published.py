"""Text encoders from the files that are published beside weights, and those files from text encoders."""

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders
from tokenizers.models import WordPiece
from tokenizers.normalizers import NFC, BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from bert_keras.text.base import FILE_NAME, TextEncoder
from bert_keras.text.bert_encoder import BERTTextEncoder
from bert_keras.text.byte_level_encoder import (
    ByteLevelBPETextEncoder,
    pieces_in_order,
    read_merges,
    read_vocab_json,
    rust_byte_level,
)
from bert_keras.text.files import read_lines, write_atomic
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
    Allowed,
    added_tokens,
    check_options,
    check_parts,
    has_file,
    listed_tokens,
    read_object,
)

_WORDPIECE_TYPES = {
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "electra": "ElectraTokenizer",
}
_ROLES = {"pad_token": "pad_id", "unk_token": "unk_id", "mask_token": "msk_id"}


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
    if model_type not in (*_WORDPIECE_TYPES, *others):
        raise ValueError(
            f"directory: {str(directory)!r} has model_type {model_type!r}, expected one of "
            f"{[*_WORDPIECE_TYPES, *others]}."
        )
    return others[model_type](files) if model_type in others else _load_wordpiece(files, lower_case)


def save_tokenizer_files(text_encoder: TextEncoder, directory: str | Path, model_type: str) -> None:
    """Writes files from which `transformers.AutoTokenizer` gives the same ids, and the text encoder itself.

    Args:
        text_encoder: the text encoder.
        directory: where to; it is made if need be.
        model_type: of the model beside it: `"bert"`, `"distilbert"`, `"electra"`, `"roberta"`,
            `"modernbert"` or `"openai-gpt"`. For GPT `transformers` needs `ftfy` and `spacy`, and lower-cases
            before it splits words; a text encoder without `lower_case_first` differs from it there, and a
            warning says so.

    Raises:
        ValueError: models of this type do not read such a text encoder.
    """
    files = tokenizer_files(text_encoder, model_type)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomic(directory / name, content)


def tokenizer_files(text_encoder: TextEncoder, model_type: str) -> dict[str, bytes]:
    """What `save_tokenizer_files` writes, by file name. Arguments and errors are the same."""
    writers: dict[str, Callable[[Any, str], dict[str, Any]]] = {
        **dict.fromkeys(_WORDPIECE_TYPES, _wordpiece_files),
        "roberta": _byte_level_files,
        "modernbert": _modernbert_files,
        "openai-gpt": _openai_files,
    }
    kinds: dict[str, type[TextEncoder]] = {
        **dict.fromkeys(_WORDPIECE_TYPES, BERTTextEncoder),
        "roberta": ByteLevelBPETextEncoder,
        "modernbert": ModernBERTTextEncoder,
        "openai-gpt": OpenAITextEncoder,
    }
    if model_type not in kinds or text_encoder.kind != kinds[model_type].kind:
        known = {name: kind.__name__ for name, kind in kinds.items()}
        raise ValueError(
            f"text_encoder: `transformers` reads no {type(text_encoder).__name__} for model_type "
            f"{model_type!r}; it reads {known}. Save it with its own save(directory)."
        )
    files = writers[model_type](text_encoder, model_type)
    names = {name: text_encoder.id_to_token(getattr(text_encoder, role)) for name, role in _ROLES.items()}
    first, last = text_encoder.id_to_token(text_encoder.bos_id), text_encoder.id_to_token(text_encoder.eos_id)
    if model_type in (*_WORDPIECE_TYPES, "modernbert"):
        names |= {"cls_token": first, "sep_token": last}
    elif model_type == "roberta":
        names |= {"bos_token": first, "eos_token": last, "cls_token": first, "sep_token": last}
    else:
        names |= {
            "bos_token": first,
            "eos_token": last,
            "sep_token": text_encoder.id_to_token(text_encoder.del_id),
        }
    files["special_tokens_map.json"] = names
    files["tokenizer_config.json"] |= names
    files[FILE_NAME] = text_encoder.saved_form()
    return {
        name: content if isinstance(content, bytes) else _as_text(content).encode()
        for name, content in files.items()
    }


def _as_text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, indent=1) + "\n"


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


def _wordpiece_files(text_encoder: BERTTextEncoder, model_type: str) -> dict[str, Any]:
    tokens = [text_encoder.id_to_token(i) for i in range(text_encoder.vocab_size)]
    options = {
        "lowercase": text_encoder.lower_case,
        "strip_accents": text_encoder.strip_accents,
    }
    rust = Tokenizer(
        WordPiece(
            {token: i for i, token in enumerate(tokens)},
            unk_token="[UNK]",
            max_input_chars_per_word=text_encoder.max_word_characters,
        )
    )
    rust.normalizer, rust.pre_tokenizer = BertNormalizer(**options), BertPreTokenizer()
    rust.decoder = decoders.WordPiece()
    _frame(rust, text_encoder)
    return {
        "vocab.txt": "".join(f"{token}\n" for token in tokens),
        "tokenizer.json": rust.to_str(pretty=True),
        "tokenizer_config.json": {
            "tokenizer_class": _WORDPIECE_TYPES[model_type],
            "do_lower_case": text_encoder.lower_case,
            "strip_accents": text_encoder.strip_accents,
            "tokenize_chinese_chars": True,
        },
    }


def _byte_level_files(text_encoder: ByteLevelBPETextEncoder, model_type: str) -> dict[str, Any]:
    rust = _rust_of(text_encoder)
    _frame(rust, text_encoder)
    return {
        "vocab.json": {token: i for i, token in enumerate(_own_tokens(text_encoder))},
        "merges.txt": "#version: 0.2\n"
        + "".join(f"{merge}\n" for merge in text_encoder.get_state()["merges"]),
        "tokenizer_config.json": {
            "tokenizer_class": "RobertaTokenizer",
            "add_prefix_space": text_encoder.add_prefix_space,
        },
        "tokenizer.json": rust.to_str(pretty=True),
    }


def _modernbert_files(text_encoder: ModernBERTTextEncoder, model_type: str) -> dict[str, Any]:
    rust = _rust_of(text_encoder)
    rust.normalizer = NFC()
    rust.add_tokens(
        [AddedToken(token, normalized=True) for token in text_encoder.get_state().get("plain_tokens", [])]
    )
    _frame(rust, text_encoder)
    return {
        "tokenizer.json": rust.to_str(pretty=True),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": True,
            "model_input_names": ["input_ids", "attention_mask"],
        },
    }


def _own_tokens(text_encoder: ByteLevelBPETextEncoder) -> list[str]:
    """The tokens of a byte-level vocabulary; ValueError if words were added to it."""
    if text_encoder.get_state()["words"]:
        raise ValueError(
            "text_encoder: words that were added to a byte-level vocabulary have no form in the files of "
            "`transformers` that gives the same ids. Save it with its own save(directory)."
        )
    return [text_encoder.id_to_token(i) for i in range(text_encoder.vocab_size)]


def _rust_of(text_encoder: ByteLevelBPETextEncoder) -> Tokenizer:
    merges, unk_token = text_encoder.get_state()["merges"], text_encoder.special_tokens[3]
    return rust_byte_level(_own_tokens(text_encoder), merges, text_encoder.add_prefix_space, unk_token)


def _openai_files(text_encoder: OpenAITextEncoder, model_type: str) -> dict[str, Any]:
    state = text_encoder.get_state()
    if state.get("words"):
        raise ValueError(
            "text_encoder: words that were added to GPT's vocabulary have no form in the files of "
            "`transformers` that gives the same ids. Save it with its own save(directory)."
        )
    if not text_encoder.lower_case_first:
        warnings.warn(
            "`transformers` lower-cases a text before GPT's words are split, OpenAI afterwards: ids of words "
            "such as 'Mr.' will differ there. OpenAITextEncoder(..., lower_case_first=True) gives them here "
            "too.",
            stacklevel=3,
        )
    count = len(state["vocab"])
    appended = {text_encoder.id_to_token(i): i for i in range(count, text_encoder.vocab_size)}
    return {
        "vocab.json": {token: i for i, token in enumerate(state["vocab"])},
        "merges.txt": "#version: 0.2\n" + "".join(f"{merge}\n" for merge in state["merges"]),
        "added_tokens.json": appended,
        "tokenizer_config.json": {"tokenizer_class": "OpenAIGPTTokenizer"},
    }


def _frame(rust: Tokenizer, text_encoder: TextEncoder) -> None:
    """Names the special tokens, and puts them around texts as this library does."""
    first, last = (text_encoder.id_to_token(i) for i in (text_encoder.bos_id, text_encoder.eos_id))
    rust.add_special_tokens([text_encoder.id_to_token(i) for i in sorted(text_encoder.special_ids)])
    is_roberta = text_encoder.kind == ByteLevelBPETextEncoder.kind
    double, second = (f"{last} {last}", 0) if is_roberta else (last, 1)
    rust.post_processor = TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {double} $B:{second} {last}:{second}",
        special_tokens=[(first, text_encoder.bos_id), (last, text_encoder.eos_id)],
    )
