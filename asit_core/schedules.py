"""Schedules as pure functions of the optimizer step.

Most shapes are those of DINO's released program, which ASiT's follows: a linear warm-up that
reaches its end on the last warm-up step, then half a cosine that stops one step short of its final
value.
"""

import math
from typing import Literal

ScheduleShape = Literal["cosine", "linear", "constant"]


def cosine(
    step: int,
    *,
    base: float,
    final: float,
    total_steps: int,
    warmup_steps: int = 0,
    warmup_start: float = 0.0,
) -> float:
    """Linear warm-up to `base`, then a cosine towards `final`.

    Args:
        step: Optimizer step, 0 <= step < total_steps.
        base: Value after the warm-up.
        final: Value the cosine tends to; it would be reached at `total_steps`.
        total_steps: Length of the run.
        warmup_steps: Length of the warm-up, at most `total_steps`.
        warmup_start: Value at step 0 of a warm-up.

    Returns:
        The scheduled value.

    Raises:
        ValueError: If the warm-up is longer than the run.

    Source: DINO (arXiv:2104.14294), `cosine_scheduler`; ASiT uses it for lr, weight decay and EMA
    momentum.
    """
    if warmup_steps > total_steps:
        raise ValueError(
            f"warmup_steps must be at most total_steps ({total_steps}), but got {warmup_steps}"
        )
    if step < warmup_steps:
        return warmup_start + (base - warmup_start) * step / max(1, warmup_steps - 1)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return final + 0.5 * (base - final) * (1.0 + math.cos(math.pi * progress))


def learning_rate(
    step: int,
    *,
    shape: ScheduleShape,
    base: float,
    final: float,
    total_steps: int,
    warmup_steps: int = 0,
    warmup_stairs: int | None = None,
) -> float:
    """Warm-up from 0 to `base`, then a cosine or a line towards `final`, or `base` throughout.

    Args:
        step: Optimizer step, 0 <= step < total_steps.
        shape: What follows the warm-up.
        base: Value after the warm-up.
        final: Value it tends to; not read where it is constant.
        total_steps: Length of the run.
        warmup_steps: Length of the warm-up, at most `total_steps`.
        warmup_stairs: None: the warm-up rises with every step, as in `cosine`; else in so many
            stairs, the first of which is 0 and the one after the last `base`.

    Returns:
        The scheduled value.

    Raises:
        ValueError: If the warm-up is longer than the run.

    Source: `cosine`'s; SSAST's released program climbs 20 stairs of 50 steps.
    """
    if step < warmup_steps and warmup_stairs is not None:
        return base * (step * warmup_stairs // warmup_steps) / warmup_stairs
    if step < warmup_steps or shape == "cosine":
        return cosine(
            step, base=base, final=final, total_steps=total_steps, warmup_steps=warmup_steps
        )
    if shape == "constant":
        return base
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return base + (final - base) * progress


def linear_ramp(step: int, *, start: float, end: float, ramp_steps: int) -> float:
    """`start` at step 0, `end` from step `ramp_steps - 1` on; `end` throughout without a ramp.

    Source: DINO's teacher temperature, `numpy.linspace(start, end, ramp_steps)` and then constant.
    """
    if step >= ramp_steps - 1:
        return end
    return start + (end - start) * step / (ramp_steps - 1)
