"""Multinomial logistic regression solved to its optimum: a probe's result is then its features'.

Stochastic training of a linear probe adds its own noise and its own learning rate to every
comparison. Here the convex problem is solved to its optimum: full batch, float64, L-BFGS from zero.
The features are rotated to their principal axes first, which leaves the penalty and the optimum as
they are and makes the Hessian's known upper bound diagonal; with that as the first guess of the
curvature the search takes tens of steps, not thousands, on the strongly correlated features of a
transformer.

NumPy throughout: at the size of a probe, calls cost more than arithmetic.

Shape legend: N clips, D features, R rotated features, C classes; a trailing 1 is the intercept.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_MEMORY = 10
_MAX_ITERATIONS = 1000
_MAX_HALVINGS = 40
_ARMIJO = 1e-4


class Standardiser(NamedTuple):
    """Shift and scale learned on the training clips; a constant feature becomes exactly 0."""

    mean: np.ndarray  # (D,)
    scale: np.ndarray  # (D,) 1 / standard deviation, 0 where the feature is constant

    @classmethod
    def fit(cls, feature_ND: np.ndarray) -> "Standardiser":
        """Learns mean and population standard deviation of each feature (column)."""
        mean_D = feature_ND.mean(axis=0)
        std_D = feature_ND.std(axis=0)
        # A constant column has a deviation of rounding size, not of zero.
        varies_D = std_D > 1e-12 * np.maximum(np.abs(mean_D), np.finfo(np.float64).tiny)
        scale_D = np.divide(1.0, std_D, out=np.zeros_like(std_D), where=varies_D)
        return cls(mean_D, scale_D)

    def __call__(self, feature_ND: np.ndarray) -> np.ndarray:
        """Applies the learned shift and scale."""
        return (feature_ND - self.mean) * self.scale


class _Pair(NamedTuple):
    """One step of the search and how it bent the gradient."""

    change: np.ndarray
    bend: np.ndarray
    curvature: float


class LogisticRegression:
    """The training clips of one fit, standardised and rotated once, solved for any L2.

    The objective is the mean cross-entropy plus `l2 / 2` times the sum of squared weights; the
    intercept is not penalised. Classes are those present in the labels.
    """

    def __init__(self, feature_ND: np.ndarray, label_N: np.ndarray) -> None:
        """Takes finite float64 features (N, D) and integer labels (N,) of two classes or more."""
        self.class_C, self._target_N = np.unique(label_N, return_inverse=True)
        self._standardise = Standardiser.fit(feature_ND)
        standardised_ND = self._standardise(feature_ND)
        # The optimum lies in the row space, so R = min(N, D) directions are all it can use.
        _, singular_R, self._rotation_RD = np.linalg.svd(standardised_ND, full_matrices=False)
        self._input_NR1 = self._rotate(standardised_ND)
        self._second_moment_R1 = np.append(singular_R**2 / len(feature_ND), 1.0)

    def solve(
        self,
        l2: float,
        *,
        start_R1C: np.ndarray | None = None,
        gradient_tolerance: float = 1e-7,
    ) -> np.ndarray:
        """Minimises the objective from `start_R1C` (zero if None); returns weights (R + 1, C).

        `gradient_tolerance` bounds the largest absolute entry of the gradient at the end.
        """
        penalty_R1 = np.full(len(self._second_moment_R1), l2)
        penalty_R1[-1] = 0.0
        # Bohning (1992): the Hessian of the cross-entropy is at most half the second moment.
        curvature_R1 = 0.5 * self._second_moment_R1 + penalty_R1
        curvature_R1 = np.maximum(curvature_R1, 1e-12 * curvature_R1.max())
        if start_R1C is None:
            start_R1C = np.zeros((len(curvature_R1), len(self.class_C)))
        return _minimise(
            lambda weight_R1C: self.objective(weight_R1C, penalty_R1[:, None]),
            start_R1C,
            inverse_curvature=1.0 / curvature_R1[:, None],
            gradient_tolerance=gradient_tolerance,
        )

    def log_probability(self, weight_R1C: np.ndarray, feature_MD: np.ndarray) -> np.ndarray:
        """Log-probabilities (M, C) of the present classes, in the order of `class_C`."""
        return _log_softmax(self._rotate(self._standardise(feature_MD)) @ weight_R1C)

    def objective(
        self, weight_R1C: np.ndarray, penalty_R1: np.ndarray | float
    ) -> tuple[float, np.ndarray]:
        """Value and gradient; `penalty_R1` is the L2 of each row, broadcast to (R + 1, 1)."""
        num_clips = len(self._target_N)
        log_probability_NC = _log_softmax(self._input_NR1 @ weight_R1C)
        rows_N = np.arange(num_clips)
        penalised_R1C = penalty_R1 * weight_R1C
        value = -log_probability_NC[rows_N, self._target_N].mean()
        value += 0.5 * float((penalised_R1C * weight_R1C).sum())
        residual_NC = np.exp(log_probability_NC)
        residual_NC[rows_N, self._target_N] -= 1.0
        return value, self._input_NR1.T @ residual_NC / num_clips + penalised_R1C

    def _rotate(self, standardised_ND: np.ndarray) -> np.ndarray:
        ones_N1 = np.ones((len(standardised_ND), 1))
        return np.hstack((standardised_ND @ self._rotation_RD.T, ones_N1))


def _minimise(
    objective: Callable[[np.ndarray], tuple[float, np.ndarray]],
    weight: np.ndarray,
    *,
    inverse_curvature: np.ndarray,
    gradient_tolerance: float,
) -> np.ndarray:
    """L-BFGS (Nocedal & Wright, Algorithm 7.5) with a diagonal first guess of the curvature."""
    pairs: deque[_Pair] = deque(maxlen=_MEMORY)
    value, gradient = objective(weight)
    for _ in range(_MAX_ITERATIONS):
        if np.abs(gradient).max() <= gradient_tolerance:
            break
        direction = -_apply_inverse_hessian(gradient, pairs, inverse_curvature)
        slope = float((gradient * direction).sum())
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
        curvature = float((change * bend).sum())
        if curvature > 0:
            pairs.append(_Pair(change, bend, curvature))
        weight, value, gradient = trial, trial_value, trial_gradient
    return weight


def _apply_inverse_hessian(
    gradient: np.ndarray,
    pairs: deque[_Pair],
    inverse_curvature: np.ndarray,
) -> np.ndarray:
    """The two-loop recursion (Nocedal & Wright, Algorithm 7.4)."""
    result = gradient.copy()
    shares = []
    for change, bend, curvature in reversed(pairs):
        share = float((change * result).sum()) / curvature
        result -= share * bend
        shares.append(share)
    result *= inverse_curvature
    if pairs:
        _, bend, curvature = pairs[-1]
        result *= curvature / float((bend * inverse_curvature * bend).sum())
    for (change, bend, curvature), share in zip(pairs, reversed(shares), strict=True):
        result += (share - float((bend * result).sum()) / curvature) * change
    return result


def _log_softmax(logit_NC: np.ndarray) -> np.ndarray:
    shifted_NC = logit_NC - logit_NC.max(axis=1, keepdims=True)
    return shifted_NC - np.log(np.exp(shifted_NC).sum(axis=1, keepdims=True))
