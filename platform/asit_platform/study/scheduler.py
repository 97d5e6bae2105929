"""ASHA that remembers: a sweep that goes on judges by all that was ever reported."""

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController

TIME_ATTR = "epoch"


class ReplayableAsha(AsyncHyperBandScheduler):
    """Ray's asynchronous successive halving, which can be told what happened before it was made.

    It keeps nothing on disk: the rows of the study hold every curve, so a new driver replays
    them through the same public calls that Tune makes.
    """

    def replay(self, trial_id: str, curve: Mapping[int, float]) -> None:
        """Tell the curve of an earlier trial, or the epochs that a resumed one has behind it.

        Its decisions were taken then: a resumed trial is not stopped at an epoch it has passed.
        """
        trial = cast(Trial, SimpleNamespace(trial_id=trial_id))
        controller = cast("TuneController", None)  # ASHA asks it nothing
        self.on_trial_add(controller, trial)
        for epoch, value in sorted(curve.items()):
            result = {self._time_attr: epoch, self._metric: value}
            self.on_trial_result(controller, trial, result)
            # At `max_t` ASHA stops a trial before it takes note of the value.
            if epoch >= self._max_t:
                self.on_trial_complete(controller, trial, result)

    def on_trial_complete(
        self, tune_controller: "TuneController", trial: Trial, result: dict[str, Any]
    ) -> None:
        """As Ray's, but a value that is not a number enters no rung."""
        if math.isfinite(float(result.get(str(self._metric), math.nan))):
            super().on_trial_complete(tune_controller, trial, result)


def create_asha(
    *, metric: str, mode: str, num_epochs: int, grace_period: int, reduction_factor: float
) -> ReplayableAsha:
    """ASHA over epochs with one bracket.

    Args:
        metric: Name of the reported metric.
        mode: "max" or "min".
        num_epochs: Epochs of a trial that is not stopped.
        grace_period: Epochs that every trial gets.
        reduction_factor: One in so many goes on at each rung.
    """
    return ReplayableAsha(
        time_attr=TIME_ATTR,
        metric=metric,
        mode=mode,
        max_t=num_epochs,
        grace_period=grace_period,
        reduction_factor=reduction_factor,
        brackets=1,
    )
