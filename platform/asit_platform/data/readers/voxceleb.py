"""VoxCeleb1 as an identification task: 1,251 speakers, the official `iden_split.txt`.

Nagrani et al., "VoxCeleb" (arXiv:1706.08612). s3prl's `veri_test_class.txt` is the same list under
another name.
"""

from pathlib import Path
from typing import NamedTuple

from asit_platform.data.listing import Clip, Listing
from asit_platform.data.readers.files import by_stem, find_sounds, open_root, read_lines
from asit_platform.data.readers.splits import (
    SPLIT_NAMES,
    TEST,
    TRAIN,
    VALIDATION,
    assemble,
    count_warnings,
    missing_warning,
)
from asit_platform.data.readers.tables import Vocabulary
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

_LISTS = ("iden_split.txt", "veri_test_class.txt")
_NUM_SPEAKERS = 1_251
_SPLIT_COUNTS = {TRAIN: 138_361, VALIDATION: 6_904, TEST: 8_251}
_SUFFIX_LENGTH = len(".wav")


class _Utterance(NamedTuple):
    key: str  # speaker/video/number
    fold: int


def read_voxceleb1(root: str | Path, *, split_list: str | Path | None = None) -> Listing:
    """List VoxCeleb1 identification: the speakers are the labels, in the order of their ids.

    Files are found by the last three parts of their paths, speaker/video/number, below any folder:
    `dev/wav`, `vox1_dev_wav/wav`, `vox1_test_wav/wav`.

    Args:
        root: Folder that holds the development and the test archive.
        split_list: `iden_split.txt`; looked for in `root` if None.

    Returns:
        Whole utterances; the source of a clip is its video. SUPERB trains on the first 8 s, which
        is the recipe's business. With a part of the set on disk, the labels are the speakers there.

    Raises:
        PlatformError: If the list is missing or malformed, or no listed file is on disk.
    """
    place = open_root(root, holds="the wav folders of VoxCeleb1")
    table = _find_list(place) if split_list is None else Place.of(split_list)
    utterances = _read_list(table)
    on_disk = by_stem(find_sounds(place), parts=3)
    found = [utterance for utterance in utterances if utterance.key in on_disk]
    missing = [utterance.key for utterance in utterances if utterance.key not in on_disk]
    warnings = missing_warning(place, table.name, missing, num_found=len(found))
    speakers = Vocabulary.of_names({_speaker(item.key) for item in found}, where=str(table))
    return assemble(
        table,
        [_clip(place, item, on_disk[item.key], speakers) for item in found],
        name="VoxCeleb1",
        origin={"kind": "voxceleb1"},
        label_kind="single",
        label_names=speakers.names,
        recipes=("superb_sid", "m2d_vox1"),
        warnings=[*warnings, *_count_warnings(found, len(speakers.names))],
    )


def _find_list(root: Place) -> Place:
    for name in _LISTS:
        if (root / name).exists():
            return root / name
    raise PlatformError(
        f"{root / _LISTS[0]}: must exist, but it does not; put the official list there, or pass "
        "where it is as --split-list"
    )


def _read_list(table: Place) -> list[_Utterance]:
    utterances = []
    remedy = "pass where iden_split.txt is as --split-list"
    for number, line in enumerate(read_lines(table, remedy=remedy), start=1):
        fold, _, path = line.partition(" ")
        key = path.strip()[:-_SUFFIX_LENGTH]
        if fold not in ("1", "2", "3") or key.count("/") != 2:
            raise PlatformError(
                f"{table}: line {number}: must be `1|2|3 speaker/video/number.wav`, but got "
                f"{line!r}; take the list as it was released"
            )
        utterances.append(_Utterance(key, int(fold)))
    return utterances


def _clip(root: Place, utterance: _Utterance, relative: str, speakers: Vocabulary) -> Clip:
    speaker, video, _ = utterance.key.split("/")
    return Clip(
        clip_id=utterance.key,
        path=str(root / relative),
        labels=(speakers.numbers[speaker],),
        fold=utterance.fold,
        source=f"{speaker}/{video}",
    )


def _speaker(key: str) -> str:
    return key.partition("/")[0]


def _count_warnings(found: list[_Utterance], num_speakers: int) -> list[str]:
    folds = [utterance.fold for utterance in found]
    return [
        *count_warnings(
            {f"VoxCeleb1 {SPLIT_NAMES[fold]}": count for fold, count in _SPLIT_COUNTS.items()},
            {f"VoxCeleb1 {SPLIT_NAMES[fold]}": folds.count(fold) for fold in _SPLIT_COUNTS},
        ),
        *count_warnings({"VoxCeleb1": _NUM_SPEAKERS}, {"VoxCeleb1": num_speakers}, noun="speaker"),
    ]
