"""Drawings of the result and of the trials in time: data in, Plotly figure out, nothing added."""

from collections.abc import Sequence

import plotly.graph_objects as go

from asit_dashboards.figures import BestSoFar, Curve, ResultRow, seed_pairs
from asit_dashboards.importance import Importance
from asit_dashboards.look import (
    BLUE,
    GREY,
    INK,
    STATE_COLORS,
    STATE_DASHES,
    escape,
    finish,
    marker_of,
    metric_title,
)
from asit_dashboards.words import STATE_WORDS, shorten, to_axis, value_text
from asit_platform.words import short_names


def draw_result(rows: Sequence[ResultRow], metric: str) -> go.Figure:
    """Means with intervals, seeds as open points, the same seed joined from row to row."""
    figure = go.Figure()
    labels = [escape(shorten(row.label, 44)) for row in rows]
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
    figure.update_xaxes(title_text=metric_title(metric, "on the test fold"))
    return finish(figure, height=130 + 75 * len(rows))


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
                marker=marker_of(state),
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
            marker=marker_of("FAIL"),
            name="failed (no value)",
            hovertemplate="trial %{x} failed<extra></extra>",
        )
    figure.update_xaxes(title_text="trial (number)", tickformat="d", range=[-0.5, last + 0.5])
    if last <= 20:
        figure.update_xaxes(dtick=1)
    figure.update_yaxes(title_text=metric_title(metric, "on the selection fold"))
    return finish(figure, height=360)


def draw_learning_curves(curves: Sequence[Curve], metric: str) -> go.Figure:
    """One line a trial; the best one bold, those stopped early dashed."""
    figure = go.Figure()
    named: set[str] = set()
    for curve in curves:
        group = "best" if curve.is_best else curve.state
        words = f"trial {curve.number}, the best" if curve.is_best else STATE_WORDS[curve.state]
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
            marker={**marker_of(curve.state), "size": 7 if curve.is_best else 5, "color": color},
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
    figure.update_yaxes(title_text=metric_title(metric, "on the selection fold"))
    return finish(figure, height=400)


def draw_importance(data: Importance) -> go.Figure:
    """Shares as bars, most important on top, with the spread over resampled trials."""
    names = short_names(data.names)
    figure = go.Figure(
        go.Bar(
            x=data.shares,
            y=[escape(shorten(names[name], 40)) for name in data.names],
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
    return finish(figure, height=110 + 34 * len(data.names))


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
