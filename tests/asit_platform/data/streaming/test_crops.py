"""Crops cut from shared memory are those that `asit_core.views` cuts from a padded batch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from asit_core.spectrogram import LOG_MEL_FLOOR
from asit_core.views import ViewsConfig, make_views, normalize
from asit_platform.data.source import ClipSource
from asit_platform.data.stream import ClipBatch, ClipStream, read_all
from asit_platform.data.streaming.collate import Collator
from asit_platform.data.streaming.crops import ViewBatch, ViewCutter
from asit_platform.data.streaming.rows import ClipRows

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]
SCALE = {"mean": -5.5, "std": 3.25}


def reference(batch: ClipBatch, config: ViewsConfig, *, epoch: int) -> torch.Tensor:
    views_VBTF = make_views(
        batch.log_mel_BTF, batch.num_frames_B, batch.clip_ids, config, seed=0, epoch=epoch
    )
    return normalize(views_VBTF, **SCALE)


def cut(source: ClipSource, config: ViewsConfig, **changed: Any) -> ViewCutter:
    return ViewCutter(source.info, config, seed=0, **SCALE, **changed)


def rows_of(source: ClipSource, *, epoch: int) -> list[ClipRows]:
    return list(ClipStream(source, folds=[1], seed=0, batch_size=24).rows(epoch))


@pytest.mark.parametrize(
    "config",
    [
        ViewsConfig(crop_frames=32),
        ViewsConfig(crop_frames=32, num_views=1, roll_probability=0.0),
        ViewsConfig(crop_frames=60, roll_probability=1.0),
        ViewsConfig(crop_frames=80),
        ViewsConfig(crop_frames=80, padding="zero"),
    ],
    ids=str,
)
def test_crops_are_those_of_views(held: ClipSource, config: ViewsConfig) -> None:
    collate, cutter = Collator(held.info), cut(held, config)
    for epoch in (0, 3):
        for rows in rows_of(held, epoch=epoch):
            batch, views = collate(rows), cutter(rows)
            assert views.view_VBTF.dtype == torch.float32
            assert torch.equal(views.view_VBTF, reference(batch, config, epoch=epoch))
            assert views.clip_ids == batch.clip_ids
            assert torch.equal(views.num_frames_B, batch.num_frames_B)
            assert torch.equal(views.label_B, batch.label_B)


def test_silent_crops_are_drawn_again(held: ClipSource, floor_in_shards: float) -> None:
    config = ViewsConfig(crop_frames=8, roll_probability=0.5)
    for rows in rows_of(held, epoch=0):
        for silent_frames in (15, 18, 100):
            quiet = [row_TF.clone() for row_TF in rows.rows]
            for row_TF in quiet:
                row_TF[:silent_frames] = floor_in_shards
            changed = rows._replace(rows=quiet)
            expected = reference(Collator(held.info)(changed), config, epoch=0)
            assert torch.equal(cut(held, config)(changed).view_VBTF, expected)


def test_buffers_come_round(held: ClipSource) -> None:
    cutter = cut(held, ViewsConfig(crop_frames=32), num_buffers=3)
    batches = [cutter(rows) for rows in rows_of(held, epoch=0)][:6]
    buffers = [batch.view_VBTF.data_ptr() for batch in batches]
    assert len(set(buffers)) == 3
    assert buffers[:3] == buffers[3:]


def test_shards_are_not_written_to(held: ClipSource) -> None:
    before = [row_TF.clone() for rows in rows_of(held, epoch=0) for row_TF in rows.rows]
    cutter = cut(held, ViewsConfig(crop_frames=32))
    for rows in rows_of(held, epoch=0):
        cutter(rows)
    after = [row_TF for rows in rows_of(held, epoch=0) for row_TF in rows.rows]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.fixture(scope="module")
def both(
    local_ray: None,
    write_dataset: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[ClipSource, ClipSource]:
    """The same sound as log-mel and as waveform shards."""
    folder = tmp_path_factory.mktemp("both")
    log_mel = write_dataset(folder / "log_mel", num_shards=6)
    waveform = write_dataset(folder / "waveform", num_shards=6, content="waveform")
    return ClipSource.open(log_mel), ClipSource.open(waveform)


@pytest.mark.parametrize("mode", ["in_memory", "streamed"])
def test_waveform_shards_give_the_log_mels_of_log_mel_shards(
    both: tuple[ClipSource, ClipSource], mode: str
) -> None:
    log_mel, waveform = both
    if mode == "streamed":
        waveform = ClipSource.open(waveform.info.folder, mode="streamed")
    assert waveform.mode == mode
    for one, other in zip(read_all(log_mel, [1, 2], 7), read_all(waveform, [1, 2], 7), strict=True):
        assert one.clip_ids == other.clip_ids
        assert torch.equal(one.num_frames_B, other.num_frames_B)
        assert other.log_mel_BTF.dtype == torch.float16
        # a clip beside a longer one goes through matrices of another shape: one rounding of float16
        torch.testing.assert_close(other.log_mel_BTF, one.log_mel_BTF, rtol=1e-3, atol=0.0)
        for log_mel_TF, num_frames in zip(other.log_mel_BTF, other.num_frames_B, strict=True):
            assert (log_mel_TF[num_frames:] == torch.tensor(LOG_MEL_FLOOR).half()).all()


def test_crops_of_waveform_shards(both: tuple[ClipSource, ClipSource]) -> None:
    waveform = both[1]
    config = ViewsConfig(crop_frames=32)
    cutter, collate = cut(waveform, config), Collator(waveform.info)
    for rows in rows_of(waveform, epoch=1):
        expected = reference(collate(rows), config, epoch=1)
        assert torch.equal(cutter(rows).view_VBTF, expected)


@pytest.mark.gpu
def test_crops_on_a_gpu_are_those_on_the_cpu(held: ClipSource) -> None:
    config = ViewsConfig(crop_frames=32)
    here, there = cut(held, config), cut(held, config, device=torch.device("cuda"))
    for rows in rows_of(held, epoch=0):
        moved: ViewBatch = there(rows)
        assert moved.view_VBTF.is_cuda
        assert torch.equal(moved.view_VBTF.cpu(), here(rows).view_VBTF)
