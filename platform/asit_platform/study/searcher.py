"""The bridge between Ray Tune and Optuna that tells the truth.

Ray's own bridge calls a trial that the scheduler stopped COMPLETE, drops the value at which it
was stopped, and leaves a diverged trial running for ever. Here a row is COMPLETE only if it
reached the last epoch; one that was stopped is PRUNED with its whole curve; one that failed
says why; one that a dead driver left behind is handed out again under the same row.
"""

import json
import math
import pickle
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from asit_core.seeding import numpy_stream
from asit_platform.spec import ParameterSpec
from asit_platform.study.record import Ending, StudyRecord
from asit_platform.study.scheduler import TIME_ATTR, ReplayableAsha

# Reported beside epoch and metric: everything the trial said, as JSON; in its very last report,
# that it came to its end; and, with a metric that is no number, why it would end so again.
METRICS_KEY = "metrics"
FINISHED_KEY = "finished"
REASON_KEY = "reason"

# Optuna's default of ten leaves a sweep of twelve to chance.
NUM_STARTUP_TRIALS = 5

_SCALARS = (str, int, float, bool, type(None))


class SearchSpace(NamedTuple):
    """What a sweep draws, and how.

    Attributes:
        method: "tpe" or "random".
        seed: Of the draws.
        parameters: Dotted path -> range or values.
        num_samples: Rows in all.
    """

    method: Literal["tpe", "random"]
    seed: int
    parameters: Mapping[str, ParameterSpec]
    num_samples: int


class LiveTrial(NamedTuple):
    """A row that Tune is running now."""

    number: int
    started_s: float
    elapsed_before_s: float


class StudySearcher(Searcher):
    """Hands rows of a study to Tune and tells the study what became of them.

    Args:
        record: The study's rows.
        space: What to draw.
        metric: Name of the reported metric.
        mode: "max" or "min".
        num_epochs: Epochs of a trial that is not stopped.
        trial_seed: Seed of every trial: configurations share weights, crops and order.
        concurrent: True if rows are drawn while others run.
        scheduler: Told the past at once, and a resumed trial's past when it is handed out.
    """

    def __init__(
        self,
        record: StudyRecord,
        *,
        space: SearchSpace,
        metric: str,
        mode: Literal["max", "min"],
        num_epochs: int,
        trial_seed: int,
        concurrent: bool,
        scheduler: ReplayableAsha | None = None,
    ) -> None:
        super().__init__(metric=metric, mode=mode)
        self._record = record
        self._space = space
        self._num_epochs = num_epochs
        self._trial_seed = trial_seed
        self._concurrent = concurrent
        self._scheduler = scheduler
        self._live: dict[str, LiveTrial] = {}
        self._describe_error: Callable[[str], str | None] = lambda _trial_id: None
        self._orphans = deque(record.rows(TrialState.RUNNING))
        self.endings: dict[int, Ending] = {}
        if scheduler is not None:
            for row in record.rows(TrialState.COMPLETE, TrialState.PRUNED):
                scheduler.replay(f"row-{row.number}", row.intermediate_values)

    def set_error_source(self, describe_error: Callable[[str], str | None]) -> None:
        """Say where the reason of a trial's failure is found, by Tune's trial id."""
        self._describe_error = describe_error

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Accept Tune's metric and mode, which are ours."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next row: first what a dead driver left, then new ones until there are enough."""
        if self._orphans:
            number, params = self._resume(trial_id, self._orphans.popleft())
        elif len(self._record.rows()) < self._space.num_samples:
            number, params = self._ask()
        else:
            return Searcher.FINISHED  # pyright: ignore[reportReturnType] - Tune's protocol
        self._record.start(number, seed=self._trial_seed)
        self._live[trial_id] = LiveTrial(number, time.monotonic(), self._record.elapsed_s(number))
        return {"number": number, "seed": self._trial_seed, "params": json.dumps(params)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Note one epoch of a trial that goes on."""
        self._report(self._live[trial_id], result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """End a row. One that Tune takes back before it ran stays to be handed out again."""
        live = self._live.pop(trial_id)
        if result is None and not error:
            return
        ending = self._decide(trial_id, result or {}, error=error)
        if result is not None and ending.value is not None:
            self._report(live, result, with_value=False)
        self._record.finish(live.number, ending)
        self.endings[live.number] = ending

    def save(self, checkpoint_path: str) -> None:
        """Tune wants a snapshot; the study itself is ours, so it is empty."""
        Path(checkpoint_path).write_bytes(pickle.dumps({}))

    def restore(self, checkpoint_path: str) -> None:
        """Never called: a rerun starts a new Tuner on the study."""
        raise NotImplementedError("a study goes on from its Optuna storage, not from a snapshot")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # for the snapshot Tuner takes of itself; see `save`

    def _resume(self, trial_id: str, row: FrozenTrial) -> tuple[int, dict[str, Any]]:
        if self._scheduler is not None:
            self._scheduler.replay(trial_id, row.intermediate_values)
        # A driver killed while it drew leaves some parameters out; the same draw completes them.
        return row.number, self._draw(self._record.create_trial(row.number))

    def _ask(self) -> tuple[int, dict[str, Any]]:
        trial = self._record.study.ask()
        return trial.number, self._draw(trial)

    def _draw(self, trial: optuna.trial.Trial) -> dict[str, Any]:
        params = {}
        trial.study.sampler = self._create_sampler(trial.number)
        # Optuna draws what it draws jointly when it is first asked for, so it is asked for here,
        # before a sampler of its own is set for each parameter that is drawn alone.
        _ = trial.relative_params
        for path, parameter in self._space.parameters.items():
            trial.study.sampler = self._create_sampler(trial.number, path)
            params[path] = _suggest(trial, path, parameter)
        return params

    def _create_sampler(self, number: int, *keys: str) -> optuna.samplers.BaseSampler:
        """A sampler whose draws depend on the seed, the trial's number and the parameter only."""
        stream = numpy_stream(self._space.seed, "search", number, *keys)
        seed = int(stream.integers(2**32))
        if self._space.method == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=NUM_STARTUP_TRIALS, constant_liar=self._concurrent
        )

    def _report(
        self, live: LiveTrial, result: Mapping[str, Any], *, with_value: bool = True
    ) -> None:
        value = self._value(result) if with_value else math.nan
        self._record.report(
            live.number,
            epoch=int(result[TIME_ATTR]),
            value=value if math.isfinite(value) else None,
            metrics=json.loads(result[METRICS_KEY]),
            elapsed_s=live.elapsed_before_s + time.monotonic() - live.started_s,
        )

    def _value(self, result: Mapping[str, Any]) -> float:
        """The metric; not a number in an epoch that was not measured."""
        return float(result.get(str(self._metric), math.nan))

    def _decide(self, trial_id: str, result: Mapping[str, Any], *, error: bool) -> Ending:
        epoch = int(result[TIME_ATTR]) if TIME_ATTR in result else None
        if error or epoch is None:
            reason = self._describe_error(trial_id) or "it ended without a word"
            return Ending(state="FAIL", epoch=None, value=None, reason=reason)
        value = self._value(result)
        if not math.isfinite(value):
            reason = result.get(REASON_KEY) or f"{self._metric} is {value} at epoch {epoch}"
            return Ending(state="FAIL", epoch=epoch, value=None, reason=reason)
        if result.get(FINISHED_KEY):
            return Ending(state="COMPLETE", epoch=epoch, value=value)
        reason = f"stopped by the scheduler at epoch {epoch} of {self._num_epochs}"
        return Ending(state="PRUNED", epoch=epoch, value=value, reason=reason)


def _suggest(trial: optuna.trial.Trial, path: str, parameter: ParameterSpec) -> Any:
    if parameter.values is not None:
        # Optuna keeps scalars only; other values travel as JSON.
        choices = [v if isinstance(v, _SCALARS) else json.dumps(v) for v in parameter.values]
        choice = trial.suggest_categorical(path, choices)
        return parameter.values[choices.index(choice)]
    low, high, step = parameter.min, parameter.max, parameter.step
    assert low is not None, "a parameter has values or a range"
    assert high is not None, "a parameter has values or a range"
    if parameter.is_integer:
        return trial.suggest_int(path, int(low), int(high), step=int(step or 1), log=parameter.log)
    return trial.suggest_float(path, low, high, step=step, log=parameter.log)
