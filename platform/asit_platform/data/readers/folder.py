"""People's own data as folders: a class is a subfolder, `root/dog/bark 1.wav`.

Official splits are folders above the classes, `root/train/dog/bark 1.wav`; without them the clips
are dealt to numbered folds.
"""

from pathlib import Path, PurePosixPath

from asit_platform.data.listing import Clip, Listing
from asit_platform.data.readers.files import find_sounds, open_root
from asit_platform.data.readers.splits import SPLIT_WORDS, assemble, deal_folds
from asit_platform.data.readers.tables import Vocabulary
from asit_platform.errors import PlatformError
from asit_platform.storage import Place


def read_folder(
    root: str | Path,
    *,
    name: str,
    num_folds: int = 5,
    with_labels: bool = True,
) -> Listing:
    """List every sound below a folder.

    Args:
        root: Its subfolders are the classes, or train, validation and test with classes in them.
        name: What tables call the set.
        num_folds: Folds to deal the clips to where there are no such splits.
        with_labels: False takes all sounds for pretraining, wherever they lie.

    Returns:
        Labels in alphabetical order. Each file counts as a recording of its own; where several
        are cut from one, list them in a csv with a source column and `read_csv_table`.

    Raises:
        PlatformError: If there is no sound, a sound lies outside the classes, or only some of the
            folders are splits.
    """
    place = open_root(root, holds="a folder for each class")
    sounds = find_sounds(place)
    splits = _official_folds(place, sounds)
    labels: dict[str, tuple[int, ...]] = dict.fromkeys(sounds, ())
    classes: tuple[str, ...] = ()
    if with_labels:
        named = {path: _label(place, path, depth=0 if splits is None else 1) for path in sounds}
        vocabulary = Vocabulary.of_names(named.values(), where=str(place))
        labels = {path: (vocabulary.numbers[named[path]],) for path in sounds}
        classes = vocabulary.names
    folds = deal_folds(labels.items(), num_folds) if splits is None else splits
    return assemble(
        place,
        [_clip(place, path, labels=labels[path], fold=folds[path]) for path in sounds],
        name=name,
        origin={
            "kind": "folder",
            "name": name,
            "labels": with_labels,
            "num_folds": num_folds if splits is None else None,
        },
        label_kind="single" if with_labels else "none",
        label_names=classes,
        official_splits=splits is not None,
    )


def _clip(root: Place, relative: str, *, labels: tuple[int, ...], fold: int) -> Clip:
    clip_id = relative.removesuffix(PurePosixPath(relative).suffix)
    return Clip(
        clip_id=clip_id, path=str(root / relative), labels=labels, fold=fold, source=clip_id
    )


def _official_folds(root: Place, sounds: list[str]) -> dict[str, int] | None:
    """Fold of each sound if the top folders are splits; None if none of them is."""
    tops = {path: path.partition("/")[0] if "/" in path else "" for path in sounds}
    splits = {top for top in tops.values() if top.lower() in SPLIT_WORDS}
    others = sorted({*tops.values()} - splits)
    # one class may well be called "test"; two splits and nothing else are no classes, nor is one
    # with a folder around every sound
    alone = len(splits) == 1 and not others and all(path.count("/") > 1 for path in sounds)
    if len(splits) < 2 and not alone:
        return None
    if others:
        raise PlatformError(
            f"{root}: folders must all be splits ({', '.join(sorted(splits))}) or all be classes, "
            f"but {others[0] or 'a sound'!r} lies beside them; move it"
        )
    return {path: SPLIT_WORDS[top.lower()] for path, top in tops.items()}


def _label(root: Place, relative: str, *, depth: int) -> str:
    parts = PurePosixPath(relative).parts
    if len(parts) < depth + 2:
        raise PlatformError(
            f"{root / relative}: must lie in the folder of a class, but lies beside them; move it, "
            "or pass --no-labels to take all sounds without labels"
        )
    return parts[depth]
