"""Batches made ahead in a thread: the same ones, on time, ended when nobody wants them."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from asit_core.views import ViewsConfig
from asit_platform.data.batches import NUM_AHEAD, Prefetcher, prefetch_clips, prefetch_views
from asit_platform.data.source import ClipSource
from asit_platform.data.stream import ClipStream
from asit_platform.data.streaming.collate import ClipBatch, Collator
from asit_platform.data.streaming.crops import ViewCutter
from asit_platform.data.streaming.rows import ClipRows

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]
MEAN, STD = -5.5, 3.25


@pytest.fixture(scope="module")
def source(local_ray: None, built_once: Path) -> ClipSource:
    return ClipSource.open(built_once)


@pytest.fixture(scope="module")
def streamed(local_ray: None, built_once: Path) -> ClipSource:
    return ClipSource.open(built_once, mode="streamed")


@pytest.fixture
def started(source: ClipSource) -> Iterator[Callable[..., Prefetcher]]:
    """Makes prefetchers that are closed at the end."""
    made: list[Prefetcher] = []

    def start(clips: ClipStream, make: Callable[[ClipRows], Any], num_epochs: int) -> Prefetcher:
        made.append(Prefetcher(clips, make, num_epochs=num_epochs))
        return made[-1]

    yield start
    for prefetcher in made:
        prefetcher.close()


def stream(source: ClipSource) -> ClipStream:
    return ClipStream(source, folds=[1, 2, 3], seed=0, batch_size=6)


def assert_same(one: list[ClipBatch], other: list[ClipBatch]) -> None:
    for first, second in zip(one, other, strict=True):
        assert first.clip_ids == second.clip_ids
        assert torch.equal(first.log_mel_BTF, second.log_mel_BTF)


@pytest.mark.parametrize("mode", ["in_memory", "streamed"])
def test_every_epoch_is_the_streams_own(
    source: ClipSource, streamed: ClipSource, mode: str
) -> None:
    clips = stream(source if mode == "in_memory" else streamed)
    ahead = prefetch_clips(clips, num_epochs=4)
    assert ahead.steps_per_epoch == 6
    for epoch in range(1, 4):
        assert_same(list(ahead.epoch(epoch)), list(stream(source).epoch(epoch)))
    ahead.close()


def test_it_can_begin_anywhere_and_be_left_anywhere(source: ClipSource) -> None:
    ahead = prefetch_clips(stream(source), num_epochs=3)
    assert_same(list(ahead.epoch(1, first_step=4)), list(stream(source).epoch(1, first_step=4)))
    assert next(ahead.epoch(2)).clip_ids == next(stream(source).epoch(2)).clip_ids
    assert_same(list(ahead.epoch(0)), list(stream(source).epoch(0)))
    # past the end that was announced
    assert_same(list(ahead.epoch(2)), list(stream(source).epoch(2)))
    assert_same(list(ahead.epoch(3)), list(stream(source).epoch(3)))
    ahead.close()


def test_what_an_epoch_left_half_way_began_is_not_written_over(source: ClipSource) -> None:
    config = ViewsConfig(crop_frames=32)
    ahead = prefetch_views(stream(source), config, mean=MEAN, std=STD, num_epochs=3)
    expected = prefetch_views(stream(source), config, mean=MEAN, std=STD, num_epochs=3)
    wanted = next(expected.epoch(2)).view_VBTF.clone()
    for _ in range(20):
        next(ahead.epoch(0))
        held = next(ahead.epoch(2))
        time.sleep(0.01)
        assert torch.equal(held.view_VBTF, wanted)


def test_a_step_that_is_not_there_is_refused_at_once(source: ClipSource) -> None:
    ahead = prefetch_clips(stream(source), num_epochs=1)
    with pytest.raises(ValueError, match="first_step must be in"):
        next(ahead.epoch(0, first_step=1000))


def test_crops_stay_whole_while_they_are_used(source: ClipSource) -> None:
    config = ViewsConfig(crop_frames=32)
    cutter = ViewCutter(source.info, config, seed=0, mean=MEAN, std=STD, num_buffers=100)
    clips = stream(source)
    expected = [cutter(rows).view_VBTF for epoch in range(3) for rows in clips.rows(epoch)]
    ahead = prefetch_views(stream(source), config, mean=MEAN, std=STD, num_epochs=3)
    batches = (batch for epoch in range(3) for batch in ahead.epoch(epoch))
    for batch, views_VBTF in zip(batches, expected, strict=True):
        time.sleep(0.02)  # the thread makes as much ahead as it can
        assert torch.equal(batch.view_VBTF, views_VBTF)
    ahead.close()


def test_the_next_epoch_is_made_while_this_one_is_used(
    source: ClipSource, started: Callable[..., Prefetcher]
) -> None:
    made: list[int] = []
    collate = Collator(source.info)

    def make(rows: ClipRows) -> ClipBatch:
        made.append(rows.epoch)
        return collate(rows)

    ahead = started(stream(source), make, 2)
    for _ in ahead.epoch(0):
        pass
    deadline = time.monotonic() + 30
    while made.count(1) < NUM_AHEAD and time.monotonic() < deadline:
        time.sleep(0.01)
    assert made.count(1) >= NUM_AHEAD
    list(ahead.epoch(1))
    assert made == [0] * 6 + [1] * 6


def test_an_error_of_the_thread_is_raised_where_batches_are_taken(
    source: ClipSource, started: Callable[..., Prefetcher]
) -> None:
    def make(rows: ClipRows) -> ClipBatch:
        raise ArithmeticError("made to fail")

    with pytest.raises(ArithmeticError, match="made to fail"):
        list(started(stream(source), make, 1).epoch(0))


@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_its_thread_ends_with_it(streamed: ClipSource, how: str) -> None:
    before = set(threading.enumerate())
    ahead = prefetch_clips(stream(streamed), num_epochs=100)
    next(ahead.epoch(0))
    ours = [t for t in set(threading.enumerate()) - before if "_ahead" in str(t.name)]
    assert ours
    if how == "closed":
        ahead.close()
    del ahead
    for thread in ours:
        thread.join(timeout=60)
        assert not thread.is_alive(), thread.name


@pytest.mark.gpu
def test_batches_arrive_on_the_gpu(source: ClipSource) -> None:
    device = torch.device("cuda")
    ahead = prefetch_clips(stream(source), num_epochs=2, device=device)
    for epoch in range(2):
        for batch, expected in zip(ahead.epoch(epoch), stream(source).epoch(epoch), strict=True):
            assert batch.log_mel_BTF.is_cuda
            assert torch.equal(batch.log_mel_BTF.cpu(), expected.log_mel_BTF)
    ahead.close()
