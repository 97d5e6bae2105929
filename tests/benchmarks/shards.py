"""How fast do recordings become shards, and how much memory does it take?

    python tests/benchmarks/shards.py [--root ../shared/data/esc10] [--copies 10] [--cpus 2]

One line of JSON. The 400 clips of the ESC-10 subset of ESC-50 (5 s, 44.1 kHz, ogg) are listed
`--copies` times under other ids and turned into log-mel shards of 128 bins at 32 kHz.
`clips_per_s` counts Ray's start; `peak_mb` is the largest sum of what the driver and Ray's workers
hold for themselves (USS), without the object store.
"""

import argparse
import dataclasses
import json
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

from asit_core.spectrogram import LogMelConfig
from asit_platform.cluster import start_ray
from asit_platform.data.dataset import DatasetInfo
from asit_platform.data.listing import Listing
from asit_platform.data.prepare import PrepareOptions, prepare
from asit_platform.data.readers.esc50 import read_esc50

ESC10 = Path(__file__).resolve().parents[3] / "shared" / "data" / "esc10"
_SAMPLE_S = 0.5


class PeakMemory(threading.Thread):
    """Looks twice a second at what this process and Ray's workers hold for themselves."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self._stop_asked = threading.Event()

    def run(self) -> None:
        """Until `end` is called."""
        while not self._stop_asked.wait(_SAMPLE_S):
            self.peak_bytes = max(self.peak_bytes, _used_bytes())

    def end(self) -> None:
        """Stop looking."""
        self._stop_asked.set()
        self.join()


def repeat(listing: Listing, copies: int) -> Listing:
    """The same files under several ids."""
    clips = [
        dataclasses.replace(clip, clip_id=f"{clip.clip_id}-{copy:03d}")
        for clip in listing.clips
        for copy in range(copies)
    ]
    return dataclasses.replace(listing, clips=tuple(clips))


def measure(listing: Listing, out: Path, *, num_cpus: int) -> tuple[DatasetInfo, float, int]:
    """Build; the dataset, seconds with Ray's start, and peak bytes."""
    memory = PeakMemory()
    memory.start()
    started = time.monotonic()
    with start_ray(address="local", num_cpus=num_cpus):
        info = prepare(listing, out, PrepareOptions(front_end=LogMelConfig()))
    elapsed_s = time.monotonic() - started
    memory.end()
    return info, elapsed_s, memory.peak_bytes


def main() -> None:
    """Print the measurement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, default=ESC10)
    parser.add_argument("--copies", type=int, default=10)
    parser.add_argument("--cpus", type=int, default=2)
    options = parser.parse_args()
    listing = repeat(read_esc50(options.root), options.copies)
    with tempfile.TemporaryDirectory() as folder:
        info, elapsed_s, peak_bytes = measure(listing, Path(folder), num_cpus=options.cpus)
    result = {
        "part": "shards",
        "clips": info.num_clips,
        "cpus": options.cpus,
        "elapsed_s": round(elapsed_s, 1),
        "clips_per_s": round(info.num_clips / elapsed_s, 1),
        "peak_mb": round(peak_bytes / 1e6),
        "shards": len(info.shards),
        "bytes": sum(shard.num_bytes for shard in info.shards),
    }
    print(json.dumps(result))  # noqa: T201


def _used_bytes() -> int:
    total = 0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        with suppress(psutil.Error):
            is_worker = any(part.startswith("ray::") for part in process.cmdline())
            if process == me or is_worker:
                total += process.memory_full_info().uss
    return total


if __name__ == "__main__":
    main()
