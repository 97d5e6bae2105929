import pytest
import torch
from torch import nn

from asit_core.initialization import initialize
from asit_core.seeding import stream
from asit_core.teacher import TeacherConfig, make_teacher, update_teacher


def _student() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        student = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    initialize(student, seed=0)
    return student.train()


def test_the_teacher_after_two_steps_by_loops():
    student = _student()
    teacher = make_teacher(student)
    expected = {name: value.flatten().tolist() for name, value in student.named_parameters()}
    for step, momentum in enumerate([0.9, 0.996]):
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=stream(step, "test")))
        update_teacher(teacher, student, momentum=momentum)
        for name, value in student.named_parameters():
            expected[name] = [
                momentum * old + (1 - momentum) * new
                for old, new in zip(expected[name], value.flatten().tolist(), strict=True)
            ]
    for name, value in teacher.named_parameters():
        assert value.flatten().tolist() == pytest.approx(expected[name], rel=1e-5, abs=1e-7)


def test_the_teacher_is_a_frozen_copy_in_evaluation_mode():
    student = _student()
    teacher = make_teacher(student)
    assert student.training
    assert not teacher.training
    for ours, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.data_ptr() != theirs.data_ptr()
        assert not ours.requires_grad
        assert theirs.requires_grad


def test_the_ends_of_the_momentum():
    student = _student()
    teacher = make_teacher(student)
    initialize(student, seed=1)
    before = [parameter.clone() for parameter in teacher.parameters()]
    update_teacher(teacher, student, momentum=1.0)
    for ours, old in zip(teacher.parameters(), before, strict=True):
        assert torch.equal(ours, old)
    update_teacher(teacher, student, momentum=0.0)
    for ours, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("temperature", 0.0, "temperature must be above 0, but got 0.0"),
        ("warmup_temperature", -1.0, "warmup_temperature must be above 0, but got -1.0"),
        ("temperature_warmup_ratio", 1.1, r"temperature_warmup_ratio must be in \[0, 1\].*1.1"),
        ("momentum", 1.1, r"momentum must be in \[0, 1\], but got 1.1"),
        ("final_momentum", float("nan"), r"final_momentum must be in \[0, 1\], but got nan"),
        ("center_momentum", -0.1, r"center_momentum must be in \[0, 1\], but got -0.1"),
    ],
)
def test_a_bad_field_is_named_with_rule_and_value(field, value, message):
    with pytest.raises(ValueError, match=message):
        TeacherConfig(**{field: value})
