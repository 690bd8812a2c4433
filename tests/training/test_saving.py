"""One file that holds all, is never half written, and is never half loaded."""

import json

import h5py
import keras
import numpy as np
import pytest

from bert_keras import (
    MultiTaskModel,
    TaskMetadata,
    TaskWeightScheduler,
    create_transformer,
    encoder_arrays,
    encoder_inputs,
    load_model,
    train_model,
)

TASKS = [
    TaskMetadata("lm", True, 53, 0.1),
    TaskMetadata("parity", False, 2, 0.2, TaskWeightScheduler(True, False, 0.5)),
]


def make(seed=5, **arguments):
    shape = {"embedding_dim": 12, "max_len": 16, "num_layers": 1, "num_heads": 3, "d_hid": 20, **arguments}
    return create_transformer(53, **shape, seed=seed)


def values(model):
    return [keras.ops.convert_to_numpy(v).copy() for v in model.weights]


def assert_equal(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def saved(tmp_path):
    model = MultiTaskModel(make(), TASKS, seed=1)
    model.save_weights(tmp_path / "model")
    return model, tmp_path / "model.weights.h5"


@pytest.mark.parametrize("with_encoder", [True, False])
@pytest.mark.parametrize("suffix", ["", ".weights.h5"])
def test_the_same_model_comes_back(saved, toy, with_encoder, suffix):
    model, path = saved
    again = load_model(str(path).removesuffix(".weights.h5") + suffix, make(seed=9) if with_encoder else None)
    assert_equal(values(model), values(again))
    arrays = encoder_arrays(toy()[0])
    for name, logits in model.predict(arrays, verbose=0).items():
        np.testing.assert_array_equal(logits, again.predict(arrays, verbose=0)[name])
    assert [task.get_config() for task in again.tasks] == [task.get_config() for task in TASKS]
    assert sorted(p.name for p in path.parent.iterdir()) == ["model.weights.h5"]


def test_the_tie_holds_after_loading(saved, toy):
    again = load_model(saved[1])
    train_model(again, TASKS, toy(), pretrain_steps=1, verbose=0)
    table = keras.ops.convert_to_numpy(again.encoder.token_embedding.embeddings).copy()
    assert again.heads["lm"].token_embedding is again.encoder.token_embedding
    arrays = encoder_arrays(toy()[0])
    unused = np.setdiff1d(np.arange(53), arrays["token_ids"])[0]
    bias = keras.ops.convert_to_numpy(again.heads["lm"].bias)[unused]
    before = again.predict(arrays, verbose=0)["lm"][..., unused] - bias
    table[unused] *= -3.0
    again.encoder.token_embedding.embeddings.assign(table)
    after = again.predict(arrays, verbose=0)["lm"][..., unused] - bias
    np.testing.assert_allclose(after, -3.0 * before, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_interrupted_save_leaves_the_previous_file(saved, monkeypatch, error):
    model, path = saved
    before = path.read_bytes()
    count = len(model.weights) + 1
    original = h5py.Group.create_dataset
    for moment in range(count):
        calls = []

        def interrupted(group, *args, moment=moment, calls=calls, **kwargs):
            calls.append(args)
            if len(calls) > moment:
                raise error("interrupted")
            return original(group, *args, **kwargs)

        monkeypatch.setattr(h5py.Group, "create_dataset", interrupted)
        with pytest.raises(error):
            model.save_weights(path)
        assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]
    monkeypatch.setattr(h5py.Group, "create_dataset", original)
    monkeypatch.setattr("os.replace", lambda *args: (_ for _ in ()).throw(error("interrupted")))
    with pytest.raises(error):
        model.save_weights(path)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_an_existing_file_is_kept_if_asked(saved):
    model, path = saved
    with pytest.raises(FileExistsError, match="overwrite=True"):
        model.save_weights(path, overwrite=False)


def test_another_shape_names_every_mismatch_and_changes_nothing(saved):
    other = make(embedding_dim=15, num_layers=2, position_embedding="sinusoidal")
    before = values(other)
    with pytest.raises(ValueError, match="nothing was loaded") as caught:
        load_model(saved[1], other)
    message = str(caught.value)
    assert "embeddings/token_embedding/embeddings: (53, 12) in the file, (53, 15) here" in message
    assert "embeddings/position_embedding/embeddings: (16, 12) in the file, absent here" in message
    assert "layer_1/qkv/kernel: absent in the file, (15, 45) here" in message
    mismatched = sum(line.startswith("  ") for line in message.splitlines())
    assert f"{mismatched} differences" in message
    assert_equal(before, values(other))


def test_load_weights_refuses_other_heads(saved):
    model = MultiTaskModel(make(), [TASKS[0], TaskMetadata("parity", False, 3)], seed=1)
    before = values(model)
    with pytest.raises(
        ValueError, match=r"task_parity/classifier/kernel: \(12, 2\) in the file, \(12, 3\) here"
    ):
        model.load_weights(saved[1])
    with pytest.raises(ValueError, match="Nothing is skipped"):
        model.load_weights(saved[1], skip_mismatch=True)
    assert_equal(before, values(model))


def test_damaged_files_change_nothing(saved, tmp_path):
    model, path = saved
    whole = path.read_bytes()
    before = values(model)
    damaged = tmp_path / "damaged.weights.h5"
    contents = [b"", b"not HDF5 at all", *(whole[: len(whole) * k // 17] for k in range(1, 17))]
    for content in contents:
        damaged.write_bytes(content)
        with pytest.raises(ValueError, match="damaged.weights.h5"):
            model.load_weights(damaged)
        with pytest.raises(ValueError, match="damaged.weights.h5"):
            load_model(damaged)
    assert_equal(before, values(model))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda file: file.__delitem__("metadata"), "no metadata"),
        (lambda file: file.__delitem__("weights/3"), "weights/3"),
        (lambda file: rewrite(file, format="another"), "another kind"),
        (lambda file: rewrite(file, format_version=99), "newer bert_keras"),
    ],
)
def test_files_that_were_altered(saved, change, problem):
    model, path = saved
    with h5py.File(path, "a") as file:
        change(file)
    before = values(model)
    with pytest.raises(ValueError, match=problem):
        model.load_weights(path)
    assert_equal(before, values(model))


def rewrite(file, **changes):
    metadata = {**json.loads(file["metadata"][()].tobytes()), **changes}
    del file["metadata"]
    file["metadata"] = np.frombuffer(json.dumps(metadata).encode(), "uint8")


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.weights.h5"):
        load_model(tmp_path / "nowhere")


def own_encoder():
    inputs = encoder_inputs()
    hidden = keras.layers.Embedding(53, 8)(inputs["token_ids"])
    hidden = keras.layers.Dense(6)(keras.layers.LSTM(7, return_sequences=True)(hidden))
    return keras.Model(inputs, hidden)


def test_your_own_encoder_loads_though_its_layers_are_numbered_anew(tmp_path):
    model = MultiTaskModel(own_encoder(), TASKS)
    model.save_weights(tmp_path / "own")
    with pytest.raises(ValueError, match="pass it as `encoder`"):
        load_model(tmp_path / "own")
    again = load_model(tmp_path / "own", own_encoder())
    assert [v.path for v in again.weights] != [v.path for v in model.weights]
    assert_equal(values(model), values(again))


class FadeOut(TaskWeightScheduler):
    def get(self, is_pretrain, step):
        return 1.0 / (1 + step)


def test_schedules_of_your_own_class(tmp_path):
    tasks = [TaskMetadata("parity", False, 2, 0.0, FadeOut(True, False))]
    MultiTaskModel(make(), tasks).save_weights(tmp_path / "own")
    assert type(load_model(tmp_path / "own").tasks[0].weight_scheduler) is TaskWeightScheduler
    assert load_model(tmp_path / "own", tasks=tasks).tasks[0].weight_scheduler.get(True, 1) == 0.5


def test_keras_whole_model_files(saved, toy, tmp_path):
    model = saved[0]
    model.save(tmp_path / "whole.keras")
    again = keras.models.load_model(tmp_path / "whole.keras")
    arrays = encoder_arrays(toy()[0])
    for name, logits in model.predict(arrays, verbose=0).items():
        np.testing.assert_array_equal(logits, again.predict(arrays, verbose=0)[name])
    assert again.heads["lm"].token_embedding is again.encoder.token_embedding


def test_checkpoints_during_training_hold_the_optimizer_and_saves_after_it_do_not(toy, tmp_path):
    path = tmp_path / "best.weights.h5"
    callback = keras.callbacks.ModelCheckpoint(path, save_weights_only=True, monitor="loss")
    model = train_model(make(), TASKS[:1], toy(), pretrain_steps=1, pretrain_callbacks=[callback], verbose=0)
    model.save_weights(tmp_path / "after")
    with h5py.File(path) as during, h5py.File(tmp_path / "after.weights.h5") as after:
        assert set(during) == {"metadata", "weights", "optimizer", "random_state"}
        assert set(after) == {"metadata", "weights"}
    assert_equal(values(load_model(path)), values(model))
