"""Recipes: figures by hand, Muon against plain NumPy, what is the default where, and exact resuming."""

import contextlib
import dataclasses

import keras
import numpy as np
import pytest

from bert_keras import (
    TaskMetadata,
    create_recipe,
    create_transformer,
    load_huggingface,
    load_model,
    save_huggingface,
    train_model,
)
from bert_keras.training import RECIPES, Muon, ProgressDecay, Recipe, WarmupDecay
from bert_keras.training.muon import orthogonalize
from bert_keras.training.recipes import SOURCES, is_from_scratch, muon_arguments

numpy = keras.ops.convert_to_numpy


def tiny(seed=5, **arguments):
    return create_transformer(53, 12, 16, 1, 3, 20, seed=seed, **arguments)


def tasks():
    return [TaskMetadata("lm", True, 53, 0.1), TaskMetadata("parity", False, 2, 0.1)]


def test_every_figure_has_a_source():
    fields = {field.name for field in dataclasses.fields(Recipe)} - {"name"}
    assert set(RECIPES) == {"bert", "gentle", "modern"}
    for name, recipe in RECIPES.items():
        assert recipe.name == name and set(SOURCES[name]) == fields
        table = recipe.to_markdown().splitlines()
        assert len(table) == 2 + len(fields) and all(len(row.split("|")) == 5 for row in table)
        assert all(source.strip() for source in SOURCES[name].values())


def test_the_paper_s_figures():
    bert = create_recipe("bert")
    assert bert.rates(768, 256 * 512) == bert.rates(1024, 99) == {"learning_rate": 1e-4}
    assert (bert.beta_1, bert.beta_2, bert.weight_decay, bert.warmup) == (
        0.9,
        0.999,
        0.01,
        10_000 / 1_000_000,
    )
    assert bert.masking() == pytest.approx({"keep_prob": 0.85, "mask_prob": 0.12, "rand_prob": 0.015})
    optimizer = bert.create_optimizer(100, width=768, batch_tokens=131_072)
    assert type(optimizer).__name__ == "AdamW" and optimizer.global_clipnorm == 1.0
    assert float(numpy(optimizer.learning_rate)) == pytest.approx(1e-4 * 0.5)  # the middle of the 1st of 100


def test_one_s_own_figures():
    own = create_recipe("modern", learning_rate=1.0, matrix_learning_rate=0.5, batch_exponent=0.5)
    rates = own.rates(4 * own.reference_width, 9 * own.reference_tokens)
    assert rates == pytest.approx({"learning_rate": 3.0, "matrix_learning_rate": 0.75})  # 0.5 * 3 / sqrt(4)
    assert "| learning_rate | 1.0 | yours |" in own.to_markdown()
    assert "yours" not in create_recipe("modern").to_markdown()
    assert Recipe(**own.get_config()) == own


@pytest.mark.parametrize(
    ("name", "changes", "problem"),
    [
        ("modem", {}, r"\['bert', 'gentle', 'modern'\].*'modem'"),
        ("bert", {"speed": 2}, "others: .'speed'"),
        ("bert", {"name": "mine"}, "others: .'name'"),
        ("bert", {"momentum": 0.9}, "`momentum`.*None without"),
        ("modern", {"matrix_learning_rate": None}, "`matrix_learning_rate`"),
        ("modern", {"decay_share": 0.5}, "`decay_share`.*None without"),
        ("modern", {"optimizer": "sgd"}, "optimizer='sgd'"),
        ("modern", {"schedule": "steep"}, "schedule='steep'"),
        ("modern", {"learning_rate": 0.0}, "learning_rate=0.0"),
        ("modern", {"predicted_share": 1.5}, "predicted_share=1.5"),
        ("modern", {"average_momentum": 1.0}, "average_momentum=1.0"),
        ("modern", {"random_share": 0.5}, "at most 1"),
        ("modern", {"warmup": 1.0}, "below 1"),
    ],
)
def test_figures_out_of_range(name, changes, problem):
    with pytest.raises(ValueError, match=problem):
        create_recipe(name, **changes)


def test_schedules_by_hand():
    def rates(schedule, steps):
        return [float(numpy(schedule(step))) for step in steps]

    # Of 10 steps the middles are at 0.05, 0.15, ...; warm-up over 0.2, so 1/4, 3/4, then 1.
    stable = ProgressDecay(2.0, 10, 0.2, "stable", 0.4)
    assert rates(stable, [0, 1, 2, 5, 6, 9, 12]) == pytest.approx([0.5, 1.5, 2, 2, 1.75, 0.25, 0.0])
    linear = ProgressDecay(2.0, 10, 0.2, "linear")
    assert rates(linear, [0, 2, 9]) == pytest.approx([0.5, 2 * 0.75 / 0.8, 2 * 0.05 / 0.8])
    cosine = ProgressDecay(2.0, 10, 0.0, "cosine")
    assert rates(cosine, [2, 9]) == pytest.approx(
        [1 + np.cos(np.pi * 0.25), 1 + np.cos(np.pi * 0.95)], abs=1e-6
    )
    assert rates(ProgressDecay.from_config(stable.get_config()), [6]) == pytest.approx([1.75])
    timed = ProgressDecay(2.0, None, 0.2, "stable", 0.4)
    timed.clock.assign([0.5, 0.1, 30.0])  # half over at step 30, a tenth in every step
    assert rates(timed, [30, 31, 34]) == pytest.approx([2.0, 1.75, 0.25])
    with pytest.raises(ValueError, match="warmup=1.0"):
        ProgressDecay(2.0, 10, 1.0, "linear")


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_orthogonalized_matrices_keep_their_directions(dtype, error):
    matrices = np.random.default_rng(3).normal(size=(2, 5, 7)).astype("float32")
    u, _, vt = np.linalg.svd(matrices, full_matrices=False)
    found = numpy(orthogonalize(keras.ops.convert_to_tensor(matrices), 5, dtype))
    inner = np.swapaxes(u, 1, 2) @ found @ np.swapaxes(vt, 1, 2)
    diagonal = np.diagonal(inner, axis1=1, axis2=2)
    np.testing.assert_allclose(inner, diagonal[..., None] * np.eye(5), atol=error)
    assert 0.65 < diagonal.min() and diagonal.max() < 1.25


def direction(gradient):
    """The step of one matrix in plain NumPy, with the polynomial applied to singular values."""
    u, s, vt = np.linalg.svd(gradient.astype("float64"), full_matrices=False)
    s = s / np.sqrt((s**2).sum())
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return 0.2 * np.sqrt(max(gradient.shape)) * (u * s) @ vt


@pytest.mark.parametrize(("product_dtype", "error"), [("float32", 2e-5), ("bfloat16", 4e-3)])
def test_muon_against_numpy(product_dtype, error):
    rng = np.random.default_rng(7)
    shapes = {"a/qkv/kernel": (5, 21), "a/out/kernel": (7, 5), "b/out/kernel": (7, 5), "a/norm/bias": (3, 2)}
    shapes |= {"token_embedding/kernel": (5, 3), "task_x/kernel": (5, 2)}
    values = {path: rng.normal(size=shape).astype("float32") for path, shape in shapes.items()}
    gradients = [{p: rng.normal(size=s).astype("float32") for p, s in shapes.items()} for _ in range(2)]
    variables = []
    for path, value in values.items():
        *scope, name = path.split("/")
        with contextlib.ExitStack() as stack:
            for part in scope:
                stack.enter_context(keras.name_scope(part))
            variables.append(keras.Variable(value, name=name))
    assert [variable.path for variable in variables] == list(shapes)
    rate, factor, decay, momentum = 0.1, 0.5, 0.3, 0.9
    optimizer = Muon(
        rate,
        factor,
        momentum,
        splits={"qkv": 3},
        product_dtype=product_dtype,
        weight_decay=decay,
        epsilon=1e-8,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    adam = [keras.Variable(values[path]) for path in list(shapes)[3:]]
    reference = keras.optimizers.AdamW(rate, epsilon=1e-8, weight_decay=decay)
    reference.build(adam)
    reference.exclude_from_weight_decay(var_list=[adam[0]])
    average = {path: np.zeros(shape) for path, shape in shapes.items()}
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradient.values()], variables)
        reference.apply([keras.ops.convert_to_tensor(gradient[path]) for path in list(shapes)[3:]], adam)
        for path in list(shapes)[:3]:
            average[path] = momentum * average[path] + (1 - momentum) * gradient[path]
            ahead = momentum * average[path] + (1 - momentum) * gradient[path]
            parts = np.split(ahead, 3 if "qkv" in path else 1, axis=1)
            step = np.concatenate([direction(part) for part in parts], axis=1)
            values[path] = values[path] - rate * factor * (step + decay * values[path])
    for path, variable in list(zip(shapes, variables, strict=True))[:3]:
        np.testing.assert_allclose(numpy(variable), values[path], atol=error)
    for variable, other in zip(variables[3:], adam, strict=True):
        np.testing.assert_allclose(numpy(variable), numpy(other), rtol=1e-4, atol=1e-5)


def test_which_variables_muon_takes():
    encoder = tiny(token_embedding_dim=8)
    optimizer = Muon()
    hidden = [v.path for v in encoder.trainable_variables if optimizer.is_hidden_matrix(v)]
    names = ("qkv", "attention_output", "feedforward_in", "feedforward_out")
    assert sorted(hidden) == sorted(f"layer_0/{name}/kernel" for name in names)
    own = Muon(0.5, 2.0, splits={"qkv": 3}, product_dtype="float32")
    again = keras.optimizers.get(keras.optimizers.serialize(own))
    assert isinstance(again, Muon) and (again.matrix_rate, again.splits) == (2.0, {"qkv": 3})
    assert again.product_dtype == "float32"
    with pytest.raises(ValueError, match="do not divide"):
        Muon(splits={"qkv": 5}).build(encoder.trainable_variables)
    with pytest.raises(ValueError, match="matrix_rate=0.0"):
        Muon(1.0, 0.0)
    with pytest.raises(ValueError, match="product_dtype='float16'"):
        Muon(product_dtype="float16")


@pytest.mark.parametrize(("dtype", "expected"), [("float32", "float32"), ("mixed_bfloat16", "bfloat16")])
def test_a_cpu_multiplies_for_muon_as_for_the_encoder(toy, monkeypatch, dtype, expected):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["cpu:0"])
    with keras.device("cpu"):
        model = train_model(tiny(dtype=dtype), tasks(), toy(), pretrain_steps=1, verbose=0)
    assert model.optimizer.product_dtype == expected


def test_a_gpu_multiplies_for_muon_in_bfloat16(monkeypatch):
    if keras.backend.backend() == "torch":
        torch = pytest.importorskip("torch")
        monkeypatch.setattr(keras.ops, "zeros", lambda shape: torch.zeros(shape, device="meta"))
    else:
        monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0", "gpu:1"])
    assert muon_arguments(tiny())["product_dtype"] == "bfloat16"


def test_the_default_recipe(toy, tmp_path):
    model = train_model(tiny(), tasks(), toy(), toy(seed=1), pretrain_steps=2, finetune_steps=2, verbose=0)
    assert {phase: recipe.name for phase, recipe in model.recipes.items()} == {
        "pretrain": "modern",
        "finetune": "gentle",
    }
    model.recipes["pretrain"] = own = create_recipe("modern", learning_rate=1e-3)
    model.save_weights(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.recipes == {"pretrain": own, "finetune": RECIPES["gentle"]}
    save_huggingface(model.encoder, tmp_path / "published")
    published = load_huggingface(tmp_path / "published", verbose=0)
    fresh, unpacked = tiny(), tiny()
    assert is_from_scratch(fresh) and not is_from_scratch(published)
    assert not is_from_scratch(model.encoder) and not is_from_scratch(loaded.encoder)
    unpacked.is_trained = True
    assert not is_from_scratch(unpacked)
    model = train_model(loaded, tasks(), finetune_generator=toy(), finetune_steps=1, verbose=0)
    assert model.recipes == {"pretrain": own, "finetune": RECIPES["gentle"]}


def test_recipes_and_optimizers_given(toy):
    seen = []

    class Seen(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            seen.append(self.model.optimizer)

    def run(**arguments):
        arguments = {"pretrain_steps": 1, "pretrain_callbacks": [Seen()], "verbose": 0, **arguments}
        return train_model(tiny(), tasks(), toy(), **arguments)

    assert run(pretrain_optimizer="adam").recipes == {}
    schedule = seen[0]._learning_rate
    assert isinstance(schedule, WarmupDecay) and schedule.peak == 1e-3
    own = create_recipe("bert", learning_rate=3e-4)
    assert run(recipe=own).recipes == {"pretrain": own} == run(pretrain_optimizer=own).recipes
    assert isinstance(seen[1], keras.optimizers.AdamW) and seen[1]._learning_rate.peak == 3e-4
    with pytest.raises(ValueError, match="Give `recipe` or `pretrain_optimizer`"):
        run(recipe="bert", pretrain_optimizer="adam")
    with pytest.raises(ValueError, match="'romantic'"):
        run(recipe="romantic")


@pytest.mark.parametrize("name", ["modern", "bert"])
def test_the_average_of_weights_by_hand(toy, name):
    seen = []

    class Seen(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append([numpy(variable.value).copy() for variable in self.model.trainable_variables])

    recipe = create_recipe(name, average_momentum=0.8)
    model = train_model(
        tiny(), tasks(), toy(), pretrain_steps=5, recipe=recipe, pretrain_callbacks=[Seen()], verbose=0
    )
    average = seen[0]
    for weights in seen[1:]:
        average = [0.8 * before + 0.2 * now for before, now in zip(average, weights, strict=True)]
    ends = [numpy(variable.value) for variable in model.trainable_variables]
    for variable, expected, last, found in zip(
        model.trainable_variables, average, seen[-1], ends, strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6, err_msg=variable.path)
        assert np.abs(found - last).max() > 0, variable.path


class InterruptedRun(Exception):
    pass


class Interrupt(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise InterruptedRun


@pytest.mark.parametrize(("dtype", "accumulation_steps"), [("float32", 1), ("mixed_bfloat16", 2)])
def test_muon_goes_on_exactly_after_an_interruption(toy, tmp_path, dtype, accumulation_steps):
    def optimizer(num_steps):
        return create_recipe("modern").create_optimizer(
            num_steps, width=12, batch_tokens=66, splits={"qkv": 3}, accumulation_steps=accumulation_steps
        )

    def train(callbacks):
        return train_model(
            tiny(dtype=dtype),
            tasks(),
            toy(num_batches=50),
            pretrain_steps=3,
            pretrain_epochs=3,
            pretrain_optimizer=optimizer,
            pretrain_callbacks=callbacks,
            verbose=0,
        )

    whole = train([])
    with pytest.raises(InterruptedRun):
        train([keras.callbacks.BackupAndRestore(tmp_path / "backup"), Interrupt()])
    resumed = train([keras.callbacks.BackupAndRestore(tmp_path / "backup")])
    for one, other in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(numpy(one), numpy(other))
    started = tiny()
    moved = [
        np.abs(numpy(a) - numpy(b)).max() for a, b in zip(started.weights, whole.encoder.weights, strict=True)
    ]
    assert min(moved) > 0


def test_saved_recipes_of_other_versions():
    config = create_recipe("modern", layer_decay=0.9).get_config()
    assert Recipe.from_config(config) == create_recipe("modern", layer_decay=0.9)
    older = {name: value for name, value in config.items() if name not in ("layer_decay", "head_rate")}
    assert Recipe.from_config(older) == create_recipe("modern")
    with pytest.raises(ValueError, match=r"does not know: \['tomorrow'\]"):
        Recipe.from_config({**config, "tomorrow": 1})
    with pytest.raises(ValueError, match=r"damaged: it lacks the fields \['warmup'\]"):
        Recipe.from_config({name: value for name, value in config.items() if name != "warmup"})
