"""LibriSpeech: speech without class labels, to pretrain on.

Panayotov et al., "LibriSpeech" (ICASSP 2015). SSAST and MAE-AST pretrain on its 960 hours beside
AudioSet; the transcripts beside the sounds are not read.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from asit_platform.data.listing import Clip, Listing
from asit_platform.data.readers.files import find_sounds, open_root
from asit_platform.data.readers.splits import TEST, TRAIN, VALIDATION, assemble, count_warnings
from asit_platform.errors import PlatformError

# Utterances of each subset; the three for training are 281,241 in 960.9 hours.
SUBSETS = {
    "train-clean-100": 28_539,
    "train-clean-360": 104_014,
    "train-other-500": 148_688,
    "dev-clean": 2_703,
    "dev-other": 2_864,
    "test-clean": 2_620,
    "test-other": 2_939,
}
_FOLDS = {"train": TRAIN, "dev": VALIDATION, "test": TEST}


def read_librispeech(root: str | Path, *, subsets: Sequence[str] | None = None) -> Listing:
    """List LibriSpeech: `[LibriSpeech/]subset/speaker/chapter/speaker-chapter-number.flac`.

    Args:
        root: The folder `LibriSpeech`, or the one that holds it.
        subsets: Names of `SUBSETS`; those on disk if None.

    Returns:
        No labels. The source of a clip is its chapter: the recording it was cut from.

    Raises:
        PlatformError: If a subset is unknown or not on disk.
    """
    place = open_root(root, holds="train-clean-100, dev-clean, ...")
    on_disk: dict[str, list[str]] = {}
    for relative in find_sounds(place):
        parts = PurePosixPath(relative).parts
        if len(parts) >= 4 and parts[-4] in SUBSETS:
            on_disk.setdefault(parts[-4], []).append(relative)
    wanted = tuple(dict.fromkeys(subsets or (name for name in SUBSETS if name in on_disk)))
    _check_subsets(str(place), wanted, on_disk)
    return assemble(
        place,
        [
            Clip(
                clip_id=PurePosixPath(relative).stem,
                path=str(place / relative),
                labels=(),
                fold=_FOLDS[subset.partition("-")[0]],
                source=PurePosixPath(relative).stem.rpartition("-")[0],
            )
            for subset in wanted
            for relative in on_disk[subset]
        ],
        name="LibriSpeech",
        origin={"kind": "librispeech", "subsets": sorted(wanted)},
        label_kind="none",
        warnings=count_warnings(
            {subset: SUBSETS[subset] for subset in wanted},
            Counter({subset: len(on_disk[subset]) for subset in wanted}),
            noun="utterance",
        ),
    )


def _check_subsets(where: str, wanted: Sequence[str], on_disk: dict[str, list[str]]) -> None:
    if not wanted:
        raise PlatformError(
            f"{where}: must hold a subset of LibriSpeech ({', '.join(SUBSETS)}), but holds none; "
            "pass the folder LibriSpeech as --root"
        )
    for subset in wanted:
        if subset not in SUBSETS:
            raise PlatformError(f"--subset must be one of {', '.join(SUBSETS)}, but got {subset!r}")
        if subset not in on_disk:
            raise PlatformError(
                f"{where}: --subset {subset} must be on disk, but no sound of it is "
                f"(found: {', '.join(sorted(on_disk)) or 'none'}); unpack it there or leave it out"
            )
