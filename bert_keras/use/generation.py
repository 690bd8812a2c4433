"""`generate`: a causal language model goes on with texts, with cached keys and values."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from bert_keras.encoders.inspection import attention_by, encoder_blocks, gather, weigh
from bert_keras.tasks import LM_TASK, TaskMetadata
from bert_keras.text import TextEncoder
from bert_keras.training.model import MultiTaskModel
from bert_keras.training.prediction import reading_limits
from bert_keras.use.texts import in_chunks, one_or_many

_SIZE_MULTIPLE = 16  # lengths are rounded up to it: few shapes are few compilations


def generate(
    model: keras.Model,
    text_encoder: TextEncoder,
    prompts: str | Iterable[str],
    *,
    max_new_tokens: int = 40,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    add_bos: bool = True,
    seed: int = 0,
    batch_size: int = 8,
) -> Any:
    """Go on with texts, token by token, until the end token or `max_new_tokens`.

    Keys and values of what was read are kept, so a step reads one token. Prompts are read and texts given as
    they come, in order.

    Args:
        model: a causal transformer (`load_openai(is_causal=True)`), or a model over one with the task `lm`.
        text_encoder: the one that belongs to it.
        prompts: one text, or any number of them.
        max_new_tokens: most tokens that are added. Prompt and addition must fit the encoder's `max_len`.
        temperature: 0 takes the most probable token (greedy); otherwise tokens are drawn, with logits divided
            by it.
        top_k: draw from this many most probable tokens only.
        top_p: draw from the fewest most probable tokens whose probabilities add up to this.
        add_bos: whether rows begin with the start token, as those of `lm_generator` do. The published GPT was
            trained without: give False there.
        seed: of the draws; each prompt draws from a stream of its own, so a result depends on the prompt's
            number and not on its neighbours.
        batch_size: prompts that are continued together.

    Returns:
        Of one prompt the added text, without the prompt; of many an iterator over them. Of special tokens
        only the end token is ever chosen, and it is not part of the text.

    Raises:
        ValueError: if the model is not causal or has no task `lm`, a prompt is too long or (without
            `add_bos`) has no token, or an argument is out of its range.
        TypeError: if the encoder is no transformer of this library, or a prompt is no string.

    Example:

    ```python
    encoder = load_openai(is_causal=True)
    text_encoder = load_text_encoder(openai_directory())
    generate(encoder, text_encoder, "The cat sat on", add_bos=False)
    ```

    Sources: Fan et al. 2018 (top-k); Holtzman et al. 2020 (top-p).
    """
    decoder = _Decoder(_with_lm(model), text_encoder)
    reading_limits(decoder.encoder, text_encoder, batch_size, None)
    max_len = decoder.encoder.max_len
    choose = _chooser(temperature, top_k, top_p)
    if max_new_tokens < 1 or seed < 0:
        raise ValueError(
            f"`max_new_tokens` must be at least 1 and `seed` 0. Received: {max_new_tokens}, seed={seed}"
        )

    def ids_of(chunk: Sequence[str]) -> list[list[int]]:
        if any(not isinstance(prompt, str) for prompt in chunk):
            raise TypeError(f"Each prompt must be a string. Received: {chunk!r:.200}")
        rows = [[text_encoder.bos_id] * add_bos + ids for ids in text_encoder.encode_batch(chunk)]
        for prompt, ids in zip(chunk, rows, strict=True):
            if not ids or len(ids) + max_new_tokens > max_len:
                raise ValueError(
                    f"A prompt has {len(ids)} tokens; it must have 1 at least, and with max_new_tokens="
                    f"{max_new_tokens} fit the encoder's {max_len}. The prompt: {prompt!r:.100}"
                )
        return rows

    def run(some: Iterable[Any]) -> Iterator[str]:
        first = 0
        for chunk in in_chunks(some, batch_size):
            draws = [np.random.default_rng([seed, first + number]) for number in range(len(chunk))]
            rows = decoder.run(ids_of(chunk), max_new_tokens, choose, draws)
            yield from (text_encoder.decode(row) for row in rows)
            first += len(chunk)

    return one_or_many(prompts, run)


Choose = Callable[[np.ndarray, np.random.Generator], int]


class _Decoder:
    """Runs a causal model one step at a time."""

    def __init__(self, model: MultiTaskModel, text_encoder: TextEncoder) -> None:
        self.model, self.encoder, self.eos_id = model, model.encoder, text_encoder.eos_id
        self.blocks = encoder_blocks(self.encoder)
        self.never = np.array(sorted(text_encoder.special_ids - {text_encoder.eos_id}), int)
        self.vocab_size = text_encoder.vocab_size

    def run(
        self,
        prompts: list[list[int]],
        max_new_tokens: int,
        choose: Choose,
        draws: list[np.random.Generator],
    ) -> list[list[int]]:
        """Return the tokens that are added to each prompt."""
        sizes = np.array([len(ids) for ids in prompts])
        width = _rounded(int(sizes.max()))
        dtype = self.encoder.dtype_policy.compute_dtype
        size = width + _rounded(max_new_tokens)
        window = getattr(self.encoder, "local_window", None)
        cache = _Cache(self.blocks, len(prompts), size, dtype, window)
        tokens = np.zeros((len(prompts), width), "int32")
        for row, ids in enumerate(prompts):
            tokens[row, : len(ids)] = ids
        is_real = np.arange(width) < sizes[:, None]
        positions = np.minimum(np.arange(width, dtype="int32"), self.encoder.max_len - 1)
        positions = np.tile(positions, (len(prompts), 1))
        hidden = self._step(tokens, positions, is_real, cache)
        last = hidden[np.arange(len(prompts)), sizes - 1]
        added: list[list[int]] = [[] for _ in prompts]
        is_open = np.ones(len(prompts), bool)
        for step in range(max_new_tokens):
            chosen = self._choose(last, choose, draws, is_open)
            for row in np.flatnonzero(is_open).tolist():
                if chosen[row] == self.eos_id:
                    is_open[row] = False
                else:
                    added[row].append(int(chosen[row]))
            if not is_open.any() or step == max_new_tokens - 1:
                break
            place = (sizes + step).astype("int32")[:, None]
            last = self._step(chosen[:, None], place, np.ones_like(place, bool), cache)[:, 0]
        return added

    def _step(
        self, tokens: np.ndarray, positions: np.ndarray, is_real: np.ndarray, cache: _Cache
    ) -> np.ndarray:
        """Read tokens behind those that were read, and return their hidden states."""
        arrays = {
            "token_ids": tokens,
            "segment_ids": np.zeros_like(tokens),
            "position_ids": positions,
            "sequence_ids": np.ones_like(tokens),
        }
        with (
            cache.reading(positions, is_real),
            _without_gradients(),
            attention_by(self.encoder, cache.attend),
        ):
            hidden = self.encoder(
                {name: ops.convert_to_tensor(array) for name, array in arrays.items()}, training=False
            )
        return np.asarray(ops.convert_to_numpy(ops.cast(hidden, "float32")))

    def _choose(
        self, states: np.ndarray, choose: Choose, draws: list[np.random.Generator], is_open: np.ndarray
    ) -> np.ndarray:
        with _without_gradients():
            logits = self.model.heads[LM_TASK](ops.convert_to_tensor(states), training=False)
        values = np.array(ops.convert_to_numpy(ops.cast(logits, "float32")))[:, : self.vocab_size]
        values[:, self.never] = -np.inf
        chosen = np.zeros(len(values), "int32")
        for row in np.flatnonzero(is_open):
            chosen[row] = choose(values[row], draws[row])
        return chosen


class _Cache:
    """Keys and values of all layers, in arrays of a fixed size that fill up from the left."""

    def __init__(
        self, blocks: Sequence[Any], rows: int, size: int, dtype: Any, local_window: int | None
    ) -> None:
        heads = blocks[0].num_heads
        shape = (rows, size, heads, blocks[0].embedding_dim // heads)
        self.keys = [ops.zeros(shape, dtype) for _ in blocks]
        self.values = [ops.zeros(shape, dtype) for _ in blocks]
        self.positions = np.full((rows, size), -1)  # of what stands in each column; -1: nothing
        self.filled = 0
        self._local_window = local_window
        self._visible: Any = None
        self._near: Any = None

    @contextlib.contextmanager
    def reading(self, positions: np.ndarray, is_real: np.ndarray) -> Iterator[None]:
        """Make room for new tokens `(rows, n)`; while the context lasts they are being read."""
        stop = self.filled + positions.shape[1]
        self.positions[:, self.filled : stop] = np.where(is_real, positions, -1)
        distance = positions[:, None, :, None] - self.positions[:, None, None, :]
        visible = (self.positions >= 0)[:, None, None, :] & (distance >= 0)
        self._visible = self._near = visible
        if self._local_window is not None:
            self._near = visible & (distance <= self._local_window // 2)
        yield
        self.filled = stop

    def attend(self, number: int, block: Any, hidden: Any, visible: Any, rotation: Any) -> Any:
        query, key, value = block.split_heads(hidden, rotation)
        at = (0, self.filled, 0, 0)
        self.keys[number] = ops.slice_update(self.keys[number], at, ops.cast(key, self.keys[number].dtype))
        self.values[number] = ops.slice_update(
            self.values[number], at, ops.cast(value, self.values[number].dtype)
        )
        seen = self._near if getattr(block, "is_local", False) else self._visible
        probabilities = weigh(query, self.keys[number], ops.convert_to_tensor(seen))
        return ops.reshape(gather(probabilities, self.values[number]), ops.shape(hidden))


def _with_lm(model: Any) -> MultiTaskModel:
    if not isinstance(model, MultiTaskModel):
        encoder_blocks(model)  # refuses what is no transformer
        model = MultiTaskModel(model, [TaskMetadata(LM_TASK, True, model.vocab_size)])
    if not getattr(model.encoder, "is_causal", False) or LM_TASK not in model.heads:
        raise ValueError(
            "`model` must be causal and have the task 'lm'. Received: "
            f"is_causal={getattr(model.encoder, 'is_causal', False)}, tasks {list(model.heads)}. "
            "Load it with is_causal=True (GPT), or pretrain create_transformer(..., is_causal=True)."
        )
    return model


def _chooser(temperature: float, top_k: int | None, top_p: float) -> Choose:
    """Return a function from logits `(vocabulary,)` and random generator to a token.

    Raises:
        ValueError: if an argument is out of its range.
    """
    if not 0.0 <= temperature < float("inf"):
        raise ValueError(f"`temperature` must be at least 0. Received: temperature={temperature}")
    if (top_k is not None and top_k < 1) or not 0.0 < top_p <= 1.0:
        raise ValueError(
            "`top_k` must be at least 1 and `top_p` above 0 and up to 1. "
            f"Received: top_k={top_k}, top_p={top_p}"
        )
    if temperature == 0.0:
        if top_k is not None or top_p < 1.0:
            raise ValueError(
                "`top_k` and `top_p` are for drawing; with temperature=0 the most probable token is taken. "
                "Give a temperature above 0, or leave them out."
            )
        return lambda logits, rng: int(logits.argmax())

    def draw(logits: np.ndarray, rng: np.random.Generator) -> int:
        probabilities = kept_probabilities(logits / temperature, top_k, top_p)
        return int(
            np.searchsorted(np.cumsum(probabilities), rng.random(), side="right").clip(0, len(logits) - 1)
        )

    return draw


def kept_probabilities(logits: np.ndarray, top_k: int | None, top_p: float) -> np.ndarray:
    """Return what tokens are drawn with: the softmax over those that `top_k` and then `top_p` leave, float64.

    Args:
        logits: `(vocabulary,)`; -inf for what is never drawn.
        top_k: number of most probable tokens that are left, or None for all.
        top_p: of those, the fewest whose share reaches this are left.
    """
    order = np.argsort(-logits, kind="stable")[:top_k]
    best = logits[order].astype("float64")
    shares = np.exp(best - best.max())
    shares /= shares.sum()
    if top_p < 1.0:
        before = np.cumsum(shares) - shares
        shares[before >= top_p] = 0.0
        shares /= shares.sum()
    probabilities = np.zeros(len(logits))
    probabilities[order] = shares
    return probabilities


def _rounded(size: int) -> int:
    return -(-size // _SIZE_MULTIPLE) * _SIZE_MULTIPLE


def _without_gradients() -> Any:
    """On torch nothing is kept for a backward pass; other backends keep nothing anyway."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()
