"""Scores of tagging: mAP, AUC and d-prime, class by class and over the classes that can be scored.

A class without a positive clip has no average precision, and one that splits no clips no AUC: the
released programs average a NaN there, or count a zero. Here such classes are left out of the mean,
counted and named. Ranking metrics do not change under a sigmoid, so logits serve as well as
probabilities; `log_loss` takes probabilities and applies none.

The one module of `asit_core` that imports scikit-learn: import it by name.

Shape legend: M scored clips, C classes.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from asit_core.probe.clip_vectors import accuracy
from asit_core.protocol import Measurement, Protocol


class ClassMean(NamedTuple):
    """A metric of each class and its mean over those that have one."""

    mean: float
    by_class_C: Tensor  # float64; NaN where the class is left out
    left_out: tuple[int, ...]

    def __str__(self) -> str:
        num_classes = len(self.by_class_C)
        text = f"{self.mean:.4f} over {num_classes - len(self.left_out)} of {num_classes} classes"
        if not self.left_out:
            return text
        named = ", ".join(str(index) for index in self.left_out[:8])
        more = ", ..." if len(self.left_out) > 8 else ""
        return f"{text} (left out: {named}{more})"


def average_precision(scores_MC: Tensor, label_MC: Tensor) -> ClassMean:
    """Average precision of each class; its mean is mAP.

    Args:
        scores_MC: Finite scores, higher where a class is likelier; probabilities or logits.
        label_MC: Boolean.

    Returns:
        Values in (0, 1]; classes without a positive clip are left out.

    Raises:
        ValueError: If the shapes disagree, labels are not boolean, a score is not finite or no
            class can be scored.

    Source: the mean over recalls of the precision there, not interpolated, as AudioSet is scored
    (Hershey et al. 2017, arXiv:1609.09430).
    """
    label_MC = _checked(scores_MC, label_MC)
    has_positive_C = label_MC.any(dim=0)
    return _by_class(average_precision_score, scores_MC, label_MC, has_positive_C)


def roc_auc(scores_MC: Tensor, label_MC: Tensor) -> ClassMean:
    """Area under each class's ROC curve: the chance that a positive outranks a negative clip.

    Args:
        scores_MC: Finite scores, higher where a class is likelier; probabilities or logits.
        label_MC: Boolean.

    Returns:
        Values in [0, 1]; classes without a positive or without a negative clip are left out.

    Raises:
        ValueError: If the shapes disagree, labels are not boolean, a score is not finite or no
            class can be scored.

    Source: Fawcett, "An introduction to ROC analysis" (2006).
    """
    label_MC = _checked(scores_MC, label_MC)
    splits_clips_C = label_MC.any(dim=0) & ~label_MC.all(dim=0)
    return _by_class(roc_auc_score, scores_MC, label_MC, splits_clips_C)


def d_prime(auc: float) -> float:
    """Distance of two unit normals whose ROC curve has this area.

    Args:
        auc: In [0, 1]; for a set of classes their mean AUC, as AudioSet is scored.

    Returns:
        sqrt(2) times the inverse normal distribution; 0 at chance, infinite at 0 and 1.

    Raises:
        ValueError: If the area is outside [0, 1].

    Source: Hershey et al. 2017 (arXiv:1609.09430), whose figures AudioSet's are.
    """
    if not 0.0 <= auc <= 1.0:
        raise ValueError(f"auc must be in [0, 1], but got {auc}")
    return math.sqrt(2.0) * float(torch.special.ndtri(torch.tensor(auc, dtype=torch.float64)))


def log_loss(probability_MC: Tensor, label_MC: Tensor) -> float:
    """Binary cross-entropy of probabilities, averaged over clips and classes, in nats.

    Args:
        probability_MC: In [0, 1]: a sigmoid has been applied, once. A second one would squeeze them
            into [0.5, 0.73] and hold the loss near 0.69 however good the model.
        label_MC: Boolean.

    Returns:
        At least 0; infinite where a certain score is wrong.

    Raises:
        ValueError: If the shapes disagree, labels are not boolean or a value is outside [0, 1].
    """
    label_MC = _checked(probability_MC, label_MC)
    low, high = float(probability_MC.min()), float(probability_MC.max())
    if low < 0.0 or high > 1.0:
        raise ValueError(
            "probability_MC must be in [0, 1] (apply the sigmoid, once), but got values from "
            f"{low:.4g} to {high:.4g}"
        )
    probability_MC, target_MC = probability_MC.cpu().double(), label_MC.double()
    negative = torch.special.xlog1py(1.0 - target_MC, -probability_MC)
    return -float((torch.special.xlogy(target_MC, probability_MC) + negative).mean())


def measure(scores_MC: Tensor, label: Tensor, protocol: Protocol) -> Measurement:
    """The metric that the protocol names, with the protocol as its key.

    Args:
        scores_MC: Finite scores.
        label: Integer (M,) for accuracy, boolean (M, C) for the others.
        protocol: Must count these clips and classes.

    Raises:
        ValueError: If the counts differ from the protocol's, or as the metric's own function does.
    """
    for name, found in zip(("num_clips", "num_classes"), scores_MC.shape, strict=False):
        if getattr(protocol, name) != found:
            raise ValueError(
                f"{name} of the protocol must be that of the scores ({found}), "
                f"but got {getattr(protocol, name)}"
            )
    match protocol.metric:
        case "accuracy":
            return Measurement(value=accuracy(scores_MC, label), protocol=protocol)
        case "mAP":
            result = average_precision(scores_MC, label)
        case "AUC" | "d-prime":
            result = roc_auc(scores_MC, label)
    value = d_prime(result.mean) if protocol.metric == "d-prime" else result.mean
    return Measurement(value=value, protocol=protocol, left_out=result.left_out)


def _checked(scores_MC: Tensor, label_MC: Tensor) -> Tensor:
    if scores_MC.ndim != 2 or label_MC.shape != scores_MC.shape or scores_MC.numel() == 0:
        raise ValueError(
            "scores and labels must be (M, C) with M >= 1 and C >= 1, but got "
            f"{tuple(scores_MC.shape)} and {tuple(label_MC.shape)}"
        )
    if label_MC.dtype != torch.bool:
        raise ValueError(f"label_MC must be boolean, but got {label_MC.dtype}")
    if not scores_MC.isfinite().all():
        raise ValueError("scores must be finite, but some are NaN or infinite")
    return label_MC.cpu()


def _by_class(
    metric: Callable[[np.ndarray, np.ndarray], float],
    scores_MC: Tensor,
    label_MC: Tensor,
    is_scored_C: Tensor,
) -> ClassMean:
    if not is_scored_C.any():
        raise ValueError(
            f"label_MC must let at least one of {len(is_scored_C)} classes be scored, but each is "
            f"in none or all of the {len(label_MC)} clips"
        )
    scores, labels = scores_MC.detach().cpu().double().numpy(), label_MC.numpy()
    by_class_C = torch.full((len(is_scored_C),), math.nan, dtype=torch.float64)
    for index in is_scored_C.nonzero()[:, 0].tolist():
        by_class_C[index] = float(metric(labels[:, index], scores[:, index]))
    left_out = tuple((~is_scored_C).nonzero()[:, 0].tolist())
    return ClassMean(float(by_class_C[is_scored_C].mean()), by_class_C, left_out)
