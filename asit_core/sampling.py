"""Class-balanced sampling of training clips.

A file of sampling weights that was made for another download is a silent loss of accuracy, so the
weights here carry a fingerprint of the clips and labels they were computed from.

Shapes: `N` clips, `C` classes.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from asit_core.seeding import stream

_NUMERATOR, _OFFSET = 1000.0, 0.01  # AST's; the numerator only keeps the figures readable


class SamplingWeights(NamedTuple):
    """One weight per clip, and the fingerprint of what they were computed from."""

    weight_N: Tensor
    fingerprint: str


def class_counts(labels: Sequence[Sequence[int]], *, num_classes: int) -> Tensor:
    """How many clips hold each class, int64 (C,); 0 for a class that none holds.

    Raises:
        ValueError: If a class number is out of range.
    """
    held = [index for classes in labels for index in classes]
    for index in held:
        if not 0 <= index < num_classes:
            raise ValueError(f"labels must be in [0, {num_classes}), but got {index}")
    return torch.bincount(torch.tensor(held, dtype=torch.int64), minlength=num_classes)


def balanced_weights(
    clip_ids: Sequence[str], labels: Sequence[Sequence[int]], *, num_classes: int
) -> SamplingWeights:
    """A clip weighs as much as its classes are rare.

    Args:
        clip_ids: Names of the N training clips.
        labels: Class numbers of each, at least one.
        num_classes: Number of classes; those that no clip holds play no part.

    Returns:
        float64 weights (N,): the sum over a clip's labels of 1000 / (count + 0.01).

    Raises:
        ValueError: If the lengths differ, a clip has no label, or a class is out of range.

    Source: PSLA (arXiv:2102.01243), balanced sampling, and AST's released weight file.
    """
    fingerprint = labels_fingerprint(clip_ids, labels, num_classes=num_classes)
    for clip_id, classes in zip(clip_ids, labels, strict=True):
        if not classes:
            raise ValueError(f"labels of clip {clip_id!r} must hold a class, but got none")
    counts_C = class_counts(labels, num_classes=num_classes)
    class_weights = (_NUMERATOR / (counts_C.double() + _OFFSET)).tolist()
    weights = [sum(class_weights[index] for index in classes) for classes in labels]
    return SamplingWeights(torch.tensor(weights, dtype=torch.float64), fingerprint)


def labels_fingerprint(
    clip_ids: Sequence[str], labels: Sequence[Sequence[int]], *, num_classes: int
) -> str:
    """Hash (16 hexadecimal digits) of the clips in their order, their labels and the class count.

    Raises:
        ValueError: If the lengths differ.
    """
    if len(clip_ids) != len(labels):
        raise ValueError(
            f"labels must be one entry per clip ({len(clip_ids)}), but got {len(labels)}"
        )
    digest = hashlib.blake2b(str(num_classes).encode(), digest_size=8)
    for clip_id, classes in zip(clip_ids, labels, strict=True):
        held = ",".join(str(index) for index in classes)
        digest.update(f"\x1e{clip_id}\x1f{held}".encode())
    return digest.hexdigest()


def check_weights(
    weights: SamplingWeights,
    clip_ids: Sequence[str],
    labels: Sequence[Sequence[int]],
    *,
    num_classes: int,
) -> None:
    """Refuse weights that were computed from other clips or labels.

    Raises:
        ValueError: If the fingerprints differ.
    """
    expected = labels_fingerprint(clip_ids, labels, num_classes=num_classes)
    if weights.fingerprint != expected:
        raise ValueError(
            f"weights must be those of these clips and labels ({expected}), "
            f"but got {weights.fingerprint}; compute them again with balanced_weights"
        )


def sample_clips(weights: SamplingWeights, *, num_draws: int, seed: int, epoch: int) -> Tensor:
    """An epoch's clips, drawn with replacement in proportion to their weights.

    Returns:
        int64 row numbers (num_draws,), a function of the weights, seed and epoch alone.

    Raises:
        ValueError: If no weight is above 0, or one is negative or not finite.

    Source: the inverse of the cumulated weights; AST uses torch's `WeightedRandomSampler`, which
    draws from the global generator and takes at most 2^24 clips.
    """
    weight_N = weights.weight_N
    if not bool((weight_N.isfinite() & (weight_N >= 0.0)).all()) or not bool((weight_N > 0).any()):
        raise ValueError("weights must be finite, at least 0 and not all 0, but they are not")
    cumulated_N = weight_N.cumsum(0)
    generator = stream(seed, "balanced_sampling", epoch)
    draws = torch.rand(num_draws, generator=generator, dtype=torch.float64) * cumulated_N[-1]
    return torch.searchsorted(cumulated_N, draws, right=True).clamp(max=len(weight_N) - 1)


def occurrence_ids(clip_ids: Sequence[str]) -> list[str]:
    """Names under which repeated clips of an epoch draw different crops and augmentations.

    The first time a clip keeps its name; the second time it is `name#1`, and so on.
    """
    seen: Counter[str] = Counter()
    names = []
    for clip_id in clip_ids:
        names.append(f"{clip_id}#{seen[clip_id]}" if seen[clip_id] else clip_id)
        seen[clip_id] += 1
    return names
