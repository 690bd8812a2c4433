"""What the examples of README, docs and docstrings take for granted: files in the working directory, and
objects by name. Everything is tiny."""

import contextlib
import functools
import json
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import bert_keras as bk

GOOD, BAD = ("good", "fine", "great", "lovely"), ("bad", "poor", "dull", "awful")
PUBLISHED = ("bert-directory", "all-MiniLM-L6-v2")
GOOGLE = "uncased_L-12_H-768_A-12"
MAX_LEN, MOST_STEPS, MOST_IDS = 512, 2, 300


def prose(first, last):
    """Documents of the language reference: one sentence a line, a blank line between documents."""
    from pydoc_data.topics import topics

    documents = []
    for name in sorted(topics)[first:last]:
        lines = [line.strip() for line in topics[name].splitlines() if line.strip()]
        documents.append("\n".join(lines[:40]))
    return "\n\n".join(documents) + "\n"


def reviews():
    return [(f"a {word} film", "good" if word in GOOD else "bad") for word in (*GOOD, *BAD)] * 4


def write_files(folder):
    """Write what the examples read, into a folder."""
    texts = {
        "corpus.txt": prose(0, 24),
        "held_out.txt": prose(24, 32),
        "a.txt": prose(0, 3),
        "train.tsv": "".join(f"{text}\t{label}\n" for text, label in reviews()),
        "dev.tsv": "".join(f"{text}\t{label}\n" for text, label in reviews()[:16]),
        "reviews.tsv": "sentence\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in reviews()),
        "reviews.csv": "sentence,label\n" + "".join(f'"{text}",{label}\n' for text, label in reviews()),
        "new.txt": "a fine film\na poor film\n",
        "words.txt": "cytokine\ninterleukin\n",
        "train.conllu": "".join(
            "# a comment\n1\tShe\t_\tPRON\n2\tlaughed\t_\tVERB\n\n1\tAnn\t_\tPROPN\n2\truns\t_\tVERB\n\n"
            for _ in range(8)
        ),
        "ner.conll": "Ann B-PER\nlives O\nin O\nOslo B-LOC\n\nOslo B-LOC\nsleeps O\n\n" * 8,
        "topics.txt": "__label__arts a fine film\n__label__sport __label__news Ann runs in Oslo\n" * 8,
        "reviews.jsonl": "".join(
            json.dumps({"text": text, "label": label, "stars": 4 * (label == "good") + 1}) + "\n"
            for text, label in reviews()
        ),
        "squad.json": json.dumps({"data": [{"paragraphs": [_paragraph()] * 6}]}),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    import gzip

    (folder / "b.txt.gz").write_bytes(gzip.compress(prose(3, 6).encode()))


def _paragraph():
    context = "Ann lives in Oslo."
    answers = [{"answer_start": 13, "text": "Oslo"}]
    return {"context": context, "qas": [{"id": "1", "question": "Where does Ann live?", "answers": answers}]}


class World:
    """The objects, each made when an example first asks for it; models are made anew each time.

    Args:
        folder: with the files of `write_files`.
    """

    def __init__(self, folder):
        self.folder = Path(folder)

    def get(self, name):
        found = getattr(self, name)
        return found() if callable(found) and name in FRESH else found

    @cached_property
    def text_encoder(self):
        lines = (self.folder / "corpus.txt").read_text(encoding="utf-8").splitlines()
        more = [text for text, _ in reviews()] + ["Ann lives in Oslo. She laughed and runs."] * 9
        return bk.BERTTextEncoder.train(lines + more, vocab_size=300)

    @cached_property
    def generator(self):
        shape = {"batch_size": 4, "max_len": 32, "cache_dir": self.folder / "cache"}
        return bk.lm_generator(self.text_encoder, self.folder / "corpus.txt", **shape)

    @property
    def held_out(self):
        return [self.generator[i] for i in range(2)]

    @property
    def batch(self):
        return self.generator[0]

    @property
    def corpus(self):
        return self.generator.corpus

    @property
    def lm(self):
        schedule = bk.TaskWeightScheduler(active_in_pretrain=True, active_in_finetune=False)
        return bk.TaskMetadata("lm", True, self.text_encoder.vocab_size, 0.1, schedule)

    @property
    def is_next(self):
        schedule = bk.TaskWeightScheduler(active_in_pretrain=True, active_in_finetune=False)
        return bk.TaskMetadata("is_next", False, 2, 0.1, schedule)

    @property
    def tasks(self):
        return [self.lm, self.is_next]

    sentiment = bk.TaskMetadata("sentiment", False, labels=("bad", "good"))
    pos = bk.TaskMetadata("pos", True, labels=("PRON", "PROPN", "VERB"))
    answers = bk.TaskMetadata("answer", False, kind="span")

    @property
    def examples(self):
        return [bk.Example(text, labels={"sentiment": label}) for text, label in reviews()]

    @property
    def sentences(self):
        words = bk.read_conll(self.folder / "train.conllu", word=1, labels={"pos": 3})
        questions = bk.read_squad(self.folder / "squad.json", "answer")
        every = [*self.examples, *words, *questions]
        tasks = [self.sentiment, self.pos, self.answers]
        return bk.encode_examples(self.text_encoder, every, tasks, max_len=64)

    @property
    def batches(self):
        return self._batches_of(self.sentences)

    @property
    def reviews(self):
        return self._batches_of(
            [sentence for sentence in self.sentences if "sentiment" in sentence.sentence_classification]
        )

    @property
    def tagged(self):
        return self._batches_of([sentence for sentence in self.sentences if sentence.token_classification])

    def _batches_of(self, sentences):
        return bk.labelled_generator(sentences, pad_id=self.text_encoder.pad_id, batch_size=8)

    texts = ["a fine film", "a dull film", "Ann lives in Oslo.", "She laughed."]
    rows = [("a fine film", 1), ("a dull film", 0)] * 8

    def encoder(self):
        return bk.create_transformer(self.text_encoder.vocab_size, 16, MAX_LEN, 2, 4, seed=0)

    def causal_encoder(self):
        return bk.create_transformer(self.text_encoder.vocab_size, 16, MAX_LEN, 1, 2, is_causal=True, seed=0)

    def masked_model(self):
        return bk.MultiTaskModel(self.encoder(), self.tasks)

    def model(self):
        """With a task of every kind."""
        model = bk.MultiTaskModel(self.encoder(), [*self.tasks, self.sentiment, self.pos, self.answers])
        losses = {"loss": [3.0, 2.0], "lm_loss": [3.0, 2.0], "lm_weight": [1.0, 0.5]}
        history = SimpleNamespace(history=losses, epoch=[0, 1], params={"steps": 9})
        model.training_history = {"pretrain": history}
        return model

    def sentiment_model(self):
        return bk.MultiTaskModel(self.encoder(), [self.sentiment])

    @property
    def seen(self):
        return bk.attention_of(self.encoder(), self.text_encoder, "The cat sat on the mat.")

    @property
    def report(self):
        from bert_keras.training import Comparison, ComparisonRow

        values = [("pretrained", 100, 0.7), ("scratch", 100, 0.6), ("pretrained", 1000, 0.9)]
        rows = [ComparisonRow("accuracy", n, side, 1e-3, (mean,), mean, 0.05) for side, n, mean in values]
        return Comparison(rows, "test", [])

    def write_models(self):
        """Write published models and a saved one into the folder."""
        folder = self.folder
        for name in PUBLISHED:
            bk.save_huggingface(self.masked_model(), folder / name, text_encoder=self.text_encoder, verbose=0)
        bk.save_huggingface(
            self.sentiment_model(), folder / "my_bert", text_encoder=self.text_encoder, verbose=0
        )
        self.text_encoder.save(folder / "my_tokenizer")
        self.masked_model().save_weights(folder / "my_awesome_model")
        self.model().save_weights(folder / "pretrained")
        _write_gpt(folder / "openai-gpt")
        _write_google_bert(folder / GOOGLE, self.masked_model(), self.text_encoder)


@contextlib.contextmanager
def small():
    """Within this context named sizes are tiny, vocabularies have few ids, trainings take two steps,
    TensorFlow traces no graphs, and OpenAI's files lie in the working directory."""
    from bert_keras import checkpoints
    from bert_keras.checkpoints import download, loading
    from bert_keras.cli import starts
    from bert_keras.encoders import create, text_cnn

    sizes = dict.fromkeys(create.TRANSFORMER_SIZES, {"embedding_dim": 16, "num_layers": 1})
    cnn_sizes = dict.fromkeys(text_cnn.TEXT_CNN_SIZES, {"embedding_dim": 16, "num_filters": 8})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(create, "TRANSFORMER_SIZES", sizes)
        patch.setattr(text_cnn, "TEXT_CNN_SIZES", cnn_sizes)
        patch.setattr(bk.MultiTaskModel, "fit", _short_fit(bk.MultiTaskModel.fit))
        for cls in (bk.SentencePieceTextEncoder, bk.BERTTextEncoder):
            patch.setattr(cls, "train", classmethod(_short_train(cls.train.__func__)))
        for module in (bk, checkpoints, download, loading, starts):
            patch.setattr(module, "openai_directory", _openai_directory)
        _run_eagerly(True)
        try:
            yield
        finally:
            _run_eagerly(False)


@functools.wraps(bk.openai_directory)
def _openai_directory(path=None):
    return Path(path or "openai-gpt")


def _short_fit(fit):
    def short(self, *args, steps_per_epoch=None, epochs=1, **kwargs):
        steps = min(steps_per_epoch or MOST_STEPS, MOST_STEPS)
        return fit(self, *args, steps_per_epoch=steps, epochs=1, **kwargs)

    return short


def _short_train(train):
    def short(cls, source, vocab_size=8000, *args, **kwargs):
        return train(cls, source, min(vocab_size, MOST_IDS), *args, **kwargs)

    return short


def _run_eagerly(wanted):
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.run_functions_eagerly(wanted)


FRESH = ("encoder", "causal_encoder", "masked_model", "model", "sentiment_model")


def _write_gpt(directory):
    """OpenAI's files: a model of random numbers, and a vocabulary of letters."""
    letters = "abcdefghijklmnopqrstuvwxyz.,!?'"
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "\n</w>", "<unk>"]
    directory.mkdir()
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    (directory / "encoder_bpe_40000.json").write_text(json.dumps(vocabulary))
    (directory / "vocab_40000.bpe").write_text("#version: 0.2\n")
    width, rng = 24, np.random.default_rng(0)
    shapes = [(MAX_LEN, width), (len(pieces), width)]
    shapes += [(1, width, 3 * width), (3 * width,), (1, width, width), (width,), (width,), (width,)]
    shapes += [(1, width, 4 * width), (4 * width,), (1, 4 * width, width), (width,), (width,), (width,)]
    flat = np.concatenate([rng.normal(size=shape, scale=0.1).ravel() for shape in shapes]).astype("float32")
    for number, part in enumerate(np.array_split(flat, 10)):
        np.save(directory / f"params_{number}.npy", part)
    (directory / "params_shapes.json").write_text(json.dumps(shapes))


def _write_google_bert(directory, model, text_encoder):
    """Google's BERT, as TensorFlow writes it."""
    import tensorflow as tf

    from bert_keras.checkpoints.configs import config_to_json
    from bert_keras.checkpoints.engine import export_arrays
    from bert_keras.checkpoints.tables import GOOGLE_BERT

    encoder = model.encoder
    variables = {v.path: keras.ops.convert_to_numpy(v.value) for v in encoder.weights}
    arrays = dict(export_arrays(GOOGLE_BERT, encoder.num_layers, variables, ()))
    directory.mkdir()
    tf.raw_ops.SaveV2(
        prefix=str(directory / "bert_model.ckpt"),
        tensor_names=list(arrays),
        shape_and_slices=[""] * len(arrays),
        tensors=list(arrays.values()),
    )
    config = config_to_json("bert", encoder.config)
    (directory / "bert_config.json").write_text(json.dumps(config))
    pieces = [text_encoder.id_to_token(i) for i in range(text_encoder.vocab_size)]
    (directory / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
