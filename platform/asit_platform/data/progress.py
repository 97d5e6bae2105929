"""A progress bar on the terminal for what lasts; silence otherwise."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

QUIET_S = 5.0


class _Rate(ProgressColumn):
    """How many a second, of late."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """The rate; nothing before it is known."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(
            f"{speed:,.0f} {self._unit}/s" if speed >= 10 else f"{speed:.1f} {self._unit}/s"
        )


class ProgressBar:
    """Callable with (done, total); draws nothing in its first `QUIET_S` seconds."""

    def __init__(self, console: Console, label: str, unit: str) -> None:
        self._label = label
        self._started = time.monotonic()
        self._shown = False
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(unit),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task(label, total=None)

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` are done."""
        self._progress.update(self._task, completed=done, total=total)
        if not self._shown and time.monotonic() - self._started >= QUIET_S:
            self._shown = True
            self._progress.start()

    def stop(self) -> None:
        """Take the bar away."""
        if self._shown:
            self._progress.stop()


@contextmanager
def progress_bar(label: str, *, unit: str = "clips") -> Iterator[ProgressBar]:
    """A bar on stderr, or one that draws nothing where stderr is no terminal.

    Args:
        label: What is being done.
        unit: What is counted.
    """
    console = Console(stderr=True, quiet=not sys.stderr.isatty())
    bar = ProgressBar(console, label, unit)
    try:
        yield bar
    finally:
        bar.stop()
