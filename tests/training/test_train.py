"""`train_model` as a user meets it: what it accepts, what it refuses, and that one seed gives one run."""

import itertools

import keras
import numpy as np
import pytest

from bert_keras import (
    SentenceBatch,
    TaskDataBatch,
    TaskMetadata,
    TaskWeightScheduler,
    create_lstm,
    create_optimizer,
    create_qrnn,
    create_text_cnn,
    create_transformer,
    encoder_inputs,
    evaluate_model,
    train_model,
)
from bert_keras.training.train import model_for

NO_DROPOUT = {"embedding_dropout": 0.0, "attention_dropout": 0.0, "residual_dropout": 0.0}


def tiny(vocab_size=53, max_len=16, **arguments):
    arguments = {"seed": 5, **arguments}
    return create_transformer(vocab_size, 12, max_len, 1, 3, 20, **arguments)


def weights_of(model):
    return [keras.ops.convert_to_numpy(v) for v in model.weights]


def test_it_learns_what_can_be_learnt(toy):
    lm = TaskMetadata("lm", True, 53)
    toys = toy(batch_size=32)
    encoder = create_transformer(53, 48, 16, 1, 4, 64, seed=5, **NO_DROPOUT)
    optimizer = create_optimizer(150, 1e-2)
    before = evaluate_model(train_model(encoder, [lm], toys, pretrain_steps=1, verbose=0), toys)
    model = train_model(encoder, [lm], toys, pretrain_steps=150, pretrain_optimizer=optimizer, verbose=0)
    after = evaluate_model(model, toys)
    uninformed = np.log(48)  # tokens are uniform over 48 ids; their neighbours tell them
    assert before["lm_loss"] > uninformed - 0.1 and after["lm_loss"] < uninformed - 0.8


def test_both_phases_validation_and_callbacks(toy, toy_tasks, tmp_path):
    seen = []

    class Seen(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(batch)

    model = train_model(
        tiny(),
        toy_tasks,
        toy(),
        toy(seed=1),
        pretrain_steps=3,
        pretrain_epochs=2,
        pretrain_callbacks=[Seen()],
        finetune_epochs=1,
        finetune_callbacks=[keras.callbacks.CSVLogger(tmp_path / "log.csv")],
        validation_pretrain_generator=toy(seed=2),
        validation_finetune_generator=toy(seed=3),
        validation_steps=2,
        verbose=0,
    )
    assert seen == [0, 1, 2] * 2
    pretrain, finetune = (model.training_history[phase].history for phase in ("pretrain", "finetune"))
    names = {"loss", "lm_loss", "lm_accuracy", "lm_perplexity", "lm_weight"}
    names |= {"parity_loss", "parity_accuracy", "parity_weight"}
    assert set(pretrain) == names | {f"val_{name}" for name in {*names, "parity_macro_f1"}}
    names = {"loss", "parity_loss", "parity_accuracy", "parity_weight"}
    assert set(finetune) == names | {f"val_{name}" for name in {*names, "parity_macro_f1"}}
    assert len(pretrain["loss"]) == 2 and "parity_loss" in (tmp_path / "log.csv").read_text()
    measured = evaluate_model(model, [toy(seed=3)[i] for i in range(2)])
    assert measured["parity_loss"] == pytest.approx(finetune["val_parity_loss"][-1], rel=1e-5)


def test_one_seed_gives_the_same_run_to_the_bit(toy, toy_tasks):
    def run():
        model = train_model(tiny(), toy_tasks, toy(), pretrain_steps=4, verbose=0)
        return model.training_history["pretrain"].history, weights_of(model)

    (history, weights), (again, weights_again) = run(), run()
    assert history == again
    for one, other in zip(weights, weights_again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_global_seed_decides_where_no_seed_is_given(toy, toy_tasks):
    def run(seed):
        keras.utils.set_random_seed(seed)
        return weights_of(train_model(tiny(seed=None), toy_tasks, toy(), pretrain_steps=2, verbose=0))

    one, same, other = run(7), run(7), run(8)
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_batches_come_in_order_and_on_into_the_next_epochs(toy, toy_tasks):
    asked = []

    class Recorded(toy):
        def __getitem__(self, index):
            asked.append(index)
            return super().__getitem__(index)

    train_model(tiny(), toy_tasks, Recorded(num_batches=2), pretrain_steps=2, pretrain_epochs=3, verbose=0)
    order = list(dict.fromkeys(asked))
    assert order[:6] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("kind", ["generator", "list", "iterable"])
def test_any_iterable_will_do(toy, toy_tasks, kind):
    toys = toy()
    source = {
        "generator": (toys[i] for i in itertools.count()),
        "list": [toys[i] for i in range(5)],
        "iterable": type("Again", (), {"__iter__": lambda self: iter([toys[0], toys[1]])})(),
    }[kind]
    model = train_model(tiny(), toy_tasks, source, pretrain_steps=5, verbose=0)
    reference = [toys[i % 2] for i in range(5)] if kind == "iterable" else [toys[i] for i in range(5)]
    same = train_model(tiny(), toy_tasks, reference, pretrain_steps=5, verbose=0)
    for one, other in zip(weights_of(model), weights_of(same), strict=True):
        np.testing.assert_array_equal(one, other)


def test_lengths_may_differ_from_batch_to_batch(toy, toy_tasks):
    toys = [toy(length=7)[0], toy(length=7)[1], toy(length=11)[2], toy(length=5)[3]]
    model = train_model(tiny(), toy_tasks, toys, pretrain_steps=4, verbose=0)
    assert np.isfinite(model.training_history["pretrain"].history["loss"]).all()


def functional(structure):
    inputs = encoder_inputs()
    hidden = keras.layers.Embedding(53, 8)(inputs["token_ids"])
    hidden = keras.layers.Bidirectional(keras.layers.LSTM(6, return_sequences=True))(hidden)
    if structure == "dict":
        return keras.Model(inputs, hidden)
    if structure == "list":
        return keras.Model(list(inputs.values()), hidden)
    return keras.Model(inputs["token_ids"], hidden)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.table = keras.layers.Embedding(53, 12, name="token_embedding")
        self.dense = keras.layers.Dense(12, activation="tanh")

    def call(self, inputs, training=False):
        return self.dense(self.table(inputs["token_ids"]))

    def compute_output_shape(self, shapes):
        return (*shapes["token_ids"], 12)


@pytest.mark.parametrize("kind", ["dict", "list", "single", "subclassed"])
def test_your_own_encoder_trains_unchanged(toy, toy_tasks, kind):
    encoder = Subclassed() if kind == "subclassed" else functional(kind)
    model = train_model(encoder, toy_tasks, toy(), pretrain_steps=2, verbose=0)
    before = weights_of(encoder)
    train_model(model, toy_tasks, toy(), pretrain_steps=2, pretrain_optimizer="sgd", verbose=0)
    assert all(np.abs(b - a).max() > 0 for b, a in zip(before, weights_of(encoder), strict=True))


def test_accumulated_batches_make_one_update(toy):
    """Two batches at half the gradient each are one batch of both, as each has as many labels."""
    task = TaskMetadata("parity", False, 2)
    toys = toy(batch_size=4)

    def joined(batches):
        return SentenceBatch(
            *(
                np.concatenate([getattr(b, name) for b in batches])
                for name in ("tokens", "segments", "padding_mask")
            ),
            {},
            {
                "parity": TaskDataBatch(
                    *map(
                        np.concatenate,
                        zip(*(b.sentence_classification["parity"] for b in batches), strict=True),
                    )
                )
            },
        )

    def run(batches, accumulation_steps, steps):
        optimizer = create_optimizer(
            steps, 1e-2, warmup=0.0, decay="constant", accumulation_steps=accumulation_steps
        )
        encoder = tiny(**NO_DROPOUT)
        return train_model(
            encoder, [task], batches, pretrain_steps=steps, pretrain_optimizer=optimizer, verbose=0
        )

    one = run([toys[0], toys[1]], 2, 2)
    other = run([joined([toys[0], toys[1]])], 1, 1)
    for a, b in zip(weights_of(one), weights_of(other), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_mixed_precision(toy, toy_tasks):
    model = train_model(tiny(dtype="mixed_bfloat16"), toy_tasks, toy(), pretrain_steps=2, verbose=0)
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    assert all(head.compute_dtype == "bfloat16" for head in model.heads.values())
    assert np.isfinite(model.training_history["pretrain"].history["loss"]).all()


def test_a_model_goes_on_with_its_heads(toy, toy_tasks):
    model = train_model(tiny(), toy_tasks, toy(), pretrain_steps=1, verbose=0)
    new_task = TaskMetadata("other", True, 4)
    from bert_keras.training.train import model_for

    again = model_for(model, [*toy_tasks, new_task])
    assert again.encoder is model.encoder
    for name in ("lm", "parity"):
        for one, other in zip(model.heads[name].weights, again.heads[name].weights, strict=True):
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other))
    for one, other in zip(model.pooler.weights, again.pooler.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other))
    before = [keras.ops.convert_to_numpy(weight).copy() for weight in model.pooler.weights]
    train_model(again, toy_tasks, toy(), pretrain_steps=1, verbose=0)
    for one, other in zip(model.pooler.weights, before, strict=True):  # training the second leaves them alone
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), other)


class NextTokens:
    def __init__(self, toys):
        self.toys = toys

    def __len__(self):
        return len(self.toys)

    def __getitem__(self, index):
        batch = self.toys[index]
        tokens = np.where(batch.padding_mask, batch.token_classification["lm"].target, 0)
        target = np.roll(tokens, -1, axis=1)
        mask = np.roll(batch.padding_mask, -1, axis=1) & batch.padding_mask
        mask[:, -1] = False
        return SentenceBatch(
            tokens, batch.segments, batch.padding_mask, {"lm": TaskDataBatch(target, mask)}, {}
        )


def test_next_tokens_need_an_encoder_that_does_not_see_them(toy):
    lm = TaskMetadata("lm", True, 53)
    with pytest.raises(ValueError, match="depend on later tokens.*is_causal=True"):
        train_model(tiny(), [lm], NextTokens(toy()), pretrain_steps=1, verbose=0)
    train_model(tiny(is_causal=True), [lm], NextTokens(toy()), pretrain_steps=1, verbose=0)
    with pytest.raises(ValueError, match="depend on later tokens"):
        train_model(functional("dict"), [lm], NextTokens(toy()), pretrain_steps=1, verbose=0)
    inputs = encoder_inputs()
    hidden = keras.layers.Embedding(53, 8)(inputs["token_ids"])
    forward = keras.Model(inputs, keras.layers.LSTM(8, return_sequences=True)(hidden))
    train_model(forward, [lm], NextTokens(toy()), pretrain_steps=1, verbose=0)


def broken(toys, **changes):
    class Broken(type(toys)):
        def __getitem__(self, index):
            batch = super().__getitem__(index)
            for name, change in changes.items():
                change(batch, getattr(batch, name))
            return batch

    result = Broken()
    return result


def set_item(place, value):
    def change(batch, array):
        array[place] = value

    return change


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"tokens": set_item((0, 0), 53)}, r"token ids must be from 0 to 52.*53 rows.*to 53"),
        ({"tokens": set_item((0, 0), -1)}, r"token ids must be from 0 to 52.*Received: -1"),
        ({"segments": set_item((0, 0), 2)}, r"segment ids must be from 0 to 1"),
        (
            {"token_classification": lambda b, t: t.pop("lm")},
            r"no labels for the active task 'lm'.*\['parity'\]",
        ),
        (
            {"sentence_classification": lambda b, t: t["parity"].target_mask.fill(11)},
            r"their positions must be from 0 to 10, as rows have 11 tokens",
        ),
        (
            {"token_classification": lambda b, t: t.update(lm=TaskDataBatch(*(a[:-1] for a in t["lm"])))},
            r"'lm' \(classification\) must have the shape \(6, 11\).*\(5, 11\)",
        ),
        (
            {"sentence_classification": lambda b, t: t["parity"].target.fill(2)},
            r"'parity' \(classification\) must be from 0 to 1.*2 to 2",
        ),
    ],
)
def test_bad_batches_are_found_before_training(toy, toy_tasks, changes, problem):
    encoder = tiny()
    before = weights_of(encoder)
    with pytest.raises(ValueError, match=problem):
        train_model(encoder, toy_tasks, broken(toy(), **changes), pretrain_steps=2, verbose=0)
    for one, other in zip(before, weights_of(encoder), strict=True):
        np.testing.assert_array_equal(one, other)


def test_ids_out_of_range_are_found_for_your_own_encoder(toy):
    batches = [toy()[0]]
    batches[0].tokens[0, 0] = 53
    with pytest.raises(ValueError, match="token ids must be from 0 to 52"):
        train_model(
            functional("dict"), [TaskMetadata("parity", False, 2)], batches, pretrain_steps=1, verbose=0
        )


def test_what_a_generator_labels_is_measured(toy, toy_tasks):
    model = train_model(tiny(), toy_tasks, toy(), pretrain_steps=1, verbose=0)
    batch = toy()[0]
    arrays = (batch.tokens, batch.segments, batch.padding_mask)
    only_parity = SentenceBatch(*arrays, {}, batch.sentence_classification)
    names = {"loss", "parity_loss", "parity_accuracy", "parity_macro_f1"}
    assert set(evaluate_model(model, [only_parity])) == names
    assert "lm_loss" in evaluate_model(model, toy())
    with pytest.raises(ValueError, match=r"none of the model's tasks \['lm', 'parity'\].*\[\]"):
        evaluate_model(model, [SentenceBatch(*arrays, {}, {})])


def test_a_bad_batch_in_the_middle_says_which(toy, toy_tasks):
    batches = [toy()[i] for i in range(4)]
    batches[3].tokens[0, 0] = 99
    with pytest.raises(Exception, match=r"Batch 3 of `pretrain_generator`: token ids must be from 0 to 52"):
        train_model(tiny(), toy_tasks, batches, pretrain_steps=4, verbose=0)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"encoder_model": lambda: tiny(max_len=8)}, "rows of 11 tokens.*max_len=8"),
        ({"encoder_model": lambda: tiny(50)}, "num_classes=53.*50 rows"),
        ({"encoder_model": lambda: "encoder"}, "keras.Model"),
        ({"pretrain_generator": lambda toy: None}, "nothing to train on"),
        ({"pretrain_generator": lambda toy: [1, 2]}, "must be a SentenceBatch"),
        ({"pretrain_generator": lambda toy: toy(vocab_size=60)}, "60 ids.*53 rows"),
        ({"pretrain_generator": lambda toy: iter([])}, "`pretrain_steps` must be given"),
        ({"pretrain_generator": lambda toy: iter([]), "pretrain_steps": 1}, "ended after 0 batches"),
        ({"pretrain_steps": 0}, "at least 1"),
        ({"finetune_steps": 3}, "no `finetune_generator`"),
        ({"pretrain_optimizer": "no_such"}, "no_such"),
        ({"tasks": []}, "empty"),
    ],
)
def test_arguments_that_do_not_fit(toy, toy_tasks, arguments, problem):
    defaults = {
        "encoder_model": tiny,
        "pretrain_generator": lambda toy: toy(),
        "tasks": toy_tasks,
        "verbose": 0,
    }
    merged = {**defaults, **arguments}
    merged["encoder_model"] = merged["encoder_model"]()
    merged["pretrain_generator"] = merged["pretrain_generator"](toy)
    with pytest.raises((ValueError, TypeError), match=problem):
        train_model(**merged)


def test_a_phase_needs_an_active_task(toy):
    task = TaskMetadata("parity", False, 2, 0.0, TaskWeightScheduler(True, False))
    with pytest.raises(ValueError, match="active_in_finetune=True"):
        train_model(tiny(), [task], finetune_generator=toy(), verbose=0)


def test_the_schedule_must_give_a_weight(toy):
    class Wrong(TaskWeightScheduler):
        def get(self, is_pretrain, step):
            return float("nan")

    task = TaskMetadata("parity", False, 2, 0.0, Wrong(True, True))
    with pytest.raises(Exception, match="schedule of task 'parity'"):
        train_model(tiny(), [task], toy(), pretrain_steps=1, verbose=0)


def test_two_embeddings_of_one_size_are_ambiguous_until_one_is_named(toy, toy_tasks):
    def encoder(name):
        inputs = encoder_inputs()
        tokens = keras.layers.Embedding(53, 8, name=name)(inputs["token_ids"])
        return keras.Model(inputs, tokens + keras.layers.Embedding(53, 8)(inputs["position_ids"]))

    with pytest.raises(ValueError, match="token_embedding"):
        train_model(encoder("words"), toy_tasks, toy(), pretrain_steps=1, verbose=0)
    train_model(encoder("token_embedding"), toy_tasks, toy(), pretrain_steps=1, verbose=0)


@pytest.mark.parametrize("kind", ["bert", "modern", "lstm", "qrnn", "text_cnn"])
def test_a_model_is_built_whole(toy_tasks, kind):
    """While any layer is not, Keras traces the model anew at every `train_on_batch`, and on JAX runs it once
    more, uncompiled, at every `predict_on_batch`."""
    if kind in ("bert", "modern"):
        encoder = create_transformer(53, 8, 11, 1, 2, architecture=kind)
    else:
        encoder = {"lstm": create_lstm, "qrnn": create_qrnn, "text_cnn": create_text_cnn}[kind](53, 8, 1)
    span = TaskMetadata("where", False, kind="span")
    for tasks in ([*toy_tasks, span], toy_tasks[:1]):
        model = model_for(encoder, tasks)
        assert [layer.name for layer in model._flatten_layers() if not layer.built] == []
