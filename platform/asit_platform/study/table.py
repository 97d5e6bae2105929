"""What a sweep shows in the terminal while it runs: a live table, or one line per trial.

`Progress` knows the trials and does the sums, `render` draws them, `SweepProgress` is the
callback that Tune feeds. Nothing is drawn where there is no terminal.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ray.tune import Callback
from ray.tune.experiment import Trial
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from asit_platform.study.scheduler import TIME_ATTR
from asit_platform.study.searcher import METRICS_KEY, StudySearcher
from asit_platform.study.store import TrialRow
from asit_platform.words import duration_text, parameter_text, short_names

_logger = logging.getLogger(__name__)

REFRESH_S = 0.5
# Lines of the terminal that are not rows: heading, rules, the two lines below, a margin.
_FRAME_LINES = 8
# Characters of the columns that are always there, and of one parameter's.
_FIXED_COLUMNS_WIDTH = 60
_PARAMETER_WIDTH = 15
_STYLES = {"COMPLETE": "green", "PRUNED": "yellow", "FAIL": "red", "RUNNING": "cyan"}


@dataclass
class ProgressRow:
    """One trial as the table shows it."""

    number: int
    params: Mapping[str, Any]
    state: str = "RUNNING"
    epoch: int = 0
    value: float | None = None
    reason: str | None = None
    collapsed: bool = False
    elapsed_s: float = 0.0
    started_s: float | None = None

    def seconds(self, now_s: float) -> float:
        """Seconds it has run until now."""
        return self.elapsed_s + (now_s - self.started_s if self.started_s is not None else 0.0)


@dataclass
class Progress:
    """All trials of a sweep and what is left of it.

    Attributes:
        metric: Name of the metric.
        mode: "max" or "min".
        num_samples: Trials in all.
        num_epochs: Epochs of a trial that is not stopped.
        concurrency: Trials at a time.
        transductive: Whether unlabelled test clips are pre-trained on.
        rows: By number.
    """

    metric: str
    mode: Literal["max", "min"]
    num_samples: int
    num_epochs: int
    concurrency: int
    transductive: bool = False
    rows: dict[int, ProgressRow] = field(default_factory=dict)

    def add_earlier(self, trials: Sequence[TrialRow]) -> None:
        """Take in the trials that earlier drivers finished."""
        for trial in trials:
            if trial.state != "RUNNING":
                self.rows[trial.number] = ProgressRow(
                    number=trial.number,
                    params=trial.params,
                    state=trial.state,
                    epoch=max(trial.curve, default=0),
                    value=trial.value,
                    reason=trial.reason,
                    collapsed=trial.collapsed,
                    elapsed_s=trial.elapsed_s or 0.0,
                )

    def finished(self) -> list[ProgressRow]:
        """Rows that have ended, by number."""
        return [row for _, row in sorted(self.rows.items()) if row.state != "RUNNING"]

    def best(self) -> ProgressRow | None:
        """The best row that reached the last epoch."""
        sign = 1.0 if self.mode == "max" else -1.0
        complete = [row for row in self.finished() if row.state == "COMPLETE"]
        return max(complete, key=lambda row: sign * (row.value or 0.0), default=None)

    def seconds_left(self, now_s: float) -> float | None:
        """Estimate from what trials took so far; `None` before the first epoch has ended."""
        per_trial_s = self._typical_seconds(now_s)
        if per_trial_s is None:
            return None
        running = [row for row in self.rows.values() if row.state == "RUNNING"]
        ahead_s = sum(max(0.0, per_trial_s - row.seconds(now_s)) for row in running)
        ahead_s += (self.num_samples - len(self.rows)) * per_trial_s
        return ahead_s / self.concurrency

    def _typical_seconds(self, now_s: float) -> float | None:
        ended = [row.elapsed_s for row in self.finished() if row.elapsed_s > 0]
        if ended:
            return sum(ended) / len(ended)
        begun = [row for row in self.rows.values() if row.epoch > 0]
        if not begun:
            return None
        per_epoch = [row.seconds(now_s) / row.epoch for row in begun]
        return self.num_epochs * sum(per_epoch) / len(per_epoch)


def render(progress: Progress, *, now_s: float, width: int, height: int) -> RenderableType:
    """Draw the table so that it fits a terminal: running trials, then the latest.

    Where there are more parameters than columns for them, the last line says how many are left out.
    """
    rows = _choose_rows(progress, max(3, height - _FRAME_LINES))
    searched = list(dict.fromkeys(path for row in rows for path in row.params))
    paths = searched[: max(1, (width - _FIXED_COLUMNS_WIDTH) // _PARAMETER_WIDTH)]
    names = short_names(searched, at_least=1)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in (
        "trial",
        *(names[path] for path in paths),
        "epoch",
        progress.metric,
        "state",
        "elapsed",
    ):
        table.add_column(title, justify="right", no_wrap=True)
    best = progress.best()
    for row in rows:
        table.add_row(
            str(row.number),
            *(parameter_text(row.params[path]) if path in row.params else "" for path in paths),
            f"{row.epoch}/{progress.num_epochs}",
            "" if row.value is None else f"{row.value:.4f}",
            Text(_state_text(row), style=_STYLES.get(row.state, "")),
            duration_text(row.seconds(now_s)),
            style="bold" if best is not None and row.number == best.number else "",
        )
    left_out = len(searched) - len(paths)
    more = f"; {left_out} more parameters not shown" if left_out else ""
    return Group(table, Text(describe(progress, now_s=now_s) + more, no_wrap=True))


def describe(progress: Progress, *, now_s: float) -> str:
    """Best so far, how far the sweep is, and how long it will take."""
    best = progress.best()
    parts = [f"{len(progress.finished())} of {progress.num_samples} trials"]
    if progress.transductive:
        parts.append("transductive")
    if best is not None and best.value is not None:
        parts.append(f"best so far {best.value:.4f} (trial {best.number})")
    left_s = progress.seconds_left(now_s)
    if left_s is not None:
        parts.append(f"about {duration_text(left_s)} left to search")
    return ", ".join(parts)


class SweepProgress(Callback):
    """Follows a sweep through Tune and shows it.

    Args:
        progress: The trials so far.
        searcher: Asked how a trial ended; told how to find out why one failed.
        console: Where to draw; where it is no terminal, one line per finished trial.
    """

    def __init__(self, progress: Progress, searcher: StudySearcher, console: Console) -> None:
        self.progress = progress
        self._searcher = searcher
        self._console = console
        self._trials: dict[str, Trial] = {}
        self._drawn_s = 0.0
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        searcher.set_error_source(self._describe_error)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tuner pickles its callbacks into a snapshot that is never read

    def __enter__(self) -> "SweepProgress":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._live is not None:
            self._draw(time.monotonic())
            self._live.stop()

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Show a trial that begins, or begins again."""
        self._trials[trial.trial_id] = trial
        config = trial.config or {}
        row = ProgressRow(number=config["number"], params=json.loads(config["params"]))
        row.started_s = time.monotonic()
        self.progress.rows[row.number] = row

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Show an epoch."""
        row = self._row(trial)
        row.epoch = int(result[TIME_ATTR])
        row.value = result.get(self.progress.metric, row.value)
        collapsed = json.loads(result[METRICS_KEY]).get("gauge/collapsed")
        row.collapsed = row.collapsed if collapsed is None else collapsed == 1.0

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Show a trial's end."""
        self._end(trial)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Show a trial that failed for good."""
        self._end(trial)

    def on_trial_recover(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Say that a trial failed and is tried again."""
        reason = self._describe_error(trial.trial_id)
        line = f"trial {self._number(trial)} failed and is tried again: {reason}"
        self._say(line, alarming=True)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Draw, but not more often than one can read."""
        now_s = time.monotonic()
        if self._live is not None and now_s - self._drawn_s >= REFRESH_S:
            self._draw(now_s)

    def _end(self, trial: Trial) -> None:
        row, ending = self._row(trial), self._searcher.endings.get(self._number(trial))
        if ending is None:
            return
        row.elapsed_s, row.started_s = row.seconds(time.monotonic()), None
        row.state, row.reason = ending.state, ending.reason
        row.value = ending.value
        self._say(_summarise(row, self.progress), alarming=row.state == "FAIL")

    def _say(self, line: str, *, alarming: bool) -> None:
        """Log a line; over a live table, which shows the rest, print what alarms."""
        if self._live is None:
            _logger.info("%s", line)
        elif alarming:
            self._live.console.print(line, style="red", highlight=False)

    def _draw(self, now_s: float) -> None:
        assert self._live is not None
        width, height = self._console.size
        table = render(self.progress, now_s=now_s, width=width, height=height)
        self._live.update(table, refresh=True)
        self._drawn_s = now_s

    def _describe_error(self, trial_id: str) -> str | None:
        trial = self._trials.get(trial_id)
        return None if trial is None else describe_error(trial.get_pickled_error)

    def _row(self, trial: Trial) -> ProgressRow:
        return self.progress.rows[self._number(trial)]

    def _number(self, trial: Trial) -> int:
        return (trial.config or {})["number"]


def describe_error(get_error: Callable[[], BaseException | None]) -> str:
    """One line on why a trial failed: the error raised in it, not Ray's wrapping."""
    error = get_error()
    cause = getattr(error, "cause", None) or error
    text = str(cause).strip().splitlines() if cause is not None else []
    return f"{type(cause).__name__}: {text[0]}" if text else type(cause).__name__


def _state_text(row: ProgressRow) -> str:
    return row.state.lower() + (", collapsed" if row.collapsed else "")


def _choose_rows(progress: Progress, num_rows: int) -> list[ProgressRow]:
    running = [row for _, row in sorted(progress.rows.items()) if row.state == "RUNNING"]
    finished = progress.finished()
    best = progress.best()
    room = max(0, num_rows - len(running))
    shown = finished[-room:] if room else []
    if best is not None and best not in shown and shown:
        shown = [best, *shown[1:]]
    return shown + running


def _summarise(row: ProgressRow, progress: Progress) -> str:
    head = f"trial {row.number} {_state_text(row)}"
    value = "" if row.value is None else f" {progress.metric} {row.value:.4f}"
    tail = f" ({row.reason})" if row.state == "FAIL" else f" at epoch {row.epoch}"
    seconds = duration_text(row.elapsed_s)
    return f"{head}{value}{tail}, {seconds}; {describe(progress, now_s=time.monotonic())}"
