"""Checkpoints of TensorFlow come back, and no file makes it end the process."""

import importlib.util
import shutil
import struct
import sys

import numpy as np
import pytest
from array_writers import (
    assert_reads,
    write_tensorflow,
)

from bert_keras.checkpoints.sources import ArrayInfo, TensorFlowSource

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="needs TensorFlow"
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tensorflow")
    return directory, write_tensorflow(directory)


@needs_tensorflow
def test_tensorflow_arrays_come_back(checkpoint):
    directory, arrays = checkpoint
    prefix = directory / "bert_model.ckpt"
    for path in (directory, str(directory), prefix, directory / "bert_model.ckpt.index"):
        source = TensorFlowSource(path)
        assert_reads(source, arrays)
        assert str(source) == str(prefix)


@needs_tensorflow
def test_an_index_of_many_blocks(tmp_path):
    arrays = write_tensorflow(tmp_path, num_arrays=300)
    assert (tmp_path / "bert_model.ckpt.index").stat().st_size > 10_000
    assert_reads(TensorFlowSource(tmp_path), arrays)


@needs_tensorflow
def test_tensorflow_bfloat16_and_strings(tmp_path):
    import tensorflow as tf

    values = tf.constant([1.0, -2.5, 3.140625], tf.bfloat16)
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "x"),
        tensor_names=["b", "s"],
        shape_and_slices=["", ""],
        tensors=[values, tf.constant(["text", "more"])],
    )
    source = TensorFlowSource(tmp_path)
    assert source.arrays == {"b": ArrayInfo((3,), "bfloat16"), "s": ArrayInfo((2,), "string")}
    np.testing.assert_array_equal(source.read("b"), np.array([1.0, -2.5, 3.140625], "float32"))
    with pytest.raises(ValueError, match="s has dtype string, which cannot be read"):
        source.read("s")


@needs_tensorflow
def test_tensorflow_data_in_two_files(tmp_path):
    import tensorflow as tf

    save, rng = tf.raw_ops.SaveV2, np.random.default_rng(2)
    arrays = {"a": rng.normal(size=(2, 3)).astype("float32"), "b": rng.normal(size=7).astype("float32")}
    for name, array in arrays.items():
        save(
            prefix=str(tmp_path / name),
            tensor_names=[name],
            shape_and_slices=[""],
            tensors=[tf.constant(array)],
        )
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(tmp_path / name) for name in arrays],
        destination_prefix=str(tmp_path / "all"),
    )
    assert_reads(TensorFlowSource(tmp_path / "all"), arrays)
    (tmp_path / "all.data-00001-of-00002").unlink()
    with pytest.raises(FileNotFoundError, match="lacks its file all.data-00001-of-00002"):
        TensorFlowSource(tmp_path / "all")


def test_missing_checkpoints(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file .*none.index"):
        TensorFlowSource(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="expected a file such as bert_model.ckpt.index"):
        TensorFlowSource(tmp_path)
    (tmp_path / "a.index").touch()
    (tmp_path / "b.index").touch()
    with pytest.raises(ValueError, match="holds 2 checkpoints. Pass the prefix of one, such as .*a'"):
        TensorFlowSource(tmp_path)


@needs_tensorflow
def test_without_tensorflow_the_error_says_what_to_install(checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ImportError, match=r"pip install 'bert_keras\[tensorflow\]'"):
        TensorFlowSource(checkpoint[0])


@needs_tensorflow
def test_damaged_tensorflow_data(checkpoint, tmp_path):
    shutil.copytree(checkpoint[0], tmp_path, dirs_exist_ok=True)
    data = tmp_path / "bert_model.ckpt.data-00000-of-00001"
    whole = data.read_bytes()
    data.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    source, failed = TensorFlowSource(tmp_path), 0
    for name, array in checkpoint[1].items():
        try:
            np.testing.assert_array_equal(source.read(name), array.astype(source.read(name).dtype))
        except ValueError as error:
            assert "bert_model.ckpt' is damaged at " in str(error)
            failed += 1
    assert failed == 1
    data.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="lies beyond the end of the data"):
        TensorFlowSource(tmp_path)
    data.unlink()
    with pytest.raises(FileNotFoundError, match="lacks its file bert_model.ckpt.data-00000-of-00001"):
        TensorFlowSource(tmp_path)


# Indexes whose checksums are right and whose content is not. TensorFlow itself aborts the process on some.


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def varint(value):
    value, result = value % (1 << 64), b""
    while value > 127:
        result, value = result + bytes([value & 127 | 128]), value >> 7
    return result + bytes([value])


def block(entries, restarts=(0,)):
    rows = [varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in entries]
    return b"".join(rows) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def table(entries, restarts=(0,), kind=b"\0", footer=None, repeat=1):
    blocks, handles = [block(entries, restarts), block([])], []
    content = b""
    for number in range(3):
        if number == 2:
            blocks.append(block([(b"z" * n, handles[0]) for n in range(1, repeat + 1)]))
        handles.append(varint(len(content)) + varint(len(blocks[number])))
        content += blocks[number] + kind + crc32c(blocks[number] + kind)
    end = handles[1] + handles[2] if footer is None else footer
    return content + end.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def bundle_entry(dtype=1, shape=(2, 3), size=24, offset=0, file=0, more=b"", data=bytes(range(24))):
    dimensions = b"".join(b"\x12" + varint(len(d)) + d for d in (b"\x08" + varint(size) for size in shape))
    message = b"\x08" + varint(dtype) + b"\x12" + varint(len(dimensions)) + dimensions
    message += (b"\x18" + varint(file) if file else b"") + b"\x20" + varint(offset) + b"\x28" + varint(size)
    return message + b"\x35" + crc32c(data) + more


HEADER = (b"", b"\x08\x01\x1a\x02\x08\x01")


def write_bundle(directory, index):
    (directory / "x.index").write_bytes(index)
    (directory / "x.data-00000-of-00001").write_bytes(bytes(range(24)))


@needs_tensorflow
def test_a_checkpoint_made_by_hand(tmp_path):
    write_bundle(tmp_path, table([HEADER, (b"a", bundle_entry())]))
    expected = np.frombuffer(bytes(range(24)), "<f4").reshape(2, 3)
    np.testing.assert_array_equal(TensorFlowSource(tmp_path).read("a"), expected)


@pytest.mark.parametrize(
    "index",
    [
        *(
            table([HEADER, (b"a", bundle_entry(**changes))])
            for changes in (
                {"shape": (-2, 3)},  # aborts TensorFlow
                {"shape": (1 << 40, 1 << 40)},  # aborts TensorFlow
                {"shape": (1,) * 300, "size": 4},  # aborts TensorFlow
                {"shape": (1 << 36,)},
                {"shape": (1 << 36,), "size": 1 << 38},
                {"shape": (0, 1 << 62, 1 << 62), "size": 0},
                {"shape": (2,)},
                {"dtype": 7, "shape": (1 << 34,)},
                {"dtype": 0},
                {"dtype": 20},
                {"dtype": 21},
                {"dtype": 99},
                {"offset": 1},
                {"offset": -8},
                {"offset": 1 << 50},
                {"size": -1},
                {"file": 1},
                {"more": b"\x3a\x00"},  # slices
                {"more": b"\x08\x01"},  # a field twice
                {"more": b"\x0b"},  # a group
                {"more": b"\x12\xff\x7f"},
                {"more": b"\x80" * 11},
                {"more": b"\x35\x00"},
            )
        ),
        table([]),
        table([(b"a", bundle_entry())]),
        table([(b"", b"\x08\x00"), (b"a", bundle_entry())]),
        table([(b"", b"\x08" + varint(1 << 40)), (b"a", bundle_entry())]),
        table([HEADER, (b"b", bundle_entry()), (b"a", bundle_entry())]),
        table([HEADER, (b"a", bundle_entry()), (b"a", bundle_entry())]),
        table([HEADER, (b"a" * 9000, bundle_entry())]),
        table([HEADER, (b"\xff", bundle_entry())]),
        table([HEADER, (b"a", bundle_entry())], restarts=(0, 3)),
        table([HEADER, (b"a", bundle_entry())], restarts=()),
        table([HEADER, (b"a", bundle_entry())], kind=b"\1"),
        table([HEADER, (b"a", bundle_entry())], repeat=3),
        table([HEADER, (b"a", bundle_entry())], footer=bytes([0, 8, 0]) + varint(1 << 45)),
        table([HEADER, (b"a", bundle_entry())], footer=bytes([0, 8]) + varint(-1) + varint(1 << 35)),
        table([HEADER, (b"a", bundle_entry())], footer=bytes([0, 8, 0, 0])),
        b"",
        bytes(48),
        bytes(5 << 20),
    ],
)
def test_a_forged_index(tmp_path, index):
    write_bundle(tmp_path, index)
    with pytest.raises(ValueError, match="x.index'"):
        TensorFlowSource(tmp_path)
