"""A progress bar on the terminal for what lasts; silence otherwise."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

QUIET_S = 5.0


class ProgressBar:
    """Callable with (done, total); draws nothing in its first `QUIET_S` seconds."""

    def __init__(self, console: Console, label: str) -> None:
        self._label = label
        self._started = time.monotonic()
        self._shown = False
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task(label, total=None)

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` clips are done."""
        self._progress.update(self._task, completed=done, total=total)
        if not self._shown and time.monotonic() - self._started >= QUIET_S:
            self._shown = True
            self._progress.start()

    def stop(self) -> None:
        """Take the bar away."""
        if self._shown:
            self._progress.stop()


@contextmanager
def progress_bar(label: str) -> Iterator[ProgressBar]:
    """A bar on stderr, or one that draws nothing where stderr is no terminal."""
    console = Console(stderr=True, quiet=not sys.stderr.isatty())
    bar = ProgressBar(console, label)
    try:
        yield bar
    finally:
        bar.stop()
