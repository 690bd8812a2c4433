"""Whatever is done to the files of any format, reading raises or returns; and it holds one array at once."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import safetensors.numpy
from array_writers import (
    arrays_of,
    entry,
    openai_arrays,
    write_openai,
    write_raw,
    write_shards,
    write_tensorflow,
)

from bert_keras.checkpoints.sources import OpenAISource, SafetensorsSource, TensorFlowSource

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="needs TensorFlow"
)
ALLOWED = (ValueError, OSError)


@pytest.fixture
def sharded(tmp_path):
    return tmp_path, *write_shards(tmp_path)


def corrupted(rng, content):
    """One of: changed bytes, a piece cut off, put in, taken out or doubled, digits changed."""
    data, kind = bytearray(content), rng.integers(7)
    limit = len(data) if rng.random() < 0.4 else min(len(data), 600)  # headers more often than not
    where = int(rng.integers(limit))
    if kind == 0:
        data[where] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        for position in rng.integers(limit, size=rng.integers(1, 9)):
            data[position] = int(rng.integers(256))
    elif kind == 2:
        del data[where:]
    elif kind == 3:
        data[where:where] = rng.bytes(int(rng.integers(1, 40)))
    elif kind == 4:
        del data[where : where + int(rng.integers(1, 40))]
    elif kind == 5:
        data[where:where] = data[where : where + int(rng.integers(1, 90))]
    else:
        digits = [position for position in range(limit) if 48 <= data[position] < 58]
        for position in rng.choice(digits, 3) if digits else []:
            data[position] = int(rng.integers(48, 58))
    return bytes(data)


def fuzz(directory, names, source_class, num_cases, seed):
    """Damage one of the files at a time. Return how many cases raised, and how many read other numbers."""
    rng = np.random.default_rng(seed)
    whole = {name: (directory / name).read_bytes() for name in names}
    source = source_class(directory)
    original = {name: source.read(name) for name in source.arrays}
    raised = differed = 0
    for case in range(num_cases):
        name = names[int(rng.integers(len(names)))]
        (directory / name).write_bytes(corrupted(rng, whole[name]))
        try:
            source = source_class(directory)
            arrays = {name: source.read(name) for name in source.arrays}
        except ALLOWED as error:
            assert str(error) and not isinstance(error, UnicodeError | json.JSONDecodeError), (case, error)
            raised += 1
        else:
            total = sum(path.stat().st_size for path in directory.iterdir())
            assert sum(array.nbytes for array in arrays.values()) <= 2 * total
            same = arrays.keys() == original.keys() and all(
                arrays[name].tobytes() == original[name].tobytes() for name in original
            )
            differed += not same
        finally:
            (directory / name).write_bytes(whole[name])
    return raised, differed


@pytest.mark.parametrize("seed", range(3))
def test_fuzz_safetensors(sharded, tmp_path_factory, seed):
    directory = tmp_path_factory.mktemp("single")
    safetensors.numpy.save_file(arrays_of(), directory / "model.safetensors", {"format": "pt"})
    raised, _ = fuzz(directory, ["model.safetensors"], SafetensorsSource, 700, seed)
    assert raised > 350
    directory, _, weight_map = sharded
    names = ["model.safetensors.index.json", *sorted(set(weight_map.values()))]
    raised, _ = fuzz(directory, names, SafetensorsSource, 300, seed)
    assert raised > 150


@pytest.mark.parametrize("seed", range(3))
def test_fuzz_openai(tmp_path, seed):
    write_openai(tmp_path, openai_arrays())
    names = ["params_shapes.json", "params_0.npy", "params_9.npy"]
    raised, _ = fuzz(tmp_path, names, OpenAISource, 400, seed)
    assert raised > 150


@needs_tensorflow
def test_fuzz_tensorflow(tmp_path):
    names = ["bert_model.ckpt.index", "bert_model.ckpt.data-00000-of-00001"]
    write_tensorflow(tmp_path)
    (tmp_path / "checkpoint").unlink()
    raised, differed = fuzz(tmp_path, names, TensorFlowSource, 600, 0)
    assert raised > 500 and differed == 0  # it has checksums


# The peak of this address space alone: `ru_maxrss` would begin with that of the parent process.
MEMORY = """
    import re, sys
    from pathlib import Path
    from bert_keras.checkpoints.sources import OpenAISource, SafetensorsSource

    def peak():
        return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

    class_name, directory = sys.argv[1:]
    source_class = {"safetensors": SafetensorsSource, "openai": OpenAISource}[class_name]
    before = peak()
    source = source_class(directory)
    largest = 0
    for name in source.arrays:
        array = source.read(name)
        assert array.ravel()[-1] == 1
        largest = max(largest, array.nbytes)
        del array
    print(peak() - before, largest)
"""


def write_large(directory, kind):
    """About 200 MB in ten arrays."""
    directory.mkdir()
    ones, bits = np.ones(5_000_000, "float32"), np.full(10_000_000, 0x3F80, "<u2")
    if kind == "openai":
        for number in range(10):
            np.save(directory / f"params_{number}.npy", ones)
        shapes = [[5_000_000], [4_999_000]] + [[3_333_333]] * 12
        shapes[-1] = [50_000_000 - sum(shape[0] for shape in shapes[:-1])]
        return (directory / "params_shapes.json").write_text(json.dumps(shapes))
    content = [("F32", ones) if number % 2 else ("BF16", bits) for number in range(10)]
    header, offset = {}, 0
    for number, (dtype, array) in enumerate(content):
        header[f"a{number}"] = entry(dtype, array.shape, (offset, offset + array.nbytes))
        offset += array.nbytes
    write_raw(directory / "model.safetensors", header)
    with open(directory / "model.safetensors", "ab") as file:
        for _, array in content:
            array.tofile(file)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux")
@pytest.mark.parametrize("kind", ["safetensors", "openai"])
def test_memory_is_that_of_one_array(tmp_path, kind):
    directory = tmp_path / kind
    write_large(directory, kind)
    command = [sys.executable, "-c", textwrap.dedent(MEMORY), kind, str(directory)]
    output = subprocess.run(command, capture_output=True, check=True, timeout=120).stdout
    shutil.rmtree(directory)
    grown, largest = map(int, output.split())
    assert largest >= 20_000_000
    assert 0.9 * largest < grown < 1.5 * largest + 20_000_000, f"{grown:,} bytes for {largest:,}"
