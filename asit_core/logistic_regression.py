"""Multinomial logistic regression solved to its optimum: a probe's result is then its features'.

Stochastic training of a linear probe adds its own noise and its own learning rate to every
comparison. Here the convex problem is solved to its optimum: full batch, float64, L-BFGS from zero.
The features are rotated to their principal axes first, which leaves the penalty and the optimum as
they are and makes the Hessian's known upper bound diagonal; with that as the first guess of the
curvature the search takes tens of steps, not thousands, on the strongly correlated features of a
transformer.

Shape legend: N clips, D features, R rotated features, C classes; a trailing 1 is the intercept.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

_MEMORY = 10
_MAX_ITERATIONS = 1000
_MAX_HALVINGS = 40
_ARMIJO = 1e-4
_MIN_SIZE_FOR_THREADS = 10**8  # N * D * C


class Standardiser(NamedTuple):
    """Shift and scale learned on the training clips; a constant feature becomes exactly 0."""

    mean: Tensor  # (D,)
    scale: Tensor  # (D,), 1 / standard deviation, 0 where the feature is constant

    @classmethod
    def fit(cls, feature_ND: Tensor) -> "Standardiser":
        """Learns mean and population standard deviation of each feature (column)."""
        mean_D = feature_ND.mean(dim=0)
        std_D = feature_ND.std(dim=0, correction=0)
        # A constant column has a deviation of rounding size, not of zero.
        is_constant_D = std_D <= 1e-12 * mean_D.abs()
        return cls(mean_D, (1.0 / std_D).masked_fill(is_constant_D, 0.0))

    def __call__(self, feature_ND: Tensor) -> Tensor:
        """Applies the learned shift and scale."""
        return (feature_ND - self.mean) * self.scale


class _Pair(NamedTuple):
    """One step of the search and how it bent the gradient."""

    change: Tensor
    bend: Tensor
    curvature: float


class LogisticRegression:
    """The training clips of one fit, standardised and rotated once, solved for any L2.

    The objective is the mean cross-entropy plus `l2 / 2` times the sum of squared weights; the
    intercept is not penalised. Classes are those present in the labels.
    """

    def __init__(self, feature_ND: Tensor, label_N: Tensor) -> None:
        """Takes finite float64 features (N, D) and int64 labels (N,) of two classes or more."""
        self.class_C, self._target_N = label_N.unique(return_inverse=True)
        self._standardise = Standardiser.fit(feature_ND)
        standardised_ND = self._standardise(feature_ND)
        # The optimum lies in the row space, so R = min(N, D) directions are all it can use.
        _, singular_R, self._rotation_RD = torch.linalg.svd(standardised_ND, full_matrices=False)
        self._input_NR1 = self._rotate(standardised_ND)
        self._second_moment_R1 = torch.cat(
            (singular_R**2 / len(feature_ND), singular_R.new_ones(1))
        )

    def solve(
        self,
        l2: float,
        *,
        start_R1C: Tensor | None = None,
        gradient_tolerance: float = 1e-7,
    ) -> Tensor:
        """Minimises the objective from `start_R1C` (zero if None); returns weights (R + 1, C).

        `gradient_tolerance` bounds the largest absolute entry of the gradient at the end.
        """
        if start_R1C is None:
            start_R1C = self._input_NR1.new_zeros(len(self._second_moment_R1), len(self.class_C))
        penalty_R11 = self._penalty(l2)
        # Bohning (1992): the Hessian of the cross-entropy is at most half the second moment.
        curvature_R11 = 0.5 * self._second_moment_R1[:, None] + penalty_R11
        return _minimise(
            lambda weight_R1C: self.objective(weight_R1C, l2),
            start_R1C,
            inverse_curvature=1.0 / curvature_R11.clamp_min(1e-12 * float(curvature_R11.max())),
            gradient_tolerance=gradient_tolerance,
        )

    def log_probability(self, weight_R1C: Tensor, feature_MD: Tensor) -> Tensor:
        """Log-probabilities (M, C) of the present classes, in the order of `class_C`."""
        return torch.log_softmax(self._rotate(self._standardise(feature_MD)) @ weight_R1C, dim=1)

    def objective(self, weight_R1C: Tensor, l2: float) -> tuple[float, Tensor]:
        """Value and gradient at `weight_R1C`."""
        target_N1 = self._target_N[:, None]
        log_probability_NC = torch.log_softmax(self._input_NR1 @ weight_R1C, dim=1)
        penalised_R1C = self._penalty(l2) * weight_R1C
        value = -log_probability_NC.gather(1, target_N1).mean()
        value += 0.5 * torch.vdot(penalised_R1C.flatten(), weight_R1C.flatten())
        residual_NC = log_probability_NC.exp_()
        residual_NC.scatter_add_(1, target_N1, -torch.ones_like(target_N1, dtype=value.dtype))
        gradient_R1C = torch.addmm(
            penalised_R1C, self._input_NR1.T, residual_NC, alpha=1 / len(target_N1)
        )
        return float(value), gradient_R1C

    def _penalty(self, l2: float) -> Tensor:
        penalty_R11 = self._input_NR1.new_full((len(self._second_moment_R1), 1), l2)
        penalty_R11[-1] = 0.0
        return penalty_R11

    def _rotate(self, standardised_ND: Tensor) -> Tensor:
        rotated_NR = standardised_ND @ self._rotation_RD.T
        return torch.hstack((rotated_NR, rotated_NR.new_ones(len(rotated_NR), 1)))


@contextmanager
def few_threads(size: int) -> Iterator[None]:
    """Keeps small problems (`size` = N * D * C) on one thread.

    Threads cost them more than they give, a hundredfold where workers share the cores; and the last
    digits then do not depend on the number of cores.
    """
    num_threads = torch.get_num_threads()
    if size < _MIN_SIZE_FOR_THREADS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def _minimise(
    objective: Callable[[Tensor], tuple[float, Tensor]],
    weight: Tensor,
    *,
    inverse_curvature: Tensor,
    gradient_tolerance: float,
) -> Tensor:
    """L-BFGS (Nocedal & Wright, Algorithm 7.5) with a diagonal first guess of the curvature."""
    pairs: deque[_Pair] = deque(maxlen=_MEMORY)
    value, gradient = objective(weight)
    for _ in range(_MAX_ITERATIONS):
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
    """The two-loop recursion (Nocedal & Wright, Algorithm 7.4)."""
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
