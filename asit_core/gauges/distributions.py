"""Gauges of what teacher and student predict over the prototypes.

Most take probabilities, not logits: softmax in float32, after centring and temperature, exactly as
the loss sees them. Those that take logits turn them into float32 first: under bf16 the softmax over
thousands of prototypes loses the digits that tell a collapse.

Shape legend: `...` any leading axes, K prototypes.
"""

import torch
from torch import Tensor
from torch.nn import functional

from asit_core.losses import teacher_probabilities

_SUM_TOLERANCE = 2e-2  # what bfloat16 probabilities may miss


@torch.no_grad()
def teacher_entropy(probs: Tensor) -> Tensor:
    """Mean entropy of the rows.

    Args:
        probs: Probabilities (..., K).

    Returns:
        Scalar in [0, ln K] nats.

    Raises:
        ValueError: If the last axis does not hold probabilities.

    Source: DINO (arXiv:2104.14294), Sec. 5.3, Eq. 5: cross-entropy = entropy + KL; both kinds of
    collapse drive the KL to 0, the entropy tells them apart.
    """
    probs = _checked_probs("probs", probs)
    return torch.special.entr(probs).sum(dim=-1).mean()


@torch.no_grad()
def marginal_entropy(probs: Tensor) -> Tensor:
    """Entropy of the average row: ln of how many prototypes the rows use between them.

    Args:
        probs: Probabilities (..., K).

    Returns:
        Scalar in [0, ln K] nats, at least `teacher_entropy`; about 0 if all rows choose one
        prototype, ln K if all prototypes are used alike.

    Raises:
        ValueError: If the last axis does not hold probabilities.
    """
    probs = _checked_probs("probs", probs)
    return torch.special.entr(probs.reshape(-1, probs.shape[-1]).mean(dim=0)).sum()


@torch.no_grad()
def prototype_use(probs: Tensor) -> Tensor:
    """Share of the prototypes that are some row's most likely one.

    Args:
        probs: Probabilities (..., K); with fewer rows than K the share cannot reach 1.

    Returns:
        Scalar in [1 / K, 1].

    Raises:
        ValueError: If the last axis does not hold probabilities.
    """
    probs = _checked_probs("probs", probs)
    num_used = probs.argmax(dim=-1).unique().numel()
    return torch.tensor(num_used / probs.shape[-1], device=probs.device)


@torch.no_grad()
def kl(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence KL(teacher || student) of the rows.

    Args:
        teacher: Probabilities (..., K).
        student: Probabilities of the same shape; zeros count as the smallest float32, so that an
            underflowed softmax gives a large number instead of infinity.

    Returns:
        Scalar >= 0 (up to rounding) in nats; 0 where the student has nothing left to learn, as
        under collapse.

    Raises:
        ValueError: If the shapes disagree or the last axes do not hold probabilities.

    Source: DINO (arXiv:2104.14294), Sec. 5.3, Eq. 5.
    """
    if teacher.shape != student.shape:
        raise ValueError(
            "teacher and student must have the same shape, but got "
            f"{tuple(teacher.shape)} and {tuple(student.shape)}"
        )
    teacher, student = _checked_probs("teacher", teacher), _checked_probs("student", student)
    log_student = student.clamp_min(torch.finfo(torch.float32).tiny).log()
    return (torch.special.xlogy(teacher, teacher) - teacher * log_student).sum(dim=-1).mean()


@torch.no_grad()
def student_entropy(student_logits: Tensor, *, temperature: float) -> Tensor:
    """Mean entropy of the student's rows, softmax in float32 whatever the logits' type.

    Args:
        student_logits: (..., K), neither centred nor divided by the temperature.
        temperature: The student's, > 0.

    Returns:
        Scalar in [0, ln K] nats; ln K if the student tells no prototypes apart. The loss is ln K
        then whatever the teacher says.

    Raises:
        ValueError: If the shape does not fit or the temperature is not positive.

    Source: DINO (arXiv:2104.14294), Eq. 1 and Sec. 5.3.
    """
    _check_logits("student_logits", student_logits)
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, but got {temperature}")
    return teacher_entropy(torch.softmax(student_logits.float() / temperature, dim=-1))


@torch.no_grad()
def center_norm(center_K: Tensor) -> Tensor:
    """Euclidean length of the running centre, in units of the teacher's logits.

    Args:
        center_K: The centre, any float type.

    Returns:
        Float32 scalar >= 0. It grows without bound where the teacher's logits drift together, and
        one prototype would win everything if the centre were not taken off.

    Raises:
        ValueError: If the centre is not a vector.

    Source: DINO (arXiv:2104.14294), Eq. 4.
    """
    if center_K.ndim != 1 or len(center_K) < 2:
        raise ValueError(f"center_K must be (K,) with K >= 2, but got {tuple(center_K.shape)}")
    return torch.linalg.vector_norm(center_K.float())


@torch.no_grad()
def distillation_gauges(
    student_logits: Tensor,
    teacher_logits: Tensor,
    center_K: Tensor,
    *,
    student_temperature: float,
    teacher_temperature: float,
) -> dict[str, Tensor]:
    """Every gauge of one distillation task on one batch, all over the same rows.

    A loss may count some rows alone, such as those of corrupted patches; the gauges count all, so
    that the teacher's entropy and the divergence add up to the cross-entropy of all rows.

    Args:
        student_logits: (..., K) as the student's head gives them, any float type.
        teacher_logits: The same of the teacher's, each row what the student's row should predict.
        center_K: The centre that the loss used.
        student_temperature: The student's, > 0.
        teacher_temperature: This step's, > 0.

    Returns:
        Float32 scalars `teacher_entropy`, `marginal_entropy`, `student_entropy`, `kl` (nats, each
        >= 0), `prototype_use` (share) and `center_norm` (logits).

    Raises:
        ValueError: If shapes do not fit or a temperature is not positive.
    """
    _check_logits("teacher_logits", teacher_logits)
    if not teacher_temperature > 0:
        raise ValueError(f"teacher_temperature must be > 0, but got {teacher_temperature}")
    if not student_logits.shape[-1] == teacher_logits.shape[-1] == len(center_K):
        raise ValueError(
            "student_logits, teacher_logits and center_K must have the same K, but got "
            f"{student_logits.shape[-1]}, {teacher_logits.shape[-1]} and {len(center_K)}"
        )
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            "student_logits and teacher_logits must have the same rows, but got "
            f"{tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}"
        )
    probs = teacher_probabilities(teacher_logits.float(), center_K.float(), teacher_temperature)
    return {
        "teacher_entropy": teacher_entropy(probs),
        "marginal_entropy": marginal_entropy(probs),
        "student_entropy": student_entropy(student_logits, temperature=student_temperature),
        "kl": _kl_of_logits(probs, student_logits.float() / student_temperature),
        "prototype_use": prototype_use(probs),
        "center_norm": center_norm(center_K),
    }


def _kl_of_logits(teacher: Tensor, student_logits: Tensor) -> Tensor:
    """As `kl`, exact also where the student's softmax would underflow."""
    log_student = functional.log_softmax(student_logits, dim=-1)
    rows = (torch.special.xlogy(teacher, teacher) - teacher * log_student).sum(dim=-1)
    return rows.mean().clamp_min(0.0)  # rounding may leave -1e-7


def _check_logits(name: str, logits: Tensor) -> None:
    if logits.ndim < 1 or logits.shape[-1] < 2 or logits.numel() == 0:
        raise ValueError(f"{name} must be (..., K) with K >= 2, but got {tuple(logits.shape)}")


def _checked_probs(name: str, probs: Tensor) -> Tensor:
    if probs.ndim < 1 or probs.shape[-1] < 2 or probs.numel() == 0:
        raise ValueError(f"{name} must be (..., K) with K >= 2, but got {tuple(probs.shape)}")
    probs = probs.float()
    wrong = (probs < 0).any() | ((probs.sum(dim=-1) - 1).abs() > _SUM_TOLERANCE).any()
    if wrong:
        raise ValueError(
            f"{name} must be probabilities, not logits: >= 0 and summing to 1 over the last axis; "
            f"but got values from {float(probs.min()):.3g} to {float(probs.max()):.3g}"
        )
    return probs
