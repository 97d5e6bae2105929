"""A manifest -> a dataset folder: shards, the list of clips, and `dataset.json` last.

The same command run again is cheap (it finds its own finished build), goes on (shards that an
interrupted build finished are taken as they are) and mends (a damaged shard, or one whose sound
files changed, is built again). It never touches another dataset's folder.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial, reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asit_platform.data.dataset import DATASET_FILE, SKIPPED_FILE, DatasetInfo
from asit_platform.data.duplicates import find_duplicates
from asit_platform.data.fold_statistics import FoldStatistics
from asit_platform.data.ledger import Ledger
from asit_platform.data.listing import Listing, check_counts
from asit_platform.data.manifest import Manifest
from asit_platform.data.options import PrepareOptions
from asit_platform.data.out_folder import (
    agree_on_manifest,
    claimed,
    clear,
    finished_build,
    info_origin,
    not_writable,
)
from asit_platform.data.shard_file import digest
from asit_platform.data.shard_reuse import BuiltShard, find_built, is_of_other_sounds
from asit_platform.data.shards import ShardPlan, build_shards, plan_shards, planned_clips
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

__all__ = ["BuildPlan", "PrepareOptions", "build", "plan_build", "prepare"]

OnProgress = Callable[[int, int], None]
_CHECK_THREADS = 4


class BuildPlan(NamedTuple):
    """What is to be built, and what lies there already: `finished` is None if not all of it."""

    manifest: Manifest
    out: Place
    options: PrepareOptions
    shards: list[ShardPlan]
    finished: DatasetInfo | None


def prepare(
    listing: Listing | Manifest,
    out: str | Path | Place,
    options: PrepareOptions,
    *,
    on_progress: OnProgress = lambda done, total: None,
) -> DatasetInfo:
    """Build a dataset folder, or find it built; needs Ray to be initialised.

    Args:
        listing: From a reader or a manifest file.
        out: The dataset folder.
        options: Front end, content and what may be skipped.
        on_progress: Called with clips done and clips in all.

    Raises:
        PlatformError: As `plan_build` and `build`, or if another build is running there.
    """
    manifest = Manifest.of(listing) if isinstance(listing, Listing) else listing
    out = Place.of(out)
    with claimed(out):
        plan = plan_build(manifest, out, options)
        return plan.finished or build(plan, on_progress=on_progress)


def plan_build(
    manifest: Manifest,
    out: Place,
    options: PrepareOptions,
    *,
    on_progress: OnProgress = lambda done, total: None,
) -> BuildPlan:
    """Write the manifest and look at what lies in the folder; needs no Ray.

    Args:
        manifest: What is to be built.
        out: The dataset folder, claimed.
        options: Front end, content and what may be skipped.
        on_progress: Called with shards of a finished build that were read, and shards in all.

    Raises:
        PlatformError: If the folder holds another dataset or cannot be written.
    """
    info = finished_build(out, origin=manifest.listing.origin, options=options)
    try:
        shards = plan_shards(manifest.clips)
        plan = BuildPlan(manifest, out, options, shards, info)
        # dropped before the manifest forgets the old paths: a kill in between must not hide it
        agree_on_manifest(out, manifest, before_move=partial(_drop_moved, plan))
        return plan if _is_finished(plan, on_progress) else plan._replace(finished=None)
    except OSError as error:
        raise not_writable(out, error) from error


def build(plan: BuildPlan, *, on_progress: OnProgress = lambda done, total: None) -> DatasetInfo:
    """Build what was planned and is not there.

    Raises:
        PlatformError: If the folder cannot be written, nothing is readable, too much is skipped,
            or a label is left with one clip. In the last three cases `skipped.csv` is written all
            the same.
    """
    try:
        clear(plan.out, keep={shard.file for shard in plan.shards})
        ledger, built = _run(plan, on_progress)
        ledger.write_skipped(plan.out)
        _check_outcomes(plan, ledger)
        ledger.write_clips(plan.out)
        text = json.dumps(_describe(plan, ledger, built).to_json(), indent=1, sort_keys=True)
        (plan.out / DATASET_FILE).write_whole(text)
    except OSError as error:
        raise not_writable(plan.out, error) from error
    return DatasetInfo.open(plan.out)


def _drop_moved(plan: BuildPlan, is_moved: np.ndarray) -> None:
    """Remove the shards that were not made from the sounds at their clips' new paths."""

    def is_other(shard: ShardPlan) -> bool:
        clips = planned_clips(plan.manifest.clips, shard).to_pylist()
        return is_of_other_sounds(plan.out, shard.file, clips)

    touched = [shard for shard in plan.shards if is_moved[shard.rows].any()]
    with ThreadPoolExecutor(_CHECK_THREADS) as pool:
        for shard, drop in zip(touched, pool.map(is_other, touched), strict=True):
            if drop:
                (plan.out / DATASET_FILE).unlink(missing_ok=True)
                (plan.out / shard.file).unlink(missing_ok=True)


def _is_finished(plan: BuildPlan, on_progress: OnProgress) -> bool:
    """Whether every shard is as it was written, and what it was made from did not change."""
    if plan.finished is None:
        return False
    written = {shard.file: shard for shard in plan.finished.shards}

    def is_built(shard: ShardPlan) -> bool:
        clips = planned_clips(plan.manifest.clips, shard).to_pylist()
        built = find_built(plan.out, shard.file, clips, plan.options)
        if built is None:
            return False
        if not built.shard.num_rows or built.shard == written.get(shard.file):
            return True
        (plan.out / shard.file).unlink(missing_ok=True)  # it reads well, but has other bytes
        return False

    with ThreadPoolExecutor(_CHECK_THREADS) as pool:
        for done, is_whole in enumerate(pool.map(is_built, plan.shards), start=1):
            if not is_whole:
                return False
            on_progress(done, len(plan.shards))
    try:
        DatasetInfo.open(plan.out)
    except PlatformError:
        return False
    return True


def _run(plan: BuildPlan, on_progress: OnProgress) -> tuple[Ledger, list[BuiltShard]]:
    clips = plan.manifest.clips
    ledger = Ledger(clips)
    built: dict[int, BuiltShard] = {}
    num_done = 0
    on_progress(0, len(clips))
    for shard, done in build_shards(clips, plan.shards, plan.out, plan.options):
        ledger.record(shard, done.report)
        # what is kept per shard is small; outcomes of clips are in the ledger
        built[shard.number] = BuiltShard(done.shard, done.report._replace(outcomes=()))
        num_done += len(shard.rows)
        on_progress(num_done, len(clips))
    return ledger, [built[shard.number] for shard in plan.shards]


def _check_outcomes(plan: BuildPlan, ledger: Ledger) -> None:
    listed = plan.out / SKIPPED_FILE
    listing, num_clips = plan.manifest.listing, len(plan.manifest.clips)
    num_skipped, max_skipped = len(ledger.skipped), plan.options.max_skipped
    if not ledger.num_kept:
        raise PlatformError(
            f"{listed}: at least one clip must be readable, but none of {num_clips} is "
            f"(first: {ledger.first_skipped()}); check the audio files"
        )
    if num_skipped > max_skipped * num_clips:
        raise PlatformError(
            f"{listed}: at most {max_skipped:.0%} of the clips may be skipped, but got "
            f"{num_skipped} of {num_clips} ({num_skipped / num_clips:.1%}; "
            f"{ledger.num_silent_skipped} of them digital silence); mend the files listed "
            "there, keep silence with --keep-silent, or allow more with --max-skipped"
        )
    if listing.label_kind == "single":
        check_counts(listed, ledger.label_counts(), listing.label_names)


def _describe(plan: BuildPlan, ledger: Ledger, built: Sequence[BuiltShard]) -> DatasetInfo:
    listing, options = plan.manifest.listing, plan.options
    filled = [(shard, report) for shard, report in built if shard.num_rows]
    folds = sorted({shard.fold for shard, _ in filled})
    duplicates = find_duplicates(plan.manifest.clips, ledger, listing.fold_names)
    return DatasetInfo(
        folder=plan.out,
        name=listing.name,
        synthetic=listing.synthetic,
        origin=info_origin(listing.origin, options),
        label_kind=listing.label_kind,
        label_names=listing.label_names,
        folds=tuple(folds),
        fold_names=listing.fold_names,
        metric=listing.metric,
        recipes=listing.recipes,
        num_clips=ledger.num_kept,
        duration_s=float(np.sum(ledger.duration_s[ledger.kept])),
        content=options.content,
        front_end=asdict(options.front_end),
        fingerprint=digest([shard.fingerprint for shard, _ in filled]),
        max_frames=int(ledger.num_frames[ledger.kept].max()),
        fold_statistics={
            fold: _merge(report.statistics for shard, report in filled if shard.fold == fold)
            for fold in folds
        },
        shards=tuple(shard for shard, _ in filled),
        skipped=len(ledger.skipped),
        silent=ledger.num_silent,
        num_duplicates=duplicates.num_duplicates,
        warnings=(*listing.warnings, *duplicates.warnings),
    )


def _merge(statistics: Iterable[FoldStatistics]) -> FoldStatistics:
    return reduce(FoldStatistics.merge, statistics, FoldStatistics(0, 0.0, 0.0))
