"""Batches made ahead in a thread: the next is ready, on its device, when the last is done with.

The thread runs on from one epoch into the next. Towards an epoch's end it has the stream prepare
the next one (its order, and where shards are streamed, Ray Data and the first window), so that an
epoch begins without a pause. For so long, two windows of shards are held.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from asit_core.views import ViewsConfig
from asit_platform.data.stream import ClipStream
from asit_platform.data.streaming.collate import ClipBatch, Collator
from asit_platform.data.streaming.crops import ViewBatch, ViewCutter
from asit_platform.data.streaming.rows import ClipRows

NUM_AHEAD = 2
# An epoch is prepared when its predecessor has so many clips left on this worker: what a GPU takes
# in some twenty seconds, and twice the largest window.
CLIPS_AHEAD = 16384
_POLL_S = 0.1

BatchT = TypeVar("BatchT", ClipBatch, ViewBatch)


class _Ready(NamedTuple):
    """A batch; `copied` is passed on the GPU once it is there, None on a CPU."""

    batch: Any
    copied: torch.cuda.Event | None


class Prefetcher(Generic[BatchT]):
    """A stream whose batches are made ahead; stands wherever a `ClipStream` does."""

    def __init__(
        self,
        stream: ClipStream,
        make: Callable[[ClipRows], BatchT],
        *,
        num_epochs: int,
        device: torch.device | None = None,
    ) -> None:
        """Set up; nothing is read yet.

        Args:
            stream: Where the clips come from.
            make: Turns a step's rows into its batch, on the device.
            num_epochs: Where the run ends: nothing is prepared past it.
            device: Where `make` puts the batches.
        """
        self._stream, self._make, self._num_epochs = stream, make, num_epochs
        self._device = device or torch.device("cpu")
        self._ahead: _Ahead | None = None
        self._due = (-1, 0)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self._stream.steps_per_epoch

    def epoch(self, epoch: int, *, first_step: int = 0) -> Iterator[BatchT]:
        """This worker's part of every batch of an epoch, from a step on.

        Args:
            epoch: Its number, counted from 0.
            first_step: Step to begin with; what only earlier ones need is not read.

        Raises:
            ValueError: If the epoch has no such step.
        """
        self._stream.check_first_step(first_step)
        if self._ahead is None or self._due != (epoch, first_step):
            self.close()
            epochs = range(epoch, max(self._num_epochs, epoch + 1))
            batches = _make_batches(self._stream, self._make, epochs, first_step=first_step)
            self._ahead = _Ahead(batches, self._device)
        ahead, self._due = self._ahead, (-1, 0)  # an epoch left half-way is not gone on with
        for _ in range(first_step, self.steps_per_epoch):
            assert ahead is self._ahead, "another epoch was begun before this one's end"
            yield ahead.take()
        if epoch + 1 < self._num_epochs:
            self._due = (epoch + 1, 0)

    def close(self) -> None:
        """End the thread and what it reads."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None


def prefetch_clips(
    stream: ClipStream, *, num_epochs: int, device: torch.device | None = None
) -> Prefetcher[ClipBatch]:
    """Whole clips in float16, for a model that crops on the device."""
    collator = Collator(stream.source.info, device)
    return Prefetcher(stream, collator, num_epochs=num_epochs, device=device)


def prefetch_views(
    stream: ClipStream,
    config: ViewsConfig,
    *,
    mean: float,
    std: float,
    num_epochs: int,
    device: torch.device | None = None,
) -> Prefetcher[ViewBatch]:
    """Normalised float32 crops; on a CPU, one is good until the next is asked for.

    Args:
        stream: Where the clips come from.
        config: What to cut.
        mean: Log-mel mean to normalise with.
        std: Log-mel deviation to normalise with.
        num_epochs: Where the run ends.
        device: Where the crops go.
    """
    cutter = ViewCutter(
        stream.source.info,
        config,
        seed=stream.seed,
        mean=mean,
        std=std,
        device=device,
        # those in the queue, the one the thread has ready beside it, and the consumer's
        num_buffers=NUM_AHEAD + 2,
    )
    return Prefetcher(stream, cutter, num_epochs=num_epochs, device=device)


class _Ahead:
    """A thread that runs an iterator some items ahead of who takes them."""

    def __init__(self, batches: Iterator[Any], device: torch.device) -> None:
        self._ready: queue.Queue[_Ready | BaseException] = queue.Queue(NUM_AHEAD)
        self._stopped = threading.Event()
        self._device = device
        arguments = (batches, device, self._ready, self._stopped)
        self._thread = threading.Thread(target=_run_ahead, args=arguments, daemon=True)
        self._thread.start()

    def take(self) -> Any:
        """The next batch; an error of the thread is raised here."""
        ready = self._ready.get()
        if isinstance(ready, BaseException):
            raise ready
        if ready.copied is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(ready.copied)
            for value in ready.batch:
                if isinstance(value, Tensor) and value.is_cuda:
                    # its memory must not be handed out again while this stream still reads it
                    value.record_stream(current)
        return ready.batch

    def close(self) -> None:
        """End the thread after the batch it works on: the next one may write to its buffers."""
        self._stopped.set()
        self._thread.join()

    def __del__(self) -> None:
        self._stopped.set()


def _make_batches(
    stream: ClipStream, make: Callable[[ClipRows], Any], epochs: range, *, first_step: int
) -> Iterator[Any]:
    """Batches of one epoch after the other."""
    for epoch in epochs:
        for step, rows in enumerate(stream.rows(epoch, first_step=first_step)):
            clips_left = (stream.steps_per_epoch - first_step - step) * len(rows.rows)
            if clips_left <= CLIPS_AHEAD and epoch + 1 in epochs:
                stream.prepare(epoch + 1)
            yield make(rows)
        first_step = 0


def _run_ahead(
    batches: Iterator[Any],
    device: torch.device,
    ready: "queue.Queue[_Ready | BaseException]",
    stopped: threading.Event,
) -> None:
    # functions, not methods: a thread that held its owner would keep it from being collected
    def put(item: _Ready | BaseException) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False

    try:
        for item in _on_own_stream(batches, device):
            if not put(item):
                return
    except BaseException as error:
        put(error)


def _on_own_stream(batches: Iterator[Any], device: torch.device) -> Iterator[_Ready]:
    """On a GPU, copies and log-mels run beside the training step, on a stream of their own."""
    if device.type != "cuda":
        for batch in batches:
            yield _Ready(batch, None)
        return
    stream = torch.cuda.Stream(device)
    with torch.cuda.stream(stream):
        for batch in batches:
            copied = torch.cuda.Event()
            copied.record(stream)
            yield _Ready(batch, copied)
