"""bert_keras: pretrain and fine-tune text encoders on many tasks at once, on every backend of Keras 3.

The names below are loaded when they are first used, so that `bert_keras.text` and `bert_keras.data` come
without Keras.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bert_keras.advice import advising, on_backend
from bert_keras.version import __version__

if TYPE_CHECKING:
    from bert_keras.checkpoints import load_bert as load_bert
    from bert_keras.checkpoints import load_huggingface as load_huggingface
    from bert_keras.checkpoints import load_openai as load_openai
    from bert_keras.checkpoints import openai_directory as openai_directory
    from bert_keras.checkpoints import save_huggingface as save_huggingface
    from bert_keras.checkpoints import verify as verify
    from bert_keras.data import Corpus as Corpus
    from bert_keras.data import Example as Example
    from bert_keras.data import Sentence as Sentence
    from bert_keras.data import SentenceBatch as SentenceBatch
    from bert_keras.data import SentenceTaskData as SentenceTaskData
    from bert_keras.data import TaskDataBatch as TaskDataBatch
    from bert_keras.data import TokenTaskData as TokenTaskData
    from bert_keras.data import encode_examples as encode_examples
    from bert_keras.data import label_names as label_names
    from bert_keras.data import labelled_generator as labelled_generator
    from bert_keras.data import lm_generator as lm_generator
    from bert_keras.data import mixed_generator as mixed_generator
    from bert_keras.data import read_conll as read_conll
    from bert_keras.data import read_delimited as read_delimited
    from bert_keras.data import read_fasttext as read_fasttext
    from bert_keras.data import read_jsonl as read_jsonl
    from bert_keras.data import read_records as read_records
    from bert_keras.data import read_squad as read_squad
    from bert_keras.data import sentence_from_text as sentence_from_text
    from bert_keras.data import sentence_from_words as sentence_from_words
    from bert_keras.encoders import TEXT_CNN_SIZES as TEXT_CNN_SIZES
    from bert_keras.encoders import TRANSFORMER_SIZES as TRANSFORMER_SIZES
    from bert_keras.encoders import create_lstm as create_lstm
    from bert_keras.encoders import create_qrnn as create_qrnn
    from bert_keras.encoders import create_text_cnn as create_text_cnn
    from bert_keras.encoders import create_transformer as create_transformer
    from bert_keras.encoders import encoder_inputs as encoder_inputs
    from bert_keras.schedules import CosineSchedule as CosineSchedule
    from bert_keras.schedules import LinearSchedule as LinearSchedule
    from bert_keras.schedules import SwitchSchedule as SwitchSchedule
    from bert_keras.schedules import TaskWeightScheduler as TaskWeightScheduler
    from bert_keras.sharing import Pretrained as Pretrained
    from bert_keras.sharing import export_model as export_model
    from bert_keras.sharing import load_pretrained as load_pretrained
    from bert_keras.sharing import save_pretrained as save_pretrained
    from bert_keras.tasks import TaskMetadata as TaskMetadata
    from bert_keras.text import BERTTextEncoder as BERTTextEncoder
    from bert_keras.text import ByteLevelBPETextEncoder as ByteLevelBPETextEncoder
    from bert_keras.text import ModernBERTTextEncoder as ModernBERTTextEncoder
    from bert_keras.text import OpenAITextEncoder as OpenAITextEncoder
    from bert_keras.text import SentencePieceTextEncoder as SentencePieceTextEncoder
    from bert_keras.text import TextEncoder as TextEncoder
    from bert_keras.text import load_text_encoder as load_text_encoder
    from bert_keras.text import split_words as split_words
    from bert_keras.training import Doctor as Doctor
    from bert_keras.training import GradualUnfreezing as GradualUnfreezing
    from bert_keras.training import MultiTaskModel as MultiTaskModel
    from bert_keras.training import add_lora as add_lora
    from bert_keras.training import compare_pretraining as compare_pretraining
    from bert_keras.training import create_optimizer as create_optimizer
    from bert_keras.training import create_recipe as create_recipe
    from bert_keras.training import diagnose as diagnose
    from bert_keras.training import encoder_arrays as encoder_arrays
    from bert_keras.training import evaluate_model as evaluate_model
    from bert_keras.training import extend_vocabulary as extend_vocabulary
    from bert_keras.training import freeze as freeze
    from bert_keras.training import load_model as load_model
    from bert_keras.training import merge_lora as merge_lora
    from bert_keras.training import predict as predict
    from bert_keras.training import quantize as quantize
    from bert_keras.training import train_model as train_model
    from bert_keras.training import trained_share as trained_share
    from bert_keras.training import unfreeze as unfreeze
    from bert_keras.use import answer as answer
    from bert_keras.use import attention_of as attention_of
    from bert_keras.use import classify as classify
    from bert_keras.use import embed as embed
    from bert_keras.use import fill_mask as fill_mask
    from bert_keras.use import generate as generate
    from bert_keras.use import tag as tag

_HOMES = {
    "bert_keras.schedules": ("CosineSchedule", "LinearSchedule", "SwitchSchedule", "TaskWeightScheduler"),
    "bert_keras.tasks": ("TaskMetadata",),
    "bert_keras.text": (
        "BERTTextEncoder",
        "ByteLevelBPETextEncoder",
        "ModernBERTTextEncoder",
        "OpenAITextEncoder",
        "SentencePieceTextEncoder",
        "TextEncoder",
        "load_text_encoder",
        "split_words",
    ),
    "bert_keras.data": (
        "Corpus",
        "Example",
        "Sentence",
        "SentenceBatch",
        "SentenceTaskData",
        "TaskDataBatch",
        "TokenTaskData",
        "encode_examples",
        "label_names",
        "labelled_generator",
        "lm_generator",
        "mixed_generator",
        "read_conll",
        "read_delimited",
        "read_fasttext",
        "read_jsonl",
        "read_records",
        "read_squad",
        "sentence_from_text",
        "sentence_from_words",
    ),
    "bert_keras.encoders": (
        "TEXT_CNN_SIZES",
        "TRANSFORMER_SIZES",
        "create_lstm",
        "create_qrnn",
        "create_text_cnn",
        "create_transformer",
        "encoder_inputs",
    ),
    "bert_keras.checkpoints": (
        "load_bert",
        "load_huggingface",
        "load_openai",
        "openai_directory",
        "save_huggingface",
        "verify",
    ),
    "bert_keras.training": (
        "Doctor",
        "GradualUnfreezing",
        "MultiTaskModel",
        "add_lora",
        "compare_pretraining",
        "create_optimizer",
        "create_recipe",
        "diagnose",
        "encoder_arrays",
        "evaluate_model",
        "extend_vocabulary",
        "freeze",
        "load_model",
        "merge_lora",
        "predict",
        "quantize",
        "train_model",
        "trained_share",
        "unfreeze",
    ),
    "bert_keras.use": ("answer", "attention_of", "classify", "embed", "fill_mask", "generate", "tag"),
    "bert_keras.sharing": ("Pretrained", "export_model", "load_pretrained", "save_pretrained"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME_OF]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'bert_keras' has no attribute {name!r}")
    with advising(on_backend):
        value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
