"""L-BFGS for a smooth function in float64: full batch, no learning rate, no random draw.

The probes are fitted with it, so that a probe's result is its features' and not its optimiser's.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_MEMORY = 10
_MAX_HALVINGS = 40
_ARMIJO = 1e-4


class _Pair(NamedTuple):
    """One step of the search and how it bent the gradient."""

    change: Tensor
    bend: Tensor
    curvature: float


def minimise(
    objective: Callable[[Tensor], tuple[float, Tensor]],
    weight: Tensor,
    *,
    inverse_curvature: Tensor,
    gradient_tolerance: float,
    max_iterations: int = 1000,
) -> Tensor:
    """Minimises `objective` from `weight`, with a diagonal first guess of the curvature.

    Args:
        objective: Gives value and gradient at a weight.
        weight: Where the search starts, float64, any shape.
        inverse_curvature: Positive, of a shape that broadcasts to the weight's: roughly one over
            the second derivatives.
        gradient_tolerance: Bounds the largest absolute entry of the gradient at the end, unless the
            steps run out or float64 no longer resolves a decrease.
        max_iterations: Steps at most.

    Returns:
        The last weight; unless the steps ran out a stationary point to within the tolerance, which
        is the minimum where the function is convex.

    Source: Nocedal and Wright, Numerical Optimization (2006), Algorithm 7.4, with the halving of
    Algorithm 3.1 in place of a Wolfe search.
    """
    pairs: deque[_Pair] = deque(maxlen=_MEMORY)
    value, gradient = objective(weight)
    for _ in range(max_iterations):
        if gradient.abs().max() <= gradient_tolerance:
            break
        direction = _apply_inverse_hessian(gradient, pairs, inverse_curvature).neg_()
        slope = _dot(gradient, direction)
        step = 1.0
        for _ in range(_MAX_HALVINGS):
            trial = weight + step * direction
            trial_value, trial_gradient = objective(trial)
            if trial_value <= value + _ARMIJO * step * slope:
                break
            step /= 2
        else:
            break  # the value no longer resolves a decrease: float64 is exhausted
        change, bend = trial - weight, trial_gradient - gradient
        curvature = _dot(change, bend)
        if curvature > 0:
            pairs.append(_Pair(change, bend, curvature))
        weight, value, gradient = trial, trial_value, trial_gradient
    return weight


def _apply_inverse_hessian(
    gradient: Tensor, pairs: deque[_Pair], inverse_curvature: Tensor
) -> Tensor:
    """The two-loop recursion (Nocedal and Wright, Algorithm 7.4)."""
    result = gradient.clone()
    shares = []
    for change, bend, curvature in reversed(pairs):
        share = _dot(change, result) / curvature
        result.add_(bend, alpha=-share)
        shares.append(share)
    result.mul_(inverse_curvature)
    if pairs:
        _, bend, curvature = pairs[-1]
        result.mul_(curvature / _dot(bend, inverse_curvature * bend))
    for (change, bend, curvature), share in zip(pairs, reversed(shares), strict=True):
        result.add_(change, alpha=share - _dot(bend, result) / curvature)
    return result


def _dot(left: Tensor, right: Tensor) -> float:
    return float(torch.vdot(left.flatten(), right.flatten()))
