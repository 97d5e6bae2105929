"""What a dataset folder holds, for the terminal and for scripts."""

import csv
import io
import re
from collections import Counter
from typing import Any

from asit_platform.data.dataset import SKIPPED_FILE, DatasetInfo
from asit_platform.data.shard_file import REMEDY
from asit_platform.errors import PlatformError
from asit_platform.words import duration_text, plural

_CONTENT_WORDS = {"log_mel": "log-mels", "waveform": "waveforms"}
_HELD_OUT = ("test", "eval", "evaluation")


def summarize(info: DatasetInfo) -> dict[str, Any]:
    """The summary as JSON-able values.

    Raises:
        PlatformError: If a file of the dataset is missing or damaged.
    """
    folds = _normalization_folds(info)
    mean, std = info.mean_std(folds)
    return {
        "folder": str(info.folder),
        "name": info.name,
        "synthetic": info.synthetic,
        "num_clips": info.num_clips,
        "label_kind": info.label_kind,
        "num_labels": info.num_labels,
        "label_names": list(info.label_names),
        "folds": list(info.folds),
        "fold_names": {str(fold): name for fold, name in info.fold_names.items()},
        "metric": info.metric,
        "recipes": list(info.recipes),
        "duration_s": round(info.duration_s, 3),
        "skipped": info.skipped,
        "skipped_reasons": dict(_reasons(info)),
        "silent": info.silent,
        "num_duplicates": info.num_duplicates,
        "warnings": list(info.warnings),
        "content": info.content,
        "num_shards": len(info.shards),
        "num_bytes": sum(shard.num_bytes for shard in info.shards),
        "max_frames": info.max_frames,
        "mean": round(mean, 4),
        "std": round(std, 4),
        "mean_std_folds": folds,
        "front_end": dict(info.front_end),
        "fingerprint": info.fingerprint,
    }


def summary_lines(info: DatasetInfo) -> list[str]:
    """The summary for a person."""
    values = summarize(info)
    name = f"{info.name} (synthetic)" if info.synthetic and info.name != "synthetic" else info.name
    folds = ",".join(info.fold_names.get(fold, str(fold)) for fold in values["mean_std_folds"])
    lines = [
        f"{name}: {plural(info.num_clips, 'clip')}, {plural(info.num_labels, 'label')}, "
        f"{plural(len(info.folds), 'fold')}, {duration_text(info.duration_s)}; "
        f"{info.skipped:,} skipped, {info.silent:,} of digital silence",
        f"log-mel mean {values['mean']:.3f}, standard deviation {values['std']:.3f} "
        f"(folds {folds})",
    ]
    if info.skipped:
        reasons = ", ".join(f"{count:,} {why}" for why, count in _reasons(info).most_common())
        lines.append(f"skipped: {reasons} ({info.folder / SKIPPED_FILE})")
    if info.num_duplicates:
        lines.append(f"duplicates: {plural(info.num_duplicates, 'clip')} byte for byte")
    lines.append(
        f"{info.folder}: {plural(len(info.shards), 'shard')} of {_CONTENT_WORDS[info.content]}, "
        f"{values['num_bytes'] / 1e6:,.1f} MB, fingerprint {info.fingerprint}"
    )
    return [*lines, *(f"warning: {warning}" for warning in info.warnings)]


def _normalization_folds(info: DatasetInfo) -> list[int]:
    """All folds but an official test split's."""
    chosen = [fold for fold in info.folds if info.fold_names.get(fold) not in _HELD_OUT]
    return chosen or list(info.folds)


def _reasons(info: DatasetInfo) -> Counter[str]:
    """Clips left out, by the first words of the reason."""
    if not info.skipped:
        return Counter()
    place = info.folder / SKIPPED_FILE
    try:
        text = place.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise PlatformError(f"{place}: must be readable, but {error}; {REMEDY}") from error
    rows = csv.DictReader(io.StringIO(text, newline=""))
    return Counter(
        re.split(r"[(,;]", row.get("reason") or "no reason given")[0].strip() for row in rows
    )
