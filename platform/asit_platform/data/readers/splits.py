"""What a reader says last: splits, counts beside the official ones, and the listing as a whole.

Every official split is kept under the same number, so that fold 3 is test wherever it exists.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

from asit_platform.data.listing import Clip, LabelKind, Listing, check_clip_ids, check_labels
from asit_platform.errors import PlatformError
from asit_platform.words import plural

TRAIN, VALIDATION, TEST = 1, 2, 3
SPLIT_NAMES: Mapping[int, str] = {TRAIN: "train", VALIDATION: "validation", TEST: "test"}
SPLIT_WORDS: Mapping[str, int] = {
    **dict.fromkeys(("train", "training", "tr"), TRAIN),
    **dict.fromkeys(("validation", "valid", "val", "dev", "cv"), VALIDATION),
    **dict.fromkeys(("test", "testing", "eval", "evaluation", "tt"), TEST),
}
_METRICS: Mapping[LabelKind, Literal["accuracy", "mAP"] | None] = {
    "single": "accuracy",
    "multi": "mAP",
    "none": None,
}


def assemble(
    where: object,
    clips: Sequence[Clip],
    *,
    name: str,
    origin: Mapping[str, Any],
    label_kind: LabelKind,
    label_names: Sequence[str] = (),
    official_splits: bool = True,
    recipes: Sequence[str] = (),
    warnings: Sequence[str] = (),
    shared: Collection[str] = (),
) -> Listing:
    """Order the clips, check them, and make the listing.

    Args:
        where: File or folder that a message is about.
        clips: In any order.
        name: What tables call the set.
        origin: What the listing was made from, without paths.
        label_kind: Decides the metric: accuracy for single, mAP for multi.
        label_names: Name of label 0, 1, ...
        official_splits: Folds are train, validation, test; False for numbered folds.
        recipes: Names in `asit_core.recipes` that fit.
        warnings: One line each.
        shared: Sources that lie in several folds because the set means it.

    Returns:
        With a warning where other recordings lie in several folds.

    Raises:
        PlatformError: If there is no clip, two share an id, or a label has too few.
    """
    if not clips:
        raise PlatformError(f"{where}: must list at least one clip, but lists none")
    check_clip_ids(where, clips)
    check_labels(where, clips, label_names, label_kind)
    folds = sorted({clip.fold for clip in clips})
    return Listing(
        name=name,
        synthetic=False,
        origin=origin,
        label_kind=label_kind,
        label_names=tuple(label_names),
        fold_names={fold: SPLIT_NAMES[fold] for fold in folds} if official_splits else {},
        metric=_METRICS[label_kind],
        recipes=tuple(recipes),
        warnings=(*warnings, *_leak_warning(where, clips, shared)),
        clips=tuple(sorted(clips, key=lambda clip: clip.clip_id)),
    )


def _leak_warning(where: object, clips: Iterable[Clip], shared: Collection[str]) -> list[str]:
    folds: dict[str, int] = {}
    leaks = {
        clip.source: None
        for clip in clips
        if folds.setdefault(clip.source, clip.fold) != clip.fold and clip.source not in shared
    }
    if not leaks:
        return []
    return [
        f"{where}: {plural(len(leaks), 'recording')} {'lies' if len(leaks) == 1 else 'lie'} in two "
        f"folds (first: {next(iter(leaks))!r}), so one is trained on what another is measured on; "
        "give each recording one fold"
    ]


def count_warnings(
    official: Mapping[str, int], found: Mapping[str, int], *, noun: str = "clip"
) -> list[str]:
    """One line for each part of a set that has another size than the official one."""
    return [
        f"{part}: {plural(count, noun)} officially, but {found.get(part, 0):,} here "
        f"({found.get(part, 0) - count:+,})"
        for part, count in official.items()
        if found.get(part, 0) != count
    ]


def missing_warning(
    where: object, part: str, missing: Sequence[str], *, num_found: int
) -> list[str]:
    """One line if files that a list names are not on disk; such clips are left out.

    Args:
        where: Folder that they should be in.
        part: The list, or the split.
        missing: Their names.
        num_found: How many are there.

    Raises:
        PlatformError: If none is there: that is the wrong folder, not a loss.
    """
    if not missing:
        return []
    num_listed = num_found + len(missing)
    if num_found == 0:
        raise PlatformError(
            f"{where}: must hold the files of {part}, but holds none of {num_listed:,} "
            f"(first: {missing[0]}); pass the folder that holds the sound as --root"
        )
    return [
        f"{part}: {len(missing):,} of {plural(num_listed, 'listed file')} not on disk and left "
        f"out (first: {missing[0]})"
    ]


def deal_folds(groups: Iterable[tuple[str, tuple[int, ...]]], num_folds: int) -> dict[str, int]:
    """Folds 1 .. `num_folds` for a set without official ones, each with its share of every label.

    Args:
        groups: Source and labels of every clip; the first clip of a source decides its label.
        num_folds: At least 2.

    Returns:
        Fold of every source: clips of one recording are never on both sides. The order is that
        of a hash of the source, so it depends neither on file order nor on a random generator.

    Raises:
        PlatformError: If `num_folds` is too small.
    """
    if num_folds < 2:
        raise PlatformError(f"--folds must be at least 2, but got {num_folds}")
    labels: dict[str, tuple[int, ...]] = {}
    for source, its_labels in groups:
        labels.setdefault(source, its_labels)
    sources_of: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
    for source in sorted(labels, key=_hash):
        sources_of[labels[source]].append(source)
    # one deal through all labels: rare combinations do not all end in fold 1
    dealt = (source for key in sorted(sources_of) for source in sources_of[key])
    return {source: number % num_folds + 1 for number, source in enumerate(dealt)}


def _hash(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()
