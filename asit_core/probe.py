"""Measures a frozen representation: k nearest neighbours and a linear probe on clip vectors.

Both are deterministic functions of their inputs, so two encoders differ by their features alone.
Scores are probabilities (rows sum to 1), which the platform stores per clip. A class without a
training clip scores 0 everywhere: it counts as an error, never as a crash.

Shape legend: N training clips, M test clips, D features, C classes, B clips, T frames, F mel bins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from asit_core.logistic_regression import LogisticRegression, few_threads
from asit_core.seeding import numpy_stream

L2_PATH = tuple(10.0 ** (exponent / 2) for exponent in range(4, -7, -1))
"""Penalties tried by the linear probe, strongest (100) first, weakest 0.001."""

DEFAULT_L2 = 0.1
"""Used when the training clips cannot be split, as with one clip (or recording) a class."""

_NUM_FOLDS = 4
_PATIENCE = 2  # the validation loss along the path has one valley; two rises in a row end the walk
_PATH_TOLERANCE = 1e-4  # of the gradient; the validation loss is then right to three digits
_KNN_CHUNK = 1024

_KINDS = ("linear", "knn")
_FEATURES = ("mean", "cls", "both")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeConfig:
    """How a frozen encoder is measured.

    Attributes:
        kind: `linear` (see `linear_probe`) or `knn` (see `knn`).
        features: Clip vector: `mean` of the patch tokens, `cls` token, or `both` side by side.
        k: Neighbours that vote; read by `knn` only.
        every_epochs: Epochs between two evaluations; the last epoch is always evaluated.
    """

    __pydantic_config__ = {"extra": "forbid"}

    kind: Literal["linear", "knn"] = "linear"
    features: Literal["mean", "cls", "both"] = "mean"
    k: int = 10
    every_epochs: int = 1

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"kind must be one of {', '.join(_KINDS)}, but got {self.kind!r}")
        if self.features not in _FEATURES:
            raise ValueError(
                f"features must be one of {', '.join(_FEATURES)}, but got {self.features!r}"
            )
        if self.k < 1:
            raise ValueError(f"k must be >= 1, but got {self.k}")
        if self.every_epochs < 1:
            raise ValueError(f"every_epochs must be >= 1, but got {self.every_epochs}")


class LinearProbeResult(NamedTuple):
    """Outcome of `linear_probe`."""

    scores_MC: Tensor  # float64 class probabilities of the test clips
    l2: float  # the penalty that the inner validation chose


@torch.no_grad()
def knn(
    train_ND: Tensor,
    train_label_N: Tensor,
    test_MD: Tensor,
    *,
    num_classes: int,
    k: int = 10,
    temperature: float = 0.07,
) -> Tensor:
    """Weighted vote of the k nearest training clips by cosine similarity.

    Args:
        train_ND: Finite features of the training clips, any scale.
        train_label_N: Integer labels in [0, num_classes).
        test_MD: Finite features of the clips to classify.
        num_classes: C.
        k: Neighbours, at most N.
        temperature: A neighbour of similarity s votes with weight exp(s / temperature).

    Returns:
        Float64 shares of the vote on the CPU, (M, C); rows sum to 1.

    Raises:
        ValueError: If shapes or labels do not fit, a feature is not finite, k is not in [1, N] or
            the temperature is not positive.

    Source: Wu et al. 2018 (arXiv:1805.01978), Eq. 6-7, as used by DINO (arXiv:2104.14294).
    """
    train_ND, train_label_N, test_MD = _checked(train_ND, train_label_N, test_MD, num_classes)
    if not 1 <= k <= len(train_ND):
        raise ValueError(f"k must be in [1, {len(train_ND)}] (the training clips), but got {k}")
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, but got {temperature}")
    train_ND = normalize(train_ND, dim=1)
    scores_MC = torch.zeros(len(test_MD), num_classes, dtype=torch.float64)
    for start in range(0, len(test_MD), _KNN_CHUNK):
        rows = slice(start, start + _KNN_CHUNK)
        similarity_MN = normalize(test_MD[rows], dim=1) @ train_ND.T
        nearest_Mk, index_Mk = similarity_MN.topk(k, dim=1)
        # The softmax over neighbours is the vote divided by its sum, and cannot overflow.
        vote_Mk = torch.softmax(nearest_Mk / temperature, dim=1)
        scores_MC[rows].scatter_add_(1, train_label_N[index_Mk], vote_Mk)
    return scores_MC


@torch.no_grad()
def linear_probe(
    train_ND: Tensor,
    train_label_N: Tensor,
    test_MD: Tensor,
    *,
    num_classes: int,
    group_N: Sequence[str] | Sequence[int] | Tensor | None = None,
    seed: int = 0,
) -> LinearProbeResult:
    """Multinomial logistic regression on standardised features, solved to its optimum.

    Features are standardised with the training clips' mean and deviation (a constant feature is
    ignored). The L2 penalty is the one of `L2_PATH` with the lowest cross-entropy on held-out
    training clips: four folds, stratified by class, a group never on both sides. Where no clip can
    be held out, it is `DEFAULT_L2`. Test clips choose nothing.

    Args:
        train_ND: Finite features of the training clips.
        train_label_N: Integer labels in [0, num_classes), at least two of them different.
        test_MD: Finite features of the clips to classify.
        num_classes: C.
        group_N: What must stay together, such as the recording a clip was cut from.
        seed: Draws the order in which equally large groups are dealt to the folds.

    Returns:
        Float64 probabilities (M, C) on the CPU and the chosen penalty.

    Raises:
        ValueError: If shapes or labels do not fit, a feature is not finite, or the training clips
            are all of one class.

    Source: the frozen linear evaluation of the field (e.g. Kornblith et al. 2019,
    arXiv:1805.08974, which fits the same model by L-BFGS with L2 from a validation split).
    """
    train_ND, train_label_N, test_MD = _checked(train_ND, train_label_N, test_MD, num_classes)
    present_C = train_label_N.unique()
    if len(present_C) < 2:
        raise ValueError(
            "train_label_N must hold at least two classes, but got only label "
            f"{int(train_label_N[0])}"
        )
    fold_N = _deal_folds(train_label_N.numpy(), _group_index(group_N, len(train_ND)), seed)
    with few_threads(train_ND.numel() * len(present_C)):
        l2 = _choose_l2(train_ND, train_label_N, torch.from_numpy(fold_N))
        model = LogisticRegression(train_ND, train_label_N)
        log_probability_MC = model.log_probability(model.solve(l2), test_MD)
    scores_MC = torch.zeros(len(test_MD), num_classes, dtype=torch.float64)
    scores_MC[:, present_C] = log_probability_MC.exp()
    return LinearProbeResult(scores_MC, l2)


def accuracy(scores_MC: Tensor, label_M: Tensor) -> float:
    """Share of clips whose highest score is their label's; the lower class wins a tie.

    Raises:
        ValueError: If there is no clip, the shapes disagree or a score is NaN.
    """
    if scores_MC.ndim != 2 or label_M.shape != scores_MC.shape[:1] or len(label_M) == 0:
        raise ValueError(
            "scores_MC must be (M, C) and label_M (M,) with M >= 1, but got "
            f"{tuple(scores_MC.shape)} and {tuple(label_M.shape)}"
        )
    if scores_MC.isnan().any():
        raise ValueError("scores_MC must not hold NaN")
    return float((scores_MC.argmax(dim=1) == label_M.to(scores_MC.device)).double().mean())


@torch.no_grad()
def log_mel_statistics(log_mel_BTF: Tensor, num_frames_B: Tensor) -> Tensor:
    """Mean and standard deviation of each mel bin over time: a clip vector without a network.

    Args:
        log_mel_BTF: Log-mel spectrograms, padded in time with anything finite.
        num_frames_B: Valid frames of each clip, in [1, T].

    Returns:
        Float32 (B, 2F): F means, then F population deviations (0 for a single frame).

    Raises:
        ValueError: If the shapes disagree or a count is outside [1, T].
    """
    if log_mel_BTF.ndim != 3 or num_frames_B.shape != log_mel_BTF.shape[:1]:
        raise ValueError(
            "log_mel_BTF must be (B, T, F) and num_frames_B (B,), but got "
            f"{tuple(log_mel_BTF.shape)} and {tuple(num_frames_B.shape)}"
        )
    max_frames = log_mel_BTF.shape[1]
    if ((num_frames_B < 1) | (num_frames_B > max_frames)).any():
        raise ValueError(
            f"num_frames_B must be in [1, {max_frames}], but got {num_frames_B.tolist()}"
        )
    log_mel_BTF = log_mel_BTF.float()
    num_frames_B11 = num_frames_B.to(log_mel_BTF.device)[:, None, None]
    frame_T1 = torch.arange(max_frames, device=log_mel_BTF.device)[:, None]
    padding_BT1 = frame_T1 >= num_frames_B11
    total_B1F = log_mel_BTF.masked_fill(padding_BT1, 0.0).sum(dim=1, keepdim=True)
    mean_B1F = total_B1F / num_frames_B11
    deviation_BTF = (log_mel_BTF - mean_B1F).masked_fill(padding_BT1, 0.0)
    variance_BF = deviation_BTF.square().sum(dim=1) / num_frames_B11[:, 0]
    return torch.cat((mean_B1F[:, 0], variance_BF.sqrt()), dim=1)


def _checked(
    train_ND: Tensor, train_label_N: Tensor, test_MD: Tensor, num_classes: int
) -> tuple[Tensor, Tensor, Tensor]:
    if train_ND.ndim != 2 or test_MD.ndim != 2 or train_ND.shape[1] != test_MD.shape[1]:
        raise ValueError(
            "train_ND and test_MD must be (N, D) and (M, D), but got "
            f"{tuple(train_ND.shape)} and {tuple(test_MD.shape)}"
        )
    if len(train_ND) == 0 or train_label_N.shape != train_ND.shape[:1]:
        raise ValueError(
            f"train_label_N must hold one label for each of N >= 1 clips, but got "
            f"{tuple(train_label_N.shape)} for {len(train_ND)} clips"
        )
    if train_label_N.is_floating_point() or train_label_N.is_complex():
        raise ValueError(f"train_label_N must be integer, but got {train_label_N.dtype}")
    if train_label_N.min() < 0 or train_label_N.max() >= num_classes:
        raise ValueError(
            f"train_label_N must be in [0, {num_classes}), but got labels from "
            f"{int(train_label_N.min())} to {int(train_label_N.max())}"
        )
    for name, feature in (("train_ND", train_ND), ("test_MD", test_MD)):
        bad_rows = (~feature.isfinite()).any(dim=1).nonzero()[:, 0].tolist()
        if bad_rows:
            raise ValueError(
                f"{name} must be finite, but {len(bad_rows)} of {len(feature)} rows are not "
                f"(first: row {bad_rows[0]}); did the encoder diverge?"
            )
    return train_ND.cpu().double(), train_label_N.cpu().long(), test_MD.cpu().double()


def _group_index(
    group_N: Sequence[str] | Sequence[int] | Tensor | None, num_clips: int
) -> np.ndarray:
    """Numbers the groups 0, 1, ...; without groups every clip is its own."""
    if group_N is None:
        return np.arange(num_clips)
    groups = group_N.tolist() if isinstance(group_N, Tensor) else list(group_N)
    if len(groups) != num_clips:
        raise ValueError(f"group_N must hold {num_clips} groups, but got {len(groups)}")
    return np.unique(np.array(groups), return_inverse=True)[1]


def _deal_folds(label_N: np.ndarray, group_N: np.ndarray, seed: int) -> np.ndarray:
    """Fold of each clip: groups, largest first, each to the fold that has least of its classes."""
    class_N = np.unique(label_N, return_inverse=True)[1]
    count_GC = np.zeros((group_N.max() + 1, class_N.max() + 1))
    np.add.at(count_GC, (group_N, class_N), 1)
    share_GC = count_GC / count_GC.sum(axis=0)
    order_G = numpy_stream(seed, "probe_folds").permutation(len(count_GC))
    order_G = order_G[np.argsort(-count_GC.sum(axis=1)[order_G], kind="stable")]
    fold_G = np.zeros(len(count_GC), dtype=np.int64)
    load_KC = np.zeros((_NUM_FOLDS, share_GC.shape[1]))
    for group in order_G:
        # the second term sends groups of a class that is spread evenly to the emptiest fold
        crowding_K = load_KC @ count_GC[group] + 1e-6 * load_KC.sum(axis=1)
        fold_G[group] = crowding_K.argmin()
        load_KC[fold_G[group]] += share_GC[group]
    return fold_G[group_N]


def _choose_l2(feature_ND: Tensor, label_N: Tensor, fold_N: Tensor) -> float:
    folds = [_Fold(feature_ND, label_N, fold_N == fold) for fold in fold_N.unique()]
    folds = [fold for fold in folds if fold.can_validate]
    if not folds:
        return DEFAULT_L2
    best_l2, best_loss, num_rises = DEFAULT_L2, np.inf, 0
    for l2 in L2_PATH:
        loss = sum(fold.validation_loss(l2) for fold in folds)
        if loss < best_loss:
            best_l2, best_loss, num_rises = l2, loss, 0
        else:
            num_rises += 1
        if num_rises == _PATIENCE:
            break
    return best_l2


class _Fold:
    """One inner split; keeps its weights, so that each penalty starts from the last optimum."""

    def __init__(self, feature_ND: Tensor, label_N: Tensor, held_out_N: Tensor) -> None:
        kept_N = ~held_out_N
        # A class that is only held out cannot be predicted at any penalty: it has no say.
        judged_N = held_out_N & torch.isin(label_N, label_N[kept_N])
        self.can_validate = bool(judged_N.any()) and len(label_N[kept_N].unique()) > 1
        if not self.can_validate:
            return
        self._model = LogisticRegression(feature_ND[kept_N], label_N[kept_N])
        self._feature_MD = feature_ND[judged_N]
        self._column_M1 = torch.searchsorted(self._model.class_C, label_N[judged_N])[:, None]
        self._weight_R1C: Tensor | None = None

    def validation_loss(self, l2: float) -> float:
        """Summed cross-entropy of the held-out clips."""
        self._weight_R1C = self._model.solve(
            l2, start_R1C=self._weight_R1C, gradient_tolerance=_PATH_TOLERANCE
        )
        log_probability_MC = self._model.log_probability(self._weight_R1C, self._feature_MD)
        return -float(log_probability_MC.gather(1, self._column_M1).sum())
