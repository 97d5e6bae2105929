"""FSD50K: 51,197 Freesound clips of 0.3 to 30 s with any number of 200 classes.

Fonseca et al., "FSD50K" (arXiv:2010.00475): the official split of the development set keeps an
uploader on one side.
"""

from pathlib import Path

from asit_platform.data.listing import Clip, Listing
from asit_platform.data.readers.files import by_stem, find_sounds, open_root
from asit_platform.data.readers.splits import (
    SPLIT_NAMES,
    TEST,
    TRAIN,
    VALIDATION,
    assemble,
    count_warnings,
    missing_warning,
)
from asit_platform.data.readers.tables import Row, Vocabulary, read_table, read_vocabulary
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

_FOLDS = {"train": TRAIN, "val": VALIDATION}
_SPLIT_COUNTS = {TRAIN: 36_796, VALIDATION: 4_170, TEST: 10_231}
_NUM_CLASSES = 200
_HOLDS = "FSD50K.ground_truth, FSD50K.dev_audio and FSD50K.eval_audio"


def read_fsd50k(root: str | Path) -> Listing:
    """List FSD50K by `FSD50K.ground_truth/{dev,eval,vocabulary}.csv`.

    Args:
        root: Folder with `FSD50K.ground_truth`, `FSD50K.dev_audio` and `FSD50K.eval_audio`.

    Returns:
        Labels in the order of the vocabulary, ancestors in the ontology among them as released.
        The source of a clip is its Freesound id.

    Raises:
        PlatformError: If a table is missing or malformed, or a label is not in the vocabulary.
    """
    place = open_root(root, holds=_HOLDS)
    truth = place / "FSD50K.ground_truth"
    remedy = f"pass the folder that holds {_HOLDS} as --root"
    vocabulary = read_vocabulary(truth / "vocabulary.csv", remedy=remedy)
    clips: list[Clip] = []
    warnings = count_warnings(
        {"FSD50K": _NUM_CLASSES}, {"FSD50K": len(vocabulary.names)}, noun="label"
    )
    for part, needed in (("dev", ("fname", "labels", "split")), ("eval", ("fname", "labels"))):
        table = truth / f"{part}.csv"
        rows = read_table(table, needed=needed, remedy=remedy, delimiter=",")
        audio = open_root(place / f"FSD50K.{part}_audio", holds=_HOLDS)
        on_disk = by_stem(find_sounds(audio))
        found = [row for row in rows if row.values["fname"] in on_disk]
        missing = [row.values["fname"] for row in rows if row.values["fname"] not in on_disk]
        warnings += missing_warning(audio, table.name, missing, num_found=len(found))
        clips += [
            _clip(table, row, path=str(audio / on_disk[row.values["fname"]]), labels=vocabulary)
            for row in found
        ]
    return assemble(
        truth,
        clips,
        name="FSD50K",
        origin={"kind": "fsd50k"},
        label_kind="multi",
        label_names=vocabulary.names,
        warnings=[*warnings, *_count_warnings(clips)],
    )


def _clip(table: Place, row: Row, *, path: str, labels: Vocabulary) -> Clip:
    where = f"{table}: line {row.line}"
    split = row.values.get("split")
    if split is not None and split not in _FOLDS:
        raise PlatformError(
            f"{where}: split must be train or val, but got {split!r}; take the table as released"
        )
    names = filter(None, row.values["labels"].split(","))
    return Clip(
        clip_id=row.values["fname"],
        path=path,
        labels=labels.look_up(names, where=where),
        fold=TEST if split is None else _FOLDS[split],
        source=row.values["fname"],
    )


def _count_warnings(clips: list[Clip]) -> list[str]:
    folds = [clip.fold for clip in clips]
    return count_warnings(
        {f"FSD50K {SPLIT_NAMES[fold]}": count for fold, count in _SPLIT_COUNTS.items()},
        {f"FSD50K {SPLIT_NAMES[fold]}": folds.count(fold) for fold in _SPLIT_COUNTS},
    )
