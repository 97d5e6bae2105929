"""ESC-50 and its ESC-10 subset: `audio/` and `meta/esc50.csv`.

The five folds are the author's (Piczak, "ESC: Dataset for Environmental Sound Classification",
ACM MM 2015): fragments of one recording share a fold, so they are never dealt anew.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from asit_platform.data.listing import Clip, Listing
from asit_platform.data.readers.files import by_stem, find_sounds, open_root
from asit_platform.data.readers.splits import assemble, count_warnings
from asit_platform.data.readers.tables import Row, read_table
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

_COLUMNS = ("filename", "fold", "target", "category")
_HOLDS = "audio/ and meta/esc50.csv"
_NUM_CLIPS = {"all": 2000, "esc10": 400}
_RECIPES = (
    "ast_esc50",
    "ast_esc50_imagenet",
    "ssast_esc50",
    "eat_esc50",
    "m2d_esc50",
    "audiomosaic_esc50",
)


def read_esc50(root: str | Path, *, subset: Literal["all", "esc10"] = "all") -> Listing:
    """List ESC-50, or its ESC-10 subset, by `meta/esc50.csv`.

    Args:
        root: Folder that holds `audio/` and `meta/esc50.csv`.
        subset: `esc10` keeps the rows whose column `esc10` is true.

    Returns:
        Labels are renumbered 0, 1, ... in the order of `target`; the source of a clip is the
        Freesound recording of the column `src_file`. A listed file that is not there is listed
        all the same, and skipped with its name when the shards are made.

    Raises:
        PlatformError: If the folder or the csv is missing, a needed column is missing, a value is
            malformed, a clip is listed twice, or a label has one clip only.
    """
    place = open_root(root, holds=_HOLDS)
    table = place / "meta" / "esc50.csv"
    rows = _read_rows(table, subset=subset)
    names = _label_names(table, rows)
    numbers = {target: number for number, target in enumerate(sorted(names))}
    audio = place / "audio"
    on_disk = by_stem(find_sounds(open_root(audio, holds=_HOLDS)))
    only_esc10 = subset == "esc10" or all(_is_esc10(row) for row in rows)
    name = "ESC-10 subset of ESC-50" if only_esc10 else "ESC-50"
    return assemble(
        table,
        [_clip(audio, row, numbers=numbers, on_disk=on_disk) for row in rows],
        name=name,
        origin={"kind": "esc50", "subset": subset},
        label_kind="single",
        label_names=[names[target] for target in sorted(names)],
        official_splits=False,
        recipes=_RECIPES,
        warnings=count_warnings(
            {name: _NUM_CLIPS["esc10" if only_esc10 else "all"]}, {name: len(rows)}
        ),
    )


def _clip(audio: Place, row: Row, *, numbers: dict[int, int], on_disk: dict[str, str]) -> Clip:
    values = row.values
    stem = PurePosixPath(values["filename"]).stem
    return Clip(
        clip_id=stem,
        # the same recording may lie there in another format: a subset converted to ogg
        path=str(audio / on_disk.get(stem, values["filename"])),
        labels=(numbers[int(values["target"])],),
        fold=int(values["fold"]),
        # without the column, every clip counts as a recording of its own
        source=values.get("src_file") or stem,
    )


def _read_rows(table: Place, *, subset: str) -> list[Row]:
    needed = (*_COLUMNS, "esc10") if subset == "esc10" else _COLUMNS
    remedy = f"pass the folder that holds {_HOLDS} as --root"
    rows = read_table(table, needed=needed, remedy=remedy)
    _check_values(table, rows)
    rows = [row for row in rows if subset == "all" or _is_esc10(row)]
    if not rows:
        raise PlatformError(f"{table}: must list at least one clip, but lists none")
    return rows


def _is_esc10(row: Row) -> bool:
    return row.values.get("esc10", "").lower() == "true"


def _check_values(table: Place, rows: Sequence[Row]) -> None:
    for line, row in rows:
        if not row["filename"] or not row["category"]:
            raise PlatformError(f"{table}: line {line}: filename and category must not be empty")
        for column in ("fold", "target"):
            if not row[column].isdecimal():
                raise PlatformError(
                    f"{table}: line {line}: {column} must be a whole number >= 0, but got "
                    f"{row[column]!r}"
                )


def _label_names(table: Place, rows: Sequence[Row]) -> dict[int, str]:
    names: dict[int, str] = {}
    for _, row in rows:
        name = names.setdefault(int(row["target"]), row["category"])
        if name != row["category"]:
            raise PlatformError(
                f"{table}: target {row['target']} must have one category, but got "
                f"{name!r} and {row['category']!r}"
            )
    return names
