"""The live page, asked as a browser asks it, without a browser."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from dash import Dash

from asit_dashboards.app import create_app

OUTPUTS = "..studies.children...page.children...shown.data.."


def ask(app: Dash, search: str, shown: str | None = None) -> dict[str, Any] | None:
    """The callback's answer, or None where nothing has changed."""
    body = {
        "output": OUTPUTS,
        "outputs": [
            {"id": name, "property": kind}
            for name, kind in (("studies", "children"), ("page", "children"), ("shown", "data"))
        ],
        "inputs": [
            {"id": "address", "property": "search", "value": search},
            {"id": "clock", "property": "n_intervals", "value": 1},
        ],
        "state": [{"id": "shown", "property": "data", "value": shown}],
        "changedPropIds": ["clock.n_intervals"],
    }
    answer = app.server.test_client().post("/_dash-update-component", json=body)
    assert answer.status_code in (200, 204), answer.data
    return answer.get_json() if answer.status_code == 200 else None


def shown_text(answer: dict[str, Any] | None) -> str:
    assert answer is not None
    return json.dumps(answer["response"]["page"], ensure_ascii=False)


@pytest.fixture
def app(study_folder: Path) -> Dash:
    return create_app(study_folder.parent)


def test_it_shows_the_same_figures_as_the_report(app: Dash) -> None:
    answer = ask(app, "")
    text = shown_text(answer)
    keys = ("result", "best", "curves", "importance", "parallel", "slices", "pictures")
    assert all(f'"figure-{key}"' in text for key in keys)
    assert "12 of 12: 6 complete, 5 stopped early, 1 failed" in text
    assert answer is not None
    assert "?study=quickstart" in json.dumps(answer["response"]["studies"])


def test_nothing_is_sent_again_while_nothing_has_changed(app: Dash) -> None:
    answer = ask(app, "?study=quickstart")
    assert answer is not None
    assert ask(app, "?study=quickstart", shown=answer["response"]["shown"]["data"]) is None


@pytest.mark.parametrize("name", ["nothing", "..", "../quickstart", "/etc", "%2e%2e%2fquickstart"])
def test_only_listed_studies_are_reached(app: Dash, name: str) -> None:
    assert "No study of that name here" in shown_text(ask(app, f"?study={name}"))


def test_a_folder_without_studies_says_so(tmp_path: Path) -> None:
    assert "No study here yet" in shown_text(ask(create_app(tmp_path), ""))


def test_a_storage_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "study.db").write_text("no database")
    assert "cannot be read as a study" in shown_text(ask(create_app(tmp_path), ""))


def test_every_script_comes_from_this_machine(app: Dash) -> None:
    page = app.server.test_client().get("/").get_data(as_text=True)
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith("/") for source in sources)
