import os
import pickle
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import torch
from ray.util.placement_group import placement_group, remove_placement_group

from asit_core.spectrogram import LOG_MEL_FLOOR
from asit_platform.data.dataset import DatasetInfo
from asit_platform.data.stream import ClipBatch, ClipSource, ClipStream, read_all
from asit_platform.data.streaming import order
from asit_platform.errors import PlatformError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


@pytest.fixture(scope="module")
def source(local_ray: None, built_once: Path) -> ClipSource:
    return ClipSource.open(built_once)


@pytest.fixture(scope="module")
def streamed(local_ray: None, built_once: Path) -> ClipSource:
    return ClipSource.open(built_once, mode="streamed")


def ids(batches: Iterator[ClipBatch]) -> list[list[str]]:
    return [batch.clip_ids for batch in batches]


def flat(batches: Iterable[list[str]]) -> list[str]:
    return list(chain.from_iterable(batches))


def assert_same(one: list[ClipBatch], other: list[ClipBatch]) -> None:
    for first, second in zip(one, other, strict=True):
        assert first.clip_ids == second.clip_ids
        for field in ("log_mel_BTF", "num_frames_B", "label_B", "fold_B"):
            assert torch.equal(getattr(first, field), getattr(second, field)), field


def test_small_sets_are_held_in_memory(source: ClipSource, streamed: ClipSource) -> None:
    assert source.mode == "in_memory"
    assert streamed.mode == "streamed"


def test_batches_hold_what_the_shards_hold(source: ClipSource, info: DatasetInfo) -> None:
    rows = {
        row["clip_id"]: row
        for shard in info.shards
        for row in pq.read_table(str(info.folder / shard.file)).to_pylist()
    }
    for batch in ClipStream(source, folds=[1, 2], seed=0, batch_size=8).epoch(0):
        assert batch.log_mel_BTF.dtype == torch.float16
        assert batch.log_mel_BTF.shape == (8, info.max_frames, 16)
        assert batch.num_frames_B.dtype == batch.label_B.dtype == batch.fold_B.dtype == torch.int64
        for index, clip_id in enumerate(batch.clip_ids):
            row = rows[clip_id]
            num_frames = int(batch.num_frames_B[index])
            expected = np.frombuffer(row["log_mel"], np.float16).reshape(-1, 16)
            assert np.array_equal(batch.log_mel_BTF[index, :num_frames].numpy(), expected)
            padding = batch.log_mel_BTF[index, num_frames:]
            assert (padding == torch.tensor(LOG_MEL_FLOOR, dtype=torch.float16)).all()
            assert [batch.label_B[index]] == row["labels"]
            assert batch.fold_B[index] == row["fold"]


def test_an_epoch_is_a_permutation_without_remainder(source: ClipSource) -> None:
    clips = ClipStream(source, folds=[1, 2, 3], seed=0, batch_size=10)
    assert (clips.num_clips, clips.steps_per_epoch) == (36, 3)
    seen = flat(ids(clips.epoch(0)))
    assert len(seen) == len(set(seen)) == 30
    assert {clip_id[0] for clip_id in seen} == {"1", "2", "3"}


def test_order_depends_on_seed_and_epoch_only(source: ClipSource) -> None:
    clips = ClipStream(source, folds=[1, 2, 3], seed=0, batch_size=8)
    again = ClipStream(source, folds=[3, 2, 1], seed=0, batch_size=8)
    other = ClipStream(source, folds=[1, 2, 3], seed=1, batch_size=8)
    assert ids(clips.epoch(3)) == ids(again.epoch(3))
    assert ids(clips.epoch(3)) != ids(clips.epoch(4))
    assert ids(clips.epoch(3)) != ids(other.epoch(3))


def test_workers_share_the_batches_of_one(source: ClipSource) -> None:
    whole = ClipStream(source, folds=[1, 2, 3], seed=0, batch_size=12)
    parts = [
        ClipStream(source, folds=[1, 2, 3], seed=0, batch_size=12, rank=rank, world_size=3)
        for rank in range(3)
    ]
    together = zip(*(ids(part.epoch(2)) for part in parts), strict=True)
    assert [flat(batch) for batch in together] == ids(whole.epoch(2))


@pytest.mark.parametrize("window_shards", [1, 2, 32])
def test_streamed_equals_in_memory(
    source: ClipSource,
    streamed: ClipSource,
    monkeypatch: pytest.MonkeyPatch,
    window_shards: int,
) -> None:
    monkeypatch.setattr(order, "WINDOW_SHARDS", window_shards)
    settings = {"folds": [1, 2, 4], "seed": 0, "batch_size": 12, "rank": 1, "world_size": 2}
    held = list(ClipStream(source, **settings).epoch(5))
    read = list(ClipStream(streamed, **settings).epoch(5))
    assert len(held) == 3
    assert_same(held, read)


def test_windows_deal_shards_anew_every_epoch(
    source: ClipSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order, "WINDOW_SHARDS", 1)
    clips = ClipStream(source, folds=[1, 2, 3, 4, 5], seed=0, batch_size=12)
    orders = [[batch.fold_B.unique().tolist() for batch in clips.epoch(e)] for e in range(3)]
    assert all(sorted(order) == [[1], [2], [3], [4], [5]] for order in orders)
    assert len({str(order) for order in orders}) > 1


def test_read_all_gives_each_clip_once(source: ClipSource, streamed: ClipSource) -> None:
    held = flat(ids(read_all(source, [5, 2], batch_size=7)))
    read = flat(ids(read_all(streamed, [5, 2], batch_size=7)))
    assert held == sorted(held)
    assert len(held) == 24
    assert sorted(read) == held


def test_a_task_gets_the_blocks_by_reference(source: ClipSource, info: DatasetInfo) -> None:
    content = pickle.dumps(source)
    assert len(content) < sum(shard.num_bytes for shard in info.shards)

    @ray.remote
    def consume(given: ClipSource) -> list[list[str]]:
        return ids(ClipStream(given, folds=[1, 2], seed=0, batch_size=8).epoch(1))

    expected = ids(ClipStream(source, folds=[1, 2], seed=0, batch_size=8).epoch(1))
    assert ray.get(consume.remote(source)) == expected


def test_folds_that_were_not_opened(built_once: Path) -> None:
    source = ClipSource.open(built_once, [1, 2], mode="streamed")
    assert set(source.clips["fold"].to_pylist()) == {1, 2}
    with pytest.raises(PlatformError, match=r"among those opened, \[1, 2\], but got \[3\]"):
        ClipStream(source, folds=[3], seed=0, batch_size=2)
    with pytest.raises(PlatformError, match=r"folds must be some of"):
        ClipSource.open(built_once, [7])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 6}, r"batch_size must be a positive multiple of .* = 4, but got 6"),
        ({"batch_size": 0}, r"batch_size must be a positive multiple"),
        ({"batch_size": 24}, r"batch_size must be <= 12, the clips in folds \[1\], but got 24"),
        ({"rank": 2}, r"rank must be in \[0, 2\), but got 2"),
    ],
)
def test_impossible_divisions(source: ClipSource, changed: dict, message: str) -> None:
    settings = {"seed": 0, "batch_size": 8, "donor_group": 2, "rank": 0, "world_size": 2}
    with pytest.raises(ValueError, match=message):
        ClipStream(source, folds=[1], **{**settings, **changed})


def test_a_damaged_shard_is_refused_before_it_is_read(built: Path) -> None:
    os.truncate(built / "shards" / "fold1-00000.parquet", 500)
    with pytest.raises(PlatformError, match=r"fold1-00000\.parquet"):
        ClipSource.open(built)


def test_too_large_for_the_object_store_is_streamed(
    built_once: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asit_platform.data.source.OBJECT_STORE_SHARE", 1e-6)
    assert ClipSource.open(built_once).mode == "streamed"


def test_without_a_free_cpu_opening_ends_with_an_error(
    built_once: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asit_platform.data.ray_data.NO_PROGRESS_TIMEOUT_S", 1.0)

    taken = placement_group([{"CPU": 2}])
    ray.get(taken.ready())
    with pytest.raises(PlatformError, match="no CPU is free"):
        ClipSource.open(built_once)
    remove_placement_group(taken)
