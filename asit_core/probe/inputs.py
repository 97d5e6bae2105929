"""Checks what every probe takes: finite features and labels of one of two kinds."""

import torch
from torch import Tensor


def checked_vectors(
    train_ND: Tensor, label: Tensor, test_MD: Tensor, num_classes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Clip vectors in float64 and labels as `checked_label` gives them, on the CPU."""
    if train_ND.ndim != 2 or test_MD.ndim != 2 or train_ND.shape[1] != test_MD.shape[1]:
        raise ValueError(
            "train_ND and test_MD must be (N, D) and (M, D), but got "
            f"{tuple(train_ND.shape)} and {tuple(test_MD.shape)}"
        )
    label = checked_label(label, len(train_ND), num_classes)
    check_finite("train_ND", train_ND)
    check_finite("test_MD", test_MD)
    return train_ND.cpu().double(), label, test_MD.cpu().double()


def checked_label(label: Tensor, num_clips: int, num_classes: int) -> Tensor:
    """Training labels on the CPU: int64 (N,) in [0, C), or boolean (N, C)."""
    if num_clips == 0 or label.ndim not in (1, 2) or len(label) != num_clips:
        raise ValueError(
            "train_label must hold one label (N,) or one boolean row (N, C) for each of N >= 1 "
            f"clips, but got {tuple(label.shape)} for {num_clips} clips"
        )
    if label.ndim == 2:
        if label.dtype != torch.bool or label.shape[1] != num_classes:
            raise ValueError(
                f"train_label of several classes a clip must be boolean (N, {num_classes}), "
                f"but got {label.dtype} {tuple(label.shape)}"
            )
        return label.cpu()
    if label.dtype == torch.bool or label.is_floating_point() or label.is_complex():
        raise ValueError(f"train_label of one class a clip must be integer, but got {label.dtype}")
    if label.min() < 0 or label.max() >= num_classes:
        raise ValueError(
            f"train_label must be in [0, {num_classes}), but got labels from "
            f"{int(label.min())} to {int(label.max())}"
        )
    return label.cpu().long()


def check_finite(name: str, feature: Tensor) -> None:
    """Refuses features, one clip a row, that hold NaN or infinity."""
    bad_rows = (~feature.isfinite()).flatten(1).any(dim=1).nonzero()[:, 0].tolist()
    if bad_rows:
        raise ValueError(
            f"{name} must be finite, but {len(bad_rows)} of {len(feature)} rows are not "
            f"(first: row {bad_rows[0]}); did the encoder diverge?"
        )


def check_can_learn(label: Tensor) -> None:
    """Refuses labels that leave a regression nothing to tell apart."""
    if label.ndim == 1 and len(label.unique()) < 2:
        raise ValueError(
            f"train_label must hold at least two classes, but got only label {int(label[0])}"
        )
    if label.ndim == 2 and not (label.any(dim=0) & ~label.all(dim=0)).any():
        raise ValueError(
            "train_label must hold a class that some clips have and others have not, but each of "
            f"the {label.shape[1]} classes is in all {len(label)} clips or in none"
        )
