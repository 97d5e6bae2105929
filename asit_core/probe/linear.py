"""The linear probe: logistic regression on clip vectors.

Shape legend: N training clips, M test clips, D features, C classes; R as in logistic_regression.py.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from asit_core.logistic_regression import LogisticRegression, few_threads
from asit_core.probe.inputs import check_can_learn, checked_vectors
from asit_core.probe.validation import Groups, choose_l2, splits

_PATH_TOLERANCE = 1e-4  # of the gradient; the validation loss is then right to three digits


class LinearProbeResult(NamedTuple):
    """Outcome of `linear_probe`."""

    scores_MC: Tensor  # float64 class probabilities of the test clips
    l2: float  # the penalty that the inner validation chose


@torch.no_grad()
def linear_probe(
    train_ND: Tensor,
    train_label: Tensor,
    test_MD: Tensor,
    *,
    num_classes: int,
    group_N: Groups | None = None,
    seed: int = 0,
) -> LinearProbeResult:
    """Logistic regression on standardised features, solved to its optimum.

    With one label per clip it is multinomial; with boolean labels it is one regression against the
    rest per class, all under one penalty. Features are standardised with the training clips' mean
    and deviation (a constant feature is ignored). The L2 penalty is the one of `L2_PATH` with the
    lowest cross-entropy on held-out training clips: four folds, stratified by class, a group never
    on both sides. Where no clip can be held out, it is `DEFAULT_L2`. Test clips choose nothing.

    Args:
        train_ND: Finite features of the training clips.
        train_label: Integer labels (N,) in [0, num_classes), at least two of them different; or
            boolean ones (N, num_classes), with a class that some clips have and others have not.
        test_MD: Finite features of the clips to classify.
        num_classes: C.
        group_N: What must stay together, such as the recording a clip was cut from.
        seed: Draws the order in which equally large groups are dealt to the folds.

    Returns:
        Float64 probabilities (M, C) on the CPU and the chosen penalty. Rows sum to 1 with one label
        per clip; with several, a class of no training clip scores 0 and one of every clip 1.

    Raises:
        ValueError: If shapes or labels do not fit, a feature is not finite, or the labels leave
            nothing to learn.

    Source: the frozen linear evaluation of the field (e.g. Kornblith et al. 2019,
    arXiv:1805.08974, which fits the same model by L-BFGS with L2 from a validation split).
    """
    train_ND, train_label, test_MD = checked_vectors(train_ND, train_label, test_MD, num_classes)
    check_can_learn(train_label)
    folds = splits(train_label, group_N=group_N, seed=seed)
    num_present = num_classes if train_label.ndim == 2 else len(train_label.unique())
    with few_threads(train_ND.numel() * num_present):
        l2 = choose_l2([_Fold(train_ND, train_label, *fold).validation_loss for fold in folds])
        model = LogisticRegression(train_ND, train_label)
        logits_MC = model.logits(model.solve(l2), test_MD)
    return LinearProbeResult(model.likelihood.scores(logits_MC, num_classes), l2)


class _Fold:
    """One inner split; keeps its weights, so that each penalty starts from the last optimum."""

    def __init__(self, feature_ND: Tensor, label: Tensor, kept_N: Tensor, judged_N: Tensor) -> None:
        self._model = LogisticRegression(feature_ND[kept_N], label[kept_N])
        self._feature_MD, self._label = feature_ND[judged_N], label[judged_N]
        self._weight_R1C: Tensor | None = None

    def validation_loss(self, l2: float) -> float:
        """Summed cross-entropy of the held-out clips."""
        self._weight_R1C = self._model.solve(
            l2, start_R1C=self._weight_R1C, gradient_tolerance=_PATH_TOLERANCE
        )
        logits_MC = self._model.logits(self._weight_R1C, self._feature_MD)
        return self._model.likelihood.summed_loss(logits_MC, self._label)
