"""Text encoders from the files that are published beside weights, and those files from text encoders."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from bert_keras.text.base import FILE_NAME, TextEncoder
from bert_keras.text.bert_encoder import BERTTextEncoder
from bert_keras.text.byte_level_encoder import (
    ByteLevelBPETextEncoder,
    pieces_in_order,
    rust_byte_level,
)
from bert_keras.text.files import read_lines, write_atomic
from bert_keras.text.openai_encoder import OpenAITextEncoder

_WORDPIECE_TYPES = {
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "electra": "ElectraTokenizer",
}
_ROLES = {"pad_token": "pad_id", "unk_token": "unk_id", "mask_token": "msk_id"}


def load_text_encoder(directory: str | Path, *, lower_case: bool | None = None) -> TextEncoder:
    """The text encoder that belongs to published weights.

    Ids are those of `transformers`, of Google's or of OpenAI's code, whosever files they are. For GPT the
    first and the last differ at words such as "Mr." (see `OpenAITextEncoder`'s `lower_case_first`).

    Args:
        directory: with the tokenizer files of Hugging Face's `bert`, `distilbert`, `electra`, `roberta` or
            `openai-gpt`, of Google's BERT (`vocab.txt`), of OpenAI's GPT (`encoder_bpe_40000.json`,
            `vocab_40000.bpe`), or a text encoder that was saved here.
        lower_case: whether a WordPiece vocabulary is lower-cased, where no file says so. By default it is,
            unless the directory's name has "cased" without "un" before it, as Google's names say it.

    Raises:
        FileNotFoundError: none of these files is there.
        ValueError: a file is damaged, or asks for what is not supported.

    Example:
        >>> load_text_encoder("all-MiniLM-L6-v2").encode("A bird.")  # doctest: +SKIP
        [1037, 4743, 1012]
    """
    directory = Path(directory)
    if (directory / FILE_NAME).is_file():
        return TextEncoder.load(directory)
    if (directory / "encoder_bpe_40000.json").is_file():
        return OpenAITextEncoder(directory / "encoder_bpe_40000.json", directory / "vocab_40000.bpe")
    config, tokenizer = _object(directory / "config.json"), _object(directory / "tokenizer.json")
    settings = _object(directory / "tokenizer_config.json")
    model_type = config.get("model_type") or _guess(directory, tokenizer)
    if model_type in _WORDPIECE_TYPES:
        return _load_wordpiece(directory, tokenizer, settings, lower_case)
    if model_type == "roberta":
        return _load_byte_level(directory, tokenizer, settings)
    if model_type == "openai-gpt":
        files = (directory / "vocab.json", directory / "merges.txt")
        return OpenAITextEncoder(*files, lower_case_first=True)
    raise ValueError(
        f"directory: {str(directory)!r} has model_type {model_type!r}, expected one of "
        f"{[*_WORDPIECE_TYPES, 'roberta', 'openai-gpt']}."
    )


def save_tokenizer_files(text_encoder: TextEncoder, directory: str | Path, model_type: str) -> None:
    """Writes files from which `transformers.AutoTokenizer` gives the same ids, and the text encoder itself.

    Args:
        text_encoder: the text encoder.
        directory: where to; it is made if need be.
        model_type: of the model beside it: `"bert"`, `"distilbert"`, `"electra"`, `"roberta"` or
            `"openai-gpt"`. For GPT `transformers` needs `ftfy` and `spacy`, and lower-cases before it splits
            words; a text encoder without `lower_case_first` differs from it there, and a warning says so.

    Raises:
        ValueError: models of this type do not read such a text encoder.
    """
    directory = Path(directory)
    writers = {**dict.fromkeys(_WORDPIECE_TYPES, _wordpiece_files), "roberta": _byte_level_files}
    kinds = {**dict.fromkeys(_WORDPIECE_TYPES, BERTTextEncoder), "roberta": ByteLevelBPETextEncoder}
    writers["openai-gpt"], kinds["openai-gpt"] = _openai_files, OpenAITextEncoder
    if model_type not in kinds or not isinstance(text_encoder, kinds[model_type]):
        known = {name: kind.__name__ for name, kind in kinds.items()}
        raise ValueError(
            f"text_encoder: `transformers` reads no {type(text_encoder).__name__} for model_type "
            f"{model_type!r}; it reads {known}. Save it with its own save(directory)."
        )
    files = writers[model_type](text_encoder, model_type)
    names = {name: text_encoder.id_to_token(getattr(text_encoder, role)) for name, role in _ROLES.items()}
    first, last = text_encoder.id_to_token(text_encoder.bos_id), text_encoder.id_to_token(text_encoder.eos_id)
    if model_type in _WORDPIECE_TYPES:
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
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        text = (
            content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, indent=1) + "\n"
        )
        write_atomic(directory / name, text.encode())
    text_encoder.save(directory)


def _guess(directory: Path, tokenizer: Mapping[str, Any]) -> str:
    """The type of a directory without `config.json`, from the files that are there."""
    kind = tokenizer.get("model", {}).get("type") if isinstance(tokenizer.get("model"), dict) else None
    if (directory / "vocab.txt").is_file() or kind == "WordPiece":
        return "bert"
    if kind == "BPE":
        return "roberta"
    raise FileNotFoundError(
        f"directory: {str(directory)!r} has neither config.json nor tokenizer files that are known here: "
        f"expected {FILE_NAME}, vocab.txt, tokenizer.json, or vocab.json and merges.txt with config.json."
    )


def _load_wordpiece(
    directory: Path, tokenizer: Mapping[str, Any], settings: Mapping[str, Any], lower_case: bool | None
) -> BERTTextEncoder:
    where = f"directory: {str(directory / 'tokenizer.json')!r}"
    model, normalizer = tokenizer.get("model") or {}, tokenizer.get("normalizer") or {}
    for name, part, expected in (("model", model, "WordPiece"), ("normalizer", normalizer, "BertNormalizer")):
        if not isinstance(part, dict) or part.get("type", expected) != expected:
            raise ValueError(f"{where}: expected `{name}` of type {expected}, got {part!r:.80}.")
    if (directory / "vocab.txt").is_file():
        vocab = [line.rstrip("\r\n").strip() for line in read_lines(directory / "vocab.txt")]
    else:
        vocab = pieces_in_order(model.get("vocab"), where)
    vocab += _added_tokens(directory, tokenizer, vocab)

    def setting(name: str, in_normalizer: str, default: Any) -> Any:
        value = settings.get(name, normalizer.get(in_normalizer, default))
        if value is not None and not isinstance(value, bool):
            raise ValueError(f"{where}: expected `{name}` to be true, false or null, got {value!r}.")
        return value

    if setting("tokenize_chinese_chars", "handle_chinese_chars", True) is False:
        raise ValueError(f"{where}: `tokenize_chinese_chars` false is not supported.")
    if lower_case is None:
        name = directory.resolve().name.lower()
        lower_case = not ("cased" in name and "uncased" not in name)
        lower_case = setting("do_lower_case", "lowercase", lower_case)
    is_google = not tokenizer and not settings
    longest = model.get("max_input_chars_per_word", 200 if is_google else 100)
    if type(longest) is not int or longest < 1:
        raise ValueError(f"{where}: expected `max_input_chars_per_word` of at least 1, got {longest!r}.")
    strip_accents = setting("strip_accents", "strip_accents", None)
    return BERTTextEncoder.from_vocabulary(vocab, bool(lower_case), strip_accents, longest)


def _load_byte_level(
    directory: Path, tokenizer: Mapping[str, Any], settings: Mapping[str, Any]
) -> ByteLevelBPETextEncoder:
    prefix_space = bool(settings.get("add_prefix_space", False))
    if (directory / "vocab.json").is_file() and (directory / "merges.txt").is_file():
        return ByteLevelBPETextEncoder(
            directory / "vocab.json", directory / "merges.txt", add_prefix_space=prefix_space
        )
    where = f"directory: {str(directory / 'tokenizer.json')!r}"
    model = tokenizer.get("model")
    if not tokenizer or not isinstance(model, dict):
        raise FileNotFoundError(
            f"directory: expected vocab.json and merges.txt, or tokenizer.json, in {str(directory)!r}."
        )
    merges = model.get("merges")
    if model.get("type") != "BPE" or not isinstance(merges, list):
        raise ValueError(f"{where}: expected a model of type BPE with merges, got {model.get('type')!r}.")
    pairs = [" ".join(merge) if isinstance(merge, list) else merge for merge in merges]
    vocab = pieces_in_order(model.get("vocab"), where)
    return ByteLevelBPETextEncoder.from_vocabulary(vocab, pairs, prefix_space)


def _added_tokens(directory: Path, tokenizer: Mapping[str, Any], vocab: list[str]) -> list[str]:
    """Tokens beyond the vocabulary, which have to follow it without gaps."""
    added: dict[Any, Any] = dict(_object(directory / "added_tokens.json"))
    for entry in tokenizer.get("added_tokens", []):
        if not isinstance(entry, dict) or type(entry.get("id")) is not int:
            raise ValueError(
                f"directory: {str(directory)!r}: expected added tokens with an id, got {entry!r}."
            )
        added[entry.get("content")] = entry["id"]
    known = set(vocab)
    further = sorted((token_id, token) for token, token_id in added.items() if token not in known)
    if [token_id for token_id, _ in further] != list(range(len(vocab), len(vocab) + len(further))):
        raise ValueError(
            f"directory: {str(directory)!r}: expected added tokens to follow the {len(vocab)} of the "
            f"vocabulary without gaps, got {further[:5]}."
        )
    return [token for _, token in further]


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
    state = text_encoder.get_state()
    count = text_encoder.vocab_size - len(state["words"])
    tokens = [text_encoder.id_to_token(i) for i in range(count)]
    rust = rust_byte_level(tokens, state["merges"], text_encoder.add_prefix_space)
    _frame(rust, text_encoder)
    files: dict[str, Any] = {
        "vocab.json": {token: i for i, token in enumerate(tokens)},
        "merges.txt": "#version: 0.2\n" + "".join(f"{merge}\n" for merge in state["merges"]),
        "tokenizer_config.json": {
            "tokenizer_class": "RobertaTokenizer",
            "add_prefix_space": text_encoder.add_prefix_space,
        },
    }
    if state["words"]:
        raise ValueError(
            "text_encoder: words that were added to a byte-level vocabulary have no form in the files of "
            "`transformers` that gives the same ids. Save it with its own save(directory)."
        )
    files["tokenizer.json"] = rust.to_str(pretty=True)
    return files


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
    double = f"{last} {last}" if isinstance(text_encoder, ByteLevelBPETextEncoder) else last
    second = 0 if isinstance(text_encoder, ByteLevelBPETextEncoder) else 1
    rust.post_processor = TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {double} $B:{second} {last}:{second}",
        special_tokens=[(first, text_encoder.bos_id), (last, text_encoder.eos_id)],
    )


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is not JSON, or it is damaged: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{str(path)!r}: expected a JSON object, got a {type(content).__name__}.")
    return content
