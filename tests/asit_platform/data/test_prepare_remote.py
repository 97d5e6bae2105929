"""A whole build in a bucket of a server on this machine."""

import dataclasses
from pathlib import Path

import pytest

from asit_core.spectrogram import LogMelConfig
from asit_platform.data.prepare import PrepareOptions, prepare
from asit_platform.data.readers.esc50 import read_esc50
from asit_platform.storage import Place

# the bucket first: Ray's workers inherit its credentials
pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.usefixtures("bucket_url", "local_ray"),
]


def test_from_a_bucket_to_a_bucket_as_from_disk_to_disk(
    bucket_url: str, esc50: Path, tmp_path: Path, front_end: LogMelConfig
) -> None:
    remote = Place.of(bucket_url)
    sounds, out = remote / "esc50", remote / "out"
    for path in esc50.rglob("*.*"):
        (sounds / path.relative_to(esc50).as_posix()).write_whole(path.read_bytes())
    options = PrepareOptions(front_end=front_end)
    local = prepare(read_esc50(esc50), tmp_path / "out", options)
    info = prepare(read_esc50(str(sounds)), out, options)
    assert dataclasses.replace(info, folder=local.folder) == local
    for shard in local.shards:
        assert (out / shard.file).read_bytes() == (local.folder / shard.file).read_bytes()
    before = (out / info.shards[1].file).stat()
    calls: list[tuple[int, int]] = []
    again = prepare(
        read_esc50(str(sounds)), out, options, on_progress=lambda *call: calls.append(call)
    )
    assert again == info
    assert not calls
    (out / "dataset.json").unlink()
    (out / info.shards[0].file).unlink()
    assert prepare(read_esc50(str(sounds)), out, options) == info
    assert (out / info.shards[1].file).stat() == before
