"""A sweep from its spec to its result: search, select, measure once, write it down.

Whatever ends it early, running it again goes on: trials from Optuna's storage, the result
from the folders that are finished.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from asit_core.protocol import Fold, Protocol, split_hash
from asit_platform.cluster import preflight, start_ray
from asit_platform.data.dataset import DatasetInfo
from asit_platform.data.source import ClipSource
from asit_platform.errors import PlatformError
from asit_platform.spec import SweepSpec
from asit_platform.storage import Place
from asit_platform.study.folders import read_json, write_json
from asit_platform.study.record import StudyIdentity, StudyRecord, open_record
from asit_platform.study.result import (
    Outcome,
    ResultJob,
    RowName,
    assemble_result,
    plan_jobs,
    read_outcome,
    run_jobs,
)
from asit_platform.study.search import (
    StudyContext,
    TrialFunctions,
    is_unfinished,
    quieten_ray,
    run_search,
)
from asit_platform.study.store import RESULT_FILE, StudyView, TrialRow, open_study
from asit_platform.trial_config import TrialConfig
from asit_platform.words import parameter_text, short_names

ENVIRONMENT_FILE = "environment.json"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SweepOutcome:
    """A finished sweep.

    Attributes:
        folder: The study's.
        result: Content of result.json.
    """

    folder: Path
    result: dict[str, Any]


def run_sweep(
    spec: SweepSpec, *, results_dir: Path, functions: TrialFunctions, console: Console
) -> SweepOutcome:
    """Run a sweep, or go on with it, to its result.

    Args:
        spec: The sweep.
        results_dir: Holds the studies.
        functions: What a trial is; those of `trial.py`, but for tests.
        console: Where progress is drawn, if it is a terminal.

    Raises:
        PlatformError: If the study cannot be run; names what to change.
        KeyboardInterrupt: On Ctrl-C; the same call goes on.
    """
    info = DatasetInfo.open(Place.of(spec.data).absolute())
    _check_labels(info)
    _check_folds(spec, info)
    _check_mel_bins(spec, info)
    _check_batch(spec, info)
    folder = (results_dir / spec.name).resolve()
    context = StudyContext(spec=spec, info=info, folder=folder, functions=functions)
    with open_record(folder, _create_identity(context)) as record:
        with _timed(record):
            outcomes = _compute(record, context, console)
        result = _describe(context, outcomes, elapsed_s=record.add_elapsed(0.0))
    write_json(folder / RESULT_FILE, result)
    return SweepOutcome(folder=folder, result=result)


def describe_result(outcome: SweepOutcome) -> list[str]:
    """The result in a few lines for the terminal."""
    result = outcome.result
    dataset, best = result["dataset"], result["best"]
    made_up = " (synthetic: sounds the program made itself)" if dataset["synthetic"] else ""
    lines = [
        f"{result['study']}: {result['question']}",
        f"data: {dataset['name']}{made_up}, {dataset['num_clips']} clips",
        f"{result['metric']['name']} on test fold {result['split']['test']}, which chose nothing:",
    ]
    if result["transductive"]:
        lines.append("transductive: unlabelled test clips took part in pre-training")
    lines += [_show_line(row["label"], row, num=len(row["values"])) for row in result["rows"]]
    for difference in result["differences"]:
        label = f"pre-trained minus {difference['against'].replace('log_mel_', 'log-mel ')}"
        lines.append(_show_line(label, difference, num=difference["n"]))
    names = short_names(list(best["params"]), at_least=1)
    params = ", ".join(f"{names[p]} {parameter_text(value)}" for p, value in best["params"].items())
    lines.append(f"best trial {best['number']}: {params}")
    selected = (
        f"{result['selected_by']} {best['selected_value']:.4f} on fold {result['split']['select']}"
    )
    lines.append(f"  {selected} (selected, optimistic)")
    return lines


def _compute(record: StudyRecord, context: StudyContext, console: Console) -> list[Outcome]:
    """Search and measure; starts Ray only if there is something to run."""
    if not is_unfinished(record, context.spec):
        finished = _finished_outcomes(context)
        if finished is not None:
            return finished
    quieten_ray()
    # Trials of several workers need Ray's dashboard: it frees what a stopped one had reserved.
    with start_ray(with_dashboard=context.spec.resources.num_workers > 1):
        if is_unfinished(record, context.spec):
            _search(record, context, console)
        return _measure(context, console)


def _search(record: StudyRecord, context: StudyContext, console: Console) -> None:
    spec = context.spec
    folds = {*spec.split.train, spec.split.select}
    source, concurrency = _open_source(context, folds | _transductive_folds(spec))
    num_rows = len(record.rows())
    _logger.info(
        "%s: %d of %d trials drawn, up to %d epochs each, %d at a time",
        spec.name,
        num_rows,
        spec.search.num_samples,
        context.num_epochs,
        concurrency,
    )
    run_search(record, context, source, concurrency=concurrency, console=console)


def _measure(context: StudyContext, console: Console) -> list[Outcome]:
    spec = context.spec
    best, jobs = _plan(context)
    todo = sum(read_outcome(job) is None for job in jobs)
    _logger.info(
        "%s: measuring trial %d on test fold %d: %d of %d runs left",
        spec.name,
        best.number,
        spec.split.test,
        todo,
        len(jobs),
    )
    folds = {*spec.split.train, spec.split.select, spec.split.test}
    source, concurrency = _open_source(context, folds)
    run = partial(_run_job, context=context, config=spec.resolve(best.params), source=source)
    outcomes = []
    with console.status("measuring on the test fold") as status:
        for outcome in run_jobs(
            jobs,
            run,
            resources=spec.resources,
            concurrency=concurrency,
            max_failures=spec.failure.max_failures,
        ):
            outcomes.append(outcome)
            status.update(f"measuring on the test fold: {len(outcomes)} of {len(jobs)} runs")
    return outcomes


def _run_job(
    job: ResultJob, *, context: StudyContext, config: TrialConfig, source: ClipSource
) -> dict[str, float]:
    """What a worker runs for one row and seed of the result."""
    spec, functions = context.spec, context.functions
    common: dict[str, Any] = {
        "split": spec.split,
        "evaluate_on": "test",
        "source": source,
        "info": context.info,
        "folder": job.folder,
    }
    match job.row:
        case "pretrained":
            return functions.run_trial(
                config,
                seed=job.seed,
                resources=spec.resources,
                report=_ignore,
                transductive=spec.transductive,
                **common,
            )
        case "untrained":
            return functions.run_untrained(
                config,
                seed=job.seed,
                resources=spec.resources,
                transductive=spec.transductive,
                **common,
            )
        case "log_mel_statistics":
            return functions.run_log_mel_statistics(probe=config.probe, **common)


def _ignore(_metrics: dict[str, float]) -> None:
    """A result's epochs are read from its folder."""


def _plan(context: StudyContext) -> tuple[TrialRow, list[ResultJob]]:
    spec = context.spec
    best = _select(open_study(context.folder))
    config = spec.resolve(best.params)
    seeds = [spec.search.seed + offset for offset in range(1, spec.result.seeds + 1)]

    def fingerprint(row: RowName, seed: int | None) -> str:
        return context.fingerprint(config, seed or 0, purpose=f"{row}-test")

    return best, plan_jobs(context.folder, seeds, fingerprint)


def _finished_outcomes(context: StudyContext) -> list[Outcome] | None:
    outcomes = []
    for job in _plan(context)[1]:
        metrics = read_outcome(job)
        if metrics is None:
            return None
        outcomes.append(Outcome(job, metrics))
    return outcomes


def _select(view: StudyView) -> TrialRow:
    if view.best is None:
        reasons = sorted({row.reason or "" for row in view.trials if row.state == "FAIL"})
        raise PlatformError(
            f"study '{view.name}': none of its {len(view.trials)} trials reached the last epoch"
            + "".join(f"\n  {reason}" for reason in reasons)
            + "\n  mend the cause, then raise search.num_samples or change the name (-S name=...)"
        )
    return view.best


def _open_source(context: StudyContext, folds: set[int]) -> tuple[ClipSource, int]:
    source = ClipSource.open(context.info.folder, sorted(folds))
    data_cpus = 0.0 if source.mode == "in_memory" else 1.0
    return source, preflight(context.spec.resources, data_cpus=data_cpus)


def _transductive_folds(spec: SweepSpec) -> set[int]:
    return {spec.split.test} if spec.transductive else set()


def _check_labels(info: DatasetInfo) -> None:
    if info.label_kind != "single":
        raise PlatformError(
            f"data must be a set of one label a clip, which a sweep's probe learns, but "
            f"{info.folder} ({info.name}) has label kind {info.label_kind!r}; take another set"
        )


def _check_folds(spec: SweepSpec, info: DatasetInfo) -> None:
    wanted = [*spec.split.train, spec.split.select, spec.split.test]
    missing = sorted(set(wanted) - set(info.folds))
    if missing:
        raise PlatformError(
            f"split must name folds of {info.folder} ({list(info.folds)}), but got {missing}"
        )


def _check_mel_bins(spec: SweepSpec, info: DatasetInfo) -> None:
    input_bins = spec.resolve({}).pretrain.encoder.input_bins
    if input_bins != info.num_mel_bins:
        raise PlatformError(
            f"trial.pretrain.encoder.input_bins must be {info.num_mel_bins}, the mel bins of "
            f"{info.folder}, but got {input_bins}; set it, or prepare the data with "
            f"--num-mels {input_bins}"
        )


def _check_batch(spec: SweepSpec, info: DatasetInfo) -> None:
    """Refuse a batch that the training folds cannot fill, also at the ends of a searched range."""
    path, num_clips = "pretrain.batch_size", len(info.clips(spec.split.train))
    searched = spec.search.parameters.get(path)
    sizes = searched.extremes().values() if searched else [spec.resolve({}).pretrain.batch_size]
    if max(sizes) > num_clips:
        raise PlatformError(
            f"trial.{path} must be at most {num_clips}, the clips of train folds "
            f"{list(spec.split.train)} in {info.folder}, but got {max(sizes)}"
        )


def _create_identity(context: StudyContext) -> StudyIdentity:
    spec = context.spec
    return StudyIdentity(
        name=spec.name,
        spec=spec.to_dict(),
        metric={"name": spec.metric.name, "goal": spec.metric.goal, "at": spec.metric.at},
        num_epochs=context.num_epochs,
        data_fingerprint=context.info.fingerprint,
        asit_version=version("asit"),
        dataset=_describe_dataset(context.info),
    )


def _describe(
    context: StudyContext, outcomes: Sequence[Outcome], *, elapsed_s: float
) -> dict[str, Any]:
    spec, info = context.spec, context.info
    best, jobs = _plan(context)
    about = {
        "study": spec.name,
        "question": spec.question,
        "metric": {"name": _measured(spec), "goal": spec.metric.goal, "at": spec.metric.at},
        "selected_by": spec.metric.name,
        "dataset": _describe_dataset(info),
        "split": spec.to_dict()["split"],
        "transductive": spec.transductive,
        "protocol": asdict(_protocol(spec, info, best.params)),
        "best": {
            "number": best.number,
            "params": best.params,
            "selected_value": best.value,
            "selected_label": "selected, optimistic",
        },
        "environment": read_json(jobs[0].folder / ENVIRONMENT_FILE),
        "elapsed_s": elapsed_s,
    }
    return assemble_result(outcomes, metric=_measured(spec), about=about)


def _protocol(spec: SweepSpec, info: DatasetInfo, params: dict[str, Any]) -> Protocol:
    """What numbers of another study must share with these to be compared."""
    scored = info.clips([spec.split.test])["clip_id"].to_pylist()
    trained = info.clips(spec.split.train)["clip_id"].to_pylist()
    probe = spec.resolve(params).probe
    by_neighbours = _measured(spec) == "probe/knn_accuracy" or probe.kind == "knn"
    return Protocol(
        dataset=info.name,
        split_hash=split_hash([Fold(trained, scored)]),
        num_clips=len(scored),
        num_classes=info.num_labels,
        encoder="frozen",
        readout=(
            f"knn(features={probe.features}, k={min(probe.k, len(trained))})"
            if by_neighbours
            else f"linear(features={probe.features})"
        ),
        metric="accuracy",
    )


def _describe_dataset(info: DatasetInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "synthetic": info.synthetic,
        "num_clips": info.num_clips,
        "label_names": list(info.label_names),
        "fingerprint": info.fingerprint,
    }


def _measured(spec: SweepSpec) -> str:
    """The metric of the result: the one searched by, if all three rows have it."""
    return spec.metric.name if spec.metric.name.startswith("probe/") else "probe/accuracy"


@contextmanager
def _timed(record: StudyRecord) -> Iterator[None]:
    started_s = time.monotonic()
    try:
        yield
    finally:
        record.add_elapsed(time.monotonic() - started_s)


def _show_line(label: str, row: dict[str, Any], *, num: int) -> str:
    line = f"  {label:<36} {row['mean']:.4f}"
    if row["ci95"] is None:
        return line
    low, high = row["ci95"]
    return f"{line}  95 % interval {low:.4f} to {high:.4f} over {num} seeds"
