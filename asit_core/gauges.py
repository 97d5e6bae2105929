"""Health of a representation without labels: does the teacher collapse, how many dimensions live?

The gauges are plain numbers in nats, shares or dimensions; `collapse_reason` reads them and names
what went wrong. Distributions are probabilities, not logits: softmax in float32, after centring and
temperature, exactly as the loss sees them.

Shape legend: `...` any leading axes, N rows (clips or tokens), K prototypes, D features.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

_SUM_TOLERANCE = 2e-2  # what bfloat16 probabilities may miss
_RANK_EPSILON = 1e-7  # RankMe's

# Relative distance to the extremes at which a distribution counts as collapsed. Early in training
# the centred teacher is within a few percent of uniform, so the bound is far tighter than that.
_UNIFORM = 0.998
_PEAKED = 0.02
_MIN_RELATIVE_STD = 0.01
_MIN_RANK = 2.0
_MIN_RELATIVE_RANK = 0.01


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
def embedding_std(feature_ND: Tensor) -> Tensor:
    """Standard deviation of each dimension after L2-normalising the rows, averaged.

    Args:
        feature_ND: Features of N >= 2 clips, any scale.

    Returns:
        Scalar; 0 if all rows point the same way, about 1 / sqrt(D) if they fill the sphere.

    Raises:
        ValueError: If the input is not (N, D) with N >= 2.

    Source: SimSiam (arXiv:2011.10566), Sec. 4.1.
    """
    _check_features(feature_ND)
    return normalize(feature_ND.float(), dim=1).std(dim=0, correction=0).mean()


@torch.no_grad()
def effective_rank(feature_ND: Tensor) -> Tensor:
    """RankMe: the exponential of the entropy of the normalised singular values.

    Args:
        feature_ND: Features of N >= 2 clips, as they are (neither centred nor normalised).

    Returns:
        Scalar from 1 (all rows on one line) to min(N, D); NaN if a feature is not finite.

    Raises:
        ValueError: If the input is not (N, D) with N >= 2.

    Source: Garrido et al. 2023 (arXiv:2210.02885), Eq. 1-2.
    """
    _check_features(feature_ND)
    if not feature_ND.isfinite().all():
        return torch.tensor(math.nan, device=feature_ND.device)
    singular_values = torch.linalg.svdvals(feature_ND.float())
    share = singular_values / singular_values.sum().clamp_min(_RANK_EPSILON) + _RANK_EPSILON
    return torch.special.entr(share).sum().exp()


def collapse_reason(
    *,
    embedding_std: float,
    effective_rank: float,
    embed_dim: int,
    teacher_entropy: float | None = None,
    marginal_entropy: float | None = None,
    num_prototypes: int | None = None,
) -> str | None:
    """Says in one sentence how the representation has collapsed, if it has.

    A sharp teacher is healthy as long as its rows choose different prototypes; so peaked collapse
    is read off the average row, whose entropy bounds the mean entropy from above. In the first few
    hundred steps a teacher may still be near uniform: judge after the temperature warm-up.

    Args:
        embedding_std: As the function of this name gives it.
        effective_rank: As the function of this name gives it.
        embed_dim: D of those features.
        teacher_entropy: Mean entropy in nats; None, with the next two, without distillation.
        marginal_entropy: Entropy of the average row, in nats.
        num_prototypes: K.

    Returns:
        The reason, starting with its kind (`not finite`, `uniform collapse`, `peaked collapse` or
        `dimensional collapse`), or None.

    Raises:
        ValueError: If only some of the three teacher arguments are given.
    """
    teacher = (teacher_entropy, marginal_entropy, num_prototypes)
    if any(value is None for value in teacher) and any(value is not None for value in teacher):
        raise ValueError(
            "teacher_entropy, marginal_entropy and num_prototypes must be given together, "
            f"but got {teacher}"
        )
    gauges = {
        "embedding std": embedding_std,
        "effective rank": effective_rank,
        "teacher entropy": teacher_entropy,
        "marginal entropy": marginal_entropy,
    }
    for name, value in gauges.items():
        if value is not None and not math.isfinite(value):
            return f"not finite: {name} is {value}"
    if teacher_entropy is not None and marginal_entropy is not None and num_prototypes is not None:
        reason = _teacher_collapse(teacher_entropy, marginal_entropy, num_prototypes)
        if reason is not None:
            return reason
    return _dimensional_collapse(embedding_std, effective_rank, embed_dim)


def _teacher_collapse(entropy: float, entropy_of_mean: float, num_prototypes: int) -> str | None:
    most = math.log(num_prototypes)
    if entropy >= _UNIFORM * most:
        return (
            f"uniform collapse: teacher entropy {entropy:.3f} is ln K = {most:.3f}, every row gets "
            "the same flat target"
        )
    if entropy_of_mean <= _PEAKED * most:
        return (
            f"peaked collapse: entropy of the average target is {entropy_of_mean:.3f} of at most "
            f"{most:.3f}, every row gets the same prototype"
        )
    return None


def _dimensional_collapse(std: float, rank: float, embed_dim: int) -> str | None:
    least_std = _MIN_RELATIVE_STD / math.sqrt(embed_dim)
    if std < least_std:
        return (
            f"dimensional collapse: embedding std {std:.2g} is below {least_std:.2g} "
            f"(1 % of 1 / sqrt({embed_dim})), all clips look alike"
        )
    least_rank = max(_MIN_RANK, _MIN_RELATIVE_RANK * embed_dim)
    if rank < least_rank:
        return (
            f"dimensional collapse: effective rank {rank:.2f} of {embed_dim} is below "
            f"{least_rank:.1f}"
        )
    return None


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


def _check_features(feature_ND: Tensor) -> None:
    if feature_ND.ndim != 2 or feature_ND.shape[0] < 2:
        raise ValueError(
            f"feature_ND must be (N, D) with N >= 2, but got {tuple(feature_ND.shape)}"
        )
