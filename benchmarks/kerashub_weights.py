"""KerasHub's BERT as an encoder of bert_keras, so that one script fine-tunes both."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from bert_keras import TaskMetadata, TaskWeightScheduler, create_transformer
from bert_keras.training import MultiTaskModel

# Our layers of a block, and those of KerasHub's `BertBackbone`.
_KERASHUB_LAYERS = {
    "attention_output": "self_attention_layer/attention_output",
    "attention_norm": "self_attention_layer_norm",
    "feedforward_in": "feedforward_intermediate_dense",
    "feedforward_out": "feedforward_output_dense",
    "feedforward_norm": "feedforward_layer_norm",
}


def encoder_from_kerashub(backbone: Any) -> Any:
    """Return bert_keras' encoder with the weights of KerasHub's `BertBackbone`."""
    encoder = create_transformer(
        backbone.vocabulary_size,
        backbone.hidden_dim,
        backbone.max_sequence_length,
        backbone.num_layers,
        backbone.num_heads,
        backbone.intermediate_dim,
        use_exact_gelu=False,
        layer_norm_epsilon=1e-12,
        num_segments=backbone.num_segments,
    )
    found = {v.path: keras.ops.convert_to_numpy(v.value) for v in backbone.weights}

    def theirs(path: str) -> Any:
        block, _, rest = path.partition("/")
        if block == "embeddings":
            return found[f"embeddings_layer_{rest}" if rest.startswith("norm/") else rest]
        block = f"transformer_{block}"
        layer, _, kind = rest.rpartition("/")
        if layer == "qkv":
            names = [f"{block}/self_attention_layer/{part}/{kind}" for part in ("query", "key", "value")]
            rows = (backbone.hidden_dim,) if kind == "kernel" else ()
            return np.concatenate([found[name].reshape(*rows, -1) for name in names], axis=-1)
        return found[f"{block}/{_KERASHUB_LAYERS[layer]}/{kind}"]

    for variable in encoder.weights:
        variable.assign(theirs(variable.path).reshape(variable.shape))
    return encoder


def save_kerashub(backbone: Any, file: str) -> None:
    """Save KerasHub's encoder as a model of bert_keras, with a fresh head, for `benchmarks.finetuning`."""
    encoder = encoder_from_kerashub(backbone)
    lm = TaskMetadata("lm", True, encoder.vocab_size, 0.0, TaskWeightScheduler(True, False))
    MultiTaskModel(encoder, [lm]).save_weights(file)
