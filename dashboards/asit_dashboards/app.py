"""The live page: a small Dash app that lists the studies of a folder and shows one of them.

It reads, never writes, and shows only what `list_studies` names: a name in the address is
looked up in that list, so no path outside the folder can be reached. A page is drawn anew only
when what is stored has changed.
"""

import hashlib
import logging
import re
from pathlib import Path
from urllib.parse import parse_qs, quote

from dash import Dash, Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate
from werkzeug.serving import make_server

from asit_dashboards.look import CONFIG
from asit_dashboards.page import LONG_CELL, Page, Section, Table
from asit_dashboards.sections import build_page
from asit_dashboards.style import STYLE
from asit_platform.errors import PlatformError
from asit_platform.study.store import StudyView, list_studies, open_study

REFRESH_S = 5
_INDEX = (
    "<!doctype html><html lang='en'><head>{%metas%}<title>{%title%}</title>{%css%}"
    f"<style>{STYLE}</style></head>"
    "<body>{%app_entry%}<footer>{%config%}{%scripts%}{%renderer%}</footer></body></html>"
)


def create_app(results: Path) -> Dash:
    """The app over the studies under `results`; all its scripts come from this machine."""
    app = Dash(__name__, title="asit", update_title="", index_string=_INDEX, serve_locally=True)
    app.layout = html.Main(
        [
            dcc.Location(id="address"),
            dcc.Interval(id="clock", interval=REFRESH_S * 1000),
            dcc.Store(id="shown"),
            html.Nav(id="studies"),
            html.Div(id="page"),
        ]
    )

    @app.callback(
        Output("studies", "children"),
        Output("page", "children"),
        Output("shown", "data"),
        Input("address", "search"),
        Input("clock", "n_intervals"),
        State("shown", "data"),
    )
    def show(search: str | None, _ticks: int | None, shown: str | None) -> tuple:  # pyright: ignore[reportUnusedFunction]
        folders = {folder.name: folder for folder in list_studies(results)}
        name = parse_qs((search or "").lstrip("?")).get("study", [next(iter(folders), "")])[0]
        mark, page = _read(folders, name, shown)
        if mark == shown:
            raise PreventUpdate
        return _links(list(folders), name), page, mark

    return app


def serve(app: Dash, *, host: str, port: int) -> None:
    """Serve until interrupted; neither a banner nor requests are printed."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with make_server(host, port, app.server, threaded=True) as server:
        server.serve_forever()


def _read(folders: dict[str, Path], name: str, shown: str | None) -> tuple[str, object]:
    """A mark of what is stored, and its page where the mark differs from what is shown."""
    if not folders:
        return "no studies", html.P("No study here yet: `asit sweep run SPEC` makes one.")
    if name not in folders:
        return f"unknown:{name}", html.P("No study of that name here; choose one above.")
    try:
        view = open_study(folders[name])
    except PlatformError as error:
        return f"error:{error}", html.P(str(error), className="warning")
    mark = f"{list(folders)}:{_mark(view)}"
    return mark, None if mark == shown else _page(build_page(view))


def _mark(view: StudyView) -> str:
    stored = repr((view.name, view.trials, view.result, view.spec))
    return hashlib.sha256(stored.encode()).hexdigest()


def _links(names: list[str], chosen: str) -> list:
    links: list = [html.B("Studies: ")] if names else []
    for name in names:
        style = {"fontWeight": 600} if name == chosen else {}
        links += [dcc.Link(name, href=f"?study={quote(name)}", style=style), " "]
    return links


def _page(page: Page) -> html.Div:
    facts = [part for term, words in page.facts for part in (html.Dt(term), html.Dd(words))]
    return html.Div(
        [
            html.H1(page.question or page.name),
            html.P(["Study ", html.B(page.name)], className="study"),
            *(html.P(warning, className="warning") for warning in page.warnings),
            html.Dl(facts),
            *(_section(section, page.name) for section in page.sections),
        ]
    )


def _section(section: Section, study: str) -> html.Section:
    parts: list = [html.H2(section.title), *(html.P(each) for each in section.sentences)]
    if section.figure is not None:
        # The same revision from one update to the next keeps the reader's zoom and selection.
        figure = section.figure.update_layout(uirevision=study)
        parts.append(
            dcc.Graph(
                id=f"figure-{section.key}",
                figure=figure,
                config=CONFIG,
                className="figure",
                style={"height": figure.layout["height"]},
            )
        )
    parts += [html.P(note, className="note") for note in section.notes]
    if section.table is not None:
        parts.append(_table(section.table))
    return html.Section(parts, id=section.key)


def _table(table: Table) -> html.Div:
    rows = [
        html.Tr(
            [html.Td(cell, className="long" if len(cell) > LONG_CELL else "") for cell in row],
            className="marked" if place == table.marked_row else "",
        )
        for place, row in enumerate(table.rows)
    ]
    head = html.Thead(html.Tr([html.Th(_breakable(name)) for name in table.columns]))
    caption = [html.Caption(table.caption)] if table.caption else []
    return html.Div(html.Table([*caption, head, html.Tbody(rows)]), className="wide")


def _breakable(name: str) -> list:
    """A heading that may break after its dots and underscores, as in the report."""
    pieces = re.split(r"(?<=[./_])", name)
    return [part for piece in pieces for part in (piece, html.Wbr())][:-1]
