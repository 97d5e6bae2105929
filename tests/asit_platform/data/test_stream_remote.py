"""A dataset in a bucket of a server on this machine is streamed as one on disk."""

from pathlib import Path

import pytest
import torch

from asit_platform.data.source import ClipSource, Mode
from asit_platform.data.stream import ClipStream
from asit_platform.storage import Place

# the bucket first: Ray's workers inherit its credentials
pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.usefixtures("bucket_url", "local_ray"),
]


@pytest.mark.parametrize("mode", ["in_memory", "streamed"])
def test_from_a_bucket_as_from_disk(bucket_url: str, built_once: Path, mode: Mode) -> None:
    folder = Place.of(bucket_url) / "dataset"
    for path in built_once.rglob("*.*"):
        (folder / path.relative_to(built_once).as_posix()).write_whole(path.read_bytes())
    settings = {"folds": [1, 2], "seed": 0, "batch_size": 8}
    expected = list(ClipStream(ClipSource.open(built_once), **settings).epoch(1))
    source = ClipSource.open(folder, mode=mode)
    assert source.mode == mode
    for batch, other in zip(ClipStream(source, **settings).epoch(1), expected, strict=True):
        assert batch.clip_ids == other.clip_ids
        assert torch.equal(batch.log_mel_BTF, other.log_mel_BTF)
