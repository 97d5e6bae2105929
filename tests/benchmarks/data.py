"""How fast do clips reach a model, streamed and from memory, and what does a second trial read?

    python tests/benchmarks/data.py [--parts streamed memory second_trial] [--folder DIR]

One line of JSON a part. The set is made first (not counted): ten-second clips of noise, 998 frames
of 128 bins each; `--folder` keeps it for another run. Every clip gives one crop of 592 frames,
float32 and normalised, in buffers that are used again.

- `streamed`: shards through Ray Data on two CPUs, batches of 64, made ahead in a thread.
  `clips_per_s` is from the very first batch to the last, gaps and all; `by_epoch` each epoch's rate
  after its first batch, part of which was read while the one before ran; `epoch_gap_s` the time
  from an epoch's last batch to the next one's first; `first_batch_s` the wait for the very first.
- `memory`: from the object store, in one thread; `clips_per_cpu_s` is by processor time, which
  what else the machine does cannot slow. Then the gap between epochs, with batches made ahead.
- `second_trial`: bytes that come from the disk for one epoch of a trial that starts when another
  has the set in memory, by all of Ray's processes, with the files put out of the page cache
  before; beside it, the same for an epoch that is streamed, to show that reading would be seen.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
import soundfile
import torch

from asit_core.seeding import numpy_stream
from asit_core.spectrogram import LogMelConfig
from asit_core.views import ViewsConfig
from asit_platform.cluster import start_ray
from asit_platform.data.batches import prefetch_views
from asit_platform.data.dataset import DatasetInfo
from asit_platform.data.listing import Clip, Listing
from asit_platform.data.prepare import PrepareOptions, prepare
from asit_platform.data.source import ClipSource
from asit_platform.data.stream import ClipStream
from asit_platform.data.streaming.crops import ViewCutter

CLIP_S, CLIPS_A_FILE = 10, 50
RATE_HZ, BATCH_SIZE, EPOCHS = 16000, 64, 3
VIEWS = ViewsConfig(num_views=1)
OBJECT_STORE_BYTES = 6 * 10**9


def make_dataset(folder: Path, num_clips: int) -> DatasetInfo:
    """Long recordings of noise, and the clips cut from them; found again if they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for first in range(0, num_clips, CLIPS_A_FILE):
        path = folder / f"noise-{first:07d}.flac"
        if not path.exists():
            generator = numpy_stream(0, "benchmark", first)
            noise = 0.1 * generator.standard_normal(CLIPS_A_FILE * CLIP_S * RATE_HZ)
            soundfile.write(path, np.clip(noise, -1.0, 1.0), RATE_HZ)
        for number in range(first, min(first + CLIPS_A_FILE, num_clips)):
            start_s = (number - first) * float(CLIP_S)
            clip = Clip(
                clip_id=f"clip-{number:07d}",
                path=str(path),
                labels=(number % 10,),
                fold=1,
                source=path.name,
                start_s=start_s,
                stop_s=start_s + CLIP_S,
            )
            clips.append(clip)
    listing = Listing(
        name="noise",
        synthetic=True,
        origin={"benchmark": num_clips},
        label_kind="single",
        label_names=tuple(map(str, range(10))),
        fold_names={},
        metric=None,
        recipes=(),
        warnings=(),
        clips=tuple(clips),
    )
    return prepare(listing, folder / "dataset", PrepareOptions(front_end=LogMelConfig()))


def make_stream(source: ClipSource) -> ClipStream:
    """The order of a pre-training."""
    return ClipStream(source, folds=source.folds, seed=0, batch_size=BATCH_SIZE)


def time_epochs(source: ClipSource) -> dict[str, Any]:
    """Epochs of crops made ahead, as a training loop takes them."""
    mean, std = source.info.mean_std(source.folds)
    clips = make_stream(source)
    ahead = prefetch_views(clips, VIEWS, mean=mean, std=std, num_epochs=EPOCHS)
    rates, spans, waits, ended = [], [], [], time.perf_counter()
    for epoch in range(EPOCHS):
        batches = ahead.epoch(epoch)
        next(batches)
        began = time.perf_counter()
        waits.append(round(began - ended, 3))
        num_clips = BATCH_SIZE * sum(1 for _ in batches)
        ended = time.perf_counter()
        spans.append(ended - began)
        rates.append(round(num_clips / spans[-1]))
    ahead.close()
    num_clips = EPOCHS * clips.steps_per_epoch * BATCH_SIZE - BATCH_SIZE
    return {
        "clips_per_s": round(num_clips / (sum(spans) + sum(waits[1:]))),
        "by_epoch": rates,
        "first_batch_s": waits[0],
        "epoch_gap_s": waits[1:],
    }


def streamed(data: Path) -> dict[str, Any]:
    """Shards through Ray Data."""
    source = ClipSource.open(data, mode="streamed")
    return {"clips": len(source.clips), **time_epochs(source)}


def memory(data: Path) -> dict[str, Any]:
    """From the object store, in this thread."""
    source = ClipSource.open(data, mode="in_memory")
    mean, std = source.info.mean_std(source.folds)
    cutter = ViewCutter(source.info, VIEWS, seed=0, mean=mean, std=std)
    clips = make_stream(source)
    best: dict[str, float] = {"clips_per_s": 0.0, "clips_per_cpu_s": 0.0}
    for epoch in range(EPOCHS):
        # the first epoch maps the pages of shared memory: the best of all is what it comes to
        wall, cpu = time.perf_counter(), time.thread_time()
        num_clips = BATCH_SIZE * sum(1 for rows in clips.rows(epoch) if cutter(rows))
        rates = {
            "clips_per_s": num_clips / (time.perf_counter() - wall),
            "clips_per_cpu_s": num_clips / (time.thread_time() - cpu),
        }
        best = {name: max(rate, round(rates[name])) for name, rate in best.items()}
    ahead = time_epochs(source)
    return {"clips": len(source.clips), **best, "epoch_gap_s": ahead["epoch_gap_s"]}


def second_trial(data: Path) -> dict[str, Any]:
    """Bytes read from the disk by a trial beside another."""
    held = ClipSource.open(data, mode="in_memory")
    from_shards = ClipSource.open(data, mode="streamed")

    @ray.remote
    def trial(source: ClipSource) -> int:
        return sum(len(batch.clip_ids) for batch in make_stream(source).epoch(0))

    assert ray.get(trial.remote(held)) > 0
    shards = [held.info.folder.local / shard.file for shard in held.info.shards]
    return {
        "shard_bytes": sum(shard.num_bytes for shard in held.info.shards),
        "read_from_disk_bytes": bytes_read(lambda: ray.get(trial.remote(held)), shards),
        "read_when_streamed_bytes": bytes_read(lambda: ray.get(trial.remote(from_shards)), shards),
    }


def bytes_read(run: Callable[[], object], files: Iterable[Path]) -> int:
    """What all our processes read from the disk meanwhile, the page cache being without `files`."""
    for file in files:
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = read_counters()
    run()
    return sum(count - before.get(process, 0) for process, count in read_counters().items())


def read_counters() -> dict[int, int]:
    """Bytes read from the disk so far, by process id: this one, Ray's and their children."""
    own = psutil.Process()
    processes = [own, *own.children(recursive=True)]
    return {process.pid: process.io_counters().read_bytes for process in processes}


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "streamed": streamed,
    "memory": memory,
    "second_trial": second_trial,
}


def main() -> None:
    """Print one line a part."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--clips", type=int, default=5000)
    parser.add_argument("--folder", type=Path, help="Where the set is kept; a new one otherwise.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory() as temporary,
        start_ray(address="local", num_cpus=2, object_store_bytes=OBJECT_STORE_BYTES),
    ):
        folder = arguments.folder or Path(temporary)
        make_dataset(folder, arguments.clips)
        for part in arguments.parts:
            row = {"benchmark": f"data/{part}", **PARTS[part](folder / "dataset")}
            print(json.dumps(row), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
