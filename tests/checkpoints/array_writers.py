"""Files with small arrays of odd sizes in every format that is read."""

import json
import os
import struct

import numpy as np
import safetensors.numpy

from bert_keras.checkpoints.sources import ArrayInfo


def write_safetensors(path, entries, metadata=None, padding=b""):
    """entries: name -> (dtype of the format, shape, bytes). Written here, so that it may be wrong."""
    header, payload = {}, b""
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, (dtype, shape, content) in entries.items():
        offsets = [len(payload), len(payload) + len(content)]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        payload += content
    text = json.dumps(header).encode() + padding
    path.write_bytes(struct.pack("<Q", len(text)) + text + payload)


def write_raw(path, header, payload=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + payload)


def arrays_of(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "a.weight": rng.normal(size=(3, 5)).astype("float32"),
        "a.bias": rng.normal(size=(7,)).astype("float16"),
        "scalar": np.array(2.5, "float32"),
        "empty": np.zeros((0, 3), "float32"),
        "wide": rng.normal(size=(2, 3, 1)),
        "ids": rng.integers(-9, 9, (1, 11)),
        "mask": rng.random(13) < 0.5,
    }


def assert_reads(source, expected):
    assert set(source.arrays) == set(expected)
    for name, array in expected.items():
        array = np.asarray(array)
        read = source.read(name)
        dtype = "float32" if array.dtype.kind == "f" else array.dtype
        assert source.arrays[name] == ArrayInfo(array.shape, str(array.dtype))
        assert read.dtype == dtype and read.dtype.isnative
        np.testing.assert_array_equal(read, array.astype(dtype))


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def write_shards(directory):
    """Two files and their index. Return the arrays and the index."""
    arrays = arrays_of()
    names, files = list(arrays), ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for file, part in zip(files, (names[:3], names[3:]), strict=True):
        safetensors.numpy.save_file({name: arrays[name] for name in part}, directory / file)
    weight_map = {name: files[number >= 3] for number, name in enumerate(names)}
    write_index(directory, weight_map)
    return arrays, weight_map


def write_index(directory, weight_map):
    content = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(content))


WIDTH, D_HID = 6, 13
LAYER = {
    "attn/c_attn/w": (1, WIDTH, 3 * WIDTH),
    "attn/c_attn/b": (3 * WIDTH,),
    "attn/c_proj/w": (1, WIDTH, WIDTH),
    "attn/c_proj/b": (WIDTH,),
    "ln_1/g": (WIDTH,),
    "ln_1/b": (WIDTH,),
    "mlp/c_fc/w": (1, WIDTH, D_HID),
    "mlp/c_fc/b": (D_HID,),
    "mlp/c_proj/w": (1, D_HID, WIDTH),
    "mlp/c_proj/b": (WIDTH,),
    "ln_2/g": (WIDTH,),
    "ln_2/b": (WIDTH,),
}


def openai_arrays(num_layers=2):
    shapes = {"model/pe": (5, WIDTH), "model/we": (17, WIDTH)}
    shapes |= {f"model/h{h}/{name}": shape for h in range(num_layers) for name, shape in LAYER.items()}
    rng = np.random.default_rng(3)
    return {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}


def write_openai(directory, arrays, cuts=None, dtype="<f4"):
    flat = np.concatenate([array.ravel() for array in arrays.values()]).astype(dtype)
    cuts = np.arange(1, 10) * (len(flat) // 10) if cuts is None else cuts
    for number, part in enumerate(np.split(flat, cuts)):
        np.save(directory / f"params_{number}.npy", part)
    shapes = [array.shape for array in arrays.values()]
    (directory / "params_shapes.json").write_text(json.dumps(shapes))


def write_tensorflow(directory, name="bert_model.ckpt", num_arrays=4):
    import tensorflow as tf

    v1, rng = tf.compat.v1, np.random.default_rng(5)
    arrays = {
        f"bert/layer_{n}/kernel": rng.normal(size=(3, n + 2)).astype("float32") for n in range(num_arrays)
    }
    arrays |= {"global_step": np.array(7), "bert/half": rng.normal(size=5).astype("float16")}
    arrays |= {"bert/wide": rng.normal(size=(1, 3)), "bert/empty": np.zeros((0, 3), "float32")}
    with tf.Graph().as_default(), v1.Session() as session:
        for key, array in arrays.items():
            v1.get_variable(key, initializer=array, use_resource=False)
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(directory / name), write_meta_graph=False)
    return arrays


class Bomb:
    def __reduce__(self):
        return os.mkdir, (os.environ["BOMB"],)
