"""A study's page as one HTML file that opens with the network off.

The same results give the same bytes: nothing here reads the clock, the machine or the folder's
place. The page's own policy forbids every request, so what is not in the file cannot be shown.
"""

import html
import re
from pathlib import Path

from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs

from asit_dashboards.look import CONFIG
from asit_dashboards.page import LONG_CELL, Page, Section, Table
from asit_dashboards.sections import build_page
from asit_dashboards.style import SCRIPT, STYLE
from asit_platform.errors import PlatformError
from asit_platform.study.store import StudyView
from asit_platform.whole_files import write_whole

# Plotly draws parallel coordinates with code made at run time, hence 'unsafe-eval'.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)


def write_report(view: StudyView, out: Path) -> Path:
    """Write the report of a study, whole or not at all.

    Args:
        view: The study at this moment.
        out: The file; its folder is made if it is not there.

    Raises:
        PlatformError: If the file cannot be written.
    """
    text = render(build_page(view))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, text)
    except OSError as error:
        reason = error.strerror or str(error)
        raise PlatformError(f"{out}: cannot be written: {reason}; choose another --out") from error
    return out


def render(page: Page) -> str:
    """The page as HTML text."""
    figures = [section for section in page.sections if section.figure is not None]
    name, question = html.escape(page.name), html.escape(page.question or page.name)
    warnings = "".join(f'<p class="warning">{html.escape(each)}</p>\n' for each in page.warnings)
    facts = "".join(
        f"<dt>{html.escape(term)}</dt><dd>{html.escape(words)}</dd>\n" for term, words in page.facts
    )
    plotly = f"<script>{get_plotlyjs()}</script>" if figures else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}: asit report</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<header>\n<h1>{question}</h1>\n<p class="study">Study <b>{name}</b></p>\n{warnings}'
        f"<dl>\n{facts}</dl>\n</header>\n"
        f"{''.join(_section(each) for each in page.sections)}"
        "<footer>Written by asit. This file holds everything it shows.</footer>\n</main>\n"
        f"{plotly}\n{''.join(_figure_data(each) for each in figures)}"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    parts = [f'<section id="{section.key}">\n<h2>{html.escape(section.title)}</h2>\n']
    parts += [f"<p>{html.escape(sentence)}</p>\n" for sentence in section.sentences]
    if section.figure is not None:
        height = section.figure.layout["height"]
        parts.append(
            f'<div class="figure" id="figure-{section.key}" style="min-height:{height}px">'
            "<noscript>This figure needs JavaScript.</noscript></div>\n"
        )
    parts += [f'<p class="note">{html.escape(note)}</p>\n' for note in section.notes]
    if section.table is not None:
        if section.key == "trials":
            parts.append('<p class="note">Click a heading to sort.</p>\n')
        parts.append(_table(section.table, sortable=section.key == "trials"))
    return "".join([*parts, "</section>\n"])


def _table(table: Table, *, sortable: bool) -> str:
    caption = f"<caption>{html.escape(table.caption)}</caption>" if table.caption else ""
    heads = "".join(_head_cell(name, sortable=sortable) for name in table.columns)
    keys = table.sort_keys or table.rows
    lines = []
    for place, (row, row_keys) in enumerate(zip(table.rows, keys, strict=True)):
        mark = ' class="marked"' if place == table.marked_row else ""
        cells = "".join(_cell(text, key) for text, key in zip(row, row_keys, strict=True))
        lines.append(f"<tr{mark}>{cells}</tr>\n")
    return (
        f'<div class="wide"><table>{caption}<thead><tr>{heads}</tr></thead>\n'
        f"<tbody>\n{''.join(lines)}</tbody></table></div>\n"
    )


def _head_cell(name: str, *, sortable: bool) -> str:
    # Dotted names may break after their dots and underscores only.
    text = re.sub(r"([./_])", r"\1<wbr>", html.escape(name))
    inner = f'<button type="button">{text}</button>' if sortable else text
    return f'<th scope="col">{inner}</th>'


def _cell(text: str, key: object) -> str:
    length = ' class="long"' if len(text) > LONG_CELL else ""
    sort = "" if key == text else f' data-sort="{html.escape(str(key))}"'
    return f"<td{length}{sort}>{html.escape(text)}</td>"


def _figure_data(section: Section) -> str:
    # to_json_plotly escapes <, > and /, so no text of the study can end the script element.
    figure = section.figure.to_plotly_json() if section.figure is not None else {}
    text = to_json_plotly({**figure, "config": CONFIG})
    return f'<script type="application/json" data-figure="figure-{section.key}">{text}</script>\n'
