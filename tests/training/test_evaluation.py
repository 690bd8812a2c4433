"""What evaluate_model says, against other libraries on the model's own predictions."""

import keras
import numpy as np
import pytest
from scipy import stats

from bert_keras import (
    SentenceBatch,
    TaskDataBatch,
    TaskMetadata,
    create_transformer,
    encoder_arrays,
    evaluate_model,
    train_model,
)
from bert_keras.training import MultiTaskModel

pytestmark = pytest.mark.filterwarnings("ignore")
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
TASKS = [
    TaskMetadata("tag", True, labels=TAGS),
    TaskMetadata("topic", False, 4),
    TaskMetadata("topics", False, 6, kind="multi_label", read_from="mean"),
    TaskMetadata("score", False, kind="regression", read_from="max"),
    TaskMetadata("answer", False, kind="span"),
]


def make_batch(seed, rows=5, length=9):
    rng = np.random.default_rng(seed)
    padding = np.arange(length) < rng.integers(4, length + 1, (rows, 1))
    tokens = np.where(padding, rng.integers(5, 40, (rows, length)), 0).astype("int32")
    index = {name: rng.integers(-1, 2, rows).astype("int32") for name in ("topic", "topics", "score")}
    sets = np.array([[*rng.permutation(6)[: rng.integers(0, 4)], -1, -1, -1, -1][:4] for _ in range(rows)])
    answers = np.sort(rng.integers(0, 4, (rows, 2)), axis=1).astype("int32")
    labels = {
        "topic": TaskDataBatch(rng.integers(0, 4, rows).astype("int32"), index["topic"]),
        "topics": TaskDataBatch(sets.astype("int32"), np.minimum(index["topics"], 0)),
        "score": TaskDataBatch(rng.integers(0, 6, rows).astype("float32"), np.minimum(index["score"], 0)),
        "answer": TaskDataBatch(answers, np.zeros(rows, "int32")),
    }
    mask = padding & (rng.random(tokens.shape) < 0.8)
    tags = {"tag": TaskDataBatch(rng.integers(0, 5, tokens.shape).astype("int32"), mask)}
    return SentenceBatch(tokens, np.zeros_like(tokens), padding, tags, labels)


@pytest.fixture(scope="module")
def model():
    model = MultiTaskModel(create_transformer(40, 12, 16, 2, 3, 20, seed=5), TASKS, seed=3)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if variable.path.endswith(("kernel", "embeddings")):
            variable.assign(rng.normal(0, 0.6, variable.shape))
    return model


def test_against_other_libraries(model):
    metrics = pytest.importorskip("sklearn.metrics")
    seqeval = pytest.importorskip("seqeval.metrics")
    batches = [make_batch(seed) for seed in range(12)]
    found = evaluate_model(model, batches)
    outputs = [
        {name: keras.ops.convert_to_numpy(value) for name, value in model(encoder_arrays(batch)).items()}
        for batch in batches
    ]
    true, said = [], []
    for batch, logits in zip(batches, outputs, strict=True):
        target, mask = batch.token_classification["tag"]
        for row in range(len(mask)):
            if mask[row].any():
                true.append([TAGS[c] for c in target[row][mask[row]]])
                said.append([TAGS[c] for c in logits["tag"][row][mask[row]].argmax(-1)])
    names = {"entity_precision": seqeval.precision_score, "entity_recall": seqeval.recall_score}
    for name, function in {**names, "entity_f1": seqeval.f1_score}.items():
        assert found[f"tag_{name}"] == pytest.approx(function(true, said), abs=1e-6)
    flat = [np.concatenate([np.array(tags) for tags in sides]) for sides in (true, said)]
    assert found["tag_macro_f1"] == pytest.approx(metrics.f1_score(*flat, average="macro"), abs=1e-6)
    assert found["tag_accuracy"] == pytest.approx(metrics.accuracy_score(*flat), abs=1e-6)

    def pairs(name, decode):
        targets, predictions = [], []
        for batch, logits in zip(batches, outputs, strict=True):
            target, index = batch.sentence_classification[name]
            targets.append(target[index >= 0])
            predictions.append(decode(logits[name][index >= 0]))
        return np.concatenate(targets), np.concatenate(predictions)

    target, logits = pairs("topics", lambda logits: logits)
    truth = np.zeros(logits.shape, int)
    for row, classes in zip(truth, target, strict=True):
        row[classes[classes >= 0]] = 1
    for average in ("micro", "macro"):
        expected = metrics.f1_score(truth, logits >= 0, average=average, zero_division=0)
        assert found[f"topics_{average}_f1"] == pytest.approx(expected, abs=1e-6)
    target, numbers = pairs("score", lambda logits: logits[:, 0])
    assert found["score_pearson"] == pytest.approx(stats.pearsonr(target, numbers).statistic, abs=1e-5)
    assert found["score_spearman"] == pytest.approx(stats.spearmanr(target, numbers).statistic, abs=1e-5)
    assert found["score_mae"] == pytest.approx(metrics.mean_absolute_error(target, numbers), rel=1e-5)
    target, spans = pairs("answer", lambda logits: logits.argmax(1))
    assert found["answer_exact_match"] == pytest.approx((target == spans).all(-1).mean(), abs=1e-6)
    overlap = [
        2 * len({*range(a, b + 1)} & {*range(c, d + 1)}) / max(1, b + 1 - a + max(0, d + 1 - c))
        for (a, b), (c, d) in zip(target, spans, strict=True)
    ]
    assert found["answer_f1"] == pytest.approx(np.mean(overlap), abs=1e-6)


def test_scores_are_in_the_logs_of_validation():
    """Callbacks of the user see them, and they are those of evaluate_model at the end of the epoch."""
    seen = []

    class Seen(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(logs["val_tag_entity_f1"])

    batches, held_out = [make_batch(seed) for seed in range(4)], [make_batch(seed) for seed in range(4, 6)]
    stopping = keras.callbacks.EarlyStopping("val_score_pearson", mode="max", patience=9)
    model = train_model(
        create_transformer(40, 12, 16, 1, 3, 20, seed=5), TASKS, finetune_generator=batches,
        finetune_epochs=2, validation_finetune_generator=held_out, finetune_callbacks=[Seen(), stopping],
        verbose=0,
    )  # fmt: skip
    history, after = model.training_history["finetune"].history, evaluate_model(model, held_out)
    assert seen == history["val_tag_entity_f1"]
    assert stopping.best == max(history["val_score_pearson"])
    for name, value in after.items():
        assert history[f"val_{name}"][-1] == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_examples_without_labels_change_no_score(model):
    batches = [make_batch(seed) for seed in range(3)]
    more = make_batch(9)
    for labels in more.token_classification.values():
        labels.target_mask[:] = False
    for labels in more.sentence_classification.values():
        labels.target_mask[:] = -1
    alone, together = evaluate_model(model, batches), evaluate_model(model, [*batches, more])
    assert {k: v for k, v in alone.items() if k != "loss"} == pytest.approx(
        {k: v for k, v in together.items() if k != "loss"}, rel=1e-5
    )
