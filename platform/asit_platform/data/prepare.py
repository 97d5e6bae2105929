"""A listing of clips -> a dataset folder: hashes, shards, manifest, and `dataset.json` last.

The same command run again is cheap (it finds its own finished build), and mends (it builds anew
where a build was interrupted or a shard was damaged). It never touches another dataset's folder.
"""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from asit_core.spectrogram import LogMelConfig
from asit_platform.data.dataset import (
    DATASET_FILE,
    MANIFEST_FILE,
    SHARD_FOLDER,
    SKIPPED_FILE,
    DatasetInfo,
    FoldStatistics,
)
from asit_platform.data.datasets import Clip, Listing, check_labels
from asit_platform.data.manifest import (
    SkippedClip,
    fingerprint,
    hash_files,
    write_manifest,
    write_skipped,
)
from asit_platform.data.shards import (
    SILENCE_REASON,
    ClipOutcome,
    ShardReport,
    build_shards,
    plan_shards,
)
from asit_platform.errors import PlatformError

AUDIO_FOLDER = "audio"
_OURS = {AUDIO_FOLDER, SHARD_FOLDER, DATASET_FILE, MANIFEST_FILE, SKIPPED_FILE}


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareOptions:
    """How a listing is turned into shards.

    Attributes:
        front_end: The spectrogram.
        keep_silent: Keep clips of digital silence.
        max_skipped: Largest share of the clips that may be left out, in [0, 1].
    """

    front_end: LogMelConfig
    keep_silent: bool = False
    max_skipped: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.max_skipped <= 1:
            raise PlatformError(f"--max-skipped must be in [0, 1], but got {self.max_skipped}")


class _Outcomes(NamedTuple):
    """Clips and what became of them, in the order of their ids."""

    kept: list[tuple[Clip, ClipOutcome, str]]
    skipped: list[SkippedClip]
    num_silent: int
    num_silent_skipped: int


def finished_build(
    out: Path, *, origin: object, front_end: LogMelConfig, keep_silent: bool
) -> DatasetInfo | None:
    """Look for a finished build of the same thing, without reading a sound.

    Returns:
        What lies there if it came from the same origin; None if the folder is free to be built in.

    Raises:
        PlatformError: If it holds another dataset or files that are not ours.
    """
    if out.exists() and not out.is_dir():
        raise PlatformError(f"{out}: --out must be a folder, but it is a file")
    if not (out / DATASET_FILE).is_file():
        _check_ours(out)
        return None
    info = DatasetInfo.read(out)
    found = (info.origin, info.front_end)
    wanted = ({**_json(origin), "keep_silent": keep_silent}, _json(asdict(front_end)))
    if found != wanted:
        raise _other_dataset(out, info, _differences(found, wanted))
    return info


def prepare(
    listing: Listing,
    out: Path,
    options: PrepareOptions,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> DatasetInfo:
    """Build a dataset folder; needs Ray to be initialised.

    Args:
        listing: From a reader of `datasets.py` or from `synthetic.py`.
        out: The dataset folder.
        options: Front end and what may be skipped.
        on_progress: Called with clips done and clips in all.

    Raises:
        PlatformError: If the folder holds another dataset, nothing is readable, too much is
            skipped, or a label is left with one clip. `skipped.csv` is written even then.
    """
    origin = {**listing.origin, "keep_silent": options.keep_silent}
    info = finished_build(
        out,
        origin=listing.origin,
        front_end=options.front_end,
        keep_silent=options.keep_silent,
    )
    mark = fingerprint(
        listing.clips,
        hash_files([clip.path for clip in listing.clips]),
        front_end=asdict(options.front_end),
        keep_silent=options.keep_silent,
    )
    if info is not None and info.fingerprint != mark:
        raise _other_dataset(out, info, f"fingerprint {info.fingerprint}, wanted {mark}")
    if info is not None and info.is_whole():
        return info
    _clear(out)
    reports = _run(listing, out, options, mark, on_progress)
    outcomes = _collect(reports)
    write_skipped(out, outcomes.skipped)
    _check_outcomes(out, listing, outcomes, max_skipped=options.max_skipped)
    write_manifest(out, [_manifest_row(*kept) for kept in outcomes.kept])
    info = _describe(listing, out, options, reports, outcomes, origin=origin, mark=mark)
    temporary = out / f"{DATASET_FILE}.tmp"
    temporary.write_text(json.dumps(info.to_json(), indent=1, sort_keys=True), encoding="utf-8")
    os.replace(temporary, out / DATASET_FILE)
    return info


def _run(
    listing: Listing,
    out: Path,
    options: PrepareOptions,
    mark: str,
    on_progress: Callable[[int, int], None],
) -> list[ShardReport]:
    reports = []
    num_done = 0
    on_progress(0, len(listing.clips))
    for report in build_shards(
        plan_shards(listing.clips),
        out,
        front_end=options.front_end,
        fingerprint=mark,
        keep_silent=options.keep_silent,
    ):
        reports.append(report)
        num_done += len(report.outcomes)
        on_progress(num_done, len(listing.clips))
    return sorted(reports, key=lambda report: report.plan.file)


def _collect(reports: Sequence[ShardReport]) -> _Outcomes:
    triples = [
        (clip, outcome, report.plan.file)
        for report in reports
        for clip, outcome in zip(report.plan.clips, report.outcomes, strict=True)
    ]
    triples.sort(key=lambda triple: triple[0].clip_id)
    return _Outcomes(
        kept=[triple for triple in triples if not triple[1].reason],
        skipped=[
            SkippedClip(str(clip.path), outcome.reason)
            for clip, outcome, _ in triples
            if outcome.reason
        ],
        num_silent=sum(outcome.silent for _, outcome, _ in triples),
        num_silent_skipped=sum(outcome.reason == SILENCE_REASON for _, outcome, _ in triples),
    )


def _check_outcomes(
    out: Path, listing: Listing, outcomes: _Outcomes, *, max_skipped: float
) -> None:
    listed = out / SKIPPED_FILE
    num_skipped, num_clips = len(outcomes.skipped), len(listing.clips)
    if not outcomes.kept:
        first = outcomes.skipped[0]
        raise PlatformError(
            f"{listed}: at least one clip must be readable, but none of {num_clips} is "
            f"(first: {first.path}: {first.reason}); check the audio files"
        )
    if num_skipped > max_skipped * num_clips:
        raise PlatformError(
            f"{listed}: at most {max_skipped:.0%} of the clips may be skipped, but got "
            f"{num_skipped} of {num_clips} ({num_skipped / num_clips:.1%}; "
            f"{outcomes.num_silent_skipped} of them digital silence); mend the files listed "
            "there, keep silence with --keep-silent, or allow more with --max-skipped"
        )
    labels = [clip.label for clip, _, _ in outcomes.kept]
    check_labels(listed, labels, listing.label_names)


def _manifest_row(clip: Clip, outcome: ClipOutcome, file: str) -> dict[str, object]:
    return {
        **asdict(clip),
        "path": str(clip.path),
        "duration_s": outcome.duration_s,
        "num_frames": outcome.num_frames,
        "shard": file,
    }


def _describe(
    listing: Listing,
    out: Path,
    options: PrepareOptions,
    reports: Sequence[ShardReport],
    outcomes: _Outcomes,
    *,
    origin: dict[str, object],
    mark: str,
) -> DatasetInfo:
    statistics: dict[int, FoldStatistics] = {}
    for report in reports:
        if report.shard is not None:
            sofar = statistics.get(report.plan.fold, FoldStatistics(0, 0.0, 0.0))
            statistics[report.plan.fold] = sofar.merge(report.statistics)
    return DatasetInfo(
        folder=out,
        name=listing.name,
        synthetic=listing.synthetic,
        origin=_json(origin),
        label_names=listing.label_names,
        folds=tuple(sorted(statistics)),
        num_clips=len(outcomes.kept),
        duration_s=sum(outcome.duration_s for _, outcome, _ in outcomes.kept),
        front_end=_json(asdict(options.front_end)),
        fingerprint=mark,
        max_frames=max(outcome.num_frames for _, outcome, _ in outcomes.kept),
        fold_statistics=statistics,
        shards=tuple(report.shard for report in reports if report.shard is not None),
        skipped=len(outcomes.skipped),
        silent=outcomes.num_silent,
    )


def _check_ours(out: Path) -> None:
    if not out.is_dir():
        return
    foreign = sorted(
        path.name for path in out.iterdir() if path.name.removesuffix(".tmp") not in _OURS
    )
    if foreign:
        raise PlatformError(
            f"{out}: --out must be a new or empty folder, but it holds {foreign[0]!r}"
            f"{' and more' if len(foreign) > 1 else ''}; choose another"
        )


def _clear(out: Path) -> None:
    """Take away what an earlier build left, `dataset.json` first."""
    out.mkdir(parents=True, exist_ok=True)
    (out / DATASET_FILE).unlink(missing_ok=True)
    shutil.rmtree(out / SHARD_FOLDER, ignore_errors=True)


def _other_dataset(out: Path, info: DatasetInfo, difference: str) -> PlatformError:
    return PlatformError(
        f"{out}: --out must be free or hold the same dataset, but it holds another "
        f"({info.name}: {difference}); choose another --out or delete the folder"
    )


def _differences(found: tuple[object, object], wanted: tuple[object, object]) -> str:
    words = []
    for old, new in zip(found, wanted, strict=True):
        assert isinstance(old, dict)
        assert isinstance(new, dict)
        words += [
            f"{key} {old.get(key)}, wanted {new.get(key)}"
            for key in sorted({*old, *new})
            if old.get(key) != new.get(key)
        ]
    return "; ".join(words)


def _json(value: object) -> dict[str, object]:
    """As it will be read again: tuples become lists."""
    return json.loads(json.dumps(value))
