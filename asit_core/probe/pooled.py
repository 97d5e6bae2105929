"""Logistic regression on a learned average: which layers, or which tokens, speak for a clip.

A pool turns its own few weights into a clip vector, differentiably: a softmax over candidates, then
their weighted mean. Pool and classifier are fitted together, full batch, by L-BFGS from the uniform
mean. No draw is made and no learning rate chosen. The problem is not convex, so the penalties are
walked from the strongest, where the classifier is nearly zero, down to the one chosen, each from
the last solution; the inner validation judges the same walk.

Shape legend: N training clips, M other clips, B clips of a chunk, D features, C classes, P weights
of the pool; a trailing 1 is the intercept.
"""

from collections.abc import Callable, Iterator
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from asit_core.lbfgs import minimise
from asit_core.likelihood import likelihood_of
from asit_core.probe.validation import L2_PATH, Groups, choose_l2, splits

_TOLERANCE = 1e-4  # of the gradient, as on the linear probe's path
_MAX_ELEMENTS = 2**22  # of a chunk in float64: 32 MiB


class Pool(Protocol):
    """Clip vectors as a function of weights; at zero weights the uniform mean."""

    num_weights: int
    elements_per_clip: int

    def __call__(self, weight_P: Tensor, rows_B: Tensor) -> Tensor:
        """Float64 vectors (B, D) of some clips, differentiable by the weights."""
        ...

    def of_clips(self, rows_N: Tensor) -> Self:
        """The same pool, standardised anew by these clips alone."""
        ...


PoolT = TypeVar("PoolT", bound=Pool)


class PooledRegression(Generic[PoolT]):
    """The clips of one fit. The penalty `l2 / 2` falls on pool weights and classifier alike."""

    def __init__(self, pool: PoolT, label: Tensor, rows_N: Tensor, *, max_steps: int) -> None:
        """Takes the labels of all clips, the rows (int64) to fit on and the steps per penalty."""
        self.pool, self._rows_N, self._max_steps = pool.of_clips(rows_N), rows_N, max_steps
        self.likelihood = likelihood_of(label[rows_N])
        start = torch.zeros(pool.num_weights, dtype=torch.float64)
        mean_ND = torch.cat([self.pool(start, rows_N[chunk]) for chunk in self._chunks(rows_N)])
        # Only a change of basis, in which the classifier's curvature is nearly diagonal.
        moment_D, self._rotation_DD = torch.linalg.eigh(mean_ND.T @ mean_ND / len(rows_N))
        num_classes = len(self.likelihood.class_C)
        moment_D1 = torch.cat((moment_D.clamp_min(0.0), moment_D.new_ones(1)))
        bound_D1C = self.likelihood.curvature_bound * moment_D1[:, None].expand(-1, num_classes)
        # Nothing is known of the pool's own curvature; that of a unit feature is the first guess.
        self._bound = torch.cat(
            (torch.full_like(start, self.likelihood.curvature_bound), bound_D1C.flatten())
        )
        self._is_penalised = torch.ones_like(self._bound)
        self._is_penalised[-num_classes:] = 0.0
        self._weight = torch.zeros_like(self._bound)

    @property
    def pool_weight(self) -> Tensor:
        """Weights (P,) of the pool after the last `solve`."""
        return self._weight[: self.pool.num_weights]

    def solve(self, l2: float) -> None:
        """Moves towards a minimum under this penalty, from where the last one ended."""
        curvature = self._bound + l2 * self._is_penalised
        self._weight = minimise(
            lambda weight: self.objective(weight, l2),
            self._weight,
            inverse_curvature=1.0 / curvature.clamp_min(1e-12 * float(curvature.max())),
            gradient_tolerance=_TOLERANCE,
            max_iterations=self._max_steps,
        )

    def objective(self, weight: Tensor, l2: float) -> tuple[float, Tensor]:
        """Value and gradient; `weight` is the pool's P weights, then (D + 1, C) in one row."""
        num_pool, num_clips = self.pool.num_weights, len(self._rows_N)
        classifier_D1C = weight[num_pool:].unflatten(0, (-1, len(self.likelihood.class_C)))
        penalised = l2 * self._is_penalised * weight
        value = 0.5 * float(torch.dot(penalised, weight))
        gradient = penalised
        gradient_D1C = gradient[num_pool:].view_as(classifier_D1C)
        for chunk in self._chunks(self._rows_N):
            pool_weight_P = weight[:num_pool].clone().requires_grad_()
            with torch.enable_grad():
                vector_BD = self.pool(pool_weight_P, self._rows_N[chunk])
            input_BD1 = self._rotate(vector_BD.detach())
            loss, residual_BC = self.likelihood.rows(chunk).loss_and_residual(
                input_BD1 @ classifier_D1C
            )
            residual_BC /= num_clips
            value += float(loss) * len(residual_BC) / num_clips
            gradient_D1C += input_BD1.T @ residual_BC
            by_vector_BD = residual_BC @ classifier_D1C[:-1].T @ self._rotation_DD.T
            (by_pool_P,) = torch.autograd.grad(vector_BD, pool_weight_P, by_vector_BD)
            gradient[:num_pool] += by_pool_P
        return value, gradient

    def logits(self, pool: PoolT, rows_M: Tensor) -> Tensor:
        """Logits (M, C) of clips of `pool`, which must be standardised as this one's."""
        classifier_D1C = self._weight[self.pool.num_weights :].unflatten(
            0, (-1, len(self.likelihood.class_C))
        )
        logits = [
            self._rotate(pool(self.pool_weight, rows_M[chunk])) @ classifier_D1C
            for chunk in self._chunks(rows_M)
        ]
        return torch.cat(logits) if logits else classifier_D1C.new_zeros(0, classifier_D1C.shape[1])

    def _rotate(self, vector_BD: Tensor) -> Tensor:
        rotated_BD = vector_BD @ self._rotation_DD
        return torch.hstack((rotated_BD, rotated_BD.new_ones(len(rotated_BD), 1)))

    def _chunks(self, rows: Tensor) -> Iterator[slice]:
        size = max(1, _MAX_ELEMENTS // self.pool.elements_per_clip)
        return (slice(start, start + size) for start in range(0, len(rows), size))


def fit(
    pool: PoolT, label: Tensor, *, group_N: Groups | None, seed: int, max_steps: int
) -> tuple[PooledRegression[PoolT], float]:
    """Chooses the penalty by the inner folds, then walks down to it on all training clips."""
    folds = [
        _validation_loss(pool, label, kept_N, judged_N, max_steps=max_steps)
        for kept_N, judged_N in splits(label, group_N=group_N, seed=seed)
    ]
    chosen_l2 = choose_l2(folds)
    model = PooledRegression(pool, label, torch.arange(len(label)), max_steps=max_steps)
    for l2 in L2_PATH:
        if l2 >= chosen_l2:
            model.solve(l2)
    return model, chosen_l2


def _validation_loss(
    pool: Pool, label: Tensor, kept_N: Tensor, judged_N: Tensor, *, max_steps: int
) -> Callable[[float], float]:
    """Summed cross-entropy of a fold's held-out clips, to be asked from the strongest penalty."""
    model = PooledRegression(pool, label, kept_N.nonzero()[:, 0], max_steps=max_steps)
    rows_M = judged_N.nonzero()[:, 0]

    def loss(l2: float) -> float:
        model.solve(l2)
        return model.likelihood.summed_loss(model.logits(model.pool, rows_M), label[rows_M])

    return loss
