"""Ray Train's workers read shards through Ray Data, and a second trial reads none."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.train
import ray.train.torch
import torch

from asit_platform.data.batches import prefetch_clips
from asit_platform.data.source import ClipSource
from asit_platform.data.stream import ClipStream

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]
EPOCHS = 3


def epochs_of(source: ClipSource, *, rank: int, world_size: int) -> list[Any]:
    """Ids of every batch, and a sum over its values."""
    clips = ClipStream(
        source, folds=[1, 2], seed=0, batch_size=16, rank=rank, world_size=world_size
    )
    ahead = prefetch_clips(clips, num_epochs=EPOCHS)
    batches = [batch for epoch in range(EPOCHS) for batch in ahead.epoch(epoch)]
    ahead.close()
    return [[batch.clip_ids, batch.log_mel_BTF.double().sum().item()] for batch in batches]


def train_loop(config: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    seen = epochs_of(config["source"], rank=rank, world_size=world_size)
    (config["folder"] / f"{rank}.json").write_text(json.dumps(seen))
    ray.train.report({"steps": len(seen)})


@pytest.mark.slow
def test_two_workers_of_ray_train_stream(
    held: ClipSource, streamed: ClipSource, tmp_path: Path
) -> None:
    ray.train.torch.TorchTrainer(
        train_loop,
        train_loop_config={"source": streamed, "folder": tmp_path},
        scaling_config=ray.train.ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
        run_config=ray.train.RunConfig(name="train", storage_path=str(tmp_path / "ray")),
    ).fit()
    for rank in range(2):
        seen = json.loads((tmp_path / f"{rank}.json").read_text())
        assert seen == epochs_of(held, rank=rank, world_size=2)


def test_a_second_trial_needs_no_file(write_dataset: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "dataset", num_shards=8)
    source = ClipSource.open(folder, mode="in_memory")

    @ray.remote
    def trial(given: ClipSource) -> list[Any]:
        return epochs_of(given, rank=0, world_size=1)

    first = ray.get(trial.remote(source))
    shutil.rmtree(folder)
    assert len(first) == EPOCHS * 4
    assert ray.get(trial.remote(source)) == first
