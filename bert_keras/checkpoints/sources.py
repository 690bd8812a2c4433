"""Array files behind one contract: what is in them is known at once, arrays are read one at a time.

The files come from elsewhere. Nothing in them is run, and no size they claim is believed before it was
compared with the size of the file.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bert_keras.checkpoints.array_files import (
    STORED,
    ArrayInfo,
    Place,
    is_shape,
    npy_place,
    read_items,
    result_dtype,
    safetensors_places,
    shard_path,
)
from bert_keras.checkpoints.tensor_bundle import bundle_arrays, find_prefix
from bert_keras.text.files import read_json

__all__ = ["ArrayInfo", "ArraySource", "OpenAISource", "SafetensorsSource", "TensorFlowSource"]

_CONVERSION = (
    'python -c "import glob, torch, safetensors.torch as s; a = {}; '
    "[a.update(torch.load(f, map_location='cpu', weights_only=True)) "
    "for f in glob.glob('pytorch_model*.bin')]; "
    "s.save_file({k: v.clone().contiguous() for k, v in a.items()}, 'model.safetensors', "
    "metadata={'format': 'pt'})\""
)


class ArraySource(abc.ABC):
    """Named arrays in files.

    Attributes:
        path: where they are.
        arrays: what there is, by name, in the order of the files.
    """

    path: Path
    arrays: Mapping[str, ArrayInfo]

    def __str__(self) -> str:
        return str(self.path)

    def read(self, name: str) -> np.ndarray:
        """Read one array. Nothing of it is kept.

        Args:
            name: one of `arrays`.

        Returns:
            The array in the shape that `arrays` says: float32 if its dtype is a floating one (float16 and
            bfloat16 are converted exactly), else its own dtype.

        Raises:
            ValueError: there is no such array, its dtype is of a kind that cannot be read, or its file is
                damaged.
            OSError: the file cannot be read.

        Example:
            >>> source = SafetensorsSource("bert-base-uncased")  # doctest: +SKIP
            >>> source.read("bert.embeddings.word_embeddings.weight").shape  # doctest: +SKIP
            (30522, 768)
        """
        if name not in self.arrays:
            raise ValueError(
                f"name: expected one of the {len(self.arrays)} arrays in {str(self)!r}, got {name!r}."
            )
        return self._read(name, self.arrays[name])

    @abc.abstractmethod
    def _read(self, name: str, info: ArrayInfo) -> np.ndarray: ...


class SafetensorsSource(ArraySource):
    """A directory as `transformers` saves it: `model.safetensors`, or shards and their index.

    Args:
        directory: with `model.safetensors`, or with `model.safetensors.index.json` and the files it names.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, index and shards disagree, or there is only a pickle
            (`pytorch_model.bin`).

    Example:
        >>> import safetensors.numpy
        >>> safetensors.numpy.save_file({"bias": np.zeros(3, "float16")}, "model.safetensors")
        >>> source = SafetensorsSource(".")
        >>> source.arrays["bias"]
        ArrayInfo(shape=(3,), dtype='float16')
        >>> source.read("bias")
        array([0., 0., 0.], dtype=float32)

    Source: https://huggingface.co/docs/safetensors
    """

    def __init__(self, directory: str | Path) -> None:
        self.path = Path(directory)
        self._places: dict[str, Place] = {}
        single, index = self.path / "model.safetensors", self.path / "model.safetensors.index.json"
        if single.is_file():
            self._places = safetensors_places(single)
        elif index.is_file():
            self._add_shards(index)
        else:
            _refuse_pickles(self.path)
            raise FileNotFoundError(
                f"directory: expected {single.name} or {index.name} in {str(self.path)!r}, found neither."
            )
        self.arrays = {name: place.info for name, place in self._places.items()}

    def _add_shards(self, index: Path) -> None:
        content = read_json(index)
        names = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(names, dict) or not all(isinstance(file, str) for file in names.values()):
            raise ValueError(f"{str(index)!r}: expected `weight_map` to give a file for each array's name.")
        paths = {file: shard_path(index, file) for file in dict.fromkeys(names.values())}
        for file, path in paths.items():
            places = safetensors_places(path)
            wrong = {name for name in names if names[name] == file} ^ set(places)
            if wrong:
                raise ValueError(
                    f"{str(index)!r} and {file} disagree about {len(wrong)} arrays, such as {min(wrong)!r}. "
                    "Fetch both again, from one version of the model."
                )
            self._places |= places

    def _read(self, name: str, info: ArrayInfo) -> np.ndarray:
        place = self._places[name]
        return read_items(place, 0, math.prod(info.shape)).reshape(info.shape)


class OpenAISource(ArraySource):
    """GPT as OpenAI published it: all arrays laid end to end in ten files, cut at arbitrary places.

    Args:
        directory: with `params_shapes.json` and `params_0.npy` to `params_9.npy`.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or the files do not belong together.

    Example:
        >>> source = OpenAISource("openai-gpt")  # doctest: +SKIP
        >>> source.arrays["model/we"]  # doctest: +SKIP
        ArrayInfo(shape=(40478, 768), dtype='float32')

    Source: https://github.com/openai/finetune-transformer-lm (`train.py`, `model`)
    """

    NUM_FILES = 10
    _OF_LAYER = tuple(
        f"{part}/{kind}"
        for part, kinds in (
            ("attn/c_attn", "wb"),
            ("attn/c_proj", "wb"),
            ("ln_1", "gb"),
            ("mlp/c_fc", "wb"),
            ("mlp/c_proj", "wb"),
            ("ln_2", "gb"),
        )
        for kind in kinds
    )

    def __init__(self, directory: str | Path) -> None:
        self.path = Path(directory)
        shapes_path = self.path / "params_shapes.json"
        paths = [self.path / f"params_{number}.npy" for number in range(self.NUM_FILES)]
        missing = [path.name for path in (shapes_path, *paths) if not path.is_file()]
        if missing:
            raise FileNotFoundError(
                f"directory: expected params_shapes.json and params_0.npy to params_{self.NUM_FILES - 1}.npy "
                f"in {str(self.path)!r}, but {', '.join(missing)} is missing. load_openai() downloads them."
            )
        shapes = self._read_shapes(shapes_path)
        self._files = [npy_place(path) for path in paths]
        total, there = (sum(map(math.prod, x)) for x in (shapes, [file.info.shape for file in self._files]))
        if total != there:
            raise ValueError(
                f"{str(self.path)!r}: params_shapes.json describes {total:,} numbers, but params_0.npy to "
                f"params_{self.NUM_FILES - 1}.npy hold {there:,}. Fetch them again."
            )
        num_layers = (len(shapes) - 2) // len(self._OF_LAYER)
        names = ["model/pe", "model/we"]
        names += [f"model/h{layer}/{name}" for layer in range(num_layers) for name in self._OF_LAYER]
        self.arrays = {n: ArrayInfo(shape, "float32") for n, shape in zip(names, shapes, strict=True)}
        starts = np.cumsum([0, *map(math.prod, shapes)])
        self._starts = dict(zip(names, map(int, starts), strict=False))

    def _read_shapes(self, path: Path) -> list[tuple[int, ...]]:
        shapes = read_json(path)
        count = len(shapes) if isinstance(shapes, list) else 0
        if count < 2 or (count - 2) % len(self._OF_LAYER):
            raise ValueError(
                f"{str(path)!r}: expected the shapes of 2 arrays and of {len(self._OF_LAYER)} more for each "
                f"layer, got {count}."
            )
        for shape in shapes:
            if not is_shape(shape) or 0 in shape:
                raise ValueError(f"{str(path)!r}: expected lists of positive integers, got {shape!r}.")
        return [tuple(shape) for shape in shapes]

    def _read(self, name: str, info: ArrayInfo) -> np.ndarray:
        start, count = self._starts[name], math.prod(info.shape)
        array = np.empty(count, "float32")
        begin = 0  # of a file, counted in numbers from the start of the first one
        for file in self._files:
            end = begin + file.info.shape[0]
            low, high = max(start, begin), min(start + count, end)
            if low < high:
                read_items(file, low - begin, high - low, into=array[low - start : high - start])
            begin = end
        return array.reshape(info.shape)


class TensorFlowSource(ArraySource):
    """A TensorFlow checkpoint, such as `bert_model.ckpt`. Needs TensorFlow.

    Args:
        prefix_or_directory: what the names of the checkpoint's files begin with (they end in `.index` and
            `.data-00000-of-00001`), or the directory that holds them and no others of their kind.

    Raises:
        ImportError: TensorFlow is not installed.
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or the directory holds several checkpoints.

    Example:
        >>> source = TensorFlowSource("uncased_L-12_H-768_A-12/bert_model.ckpt")  # doctest: +SKIP
        >>> source.arrays["bert/embeddings/word_embeddings"]  # doctest: +SKIP
        ArrayInfo(shape=(30522, 768), dtype='float32')

    Source: https://www.tensorflow.org/api_docs/python/tf/train/load_checkpoint
    """

    def __init__(self, prefix_or_directory: str | Path) -> None:
        self.path = find_prefix(Path(prefix_or_directory))
        self.arrays = bundle_arrays(self.path)
        try:
            import tensorflow
        except ImportError as error:
            raise ImportError(
                "Checkpoints of TensorFlow are read by TensorFlow: pip install 'bert_keras[tensorflow]'. It "
                "need not be the backend of Keras."
            ) from error
        # Its readers raise any of these for damaged files, besides its own errors.
        self._errors = (tensorflow.errors.OpError, RuntimeError, LookupError, TypeError, ValueError)
        try:
            self._reader = tensorflow.train.load_checkpoint(str(self.path))
        except self._errors as error:
            raise ValueError(f"{str(self.path)!r} is no checkpoint, or a damaged one: {error}") from error

    def _read(self, name: str, info: ArrayInfo) -> np.ndarray:
        if info.dtype not in STORED:
            raise ValueError(f"{str(self.path)!r}: {name} has dtype {info.dtype}, which cannot be read.")
        try:
            array = np.asarray(self._reader.get_tensor(name))
        except self._errors as error:
            raise ValueError(f"{str(self.path)!r} is damaged at {name}: {error}") from error
        with np.errstate(all="ignore"):  # float64 may overflow, and then becomes infinite
            return array.astype(result_dtype(info.dtype), copy=False)


def _refuse_pickles(directory: Path) -> None:
    if any(directory.glob("pytorch_model*.bin")):
        raise ValueError(
            f"directory: {str(directory)!r} has its weights in pytorch_model.bin only. That is a pickle, "
            "which can run code when it is read, so it is not read here. If you trust who made it, convert "
            f"it in that directory: {_CONVERSION}"
        )
