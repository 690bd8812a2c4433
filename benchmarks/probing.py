"""What an encoder's layers know of sentiment before any fine-tuning: a linear classifier on each layer.

    BERT_KERAS_DATA=... python -m benchmarks.probing --weights NAME --text-encoder FOLDER [--json FILE]

The hidden states behind the embeddings, each block and the last norm are averaged over a sentence of `sst2`,
standardised, and classified by logistic regression (scikit-learn), for saved weights and for fresh ones of
the same shape; a second time together with counts of the sentence's words. Beside them a logistic regression
on the counts alone: what it finds, labels alone tell, so a layer that adds nothing to it holds nothing that
they do not. The penalty is the one that does best on a tuning split; accuracy on the development data.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from benchmarks.common import environment, parser, report, sst2
from bert_keras import (
    Sentence,
    TextEncoder,
    create_transformer,
    encoder_arrays,
    labelled_generator,
    load_model,
    sentence_from_text,
)

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
MEANS_SHARE = 0.3  # standard deviation of the means beside counts, which are zero or one for most words


def layer_means(encoder: keras.Model, sentences: list[Sentence], pad_id: int) -> dict[str, np.ndarray]:
    """Return for each layer the means over the sentences, `(sentences, width)`."""
    blocks = [f"layer_{number}" for number in range(encoder.num_layers)]
    names = ["embeddings", *blocks, *(["final_norm"] if encoder.norm_placement == "pre" else [])]
    outputs = {name: encoder.get_layer(name).output for name in names}
    probe = keras.Model(encoder.input, outputs)
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for batch in labelled_generator(sentences, pad_id=pad_id, batch_size=64, shuffle=False, wrap=False):
        share = batch.padding_mask / np.maximum(1, batch.padding_mask.sum(1, keepdims=True))
        for name, hidden in probe.predict_on_batch(encoder_arrays(batch)).items():
            found[name].append((np.asarray(hidden, "float32") * share[..., None]).sum(1))
    return {name: np.concatenate(parts)[: len(sentences)] for name, parts in found.items()}  # no empty rows


def accuracy(features: dict[str, Any], labels: dict[str, np.ndarray]) -> float:
    """Return the accuracy on the development data of the classifier that is best on the tuning split."""
    models = [
        LogisticRegression(C=penalty, max_iter=1000).fit(features["train"], labels["train"])
        for penalty in PENALTIES
    ]
    best = max(models, key=lambda model: model.score(features["tuning"], labels["tuning"]))
    return float(best.score(features["dev"], labels["dev"]))


def scores(
    means: dict[str, np.ndarray] | None,
    counts: dict[str, Any] | None,
    labels: dict[str, np.ndarray],
    numbers: list[int],
) -> list[str]:
    """Return the accuracies with so many examples, from the means, the counts, or both."""
    found = []
    for number in numbers:
        features = dict(counts or {})
        if means is not None:
            scale = StandardScaler().fit(means["train"][:number])
            for name, part in means.items():
                scaled = scale.transform(part)
                if counts is not None:
                    scaled = sparse.hstack([counts[name], sparse.csr_matrix(MEANS_SHARE * scaled)]).tocsr()
                features[name] = scaled
        some = {"train": features["train"][:number], "tuning": features["tuning"], "dev": features["dev"]}
        found.append(f"{accuracy(some, {**labels, 'train': labels['train'][:number]}):.3f}")
    return found


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--weights", default="weights/gutenberg/pretrained")
    command.add_argument("--text-encoder", default="weights/gutenberg/text_encoder")
    command.add_argument("--examples", type=int, nargs="+", default=[800, 4000])
    command.add_argument("--tuning", type=int, default=500)
    options = command.parse_args()
    if options.smoke:
        options.examples, options.tuning = [32], 32
    text_encoder = TextEncoder.load(options.text_encoder)
    every = sst2("train")
    order = np.random.default_rng(0).permutation(len(every))
    parts = {
        "tuning": [every[i] for i in order[: options.tuning]],
        "train": [every[i] for i in order[options.tuning :][: max(options.examples)]],
        "dev": sst2("dev"),
    }
    labels = {name: np.array([label for _, label in part]) for name, part in parts.items()}
    sentences = {
        name: [sentence_from_text(text_encoder, text, max_len=64) for text, _ in part]
        for name, part in parts.items()
    }
    saved = load_model(options.weights).encoder
    fresh = create_transformer(**{**saved.get_config(), "seed": 1})
    counter = CountVectorizer(token_pattern=r"\S+")
    counter.fit([text for text, _ in parts["train"]])
    counts = {name: counter.transform([text for text, _ in part]) for name, part in parts.items()}
    numbers = options.examples
    alone = scores(None, counts, labels, numbers)
    rows: list[list[Any]] = [["words", "counts", *alone, *alone]]
    for start, encoder in (("saved", saved), ("fresh", fresh)):
        means = {name: layer_means(encoder, part, text_encoder.pad_id) for name, part in sentences.items()}
        for layer in means["dev"]:
            features = {name: part[layer] for name, part in means.items()}
            both = [scores(features, beside, labels, numbers) for beside in (None, counts)]
            rows.append([start, layer, *both[0], *both[1]])
    result = {"question": "probing", "options": vars(options), "rows": rows}
    result |= environment(["keras", "tensorflow", "scikit-learn"])
    title = "Accuracy on sst2 of a linear classifier on the means of each layer"
    columns = [f"{n} examples" for n in numbers] + [f"{n}, with counts" for n in numbers]
    report(title, ["start", "layer", *columns], rows, result, options.json)


if __name__ == "__main__":
    main()
