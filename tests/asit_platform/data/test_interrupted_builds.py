"""What a build leaves when something goes wrong under it: real kills, a real full disk."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from asit_core.spectrogram import LogMelConfig
from asit_platform.cluster import start_ray
from asit_platform.data.dataset import DatasetInfo
from asit_platform.data.listing import Listing
from asit_platform.data.manifest import Manifest, write_manifest
from asit_platform.data.options import PrepareOptions
from asit_platform.data.prepare import prepare
from asit_platform.data.shard_task import build_block
from asit_platform.data.synthetic import SyntheticConfig, write_synthetic
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

KILLED_AT = (0, 1, 3, 5, 8)  # shards of ten


@pytest.fixture
def listing(tmp_path: Path) -> Listing:
    config = SyntheticConfig(clips_per_class=60, duration_s=4.0)
    return write_synthetic(tmp_path / "sounds", config)


@pytest.fixture
def options(front_end: LogMelConfig) -> PrepareOptions:
    return PrepareOptions(front_end=front_end)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_full_disk_is_one_line_and_leaves_no_half_shard(
    small_disk: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    config = SyntheticConfig(clips_per_class=10, duration_s=1.0)
    clips = Manifest.of(write_synthetic(tmp_path / "sounds", config)).clips.slice(0, 40)
    block = clips.append_column("file", pa.array(["shards/fold1-00000.parquet"] * len(clips)))
    (small_disk / "shards").mkdir()
    waveforms = PrepareOptions(front_end=options.front_end, content="waveform")
    answer = json.loads(
        build_block(block, out=str(small_disk), options=waveforms)["answer"][0].as_py()
    )
    assert "--out must be writable, but" in answer["error"]
    assert "No space left on device" in answer["error"]
    assert "free space" in answer["error"]
    assert "\n" not in answer["error"]
    assert contents(small_disk) == {}


@pytest.mark.slow
@pytest.mark.ray
def test_a_full_disk_ends_a_build_that_goes_on_where_there_is_room(
    small_disk: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    config = SyntheticConfig(clips_per_class=60, duration_s=4.0)
    listing = write_synthetic(tmp_path / "sounds", config)
    with start_ray(address="local", num_cpus=2, object_store_bytes=200 * 2**20):
        with pytest.raises(PlatformError, match=r"--out must be writable, but .*No space left"):
            prepare(listing, small_disk / "out", options)
        with pytest.raises(PlatformError, match="a build that did not end"):
            DatasetInfo.open(small_disk / "out")
        subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
        resumed = prepare(listing, small_disk / "out", options)
        fresh = prepare(listing, tmp_path / "fresh", options)
    assert resumed.fingerprint == fresh.fingerprint
    assert contents(small_disk / "out") == contents(tmp_path / "fresh")


@pytest.mark.slow
@pytest.mark.ray
def test_killed_workers_change_nothing(
    listing: Listing, tmp_path: Path, options: PrepareOptions
) -> None:
    killed = 0
    stop = threading.Event()

    def kill_some() -> None:
        nonlocal killed
        while killed < 2 and not stop.wait(0.05):
            busy = _building()
            if busy:
                busy[0].kill()
                killed += 1
                stop.wait(1.0)

    with start_ray(address="local", num_cpus=2, object_store_bytes=200 * 2**20):
        fresh = prepare(listing, tmp_path / "fresh", options)
        killer = threading.Thread(target=kill_some)
        killer.start()
        info = prepare(listing, tmp_path / "out", options)
        stop.set()
        killer.join()
    assert killed > 0
    assert info.fingerprint == fresh.fingerprint
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_build_killed_five_times_ends_as_an_undisturbed_one(
    listing: Listing, tmp_path: Path
) -> None:
    (tmp_path / "given").mkdir()
    write_manifest(Place.of(tmp_path / "given"), Manifest.of(listing))
    assert _build(tmp_path, "fresh") == 0
    assert len(_shards(tmp_path / "fresh")) == 10
    for num_shards in KILLED_AT:
        assert _build(tmp_path, "out", kill_at=num_shards) == -signal.SIGKILL
        assert num_shards <= len(_shards(tmp_path / "out"))
        assert not (tmp_path / "out" / "dataset.json").exists()
    assert _build(tmp_path, "out") == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
    DatasetInfo.open(tmp_path / "out").verify()


def _build(folder: Path, out: str, *, kill_at: int | None = None) -> int:
    """Run the command, and kill it as soon as so many shards are there; its exit code."""
    manifest = str(folder / "given" / "manifest.parquet")
    command = ["data", "shards", manifest, "--out", str(folder / out), "--sample-rate", "16000"]
    environment = {**os.environ, "RAY_ADDRESS": ""}
    process = subprocess.Popen([sys.executable, "-m", "asit_platform", *command], env=environment)
    if kill_at is None:
        return process.wait()
    while process.poll() is None and not _has_come_to(folder / out, kill_at):
        time.sleep(0.002)
    return process.returncode if process.returncode is not None else _kill(process)


def _has_come_to(out: Path, num_shards: int) -> bool:
    return (out / "manifest.parquet").exists() and len(_shards(out)) >= num_shards


def _kill(process: subprocess.Popen[bytes]) -> int:
    """And what it started, where that does not end by itself."""
    started_by_it = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    code = process.wait()
    _, left = psutil.wait_procs(started_by_it, timeout=5)
    for each in left:
        each.kill()
    return code


def _shards(out: Path) -> list[Path]:
    return list(out.glob("shards/fold*"))


def _building() -> list[psutil.Process]:
    """Ray's workers that are at a shard; its other processes must live."""
    mine = psutil.Process().children(recursive=True)
    return [each for each in mine if "build_block" in _title(each)]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
