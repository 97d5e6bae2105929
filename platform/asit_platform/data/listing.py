"""What every reader of a data set gives: its clips, before any sound was read.

A reader says who, where, which labels and which fold. Everything after it is the same for all.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from asit_platform.errors import PlatformError

LabelKind = Literal["single", "multi", "none"]
Content = Literal["log_mel", "waveform"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A sound file, or a part of one.

    Attributes:
        clip_id: Keys every draw, so it must be unique and stay the same.
        path: Local path or URL (s3://, gs://).
        labels: Numbers of its labels; none, one or several.
        fold: Of a cross-validation, or an official split.
        source: The recording it was cut from; clips of one recording are never split up.
        start_s: Where in the file the clip begins.
        stop_s: Where it ends; None means at the end of the file.
    """

    clip_id: str
    path: str
    labels: tuple[int, ...]
    fold: int
    source: str
    start_s: float = 0.0
    stop_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """A data set before any sound was read.

    Attributes:
        name: What tables and reports call it.
        synthetic: True for sounds that the program made itself.
        origin: JSON-able; two builds into one folder must agree on it.
        label_kind: Whether a clip has one label, any number of them, or none.
        label_names: Name of label 0, 1, ...
        fold_names: What official splits are called; empty where folds are only numbered.
        metric: What the set's published results are measured in, None where there are none.
        recipes: Names in `asit_core.recipes` that fit.
        warnings: One line each: a count that is not the official one, files not on disk.
        clips: In the order of their ids, which are unique.
    """

    name: str
    synthetic: bool
    origin: Mapping[str, Any]
    label_kind: LabelKind
    label_names: tuple[str, ...]
    fold_names: Mapping[int, str]
    metric: Literal["accuracy", "mAP"] | None
    recipes: tuple[str, ...]
    warnings: tuple[str, ...]
    clips: tuple[Clip, ...]


def check_clip_ids(where: object, clips: Iterable[Clip]) -> None:
    """Raise PlatformError if two clips share an id.

    Args:
        where: The file or folder to name.
        clips: What it lists.
    """
    check_unique(where, Counter(clip.clip_id for clip in clips))


def check_unique(where: object, counts: Counter[str]) -> None:
    """Raise PlatformError if an id was counted more than once: every draw is keyed by it."""
    for clip_id, times in counts.most_common(1):
        if times > 1:
            raise PlatformError(
                f"{where}: each clip must be listed once, but {clip_id!r} is listed {times} "
                "times; remove the others"
            )


def check_labels(
    where: object, clips: Iterable[Clip], label_names: Sequence[str], label_kind: LabelKind
) -> None:
    """Raise PlatformError if a set of one label a clip has a label with fewer than two clips.

    Args:
        where: The file or folder to name.
        clips: What it lists.
        label_names: Name of label 0, 1, ...
        label_kind: Only `single` is looked at.
    """
    if label_kind == "single":
        check_counts(where, Counter(clip.labels[0] for clip in clips), label_names)


def check_counts(where: object, counts: Mapping[int, int], label_names: Sequence[str]) -> None:
    """Raise PlatformError if a label has fewer than two clips: none is left to be measured on."""
    poor = [
        f"{name} ({counts.get(label, 0)})"
        for label, name in enumerate(label_names)
        if counts.get(label, 0) < 2
    ]
    if poor:
        raise PlatformError(
            f"{where}: each label must have at least 2 usable clips, but got {', '.join(poor)}; "
            "add clips or remove the label"
        )
