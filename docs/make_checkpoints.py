"""Writes docs/checkpoints.md from the conversion tables: `python docs/make_checkpoints.py`."""

from pathlib import Path

from bert_keras.checkpoints.configs import CONFIG_TABLES
from bert_keras.checkpoints.engine import head_shapes
from bert_keras.checkpoints.table import Table
from bert_keras.checkpoints.tables import EXPORTS, GOOGLE_BERT, HUGGINGFACE_TABLES, OPENAI
from bert_keras.encoders.config import TransformerConfig

# Sizes that cannot be mistaken for one another, and what they stand for.
SIZES = {
    "vocab_size": 10007,
    "embedding_dim": 510,
    "token_embedding_dim": 131,
    "d_hid": 2063,
    "max_len": 523,
    "num_segments": 13,
}
NAMES = {size: name for name, size in SIZES.items()} | {
    523: "positions",
    1530: "3 embedding_dim",
    4126: "2 d_hid",
    17: "num_classes",
}
TITLES = {
    "openai": "OpenAI GPT, as published (`load_openai`)",
    "google-bert": "Google BERT, TensorFlow checkpoints (`load_bert`)",
    "bert": "Hugging Face `bert` (`load_huggingface`, `save_huggingface`)",
}
INTRODUCTION = """# Published checkpoints, array by array

Generated from the conversion tables in `bert_keras/checkpoints/tables.py` by `docs/make_checkpoints.py`.
One engine applies them: every array of a file is used or listed as ignored, every variable of ours comes
from exactly one place, all shapes must be equal. `{layer}` counts from 0. Matrices are `(in, out)` here and
in TensorFlow, `(out, in)` in PyTorch. Variables of heads are written as `head: path`; a head is read if its
arrays are there, and becomes that of the task of its name (`pooler`: of all sentence-level tasks; that of
ModernBERT of token-level ones too). A ModernBERT's first layer
has no `attn_norm`, and the arrays `head` belong to `lm` if there is a `decoder.bias`, else to the pooler.

Class 0 of the published next-sentence heads means that B follows A, which is class 1 of our `is_next`: the
classes change places.
"""


def config_for(name: str) -> TransformerConfig:
    """Return an encoder of the format with the sizes above."""
    model_type = {"openai": "openai-gpt", "google-bert": "bert"}.get(name, name)
    fields = {**SIZES, "num_layers": 2, "num_heads": 5, "token_embedding_dim": SIZES["embedding_dim"]}
    if model_type == "electra":
        fields["token_embedding_dim"] = SIZES["token_embedding_dim"]
    fields |= {"embedding_dropout": 0.0, "attention_dropout": 0.0, "residual_dropout": 0.0, "seed": 0}
    fields |= {"layer_norm_epsilon": 1e-12, "use_exact_gelu": True, "initializer_range": 0.02}
    fixed = dict(CONFIG_TABLES[model_type].fixed)
    fields["max_len"] -= fixed["position_offset"]
    return TransformerConfig(**{**fields, **fixed})


def shape_text(shape: tuple[int, ...]) -> str:
    return (
        "(" + ", ".join(NAMES.get(size, str(size)) for size in shape) + ("," if len(shape) == 1 else "") + ")"
    )


def section(table: Table) -> str:
    """Return the chapter of one format."""
    config = config_for(table.name)
    shapes = config.variable_shapes()
    lines = [f"## {TITLES.get(table.name, f'Hugging Face `{table.name}`')}", ""]
    lines += ["| array | shape | our variable | change |", "| --- | --- | --- | --- |"]
    rows = [(row, shapes.get(row.target.replace("{layer}", "1")), row.target) for row in table.rows]
    for head in table.heads:
        of_head = head_shapes(head.name, config, 17)
        rows += [(row, of_head[row.target], f"{head.name}: {row.target}") for row in head.rows]
    for row, shape, target in rows:
        if shape is not None:
            source_shape = shape_text(row.transform.source_shape(shape))
            names = "<br>".join(f"`{source}`" for source in row.sources)
            lines.append(f"| {names} | {source_shape} | `{target}` | {row.transform.description} |")
    lines.append("")
    if table.prefix:
        lines.append(f"All names may lack the prefix `{table.prefix}`.")
    for old, new in table.spellings.items():
        lines.append(f"Names that end in `{old}` are read as `{new}`.")
    for copy, original in table.copies.items():
        lines.append(f"`{copy}` must equal `{original}`, if it is there (it is tied here).")
    for pattern, reason in table.ignored.items():
        lines.append(f"Ignored: `{pattern}`, {reason}.")
    for path, reason in table.fresh.items():
        lines.append(f"If the encoder has `{path}`: {reason}.")
    if table.name in EXPORTS:
        classes = [f"{kind}: `{name}`" for kind, (name, _) in EXPORTS[table.name].items()]
        lines.append("Written as: " + "; ".join(classes) + ".")
    return "\n\n".join(["\n".join(lines[: lines.index("", 2)]), *lines[lines.index("", 2) + 1 :]])


def document() -> str:
    """Return the whole page."""
    tables = [OPENAI, GOOGLE_BERT, *HUGGINGFACE_TABLES.values()]
    return "\n".join([INTRODUCTION, "\n\n".join(section(table) for table in tables), ""])


if __name__ == "__main__":
    (Path(__file__).parent / "checkpoints.md").write_text(document(), encoding="utf-8")
