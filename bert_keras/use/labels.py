"""`classify`, `tag` and `answer`: `predict` for those who want one thing of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bert_keras.data.rows import Text
from bert_keras.tasks import IS_NEXT_TASK, LM_TASK, TaskMetadata
from bert_keras.text import TextEncoder
from bert_keras.training.model import MultiTaskModel
from bert_keras.training.prediction import predict
from bert_keras.use.texts import one_or_many


def classify(
    model: MultiTaskModel,
    text_encoder: TextEncoder,
    texts: Text | Iterable[Text],
    *,
    task: str | None = None,
    **options: Any,
) -> Any:
    """Tell the label of texts: a class, a set of classes or a number.

    Args:
        model: with a sentence-level task.
        text_encoder: the one that belongs to it.
        texts: one text (a string, or a tuple of two) or any number of them.
        task: which, if the model has several.
        options: of `predict`, as `batch_size`, `max_len`, `long_texts`, `threshold`.

    Returns:
        Of one text what `predict` gives for the task: a `LabelPrediction`, a list of them (multi-label), or a
        number (regression). Of many an iterator over them, in order and in constant memory.

    Raises:
        ValueError: if it is not clear which task is meant, or an argument of `predict` is out of its range.
        TypeError: if something is no text.

    Example:

    ```python
    classify(model, text_encoder, "A fine film.").label
    ```
    """
    kind = "a sentence-level task"
    return _one_task(
        model, text_encoder, texts, task, kind, lambda t: not t.is_token_level and t.kind != "span", options
    )


def tag(
    model: MultiTaskModel,
    text_encoder: TextEncoder,
    texts: Text | Iterable[Text],
    *,
    task: str | None = None,
    **options: Any,
) -> Any:
    """Tell the labels of the words of texts. Arguments and errors are those of `classify`.

    Returns:
        Of one text a list with a `WordPrediction` for each word. Of many an iterator over such lists. A text
        that is split already is given as a list of words, within a list of texts.

    Example:

    ```python
    [(word.word, word.label) for word in tag(model, text_encoder, "Ann lives in Oslo.")]
    ```
    """
    return _one_task(
        model, text_encoder, texts, task, "a token-level task", lambda t: t.is_token_level, options
    )


def answer(
    model: MultiTaskModel,
    text_encoder: TextEncoder,
    questions: tuple[str, str] | Iterable[tuple[str, str]],
    *,
    task: str | None = None,
    **options: Any,
) -> Any:
    """Find the answers to questions in texts. Arguments and errors are those of `classify`.

    Args:
        questions: a pair of question and context (the text with the answer), or any number of such pairs.

    Returns:
        Of one question a `SpanPrediction`, whose `text` is None if there is no answer. Of many an iterator.

    Example:

    ```python
    answer(model, text_encoder, ("Where does Ann live?", "Ann lives in Oslo.")).text
    ```
    """
    return _one_task(model, text_encoder, questions, task, "a span task", lambda t: t.kind == "span", options)


def _one_task(
    model: MultiTaskModel,
    text_encoder: TextEncoder,
    texts: Any,
    name: str | None,
    kind: str,
    is_fitting: Callable[[TaskMetadata], bool],
    options: dict[str, Any],
) -> Any:
    own = [t.name for t in model.tasks if is_fitting(t) and t.name not in (LM_TASK, IS_NEXT_TASK)]
    if name is None and len(own) == 1:
        name = own[0]
    if name not in own and not (name == IS_NEXT_TASK and any(t.name == name for t in model.tasks)):
        raise ValueError(
            f"`task` must name {kind} of the model: {own}. Received: task={name!r}"
            + ("" if own else f". The model's tasks: {[t.name for t in model.tasks]}")
        )

    def run(some: Iterable[Text]) -> Iterator[Any]:
        results = predict(model, text_encoder, some, tasks=[name], **{"verbose": 0, **options})
        return (result[name] for result in results)

    return one_or_many(texts, run)
