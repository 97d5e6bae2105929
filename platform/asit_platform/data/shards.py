"""Decode and log-mel, once per clip, on Ray Data: the shards.

One Ray Data block is the list of one shard's clips, and one task turns it into one Parquet file.
So memory stays small, a retried task writes the same file again, and neither the number of CPUs
nor the order in which tasks end changes a byte. A shard holds clips of one fold only: whoever reads
the training folds never opens a file with test clips.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import ray.data

from asit_platform.data.options import PrepareOptions
from asit_platform.data.ray_data import explain_no_progress, ray_data_context
from asit_platform.data.shard_file import SHARD_FOLDER, Shard
from asit_platform.data.shard_report import ShardReport
from asit_platform.data.shard_reuse import BuiltShard
from asit_platform.data.shard_task import build_block
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

CLIPS_PER_SHARD = 64
# Ray Data keeps all it has to do in the driver, so it is given a part at a time.
SHARDS_PER_WAVE = 1000


class ShardPlan(NamedTuple):
    """Which rows of the manifest go into which file."""

    number: int
    file: str
    fold: int
    rows: np.ndarray


def plan_shards(clips: pa.Table) -> list[ShardPlan]:
    """Deal clips out to shards, fold by fold, in an order that mixes the labels.

    The order is that of a hash of the clip id. In streamed mode only clips of neighbouring shards
    meet in a batch, so a shard must not be all one label.

    Args:
        clips: Of a manifest.
    """
    order = np.argsort(_mixed_order(clips["clip_id"].to_pylist()), kind="stable")
    folds = clips["fold"].to_numpy()[order]
    plans: list[ShardPlan] = []
    for fold in np.unique(folds).tolist():
        rows = order[folds == fold]
        for number, part in enumerate(_split_evenly(rows, at_most=CLIPS_PER_SHARD)):
            file = f"{SHARD_FOLDER}/fold{fold}-{number:05d}.parquet"
            plans.append(ShardPlan(len(plans), file, fold, part))
    return plans


def planned_clips(clips: pa.Table, plan: ShardPlan) -> pa.Table:
    """The rows of one shard, in its order."""
    return clips.take(pa.array(plan.rows))


def build_shards(
    clips: pa.Table, plans: Sequence[ShardPlan], out: Place, options: PrepareOptions
) -> Iterator[tuple[ShardPlan, BuiltShard]]:
    """Build every planned shard that is not there; reports come as shards are done, in any order.

    Args:
        clips: Of a manifest.
        plans: From `plan_shards`.
        out: The dataset folder; on a cluster, one that all nodes see.
        options: Front end and content.

    Raises:
        PlatformError: If a shard cannot be written or no CPU is free for long.
    """
    for start in range(0, len(plans), SHARDS_PER_WAVE):
        yield from _build_wave(clips, plans[start : start + SHARDS_PER_WAVE], out, options)


def _build_wave(
    clips: pa.Table, plans: Sequence[ShardPlan], out: Place, options: PrepareOptions
) -> Iterator[tuple[ShardPlan, BuiltShard]]:
    build = partial(build_block, out=str(out.absolute()), options=options)
    by_file = {plan.file: plan for plan in plans}
    with ray_data_context(runs_through=True):
        planned = ray.data.from_arrow([_block(clips, plan) for plan in plans])
        # batch_size=None hands over whole blocks, which is what makes a block a shard
        answers = planned.map_batches(build, batch_size=None, batch_format="pyarrow")
    with explain_no_progress():
        for row in answers.iter_rows():
            answer = json.loads(row["answer"])
            if "error" in answer:
                raise PlatformError(answer["error"])
            report = ShardReport.from_json(answer["report"])
            yield by_file[answer["file"]], BuiltShard(Shard(**answer["shard"]), report)


def _block(clips: pa.Table, plan: ShardPlan) -> pa.Table:
    file = pa.repeat(pa.scalar(plan.file), len(plan.rows))
    return planned_clips(clips, plan).append_column("file", file)


def _mixed_order(clip_ids: Sequence[str]) -> np.ndarray:
    """The first 8 bytes of each id's hash, as numbers: they order as the hashes do."""
    digests = b"".join(hashlib.sha256(clip_id.encode()).digest()[:8] for clip_id in clip_ids)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


def _split_evenly(rows: np.ndarray, *, at_most: int) -> list[np.ndarray]:
    num_parts = math.ceil(len(rows) / at_most)
    edges = [len(rows) * part // num_parts for part in range(num_parts + 1)]
    return [rows[start:stop] for start, stop in pairwise(edges)]
