"""Exported models, run in the programs that serve them, against the model's own numbers."""

import dataclasses
import json
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from bert_keras import (
    MultiTaskModel,
    TaskMetadata,
    classify,
    create_lstm,
    create_qrnn,
    create_text_cnn,
    encoder_inputs,
    export_model,
    quantize,
)
from bert_keras.sharing import exporting
from bert_keras.sharing.formats import FORMATS
from bert_keras.sharing.runtimes import is_installed

PACKAGES = ("tf2onnx", "onnx", "onnxruntime", "ai_edge_litert")

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="exported by the TensorFlow backend alone"
)
with_packages = pytest.mark.skipif(not all(map(is_installed, PACKAGES)), reason="needs the extra `export`")


@pytest.fixture(scope="module")
def all_kinds(text_encoder):
    return [
        TaskMetadata("lm", True, text_encoder.vocab_size),
        TaskMetadata("is_next", False, 2),
        TaskMetadata("mood", False, labels=("bad", "good")),
        TaskMetadata("mean", False, kind="regression", read_from="mean"),
        TaskMetadata("largest", False, kind="multi_label", read_from="max", labels=("x", "y", "z")),
        TaskMetadata("words", True, labels=("p", "q", "r", "s")),
        TaskMetadata("where", False, kind="span"),
    ]


def served(folder, format):
    return FORMATS[format].open(folder / FORMATS[format].file)


def assert_alike(run, model, names, arrays, atol=1e-5):
    """At two shapes, padding included."""
    for shape in ((9, 2), (14, 5)):
        found, expected = run(arrays(*shape)), model(arrays(*shape), training=False)
        assert sorted(found) == sorted(names)
        for name in names:
            ours = keras.ops.convert_to_numpy(keras.ops.cast(expected[name], "float32"))
            np.testing.assert_allclose(found[name], ours, rtol=1e-4, atol=atol, err_msg=name)
            assert found[name].dtype == np.float32


@on_tensorflow
@with_packages
@pytest.mark.parametrize("format", FORMATS)
def test_all_kinds_of_tasks(tiny, text_encoder, all_kinds, arrays, tmp_path, format):
    model = MultiTaskModel(tiny(initializer_range=0.5, num_layers=1), all_kinds, seed=2)
    names = [task.name for task in all_kinds]
    options = {"text_encoder": text_encoder, "tasks": names, "verbose": 0}
    folder = export_model(model, tmp_path / "out", format, **options)
    assert_alike(served(folder, format), model, names, arrays)
    assert sorted(os.listdir(folder)) == sorted([FORMATS[format].file, "serving.json", "text_encoder"])
    facts = json.loads((folder / "serving.json").read_text())
    assert facts["largest_difference"] < 1e-4
    assert facts["max_len"] == 17 and not facts["takes_longer_rows"]
    shape, labels = ["rows", "length", 4], ["p", "q", "r", "s"]
    assert facts["outputs"]["words"] == {"shape": shape, "kind": "classification", "labels": labels}
    assert facts["special_ids"]["bos"] == text_encoder.bos_id and facts["file"] == FORMATS[format].file


@on_tensorflow
@with_packages
@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_modern_encoders_of_low_precision_are_exported_in_float32(tiny, all_kinds, arrays, tmp_path, format):
    choices = {"architecture": "modern", "local_window": 4, "initializer_range": 0.5}
    model = MultiTaskModel(tiny(dtype="mixed_bfloat16", **choices), all_kinds[2:4], seed=2)
    run = served(export_model(model, tmp_path / "out", format, verbose=0), format)
    assert_alike(run, model, ["mood", "mean"], arrays, atol=0.05)
    exact = MultiTaskModel(tiny(dtype="float32", **choices), all_kinds[2:4], seed=2)
    assert_alike(run, exact, ["mood", "mean"], arrays)


@on_tensorflow
@with_packages
@pytest.mark.parametrize(
    ("create", "shape", "format"),
    [
        (create_text_cnn, {"num_filters": 6, "filter_widths": (2, 3), "num_convolutions": 1}, "litert"),
        (create_lstm, {}, "tf_saved_model"),
    ],
    ids=["cnn", "lstm"],
)
def test_other_encoders(text_encoder, all_kinds, arrays, tmp_path, create, shape, format):
    model = MultiTaskModel(create(text_encoder.vocab_size, 10, 1, seed=1, **shape), all_kinds[2:5])
    run = served(export_model(model, tmp_path / "out", format, verbose=0), format)
    assert_alike(run, model, ["mood", "mean", "largest"], arrays)


@on_tensorflow
@with_packages
@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_loops_are_refused_where_converters_know_none(text_encoder, tmp_path, format):
    for create, name in ((create_lstm, "LSTMEncoder"), (create_qrnn, "QRNNEncoder")):
        with pytest.raises(ValueError, match=f"has no {name}.*'tf_saved_model' takes any encoder"):
            export_model(create(text_encoder.vocab_size, 10, 1), tmp_path / "x", format)


@on_tensorflow
@with_packages
def test_encoders_alone_and_your_own(text_encoder, tiny, arrays, tmp_path):
    encoder = tiny(num_segments=1, num_layers=1)
    folder = export_model(encoder, tmp_path / "alone", verbose=0)
    found = served(folder, "onnx")(arrays(9))["hidden_states"]
    expected = keras.ops.convert_to_numpy(encoder(arrays(9), training=False))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    inputs = encoder_inputs()["token_ids"]
    own = keras.Model(inputs, keras.layers.Embedding(text_encoder.vocab_size, 7)(inputs))
    folder = export_model(own, tmp_path / "own", verbose=0)
    found = served(folder, "onnx")(arrays(9))
    np.testing.assert_allclose(found["hidden_states"], own.predict(arrays(9)["token_ids"], verbose=0))
    facts = json.loads((folder / "serving.json").read_text())
    assert [*facts["inputs"]] == ["token_ids"] and facts["special_ids"] == {}


@on_tensorflow
@with_packages
def test_serving_needs_no_keras(model, text_encoder, tmp_path, capsys):
    """The text encoder, NumPy and the runtime are enough."""
    folder = export_model(model, tmp_path / "out", text_encoder=text_encoder)
    assert "onnx, ['mood', 'mood_word'], largest difference" in capsys.readouterr().out
    code = """
        import json, sys
        import numpy as np
        import onnxruntime
        from bert_keras.text import TextEncoder

        facts = json.load(open("serving.json"))
        text_encoder = TextEncoder.load("text_encoder")
        ids = [facts["special_ids"]["bos"], *text_encoder.encode("a good film"), facts["special_ids"]["eos"]]
        row = np.array([ids], "int32")
        arrays = {"token_ids": row, "segment_ids": 0 * row, "sequence_ids": 0 * row + 1}
        arrays["position_ids"] = np.arange(row.shape[1], dtype="int32")[None]
        session = onnxruntime.InferenceSession("model.onnx")
        wanted = {each.name: arrays[each.name] for each in session.get_inputs()}
        [logits] = session.run(["mood"], wanted)
        print(json.dumps(logits[0].tolist()))
        sys.exit(bool({"keras", "tensorflow"} & set(sys.modules)))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    probabilities = np.exp(json.loads(done.stdout))
    ours = classify(model, text_encoder, "a good film")
    assert probabilities.max() / probabilities.sum() == pytest.approx(ours.probability, rel=1e-4)
    facts = json.loads((folder / "serving.json").read_text())
    assert facts["outputs"]["mood"]["labels"][int(probabilities.argmax())] == ours.label


def test_tasks_are_chosen(model, all_kinds, tiny):
    def names(model, tasks=None):
        return [task.name for task in exporting._chosen_tasks(model, tasks)]

    assert names(model) == ["mood", "mood_word"] and names(model, "lm") == ["lm"]
    assert names(MultiTaskModel(tiny(), all_kinds[:2])) == ["lm", "is_next"] and names(tiny()) == []
    for wrong in ("nothing", []):
        with pytest.raises(ValueError, match="`tasks`"):
            names(model, wrong)


@on_tensorflow
def test_wrong_numbers_are_noticed_and_nothing_is_written(model, tmp_path, monkeypatch):
    serving = exporting._serving_model(model, model.tasks[1:])

    def nearly(path):
        def run(arrays):
            logits = serving({name: arrays[name] for name in serving.input}, training=False)
            return {name: keras.ops.convert_to_numpy(array) + 0.01 for name, array in logits.items()}

        return run

    changed = dataclasses.replace(
        FORMATS["tf_saved_model"], write=lambda model, path: path.mkdir(), open=nearly
    )
    monkeypatch.setattr(exporting, "FORMATS", {"tf_saved_model": changed})
    with pytest.raises(ValueError, match="does not give the model's numbers for 'mood.*' on 2 rows of 7"):
        export_model(model, tmp_path / "x", "tf_saved_model")
    assert os.listdir(tmp_path) == []


@on_tensorflow
@pytest.mark.parametrize(
    ("format", "package", "hint"),
    [
        ("onnx", "tf2onnx", r"needs \['tf2onnx'\]: pip install 'bert_keras\[export\]'"),
        ("litert", "ai_edge_litert", r"with ai_edge_litert.*bert_keras\[export\]', or pass check=False"),
    ],
)
def test_a_missing_package_names_the_extra(model, tmp_path, monkeypatch, format, package, hint):
    monkeypatch.setattr(exporting, "is_installed", lambda name: name != package)
    with pytest.raises(ImportError, match=hint):
        export_model(model, tmp_path / "x", format)


@on_tensorflow
def test_what_is_refused(model, tiny, tmp_path):
    with pytest.raises(ValueError, match="`format` must be one of"):
        export_model(model, tmp_path / "x", "pickle")
    small = tiny()
    quantize(small, "int8")
    with pytest.raises(ValueError, match="quantised to int8, which is not exported"):
        export_model(small, tmp_path / "x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        export_model(model, tmp_path / "full", "tf_saved_model")
    with pytest.raises(FileExistsError, match="notes.txt"):
        export_model(model, tmp_path / "full", "tf_saved_model", overwrite=True)
    inputs = encoder_inputs()["token_ids"]
    own = keras.Model(inputs, keras.layers.Embedding(9, 7)(inputs), name="own")
    own.dtype_policy = keras.dtype_policies.get("mixed_bfloat16")
    with pytest.raises(
        ValueError, match="'own' has the dtype policy 'mixed_bfloat16'. Build it with float32"
    ):
        export_model(own, tmp_path / "x", "tf_saved_model")


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="of the other backends")
@pytest.mark.parametrize("format", FORMATS)
def test_other_backends_say_how(model, tmp_path, format):
    name = {"tf_saved_model": "saved-model"}.get(format, format)
    with pytest.raises(ValueError, match=f"KERAS_BACKEND=tensorflow bert-keras convert .* --to {name}$"):
        export_model(model, tmp_path / "x", format)


@on_tensorflow
@with_packages
def test_operations_that_a_runtime_lacks_are_told(text_encoder, tmp_path):
    import onnx

    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Erfc", ["x"], ["y"])], "g", ends[:1], ends[1:])
    opset = [onnx.helper.make_opsetid("", 15)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "x.onnx")
    with pytest.raises(ValueError, match="'tf_saved_model' takes any. It said: .*Erfc"):
        FORMATS["onnx"].open(tmp_path / "x.onnx")
    inputs = encoder_inputs()["token_ids"]
    hidden = keras.layers.Embedding(text_encoder.vocab_size, 7)(inputs)
    own = keras.Model(inputs, keras.layers.LSTM(5, return_sequences=True)(hidden))
    with pytest.raises(ValueError, match="LiteRT's own operations are not enough"):
        export_model(own, tmp_path / "x", "litert")
