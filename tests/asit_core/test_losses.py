"""Losses against the equations written out in loops, with their gradients by hand."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from asit_core.losses import (
    Center,
    clip_distillation_loss,
    cross_entropy,
    masked_l1,
    mean_over_workers,
    teacher_probabilities,
)
from asit_core.seeding import stream

TEMPERATURES: dict[str, Any] = {"student_temperature": 0.1, "teacher_temperature": 0.04}


def _random(*shape: int, key: int = 0) -> Tensor:
    return torch.randn(shape, generator=stream(key, "test"), dtype=torch.float64)


def _softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(x / temperature) for x in row]
    return [power / sum(powers) for power in powers]


def _cross_entropy(
    student: list[list[float]], teacher: list[list[float]], center: list[float]
) -> tuple[float, list[list[float]]]:
    """Mean over rows of -sum p log q, and its gradient (q - p) / (temperature rows)."""
    loss, gradient = 0.0, []
    for student_row, teacher_row in zip(student, teacher, strict=True):
        centered = [x - c for x, c in zip(teacher_row, center, strict=True)]
        p = _softmax(centered, TEMPERATURES["teacher_temperature"])
        q = _softmax(student_row, TEMPERATURES["student_temperature"])
        loss -= sum(a * math.log(b) for a, b in zip(p, q, strict=True)) / len(student)
        scale = TEMPERATURES["student_temperature"] * len(student)
        gradient.append([(b - a) / scale for a, b in zip(p, q, strict=True)])
    return loss, gradient


def test_masked_l1_by_loops():
    prediction, target = _random(2, 3, 5, key=0).float(), _random(2, 3, 5, key=1).float()
    mask = _random(2, 3, 5, key=2) > 0.3
    prediction.requires_grad_()
    total, count = 0.0, 0
    for b in range(2):
        for t in range(3):
            for f in range(5):
                if mask[b, t, f]:
                    total += abs(prediction[b, t, f].item() - target[b, t, f].item())
                    count += 1
    loss = masked_l1(prediction, target, mask)
    assert loss.item() == pytest.approx(total / count, rel=1e-6)  # float32 sums
    loss.backward()
    sign = torch.where(prediction > target, 1.0, -1.0)
    expected = torch.where(mask, sign / count, torch.zeros(()))
    torch.testing.assert_close(prediction.grad, expected)


def test_masked_l1_without_a_mask_is_exactly_zero():
    prediction = _random(1, 2, 2).float().requires_grad_()
    loss = masked_l1(prediction, torch.zeros(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.bool))
    assert loss.item() == 0.0
    loss.backward()
    assert prediction.grad is not None
    assert not prediction.grad.any()


def test_masked_l1_refuses_shapes_that_disagree():
    with pytest.raises(ValueError, match=r"one shape, but got \(2, 3\), \(2, 3\) and \(3, 2\)"):
        masked_l1(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(3, 2, dtype=torch.bool))


def test_cross_entropy_by_loops():
    student = (0.3 * _random(2, 4, 6, key=0)).float().requires_grad_()
    teacher = (0.3 * _random(2, 4, 6, key=1)).float().requires_grad_()
    center = (0.1 * _random(6, key=2)).float()
    loss = cross_entropy(student, teacher, center, **TEMPERATURES)
    expected, gradient = _cross_entropy(
        student.flatten(0, 1).tolist(), teacher.flatten(0, 1).tolist(), center.tolist()
    )
    assert loss.item() == pytest.approx(expected, rel=1e-5)  # float32 exponentials
    loss.backward()
    assert student.grad is not None
    torch.testing.assert_close(
        student.grad.flatten(0, 1), torch.tensor(gradient), rtol=1e-4, atol=1e-6
    )
    assert teacher.grad is None


def test_cross_entropy_over_the_rows_that_count():
    student = (0.3 * _random(2, 4, 6, key=0)).float().requires_grad_()
    teacher = (0.3 * _random(2, 4, 6, key=1)).float()
    center = (0.1 * _random(6, key=2)).float()
    counts = torch.tensor([[True, False, False, True], [False, False, True, False]])
    loss = cross_entropy(student, teacher, center, **TEMPERATURES, counts=counts)
    expected, gradient = _cross_entropy(
        student[counts].tolist(), teacher[counts].tolist(), center.tolist()
    )
    assert loss.item() == pytest.approx(expected, rel=1e-5)  # float32 exponentials
    loss.backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad[counts], torch.tensor(gradient), rtol=1e-4, atol=1e-6)
    assert not student.grad[~counts].any()
    none = cross_entropy(student, teacher, center, **TEMPERATURES, counts=torch.zeros(2, 4).bool())
    assert none.item() == 0.0


def test_cross_entropy_computes_in_fp32():
    student, teacher = _random(3, 6, key=0).bfloat16(), _random(3, 6, key=1).bfloat16()
    loss = cross_entropy(student, teacher, torch.zeros(6), **TEMPERATURES)
    assert loss.dtype == torch.float32
    exact = cross_entropy(student.float(), teacher.float(), torch.zeros(6), **TEMPERATURES)
    assert torch.equal(loss, exact)


def test_cross_entropy_of_a_student_that_agrees_is_the_teachers_entropy():
    teacher = (0.3 * _random(5, 6)).float()
    temperatures: dict[str, Any] = {"student_temperature": 0.07, "teacher_temperature": 0.07}
    center = torch.full((6,), 0.2)  # the same shift for every prototype changes nothing
    p = teacher_probabilities(teacher, center, 0.07)
    torch.testing.assert_close(p.sum(-1), torch.ones(5))
    entropy = -(p * p.log()).sum(-1).mean()
    loss = cross_entropy(teacher, teacher, center, **temperatures)
    torch.testing.assert_close(loss, entropy)


def test_clip_distillation_pairs_each_view_with_the_other():
    student = (0.3 * _random(2, 4, 6, key=0)).float().requires_grad_()
    teacher = (0.3 * _random(2, 4, 6, key=1)).float()
    center = (0.1 * _random(6, key=2)).float()
    loss = clip_distillation_loss(student, teacher, center, **TEMPERATURES)
    loss.backward()
    expected = 0.0
    assert student.grad is not None
    for view in range(2):
        part, gradient = _cross_entropy(
            student[view].tolist(), teacher[1 - view].tolist(), center.tolist()
        )
        expected += part / 2
        torch.testing.assert_close(
            student.grad[view], torch.tensor(gradient) / 2, rtol=1e-4, atol=1e-6
        )
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("views", [1, 3])
def test_clip_distillation_needs_two_views(views):
    logits = torch.zeros(views, 4, 6)
    with pytest.raises(ValueError, match=f"needs two views, but got {views}"):
        clip_distillation_loss(logits, logits, torch.zeros(6), **TEMPERATURES)


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 4, 5)])
def test_the_centre_after_two_steps_by_loops(shape):
    center = Center(5, momentum=0.9)
    expected = [0.0] * 5
    for step in range(2):
        logits = _random(*shape, key=step).float()
        center.update(logits)
        rows = logits.reshape(-1, 5).tolist()
        for k in range(5):
            mean = sum(row[k] for row in rows) / len(rows)
            expected[k] = 0.9 * expected[k] + 0.1 * mean
    assert center.value_K.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert list(center.state_dict()) == ["value_K"]
    assert not list(center.parameters())


def test_the_centre_averages_bf16_logits_in_fp32():
    center = Center(1, momentum=0.0)
    logits = torch.full((1000, 1), 0.5, dtype=torch.bfloat16)
    logits[0] = 1.0
    center.update(logits)
    assert center.value_K.item() == pytest.approx(0.5005, rel=1e-6)  # bf16 would round to 0.5


def test_without_a_process_group_a_mean_over_workers_is_the_value_without_gradient():
    value = torch.tensor(3.0, requires_grad=True)
    mean = mean_over_workers(value)
    assert mean.item() == 3.0
    assert not mean.requires_grad
