"""Sets of many shards, where steps draw from lanes: workers, resuming, what is read."""

import threading
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from asit_platform.data.source import ClipSource
from asit_platform.data.stream import ClipBatch, ClipStream, read_all
from asit_platform.data.streaming import shard_reading, step_rows
from asit_platform.data.streaming.shard_reading import Piece, ShardReading
from asit_platform.errors import PlatformError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]
FOLDS = [1, 2]


def stream(source: ClipSource, **changed: Any) -> ClipStream:
    settings = {"folds": FOLDS, "seed": 0, "batch_size": 16, "donor_group": 2, **changed}
    return ClipStream(source, **settings)


def ids(batches: Iterable[ClipBatch]) -> list[list[str]]:
    return [batch.clip_ids for batch in batches]


def assert_same(one: Iterable[ClipBatch], other: Iterable[ClipBatch]) -> None:
    for first, second in zip(one, other, strict=True):
        assert first.clip_ids == second.clip_ids
        for field in ("log_mel_BTF", "num_frames_B", "label_B", "fold_B"):
            assert torch.equal(getattr(first, field), getattr(second, field)), field


@pytest.fixture
def pieces_read(monkeypatch: pytest.MonkeyPatch) -> list[Piece]:
    """What is asked of Ray Data from now on."""
    asked: list[Piece] = []

    class Noting(ShardReading):
        def __init__(self, info, pieces, *, blocks_ahead) -> None:
            asked.extend(pieces)
            super().__init__(info, pieces, blocks_ahead=blocks_ahead)

    monkeypatch.setattr(step_rows, "ShardReading", Noting)
    return asked


def test_streamed_equals_in_memory(held: ClipSource, streamed: ClipSource) -> None:
    for settings in ({}, {"rank": 1, "world_size": 2}, {"batch_size": 24, "donor_group": 3}):
        one, other = stream(held, **settings), stream(streamed, **settings)
        assert one.steps_per_epoch == 320 // settings.get("batch_size", 16)
        assert_same(one.epoch(3), other.epoch(3))


def test_a_long_epoch_is_read_in_several_runs(
    held: ClipSource, streamed: ClipSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_reading, "PIECES_A_RUN", 15)
    assert_same(stream(held).epoch(0), stream(streamed).epoch(0))


def test_workers_share_the_batches_of_one(held: ClipSource, streamed: ClipSource) -> None:
    whole = ids(stream(held).epoch(2))
    assert len(set(chain.from_iterable(whole))) == 320
    for world_size in (2, 4):
        workers = [stream(streamed, rank=r, world_size=world_size) for r in range(world_size)]
        parts = zip(*(ids(worker.epoch(2)) for worker in workers), strict=True)
        assert [list(chain.from_iterable(part)) for part in parts] == whole


def test_a_worker_reads_the_shards_of_its_lanes(
    streamed: ClipSource, pieces_read: list[Piece]
) -> None:
    """Five lanes of eight shards among five workers."""
    shards: list[set[str]] = []
    for rank in range(5):
        pieces_read.clear()
        worker = stream(streamed, batch_size=20, donor_group=4, rank=rank, world_size=5)
        list(worker.epoch(0))
        shards.append({piece.shard for piece in pieces_read})
    assert all(len(own) <= 9 for own in shards)
    assert len(set.union(*shards)) == 40


@pytest.mark.parametrize("first_step", [0, 1, 7, 19, 20])
def test_an_epoch_entered_half_way_goes_on_as_it_would_have(
    held: ClipSource, streamed: ClipSource, first_step: int
) -> None:
    whole = list(stream(held).epoch(4))[first_step:]
    assert_same(stream(held).epoch(4, first_step=first_step), whole)
    assert_same(stream(streamed).epoch(4, first_step=first_step), whole)


def test_resuming_reads_nothing_that_only_earlier_steps_need(
    streamed: ClipSource, pieces_read: list[Piece]
) -> None:
    whole = ids(stream(streamed).epoch(0))
    in_shard = {
        row["clip_id"]: row["shard"]
        for row in streamed.clips.select(["clip_id", "shard"]).to_pylist()
    }
    for first_step in (5, 18):
        pieces_read.clear()
        list(stream(streamed).epoch(0, first_step=first_step))
        needed = set(chain.from_iterable(whole[first_step:]))
        assert {piece.shard for piece in pieces_read} == {in_shard[clip] for clip in needed}
        for piece in pieces_read:
            held_there = {clip for clip, shard in in_shard.items() if shard == piece.shard}
            assert set(piece.clip_ids or held_there) <= needed
    assert len({piece.shard for piece in pieces_read}) < 40


def test_steps_that_are_not_there(held: ClipSource) -> None:
    with pytest.raises(ValueError, match=r"first_step must be in \[0, 20\], but got 21"):
        list(stream(held).epoch(0, first_step=21))


def test_read_all_gives_each_clip_once(held: ClipSource, streamed: ClipSource) -> None:
    assert_same(read_all(held, [2, 1], 50), read_all(streamed, [1, 2], 50))
    seen = list(chain.from_iterable(ids(read_all(streamed, FOLDS, 50))))
    assert sorted(seen) == held.clips["clip_id"].to_pylist()


def test_an_epoch_left_half_way_ends_its_reading(streamed: ClipSource) -> None:
    clips = stream(streamed)
    begun = clips.epoch(0)
    first = next(begun)
    del begun
    for thread in threading.enumerate():
        if "_read_ahead" in thread.name:
            thread.join(timeout=60)
            assert not thread.is_alive()
    assert_same([first], [next(clips.epoch(0))])


def test_workers_evaluate_every_clip_once(streamed: ClipSource) -> None:
    def ids(**worker: Any) -> list[str]:
        return [name for batch in read_all(streamed, [1], 16, **worker) for name in batch.clip_ids]

    parts = [ids(rank=rank, world_size=3) for rank in range(3)]
    assert [clip_id for part in parts for clip_id in part] == ids()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_shard_of_other_clips_is_named(
    write_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_dataset(tmp_path / "dataset", num_shards=4)
    source = ClipSource.open(folder, mode="streamed")
    first, second = (folder / shard.file for shard in source.info.shards[:2])
    first.write_bytes(second.read_bytes())
    with pytest.raises(PlatformError, match=r"fold1-00000\.parquet: shard must hold clip .*-0-"):
        list(read_all(source, [1]))
