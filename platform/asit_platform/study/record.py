"""Writing a study: one driver at a time, one row per configuration, each row's end told once.

Optuna's storage is the only record of a sweep: whatever kills the driver, the next one goes on
from it. A row that ends is announced in a note before it is told, so a kill between the two
leaves nothing to decide again.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from asit_platform.errors import PlatformError
from asit_platform.study.store import (
    SPEC_FILE,
    STORAGE_ERRORS,
    STUDY_DB,
    TRIALS_FOLDER,
    first_line,
    open_storage,
)
from asit_platform.yaml_file import format_yaml

LOCK_FILE = "driver.lock"

# What a study may change between two runs of it: how it is run, not what its numbers are.
# The data are told apart by their fingerprint, wherever they lie.
_FREE_PATHS = (
    "question",
    "base",  # what it says is in `trial` already
    "data",
    "resources",
    "failure",
    "result",
    "search.num_samples",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyIdentity:
    """What makes a study this study.

    Attributes:
        name: The study's name.
        spec: The sweep as plain values.
        metric: {"name", "goal", "at"}.
        num_epochs: Epochs of a trial that is not stopped.
        data_fingerprint: Of the prepared data set.
        asit_version: That wrote the study first.
        dataset: What the data set says of itself, for pages drawn before there is a result.
    """

    name: str
    spec: dict[str, Any]
    metric: dict[str, str]
    num_epochs: int
    data_fingerprint: str
    asit_version: str
    dataset: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How a row ends.

    Attributes:
        state: COMPLETE, PRUNED or FAIL.
        epoch: The last epoch reached, from 1; `None` if there was none.
        value: The metric there; `None` where it is missing or not finite.
        reason: Why it was stopped or failed.
    """

    state: Literal["COMPLETE", "PRUNED", "FAIL"]
    epoch: int | None
    value: float | None
    reason: str | None = None


class StudyRecord:
    """The one writer of a study's rows.

    Args:
        study: The Optuna study.
        storage: Its storage.
        folder: `results/<study>`.
    """

    def __init__(self, study: optuna.Study, storage: BaseStorage, folder: Path) -> None:
        self.study = study
        self.folder = folder
        self._storage = storage

    def rows(self, *states: TrialState) -> list[FrozenTrial]:
        """Rows in the given states, or all of them, by number."""
        trials = self.study.get_trials(deepcopy=False, states=states or None)
        return sorted(trials, key=lambda trial: trial.number)

    def create_trial(self, number: int) -> optuna.trial.Trial:
        """Optuna's handle on a row that is already there."""
        return optuna.trial.Trial(self.study, self._id(number))

    def trial_folder(self, number: int) -> Path:
        """Where a row's trial keeps its files."""
        return self.folder / TRIALS_FOLDER / f"{number:04d}"

    def start(self, number: int, *, seed: int) -> None:
        """Note where and with which seed a row's trial runs; the first start counts."""
        attrs = self._attrs(number)
        folder = self.trial_folder(number).relative_to(self.folder).as_posix()
        for key, value in {"seed": seed, "folder": folder, "started": _now()}.items():
            if key not in attrs:
                self._set(number, key, value)

    def report(
        self,
        number: int,
        *,
        epoch: int,
        value: float | None,
        metrics: Mapping[str, float],
        elapsed_s: float,
    ) -> None:
        """Add one epoch to a row; what a resumed trial says again replaces itself.

        Args:
            number: The row.
            epoch: From 1.
            value: The metric; `None` leaves it to `finish`, so that no curve holds an epoch
                whose decision is not known.
            metrics: Everything the trial reported.
            elapsed_s: Seconds it has run, under all drivers.
        """
        if value is not None:
            self._storage.set_trial_intermediate_value(self._id(number), epoch, value)
        self._set(number, "metrics", dict(metrics))
        self._set(number, "elapsed_s", round(elapsed_s, 3))

    def finish(self, number: int, ending: Ending) -> None:
        """End a row; a kill at any point leaves it to `settle` or to a resumed trial."""
        self._set(number, "ending", asdict(ending))
        self._settle(number, ending)

    def settle(self) -> int:
        """Finish the rows whose end was decided but not told; returns how many."""
        settled = 0
        for trial in self.rows(TrialState.RUNNING):
            if "ending" in trial.user_attrs:
                self._settle(trial.number, Ending(**trial.user_attrs["ending"]))
                settled += 1
        return settled

    def elapsed_s(self, number: int) -> float:
        """Seconds a row's trial ran before this driver took it up."""
        return float(self._attrs(number).get("elapsed_s", 0.0))

    def add_elapsed(self, seconds: float) -> float:
        """Add to the seconds the study has taken over all its drivers; returns the sum."""
        total = float(self.study.user_attrs.get("elapsed_s", 0.0)) + seconds
        self.study.set_user_attr("elapsed_s", round(total, 3))
        return total

    def _settle(self, number: int, ending: Ending) -> None:
        if ending.epoch is not None and ending.value is not None:
            self._storage.set_trial_intermediate_value(self._id(number), ending.epoch, ending.value)
        if ending.reason is not None:
            self._set(number, "reason", ending.reason)
        value = ending.value if ending.state == "COMPLETE" else None
        self.study.tell(number, value, state=TrialState[ending.state])

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)

    def _attrs(self, number: int) -> dict[str, Any]:
        return self._storage.get_trial_user_attrs(self._id(number))

    def _set(self, number: int, key: str, value: Any) -> None:
        self._storage.set_trial_user_attr(self._id(number), key, value)


@contextmanager
def open_record(folder: Path, identity: StudyIdentity) -> Iterator[StudyRecord]:
    """Create a study or go on with it, as its only driver.

    Raises:
        PlatformError: If another driver has it, it was made with another spec or other data,
            or its folder cannot be written.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with ExitStack() as stack:
        try:
            record = _enter(stack, folder, identity)
        except OSError as error:
            raise PlatformError(_unwritable(folder, error)) from error
        except STORAGE_ERRORS as error:
            raise PlatformError(_unwritable(folder / STUDY_DB, error)) from error
        yield record


def compare_specs(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two specs and may change numbers: `dotted.path: old -> new`."""
    old_flat, new_flat = _flatten(old), _flatten(new)
    lines = []
    for path in sorted({*old_flat, *new_flat}):
        before, after = old_flat.get(path, _ABSENT), new_flat.get(path, _ABSENT)
        if before != after and not _is_free(path):
            lines.append(f"{path}: {_show(before)} -> {_show(after)}")
    return lines


_ABSENT = object()


def _enter(stack: ExitStack, folder: Path, identity: StudyIdentity) -> StudyRecord:
    folder.mkdir(parents=True, exist_ok=True)
    stack.enter_context(_lock(folder, identity.name))
    storage = stack.enter_context(open_storage(folder / STUDY_DB))
    study = optuna.create_study(
        storage=storage,
        study_name=identity.name,
        direction=StudyDirection.MAXIMIZE
        if identity.metric["goal"] == "maximize"
        else StudyDirection.MINIMIZE,
        load_if_exists=True,
    )
    _check_identity(study, identity, folder)
    _write_identity(study, identity, folder)
    record = StudyRecord(study, storage, folder)
    record.settle()
    return record


def _check_identity(study: optuna.Study, identity: StudyIdentity, folder: Path) -> None:
    attrs = study.user_attrs
    if "spec" not in attrs:  # killed before it was written: there is no row yet
        return
    differences = compare_specs(attrs["spec"], identity.spec)
    if attrs["data_fingerprint"] != identity.data_fingerprint:
        differences.append(
            f"the data set: {attrs['data_fingerprint']} -> {identity.data_fingerprint}"
        )
    if differences:
        raise PlatformError(
            f"study '{identity.name}' in {folder.parent} was made with another spec:\n"
            + "".join(f"  {line}\n" for line in differences)
            + f"give the new one its own name (-S name={_free_name(folder)}), or take the "
            "changes back to go on with the old one"
        )
    num_rows, num_samples = len(study.get_trials(deepcopy=False)), _num_samples(identity.spec)
    if num_samples is not None and num_samples < num_rows:
        raise PlatformError(
            f"search.num_samples must be >= {num_rows}, the trials that study "
            f"'{identity.name}' already has, but got {num_samples}"
        )


def _write_identity(study: optuna.Study, identity: StudyIdentity, folder: Path) -> None:
    (folder / SPEC_FILE).write_text(format_yaml(identity.spec), encoding="utf-8")
    written = study.user_attrs
    for key, value in asdict(identity).items():
        # The version that began a study stays; "spec" comes last and says that all is there.
        if key not in ("name", "spec") and not (key == "asit_version" and key in written):
            study.set_user_attr(key, value)
    study.set_user_attr("spec", identity.spec)


@contextmanager
def _lock(folder: Path, name: str) -> Iterator[None]:
    """Hold the study's lock; the kernel frees it however this process ends."""
    with (folder / LOCK_FILE).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PlatformError(
                f"study '{name}' is being run by {_read_holder(folder / LOCK_FILE)}; wait for it, "
                f"stop it, or give this sweep its own name (-S name={_free_name(folder)})"
            ) from None
        file.seek(0)
        file.truncate()
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}, file)
        file.flush()
        yield


def _read_holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError):
        return "another process"


def _free_name(folder: Path) -> str:
    number = 2
    while (folder.parent / f"{folder.name}-{number}").exists():
        number += 1
    return f"{folder.name}-{number}"


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(_flatten(value, f"{path}."))
        else:
            flat[path] = value
    return flat


def _is_free(path: str) -> bool:
    return any(path == free or path.startswith(f"{free}.") for free in _FREE_PATHS)


def _num_samples(spec: Mapping[str, Any]) -> int | None:
    return spec.get("search", {}).get("num_samples")


def _show(value: Any) -> str:
    return "(absent)" if value is _ABSENT else json.dumps(value, ensure_ascii=False, default=str)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _unwritable(path: Path, error: BaseException) -> str:
    return f"{path}: cannot be written ({first_line(error)}); --results DIR takes another folder"
