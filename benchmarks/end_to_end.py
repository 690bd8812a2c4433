"""Raw text to trained steps: masked language modelling on sentences of natural lengths, beside KerasHub.

    BERT_KERAS_DATA=... python -m benchmarks.end_to_end [--smoke] [--rounds N] [--json FILE]

The same sentences of `gutenberg/train.txt` with the same WordPiece vocabulary, 4 layers, width 256, rows
of at most 128 tokens, 32 rows an update, AdamW, TensorFlow in mixed_bfloat16. A turn begins with a text
file and ends when every sentence was trained on once. KerasHub: `fit` of `BertMaskedLM` with its
`BertMaskedLMPreprocessor` on raw strings (tf.data, parallel map), one sentence a row. bert_keras:
`lm_generator` over the file, tokenised anew in every turn, sentences packed into rows, and its graph traced
anew. Real tokens a second, median of the turns; the ratio is KerasHub's time over ours.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import (
    compared,
    data_folder,
    environment,
    kerashub_masked_lm,
    parser,
    report,
    serve_timed,
    workers_of,
)

MODULE = "benchmarks.end_to_end"
SHAPE = {"layers": 4, "width": 256, "rows": 32, "length": 128}
SMOKE = {"layers": 1, "width": 64, "rows": 4, "length": 64}
DTYPE = "mixed_bfloat16"
SIDES = [("bert_keras", "tensorflow", DTYPE), ("KerasHub", "tensorflow", DTYPE)]


def bert_keras_run(text: Path, vocabulary: Path, shape: dict[str, int]) -> Callable[[], Any]:
    import keras

    from bert_keras import (
        BERTTextEncoder,
        TaskMetadata,
        TaskWeightScheduler,
        create_transformer,
        lm_generator,
        train_model,
    )

    text_encoder = BERTTextEncoder(vocabulary)
    encoder = create_transformer(
        text_encoder.vocab_size, shape["width"], shape["length"], shape["layers"], dtype=DTYPE
    )
    lm = TaskMetadata("lm", True, text_encoder.vocab_size, 0.0, TaskWeightScheduler(True, False))

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            generator = lm_generator(
                text_encoder,
                text,
                batch_size=shape["rows"],
                max_len=shape["length"],
                use_single_sentence=True,
                fill=False,
                pack=True,
                cache_dir=folder,
            )
            optimizer = keras.optimizers.AdamW(1e-4)
            train_model(encoder, [lm], generator, pretrain_optimizer=optimizer, verbose=0)

    return run


def kerashub_run(text: Path, vocabulary: Path, shape: dict[str, int]) -> Callable[[], Any]:
    import keras
    import keras_hub
    import tensorflow as tf

    keras.config.set_dtype_policy(DTYPE)
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=str(vocabulary), lowercase=True)
    preprocessor = keras_hub.models.BertMaskedLMPreprocessor(
        tokenizer, sequence_length=shape["length"], mask_selection_length=20
    )
    size = tokenizer.vocabulary_size(), shape["layers"], shape["width"], shape["length"]
    model = kerashub_masked_lm(*size, preprocessor)
    model.compile(
        keras.optimizers.AdamW(1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy()],
    )

    def run() -> None:
        lines = [line for line in text.read_text(encoding="utf-8").split("\n") if line]
        data = tf.data.Dataset.from_tensor_slices(lines).batch(shape["rows"], drop_remainder=True)
        model.fit(data, verbose=0)

    return run


def child(name: str, dtype: str, size: str, text: str, vocabulary: str) -> None:
    shape = SMOKE if size == "smoke" else SHAPE
    make = {"bert_keras": bert_keras_run, "KerasHub": kerashub_run}[name]
    serve_timed(make(Path(text), Path(vocabulary), shape))


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        return child(*sys.argv[2:])
    command = parser(__doc__)
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--sentences", type=int, default=1600)
    options = command.parse_args()
    rounds, count = (1, 64) if options.smoke else (options.rounds, options.sentences)
    from bert_keras.text import BERTTextEncoder

    novels = (data_folder() / "gutenberg/train.txt").read_text(encoding="utf-8").split("\n")
    sentences = [line for line in novels if line][: 40 * count : 40][:count]
    with tempfile.TemporaryDirectory() as folder:
        text, vocabulary = Path(folder, "text.txt"), Path(folder, "vocab.txt")
        text.write_text("\n\n".join(sentences) + "\n", encoding="utf-8")
        text_encoder = BERTTextEncoder.train(novels, vocab_size=8000, vocab_file=vocabulary)
        tokens = sum(min(len(ids), 126) + 2 for ids in text_encoder.encode_batch(sentences))
        size = "smoke" if options.smoke else "full"
        workers = workers_of(MODULE, SIDES, size, text, vocabulary)
        rows, seconds = compared(workers, rounds, 0, tokens)
    ours, theirs = (side["median"] for side in seconds.values())
    ratio = theirs / ours
    result = {"question": "end_to_end", "tokens": tokens, "seconds": seconds, "ratio": ratio}
    result |= environment(["keras", "keras-hub", "tensorflow", "tensorflow-text"])
    columns = ["side", "real tokens/s", "min s", "median s", "max s", "ratio"]
    title = f"{count} sentences, {tokens:,} tokens from raw text: KerasHub / bert_keras = {ratio:.2f}"
    report(title, columns, rows, result, options.json)


if __name__ == "__main__":
    main()
