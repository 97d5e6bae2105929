"""The commands that this package brings: `asit report` and `asit dashboard`."""

import socket
from pathlib import Path
from typing import Annotated

import typer

from asit_dashboards.app import create_app, serve
from asit_dashboards.report import write_report
from asit_platform.errors import PlatformError
from asit_platform.study.store import find_study, open_study

HOST = "127.0.0.1"


def report(
    study: Annotated[str, typer.Argument(help="Name of a study in --results, or its folder.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file [default: beside the study].")
    ] = None,
    results: Annotated[Path, typer.Option(help="Folder that holds the studies.")] = Path("results"),
) -> None:
    """Write a study's report: one HTML file that opens offline."""
    folder = find_study(results, study)
    typer.echo(write_report(open_study(folder), out or folder / "report.html"))


def dashboard(
    results: Annotated[Path, typer.Argument(help="Folder that holds the studies.")] = Path(
        "results"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 8050,
) -> None:
    """Show the studies of a folder in the browser, on this machine only, until Ctrl-C."""
    if not results.is_dir():
        raise PlatformError(f"{results}: no such folder; name the one that holds the studies")
    _check_port(port)
    typer.echo(f"http://{HOST}:{port}/ shows the studies in {results}; Ctrl-C ends it")
    serve(create_app(results), host=HOST, port=port)


def _check_port(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the server does: a port that only waits out a closed connection is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PlatformError(
                f"--port {port} on {HOST} cannot be used: {error.strerror}; choose another --port"
            ) from error
