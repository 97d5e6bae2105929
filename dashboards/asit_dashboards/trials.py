"""Tables: every trial of a study, and what it was made with."""

from typing import Any

from asit_dashboards import figures
from asit_dashboards.page import Section, Table
from asit_dashboards.words import STATE_WORDS, value_text
from asit_platform.study.store import StudyView, TrialRow
from asit_platform.words import ABSENT, duration_text, parameter_text, short_names


def trials_section(view: StudyView) -> Section:
    """Every trial with its state, value, time and parameters; reasons where there are any."""
    paths = list(figures.search_space(view))
    names = short_names(paths)
    reasons = any(trial.reason for trial in view.trials)
    best = figures.best_number(view)
    cells = [_trial_cells(trial, figures.metric_name(view), paths) for trial in view.trials]
    if reasons:
        for row, trial in zip(cells, view.trials, strict=True):
            reason = trial.reason or ""
            row.append((reason, reason))
    columns = ["trial", "state", figures.metric_name(view), "epochs", "time"]
    columns += [names[path] for path in paths] + (["reason"] if reasons else [])
    marked = next((place for place, each in enumerate(view.trials) if each.number == best), None)
    sentences = [
        "The value is the last that the trial reported on the selection fold; values of "
        "trials stopped at different epochs do not compare."
    ]
    if any(trial.collapsed for trial in view.trials):
        sentences.append(
            "Collapsed: clip vectors, or what a head makes of them, no longer tell clips apart; "
            "collapse.txt in the trial's folder names the kind and the epochs it was seen in."
        )
    title = f"All {len(view.trials)} trials" if len(view.trials) > 1 else "The one trial"
    return Section(
        "trials",
        title + (", transductive" if view.transductive else ""),
        sentences,
        table=Table(
            columns,
            rows=[[text for text, _ in row] for row in cells],
            sort_keys=[[key for _, key in row] for row in cells],
            marked_row=marked,
        ),
    )


def _trial_cells(trial: TrialRow, metric: str, paths: list[str]) -> list[tuple[str, object]]:
    """Text and sort key of each cell."""
    last = figures.last_value(trial)
    value = None if last is None else last[1]
    epochs = max(trial.curve, default=0)
    state = STATE_WORDS.get(trial.state, trial.state.lower())
    state += ", collapsed" if trial.collapsed else ""
    cells: list[tuple[str, object]] = [
        (str(trial.number), trial.number),
        (state, state),
        (value_text(value, metric), "" if value is None else value),
        (str(epochs), epochs),
        (duration_text(trial.elapsed_s), "" if trial.elapsed_s is None else trial.elapsed_s),
    ]
    for path in paths:
        known = path in trial.params
        text = parameter_text(trial.params[path]) if known else ABSENT
        is_number = known and isinstance(trial.params[path], int | float)
        cells.append((text, float(trial.params[path]) if is_number else text if known else ""))
    return cells


def environment_section(environment: dict[str, Any]) -> Section:
    """Versions and commit of the result's run."""
    rows = [
        [
            str(name),
            ", ".join(f"{key} {value}" for key, value in each.items())
            if isinstance(each, dict)
            else str(each),
        ]
        for name, each in sorted(environment.items())
    ]
    return Section("environment", "Made with", [], table=Table(["", "version"], rows))
