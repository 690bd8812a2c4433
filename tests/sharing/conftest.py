"""A tiny model that was trained on two tasks, and has a third one."""

import numpy as np
import pytest

from bert_keras import (
    BERTTextEncoder,
    Example,
    TaskMetadata,
    TaskWeightScheduler,
    create_transformer,
    encode_examples,
    labelled_generator,
    train_model,
)

WORDS = {"good": "up", "fine": "up", "bad": "down", "poor": "down", "dull": "down"}
LABELS = ("down", "up | away")  # a bar, which Markdown's tables have to escape


@pytest.fixture(scope="session")
def text_encoder():
    return BERTTextEncoder.train([f"a {word} film and a play" for word in WORDS] * 3, vocab_size=53)


@pytest.fixture(scope="session")
def tasks(text_encoder):
    tuned = TaskWeightScheduler(active_in_pretrain=False, active_in_finetune=True)
    return [
        TaskMetadata("lm", True, text_encoder.vocab_size, weight_scheduler=TaskWeightScheduler(True, False)),
        TaskMetadata("mood", False, dropout=0.1, weight_scheduler=tuned, labels=LABELS),
        TaskMetadata("mood_word", True, weight_scheduler=tuned, labels=("no", "yes")),
    ]


@pytest.fixture(scope="session")
def tiny(text_encoder):
    """Makes tiny encoders of odd sizes."""

    def make(**arguments):
        shape = {"embedding_dim": 12, "max_len": 17, "num_layers": 2, "num_heads": 3, "d_hid": 20}
        return create_transformer(text_encoder.vocab_size, **{**shape, "seed": 5, **arguments})

    return make


@pytest.fixture(scope="session")
def model(text_encoder, tasks, tiny):
    examples = [
        Example(
            words=["a", word, "film"],
            labels={"mood": LABELS[mood == "up"], "mood_word": ["no", "yes", "no"]},
        )
        for word, mood in WORDS.items()
    ]
    sentences = encode_examples(text_encoder, examples, tasks[1:])
    batches = labelled_generator(sentences, batch_size=3, pad_id=text_encoder.pad_id)
    return train_model(
        tiny(),
        tasks,
        finetune_generator=batches,
        finetune_epochs=2,
        validation_finetune_generator=batches,
        verbose=0,
    )


@pytest.fixture(scope="session")
def arrays(text_encoder):
    """Inputs of two rows, the second of which ends early."""

    def make(length=9, rows=2):
        columns = np.tile(np.arange(length, dtype="int32"), (rows, 1))
        return {
            "token_ids": np.random.default_rng(0).integers(
                0, text_encoder.vocab_size, (rows, length), "int32"
            ),
            "segment_ids": (columns > 4).astype("int32"),
            "position_ids": columns,
            "sequence_ids": (columns < length - 3 * np.arange(rows)[:, None]).astype("int32"),
        }

    return make
