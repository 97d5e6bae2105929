"""The pages in a real Chromium: every figure drawn, no error in the console, no request outside."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from werkzeug.serving import make_server

from asit_dashboards.app import create_app
from asit_dashboards.report import write_report
from asit_platform.study.store import StudyView

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --enable-logging=stderr "
    "--enable-unsafe-swiftshader --virtual-time-budget=8000 --window-size=1300,4800"
).split()
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


class Seen(NamedTuple):
    """What the browser made of a page."""

    dom: str
    errors: list[str]
    addresses: set[str]


def visit(address: str, folder: Path) -> Seen:
    """Open a page, let its scripts run, and say what came of it."""
    assert CHROMIUM is not None
    log = folder / "net.json"
    done = subprocess.run(
        [CHROMIUM, *FLAGS, OFFLINE, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}",
         "--dump-dom", address],
        capture_output=True, text=True, check=True, timeout=240,
    )  # fmt: skip
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    errors = [line for line in console if "rror" in line or "Refused" in line]
    text = log.read_text(encoding="utf-8", errors="replace").rstrip().rstrip(",")
    events = json.loads(text if text.endswith("}") else text + "]}")["events"]
    asked = [event["params"] for event in events if "initiator" in event.get("params", {})]
    # Chromium itself looks for updates, whatever its flags; such requests have no origin.
    urls = {each["url"] for each in asked if each["initiator"] != "not an origin"}
    return Seen(done.stdout, errors, {url for url in urls if url.startswith("http")})


@pytest.fixture
def server(study_folder: Path) -> Iterator[str]:
    app = create_app(study_folder.parent)
    with make_server("127.0.0.1", 0, app.server, threaded=True) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()


def test_a_report_draws_every_figure_with_the_network_off(view: StudyView, tmp_path: Path) -> None:
    seen = visit(write_report(view, tmp_path / "report.html").as_uri(), tmp_path)
    assert seen.errors == []
    assert seen.addresses == set()
    assert seen.dom.count('class="figure js-plotly-plot"') == 7
    assert "stopped by asha at epoch 2" in seen.dom
    assert seen.dom.count('class="heatmaplayer') >= 24


def test_the_live_page_draws_every_figure(server: str, tmp_path: Path) -> None:
    seen = visit(server, tmp_path)
    assert seen.errors == []
    assert seen.dom.count("js-plotly-plot") == 7
    assert "Result on test fold 5" in seen.dom
    assert {url for url in seen.addresses if not url.startswith(server)} == set()
