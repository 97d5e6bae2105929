"""One look for all figures: colours, axes, and how names from a study are written on them.

States differ by colour, by marker and by dash, so the figures survive grey print and colour
blindness (Okabe-Ito colours, Viridis maps). Names from the study are escaped: Plotly reads a
little HTML in its texts.
"""

import html
from typing import Any

import plotly.graph_objects as go

from asit_dashboards.figures import Axis
from asit_dashboards.words import shorten, unit_of

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


def finish(figure: go.Figure, height: int) -> go.Figure:
    """Give a figure the common look and its height in pixels."""
    return figure.update_layout(template=_TEMPLATE, height=height)


def marker_of(state: str) -> dict[str, Any]:
    """The marker of a trial's state."""
    return {
        "color": STATE_COLORS.get(state, GREY),
        "symbol": STATE_SYMBOLS.get(state, "circle-open"),
        "size": 9,
        "line": {"width": 2 if state in ("PRUNED", "FAIL") else 0},
    }


def metric_title(metric: str, where: str) -> str:
    """The metric's axis title; long names break before the place that is meant."""
    name = shorten(metric, 40)
    return f"{escape(name)}{'<br>' if len(name) > 18 else ' '}{where}{unit_of(metric)}"


def axis_ticks(axis: Axis, *, escaped: bool = True) -> dict[str, Any]:
    """Ticks for an axis whose positions are not its values; empty where Plotly's own will do."""
    if axis.ticks is None:
        return {}
    texts = [shorten(text, 16) for _, text in axis.ticks]
    return {
        "tickvals": [place for place, _ in axis.ticks],
        "ticktext": [escape(text) for text in texts] if escaped else texts,
    }


def in_lines(name: str, width: int = 24) -> str:
    """A name over two lines at its last dot, or else underscore, where one would be too wide."""
    if len(name) <= width // 2:
        return name
    separator = "." if "." in name else "_"
    head, found, tail = name.rpartition(separator)
    if not found:
        return shorten(name, width)
    first = head + found if len(head) <= width else shorten(head, width)
    return f"{first}<br>{shorten(tail, width)}"


def escape(text: str) -> str:
    """Text that Plotly shows as it stands; our own line breaks are kept."""
    return "<br>".join(html.escape(part, quote=False) for part in text.split("<br>"))
