"""What a page is made of; `sections.py` fills it, `report.py` and `app.py` show it."""

from dataclasses import dataclass, field

import plotly.graph_objects as go

# Cells longer than this may break over lines.
LONG_CELL = 40


@dataclass(frozen=True)
class Table:
    """Cells as text.

    Attributes:
        sort_keys: What each cell sorts by, where that is not its text; "" sorts last.
        marked_row: The row to point out.
    """

    columns: list[str]
    rows: list[list[str]]
    caption: str = ""
    sort_keys: list[list[object]] | None = None
    marked_row: int | None = None


@dataclass(frozen=True)
class Section:
    """A heading, sentences, and what there is to look at."""

    key: str
    title: str
    sentences: list[str]
    figure: go.Figure | None = None
    table: Table | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Page:
    """Everything a reader sees of a study."""

    name: str
    question: str
    facts: list[tuple[str, str]]
    warnings: list[str]
    sections: list[Section]
