"""Reads the gauges and says in one sentence how a representation has collapsed, if it has."""

import math

# Relative distance to the extremes at which a distribution counts as collapsed. Early in training
# the centred teacher is within a few percent of uniform, so the bound is far tighter than that.
_UNIFORM = 0.998
_PEAKED = 0.02
# A falling loss crosses ln K once; one that is stuck equals it to the digits of float32.
_LOSS_TOLERANCE = 1e-4
_MIN_RELATIVE_STD = 0.01
_MIN_RANK = 2.0
_MIN_RELATIVE_RANK = 0.01


def collapse_reason(
    *,
    embedding_std: float,
    effective_rank: float,
    embed_dim: int,
    num_clips: int | None = None,
    teacher_entropy: float | None = None,
    marginal_entropy: float | None = None,
    num_prototypes: int | None = None,
    student_entropy: float | None = None,
    loss: float | None = None,
) -> str | None:
    """Says in one sentence how the representation has collapsed, if it has.

    A sharp teacher is healthy as long as its rows choose different prototypes; so peaked collapse
    is read off the average row, whose entropy is small only if every row is sharp and all choose
    alike. What is found before the end of the temperature's warm-up may pass by itself.

    A loss at ln K tells of a student that is uniform. A healthy loss may pass through ln K while it
    falls, so with the student's entropy at hand that is judged instead, and more loosely.

    Args:
        embedding_std: As the function of this name gives it.
        effective_rank: As the function of this name gives it.
        embed_dim: D of those features.
        num_clips: N of those features, which bounds their rank as D does; None: N >= D.
        teacher_entropy: Mean entropy in nats; None, with the next two, without distillation.
        marginal_entropy: Entropy of the average row, in nats.
        num_prototypes: K.
        student_entropy: Mean entropy of the student's rows, in nats; None if it is not known.
        loss: The task's unweighted cross-entropy, in nats; None if it is not known.

    Returns:
        The reason, starting with its kind (`not finite`, `uniform collapse`, `peaked collapse` or
        `dimensional collapse`), or None.

    Raises:
        ValueError: If only some of the three teacher arguments are given, or student entropy or
            loss without them.

    Source: DINO (arXiv:2104.14294), Sec. 5.3, for the two collapses of the teacher.
    """
    teacher = (teacher_entropy, marginal_entropy, num_prototypes)
    if any(value is None for value in teacher) and any(
        value is not None for value in (*teacher, student_entropy, loss)
    ):
        raise ValueError(
            "teacher_entropy, marginal_entropy and num_prototypes must be given together, and with "
            f"student_entropy or loss, but got {teacher}"
        )
    gauges = {
        "embedding std": embedding_std,
        "effective rank": effective_rank,
        "teacher entropy": teacher_entropy,
        "marginal entropy": marginal_entropy,
        "student entropy": student_entropy,
        "loss": loss,
    }
    for name, value in gauges.items():
        if value is not None and not math.isfinite(value):
            return f"not finite: {name} is {value}"
    if teacher_entropy is not None and marginal_entropy is not None and num_prototypes is not None:
        reason = _teacher_collapse(
            teacher_entropy, marginal_entropy, num_prototypes
        ) or _student_collapse(student_entropy, loss, num_prototypes)
        if reason is not None:
            return reason
    return _dimensional_collapse(embedding_std, effective_rank, embed_dim, num_clips or embed_dim)


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


def _student_collapse(entropy: float | None, loss: float | None, num_prototypes: int) -> str | None:
    most = math.log(num_prototypes)
    if entropy is not None:
        if entropy < _UNIFORM * most:
            return None
        seen = "" if loss is None else f" (loss {loss:.3f})"
        return (
            f"uniform collapse: student entropy {entropy:.3f} is ln K = {most:.3f}{seen}, the "
            "student tells no prototypes apart"
        )
    if loss is not None and abs(loss - most) <= _LOSS_TOLERANCE * most:
        return (
            f"uniform collapse: loss {loss:.4f} is ln K = {most:.4f}, the student tells no "
            "prototypes apart"
        )
    return None


def _dimensional_collapse(std: float, rank: float, embed_dim: int, num_clips: int) -> str | None:
    least_std = _MIN_RELATIVE_STD / math.sqrt(embed_dim)
    if std < least_std:
        return (
            f"dimensional collapse: embedding std {std:.2g} is below {least_std:.2g} "
            f"(1 % of 1 / sqrt({embed_dim})), all clips look alike"
        )
    most = min(embed_dim, num_clips)
    least_rank = max(_MIN_RANK, _MIN_RELATIVE_RANK * most)
    # Two clips never have a rank above 2, however healthy they are.
    if most > _MIN_RANK and rank < least_rank:
        return (
            f"dimensional collapse: effective rank {rank:.2f} of at most {most} is below "
            f"{least_rank:.1f}"
        )
    return None
