"""LoRA by hand, in training and in files; frozen layers stay as they are."""

import keras
import numpy as np
import pytest

from bert_keras import (
    TaskMetadata,
    TaskWeightScheduler,
    add_lora,
    create_lstm,
    create_recipe,
    create_text_cnn,
    create_transformer,
    encoder_arrays,
    encoder_inputs,
    extend_vocabulary,
    freeze,
    load_model,
    merge_lora,
    save_huggingface,
    train_model,
    trained_share,
    unfreeze,
)
from bert_keras.encoders.changes import lora_layers, lora_variables
from bert_keras.training import MultiTaskModel

numpy = keras.ops.convert_to_numpy
WIDTH, INNER, WORDS = 12, 20, 53


def tiny(num_layers=2, **arguments):
    return create_transformer(WORDS, WIDTH, 16, num_layers, 3, INNER, seed=5, **arguments)


def tasks():
    return [TaskMetadata("lm", True, WORDS, 0.0), TaskMetadata("parity", False, 2, 0.0)]


def values_of(model):
    return {variable.path: np.array(numpy(variable)) for variable in model.weights}


def logits_of(model, toy, task="parity"):
    return np.asarray(model.predict_on_batch(encoder_arrays(toy()[0]))[task], "float32")


def fill_lora(encoder):
    """Give what LoRA added values that matter."""
    rng = np.random.default_rng(3)
    for layer in lora_layers(encoder):
        for variable in lora_variables(layer).values():
            variable.assign(rng.normal(size=variable.shape).astype("float32") * 0.3)


def test_how_many_parameters_are_trained(toy):
    encoder = tiny()
    total = encoder.count_params()
    plain = numpy(encoder(encoder_arrays(toy()[0])))
    share = add_lora(encoder, rank=2)
    added = 2 * 2 * (WIDTH * 2 + 2 * WIDTH)  # blocks, matrices, A and B
    assert share == (added, total + added) == trained_share(encoder)
    assert str(share) == f"192 of {total + added:,} parameters are trained ({100 * 192 / share.total:.3g} %)"
    np.testing.assert_array_equal(numpy(encoder(encoder_arrays(toy()[0]))), plain)  # B is zero at first
    names = {v.path for v in encoder.trainable_variables}
    assert names == {
        f"layer_{k}/qkv/lora_{part}_{f}" for k in (0, 1) for part in ("query", "value") for f in "ab"
    }
    first = [numpy(v) for v in encoder.trainable_variables if v.path.endswith("_a")]
    assert len({array.tobytes() for array in first}) == 4  # drawn apart
    model = MultiTaskModel(encoder, tasks())
    heads = sum(v.path.startswith(("task_", "pooler")) for v in model.trainable_variables)
    assert heads == 2 + 2 + (2 + 2 + 1)  # pooler, classifier; transform, norm and bias of `lm`


def test_what_lora_adds_by_hand():
    encoder = tiny(1)
    layers = {layer.name: layer for layer in encoder._flatten_layers()}
    before = {
        name: numpy(layers[name].kernel).copy() for name in ("qkv", "attention_output", "feedforward_in")
    }
    table = numpy(encoder.token_embedding.embeddings).copy()
    add_lora(encoder, rank=3, alpha=6.0, layers=("value", "query", "output", "embeddings"))
    fill_lora(encoder)

    def change(layer, stem):
        a, b = (numpy(getattr(layer, f"lora_{stem}_{factor}")) for factor in "ab")
        return 2.0 * a @ b

    qkv = layers["qkv"]
    nothing = np.zeros((WIDTH, WIDTH), "float32")
    expected = before["qkv"] + np.concatenate([change(qkv, "query"), nothing, change(qkv, "value")], axis=1)
    np.testing.assert_allclose(numpy(qkv.kernel), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(
        numpy(qkv.kernel)[:, WIDTH : 2 * WIDTH], before["qkv"][:, WIDTH : 2 * WIDTH]
    )
    output = layers["attention_output"]
    np.testing.assert_allclose(
        numpy(output.kernel), before["attention_output"] + change(output, "kernel"), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        numpy(encoder.token_embedding.embeddings),
        table + change(encoder.token_embedding, "embeddings"),
        rtol=1e-5,
        atol=1e-6,
    )
    np.testing.assert_array_equal(numpy(layers["feedforward_in"].kernel), before["feedforward_in"])


@pytest.mark.parametrize("recipe", ["gentle", "modern"])
def test_only_lora_and_heads_are_trained(toy, recipe):
    encoder = tiny(token_embedding_dim=8, use_gated_feedforward=recipe == "modern")
    add_lora(encoder, rank=2, layers=("query", "feedforward", "embeddings"))
    fill_lora(encoder)
    idle = TaskMetadata("lm", True, WORDS, 0.0, TaskWeightScheduler(True, False))  # tied to what LoRA adapts
    model = MultiTaskModel(encoder, [idle, tasks()[1]])
    before = values_of(model)
    recipe = create_recipe(recipe, weight_decay=0.1, learning_rate=1e-2)
    train_model(model, model.tasks, finetune_generator=toy(), finetune_steps=2, recipe=recipe, verbose=0)
    after = values_of(model)
    changed = {path for path, value in after.items() if not np.array_equal(before[path], value)}
    assert changed == {path for path in after if "lora" in path or path.startswith(("task_parity", "pooler"))}
    assert sum("embeddings/token_embedding/lora" in path for path in changed) == 2


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-5), ("mixed_bfloat16", 0.1)])
def test_merged_it_says_the_same(toy, dtype, error):
    model = MultiTaskModel(tiny(dtype=dtype), tasks())
    number = len(model.weights)
    add_lora(model, rank=2, layers=("query", "key", "output", "feedforward"))
    fill_lora(model.encoder)
    lora, lm = logits_of(model, toy), logits_of(model, toy, "lm")
    kernels = [numpy(keras.ops.cast(layer.kernel, "float32")) for layer in lora_layers(model.encoder)]
    layers = lora_layers(model.encoder)
    share = merge_lora(model)
    assert share.trained == share.total and len(model.weights) == number and not lora_layers(model.encoder)
    if dtype == "float32":
        for layer, kernel in zip(layers, kernels, strict=True):
            np.testing.assert_array_equal(numpy(layer.kernel), kernel)
    np.testing.assert_allclose(logits_of(model, toy), lora, atol=error * lora.std())
    np.testing.assert_allclose(logits_of(model, toy, "lm"), lm, atol=error * lm.std())
    with pytest.raises(ValueError, match="no LoRA to merge"):
        merge_lora(model)
    add_lora(model, rank=1)  # and once more


def test_files_keep_lora(toy, tmp_path):
    model = MultiTaskModel(tiny(), tasks())
    model.save_weights(tmp_path / "plain")
    add_lora(model, rank=2, alpha=3, layers=("key", "output", "embeddings"))
    fill_lora(model.encoder)
    model.save_weights(tmp_path / "lora")
    expected = logits_of(model, toy), logits_of(model, toy, "lm")
    given = tiny()
    for loaded in (load_model(tmp_path / "lora"), load_model(tmp_path / "lora", given), model):
        np.testing.assert_array_equal(logits_of(loaded, toy), expected[0])
        np.testing.assert_array_equal(logits_of(loaded, toy, "lm"), expected[1])
        assert trained_share(loaded) == trained_share(model)
    assert load_model(tmp_path / "lora", given).encoder is given  # once more into the same
    plain = load_model(tmp_path / "plain")
    assert trained_share(plain).trained == trained_share(plain).total
    add_lora(plain, rank=2, alpha=3, layers=("key", "output", "embeddings"))
    plain.load_weights(tmp_path / "lora")
    np.testing.assert_array_equal(logits_of(plain, toy), expected[0])
    merge_lora(plain)
    plain.save_weights(tmp_path / "merged")
    np.testing.assert_allclose(logits_of(load_model(tmp_path / "merged"), toy), expected[0], atol=1e-6)


def test_files_and_encoders_that_do_not_fit(tmp_path):
    model = MultiTaskModel(tiny(), tasks())
    add_lora(model, rank=2, layers=("key",))
    model.save_weights(tmp_path / "key")
    narrow = create_transformer(WORDS, WIDTH, 16, 2, 3, INNER + 1, seed=5)
    with pytest.raises(ValueError, match=r"feedforward_in/bias: \(20,\) in the file, \(21,\) here"):
        load_model(tmp_path / "key", narrow)
    assert not lora_layers(narrow)
    other = tiny()
    add_lora(other, rank=2, layers=("query",))  # the same shapes
    with pytest.raises(ValueError, match="other LoRA|changed in another way|has LoRA"):
        load_model(tmp_path / "key", other)
    with pytest.raises(ValueError, match="other LoRA"):
        MultiTaskModel(other, tasks()).load_weights(tmp_path / "key")
    with pytest.raises(ValueError, match="lora_key_a: .* absent here"):
        MultiTaskModel(tiny(), tasks()).load_weights(tmp_path / "key")


def test_other_encoders(toy):
    convolutions = create_text_cnn(WORDS, 12, 1, num_filters=6, seed=1)
    with pytest.raises(ValueError, match=r"some of \['embeddings'\].*projection.*\['query', 'value'\]"):
        add_lora(convolutions)
    add_lora(convolutions, rank=1, layers=lambda layer: layer.name == "projection")
    assert {v.path for v in convolutions.trainable_variables} == {
        "cnn_0/projection/lora_kernel_a",
        "cnn_0/projection/lora_kernel_b",
    }
    with pytest.raises(ValueError, match="chose none"):
        add_lora(create_lstm(WORDS, 12, 1, seed=1), layers=lambda layer: "lstm" in layer.name)
    inputs = encoder_inputs()
    hidden = keras.layers.Dense(12)(keras.layers.Embedding(WORDS, 8)(inputs["token_ids"]))
    hidden = keras.layers.BatchNormalization()(hidden)
    own = keras.Model(inputs, hidden)
    add_lora(own, rank=1, layers=lambda layer: isinstance(layer, keras.layers.Dense))
    model = train_model(own, tasks()[1:], finetune_generator=toy(), finetune_steps=1, verbose=0)
    assert trained_share(own).trained == 8 + 12
    merge_lora(model)
    assert all("moving" not in v.path for v in own.trainable_variables)


def test_lora_that_cannot_be(tmp_path):
    encoder = tiny(1)
    for arguments, problem in (
        ({"rank": 0}, "rank=0"),
        ({"rank": 1.5}, "rank=1.5"),
        ({"alpha": 0.0}, "alpha=0.0"),
        ({"layers": ("querry",)}, r"`layers`.*\['query', 'key'.*\['querry'\]"),
        ({"layers": ()}, "`layers`"),
    ):
        with pytest.raises(ValueError, match=problem):
            add_lora(encoder, **arguments)
    add_lora(encoder)
    for use in (
        lambda: add_lora(encoder),
        lambda: save_huggingface(encoder, tmp_path / "published"),
        lambda: extend_vocabulary(encoder, None, ["word"]),
    ):
        with pytest.raises(ValueError, match="merge_lora"):
            use()


def test_what_is_frozen():
    model = MultiTaskModel(tiny(norm_placement="pre"), tasks())

    def trained():
        return {v.path.split("/")[0] for v in model.trainable_variables}

    heads = {"task_lm", "task_parity", "pooler"}
    freeze(model, "embeddings")
    assert trained() == heads | {"layer_0", "layer_1", "final_norm"}
    share = freeze(model, 1)
    assert trained() == heads | {"layer_1", "final_norm"} and share == trained_share(model)
    freeze(model.encoder)
    assert trained() == heads
    unfreeze(model, 0)
    assert trained() == heads | {"embeddings"}
    share = unfreeze(model)
    assert share.trained == share.total
    freeze(model, lambda variable: not variable.path.endswith("bias"))
    assert {v.path.rsplit("/", 1)[1] for v in model.trainable_variables} == {"bias"}
    unfreeze(model)
    for layers, problem in (("head", "'head'"), (3, "from 0 to the 2 blocks"), (True, "True")):
        with pytest.raises(ValueError, match=problem):
            freeze(model, layers)
    with pytest.raises(ValueError, match="no weights"):
        freeze(model, lambda variable: False)


def test_frozen_weights_stay_and_loaded_ones_are_free(toy, tmp_path):
    model = MultiTaskModel(tiny(), tasks())
    freeze(model, 1)
    before = values_of(model)
    recipe = create_recipe("gentle", weight_decay=0.1, learning_rate=1e-2)
    train_model(model, model.tasks, finetune_generator=toy(), finetune_steps=2, recipe=recipe, verbose=0)
    same = {path for path, value in values_of(model).items() if np.array_equal(before[path], value)}
    assert same == {path for path in before if path.startswith(("embeddings", "layer_0"))}
    model.save_weights(tmp_path / "model")
    share = trained_share(load_model(tmp_path / "model"))
    assert share.trained == share.total


def test_lora_stays_frozen_below(toy):
    encoder = tiny(1)
    add_lora(encoder, rank=1)
    unfreeze(encoder)
    frozen = {v.path for v in encoder.weights if not v.trainable}
    assert frozen == {"layer_0/qkv/kernel"}
