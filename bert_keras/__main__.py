"""The quick start: `python -m bert_keras [directory]`.

In under three minutes on two cores and without a download: from raw text (the language reference and the
docstrings that come with every Python) to a text encoder, a pretrained encoder, two tasks fine-tuned
together, and saved weights in use.
"""

from __future__ import annotations

import argparse
import ast
import os
import sysconfig
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402

from bert_keras.data import (
    Corpus,
    Sentence,
    labelled_generator,
    lm_generator,
    sentence_from_text,
    sentence_from_words,
)  # noqa: E402
from bert_keras.data.splitting import split_sentences  # noqa: E402
from bert_keras.tasks import TaskMetadata, TaskWeightScheduler  # noqa: E402
from bert_keras.text import SentencePieceTextEncoder, TextEncoder  # noqa: E402

MAX_LEN = 64
NUM_PACKAGES = 6
SIGNS = (" ", ",", ".", ":")  # what may stand behind a word; a space for nothing
MARKS = {",": 1, ".": 2, "?": 2, "!": 2, ":": 3, ";": 3}
Docstring = tuple[str, str, list[str]]  # package, document, sentences


def main(arguments: Sequence[str] | None = None) -> None:
    command = argparse.ArgumentParser(prog="python -m bert_keras", description=__doc__)
    command.add_argument(
        "directory", nargs="?", default="bert_keras_quickstart", type=Path, help="where files are kept"
    )
    command.add_argument("--steps", type=int, default=1000, help="pretraining steps")
    options = command.parse_args(arguments)
    start = time.perf_counter()
    folder: Path = options.directory
    folder.mkdir(parents=True, exist_ok=True)

    say("1. Text: Python's language reference and the docstrings of its standard library")
    train, held_out = split(list(read_docstrings()))
    text_encoder, corpus = prepare(folder, train, held_out)
    say("2. Pretraining: masked tokens and is_next")
    pretrain(folder, text_encoder, corpus, held_out, options.steps)
    say("3. Fine-tuning two tasks in one run: `package` of a sentence, `mark` after each word")
    counts = Counter(package for package, _, _ in train if package)
    packages = [name for name, _ in counts.most_common(NUM_PACKAGES)]
    finetune(folder, text_encoder, train, held_out, packages)
    say("4. Loaded in a fresh model, and in use")
    use(folder)
    print(f"\nDone in {time.perf_counter() - start:.0f} s. The files are in {folder.resolve()}:")
    for path in sorted(folder.glob("*")):
        print(f"  {path.name}")


def prepare(
    folder: Path, train: Sequence[Docstring], held_out: Sequence[Docstring]
) -> tuple[TextEncoder, Corpus]:
    """Write the texts, train a text encoder on one of them and tokenise it."""
    write_corpus(folder / "train.txt", train)
    write_corpus(folder / "held_out.txt", held_out)
    text_encoder = SentencePieceTextEncoder.train(folder / "train.txt", vocab_size=4000)
    text_encoder.save(folder / "text_encoder")
    corpus = Corpus.prepare(text_encoder, folder / "train.txt", cache_dir=folder)
    print(
        f"{corpus.num_documents:,} documents, {corpus.num_sentences:,} sentences, "
        f"{corpus.num_tokens:,} tokens"
    )
    pieces = [text_encoder.id_to_token(i) for i in text_encoder.encode(train[7][2][0])]
    print(f"a sentence in pieces: {pieces}")
    return text_encoder, corpus


def pretrain(
    folder: Path, text_encoder: TextEncoder, corpus: Corpus, held_out: Sequence[Docstring], steps: int
) -> None:
    """Train an encoder on the text, tell what it learnt, and save it as `pretrained`."""
    # Keras takes seconds to import: text and data do without it.
    from bert_keras.training import evaluate_model, train_model
    from bert_keras.use import fill_mask

    shape: dict[str, Any] = {"batch_size": 32, "max_len": MAX_LEN}
    generator = lm_generator(text_encoder, corpus, **shape)
    validation = lm_generator(text_encoder, folder / "held_out.txt", seed=1, cache_dir=folder, **shape)
    schedule = TaskWeightScheduler(active_in_pretrain=True, active_in_finetune=False)
    lm = TaskMetadata("lm", True, text_encoder.vocab_size, 0.0, schedule)
    is_next = TaskMetadata("is_next", False, 2, 0.0, schedule)
    model = train_model(
        new_encoder(text_encoder),
        [lm, is_next],
        generator,
        pretrain_steps=steps // 4,
        pretrain_epochs=4,
        recipe="modern",
        verbose=2,
    )
    measured = evaluate_model(model, validation)
    unigram = unigram_loss(corpus, validation)
    print(f"held-out LM loss {measured['lm_loss']:.2f} nats; a unigram model: {unigram:.2f}")
    print(f"held-out is_next accuracy {measured['is_next_accuracy']:.1%}; chance: 50 %")
    for text, word in gaps(held_out):
        [found] = fill_mask(model, text_encoder, text, top_k=4)
        print(f"  {text.replace('[MASK]', f'[{word}]')}\n    -> {', '.join(each.text for each in found)}")
    model.save_weights(folder / "pretrained")


def new_encoder(text_encoder: TextEncoder) -> Any:
    """Return a small transformer with fresh weights, of the kind that learns fastest from scratch."""
    from bert_keras.encoders import create_transformer

    return create_transformer(
        text_encoder.vocab_size,
        size="tiny",
        max_len=MAX_LEN,
        architecture="modern",
        seed=1,
    )


def finetune(
    folder: Path,
    text_encoder: TextEncoder,
    train: Sequence[Docstring],
    held_out: Sequence[Docstring],
    packages: Sequence[str],
) -> None:
    """Fine-tune the pretrained encoder and a fresh one alike, compare them, and save the first as
    `finetuned`."""
    from bert_keras.training import evaluate_model, load_model, train_model

    schedule = TaskWeightScheduler(active_in_pretrain=False, active_in_finetune=True)
    tasks = [
        TaskMetadata("package", False, 0, 0.1, schedule, labels=tuple(packages), read_from="mean"),
        TaskMetadata("mark", True, 0, 0.1, schedule, labels=SIGNS),
    ]
    examples = labelled(text_encoder, train, packages)[:2000]
    tests = labelled(text_encoder, held_out, packages)
    shape: dict[str, Any] = {"pad_id": text_encoder.pad_id, "length_multiple": MAX_LEN}
    batches = labelled_generator(examples, seed=0, **shape)
    test_batches = labelled_generator(tests, shuffle=False, wrap=False, **shape)
    starts = {
        "pretrained weights": lambda: load_model(folder / "pretrained").encoder,
        "scratch": lambda: new_encoder(text_encoder),
    }
    scores = {}
    for name, encoder in starts.items():
        tuned = train_model(
            encoder(),
            tasks,
            finetune_generator=batches,
            finetune_epochs=3,
            recipe="modern",
            verbose=0,
        )
        scores[name] = evaluate_model(tuned, test_batches)
        if name == "pretrained weights":
            tuned.save_weights(folder / "finetuned")
    print(f"{len(examples):,} labelled examples, {len(tests):,} held out; the same steps and recipe for both")
    print(f"{'accuracy':<20}{'package':>10}{'mark':>10}")
    for name, score in [*scores.items(), ("most frequent class", most_frequent(examples, tests))]:
        print(f"{name:<20}{score['package_accuracy']:>10.1%}{score['mark_accuracy']:>10.1%}")


def say(title: str) -> None:
    print(f"\n{title}\n{'-' * len(title)}", flush=True)


def read_docstrings() -> Iterator[Docstring]:
    """Give the topics of the language reference, and every docstring of the standard library, cut into
    sentences."""
    from pydoc_data.topics import topics

    for name, text in sorted(topics.items()):
        for paragraph in english_paragraphs(text):
            yield "", f"topic {name}", paragraph
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).parts
        if {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"} & set(parts):
            continue
        try:
            with warnings.catch_warnings(action="ignore"):
                tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError, OSError):
            continue  # test files of Python itself that are wrong on purpose
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                for paragraph in english_paragraphs(ast.get_docstring(node) or ""):
                    yield (parts[0] if len(parts) > 1 else ""), "/".join(parts), paragraph


def split(docstrings: Sequence[Docstring]) -> tuple[list[Docstring], list[Docstring]]:
    """Hold out the last eighth of each document: text that still follows on, from the same packages."""
    documents: dict[str, list[Docstring]] = {}
    for docstring in docstrings:
        documents.setdefault(docstring[1], []).append(docstring)
    train, held_out = [], []
    for parts in documents.values():
        stop = len(parts) - len(parts) // 8
        train += parts[:stop]
        held_out += parts[stop:]
    return train, held_out


def english_paragraphs(text: str) -> Iterator[list[str]]:
    """Give the paragraphs that are prose, each as sentences: not indented, no code, no underlines."""
    for paragraph in text.split("\n\n"):
        lines = paragraph.strip("\n").splitlines()
        if not lines or lines[0].startswith((" ", "\t", ">>>", "*", "=", "-", "+", "|")):
            continue
        joined = " ".join(line.strip() for line in lines)
        letters = sum(character.isalpha() or character == " " for character in joined)
        if len(joined.split()) >= 6 and letters > 0.85 * len(joined):
            yield split_sentences(joined)


def write_corpus(path: str | Path, docstrings: Sequence[Docstring]) -> None:
    """Write one sentence a line, and a blank line between documents."""
    documents: dict[str, list[str]] = {}
    for _, document, sentences in docstrings:
        documents.setdefault(document, []).extend(sentences)
    Path(path).write_text(
        "\n\n".join("\n".join(sentences) for sentences in documents.values()) + "\n", encoding="utf-8"
    )


def unigram_loss(corpus: Corpus, batches: Any) -> float:
    """Return the loss in nats of a model that knows only how often each id occurs, on the same masked
    tokens."""
    counts = np.bincount(corpus.tokens, minlength=corpus.vocab_size) + 1.0
    nats = -np.log(counts / counts.sum())
    labels = [batch.token_classification["lm"] for batch in batches]
    return float(np.concatenate([nats[target[mask]] for target, mask in labels]).mean())


def gaps(docstrings: Sequence[Docstring]) -> list[tuple[str, str]]:
    """Choose sentences with a gap in the middle, and the word that stood there."""
    chosen = []
    for _, _, sentences in docstrings:
        words = sentences[0].split()
        place = len(words) // 2
        if 7 <= len(words) <= 16 and words[place].isalpha():
            chosen.append((" ".join([*words[:place], "[MASK]", *words[place + 1 :]]), words[place]))
    return chosen[:: max(1, len(chosen) // 4)][:4]


def marked_words(sentences: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return lower-case words without the marks behind them, and the marks' classes."""
    words, marks = [], []
    for word in " ".join(sentences).lower().split():
        bare = word.rstrip("".join(MARKS))
        if bare:
            words.append(bare)
            marks.append(MARKS[word[len(bare)]] if bare != word else 0)
    return words, marks


def labelled(
    text_encoder: TextEncoder, docstrings: Sequence[Docstring], packages: Sequence[str]
) -> list[Sentence]:
    """Make an example of each task from each paragraph, in an order that mixes packages."""
    examples = []
    for package, _, sentences in docstrings:
        if package in packages:
            label = {"package": packages.index(package)}
            examples.append(
                sentence_from_text(text_encoder, " ".join(sentences), sentence_labels=label, max_len=MAX_LEN)
            )
            words, marks = marked_words(sentences)
            examples.append(
                sentence_from_words(text_encoder, words, token_labels={"mark": marks}, max_len=MAX_LEN)
            )
    order = np.random.default_rng(0).permutation(len(examples))
    return [examples[number] for number in order]


def most_frequent(examples: Sequence[Sentence], tests: Sequence[Sentence]) -> dict[str, float]:
    """Return the accuracy of always giving the class that is most frequent in training."""

    def classes(sentences: Sequence[Sentence], task: str) -> list[int]:
        if task == "package":
            return [
                s.sentence_classification[task].target for s in sentences if task in s.sentence_classification
            ]
        labels = [s.token_classification[task] for s in sentences if task in s.token_classification]
        return [t for target, mask in labels for t, used in zip(target, mask, strict=True) if used]

    scores = {}
    for task in ("package", "mark"):
        best = Counter(classes(examples, task)).most_common(1)[0][0]
        scores[f"{task}_accuracy"] = float(np.mean([target == best for target in classes(tests, task)]))
    return scores


def use(folder: Path) -> None:
    """Load what was saved, classify a text with it and put the marks into the text."""
    from bert_keras.training import load_model
    from bert_keras.use import classify, tag

    model, text_encoder = load_model(folder / "finetuned"), TextEncoder.load(folder / "text_encoder")
    text = "Send the message to the server and wait for its reply, which may take a while. It may fail."
    print(f"`{text}`\n  package: {classify(model, text_encoder, text).label}")
    words, _ = marked_words([text])
    [tagged] = tag(model, text_encoder, [words])
    print(f"  marks put back: {' '.join(each.word + each.label.strip() for each in tagged)}")


if __name__ == "__main__":
    main()
