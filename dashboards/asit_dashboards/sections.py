"""A study as one page: header, result, evidence and trials, in reading order.

The same page becomes a file (`report.py`) and a live view (`app.py`). What cannot be shown yet
is said in a sentence in its place, never left as an empty panel.
"""

from asit_dashboards import drawing, drawing_pictures, drawing_space, figures
from asit_dashboards.header import dataset_of, header_facts, header_warnings
from asit_dashboards.importance import importance
from asit_dashboards.outcome import result_section
from asit_dashboards.page import Page, Section
from asit_dashboards.pictures import OPTIONAL_PANEL, read_pictures
from asit_dashboards.trials import environment_section, trials_section
from asit_dashboards.words import plural, value_text
from asit_platform.study.store import StudyView


def build_page(view: StudyView) -> Page:
    """A study's page, also where there is no trial, or only failed ones."""
    sections = [result_section(view)]
    if any(trial.state in figures.ENDED for trial in view.trials):
        sections += [
            _best_so_far_section(view),
            _curves_section(view),
            _importance_section(view),
            *_space_sections(view),
            _pictures_section(view),
        ]
    elif curves := figures.learning_curves(view):
        sections.append(_curves_section(view, curves))
    if view.trials:
        sections.append(trials_section(view))
    if environment := (view.result or {}).get("environment"):
        sections.append(environment_section(environment))
    return Page(
        name=view.name,
        question=str((view.spec or {}).get("question") or ""),
        facts=header_facts(view),
        warnings=header_warnings(view),
        sections=sections,
    )


def _best_so_far_section(view: StudyView) -> Section:
    data = figures.best_so_far(view)
    metric = figures.metric_name(view)
    if data.best:
        number, value = data.best[-1]
        title = f"Best so far: {value_text(value, metric)} at trial {number}"
        sentences = [
            "Selected, optimistic: the best of several tries, on the clips that chose it. "
            "Only complete trials move the line."
        ]
    else:
        title, sentences = "Best so far", ["No trial has reached its last epoch yet."]
    return Section("best", title, sentences, drawing.draw_best_so_far(data, metric))


def _curves_section(view: StudyView, curves: list[figures.Curve] | None = None) -> Section:
    curves = figures.learning_curves(view) if curves is None else curves
    if not curves:
        return Section("curves", "Learning curves", ["No trial has reported a value yet."])
    pruned = sum(curve.state == "PRUNED" for curve in curves)
    sentence = f"{plural(len(curves), 'trial')}; " + (
        f"the {pruned} that the scheduler stopped early are dashed."
        if pruned
        else "none was stopped early."
    )
    figure = drawing.draw_learning_curves(curves, figures.metric_name(view))
    return Section("curves", "Learning curves", [sentence], figure)


def _importance_section(view: StudyView) -> Section:
    data = importance(view)
    if isinstance(data, str):
        return Section("importance", "Importance of parameters", [data])
    left_out = len(view.trials) - data.num_trials
    sentences = [
        f"Read at epoch {data.epoch}, the last that every complete or early-stopped trial "
        f"reached ({plural(data.num_trials, 'trial')}"
        + (f"; {left_out} failed or unfinished left out)." if left_out else ").")
    ]
    notes = [
        "PED-ANOVA (Optuna): how much each parameter sets the best trials apart. Bars: the middle "
        "80 % of bootstrap resamples; where they overlap widely, the order means little."
    ]
    return Section(
        "importance",
        "Importance of parameters",
        sentences,
        drawing.draw_importance(data),
        notes=notes,
    )


def _space_sections(view: StudyView) -> list[Section]:
    data = figures.comparable(view)
    metric = figures.metric_name(view)
    titles = {"parallel": "Parallel coordinates", "slices": "Each parameter alone"}
    if data is None or len(data.trials) < 2:
        sentence = "This needs at least two trials that share an epoch."
        return [Section(key, title, [sentence]) for key, title in titles.items()]
    axes = figures.parameter_axes(view, data.trials)
    if not axes:
        return [Section(key, title, ["No searched parameter."]) for key, title in titles.items()]
    at = f"{metric} at epoch {data.epoch}, the last that all {len(data.trials)} trials reached"
    return [
        Section(
            "parallel",
            titles["parallel"],
            [f"One line a trial, coloured by {at}. Drag along an axis to filter."],
            drawing_space.draw_parallel(data, axes, metric, goal=figures.metric_goal(view)),
        ),
        Section(
            "slices",
            titles["slices"],
            [f"Trials by {at}."],
            drawing_space.draw_slices(data, axes, metric),
        ),
    ]


def _pictures_section(view: StudyView) -> Section:
    number = figures.best_number(view)
    title = "What the network sees and fills in"
    trial = next((each for each in view.trials if each.number == number), None)
    if trial is None or not trial.folder:
        return Section("pictures", title, ["No complete trial yet, so no pictures."])
    data = read_pictures(trial.folder, dataset_of(view).get("label_names") or [])
    if isinstance(data, str):
        return Section("pictures", title, [data])
    sentences = [
        f"{plural(len(data.labels), 'clip')} of trial {number}: the input and what the student was "
        "given"
        + (
            ", and what it reconstructed."
            if OPTIONAL_PANEL in data.names
            else "; this configuration has no reconstruction task."
        )
    ]
    notes = ["Each picture is time by mel bin, all on one colour scale."]
    if any(error is not None for error in data.masked_error):
        notes[0] += (
            " Error: mean absolute difference between input and reconstruction over the "
            "corrupted part."
        )
    return Section("pictures", title, sentences, drawing_pictures.draw_pictures(data), notes=notes)
