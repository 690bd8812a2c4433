"""The arrays of OpenAI's GPT are found in ten files that are cut anywhere."""

import json
import math
import os
import pickle
import shutil
import struct

import numpy as np
import pytest
from array_writers import (
    D_HID,
    LAYER,
    WIDTH,
    Bomb,
    assert_reads,
    openai_arrays,
    write_openai,
)

from bert_keras.checkpoints.sources import OpenAISource

DATA = os.environ.get("BERT_KERAS_DATA", "")


@pytest.mark.parametrize("num_layers", [0, 1, 3])
@pytest.mark.parametrize("cuts", [None, [0, 0, 1, 2, 3, 31, 31, 32, 100], [132] * 9])
def test_openai_arrays_come_back(tmp_path, num_layers, cuts):
    arrays = openai_arrays(num_layers)
    write_openai(tmp_path, arrays, cuts)
    source = OpenAISource(tmp_path)
    assert_reads(source, arrays)
    assert list(source.arrays) == list(arrays) and str(source) == str(tmp_path)


@pytest.mark.parametrize("dtype", ["<f2", "<f8"])
def test_openai_arrays_of_other_precision(tmp_path, dtype):
    arrays = openai_arrays()
    write_openai(tmp_path, arrays, dtype=dtype)
    source = OpenAISource(tmp_path)
    for name, array in arrays.items():
        np.testing.assert_array_equal(source.read(name), array.astype(dtype).astype("float32"))


def test_npy_headers_of_every_age(tmp_path):
    arrays = openai_arrays(0)
    write_openai(tmp_path, arrays)
    part = np.load(tmp_path / "params_3.npy")
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%dL,), }" % len(part)  # of Python 2
    old = b"\x93NUMPY\1\0" + struct.pack("<H", len(header) + 1) + header + b"\n" + part.tobytes()
    (tmp_path / "params_3.npy").write_bytes(old)
    for number, version in ((4, (2, 0)), (5, (3, 0))):
        path = tmp_path / f"params_{number}.npy"
        part = np.load(path)
        with open(path, "wb") as file:
            np.lib.format.write_array(file, part, version)
    assert_reads(OpenAISource(tmp_path), arrays)


@pytest.mark.skipif(not os.path.isdir(f"{DATA}/openai-gpt"), reason="needs $BERT_KERAS_DATA")
def test_the_names_fit_the_published_shapes(tmp_path):
    shutil.copy(f"{DATA}/openai-gpt/params_shapes.json", tmp_path)
    shapes = json.loads((tmp_path / "params_shapes.json").read_text())
    total = sum(math.prod(shape) for shape in shapes)
    for number in range(10):  # sparse files of the right length, which take no space
        count = total // 10 if number else total - 9 * (total // 10)
        header = np.lib.format.header_data_from_array_1_0(np.empty(0, "float32")) | {"shape": (count,)}
        with open(tmp_path / f"params_{number}.npy", "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + 4 * count)
    source = OpenAISource(tmp_path)
    assert len(source.arrays) == 146 and source.arrays["model/pe"].shape == (512, 768)
    assert source.arrays["model/we"].shape == (40478, 768)
    for layer in range(12):
        found = {name: source.arrays[f"model/h{layer}/{name}"].shape for name in LAYER}
        scaled = {WIDTH: 768, 3 * WIDTH: 2304, D_HID: 3072, 1: 1}
        assert found == {name: tuple(scaled[size] for size in shape) for name, shape in LAYER.items()}
    assert not source.read("model/h11/ln_2/b").any()


@pytest.mark.parametrize("name", ["params_shapes.json", "params_0.npy", "params_9.npy"])
def test_missing_openai_files(tmp_path, name):
    write_openai(tmp_path, openai_arrays())
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"but {name} is missing"):
        OpenAISource(tmp_path)


@pytest.mark.parametrize(
    "shapes",
    [{}, None, 3, [], [[5, 6]], [[5, 6], [17, 6], [3]], [[5, 6], [-17, 6]], [[5, 6], [17.0, 6]], [[5, 6], 17]]
    + [
        [[5, 6], [True, 6]],
        [[5, 6], [0, 6]],
        [[1 << 70], [6]],
        [[1] * 99, [6]],
        [[5, 6], "ab"],
        [[5, 6], [1e400]],
    ],
    ids=str,
)
def test_wrong_shapes(tmp_path, shapes):
    write_openai(tmp_path, openai_arrays(0))
    (tmp_path / "params_shapes.json").write_text(json.dumps(shapes))
    with pytest.raises(ValueError, match="params_shapes.json': expected"):
        OpenAISource(tmp_path)


def test_shapes_that_do_not_add_up(tmp_path):
    write_openai(tmp_path, openai_arrays(0))
    (tmp_path / "params_shapes.json").write_text(json.dumps([[5, 6], [18, 6]]))
    with pytest.raises(ValueError, match="describes 138 numbers, but params_0.npy to params_9.npy hold 132"):
        OpenAISource(tmp_path)


def npy(array):
    def write(path):
        np.save(path, array, allow_pickle=True)

    return write


@pytest.mark.parametrize(
    "write",
    [
        npy(np.zeros((2, 3), "float32")),
        npy(np.zeros(3, "int32")),
        npy(np.zeros(3, ">f4")),
        npy(np.float32(1)),
        npy(np.array([Bomb()], object)),
        lambda path: path.write_bytes(pickle.dumps(Bomb())),
        lambda path: np.savez(open(path, "wb"), np.zeros(3, "float32")),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\x93NUMPY\1\0\xff\xff{"),
        lambda path: os.truncate(path, path.stat().st_size - 1),
        lambda path: os.truncate(path, 100),
        lambda path: path.write_bytes(path.read_bytes() + b"\0\0\0\0"),
        lambda path: path.write_bytes(path.read_bytes().replace(b"'shape': (", b"'shape': (9")),
    ],
)
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_a_damaged_shard_of_openai(tmp_path, monkeypatch, write):
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    write_openai(tmp_path, openai_arrays())
    write(tmp_path / "params_4.npy")
    with pytest.raises(ValueError, match="params_4.npy' is"):
        OpenAISource(tmp_path)
    assert not (tmp_path / "exploded").exists()
