"""Make the examples of docs/pictures.md, in a few minutes on two cores: `python docs/make_pictures.py`.

The text comes with every Python: the docstrings of its standard library, as in the quick start.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from bert_keras import plots  # noqa: E402
from bert_keras.__main__ import Docstring, marked_words, read_docstrings, split, write_corpus  # noqa: E402
from bert_keras.data import Example, encode_examples, labelled_generator, lm_generator  # noqa: E402
from bert_keras.schedules import LinearSchedule, TaskWeightScheduler  # noqa: E402
from bert_keras.tasks import TaskMetadata  # noqa: E402
from bert_keras.text import SentencePieceTextEncoder, TextEncoder  # noqa: E402

PICTURES = Path(__file__).parent / "pictures"
PACKAGES, MARKS = ("asyncio", "email", "tkinter", "unittest"), ("none", "comma", "stop", "colon")
VOCAB_SIZE, MAX_LEN = 2000, 48
FINETUNE_ONLY = TaskWeightScheduler(active_in_pretrain=False, active_in_finetune=True)
PACKAGE = TaskMetadata("package", False, labels=PACKAGES, read_from="mean", weight_scheduler=FINETUNE_ONLY)
MARK = TaskMetadata("mark", True, labels=MARKS, weight_scheduler=FINETUNE_ONLY)
TEXT = "Return the names of the files in the directory."


def main() -> None:
    """Train two small models, and draw."""
    from bert_keras.training import train_model
    from bert_keras.use import attention_of, classify, embed

    train, held_out = documents()
    folder, text_encoder = small_text_encoder(train)
    generator = lm_generator(
        text_encoder, folder / "train.txt", batch_size=32, max_len=MAX_LEN, cache_dir=folder
    )
    save(plots.batch_in_colour(generator[0], text_encoder, rows=2), "batch_in_colour")
    pretrained, pretraining = pretrain(folder, text_encoder, generator)
    seen = attention_of(pretrained, text_encoder, TEXT)
    sharpest = seen.probabilities.max(-1).mean(-1)
    layer, head = np.unravel_index(sharpest.argmax(), sharpest.shape)
    title = f"layer {layer}, head {head}"
    save(plots.attention_map(seen.probabilities[layer, head], seen.tokens, title=title), "attention_map")
    save(plots.attention_heads(seen.probabilities, seen.tokens), "attention_heads")
    save(plots.head_view(seen.probabilities[layer, head], seen.tokens, title=title), "head_view")
    save(compare(pretrained, text_encoder, train, held_out), "score_against_labels")

    labelled, tests = (batches(text_encoder, part) for part in (train, held_out))
    tuned = train_model(
        pretrained,
        [PACKAGE, MARK],
        finetune_generator=labelled,
        finetune_steps=len(labelled) // 2,
        finetune_epochs=4,
        validation_finetune_generator=tests,
        finetune_optimizer=recipe(),
        verbose=2,
    )
    save(plots.training_curves({"pretrain": pretraining, **tuned.training_history}), "training_curves")
    chosen = [(package, " ".join(texts)) for package, _, texts in held_out if package in PACKAGES]
    said = [found.label for found in classify(tuned, text_encoder, [text for _, text in chosen])]
    true = [package for package, _ in chosen]
    save(plots.confusion_matrix(true, said, labels=PACKAGES), "confusion_matrix")
    some = [pair for package in PACKAGES[:3] for pair in [p for p in chosen if p[0] == package][:8]]
    texts, groups = [text for _, text in some], [package for package, _ in some]
    vectors = np.stack(list(embed(tuned, text_encoder, texts)))
    save(plots.embedding_map(vectors, texts=texts, groups=groups), "embedding_map")


def documents() -> tuple[list[Docstring], list[Docstring]]:
    """Return the docstrings to train on, and those held out."""
    return split(list(read_docstrings()))


def small_text_encoder(train: Sequence[Docstring]) -> tuple[Path, TextEncoder]:
    """Write the text into a folder, and train a text encoder on it."""
    folder = Path(tempfile.mkdtemp(prefix="bert_keras_pictures_"))
    write_corpus(folder / "train.txt", train)
    return folder, SentencePieceTextEncoder.train(folder / "train.txt", vocab_size=VOCAB_SIZE)


def new_encoder(seed: int = 1) -> Any:
    from bert_keras.encoders import create_transformer

    return create_transformer(VOCAB_SIZE, size="tiny", max_len=MAX_LEN, architecture="modern", seed=seed)


def recipe() -> Any:
    from bert_keras.training import create_recipe

    return create_recipe("modern")


def pretrain(folder: Path, text_encoder: TextEncoder, generator: Any) -> tuple[Any, Any]:
    """Return a model of masked tokens and is_next, and the history of its training."""
    from bert_keras.training import train_model

    lm = TaskMetadata(
        "lm", True, VOCAB_SIZE, weight_scheduler=TaskWeightScheduler(True, active_in_finetune=False)
    )
    grows = LinearSchedule(0.2, 1.0, num_steps=300, active_in_finetune=False)
    is_next = TaskMetadata("is_next", False, 2, weight_scheduler=grows)
    length = {"pretrain_steps": 75, "pretrain_epochs": 8}
    model = train_model(new_encoder(), [lm, is_next], generator, **length, recipe=recipe(), verbose=2)
    return model, model.training_history["pretrain"]


def examples_of(docstrings: Sequence[Docstring]) -> list[Example]:
    """Return for each paragraph of the packages which one it is from, and the marks behind its words."""
    examples = []
    for package, _, sentences in docstrings:
        if package in PACKAGES:
            examples.append(Example(" ".join(sentences), labels={"package": package}))
            words, numbers = marked_words(sentences)
            examples.append(Example(words=words, labels={"mark": [MARKS[number] for number in numbers]}))
    return examples


def batches(text_encoder: TextEncoder, docstrings: Sequence[Docstring]) -> Any:
    sentences = encode_examples(text_encoder, examples_of(docstrings), [PACKAGE, MARK], max_len=MAX_LEN)
    return labelled_generator(sentences, pad_id=text_encoder.pad_id, length_multiple=MAX_LEN)


def compare(pretrained: Any, text_encoder: TextEncoder, train: Any, held_out: Any) -> Any:
    """Draw the marks' F1 with and without pretraining: two numbers of examples, three seeds, one rate."""
    from bert_keras.training import compare_pretraining

    marks = []
    for part in (train, held_out):
        examples = [example for example in examples_of(part) if example.words is not None]
        marks.append(encode_examples(text_encoder, examples, [MARK], max_len=MAX_LEN))
    report = compare_pretraining(
        pretrained.encoder,
        new_encoder,
        MARK,
        *marks,
        pad_id=text_encoder.pad_id,
        label_budgets=(100, 800),
        learning_rates=(3e-3,),
        epochs=3,
        metric="macro_f1",
    )
    return report.plot()


def save(figure: Any, name: str, dpi: int = 110) -> None:
    """Write a figure as PNG of at most 256 colours, which is what such pictures need."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    path = PICTURES / f"{name}.png"
    Image.open(file).convert("RGB").quantize(128).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    main()
