"""Logistic regression solved to its optimum: a probe's result is then its features'.

Stochastic training of a linear probe adds its own noise and its own learning rate to every
comparison. Here the convex problem is solved to its optimum: full batch, float64, L-BFGS from zero.
The features are rotated to their principal axes first, which leaves the penalty and the optimum as
they are and makes the Hessian's known upper bound diagonal; with that as the first guess of the
curvature the search takes tens of steps, not thousands, on the strongly correlated features of a
transformer.

Shape legend: N clips, D features, R rotated features, C classes; a trailing 1 is the intercept.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from asit_core.lbfgs import minimise
from asit_core.likelihood import likelihood_of

_MIN_SIZE_FOR_THREADS = 10**8  # N * D * C


class Standardiser(NamedTuple):
    """Shift and scale learned on the training clips; a constant feature becomes exactly 0."""

    mean: Tensor  # (D,)
    scale: Tensor  # (D,), 1 / standard deviation, 0 where the feature is constant

    @classmethod
    def fit(cls, feature_ND: Tensor) -> "Standardiser":
        """Learns mean and population standard deviation of each feature (column)."""
        mean_D = feature_ND.mean(dim=0)
        return cls.of_moments(mean_D, feature_ND.std(dim=0, correction=0))

    @classmethod
    def of_moments(cls, mean_D: Tensor, std_D: Tensor) -> "Standardiser":
        """From moments already known."""
        # A constant column has a deviation of rounding size, not of zero.
        is_constant_D = std_D <= 1e-12 * mean_D.abs()
        return cls(mean_D, (1.0 / std_D).masked_fill(is_constant_D, 0.0))

    def __call__(self, feature_ND: Tensor) -> Tensor:
        """Applies the learned shift and scale."""
        return (feature_ND - self.mean) * self.scale


class LogisticRegression:
    """The training clips of one fit, standardised and rotated once, solved for any L2.

    The objective is the mean cross-entropy plus `l2 / 2` times the sum of squared weights; the
    intercept is not penalised. With one label per clip it is multinomial over the classes present;
    with boolean labels (N, A) it is one regression against the rest per class, side by side.
    """

    def __init__(self, feature_ND: Tensor, label: Tensor) -> None:
        """Takes finite float64 features (N, D) and labels from which something can be learned."""
        self.likelihood = likelihood_of(label)
        self.class_C = self.likelihood.class_C
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
        curvature_R11 = self.likelihood.curvature_bound * self._second_moment_R1[:, None]
        curvature_R11 = curvature_R11 + penalty_R11
        return minimise(
            lambda weight_R1C: self.objective(weight_R1C, l2),
            start_R1C,
            inverse_curvature=1.0 / curvature_R11.clamp_min(1e-12 * float(curvature_R11.max())),
            gradient_tolerance=gradient_tolerance,
        )

    def logits(self, weight_R1C: Tensor, feature_MD: Tensor) -> Tensor:
        """Logits (M, C) of the classes that can be learned, in the order of `class_C`."""
        return self._rotate(self._standardise(feature_MD)) @ weight_R1C

    def objective(self, weight_R1C: Tensor, l2: float) -> tuple[float, Tensor]:
        """Value and gradient at `weight_R1C`."""
        value, residual_NC = self.likelihood.loss_and_residual(self._input_NR1 @ weight_R1C)
        penalised_R1C = self._penalty(l2) * weight_R1C
        value += 0.5 * torch.vdot(penalised_R1C.flatten(), weight_R1C.flatten())
        gradient_R1C = torch.addmm(
            penalised_R1C, self._input_NR1.T, residual_NC, alpha=1 / len(residual_NC)
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
