"""The result of a study, or the sentence that says why there is none yet."""

from asit_dashboards import drawing, figures
from asit_dashboards.page import Section, Table
from asit_dashboards.words import INTERVAL_NOTE, finding, interval_text, value_text
from asit_platform.study.store import StudyView
from asit_platform.words import ABSENT, plural


def result_section(view: StudyView) -> Section:
    """The finding in words, its figure, and its table with the selected value apart."""
    if view.result is None:
        return Section("result", "Result", [_no_result_sentence(view)])
    metric = view.result["metric"]["name"]
    rows = figures.result_rows(view.result)
    transductive = ", transductive" if view.transductive else ""
    sentences = finding(view.result, figures.metric_goal(view))
    if not rows:
        return Section("result", "Result", sentences)
    cells = [
        [
            row.label,
            _num_seeds(row),
            value_text(row.mean, metric),
            interval_text(row.interval, metric),
            ", ".join(value_text(value, metric) for value in row.values),
        ]
        for row in rows
    ]
    test = (view.result.get("split") or {}).get("test", "")
    cells += _selected_row(view, metric)
    return Section(
        "result",
        f"Result on test fold {test}{transductive}",
        sentences,
        figure=drawing.draw_result(rows, metric),
        table=Table(
            columns=["", "seeds", "mean", "95 % interval", "each seed"],
            rows=cells,
            caption=f"{metric}, test fold {test}{transductive}; the last row is no result.",
            marked_row=len(cells) - 1 if len(cells) > len(rows) else None,
        ),
        notes=[INTERVAL_NOTE],
    )


def _num_seeds(row: figures.ResultRow) -> str:
    seeds = [seed for seed in row.seeds if seed is not None]
    return str(len(seeds)) if seeds else ABSENT


def _no_result_sentence(view: StudyView) -> str:
    if not view.trials:
        return "No trial has been recorded yet, so there is nothing to show."
    if all(trial.state == "FAIL" for trial in view.trials):
        return (
            f"No result: {plural(len(view.trials), 'trial')} ran and failed. "
            "Each one's reason is in the table below."
        )
    best = figures.best_so_far(view).best
    if not best:
        return "No result yet: no trial has reached its last epoch."
    number, value = best[-1]
    return (
        "No result yet: the best configuration has not been measured on the test fold. "
        f"Best so far is trial {number} with {value_text(value, view.metric['name'])} on the "
        "selection fold (selected, optimistic)."
    )


def _selected_row(view: StudyView, metric: str) -> list[list[str]]:
    best = (view.result or {}).get("best")
    if not best:
        return []
    fold = ((view.result or {}).get("split") or {}).get("select", "")
    value = value_text(best.get("selected_value"), metric)
    label = f"trial {best['number']} on selection fold {fold} (selected, optimistic)"
    return [[label, "1", value, ABSENT, value]]
