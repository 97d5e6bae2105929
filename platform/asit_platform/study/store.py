"""Reading a study: Optuna's storage and the files beside it; neither Ray nor torch.

Dashboards, `export` and `base: study:NAME/best` come through here. A study may be written
to while it is read: what is not there yet is simply absent. `record.py` is the one writer.

    results/<study>/spec.yaml  study.db  result.json  report.html
                    trials/<number>/  baselines/<row>/  result/seed<k>/
"""

import difflib
import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from asit_platform.errors import PlatformError
from asit_platform.yaml_file import read_yaml

STUDY_DB = "study.db"
SPEC_FILE = "spec.yaml"
RESULT_FILE = "result.json"
TRIALS_FOLDER = "trials"

# Seconds a writer waits for a reader's lock, and the other way round.
_LOCK_TIMEOUT_S = 60

STORAGE_ERRORS = (SQLAlchemyError, StorageInternalError)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRow:
    """One configuration of a sweep, as the storage knows it.

    Attributes:
        number: Position in the study, from 0.
        state: "COMPLETE" (reached the last epoch), "PRUNED" (stopped by the scheduler),
            "FAIL", "RUNNING" (also: interrupted) or "WAITING".
        params: Dotted path -> value.
        value: The metric at the last epoch reached; `None` for a failed or running trial.
        curve: Epoch (from 1) -> metric.
        seed: The trial's seed.
        elapsed_s: Seconds it ran, interruptions left out.
        reason: Why it failed or was stopped.
        folder: Where its files lie.
        metrics: Everything it reported at its last epoch.
        started: When it first started, ISO 8601 in UTC.
    """

    number: int
    state: str
    params: dict[str, Any]
    value: float | None
    curve: dict[int, float]
    seed: int | None
    elapsed_s: float | None
    reason: str | None
    folder: Path
    metrics: dict[str, float] = field(default_factory=dict)
    started: str | None = None

    @property
    def collapsed(self) -> bool:
        """Whether its representation had collapsed when it was last looked at."""
        return self.metrics.get("gauge/collapsed") == 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyView:
    """A study at one moment.

    Attributes:
        name: The study's name.
        folder: `results/<study>`.
        spec: The sweep as it was written, overrides applied.
        metric: {"name", "goal": "maximize" | "minimize", "at"}.
        num_epochs: Epochs of a trial that is not stopped.
        trials: By number.
        result: Content of result.json, or `None` before the result stage has ended.
        attributes: Everything else the study says of itself, such as "data_fingerprint".
    """

    name: str
    folder: Path
    spec: dict[str, Any]
    metric: dict[str, str]
    num_epochs: int | None
    trials: list[TrialRow]
    result: dict[str, Any] | None
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def transductive(self) -> bool:
        """Whether unlabelled test clips took part in pre-training."""
        return bool(self.spec.get("transductive"))

    @property
    def best(self) -> TrialRow | None:
        """The best trial that reached the last epoch; the earliest of equals."""
        complete = [row for row in self.trials if row.state == "COMPLETE" and row.value is not None]
        sign = -1.0 if self.metric.get("goal") == "minimize" else 1.0
        return max(complete, key=lambda row: (sign * (row.value or 0.0), -row.number), default=None)


def list_studies(root: Path) -> list[Path]:
    """Folders of the studies under `root`, by name; empty if `root` is not there."""
    return sorted(path.parent for path in Path(root).glob(f"*/{STUDY_DB}"))


def find_study(root: Path, name: str) -> Path:
    """Folder of a study given by name, or by its folder.

    Raises:
        PlatformError: If there is none; names the nearest.
    """
    for folder in (Path(root) / name, Path(name)):
        if (folder / STUDY_DB).is_file():
            return folder
    names = [folder.name for folder in list_studies(root)]
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        hint = f"did you mean '{near[0]}'?"
    elif names:
        hint = f"it holds {', '.join(names)}"
    else:
        hint = "it holds no study; --results names another folder"
    raise PlatformError(f"no study '{name}' in {root}: {hint}")


def open_study(folder: Path) -> StudyView:
    """Read a study, whether it is finished, running, interrupted or just being created.

    Raises:
        PlatformError: If the folder holds no study, or its storage cannot be read.
    """
    folder = Path(folder)
    path = folder / STUDY_DB
    if not path.is_file():
        raise PlatformError(f"{folder}: holds no study ({STUDY_DB} is missing)")
    attributes, frozen = _read_storage(path)
    trials = [_create_row(trial, folder) for trial in frozen]
    spec = attributes.pop("spec", None) or _read_spec(folder)
    return StudyView(
        name=str(spec.get("name", folder.name)),
        folder=folder,
        spec=spec,
        metric=dict(attributes.pop("metric", None) or spec.get("metric") or {}),
        num_epochs=attributes.pop("num_epochs", None),
        trials=sorted(trials, key=lambda row: row.number),
        result=_read_result(folder / RESULT_FILE),
        attributes=attributes,
    )


def export_rows(view: StudyView) -> list[dict[str, Any]]:
    """Trials as plain values: number, params, seed, state, value, and whether transductive."""
    return [
        {
            "number": row.number,
            "params": dict(row.params),
            "seed": row.seed,
            "state": row.state,
            "value": row.value,
            "transductive": view.transductive,
        }
        for row in view.trials
    ]


def best_config(root: Path, name: str) -> dict[str, Any]:
    """The resolved configuration of a study's best trial, for `base: study:NAME/best`.

    Raises:
        PlatformError: If there is no such study, or none of its trials reached the last epoch.
    """
    view = open_study(find_study(root, name))
    if view.best is None:
        raise PlatformError(f"study '{name}' has no complete trial yet, so it has no best one")
    return read_yaml(view.best.folder / "config.yaml")["trial"]


@contextmanager
def open_storage(path: Path) -> Iterator[RDBStorage]:
    """Optuna's storage in the SQLite file `path`, closed at the end."""
    url = URL.create("sqlite", database=str(path))
    storage = RDBStorage(
        url.render_as_string(hide_password=False),
        engine_kwargs={"connect_args": {"timeout": _LOCK_TIMEOUT_S}},
    )
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _has_rows(path: Path) -> bool:
    """Whether a writer has made its tables and its study.

    Optuna makes missing tables when it opens a storage: a reader that came first would trip the
    writer over tables it is just making itself. `rw` makes no file, and lets SQLite undo what a
    killed writer left half done.
    """
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True)) as connection:
        query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'studies'"
        if connection.execute(query).fetchone() is None:
            return False
        return connection.execute("SELECT 1 FROM studies").fetchone() is not None


def _read_storage(path: Path) -> tuple[dict[str, Any], list[FrozenTrial]]:
    try:
        if not _has_rows(path):
            return {}, []
        with open_storage(path) as storage:
            studies = storage.get_all_studies()
            study_id = studies[0]._study_id
            return dict(studies[0].user_attrs), storage.get_all_trials(study_id, deepcopy=False)
    except (*STORAGE_ERRORS, sqlite3.Error) as error:
        raise PlatformError(f"{path}: cannot be read as a study: {first_line(error)}") from None


def _create_row(trial: FrozenTrial, folder: Path) -> TrialRow:
    attrs = trial.user_attrs
    relative = attrs.get("folder", f"{TRIALS_FOLDER}/{trial.number:04d}")
    value = trial.value if trial.value is not None and math.isfinite(trial.value) else None
    return TrialRow(
        number=trial.number,
        state=trial.state.name,
        params=dict(trial.params),
        value=value if trial.state.is_finished() else None,
        curve=dict(sorted(trial.intermediate_values.items())),
        seed=attrs.get("seed"),
        elapsed_s=attrs.get("elapsed_s"),
        reason=attrs.get("reason"),
        folder=folder / relative,
        metrics=dict(attrs.get("metrics", {})),
        started=attrs.get("started"),
    )


def _read_spec(folder: Path) -> dict[str, Any]:
    try:
        return read_yaml(folder / SPEC_FILE)
    except PlatformError:
        return {}


def _read_result(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise PlatformError(f"{path}: cannot be read as JSON: {error}") from None


def first_line(error: BaseException) -> str:
    """What a storage error says first; its cause, where Optuna has wrapped it."""
    cause = error.__cause__ or error
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
