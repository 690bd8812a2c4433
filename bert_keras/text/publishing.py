"""The files that are published beside weights, from text encoders."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders
from tokenizers.models import WordPiece
from tokenizers.normalizers import NFC, BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from bert_keras.text.base import FILE_NAME, TextEncoder
from bert_keras.text.bert_encoder import BERTTextEncoder
from bert_keras.text.byte_level_encoder import ByteLevelBPETextEncoder, rust_byte_level
from bert_keras.text.files import write_atomic
from bert_keras.text.modernbert_encoder import ModernBERTTextEncoder
from bert_keras.text.openai_encoder import OpenAITextEncoder
from bert_keras.text.tokenizer_files import WORDPIECE_TYPES

_ROLES = {"pad_token": "pad_id", "unk_token": "unk_id", "mask_token": "msk_id"}


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
        **dict.fromkeys(WORDPIECE_TYPES, _wordpiece_files),
        "roberta": _byte_level_files,
        "modernbert": _modernbert_files,
        "openai-gpt": _openai_files,
    }
    kinds: dict[str, type[TextEncoder]] = {
        **dict.fromkeys(WORDPIECE_TYPES, BERTTextEncoder),
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
    if model_type in (*WORDPIECE_TYPES, "modernbert"):
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
            "tokenizer_class": WORDPIECE_TYPES[model_type],
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
