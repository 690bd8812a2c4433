"""Draw the way of the data, docs/pictures/data_way.png: `python docs/make_data_way.py`. The ids are real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from make_pictures import documents, save, small_text_encoder
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from bert_keras.data import Corpus, SentenceBatch, lm_generator
from bert_keras.text import TextEncoder

WIDTH, HEIGHT = 5.4, 10.2  # inches
INK, FRAME, GROUND = "#1A1A1A", "#5A5A5A", "#F5F7FA"
SPECIAL, FIRST, SECOND, MASKED, PADDING = "#C9C9C9", "#DCEBF7", "#FBE3B3", "#F3A683", "#FFFFFF"
HEADS = (("lm", "at predicted positions"), ("is_next", "first token"), ("pos", "each word"))
SENTENCE = "Return the name of the file."


def main() -> None:
    """Make the text encoder and a batch, and draw."""
    train, _ = documents()
    folder, text_encoder = small_text_encoder(train)
    corpus = Corpus.prepare(text_encoder, folder / "train.txt", cache_dir=folder)
    batch = lm_generator(text_encoder, corpus, batch_size=32, max_len=48, fill=False)[0]
    save(draw(text_encoder, corpus, batch), "data_way", dpi=200)


def draw(text_encoder: TextEncoder, corpus: Corpus, batch: SentenceBatch) -> Figure:
    """Return the picture."""
    figure = Figure(figsize=(WIDTH, HEIGHT))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0))
    axes.set_axis_off()
    stage(axes, 0.10, 0.85, "Text", "one sentence a line, a blank line between documents")
    axes.text(0.35, 0.72, f"{SENTENCE}\nIt may be …", fontsize=9.5, va="center", family="monospace")
    arrow(axes, 0.95, "text encoder:  encode")
    stage(axes, 1.35, 1.05, "Ids", f"0 to vocab_size - 1 = {text_encoder.vocab_size - 1:,}")
    ids(axes, text_encoder)
    arrow(axes, 2.40, "Corpus.prepare, once")
    stage(axes, 2.80, 0.85, "Corpus", "memory-mapped arrays on disk")
    counts = f"{corpus.num_documents:,} documents, {corpus.num_sentences:,} sentences,"
    counts += f"\n{corpus.num_tokens:,} tokens"
    axes.text(0.35, 3.42, counts, fontsize=9.5, va="center")
    arrow(axes, 3.65, "lm_generator, labelled_generator, mixed_generator")
    stage(axes, 4.05, 1.45, "Batch", "(batch, length), and labels of any tasks")
    rows(axes, text_encoder, batch)
    arrow(axes, 5.50, "encoder_arrays")
    stage(axes, 5.90, 0.85, "Encoder", "create_transformer, load_huggingface, your own …")
    axes.text(0.35, 6.50, "hidden states (batch, length, width)", fontsize=9.5, va="center")
    for number, (name, reads) in enumerate(HEADS):
        x = 0.15 + 1.75 * number
        middle = x + 0.8
        axes.annotate("", (middle, 7.28), (middle, 6.77), arrowprops={"arrowstyle": "-|>", "color": FRAME})
        box(axes, x, 7.30, 1.6, 0.85)
        axes.text(middle, 7.52, f"head {name}", ha="center", va="center", fontsize=10, fontweight="bold")
        axes.text(middle, 7.83, reads, ha="center", va="center", fontsize=8.5)
        axes.annotate("", (middle, 8.68), (middle, 8.17), arrowprops={"arrowstyle": "-|>", "color": FRAME})
        axes.text(middle + 0.06, 8.42, "mean loss", fontsize=8.5, va="center", color=FRAME)
    stage(axes, 8.70, 1.35, "Loss", "one number for each batch")
    terms = "  +  ".join(f"weight × {name} loss" for name, _ in HEADS[:2])
    axes.text(0.35, 9.37, f"{terms}  +  …", fontsize=9.5, va="center")
    note = "each weight by its task's schedule, at every step"
    axes.text(0.35, 9.76, note, fontsize=9, va="center", color=FRAME)
    return figure


def box(axes: Any, x: float, y: float, width: float, height: float) -> None:
    style = {"facecolor": GROUND, "edgecolor": FRAME, "linewidth": 0.9}
    axes.add_patch(FancyBboxPatch((x, y), width, height, "round,pad=0,rounding_size=0.08", **style))


def stage(axes: Any, y: float, height: float, title: str, note: str) -> None:
    box(axes, 0.15, y, WIDTH - 0.3, height)
    axes.text(0.35, y + 0.22, title, fontsize=11, fontweight="bold", va="center", color=INK)
    axes.text(1.25, y + 0.225, note, fontsize=8.5, va="center", color=FRAME)


def arrow(axes: Any, y: float, label: str) -> None:
    axes.annotate("", (0.8, y + 0.39), (0.8, y + 0.02), arrowprops={"arrowstyle": "-|>", "color": FRAME})
    axes.text(0.95, y + 0.2, label, fontsize=9, va="center", color="#0072B2")


def ids(axes: Any, text_encoder: TextEncoder) -> None:
    """A box for each piece, its id below."""
    tokens = text_encoder.encode(SENTENCE)
    width = (WIDTH - 0.7) / len(tokens)
    for number, token in enumerate(tokens):
        x = 0.35 + number * width
        axes.add_patch(Rectangle((x, 1.80), width - 0.05, 0.27, facecolor=FIRST, edgecolor="none"))
        piece = text_encoder.id_to_token(token)
        axes.text(x + width / 2 - 0.02, 1.935, piece, ha="center", va="center", fontsize=8.5)
        axes.text(x + width / 2 - 0.02, 2.20, str(token), ha="center", va="center", fontsize=8.5, color=FRAME)


def rows(axes: Any, text_encoder: TextEncoder, batch: SentenceBatch) -> None:
    """The tokens of some rows as coloured squares, and what the colours say."""
    length = batch.tokens.shape[1]
    width = (WIDTH - 0.7) / length
    for row in range(4):
        for column in range(length):
            token, is_real = int(batch.tokens[row, column]), bool(batch.padding_mask[row, column])
            colour = SECOND if batch.segments[row, column] else FIRST
            if token == text_encoder.msk_id:
                colour = MASKED
            elif not is_real:
                colour = PADDING
            elif token in text_encoder.special_ids:
                colour = SPECIAL
            place = (0.35 + column * width, 4.50 + 0.17 * row)
            square(axes, *place, width * 0.92, colour)
    key = ((FIRST, "A"), (SECOND, "B"), (MASKED, "mask"), (SPECIAL, "special"), (PADDING, "padding"))
    for number, (colour, name) in enumerate(key):
        x = 0.35 + 0.95 * number
        square(axes, x, 5.26, 0.15, colour)
        axes.text(x + 0.2, 5.33, name, fontsize=8.5, va="center")


def square(axes: Any, x: float, y: float, width: float, colour: str) -> None:
    axes.add_patch(Rectangle((x, y), width, 0.14, facecolor=colour, edgecolor="#9A9A9A", linewidth=0.3))


if __name__ == "__main__":
    Path(__file__).parent.joinpath("pictures").mkdir(exist_ok=True)
    main()
