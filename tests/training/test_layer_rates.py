"""Learning rates by depth against NumPy, and layers that begin to learn at the right step."""

import keras
import numpy as np
import pytest

from bert_keras import (
    GradualUnfreezing,
    TaskMetadata,
    TaskWeightScheduler,
    create_lstm,
    create_optimizer,
    create_recipe,
    create_transformer,
    encoder_inputs,
    load_model,
    train_model,
)
from bert_keras.training import AdamW, MultiTaskModel, Muon, Recipe
from bert_keras.training.layer_rates import model_depths, path_depth
from bert_keras.training.train import model_for

numpy = keras.ops.convert_to_numpy


def tiny(num_layers=2, **arguments):
    return create_transformer(53, 12, 16, num_layers, 3, 20, seed=5, **arguments)


def tasks():
    return [TaskMetadata("lm", True, 53, 0.0), TaskMetadata("parity", False, 2, 0.0)]


def values_of(model):
    return {variable.path: np.array(numpy(variable)) for variable in model.trainable_variables}


def depths_by_path(model):
    depths = model_depths(model)
    return {v.path: (depths.of[id(v)], id(v) in depths.heads) for v in model.weights}


def test_how_deep_layers_lie():
    model = MultiTaskModel(tiny(norm_placement="pre"), tasks())
    depths = depths_by_path(model)
    assert depths["embeddings/token_embedding/embeddings"] == depths["embeddings/norm/gamma"] == (0, False)
    assert depths["layer_0/qkv/kernel"] == (1, False) and depths["layer_1/qkv/bias"] == (2, False)
    assert depths["final_norm/gamma"] == (3, False)
    assert depths["pooler/kernel"] == depths["task_lm/bias"] == (3, False)
    assert depths["task_parity/classifier/kernel"] == (3, True)
    assert path_depth("layer_10/qkv/bias") == 11
    recurrent = depths_by_path(create_lstm(53, 12, 2, seed=1))
    assert (recurrent["lstm_1/kernel_0"], recurrent["norm_0/gamma"]) == ((2, False), (1, False))
    inputs = encoder_inputs()
    hidden = keras.layers.Embedding(53, 8, name="words")(inputs["token_ids"])
    for name in ("lower", "upper"):
        hidden = keras.layers.Dense(8, name=name)(hidden)
    own = depths_by_path(MultiTaskModel(keras.Model(inputs, hidden), [tasks()[1]]))
    assert [own[f"{name}"][0] for name in ("words/embeddings", "lower/kernel", "upper/bias")] == [0, 1, 2]
    assert own["pooler/bias"] == (3, False) and own["task_parity/classifier/bias"] == (3, True)


FACTORS = {"embeddings": 0.125, "layer_0": 0.25, "layer_1": 0.5}  # 0.5 from block to block


def factor_of(path):
    return 3.0 if "/classifier/" in path else FACTORS.get(path.split("/")[0], 1.0)


def adamw(value, gradients, rate, decay, epsilon=1e-6, beta_1=0.9, beta_2=0.999):
    """Kingma and Ba 2014 as Keras has it, with the decoupled decay of Loshchilov and Hutter 2017."""
    value, m, v = value.astype("float64"), 0.0, 0.0
    for step, gradient in enumerate(gradients, 1):
        value = value - rate * decay * value
        m = beta_1 * m + (1 - beta_1) * gradient
        v = beta_2 * v + (1 - beta_2) * gradient**2
        alpha = rate * np.sqrt(1 - beta_2**step) / (1 - beta_1**step)
        value = value - alpha * m / (np.sqrt(v) + epsilon)
    return value


@pytest.mark.parametrize(("accumulation_steps", "is_placed"), [(1, False), (2, True)])
def test_steps_by_hand(accumulation_steps, is_placed):
    model = MultiTaskModel(tiny(norm_placement="pre"), tasks())
    optimizer = create_optimizer(
        9,
        0.01,
        warmup=0.0,
        decay="constant",
        weight_decay=0.3,
        clip_norm=None,
        accumulation_steps=accumulation_steps,
        layer_decay=0.5,
        head_rate=3.0,
    )
    if is_placed:
        optimizer.place(model)
    rng = np.random.default_rng(3)
    variables = model.trainable_variables
    before = values_of(model)
    gradients = [[rng.normal(size=v.shape).astype("float32") for v in variables] for _ in range(4)]
    for some in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient) for gradient in some], variables)
    after = values_of(model)
    for number, path in enumerate(before):
        own = np.stack([some[number] for some in gradients])
        own = own.reshape(-1, accumulation_steps, *own.shape[1:]).mean(1)
        decay = 0.0 if path.endswith(("bias", "gamma", "beta")) else 0.3
        expected = adamw(before[path], own, 0.01 * factor_of(path), decay)
        np.testing.assert_allclose(after[path], expected, rtol=1e-4, atol=2e-6, err_msg=path)


@pytest.mark.parametrize("epsilon", [1e-6, 0.1])
def test_steps_of_one_rate_by_hand(epsilon):
    """Where all variables have one rate and a gradient may lie in memory by columns; none is changed."""
    rng = np.random.default_rng(4)
    values = [rng.normal(size=shape).astype("float32") for shape in ((7, 5), (5,), (70_000,))]
    variables = [keras.Variable(value) for value in values]
    optimizer = AdamW(0.01, weight_decay=0.3, epsilon=epsilon, beta_2=0.98)
    gradients = [[rng.normal(size=value.shape).astype("float32") for value in values] for _ in range(3)]
    for some in gradients:
        tensors = [keras.ops.convert_to_tensor(gradient) for gradient in some]
        tensors[0] = keras.ops.transpose(keras.ops.convert_to_tensor(some[0].T))
        optimizer.apply(tensors, variables)
        for gradient, tensor in zip(some, tensors, strict=True):
            np.testing.assert_array_equal(numpy(tensor), gradient)
    for number, (value, variable) in enumerate(zip(values, variables, strict=True)):
        expected = adamw(value, [some[number] for some in gradients], 0.01, 0.3, epsilon, beta_2=0.98)
        np.testing.assert_allclose(numpy(variable), expected, rtol=1e-4, atol=2e-6)


def test_muon_s_steps():
    changes = []
    for arguments in ({}, {"layer_decay": 0.5, "head_rate": 3.0}):
        model = MultiTaskModel(tiny(norm_placement="pre"), tasks())
        optimizer = Muon(0.02, 2.0, splits={"qkv": 3}, weight_decay=0.3, **arguments)
        before, rng = values_of(model), np.random.default_rng(3)
        gradients = [rng.normal(size=v.shape).astype("float32") for v in model.trainable_variables]
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], model.trainable_variables)
        after = values_of(model)
        changes.append({path: after[path] - before[path] for path in before})
    for path, change in changes[0].items():
        assert np.abs(change).max() > 1e-3
        np.testing.assert_allclose(changes[1][path], factor_of(path) * change, rtol=1e-3, atol=1e-6)


def test_unknown_depths_and_figures_out_of_range():
    optimizer = AdamW(0.1, layer_decay=0.5)
    stranger = keras.Variable(np.ones(3, "float32"), name="stranger")
    with pytest.raises(ValueError, match="stranger.*train_model"):
        optimizer.apply([keras.ops.ones(3)], [stranger])
    placed = AdamW(0.1, layer_decay=0.5)
    placed.place(tiny())
    with pytest.raises(ValueError, match="another model"):
        placed.apply([keras.ops.ones(3)], [stranger])
    for arguments, problem in (({"layer_decay": 1.5}, "layer_decay=1.5"), ({"head_rate": 0.0}, "head_rate")):
        with pytest.raises(ValueError, match=problem):
            create_optimizer(10, **arguments)
        with pytest.raises(ValueError, match=problem):
            create_recipe("modern", **arguments)
    again = keras.optimizers.get(keras.optimizers.serialize(AdamW(0.5, layer_decay=0.25, head_rate=2.0)))
    assert isinstance(again, AdamW) and (again.layer_decay, again.head_rate) == (0.25, 2.0)
    assert isinstance(again, keras.optimizers.AdamW)


def test_a_recipe_with_rates_by_depth(toy, tmp_path):
    recipe = create_recipe(
        "gentle", layer_decay=0.5, head_rate=3.0, warmup=0.0, weight_decay=0.0, epsilon=1e-12, clip_norm=None
    )
    assert "| layer_decay | 0.5 | yours |" in recipe.to_markdown()
    encoder = tiny()
    before = {v.path: np.array(numpy(v)) for v in encoder.weights}
    model = train_model(
        encoder, tasks(), finetune_generator=toy(), finetune_steps=1, recipe=recipe, verbose=0
    )
    rate = recipe.rates(12, 66)["learning_rate"] * 0.5  # the middle of the only step
    for path in ("layer_1/qkv/kernel", "layer_0/qkv/kernel", "embeddings/token_embedding/embeddings"):
        change = np.abs(numpy(next(v for v in model.weights if v.path == path)) - before[path])
        assert change.max() == pytest.approx(rate * factor_of(path), rel=0.02)  # Adam's first step
    model.save_weights(tmp_path / "model")
    assert load_model(tmp_path / "model").recipes == {"finetune": recipe}
    older = create_recipe("bert").get_config()  # as files have it from before these figures
    del older["layer_decay"], older["head_rate"]
    assert Recipe(**older) == create_recipe("bert")


def test_classifiers_that_have_learned_are_as_slow_as_the_encoder(toy, tmp_path):
    lm, parity = tasks()
    new = TaskMetadata("new", True, 53, 0.0)
    figures = dict(warmup=0.0, weight_decay=0.0, epsilon=1e-12, clip_norm=None)
    recipe = create_recipe("gentle", head_rate=3.0, **figures)
    rate = recipe.rates(12, 66)["learning_rate"] * 0.5  # the middle of the only step
    parts = {
        "layer_0": "layer_0/qkv/kernel",
        "pooler": "pooler/kernel",
        "lm": "task_lm/bias",
        "parity": "task_parity/classifier/kernel",
        "new": "task_new/classifier/kernel",
    }

    class Toy(toy):
        def __getitem__(self, index):
            batch = super().__getitem__(index)
            batch.token_classification["new"] = batch.token_classification["lm"]
            return batch

    def first_step(model, some):
        """Take a step, and return how far each part moved in it as a multiple of the rate."""
        model = model_for(model, some)
        before = values_of(model)
        train_model(model, some, finetune_generator=Toy(), finetune_steps=1, recipe=recipe, verbose=0)
        after = values_of(model)
        moved = {
            name: np.abs(after[path] - before[path]).max() for name, path in parts.items() if path in after
        }
        return model, {name: round(float(step) / rate, 1) for name, step in moved.items()}

    model, moved = first_step(tiny(1), [lm, parity])
    assert moved == {"layer_0": 1.0, "pooler": 1.0, "lm": 1.0, "parity": 3.0}
    model.save_weights(tmp_path / "model")
    _, moved = first_step(load_model(tmp_path / "model"), [lm, parity, new])
    assert moved == {"layer_0": 1.0, "pooler": 1.0, "lm": 1.0, "parity": 1.0, "new": 3.0}
    model = model_for(model, [lm, parity, new])
    assert model.trained_heads == {"lm", "parity"}
    # A head that was not active is fresh, in the file too, also in one that a callback wrote in training.
    keep = keras.callbacks.ModelCheckpoint(str(tmp_path / "kept.weights.h5"), save_weights_only=True)
    active = [lm, TaskMetadata("parity", False, 2, 0.0, TaskWeightScheduler(True, False))]
    model = train_model(
        tiny(1), active, finetune_generator=Toy(), finetune_steps=1, finetune_callbacks=[keep], verbose=0
    )
    model.save_weights(tmp_path / "model")
    for saved in ("model", "kept"):
        assert load_model(tmp_path / saved).trained_heads == {"lm"}


class Watch(keras.callbacks.Callback):
    """Keeps all weights after each batch."""

    def on_train_begin(self, logs=None):
        self.seen = [values_of(self.model)]

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(values_of(self.model))

    def first_change(self, prefix):
        """The first batch that changes any weight there, and the largest change in it."""
        for batch, (before, after) in enumerate(zip(self.seen, self.seen[1:], strict=False)):
            changes = [np.abs(after[p] - before[p]).max() for p in before if p.startswith(prefix)]
            if max(changes) > 0:
                assert min(changes) > 0  # all of it begins together
                return batch, max(changes)
        return None, 0.0


@pytest.mark.parametrize(
    ("accumulation_steps", "begins"),
    [
        (1, {"task_parity": 0, "layer_1": 2, "layer_0": 4, "embeddings/norm": 6}),
        (2, {"task_parity": 1, "layer_1": 3, "layer_0": 5, "embeddings/norm": 7}),
    ],
)
def test_blocks_begin_to_learn_from_the_top(toy, accumulation_steps, begins):
    watch, rate = Watch(), 1e-3
    model = train_model(
        tiny(),
        [tasks()[1]],
        finetune_generator=toy(num_batches=8),
        finetune_optimizer=create_optimizer(
            8,
            rate,
            warmup=0.0,
            decay="constant",
            weight_decay=0.1,
            epsilon=1e-12,
            accumulation_steps=accumulation_steps,
        ),
        finetune_callbacks=[GradualUnfreezing(steps=2), watch],
        verbose=0,
    )
    for prefix, batch in begins.items():
        found, change = watch.first_change(prefix)
        assert found == batch, prefix
        # A fresh Adam moves by its rate at first; counted from the start, it would be 0.64 of it at update 2.
        assert rate * 0.98 < change < rate * 1.2, prefix
    assert model.training_history["finetune"].history["open_blocks"] == [2]


def test_closed_layers_have_no_part_in_clipping():
    model = MultiTaskModel(tiny(num_layers=1), [tasks()[1]])
    head = next(v for v in model.weights if v.path == "task_parity/classifier/bias")
    closed = next(v for v in model.weights if v.path == "layer_0/qkv/kernel")
    gradient = np.float32([0.6, 0.8])
    before = np.array(numpy(head)), np.array(numpy(closed))
    optimizer = create_optimizer(9, 0.1, warmup=0.0, weight_decay=0.5, epsilon=1.0)
    optimizer.place(model)
    optimizer.open_at([5, 5, 0])
    huge = keras.ops.full(closed.shape, 1e4)
    optimizer.apply([keras.ops.convert_to_tensor(gradient), huge], [head, closed])
    root = np.sqrt(1 - 0.999)
    expected = before[0] - 0.1 * root * gradient / (root * gradient + 1)
    np.testing.assert_allclose(numpy(head), expected, rtol=1e-4)
    np.testing.assert_array_equal(numpy(closed), before[1])
    with pytest.raises(ValueError, match="opens layers at"):
        optimizer.open_at([7, 7, 0])


def test_unfreezing_by_epochs_in_plain_keras():
    inputs = keras.Input((3,))
    hidden = inputs
    for name in ("lower", "upper"):
        hidden = keras.layers.Dense(3, name=name)(hidden)
    model, watch = keras.Model(inputs, hidden), Watch()
    model.compile(AdamW(0.01), "mse")
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    callbacks = [GradualUnfreezing(epochs=1, start_blocks=1), watch]
    history = model.fit(x, -x, batch_size=4, epochs=2, callbacks=callbacks, verbose=0).history
    assert (watch.first_change("upper")[0], watch.first_change("lower")[0]) == (0, 2)
    assert history["open_blocks"] == [1, 2]


def test_unfreezing_that_cannot_be(toy):
    for arguments in ({}, {"epochs": 1, "steps": 1}):
        with pytest.raises(ValueError, match="either `epochs` or `steps`"):
            GradualUnfreezing(**arguments)
    for arguments in ({"steps": 0}, {"epochs": 1, "start_blocks": -1}):
        with pytest.raises(ValueError, match="above 0"):
            GradualUnfreezing(**arguments)
    with pytest.raises(ValueError, match="rates by depth.*SGD"):
        train_model(
            tiny(),
            tasks(),
            finetune_generator=toy(),
            finetune_optimizer="sgd",
            finetune_callbacks=[GradualUnfreezing(epochs=1)],
            verbose=0,
        )
