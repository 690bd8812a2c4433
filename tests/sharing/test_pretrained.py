"""What is shared comes back whole, from folders that are complete or not there."""

import json
import os
import shutil

import keras
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from bert_keras import (
    MultiTaskModel,
    TaskMetadata,
    add_lora,
    create_qrnn,
    create_recipe,
    embed,
    encoder_inputs,
    load_huggingface,
    load_pretrained,
    predict,
    quantize,
    save_huggingface,
    save_pretrained,
    train_model,
)
from bert_keras.encoders.changes import changes_of
from bert_keras.sharing import folders

TEXTS = ["a good film", "a dull play and a bad film"]


def values(model):
    return {v.path: np.array(keras.ops.convert_to_numpy(v.value)) for v in model.weights}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for path, array in one.items():
        np.testing.assert_array_equal(array, other[path], err_msg=path)


@pytest.fixture(scope="module")
def saved(model, text_encoder, tmp_path_factory):
    return save_pretrained(model, tmp_path_factory.mktemp("saved") / "mood", text_encoder, verbose=0)


@pytest.fixture
def copy(saved, tmp_path):
    """A copy to be damaged."""
    return shutil.copytree(saved, tmp_path / "copy")


def rewrite(path, change):
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_the_folder_has_what_it_promises(saved, model):
    names = {str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file()}
    assert names == {
        "README.md",
        "config.json",
        "model.safetensors",
        "text_encoder/text_encoder.json",
        "training.json",
    }
    assert os.listdir(saved.parent) == ["mood"]
    assert len({(saved / name).stat().st_mode for name in names}) == 1
    arrays = safetensors_numpy.load_file(saved / "model.safetensors")
    assert {name: array.dtype.name for name, array in arrays.items()} == {
        v.path: "float32" for v in model.weights
    }
    assert_same(arrays, values(model))
    assert sum("embeddings/token_embedding" in name for name in arrays) == 1  # tied once


def test_model_text_encoder_and_facts_come_back(saved, model, text_encoder, tasks):
    loaded = load_pretrained(saved)
    assert_same(values(model), values(loaded.model))
    assert loaded.text_encoder.fingerprint == text_encoder.fingerprint
    assert [task.get_config() for task in loaded.model.tasks] == [task.get_config() for task in tasks]
    assert loaded.model.recipes == {"finetune": create_recipe("modern")}
    assert loaded.model.heads["lm"].token_embedding is loaded.encoder.token_embedding
    assert loaded.encoder.is_trained and loaded.directory == saved
    assert loaded.card.startswith("---\n") and "tasks=['lm', 'mood', 'mood_word']" in repr(loaded)


def test_the_record_tells_of_the_training(saved, model):
    record = load_pretrained(saved).training
    phase = record["phases"]["finetune"]
    assert (phase["epochs"], phase["batches_per_epoch"]) == (2, 2)
    history = model.training_history["finetune"].history
    assert phase["history"] == {name: pytest.approx(found) for name, found in history.items()}
    assert "val_mood_accuracy" in history and record["recipes"]["finetune"]["name"] == "modern"
    assert record["seed"] == {"heads": 0, "encoder": 5}
    parameters = sum(int(np.prod(v.shape)) for v in model.weights)
    assert record["parameters"] == {"all": parameters, "encoder": model.encoder.count_params()}
    assert record["versions"]["backend"] == keras.backend.backend()
    assert record["versions"]["keras"] == keras.__version__


def test_one_text_or_many(saved, model, text_encoder):
    loaded = load_pretrained(saved)
    expected = list(predict(model, text_encoder, TEXTS, verbose=0))

    def plain(result):
        return result["mood"].label, [word.label for word in result["mood_word"]]

    assert [plain(found) for found in loaded.predict(TEXTS)] == [plain(found) for found in expected]
    assert plain(loaded.predict(TEXTS[0])) == plain(expected[0])
    one = loaded.classify(TEXTS[1])
    assert one.label == expected[1]["mood"].label
    assert one.probability == pytest.approx(expected[1]["mood"].probability, rel=1e-4)
    assert [found.label for found in loaded.classify(iter(TEXTS))] == [e["mood"].label for e in expected]
    assert [word.word for word in loaded.tag(TEXTS[0])] == ["a", "good", "film"]
    np.testing.assert_allclose(
        loaded.embed(TEXTS[0], normalize=True), embed(model, text_encoder, TEXTS[0], normalize=True), 1e-4
    )
    [[best]] = loaded.fill_mask("a [MASK] film", top_k=1)
    assert 0 < best.probability < 1
    with pytest.raises(ValueError, match="`task` must name a span task"):
        loaded.answer(("what?", "a film"))
    with pytest.raises(ValueError, match="causal"):
        loaded.generate("a good")


def test_training_goes_on_from_there(saved, tasks, toy):
    loaded = load_pretrained(saved)
    before = values(loaded.encoder)
    model = train_model(loaded.model, tasks[:1], toy(), pretrain_steps=1, verbose=0)
    assert model.recipes["pretrain"] == create_recipe("gentle")  # as of an encoder that has learnt
    assert any(np.any(before[path] != array) for path, array in values(model.encoder).items())


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16"])
def test_other_dtypes(text_encoder, tiny, tasks, tmp_path, dtype):
    model = MultiTaskModel(tiny(dtype=dtype), tasks)
    save_pretrained(model, tmp_path / "low", text_encoder, verbose=0)
    loaded = load_pretrained(tmp_path / "low")
    assert loaded.encoder.dtype_policy.name == loaded.model.heads["mood"].dtype_policy.name == dtype
    for variable, other in zip(model.weights, loaded.model.weights, strict=True):
        assert variable.dtype == other.dtype == ("bfloat16" if dtype == "bfloat16" else "float32")
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(keras.ops.cast(variable, "float32")),
            keras.ops.convert_to_numpy(keras.ops.cast(other, "float32")),
        )
    again = load_pretrained(tmp_path / "low", dtype="float32")
    assert again.encoder.dtype_policy.name == "float32" and again.model.weights[0].dtype == "float32"


def test_an_encoder_alone_keeps_its_published_heads(text_encoder, tiny, tmp_path):
    published = MultiTaskModel(tiny(), [TaskMetadata("lm", True, text_encoder.vocab_size)], seed=3)
    save_huggingface(published, tmp_path / "published", verbose=0)
    encoder = load_huggingface(tmp_path / "published", verbose=0)
    save_pretrained(encoder, tmp_path / "alone", text_encoder, verbose=0)
    loaded = load_pretrained(tmp_path / "alone")
    assert loaded.model is loaded.encoder
    assert_same(values(encoder), values(loaded.model))
    assert loaded.embed("a good film").shape == (12,)
    lm = MultiTaskModel(loaded.model, published.tasks, seed=9)
    assert_same(values(published), values(lm))
    with pytest.raises(ValueError, match="an encoder without tasks"):
        loaded.predict("a good film")


def test_other_encoders_of_the_library(text_encoder, tasks, tmp_path):
    model = MultiTaskModel(create_qrnn(text_encoder.vocab_size, 10, 1, seed=1), tasks)
    save_pretrained(model, tmp_path / "qrnn", text_encoder, verbose=0)
    assert_same(values(model), values(load_pretrained(tmp_path / "qrnn").model))


def own_encoder(vocab_size, width=6):
    inputs = encoder_inputs()
    hidden = keras.layers.Embedding(vocab_size, 8)(inputs["token_ids"])
    hidden = keras.layers.Dense(width)(keras.layers.Dense(7)(hidden))
    return keras.Model(inputs, keras.layers.Dense(width, name="pooler")(hidden), name="mine")


def test_your_own_encoder_has_to_be_passed(text_encoder, tasks, tmp_path):
    model = MultiTaskModel(own_encoder(text_encoder.vocab_size), tasks[1:2])
    assert [v.path for v in model.weights].count("pooler/kernel") == 2  # its layer, and the tasks' pooler
    folder = save_pretrained(model, tmp_path / "own", text_encoder, verbose=0)
    assert "encoder=encoder)" in (folder / "README.md").read_text()
    with pytest.raises(ValueError, match=r"is a Functional named 'mine'.*encoder=encoder"):
        load_pretrained(folder)
    encoder = own_encoder(text_encoder.vocab_size)
    paths = [[variable.path for variable in each.weights] for each in (encoder, model.encoder)]
    assert paths[0] != paths[1]  # numbered anew
    loaded = load_pretrained(folder, encoder=encoder)
    for one, other in zip(model.get_weights(), loaded.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    other = own_encoder(text_encoder.vocab_size, width=5)
    before = other.get_weights()
    with pytest.raises(ValueError, match="pooler/kernel: .6, 6. in the file, .5, 5. in the model"):
        load_pretrained(folder, encoder=other)
    assert all(np.array_equal(a, b) for a, b in zip(before, other.get_weights(), strict=True))
    with pytest.raises(ValueError, match="Give `dtype` or `encoder`"):
        load_pretrained(folder, encoder=encoder, dtype="float32")


def test_a_given_encoder_that_does_not_fit_is_left_as_it_was(saved, tiny):
    encoder = tiny(embedding_dim=15, num_layers=1, position_embedding="sinusoidal")
    before = values(encoder)
    with pytest.raises(ValueError, match="nothing was loaded") as caught:
        load_pretrained(saved, encoder=encoder)
    message = str(caught.value)
    assert "embeddings/token_embedding/embeddings: (53, 12) in the file, (53, 15) in the model" in message
    assert "embeddings/position_embedding/embeddings: (17, 12) in the file, absent in the model" in message
    assert f"{sum(line.startswith('  ') for line in message.splitlines())} differences" in message
    assert_same(before, values(encoder))


def test_a_truncated_file_is_named(copy):
    whole = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    for path, content in whole.items():
        if path.name == "README.md":
            continue
        for end in (0, len(content) // 2, len(content) - 3):
            path.write_bytes(content[:end])
            with pytest.raises(ValueError, match=path.name):
                load_pretrained(copy)
        path.unlink()
        with pytest.raises((FileNotFoundError, ValueError), match=path.name):
            load_pretrained(copy)
        path.write_bytes(content)
    load_pretrained(copy)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda c: c.update(format_version=99), "Install a newer bert_keras"),
        (lambda c: c.update(tasks="none"), "`tasks` must be a list"),
        (lambda c: c["variables"].pop(), r"disagree. 1 differences:\n  .*: absent in the config"),
        (lambda c: c["variables"][3].__setitem__(1, [1, -1]), "is no name and shape"),
        (lambda c: c["variables"][3].__setitem__(1, [1, 2]), r": \(1, 2\) in the config, .* in the weights"),
        (lambda c: c["encoder"].update(variables=["nowhere"]), "not among `variables`"),
        (lambda c: c["encoder"].update(class_name="os.system"), "a os.system named .* cannot build"),
        (lambda c: c["encoder"]["config"].update(code="x"), "describes no Transformer of this version"),
        (lambda c: c["encoder"]["config"].update(d_hid=21), r"layer_0/feedforward_in/kernel: \(12, 20\) in"),
        (lambda c: c["tasks"][1].update(labels=["one"]), "describes no tasks and recipes of this version"),
        (lambda c: c["tasks"][1].pop("name"), "describes no tasks and recipes of this version"),
        (lambda c: c["tasks"].pop(), "task_mood_word/classifier/kernel: .* in the file, absent in the model"),
        (lambda c: c["text_encoder"].update(fingerprint="0"), "is not the text encoder that was saved"),
    ],
)
def test_configurations_that_were_altered(copy, change, problem):
    rewrite(copy / "config.json", change)
    with pytest.raises(ValueError, match=problem):
        load_pretrained(copy)


def test_arrays_that_were_altered(copy):
    path = copy / "model.safetensors"
    arrays = safetensors_numpy.load_file(path)
    safetensors_numpy.save_file({**arrays, "more": np.zeros(2, "float32")}, path)
    with pytest.raises(ValueError, match=r"more: absent in the config, \(2,\) in the weights"):
        load_pretrained(copy)


def test_folders_of_other_forms(text_encoder, tiny, tmp_path, saved):
    save_huggingface(tiny(), tmp_path / "published", text_encoder=text_encoder, verbose=0)
    with pytest.raises(ValueError, match="encoder = load_huggingface.*load_text_encoder"):
        load_pretrained(tmp_path / "published")
    (tmp_path / "google").mkdir()
    (tmp_path / "google" / "bert_config.json").write_text("{}")
    with pytest.raises(ValueError, match="encoder = load_bert"):
        load_pretrained(tmp_path / "google")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no model: expected config.json"):
        load_pretrained(tmp_path / "empty")
    with pytest.raises(ValueError, match="open it with load_pretrained"):
        load_huggingface(saved)
    with pytest.raises(ValueError, match="`revision` is for names on the Hub"):
        load_pretrained(saved, revision="main")


def test_a_run_of_the_command_line_opens_too(model, text_encoder, tmp_path):
    model.save_weights(tmp_path / "model")
    text_encoder.save(tmp_path / "text_encoder")
    loaded = load_pretrained(tmp_path)
    assert_same(values(model), values(loaded.model))
    assert loaded.card is None and loaded.training == {}
    assert load_pretrained(tmp_path, dtype="mixed_bfloat16").encoder.dtype_policy.name == "mixed_bfloat16"


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_is_replaced_only_when_asked(saved, copy, model, text_encoder, tmp_path):
    before = contents(copy)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save_pretrained(model, copy, text_encoder, verbose=0)
    (copy / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds more than what is written here: \['notes.txt'\]"):
        save_pretrained(model, copy, text_encoder, overwrite=True, verbose=0)
    (copy / "notes.txt").unlink()
    assert contents(copy) == before
    save_pretrained(model, copy, text_encoder, overwrite=True, limitations="None known.", verbose=0)
    assert "None known." in (copy / "README.md").read_text()
    with pytest.raises(FileExistsError, match="is a file"):
        save_pretrained(model, copy / "README.md", text_encoder, verbose=0)
    (tmp_path / "empty").mkdir()
    save_pretrained(model, tmp_path / "empty", text_encoder, verbose=0)
    assert sorted(os.listdir(tmp_path)) == ["copy", "empty"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize(
    "moment", ["save_file", "save", "fsync", "first rename", "second rename", "after the first rename"]
)
def test_an_interrupted_save_loses_nothing(
    copy, model, text_encoder, tmp_path, monkeypatch, error, is_new, moment
):
    target = tmp_path / "new" if is_new else copy
    before = contents(tmp_path)

    def fail(*args, **kwargs):
        raise error("interrupted")

    rename, calls = os.rename, []

    def renamed(source, place):
        calls.append(place)
        if moment == "first rename" or (moment == "second rename" and len(calls) == 2):
            fail()
        rename(source, place)
        if moment == "after the first rename" and len(calls) == 1:
            fail()

    if moment in ("save_file", "save"):
        place = "bert_keras.sharing.writing.safetensors_numpy.save_file"
        monkeypatch.setattr(place if moment == "save_file" else "bert_keras.text.TextEncoder.save", fail)
    elif moment == "fsync":
        monkeypatch.setattr(folders.os, "fsync", fail)
    else:
        monkeypatch.setattr(folders.os, "rename", renamed)
    if is_new and moment == "second rename":
        return  # there is one only
    with pytest.raises(error):
        save_pretrained(model, target, text_encoder, overwrite=True, verbose=0)
    if is_new and moment == "after the first rename":
        assert load_pretrained(target).model.count_params() == model.count_params()
        shutil.rmtree(target)
    assert contents(tmp_path) == before
    assert os.listdir(tmp_path) == ["copy"]


def test_what_could_not_be_loaded_again_is_refused(model, text_encoder, tiny, tasks, tmp_path):
    with pytest.raises(ValueError, match="55 ids, but the encoder 53"):
        save_pretrained(model, tmp_path / "x", text_encoder.extended(["bird", "hand"]))
    with pytest.raises(ValueError, match="`text_encoder` must be the TextEncoder"):
        save_pretrained(model, tmp_path / "x", None)
    changed = MultiTaskModel(tiny(), tasks)
    changed.heads["mood"].classifier.enable_lora(2)
    with pytest.raises(ValueError, match=r"the layers \['classif.*belong to heads"):
        save_pretrained(changed, tmp_path / "x", text_encoder)
    with pytest.raises(ValueError, match="`history` must give for each phase"):
        save_pretrained(model, tmp_path / "x", text_encoder, history={"finetune": [1.0]})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("change", ["lora", "int8"])
@pytest.mark.parametrize("is_given", [False, True])
def test_lora_and_int8_are_kept(change, is_given, text_encoder, tiny, tasks, arrays, tmp_path):
    model = MultiTaskModel(tiny(), tasks)
    if change == "lora":
        add_lora(model, rank=3)
        model.set_weights([value + 0.1 for value in model.get_weights()])
    else:
        quantize(model, "int8")
    folder = save_pretrained(model, tmp_path / "x", text_encoder, verbose=0)
    loaded = load_pretrained(folder, encoder=tiny() if is_given else None).model
    assert changes_of(loaded.encoder) == changes_of(model.encoder) != {}
    for name, logits in model.predict(arrays(), verbose=0).items():
        np.testing.assert_array_equal(loaded.predict(arrays(), verbose=0)[name], logits)
    config = json.loads((folder / "config.json").read_text())
    config["encoder"]["changes"] = {"lora": [{"layer": 99, "rank": 2, "alpha": 2, "parts": None}]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="config.json' tells of LoRA or int8 that cannot be made"):
        load_pretrained(folder)


def test_numbers_that_json_cannot_hold(model, text_encoder, tmp_path):
    history = {"finetune": {"loss": [float("inf"), np.float32(0.5), float("nan")]}}
    folder = save_pretrained(model, tmp_path / "x", text_encoder, history=history, verbose=0)
    assert json.loads((folder / "training.json").read_text())["phases"]["finetune"] == {
        "epochs": 3,
        "batches_per_epoch": None,
        "history": {"loss": [None, 0.5, None]},
    }
