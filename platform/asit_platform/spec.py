"""A study's YAML file and its checked form; past this edge nobody checks again.

Every fault is reported at once, each on a line with its file (or `-S` option), dotted path,
rule and value; ranges are tried at both ends, so nothing illegal is met after an hour of trials.
"""

import dataclasses
import hashlib
import itertools
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from asit_platform.cluster import ResourceSpec
from asit_platform.errors import PlatformError
from asit_platform.overrides import Override, apply_override, parse_override
from asit_platform.sections import (
    FailureSpec,
    MetricSpec,
    ParameterSpec,
    ResultSpec,
    SchedulerSpec,
    SearchSpec,
    SplitSpec,
)
from asit_platform.trial_config import (
    Settings,
    TrialConfig,
    leaf_paths,
    merge,
    read_base,
    to_plain,
    with_parameters,
)
from asit_platform.validation import (
    Fault,
    InvalidError,
    near_miss,
    type_at,
    validate,
    without_none,
)
from asit_platform.yaml_file import read_yaml

__all__ = [
    "FailureSpec",
    "MetricSpec",
    "ParameterSpec",
    "ResourceSpec",
    "ResultSpec",
    "SchedulerSpec",
    "SearchSpec",
    "SplitSpec",
    "SweepSpec",
    "TrialConfig",
    "load_sweep",
    "trial_fingerprint",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepSpec:
    """A sweep: one question, a base configuration, and what is searched around it.

    In a loaded spec `trial` holds every setting, the base's included: a study does not change
    when a preset or a base file does.
    """

    __pydantic_config__ = {"extra": "forbid"}

    version: Literal[1]
    kind: Literal["sweep"]
    name: str
    question: str
    base: str
    data: str
    split: SplitSpec = field(default_factory=SplitSpec)
    transductive: bool = False
    trial: Settings = field(default_factory=dict)
    metric: MetricSpec
    search: SearchSpec
    scheduler: SchedulerSpec = field(default_factory=SchedulerSpec)
    resources: ResourceSpec = field(default_factory=ResourceSpec)
    result: ResultSpec = field(default_factory=ResultSpec)
    failure: FailureSpec = field(default_factory=FailureSpec)

    def __post_init__(self) -> None:
        """The name is a folder's and a database's, so it must be a plain word."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"name must be letters, digits, '.', '_' and '-', but got {self.name!r}"
            )

    def resolve(self, params: Mapping[str, Any]) -> TrialConfig:
        """The config of the trial that has these parameters.

        Args:
            params: Values by dotted path, which starts at a stage: `pretrain.masking.ratio`.

        Raises:
            PlatformError: If a path is absent or the values do not go together.
        """
        try:
            return validate(TrialConfig, with_parameters(self.trial, params), path="trial")
        except KeyError as error:
            raise PlatformError(f"study '{self.name}': no setting {error} in its trials") from None
        except InvalidError as error:
            raise PlatformError(f"study '{self.name}': {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """The spec in the words of its file, JSON-able."""
        return to_plain(self)


def load_sweep(
    path: Path, overrides: Sequence[str] = (), *, results_dir: Path = Path("results")
) -> SweepSpec:
    """Read, complete and check a sweep's YAML file.

    Args:
        path: The file.
        overrides: `-S` options, each `dotted.key=value` with the value in YAML.
        results_dir: Where the studies lie that `base: study:NAME/best` means.

    Raises:
        PlatformError: With one line for each fault.
    """
    content = read_yaml(path)
    options = [parse_override(text) for text in overrides]
    for option in options:
        apply_override(content, option)
    _drop_absent_parameters(content)
    faults: list[Fault] = []
    settings = _read_settings(content, faults, folder=path.parent, results_dir=results_dir)
    try:
        spec = validate(SweepSpec, content)
    except InvalidError as error:
        # The trial's own numbers are looked at twice, and may be wrong twice.
        every = list(dict.fromkeys((*error.faults, *faults)))
        raise _platform_error(path, every, options) from None
    if settings is None:
        raise _platform_error(path, faults, options)
    spec = dataclasses.replace(spec, trial=settings)
    spec = _with_typed_parameters(spec, faults)
    faults += _faults_between_sections(spec)
    if faults:
        raise _platform_error(path, faults, options)
    _warn_of_pretext_metric(spec)
    return spec


def trial_fingerprint(
    config: TrialConfig, *, seed: int, data_fingerprint: str, split: SplitSpec
) -> str:
    """Identity of a trial: equal fingerprints mean equal numbers."""
    content = {
        "config": to_plain(config),
        "seed": seed,
        "data": data_fingerprint,
        "split": to_plain(split),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _platform_error(
    path: Path, faults: Sequence[Fault], options: Sequence[Override]
) -> PlatformError:
    def source(fault: Fault) -> str:
        for option in reversed(options):
            if f"{fault.path}.".startswith(f"{option.path}."):
                return f"-S {option.text}"
        return str(path)

    return PlatformError("\n".join(f"{source(fault)}: {fault.line}" for fault in faults))


def _drop_absent_parameters(content: Settings) -> None:
    """`-S search.parameters.NAME=null` takes a parameter out of the search."""
    search = content.get("search")
    parameters = search.get("parameters") if isinstance(search, dict) else None
    if isinstance(search, dict) and isinstance(parameters, dict):
        search["parameters"] = {k: v for k, v in parameters.items() if v is not None}


def _read_settings(
    content: Settings, faults: list[Fault], *, folder: Path, results_dir: Path
) -> Settings | None:
    """The base with `trial` on top, complete and legal; None, with the faults, if it is not."""
    base, changes = content.get("base"), content.get("trial", {})
    if not isinstance(base, str) or not isinstance(changes, dict):
        return None  # The faults of the file itself say so.
    try:
        settings = merge(read_base(base, folder=folder, results_dir=results_dir), changes)
        return to_plain(validate(TrialConfig, settings, path="trial"))
    except InvalidError as error:
        faults += error.faults
    except PlatformError as error:
        faults.append(Fault("base", str(error)))
    return None


def _with_typed_parameters(spec: SweepSpec, faults: list[Fault]) -> SweepSpec:
    """The spec with limits of the settings' own types, each limit tried in a trial."""
    typed: dict[str, ParameterSpec] = {}
    for path, parameter in spec.search.parameters.items():
        where = f"search.parameters.{path}"
        if path == "pretrain.epochs":
            line = f"{where}: all trials of a sweep are equally long; set trial.{path} instead"
            faults.append(Fault(where, line))
        elif not _is_setting(spec.trial, path):
            faults.append(
                Fault(where, f"{where} must be a setting of the trial{_hint(spec, path)}")
            )
        else:
            typed[path] = _typed(parameter, type_at(TrialConfig, path.split(".")))
            faults += _faults_of_limits(spec, path, typed[path])
    if faults:
        return spec  # refused by the caller
    faults += _faults_of_pairs(spec, typed)
    return dataclasses.replace(spec, search=dataclasses.replace(spec.search, parameters=typed))


def _is_setting(settings: Settings, path: str) -> bool:
    try:
        with_parameters(settings, {path: None})
    except KeyError:
        return False
    return True


def _hint(spec: SweepSpec, path: str) -> str:
    """Which part of the path is switched off, or else the setting that was probably meant."""
    holder: Any = spec.trial
    parts = path.split(".")
    for depth, part in enumerate(parts[:-1], start=1):
        holder = holder.get(part, {}) if isinstance(holder, dict) else {}
        if holder is None:
            return f", but trial.{'.'.join(parts[:depth])} is null"
    return near_miss(path, leaf_paths(spec.trial))


def _typed(parameter: ParameterSpec, setting_type: Any) -> ParameterSpec:
    """Whole limits as ints for an int setting, ints as floats for a float setting."""
    kind = without_none(setting_type)

    def convert(value: Any) -> Any:
        if kind is int and isinstance(value, float) and value.is_integer():
            return int(value)
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return float(value) if kind is float and is_whole else value

    values = None if parameter.values is None else tuple(map(convert, parameter.values))
    return dataclasses.replace(
        parameter,
        min=convert(parameter.min),
        max=convert(parameter.max),
        step=convert(parameter.step),
        values=values,
    )


def _faults_of_limits(spec: SweepSpec, path: str, parameter: ParameterSpec) -> Iterator[Fault]:
    if parameter.is_integer and isinstance(parameter.step, float):
        where = f"search.parameters.{path}.step"
        yield Fault(where, f"{where} must be an integer, but got {parameter.step:g}")
    limits_are_legal = True
    for key, value in parameter.extremes().items():
        where = f"search.parameters.{path}.{key}"
        try:
            validate(TrialConfig, with_parameters(spec.trial, {path: value}), path="trial")
        except InvalidError as error:
            yield from (Fault(where, f"{where}: {fault.line}") for fault in error.faults)
            limits_are_legal = False
    for value in parameter.inner() if limits_are_legal else ():
        where = f"search.parameters.{path}"
        try:
            validate(TrialConfig, with_parameters(spec.trial, {path: value}), path="trial")
        except InvalidError as error:
            remedy = "list legal numbers as `values`, or give a `step` that meets only those"
            line = f"{where}: the range holds {value}: {error.faults[0].line}; {remedy}"
            yield Fault(where, line)
            return


def _faults_of_pairs(spec: SweepSpec, parameters: Mapping[str, ParameterSpec]) -> Iterator[Fault]:
    """Limits that are legal alone and not together: a high mask ratio with tiny blocks."""
    for pair in itertools.combinations(parameters, 2):
        for values in itertools.product(*(parameters[path].extremes().values() for path in pair)):
            chosen = dict(zip(pair, values, strict=True))
            try:
                validate(TrialConfig, with_parameters(spec.trial, chosen), path="trial")
            except KeyError:
                break  # One switches off what the other is a part of; that trial says so.
            except InvalidError as error:
                shown = " with ".join(f"{path}={value}" for path, value in chosen.items())
                where = f"search.parameters.{pair[0]}"
                yield Fault(where, f"search.parameters: {shown}: {error.faults[0].line}")
                break


def _faults_between_sections(spec: SweepSpec) -> Iterator[Fault]:
    pretrain = spec.trial["pretrain"]
    scheduler, workers = spec.scheduler, spec.resources.num_workers
    names = _metric_names(spec.trial)
    if spec.metric.name not in names:
        rule = f"must be a metric that trials report ({', '.join(names[:5])}, ...)"
        hint = near_miss(spec.metric.name, names)
        line = f"metric.name {rule}, but got '{spec.metric.name}'{hint}"
        yield Fault("metric.name", line)
    if scheduler.type == "asha" and scheduler.grace_period > pretrain["epochs"]:
        where = "scheduler.grace_period"
        rule = f"must be <= trial.pretrain.epochs ({pretrain['epochs']})"
        yield Fault(where, f"{where} {rule}, but got {scheduler.grace_period}")
    if pretrain["batch_size"] % (workers * pretrain["donor_group"]):
        where = "resources.num_workers"
        rule = (
            f"times trial.pretrain.donor_group ({pretrain['donor_group']}) must divide "
            f"trial.pretrain.batch_size ({pretrain['batch_size']})"
        )
        yield Fault(where, f"{where} {rule}, but got {workers}")


def _metric_names(settings: Settings) -> list[str]:
    """What a trial with these settings reports and a study may optimise."""
    tasks = [name for name, task in settings["pretrain"]["pretext"].items() if task is not None]
    gauges = ("teacher_entropy", "marginal_entropy", "prototype_use", "kl")
    return [
        "probe/accuracy",
        "probe/knn_accuracy",
        "gauge/embedding_std",
        "gauge/effective_rank",
        "loss/total",
        *(f"loss/{task}" for task in tasks),
        *(f"gauge/{g}/{task}" for task in tasks if task.endswith("_distillation") for g in gauges),
    ]


def _warn_of_pretext_metric(spec: SweepSpec) -> None:
    if spec.metric.name.startswith("loss/"):
        _logger.warning(
            "metric.name '%s' is a pretext loss: trials with other masks, weights or heads solve "
            "other tasks, so the smallest loss means the easiest task; use probe/accuracy",
            spec.metric.name,
        )
