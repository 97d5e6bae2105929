"""Drawings of the search space: every trial's parameters beside what it reached."""

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from asit_dashboards.figures import Axis, Comparable
from asit_dashboards.look import (
    INK,
    LINE_SCALE,
    axis_ticks,
    escape,
    finish,
    in_lines,
    marker_of,
)
from asit_dashboards.words import STATE_WORDS, shorten, to_axis, unit_of
from asit_platform.words import short_names


def draw_parallel(data: Comparable, axes: Sequence[Axis], metric: str, *, goal: str) -> go.Figure:
    """One line a trial through its parameters to the metric; drag along an axis to filter."""
    values = [to_axis(value, metric) for value in data.values]
    low, high = min(values), max(values)
    pad = (high - low or 1) * 0.03
    # Names stand over their axes on two lines, as wide as their number leaves room for.
    width = min(20, max(12, 160 // (len(axes) + 1)))
    names = short_names([axis.name for axis in axes], at_least=2 if width == 20 else 1)
    dimensions = [
        {
            "label": escape(in_lines(names[axis.name], width)),
            "values": axis.positions,
            "range": [axis.low, axis.high],
            # These ticks are plain text to Plotly, unlike every other.
            **axis_ticks(axis, escaped=False),
        }
        for axis in axes
    ]
    dimensions.append(
        {
            "label": f"{escape(shorten(metric, 20))}<br>epoch {data.epoch}{unit_of(metric)}",
            "values": values,
            "range": [low - pad, high + pad],
        }
    )
    figure = go.Figure(
        go.Parcoords(
            dimensions=dimensions,
            line={
                "color": values,
                "colorscale": LINE_SCALE,
                "reversescale": goal == "minimize",
                "cmin": low - pad,
                "cmax": high + pad,
            },
            labelfont={"size": 12 if width == 20 else 10, "color": INK},
            tickfont={"size": 11, "color": INK},
            rangefont={"size": 1, "color": "rgba(0,0,0,0)"},
        )
    )
    return finish(figure, height=430).update_layout(margin={"l": 80, "r": 80, "t": 90, "b": 30})


def draw_slices(data: Comparable, axes: Sequence[Axis], metric: str) -> go.Figure:
    """The metric over each parameter alone, at the epoch where trials compare."""
    num_columns = min(4, len(axes))
    num_rows = -(-len(axes) // num_columns)
    names = short_names([axis.name for axis in axes])
    figure = make_subplots(
        rows=num_rows,
        cols=num_columns,
        shared_yaxes=True,
        horizontal_spacing=0.02,
        vertical_spacing=min(0.3, 0.22 * 2 / max(num_rows, 2)),
    )
    states = [trial.state for trial in data.trials]
    for place, axis in enumerate(axes):
        row, column = place // num_columns + 1, place % num_columns + 1
        for state in ("PRUNED", "COMPLETE"):
            chosen = [index for index, each in enumerate(states) if each == state]
            figure.add_scatter(
                x=[axis.positions[index] for index in chosen],
                y=[to_axis(data.values[index], metric) for index in chosen],
                mode="markers",
                marker={**marker_of(state), "size": 9 if len(states) < 40 else 6},
                name=STATE_WORDS[state],
                legendgroup=state,
                showlegend=place == 0 and bool(chosen),
                customdata=[data.trials[index].number for index in chosen],
                hovertemplate="trial %{customdata}: %{y:.4g}<extra></extra>",
                row=row,
                col=column,
            )
        pad = (axis.high - axis.low or 1) * (0.06 if axis.ticks is None or axis.log else 0.25)
        scale = " (log scale)" if axis.log else ""
        figure.update_xaxes(
            title_text=escape(in_lines(names[axis.name])) + scale,
            title_font_size=12,
            range=[axis.low - pad, axis.high + pad],
            row=row,
            col=column,
            **(axis_ticks(axis) or {"nticks": 5}),
        )
    figure.update_yaxes(
        title_text=escape(shorten(metric, 28)) + unit_of(metric), col=1, title_font_size=12
    )
    return finish(figure, height=90 + 235 * num_rows)
