"""The first thing in the README, with real arguments."""

import numpy as np

from bert_keras import (
    SentencePieceTextEncoder,
    TaskMetadata,
    TaskWeightScheduler,
    create_transformer,
    encoder_arrays,
    lm_generator,
    load_model,
    train_model,
)


def write_corpus(path):
    from pydoc_data.topics import topics

    documents = [text for _, text in sorted(topics.items())[:12]]
    lines = ["\n".join(line for line in text.splitlines() if line.strip()) for text in documents]
    path.write_text("\n\n".join(lines), encoding="utf-8")
    return path


def test_eight_lines(tmp_path):
    corpus = write_corpus(tmp_path / "corpus.txt")
    text_encoder = SentencePieceTextEncoder.train(corpus, vocab_size=500)
    generator = lm_generator(text_encoder, corpus, batch_size=4, max_len=24, cache_dir=tmp_path)
    lm = TaskMetadata(
        "lm",
        is_token_level=True,
        num_classes=text_encoder.vocab_size,
        dropout=0.1,
        weight_scheduler=TaskWeightScheduler(active_in_pretrain=True, active_in_finetune=False),
    )
    is_next = TaskMetadata(
        "is_next",
        is_token_level=False,
        num_classes=2,
        dropout=0.1,
        weight_scheduler=TaskWeightScheduler(active_in_pretrain=True, active_in_finetune=False),
    )
    encoder = create_transformer(
        text_encoder.vocab_size, embedding_dim=16, max_len=24, num_layers=2, num_heads=2
    )
    model = train_model(encoder, [lm, is_next], generator, pretrain_steps=3, verbose=0)
    model.save_weights(tmp_path / "my_awesome_model")
    before = model.predict(encoder_arrays(generator[0]), verbose=0)
    fresh = create_transformer(
        text_encoder.vocab_size, embedding_dim=16, max_len=24, num_layers=2, num_heads=2
    )
    model = load_model(tmp_path / "my_awesome_model", fresh)
    after = model.predict(encoder_arrays(generator[0]), verbose=0)
    assert before["lm"].shape == (4, 24, text_encoder.vocab_size) and before["is_next"].shape == (4, 2)
    for name, logits in before.items():
        np.testing.assert_array_equal(logits, after[name])
