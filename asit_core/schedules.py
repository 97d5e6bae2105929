"""Schedules as pure functions of the optimizer step.

The shapes are those of DINO's released program, which ASiT's follows: a linear warm-up that reaches
its end on the last warm-up step, then half a cosine that stops one step short of its final value.
"""

import math


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


def linear_ramp(step: int, *, start: float, end: float, ramp_steps: int) -> float:
    """`start` at step 0, `end` from step `ramp_steps - 1` on; `end` throughout without a ramp.

    Source: DINO's teacher temperature, `numpy.linspace(start, end, ramp_steps)` and then constant.
    """
    if step >= ramp_steps - 1:
        return end
    return start + (end - start) * step / (ramp_steps - 1)
