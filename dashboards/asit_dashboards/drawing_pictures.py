"""The drawing of a trial's pictures: what the network was given and what it filled in."""

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from asit_dashboards.look import COLOR_SCALE, escape, finish
from asit_dashboards.pictures import LEVELS, Pictures
from asit_dashboards.words import shorten


def draw_pictures(data: Pictures, top: int = 8) -> go.Figure:
    """Clips as rows; input, corrupted and reconstructed as columns of one colour scale."""
    num_rows = min(top, len(data.labels))
    figure = make_subplots(
        rows=num_rows,
        cols=len(data.names),
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.012,
        vertical_spacing=0.1 / max(num_rows, 1),
        column_titles=[name.capitalize() for name in data.names],
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
    return finish(figure, height=90 + 118 * num_rows).update_layout(margin={"t": 56})


def _picture_label(data: Pictures, row: int) -> str:
    error = data.masked_error[row]
    text = escape(shorten(data.labels[row], 18))
    return text if error is None else f"{text}<br>error {error:.2f}"
