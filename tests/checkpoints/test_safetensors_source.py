"""Safetensors come back as they were written, in one file or many; damaged files and pickles are refused."""

import json
import math
import os
import pickle
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
from array_writers import (
    Bomb,
    arrays_of,
    assert_reads,
    entry,
    write_index,
    write_raw,
    write_safetensors,
    write_shards,
)

from bert_keras.checkpoints.sources import ArrayInfo, SafetensorsSource


@pytest.fixture
def sharded(tmp_path):
    return tmp_path, *write_shards(tmp_path)


def test_safetensors_come_back(tmp_path):
    arrays = arrays_of()
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors", {"format": "pt"})
    source = SafetensorsSource(tmp_path)
    assert_reads(source, arrays)
    assert str(source) == str(tmp_path)
    first = source.read("a.weight")
    first[:] = 0
    np.testing.assert_array_equal(source.read("a.weight"), arrays["a.weight"])  # nothing is kept


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_integers_keep_their_dtype(tmp_path, dtype):
    bounds = np.iinfo(dtype)
    array = np.array([bounds.min, 0, 1, bounds.max], dtype)
    safetensors.numpy.save_file({"a": array}, tmp_path / "model.safetensors")
    assert_reads(SafetensorsSource(tmp_path), {"a": array})


def test_every_bfloat16_and_float16_is_converted_exactly(tmp_path):
    bits = np.arange(1 << 16, dtype="<u2")
    entries = {"b": ("BF16", (256, 256), bits.tobytes()), "h": ("F16", (1 << 16,), bits.tobytes())}
    write_safetensors(tmp_path / "model.safetensors", entries)
    source = SafetensorsSource(tmp_path)
    assert source.arrays["b"] == ArrayInfo((256, 256), "bfloat16")
    by_hand = []
    for value in range(1 << 16):  # sign, 8 bits of exponent, 7 bits of fraction
        sign, exponent, fraction = (-1) ** (value >> 15), (value >> 7) & 255, value & 127
        if exponent == 255:
            by_hand.append(math.nan if fraction else sign * math.inf)
        elif exponent == 0:
            by_hand.append(sign * math.ldexp(fraction, -126 - 7))
        else:
            by_hand.append(sign * math.ldexp(128 + fraction, exponent - 127 - 7))
    read = source.read("b").ravel()
    np.testing.assert_array_equal(read, np.array(by_hand, "float64"))
    np.testing.assert_array_equal(np.signbit(read), bits >= 1 << 15)
    half = [struct.unpack("<e", struct.pack("<H", value))[0] for value in range(1 << 16)]
    np.testing.assert_array_equal(source.read("h"), np.array(half, "float64"))


def test_arrays_longer_than_one_stretch_come_back(tmp_path):
    array = np.random.default_rng(1).normal(size=(601, 907)).astype("float16")
    safetensors.numpy.save_file({"x": array[:3].copy(), "y": array}, tmp_path / "model.safetensors")
    assert_reads(SafetensorsSource(tmp_path), {"x": array[:3], "y": array})


def test_too_large_a_float64_becomes_infinite_without_a_warning(tmp_path):
    safetensors.numpy.save_file({"x": np.array([1e300, 1.5])}, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(SafetensorsSource(tmp_path).read("x"), np.array([np.inf, 1.5], "float32"))


def test_what_cannot_be_read_is_listed_and_refused(tmp_path):
    entries = {"x": ("F8_E4M3", (3,), b"abc"), "y": ("F32", (1,), b"\0\0\0\0")}
    write_safetensors(tmp_path / "model.safetensors", entries)
    source = SafetensorsSource(tmp_path)
    assert source.arrays["x"] == ArrayInfo((3,), "f8_e4m3") and source.read("y") == [0]
    with pytest.raises(ValueError, match="model.safetensors'.*f8_e4m3 cannot be read"):
        source.read("x")
    with pytest.raises(ValueError, match="name: expected one of the 2 arrays"):
        source.read("z")


def test_shards_come_back(sharded):
    directory, arrays, _ = sharded
    assert_reads(SafetensorsSource(directory), arrays)


@pytest.mark.parametrize(
    "wrong", ["missing in shard", "missing in index", "another shard", "a name of its own"]
)
def test_index_and_shards_must_agree(sharded, wrong):
    directory, _, weight_map = sharded
    if wrong == "missing in index":
        del weight_map["scalar"]
    elif wrong == "missing in shard":
        weight_map["more"] = weight_map["scalar"]
    elif wrong == "another shard":
        weight_map["scalar"] = weight_map["ids"]
    else:
        safetensors.numpy.save_file({"ids": np.zeros(3)}, directory / "model-00001-of-00002.safetensors")
    write_index(directory, weight_map)
    with pytest.raises(ValueError, match="disagree about"):
        SafetensorsSource(directory)


@pytest.mark.parametrize(
    "file",
    [
        "../x.safetensors",
        "/etc/x.safetensors",
        "a/../x.safetensors",
        "x\\y.safetensors",
        "",
        ".",
        "..",
        "x.bin",
    ]
    + ["..safetensors", "c:x.safetensors", "x\0.safetensors", ".x.safetensors", "x.safetensors\n"],
)
def test_shards_have_plain_names(sharded, file):
    directory, _, weight_map = sharded
    safetensors.numpy.save_file({"scalar": np.zeros(())}, directory.parent / "x.safetensors")
    try:
        write_index(directory, {**weight_map, "scalar": file})
        with pytest.raises(ValueError, match="expected plain names of .safetensors files"):
            SafetensorsSource(directory)
    finally:
        (directory.parent / "x.safetensors").unlink()


def test_links_must_not_lead_out(sharded, tmp_path_factory):
    directory, arrays, weight_map = sharded
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shard = directory / weight_map["scalar"]
    shutil.move(shard, elsewhere / shard.name)
    shard.symlink_to(elsewhere / shard.name)
    with pytest.raises(ValueError, match="outside the directory. Copy the file"):
        SafetensorsSource(directory)
    shard.unlink()
    shutil.move(elsewhere / shard.name, directory / "stored")
    shard.symlink_to("stored")  # a link within the directory is fine
    assert_reads(SafetensorsSource(directory), arrays)
    (elsewhere / "link").symlink_to(directory)  # and so is a link to the directory
    assert_reads(SafetensorsSource(elsewhere / "link"), arrays)


def test_the_cache_of_the_hub_is_made_of_links(sharded, tmp_path_factory):
    directory, arrays, weight_map = sharded
    model = tmp_path_factory.mktemp("hub") / "models--name"
    snapshot, blobs = model / "snapshots" / "0123abcd", model / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(directory.iterdir())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert_reads(SafetensorsSource(snapshot), arrays)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a": null}}']
    + ["[" * 100_000, '{"weight_map": {"a": "x.safetensors", "a": "x.safetensors"}}', "\udcff", "9" * 5000],
)
def test_a_damaged_index(tmp_path, content):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(content, errors="surrogateescape")
    with pytest.raises(ValueError, match="model.safetensors.index.json"):
        SafetensorsSource(tmp_path)


@pytest.mark.parametrize(
    "header, payload",
    [
        ({"a": entry()}, b"1234567"),
        ({"a": entry()}, b"123456789"),
        ({"a": entry(offsets=(0, 1 << 40), shape=(1 << 38,))}, bytes(8)),
        ({"a": entry(shape=(1 << 32, 1 << 32))}, bytes(8)),
        ({"a": entry(shape=(0, 1 << 62, 1 << 62), offsets=(0, 0))}, b""),
        ({"a": entry(shape=(1,) * 40, offsets=(0, 4))}, bytes(4)),
        ({"a": entry(shape=(-2,))}, bytes(8)),
        ({"a": entry(shape=(2.0,))}, bytes(8)),
        ({"a": entry(shape=(3,))}, bytes(8)),
        ({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)),
        ({"a": entry(), "b": entry()}, bytes(8)),
        ({"a": entry(), "b": entry(offsets=(12, 20))}, bytes(20)),
        ({"a": entry(offsets=(8, 0))}, bytes(8)),
        ({"a": entry(dtype="OBJECT")}, bytes(8)),
        ({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
        ({"a": None}, b""),
        ([], b""),
        (b"", b""),
        (b"{", b""),
        (b"\xff" * 8, b""),
        (b"[" * 100_000, b""),
        (b'{"a":%s,"a":%s}' % ((json.dumps(entry()).encode(),) * 2), bytes(8)),
    ],
)
def test_a_damaged_safetensors_file(tmp_path, header, payload):
    write_raw(tmp_path / "model.safetensors", header, payload)
    with pytest.raises(ValueError, match="model.safetensors'"):
        SafetensorsSource(tmp_path)


@pytest.mark.parametrize("content", [b"", b"1234567", b"\xff" * 8, b"\xff" * 100, struct.pack("<Q", 1 << 40)])
def test_a_header_longer_than_the_file(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"model.safetensors' is no safetensors file, or is truncated"):
        SafetensorsSource(tmp_path)


def test_a_file_that_shrinks_after_it_was_opened(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"x": np.ones(1000, "float32")}, path)
    source = SafetensorsSource(tmp_path)
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(ValueError, match="truncated"):
        source.read("x")


def test_missing_safetensors(tmp_path, sharded):
    with pytest.raises(FileNotFoundError, match="expected model.safetensors or model.safetensors.index.json"):
        SafetensorsSource(tmp_path / "none")
    directory, _, weight_map = sharded
    (directory / weight_map["ids"]).unlink()
    with pytest.raises(FileNotFoundError, match=f"names {weight_map['ids']}, but it is missing"):
        SafetensorsSource(directory)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin"])
def test_pickles_are_refused_and_not_read(tmp_path, monkeypatch, name):
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="can run code when it is read.*python -c"):
        SafetensorsSource(tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_the_command_that_converts_a_pickle_does(tmp_path):
    torch = pytest.importorskip("torch")
    arrays = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(5, dtype=torch.bfloat16)}
    torch.save({"a": arrays["a"].T, "tied": arrays["a"].T}, tmp_path / "pytorch_model-00001-of-00002.bin")
    torch.save({"b": arrays["b"]}, tmp_path / "pytorch_model-00002-of-00002.bin")
    with pytest.raises(ValueError) as caught:
        SafetensorsSource(tmp_path)
    command = str(caught.value).partition("in that directory: ")[2].replace("python", sys.executable, 1)
    subprocess.run(command, shell=True, check=True, cwd=tmp_path, timeout=120)
    source = SafetensorsSource(tmp_path)
    assert source.arrays["b"] == ArrayInfo((5,), "bfloat16")
    np.testing.assert_array_equal(source.read("a"), arrays["a"].numpy().T)
    np.testing.assert_array_equal(source.read("tied"), arrays["a"].numpy().T)
