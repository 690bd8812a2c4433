import json

import pytest

from bert_keras import CosineSchedule, LinearSchedule, SwitchSchedule, TaskMetadata, TaskWeightScheduler
from bert_keras.schedules import schedule_from_config, schedule_to_config


def values(schedule, steps, is_pretrain=True):
    return [schedule.get(is_pretrain, step) for step in steps]


def test_values_at_the_ends_between_and_beyond():
    steps = [0, 9, 10, 11, 15, 20, 21, 1000]
    linear = LinearSchedule(1.0, 3.0, num_steps=10, start_step=10)
    assert values(linear, steps) == pytest.approx([1, 1, 1, 1.2, 2, 3, 3, 3])
    cosine = CosineSchedule(2.0, 0.0, num_steps=10, start_step=10)
    assert values(cosine, steps) == pytest.approx([2, 2, 2, 1.9510565, 1, 0, 0, 0])
    switch = SwitchSchedule([0.5, 2.0, 0.0], [10, 20])
    assert values(switch, steps) == [0.5, 0.5, 2.0, 2.0, 2.0, 0.0, 0.0, 0.0]
    assert values(SwitchSchedule([0.0, 1.0], 10), steps) == [0, 0, 1, 1, 1, 1, 1, 1]


def test_phases():
    schedule = LinearSchedule(1.0, 3.0, num_steps=10, active_in_pretrain=False)
    assert values(schedule, [0, 5], is_pretrain=True) == [0.0, 0.0]
    assert values(schedule, [0, 5], is_pretrain=False) == [1.0, 2.0]
    assert (schedule.is_active(True), schedule.is_active(False)) == (False, True)


def test_any_function_of_the_step():
    schedule = TaskWeightScheduler(True, True, lambda step: step / 4, SchoolReport([3, 1, 2]))
    assert values(schedule, [0, 1, 8]) == [0.0, 0.25, 2.0]
    assert values(schedule, [0, 1, 2], is_pretrain=False) == [3.0, 1.0, 2.0]
    assert all(type(value) is float for value in values(schedule, [0, 1, 2], is_pretrain=False))
    inactive = TaskWeightScheduler(True, False, finetune_value=lambda step: 1 / 0)
    assert inactive.get(False, 0) == 0.0
    assert "SchoolReport" in repr(schedule)
    with pytest.raises(TypeError, match="must give a number. Received: None at step 7"):
        TaskWeightScheduler(True, False, lambda step: None).get(True, 7)


class SchoolReport:
    def __init__(self, marks):
        self.marks = marks

    def __call__(self, step):
        return self.marks[step]


class Own(TaskWeightScheduler):
    def get(self, is_pretrain, step):
        return float(step)


def test_they_are_saved_with_their_task():
    for schedule in (
        TaskWeightScheduler(True, False, 0.5),
        LinearSchedule(1.0, 3.0, 10, start_step=4, active_in_finetune=False),
        CosineSchedule(1.0, 0.0, 7),
        SwitchSchedule([0.5, 2.0, 0.0], [10, 20], active_in_pretrain=False),
    ):
        config = TaskMetadata("t", True, 3, weight_scheduler=schedule).get_config()
        again = TaskMetadata.from_config(json.loads(json.dumps(config))).weight_scheduler
        assert type(again) is type(schedule)
        assert repr(again) == repr(schedule)
        assert values(again, range(30)) == values(schedule, range(30))
    plain = schedule_from_config(schedule_to_config(Own(True, False, 0.25)))
    assert type(plain) is TaskWeightScheduler and plain.get(True, 7) == 0.25
    function = schedule_to_config(TaskWeightScheduler(True, True, lambda step: 0.5, 0.25))
    plain = schedule_from_config(json.loads(json.dumps(function)))
    assert (plain.get(True, 3), plain.get(False, 3)) == (1.0, 0.25)
    old = schedule_from_config(TaskWeightScheduler(False, True, finetune_value=2.0).get_config())
    assert old.get(False, 0) == 2.0
    with pytest.raises(ValueError, match="'Evil' is unknown.*'CosineSchedule'"):
        schedule_from_config({"class_name": "Evil", "config": {}})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearSchedule(-1.0, 0.0, 10), "`start_value` must be a finite number of at least 0"),
        (lambda: LinearSchedule(1.0, float("nan"), 10), "`end_value`"),
        (lambda: CosineSchedule(1.0, 0.0, 0), "`num_steps` must be whole numbers of at least 1"),
        (lambda: CosineSchedule(1.0, 0.0, 10, start_step=-1), "`start_step`.*at least 0"),
        (lambda: SwitchSchedule([1.0], [10]), "one more than `steps`"),
        (lambda: SwitchSchedule([1.0, 2.0, 3.0], [10, 10]), "must rise"),
        (lambda: SwitchSchedule([1.0, 2.0], [1.5]), "whole numbers"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            LinearSchedule(0.0, 1.0, 10),
            "`finetune_value` must be a number or .*LinearSchedule is a whole",
        ),
        ("high", "`finetune_value` must be a number or a function of the step. Received: .*'high'"),
        (None, "`finetune_value` must be a number or a function of the step. Received: finetune_value=None"),
    ],
)
def test_weights_that_are_neither_numbers_nor_functions(value, message):
    with pytest.raises(TypeError, match=message):
        TaskWeightScheduler(False, True, finetune_value=value)
