"""Decode and log-mel, once per clip, on Ray Data: the shards.

One Ray Data block is the list of one shard's clips, and one task turns it into one Parquet file.
So memory stays small, a retried task writes the same file again, and neither the number of CPUs
nor the order in which tasks end changes a byte. A shard holds clips of one fold only: whoever reads
the training folds never opens a file with test clips.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import ray.data

from asit_core.spectrogram import LogMelConfig
from asit_platform.data.dataset import SHARD_FOLDER, FoldStatistics, Shard
from asit_platform.data.datasets import Clip
from asit_platform.data.ray_data import explain_no_progress, ray_data_context
from asit_platform.data.shard_task import ClipOutcome, build_block
from asit_platform.errors import PlatformError

CLIPS_PER_SHARD = 64


class ShardPlan(NamedTuple):
    """Which clips go into which file."""

    file: str
    fold: int
    clips: tuple[Clip, ...]


class ShardReport(NamedTuple):
    """What a task did: `shard` is None if no clip of it was usable."""

    plan: ShardPlan
    shard: Shard | None
    statistics: FoldStatistics
    outcomes: tuple[ClipOutcome, ...]


def plan_shards(clips: Iterable[Clip]) -> list[ShardPlan]:
    """Deal clips out to shards, fold by fold, in an order that mixes the labels.

    The order is that of a hash of the clip id. In streamed mode only clips of neighbouring shards
    meet in a batch, so a shard must not be all one label.
    """
    by_fold: dict[int, list[Clip]] = {}
    for clip in sorted(clips, key=_mixed_order):
        by_fold.setdefault(clip.fold, []).append(clip)
    plans = []
    for fold in sorted(by_fold):
        parts = _split_evenly(by_fold[fold], at_most=CLIPS_PER_SHARD)
        for number, part in enumerate(parts):
            file = f"{SHARD_FOLDER}/fold{fold}-{number:05d}.parquet"
            plans.append(ShardPlan(file, fold, tuple(part)))
    return plans


def build_shards(
    plans: Sequence[ShardPlan],
    out: Path,
    *,
    front_end: LogMelConfig,
    fingerprint: str,
    keep_silent: bool,
) -> Iterator[ShardReport]:
    """Build every planned shard; reports come as shards are done, in any order.

    Args:
        plans: From `plan_shards`.
        out: The dataset folder; on a cluster, one that all nodes see.
        front_end: The spectrogram.
        fingerprint: Goes into each shard's metadata.
        keep_silent: Keep clips of digital silence.

    Raises:
        PlatformError: If a shard cannot be written or no CPU is free for long.
    """
    (out / SHARD_FOLDER).mkdir(parents=True, exist_ok=True)
    build = partial(
        build_block,
        out=str(out.resolve()),
        front_end=asdict(front_end),
        fingerprint=fingerprint,
        keep_silent=keep_silent,
    )
    by_file = {plan.file: plan for plan in plans}
    with ray_data_context(runs_through=True):
        planned = ray.data.from_arrow([_plan_to_table(plan) for plan in plans])
        # batch_size=None hands over whole blocks, which is what makes a block a shard
        reports = planned.map_batches(build, batch_size=None, batch_format="pyarrow")
    with explain_no_progress():
        for row in reports.iter_rows():
            yield _report_from_json(by_file, json.loads(row["report"]))


def _mixed_order(clip: Clip) -> bytes:
    return hashlib.sha256(clip.clip_id.encode()).digest()


def _split_evenly(items: Sequence[Clip], *, at_most: int) -> list[Sequence[Clip]]:
    num_parts = math.ceil(len(items) / at_most)
    edges = [len(items) * part // num_parts for part in range(num_parts + 1)]
    return [items[start:stop] for start, stop in pairwise(edges)]


def _plan_to_table(plan: ShardPlan) -> pa.Table:
    rows = [
        {**asdict(clip), "path": str(clip.path.resolve()), "file": plan.file} for clip in plan.clips
    ]
    return pa.Table.from_pylist(rows)


def _report_from_json(plans: Mapping[str, ShardPlan], report: Mapping[str, Any]) -> ShardReport:
    if "error" in report:
        raise PlatformError(report["error"])
    return ShardReport(
        plan=plans[report["file"]],
        shard=None if report["shard"] is None else Shard(**report["shard"]),
        statistics=FoldStatistics(**report["statistics"]),
        outcomes=tuple(ClipOutcome(*outcome) for outcome in report["outcomes"]),
    )
