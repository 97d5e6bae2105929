"""The sections of a study's YAML file; `resources` lies in `cluster.py`, with its arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSpec:
    """Which folds train, which one selects and which one is measured once, at the end."""

    __pydantic_config__ = {"extra": "forbid"}

    train: tuple[int, ...] = (1, 2, 3)
    select: int = 4
    test: int = 5

    def __post_init__(self) -> None:
        """Refuse folds that serve twice."""
        if not self.train:
            raise ValueError("train must name at least one fold, but got []")
        if len(set(self.train)) < len(self.train):
            raise ValueError(f"train must name each fold once, but got {list(self.train)}")
        if self.select in self.train:
            raise ValueError(
                f"select must not be one of train {list(self.train)}, but got {self.select}"
            )
        if self.test in (*self.train, self.select):
            raise ValueError(
                f"test must be neither select nor one of train {list(self.train)}, "
                f"but got {self.test}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricSpec:
    """What a study optimises: a metric that trials report, read at their last epoch."""

    __pydantic_config__ = {"extra": "forbid"}

    name: str
    goal: Literal["maximize", "minimize"]
    at: Literal["last"] = "last"


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterSpec:
    """A range (`min`, `max`, perhaps `log` or `step`) or a list of `values`.

    In a loaded spec the limits are ints where the setting is an int, and floats otherwise.
    """

    __pydantic_config__ = {"extra": "forbid"}

    min: float | None = None
    max: float | None = None
    log: bool = False
    step: float | None = None
    values: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        """Check that the range is one."""
        if self.values is not None:
            if (self.min, self.max, self.step, self.log) != (None, None, None, False):
                raise ValueError("values must stand alone, but min, max, log or step is given too")
            if not self.values:
                raise ValueError("values must hold at least one value, but got []")
            return
        if self.min is None or self.max is None:
            raise ValueError("must have min and max, or values")
        if not self.min < self.max:
            raise ValueError(f"min must be below max ({self.max:g}), but got {self.min:g}")
        if self.log and self.min <= 0:
            raise ValueError(f"min must be > 0 where log is true, but got {self.min:g}")
        if self.step is not None and (self.log or not self.step > 0):
            raise ValueError(f"step must be > 0 and without log, but got {self.step:g}")

    @property
    def is_integer(self) -> bool:
        """True for a range of whole numbers."""
        return isinstance(self.min, int) and isinstance(self.max, int)

    def extremes(self) -> dict[str, Any]:
        """The values that bound the parameter, by the key that gives them."""
        if self.values is not None:
            return {f"values[{i}]": value for i, value in enumerate(self.values)}
        return {"min": self.min, "max": self.max}

    def inner(self) -> list[int]:
        """Two values between whole limits, which show a rule of multiples: the next, the middle."""
        low, high, step = self.min, self.max, 1 if self.step is None else self.step
        if not (isinstance(low, int) and isinstance(high, int) and isinstance(step, int)):
            return []
        found = (low + step, low + (high - low) // step // 2 * step)
        return [value for value in dict.fromkeys(found) if low < value < high]


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSpec:
    """How configurations are drawn: by which sampler, how many, over which parameters."""

    __pydantic_config__ = {"extra": "forbid"}

    method: Literal["tpe", "random"] = "tpe"
    seed: int = 0
    num_samples: int
    parameters: dict[str, ParameterSpec]

    def __post_init__(self) -> None:
        """Refuse an empty search."""
        if self.num_samples < 1:
            raise ValueError(f"num_samples must be >= 1, but got {self.num_samples}")
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, but got {self.seed}")
        if not self.parameters:
            raise ValueError("parameters must name at least one setting, but got {}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SchedulerSpec:
    """Which trials are stopped early: none, or at each rung all but the best of every few."""

    __pydantic_config__ = {"extra": "forbid"}

    type: Literal["none", "asha"] = "none"
    time_attr: Literal["epoch"] = "epoch"
    grace_period: int = 1
    reduction_factor: int = 3

    def __post_init__(self) -> None:
        """Check the rungs."""
        if self.grace_period < 1:
            raise ValueError(f"grace_period must be >= 1, but got {self.grace_period}")
        if self.reduction_factor < 2:
            raise ValueError(f"reduction_factor must be >= 2, but got {self.reduction_factor}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultSpec:
    """The measurement at the end: the best configuration, fresh seeds, once on the test fold."""

    __pydantic_config__ = {"extra": "forbid"}

    seeds: int = 3

    def __post_init__(self) -> None:
        """Refuse a result of no runs."""
        if self.seeds < 1:
            raise ValueError(f"seeds must be >= 1, but got {self.seeds}")


@dataclass(frozen=True, kw_only=True, slots=True)
class FailureSpec:
    """How often a trial that dies (not one that is refused) starts again from its checkpoint."""

    __pydantic_config__ = {"extra": "forbid"}

    max_failures: int = 1

    def __post_init__(self) -> None:
        """Refuse negative counts."""
        if self.max_failures < 0:
            raise ValueError(f"max_failures must be >= 0, but got {self.max_failures}")
