"""The layer-weighted probe: one softmax over all layers, then logistic regression.

Shape legend: N training clips, M test clips, B clips of a chunk, L layers, D features, C classes.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from asit_core.logistic_regression import Standardiser, few_threads
from asit_core.probe.inputs import check_can_learn, check_finite, checked_label
from asit_core.probe.pooled import fit
from asit_core.probe.validation import Groups

_MAX_STEPS = 1000  # per penalty; a bound, the tolerance of the gradient is to end the search


class LayerProbeResult(NamedTuple):
    """Outcome of `layer_probe`."""

    scores_MC: Tensor  # float64 class probabilities of the test clips
    l2: float  # the penalty that the inner validation chose
    layer_weight_L: Tensor  # float64 share of each layer; sums to 1


@torch.no_grad()
def layer_probe(
    train_NLD: Tensor,
    train_label: Tensor,
    test_MLD: Tensor,
    *,
    num_classes: int,
    group_N: Groups | None = None,
    seed: int = 0,
) -> LayerProbeResult:
    """Linear probe on a softmax-weighted mean of every layer's clip vector.

    Layers are standardised one by one, so that a layer's share says how much it is used and not how
    large its activations are. Shares start even and are learned with the classifier (see
    `pooled.py`); the penalty falls on both and is chosen as `linear_probe` chooses it. A mean over
    tokens may be taken before, since it commutes with that over layers:
    `torch.stack([tokens[:, C:].mean(1) for tokens in encoder.layers(log_mel_BTF)], dim=1)`, C being
    the encoder's class tokens.

    Args:
        train_NLD: Finite clip vectors of the training clips, one per layer.
        train_label: Integer labels (N,), or boolean ones (N, num_classes), as for `linear_probe`.
        test_MLD: Finite clip vectors of the clips to classify.
        num_classes: C.
        group_N: What must stay together in the inner validation.
        seed: Draws the order in which equally large groups are dealt to the folds.

    Returns:
        Float64 probabilities (M, C) on the CPU, the chosen penalty and the layers' shares.

    Raises:
        ValueError: If shapes or labels do not fit, a feature is not finite, or the labels leave
            nothing to learn.

    Source: the weighted sum of SUPERB (arXiv:2105.01051), here solved in full batch.
    """
    if train_NLD.ndim != 3 or test_MLD.ndim != 3 or train_NLD.shape[1:] != test_MLD.shape[1:]:
        raise ValueError(
            "train_NLD and test_MLD must be (N, L, D) and (M, L, D), but got "
            f"{tuple(train_NLD.shape)} and {tuple(test_MLD.shape)}"
        )
    label = checked_label(train_label, len(train_NLD), num_classes)
    check_can_learn(label)
    check_finite("train_NLD", train_NLD)
    check_finite("test_MLD", test_MLD)
    layer_NLD = train_NLD.cpu().double()
    as_they_are = layer_NLD.new_ones(layer_NLD.shape[1:])
    pool = LayerPool(layer_NLD, Standardiser(torch.zeros_like(as_they_are), as_they_are))
    with few_threads(layer_NLD.numel() * num_classes):
        model, l2 = fit(pool, label, group_N=group_N, seed=seed, max_steps=_MAX_STEPS)
        test_pool = LayerPool(test_MLD.cpu().double(), model.pool.standardise)
        logits_MC = model.logits(test_pool, torch.arange(len(test_MLD)))
    layer_weight_L = torch.softmax(model.pool_weight, dim=0)
    return LayerProbeResult(model.likelihood.scores(logits_MC, num_classes), l2, layer_weight_L)


class LayerPool:
    """Weighted mean over layers, the same for every clip."""

    def __init__(self, layer_NLD: Tensor, standardise: Standardiser) -> None:
        self._layer_NLD, self.standardise = layer_NLD, standardise
        self.num_weights, num_features = layer_NLD.shape[1:]
        self.elements_per_clip = self.num_weights * num_features

    def of_clips(self, rows_N: Tensor) -> "LayerPool":
        """The same layers, standardised by those of some clips."""
        return LayerPool(self._layer_NLD, Standardiser.fit(self._layer_NLD[rows_N]))

    def __call__(self, weight_P: Tensor, rows_B: Tensor) -> Tensor:
        """Float64 vectors (B, D) of some clips, differentiable by the layers' logits."""
        layer_BLD = self.standardise(self._layer_NLD[rows_B])
        return torch.einsum("l,bld->bd", torch.softmax(weight_P, dim=0), layer_BLD)
