"""The same sound twice in a set; in two folds, it makes a score too good."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from asit_platform.data.ledger import Ledger
from asit_platform.words import plural


class Duplicates(NamedTuple):
    """Clips whose sound is that of a clip before them, and a warning for each pair of folds."""

    num_duplicates: int
    warnings: tuple[str, ...]


def find_duplicates(clips: pa.Table, ledger: Ledger, fold_names: Mapping[int, str]) -> Duplicates:
    """Compare the content hashes of the files that clips are whole, or equal parts, of.

    Args:
        clips: Of the manifest.
        ledger: What became of them.
        fold_names: What folds are called, where they are not only numbered.
    """
    rows = np.flatnonzero(ledger.kept)
    first, group = _group(clips, ledger, rows)
    is_first = np.zeros(len(rows), dtype=bool)
    is_first[first] = True
    folds = clips["fold"].to_numpy()[rows]
    crossing = np.flatnonzero(folds != folds[first][group])
    pairs: dict[tuple[int, int], list[int]] = {}
    for position in crossing.tolist():
        pair = sorted((int(folds[position]), int(folds[first[group[position]]])))
        pairs.setdefault((pair[0], pair[1]), []).append(position)
    names = clips["clip_id"].take(pa.array(rows))

    def describe(pair: tuple[int, int], positions: list[int]) -> str:
        one, other = names[int(first[group[positions[0]]])], names[positions[0]]
        folds = [
            f"fold {fold}{f' ({fold_names[fold]})' if fold in fold_names else ''}" for fold in pair
        ]
        return (
            f"leakage between {' and '.join(folds)}: {plural(len(positions), 'clip')} byte for "
            f"byte the same, such as {one.as_py()!r} and {other.as_py()!r}; scores across them "
            "are too good"
        )

    return Duplicates(
        num_duplicates=int(len(rows) - is_first.sum()),
        warnings=tuple(describe(pair, pairs[pair]) for pair in sorted(pairs)),
    )


def _group(clips: pa.Table, ledger: Ledger, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position of the first clip of each sound, and the number of each clip's sound."""
    bounds = np.stack([clips[name].to_numpy()[rows] for name in ("start_s", "stop_s")], axis=1)
    keys = np.concatenate([ledger.content[rows], bounds.view(np.uint8)], axis=1)
    whole = np.ascontiguousarray(keys).view(f"V{keys.shape[1]}").ravel()
    _, first, group = np.unique(whole, return_index=True, return_inverse=True)
    return first, group
