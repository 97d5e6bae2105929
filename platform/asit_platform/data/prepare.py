"""A listing of clips -> a dataset folder: hashes, shards, manifest, and `dataset.json` last.

The same command run again is cheap (it finds its own finished build), and mends (it builds anew
where a build was interrupted or a shard was damaged). It never touches another dataset's folder.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from asit_core.spectrogram import LogMelConfig
from asit_platform.data.dataset import (
    DATASET_FILE,
    SKIPPED_FILE,
    DatasetInfo,
    FoldStatistics,
)
from asit_platform.data.datasets import check_labels
from asit_platform.data.listing import Clip, Content, Listing
from asit_platform.data.manifest import (
    SkippedClip,
    fingerprint,
    hash_files,
    write_manifest,
    write_skipped,
)
from asit_platform.data.out_folder import (
    clear,
    finished_build,
    not_writable,
    other_dataset,
    to_json,
)
from asit_platform.data.shard_task import SILENCE_REASON, ClipOutcome
from asit_platform.data.shards import ShardReport, build_shards, plan_shards
from asit_platform.errors import PlatformError
from asit_platform.whole_files import write_whole


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareOptions:
    """How a listing is turned into shards.

    Attributes:
        front_end: The spectrogram.
        content: What the shards hold.
        keep_silent: Keep clips of digital silence.
        max_skipped: Largest share of the clips that may be left out, in [0, 1].
    """

    front_end: LogMelConfig
    content: Content = "log_mel"
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


class BuildPlan(NamedTuple):
    """What is to be built, and what lies there already: `finished` is None if nothing usable."""

    listing: Listing
    out: Path
    options: PrepareOptions
    fingerprint: str
    finished: DatasetInfo | None


def prepare(
    listing: Listing,
    out: Path,
    options: PrepareOptions,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> DatasetInfo:
    """Build a dataset folder, or find it built; needs Ray to be initialised.

    Args:
        listing: From a reader of `datasets.py` or from `synthetic.py`.
        out: The dataset folder.
        options: Front end and what may be skipped.
        on_progress: Called with clips done and clips in all.

    Raises:
        PlatformError: As `plan_build` and `build`.
    """
    plan = plan_build(listing, out, options)
    return plan.finished or build(plan, on_progress=on_progress)


def plan_build(listing: Listing, out: Path, options: PrepareOptions) -> BuildPlan:
    """Fingerprint the files and look at what lies in the folder; needs no Ray.

    Raises:
        PlatformError: If the folder holds another dataset or files that are not ours.
    """
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
        raise other_dataset(out, info, f"fingerprint {info.fingerprint}, wanted {mark}")
    finished = info if info is not None and info.is_whole() else None
    return BuildPlan(listing, out, options, mark, finished)


def build(
    plan: BuildPlan, *, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> DatasetInfo:
    """Build what was planned, from nothing.

    Raises:
        PlatformError: If the folder cannot be written, nothing is readable, too much is skipped,
            or a label is left with one clip. In the last three cases `skipped.csv` is written all
            the same.
    """
    listing, out, options, mark, _ = plan
    clear(out)
    reports = _run(listing, out, options, mark, on_progress)
    outcomes = _collect(reports)
    try:
        write_skipped(out, outcomes.skipped)
        _check_outcomes(out, listing, outcomes, max_skipped=options.max_skipped)
        write_manifest(out, [_manifest_row(*kept) for kept in outcomes.kept])
        info = _describe(plan, reports, outcomes)
        _write_info(info)
    except OSError as error:
        raise not_writable(out, error) from error
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


def _write_info(info: DatasetInfo) -> None:
    text = json.dumps(info.to_json(), indent=1, sort_keys=True)
    write_whole(info.folder / DATASET_FILE, text)


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


def _describe(plan: BuildPlan, reports: Sequence[ShardReport], outcomes: _Outcomes) -> DatasetInfo:
    listing, out, options, mark, _ = plan
    statistics: dict[int, FoldStatistics] = {}
    for report in reports:
        if report.shard is not None:
            sofar = statistics.get(report.plan.fold, FoldStatistics(0, 0.0, 0.0))
            statistics[report.plan.fold] = sofar.merge(report.statistics)
    return DatasetInfo(
        folder=out,
        name=listing.name,
        synthetic=listing.synthetic,
        origin={**to_json(listing.origin), "keep_silent": options.keep_silent},
        label_names=listing.label_names,
        folds=tuple(sorted(statistics)),
        num_clips=len(outcomes.kept),
        duration_s=sum(outcome.duration_s for _, outcome, _ in outcomes.kept),
        front_end=to_json(asdict(options.front_end)),
        fingerprint=mark,
        max_frames=max(outcome.num_frames for _, outcome, _ in outcomes.kept),
        fold_statistics=statistics,
        shards=tuple(report.shard for report in reports if report.shard is not None),
        skipped=len(outcomes.skipped),
        silent=outcomes.num_silent,
    )
