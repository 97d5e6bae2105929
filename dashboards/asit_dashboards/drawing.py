"""Plotly drawings of the figures' data: one function a figure, one look for all.

States differ by colour, by marker and by dash, so the figures survive grey print and colour
blindness (Okabe-Ito colours, Viridis maps). Names from the study are escaped: Plotly reads a
little HTML in its texts.
"""

import html
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from asit_dashboards.figures import (
    Axis,
    BestSoFar,
    Comparable,
    Curve,
    ResultRow,
    seed_pairs,
)
from asit_dashboards.importance import Importance
from asit_dashboards.pictures import LEVELS, PANELS, Pictures
from asit_dashboards.words import (
    STATE_WORDS,
    short_names,
    shorten,
    to_axis,
    unit_of,
    value_text,
)

INK, GREY, RULE = "#222222", "#8a8a8a", "#e6e6e6"
BLUE, ORANGE, VERMILION = "#0072b2", "#c77c02", "#c23b00"
STATE_COLORS = {"COMPLETE": BLUE, "PRUNED": ORANGE, "FAIL": VERMILION, "RUNNING": GREY}
STATE_SYMBOLS = {"COMPLETE": "circle", "PRUNED": "diamond-open", "FAIL": "x-thin-open"}
STATE_DASHES = {"COMPLETE": "solid", "PRUNED": "dash", "FAIL": "dot", "RUNNING": "dashdot"}
FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', 'Liberation Sans', sans-serif"
COLOR_SCALE = "Viridis"
# From poor to good; lines stay visible on white, and the good ones come to the front in grey too.
LINE_SCALE = [[0, "#c6d3de"], [0.5, "#6b9ac4"], [1, "#00294d"]]
CONFIG: Any = {
    "displaylogo": False,
    "responsive": True,
    # Plotly 7 offers to send a figure to its makers; a study stays where it is.
    "plotlyServerURL": "",
    "modeBarButtonsToRemove": ["sendChartToCloud", "select2d", "lasso2d", "autoScale2d"],
}

_AXIS = {
    "showgrid": True,
    "gridcolor": RULE,
    "zeroline": False,
    "showline": True,
    "linecolor": GREY,
    "ticks": "outside",
    "tickcolor": GREY,
    "automargin": True,
    "title": {"standoff": 10, "font": {"size": 13}},
}
_TEMPLATE = go.layout.Template(
    layout={
        "autosize": True,
        "margin": {"l": 20, "r": 20, "t": 44, "b": 40},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#b5b5b5", "activecolor": INK},
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hoverlabel": {"font": {"family": FONT}},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
    }
)


def draw_result(rows: Sequence[ResultRow], metric: str) -> go.Figure:
    """Means with intervals, seeds as open points, the same seed joined from row to row."""
    figure = go.Figure()
    labels = [_escape(shorten(row.label, 44)) for row in rows]
    for start, end in seed_pairs(rows):
        figure.add_scatter(
            x=[to_axis(start, metric), to_axis(end[1], metric)],
            y=[0, end[0]],
            mode="lines",
            line={"color": "#cccccc", "width": 1},
            showlegend=False,
            hoverinfo="skip",
        )
    figure.add_scatter(
        x=[to_axis(value, metric) for row in rows for value in row.values],
        y=[place for place, row in enumerate(rows) for _ in row.values],
        mode="markers",
        marker={"symbol": "circle-open", "size": 8, "color": GREY, "line": {"width": 1.5}},
        name="one seed (the same seed joined)",
        customdata=[row.seeds[i] for row in rows for i in range(len(row.values))],
        hovertemplate="seed %{customdata}: %{x:.4g}<extra></extra>",
    )
    means = [to_axis(row.mean, metric) for row in rows]
    figure.add_scatter(
        x=means,
        y=[place - 0.18 for place in range(len(rows))],
        mode="markers+text",
        text=[value_text(row.mean, metric) for row in rows],
        textposition="top center",
        textfont={"size": 13, "color": INK},
        marker={"symbol": "diamond", "size": 11, "color": BLUE},
        error_x=_interval_bars(rows, means, metric),
        name="mean, 95 % interval over seeds",
        hovertemplate="mean %{x:.4g}<extra></extra>",
    )
    figure.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=labels,
        range=[len(rows) - 0.5, -0.75],
        showgrid=False,
        ticks="",
    )
    figure.update_xaxes(title_text=_metric_title(metric, "on the test fold"))
    return _finish(figure, height=130 + 75 * len(rows))


def draw_best_so_far(data: BestSoFar, metric: str) -> go.Figure:
    """Trials in order with the best complete value so far; failures as ticks at the bottom."""
    figure = go.Figure()
    last = max([point.number for point in data.points] + data.failed, default=0)
    steps = [*data.best, (last, data.best[-1][1])] if data.best else []
    figure.add_scatter(
        x=[number for number, _ in steps],
        y=[to_axis(value, metric) for _, value in steps],
        mode="lines",
        line={"color": INK, "width": 2, "shape": "hv"},
        name="best complete trial so far",
        hoverinfo="skip",
    )
    for state, words in (("COMPLETE", "complete"), ("PRUNED", "stopped early, last value")):
        points = [point for point in data.points if point.state == state]
        if points:
            figure.add_scatter(
                x=[point.number for point in points],
                y=[to_axis(point.value, metric) for point in points],
                mode="markers",
                marker=_marker(state),
                name=words,
                customdata=[point.epoch for point in points],
                hovertemplate="trial %{x}: %{y:.4g} at epoch %{customdata}<extra></extra>",
            )
    if data.failed:
        low = min((to_axis(point.value, metric) for point in data.points), default=0)
        figure.add_scatter(
            x=data.failed,
            y=[low] * len(data.failed),
            mode="markers",
            marker=_marker("FAIL"),
            name="failed (no value)",
            hovertemplate="trial %{x} failed<extra></extra>",
        )
    figure.update_xaxes(title_text="trial (number)", tickformat="d", range=[-0.5, last + 0.5])
    figure.update_yaxes(title_text=_metric_title(metric, "on the selection fold"))
    return _finish(figure, height=360)


def draw_learning_curves(curves: Sequence[Curve], metric: str) -> go.Figure:
    """One line a trial; the best one bold, those stopped early dashed."""
    figure = go.Figure()
    named: set[str] = set()
    for curve in curves:
        group = "best" if curve.is_best else curve.state
        words = f"trial {curve.number}, selected" if curve.is_best else STATE_WORDS[curve.state]
        color = INK if curve.is_best else STATE_COLORS.get(curve.state, GREY)
        figure.add_scatter(
            x=curve.epochs,
            y=[to_axis(value, metric) for value in curve.values],
            mode="lines+markers" if len(curve.epochs) < 40 else "lines",
            line={
                "color": color,
                "width": 3 if curve.is_best else 1.4,
                "dash": STATE_DASHES.get(curve.state, "solid"),
            },
            marker={**_marker(curve.state), "size": 7 if curve.is_best else 5, "color": color},
            opacity=1 if curve.is_best else 0.75,
            name=words,
            legendgroup=group,
            showlegend=group not in named,
            hovertemplate=f"trial {curve.number}, epoch %{{x}}: %{{y:.4g}}<extra></extra>",
        )
        named.add(group)
    longest = max((curve.epochs[-1] for curve in curves), default=1)
    figure.update_xaxes(title_text="epoch (number)", tickformat="d")
    if longest <= 20:
        figure.update_xaxes(dtick=1, range=[0.7, longest + 0.3])
    figure.update_yaxes(title_text=_metric_title(metric, "on the selection fold"))
    return _finish(figure, height=400)


def draw_importance(data: Importance) -> go.Figure:
    """Shares as bars, most important on top, with the spread over resampled trials."""
    names = short_names(data.names)
    figure = go.Figure(
        go.Bar(
            x=data.shares,
            y=[_escape(shorten(names[name], 40)) for name in data.names],
            orientation="h",
            marker={"color": BLUE},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [max(h - s, 0) for h, s in zip(data.high, data.shares, strict=True)],
                "arrayminus": [max(s - w, 0) for w, s in zip(data.low, data.shares, strict=True)],
                "color": INK,
                "thickness": 1.2,
            },
            hovertemplate="%{y}: %{x:.2f}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="", type="category")
    figure.update_xaxes(title_text="share of importance (fractions, summing to 1)", range=[0, 1])
    return _finish(figure, height=110 + 34 * len(data.names))


def draw_parallel(data: Comparable, axes: Sequence[Axis], metric: str, *, goal: str) -> go.Figure:
    """One line a trial through its parameters to the metric; drag along an axis to filter."""
    names = short_names([axis.name for axis in axes])
    values = [to_axis(value, metric) for value in data.values]
    low, high = min(values), max(values)
    pad = (high - low or 1) * 0.03
    dimensions = [
        {
            "label": _escape(_in_lines(names[axis.name])),
            "values": axis.positions,
            "range": [axis.low, axis.high],
            **_dimension_ticks(axis),
        }
        for axis in axes
    ]
    dimensions.append(
        {
            "label": f"{_escape(shorten(metric, 24))}<br>at epoch {data.epoch}{unit_of(metric)}",
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
            labelfont={"size": 12, "color": INK},
            tickfont={"size": 11, "color": INK},
            rangefont={"size": 1, "color": "rgba(0,0,0,0)"},
        )
    )
    return _finish(figure, height=430).update_layout(margin={"l": 70, "r": 90, "t": 90, "b": 30})


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
        for state in ("COMPLETE", "PRUNED"):
            chosen = [index for index, each in enumerate(states) if each == state]
            figure.add_scatter(
                x=[axis.positions[index] for index in chosen],
                y=[to_axis(data.values[index], metric) for index in chosen],
                mode="markers",
                marker=_marker(state),
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
            title_text=_escape(_in_lines(names[axis.name])) + scale,
            title_font_size=12,
            range=[axis.low - pad, axis.high + pad],
            row=row,
            col=column,
            **_dimension_ticks(axis, nticks=5),
        )
    figure.update_yaxes(
        title_text=_escape(shorten(metric, 28)) + unit_of(metric), col=1, title_font_size=12
    )
    return _finish(figure, height=90 + 235 * num_rows)


def draw_pictures(data: Pictures, top: int = 8) -> go.Figure:
    """Clips as rows; input, corrupted and reconstructed as columns of one colour scale."""
    num_rows = min(top, len(data.labels))
    figure = make_subplots(
        rows=num_rows,
        cols=len(PANELS),
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.012,
        vertical_spacing=0.1 / max(num_rows, 1),
        column_titles=[name.capitalize() for name in PANELS],
    )
    seconds = (data.hop_ms or 0) / 1000
    column_width = data.frames_per_column * (seconds or 1)
    for row in range(num_rows):
        for column, panel_BFT in enumerate(data.panels):
            figure.add_heatmap(
                z=panel_BFT[row],
                x0=0,
                dx=column_width,
                coloraxis="coloraxis",
                hovertemplate="time %{x}, mel bin %{y}<extra></extra>",
                row=row + 1,
                col=column + 1,
            )
        figure.update_yaxes(
            title={"text": _picture_label(data, row), "font": {"size": 11}, "standoff": 4},
            row=row + 1,
            col=1,
        )
    figure.update_yaxes(showgrid=False, nticks=3, tickfont_size=10)
    figure.update_xaxes(showgrid=False, tickfont_size=10)
    unit = "s" if seconds else "frames"
    figure.update_xaxes(title_text=f"time ({unit})", title_font_size=12, row=num_rows)
    middle = (data.low + data.high) / 2
    figure.update_layout(
        coloraxis={
            "colorscale": COLOR_SCALE,
            "cmin": 0,
            "cmax": LEVELS,
            "colorbar": {
                "title": {"text": "log-mel (as the encoder sees it)", "side": "right"},
                "tickvals": [0, LEVELS / 2, LEVELS],
                "ticktext": [f"{level:.1f}" for level in (data.low, middle, data.high)],
                "thickness": 12,
                "outlinewidth": 0,
            },
        }
    )
    return _finish(figure, height=90 + 118 * num_rows).update_layout(margin={"t": 56})


def _metric_title(metric: str, where: str) -> str:
    """The metric's axis title; long names break before the place that is meant."""
    name = shorten(metric, 40)
    return f"{_escape(name)}{'<br>' if len(name) > 18 else ' '}{where}{unit_of(metric)}"


def _picture_label(data: Pictures, row: int) -> str:
    error = data.masked_error[row]
    text = _escape(shorten(data.labels[row], 18))
    return text if error is None else f"{text}<br>error {error:.2f}"


def _interval_bars(rows: Sequence[ResultRow], means: Sequence[float], metric: str) -> dict:
    low = [to_axis(row.interval[0], metric) if row.interval else None for row in rows]
    high = [to_axis(row.interval[1], metric) if row.interval else None for row in rows]
    return {
        "type": "data",
        "symmetric": False,
        "array": [0 if h is None else h - m for h, m in zip(high, means, strict=True)],
        "arrayminus": [0 if w is None else m - w for w, m in zip(low, means, strict=True)],
        "color": BLUE,
        "thickness": 2,
        "width": 6,
    }


def _marker(state: str) -> dict:
    return {
        "color": STATE_COLORS.get(state, GREY),
        "symbol": STATE_SYMBOLS.get(state, "circle-open"),
        "size": 9,
        "line": {"width": 2 if state in ("PRUNED", "FAIL") else 0},
    }


def _dimension_ticks(axis: Axis, **otherwise: object) -> dict:
    if axis.ticks is None:
        return dict(otherwise)
    return {
        "tickvals": [place for place, _ in axis.ticks],
        "ticktext": [_escape(shorten(text, 16)) for _, text in axis.ticks],
    }


def _in_lines(name: str, separator: str = ".") -> str:
    """A name over two lines at its last separator, as column heads are narrow."""
    head, found, tail = name.rpartition(separator)
    return f"{shorten(head, 24)}{found}<br>{shorten(tail, 24)}" if found else shorten(tail, 24)


def _escape(text: str) -> str:
    """Text that Plotly shows as it stands; our own line breaks are kept."""
    return "<br>".join(html.escape(part, quote=False) for part in text.split("<br>"))


def _finish(figure: go.Figure, height: int) -> go.Figure:
    return figure.update_layout(template=_TEMPLATE, height=height)
