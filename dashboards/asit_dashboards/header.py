"""The head of a page: what was asked, on which data, with how many trials and seeds."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from asit_dashboards import figures
from asit_dashboards.words import STATE_WORDS
from asit_platform.study.store import StudyView
from asit_platform.words import duration_text, plural


def header_facts(view: StudyView) -> list[tuple[str, str]]:
    """Terms and their words; what the study does not know is left out."""
    spec, result = view.spec or {}, view.result or {}
    split = result.get("split") or spec.get("split") or {}
    search, scheduler = spec.get("search") or {}, spec.get("scheduler") or {}
    facts = [
        ("Dataset", _dataset_words(view)),
        ("Trials", _state_words(view)),
        ("Split", _split_words(split)),
        ("Metric", _metric_words(view)),
        ("Search", _search_words(search, scheduler)),
        ("Seeds", _seed_words(view)),
    ]
    whole = result.get("elapsed_s") or view.attributes.get("elapsed_s")
    elapsed = whole or sum(trial.elapsed_s or 0 for trial in view.trials)
    if elapsed:
        words = "" if whole else " (trials, added up)"
        facts.append(("Time", duration_text(elapsed) + words))
    return [(name, words) for name, words in facts if words]


def _dataset_words(view: StudyView) -> str:
    dataset = dataset_of(view)
    if not dataset:
        return str((view.spec or {}).get("data") or "")
    kind = ", synthetic (sounds made by this program)" if dataset.get("synthetic") else ""
    counts = plural(dataset["num_clips"], "clip") if "num_clips" in dataset else ""
    classes = dataset.get("label_names") or []
    return f"{dataset.get('name', '')}{kind}" + "".join(
        f", {words}" for words in (counts, f"{len(classes)} classes" if classes else "") if words
    )


def dataset_of(view: StudyView) -> dict[str, Any]:
    """What the result, or before it the study, says of the data; empty where neither does."""
    return (view.result or {}).get("dataset") or view.attributes.get("dataset") or {}


def _state_words(view: StudyView) -> str:
    counts = Counter(trial.state for trial in view.trials)
    words = [f"{counts[state]} {word}" for state, word in STATE_WORDS.items() if counts[state]]
    planned = ((view.spec or {}).get("search") or {}).get("num_samples")
    total = f"{len(view.trials)} of {planned}" if planned else f"{len(view.trials)}"
    return f"{total}: {', '.join(words)}" if words else total


def _split_words(split: dict[str, Any]) -> str:
    if not split:
        return ""
    train = split.get("train") or []
    folds = ", ".join(map(str, train)) if isinstance(train, list | tuple) else str(train)
    return f"folds {folds} train, {split.get('select')} selects, {split.get('test')} tests"


def _metric_words(view: StudyView) -> str:
    if not view.metric:
        return ""
    direction = "lowest" if figures.metric_goal(view) == "minimize" else "highest"
    return f"{figures.metric_name(view)}, {direction} at the {view.metric.get('at', 'last')} epoch"


def _search_words(search: dict[str, Any], scheduler: dict[str, Any]) -> str:
    if not search:
        return ""
    method = {"tpe": "TPE (Optuna)", "random": "random"}.get(search.get("method", ""), "")
    words = method or str(search.get("method") or "")
    if scheduler.get("type") == "asha":
        words += (
            f", ASHA stops early from epoch {scheduler.get('grace_period')}"
            f" (factor {scheduler.get('reduction_factor')})"
        )
    return words


def _seed_words(view: StudyView) -> str:
    trial_seeds = sorted({trial.seed for trial in view.trials if trial.seed is not None})
    words = [f"{_some(trial_seeds)} while searching"] if trial_seeds else []
    rows = figures.result_rows(view.result)
    if rows:
        words.append(
            f"{_some([seed for seed in rows[0].seeds if seed is not None])} for the result"
        )
    return "; ".join(words)


def _some(numbers: Sequence[int]) -> str:
    text = ", ".join(map(str, numbers[:6]))
    return text if len(numbers) <= 6 else f"{text} … ({len(numbers)})"


def header_warnings(view: StudyView) -> list[str]:
    """What a reader must know before any number: synthetic, transductive, unfinished."""
    found = []
    if dataset_of(view).get("synthetic"):
        found.append("Synthetic sounds: numbers on this page say nothing about real recordings.")
    if view.transductive:
        found.append("Transductive: unlabelled test clips took part in pre-training.")
    if any(trial.state == "RUNNING" for trial in view.trials):
        found.append("The study is not finished: this page shows what was stored when it was made.")
    return found
