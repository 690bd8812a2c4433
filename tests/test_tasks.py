import json

import pytest

from bert_keras import TaskMetadata, TaskWeightScheduler
from bert_keras.tasks import check_tasks


def test_the_weight_is_zero_where_a_task_is_not_active():
    scheduler = TaskWeightScheduler(True, False, pretrain_value=0.5, finetune_value=3.0)
    assert scheduler.get(is_pretrain=True, step=0) == 0.5
    assert scheduler.get(is_pretrain=False, step=0) == 0.0
    assert (scheduler.is_active(True), scheduler.is_active(False)) == (True, False)


def test_a_schedule_of_your_own_is_a_subclass():
    class FadeOut(TaskWeightScheduler):
        def get(self, is_pretrain, step):
            return max(0.0, 1.0 - step / 10)

    assert [FadeOut(True, True).get(True, step) for step in (0, 5, 20)] == [1.0, 0.5, 0.0]


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_weights_must_be_finite_and_not_negative(value):
    with pytest.raises(ValueError, match="finetune_value"):
        TaskWeightScheduler(True, True, finetune_value=value)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"name": ""}, "`name`"),
        ({"name": "a/b"}, "`name`"),
        ({"num_classes": 0}, "num_classes=0"),
        ({"num_classes": 2.5}, "num_classes=2.5"),
        ({"num_classes": True}, "num_classes=True"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"dropout": -0.1}, "dropout=-0.1"),
        ({"weight_scheduler": 1.0}, "TaskWeightScheduler"),
        ({"name": "lm"}, "is_token_level=True"),
    ],
)
def test_bad_tasks_are_refused(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        TaskMetadata(**{"name": "task", "is_token_level": False, "num_classes": 2, **arguments})


def test_tasks_survive_their_description():
    task = TaskMetadata("pos", True, 17, 0.25, TaskWeightScheduler(False, True, 1.0, 0.5))
    again = TaskMetadata.from_config(task.get_config())
    assert again.get_config() == task.get_config()


def test_names_must_differ():
    task = TaskMetadata("pos", True, 17)
    with pytest.raises(ValueError, match=r"more than once: \['pos'\]"):
        check_tasks([task, TaskMetadata("ner", True, 9), task])
    with pytest.raises(ValueError, match="empty"):
        check_tasks([])
    with pytest.raises(ValueError, match="'pos'"):
        check_tasks(["pos"])


def test_what_a_task_tells_of_its_classes():
    task = TaskMetadata("topics", False, kind="multi_label", labels=["b", "a"], class_weights=[1, 2])
    assert (task.num_classes, task.labels, task.class_weights) == (2, ("b", "a"), (1.0, 2.0))
    assert (
        TaskMetadata.from_config(json.loads(json.dumps(task.get_config()))).get_config() == task.get_config()
    )
    assert TaskMetadata("score", False, kind="regression").num_classes == 1
    assert TaskMetadata("answer", False, kind="span").num_classes == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(kind="ranking", num_classes=2), "`kind` of task 't'.*one of.*'ranking'"),
        (dict(), "`num_classes`.*at least 1, or `labels`"),
        (dict(labels=("a", "b"), num_classes=3), "`num_classes`.*number of `labels`, 2.*3"),
        (dict(labels=("a", "a")), "`labels`.*differ"),
        (dict(labels="ab"), "`labels`.*sequence of names"),
        (dict(labels=(1, 2)), "`labels`.*sequence of names"),
        (dict(kind="span", num_classes=3), "2 for a span"),
        (dict(kind="span", is_token_level=True), "`is_token_level`.*one answer"),
        (dict(num_classes=2, read_from="last"), "`read_from`.*'mean'"),
        (dict(num_classes=2, read_from="mean", is_token_level=True), "`read_from`.*leave it out"),
        (dict(num_classes=2, class_weights=(1.0,)), "`class_weights`.*each class"),
        (dict(num_classes=2, class_weights=(1.0, -1.0)), "`class_weights`.*at least 0"),
        (dict(kind="regression", label_smoothing=0.1), "`label_smoothing`.*without classes"),
        (dict(num_classes=2, label_smoothing=1.0), "`label_smoothing`.*below 1"),
    ],
)
def test_what_does_not_go_together(arguments, message):
    with pytest.raises(ValueError, match=message):
        TaskMetadata("t", **{"is_token_level": False, **arguments})
