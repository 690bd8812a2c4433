"""Small models of `transformers` with odd sizes, and their answers: what the conversions are held against."""

import keras
import numpy as np
import torch
import transformers

TYPES = ("bert", "roberta", "distilbert", "electra", "modernbert", "openai-gpt")
SIZES = {"vocab_size": 47, "hidden_size": 30, "num_hidden_layers": 3, "num_attention_heads": 5}
BERT_SIZES = {**SIZES, "intermediate_size": 37, "max_position_embeddings": 23}
CONFIGS = {
    "bert": lambda: transformers.BertConfig(**BERT_SIZES, pad_token_id=0),
    "roberta": lambda: transformers.RobertaConfig(
        **BERT_SIZES, type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5
    ),
    "distilbert": lambda: transformers.DistilBertConfig(
        vocab_size=47, dim=30, n_layers=3, n_heads=5, hidden_dim=37, max_position_embeddings=23
    ),
    "electra": lambda: transformers.ElectraConfig(**BERT_SIZES, embedding_size=14),
    "modernbert": lambda: transformers.ModernBertConfig(
        vocab_size=47,
        hidden_size=30,
        num_hidden_layers=4,
        num_attention_heads=5,
        intermediate_size=37,
        max_position_embeddings=23,
        local_attention=6,
        local_rope_theta=70.0,
        attn_implementation="eager",
        **dict.fromkeys(("pad_token_id", "bos_token_id", "cls_token_id"), 1),
        **dict.fromkeys(("eos_token_id", "sep_token_id"), 2),
    ),
    "openai-gpt": lambda: transformers.OpenAIGPTConfig(
        vocab_size=47, n_embd=30, n_layer=3, n_head=5, n_positions=23
    ),
}
LM_CLASSES = {
    "bert": "BertForPreTraining",
    "roberta": "RobertaForMaskedLM",
    "distilbert": "DistilBertForMaskedLM",
    "electra": "ElectraForMaskedLM",
    "modernbert": "ModernBertForMaskedLM",
    "openai-gpt": "OpenAIGPTLMHeadModel",
}


def make(model_type, class_name=None, seed=0, **config):
    """A model with random weights: also those that fresh models start from 0 or 1."""
    torch.manual_seed(seed)
    configuration = CONFIGS[model_type]()
    for name, value in config.items():
        setattr(configuration, name, value)
    model = getattr(transformers, class_name or LM_CLASSES[model_type])(configuration).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:  # attention so sharp that it matters how far positions turn queries and keys
                parameter.mul_(20.0 if "Wqkv" in name else 4.0)
    return model


PUBLISHED = {  # the shapes of the published base models, by the defaults of `transformers` where they agree
    "bert": (transformers.BertConfig, {}),
    "roberta": (
        transformers.RobertaConfig,
        {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "vocab_size": 50265},
    ),
    "distilbert": (transformers.DistilBertConfig, {}),
    "electra": (
        transformers.ElectraConfig,
        {
            "embedding_size": 768,
            "hidden_size": 768,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
        },
    ),
    "modernbert": (  # not all of the 22 layers
        transformers.ModernBertConfig,
        {"num_hidden_layers": 4, "attn_implementation": "eager"},
    ),
    "openai-gpt": (transformers.OpenAIGPTConfig, {}),
}


def make_published(model_type):
    """A model of the published shape with random weights."""
    torch.manual_seed(3)
    config_class, sizes = PUBLISHED[model_type]
    return getattr(transformers, LM_CLASSES[model_type])(config_class(**sizes)).eval()


def rows(vocab_size=47, lengths=(13, 5, 9), seed=1):
    """Rows of ragged length with two segments, in our inputs."""
    rng = np.random.default_rng(seed)
    length = max(lengths)
    shape = (len(lengths), length)
    sequence_ids = (np.arange(length) < np.array(lengths)[:, None]).astype("int32")
    tokens = rng.integers(2, vocab_size, shape).astype("int32")  # 0 and 1 pad
    tokens[sequence_ids == 0] = 1
    segments = (np.arange(length) > np.array(lengths)[:, None] // 2).astype("int32") * sequence_ids
    return {
        "token_ids": tokens,
        "segment_ids": segments,
        "position_ids": np.tile(np.arange(length, dtype="int32"), (shape[0], 1)),
        "sequence_ids": sequence_ids,
    }


def answers(model, inputs):
    """Hidden states and logits of `transformers`, NumPy arrays by name."""
    arguments = {
        "input_ids": torch.tensor(inputs["token_ids"]).long(),
        "attention_mask": torch.tensor(inputs["sequence_ids"]).long(),
        "output_hidden_states": True,
    }
    if model.config.model_type in ("bert", "electra"):
        arguments["token_type_ids"] = torch.tensor(inputs["segment_ids"]).long()
    with torch.no_grad():
        output = model(**arguments)
    found = {"hidden": output.hidden_states[-1]}
    if model.config.model_type == "modernbert":  # gives them without the last norm
        base = getattr(model, "model", model)
        with torch.no_grad():
            found["hidden"] = base.final_norm(found["hidden"])
    for ours, theirs in (
        ("lm", "prediction_logits"),
        ("lm", "logits"),
        ("is_next", "seq_relationship_logits"),
    ):
        if theirs in output:
            found[ours] = output[theirs]
    return {name: tensor.numpy() for name, tensor in found.items()}


def check_close(ours, theirs, real):
    """Hold an array of ours against one of theirs where there are real tokens."""
    ours = keras.ops.convert_to_numpy(ours)
    difference = np.abs(ours - theirs)[real]
    assert theirs[real].std() > 0.03  # else anything would be close
    assert difference.mean() < 1e-5
    assert difference.max() < 1e-4
