"""From the tasks' losses to the total that is differentiated: the one place where weights apply."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

_REGRESSIONS = ("reconstruction", "patch_regression")


def fixed_total(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The weighted sum of the losses, a scalar."""
    return torch.stack([weight * losses[name] for name, weight in weights.items()]).sum()


def log_variances(weights: Mapping[str, float]) -> nn.ParameterDict:
    """Log variance s of each task, where its factor in `uncertainty_total` is its weight.

    Args:
        weights: Each task's weight, above 0.
    """
    return nn.ParameterDict(
        {
            name: nn.Parameter(torch.tensor(math.log(_factor(name) / weight)))
            for name, weight in weights.items()
        }
    )


def uncertainty_total(losses: Mapping[str, Tensor], log_variances: nn.ParameterDict) -> Tensor:
    """The sum of exp(-s) loss + s / 2 with learned s; exp(-s) / 2 for a regression.

    Source: Kendall et al. (arXiv:1705.07115), Eqs. 7 and 10: s is the log variance of the task's
    noise.
    """
    terms = [
        _factor(name) * torch.exp(-log_variances[name]) * loss + 0.5 * log_variances[name]
        for name, loss in losses.items()
    ]
    return torch.stack(terms).sum()


def _factor(name: str) -> float:
    return 0.5 if name in _REGRESSIONS else 1.0
