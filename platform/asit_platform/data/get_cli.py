"""`asit data get`: fetch a public data set and unpack it where `asit data prepare` can read it."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from asit_platform.data.archives import (
    ESC50,
    SPEECH_COMMANDS_V1,
    SPEECH_COMMANDS_V1_TEST,
    SPEECH_COMMANDS_V2,
    Archive,
)
from asit_platform.data.download import fetch
from asit_platform.data.unpack import unpack

app = typer.Typer(
    help="Fetch a public data set: with checksums, and going on where a download broke off.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Root = Annotated[
    Path, typer.Option(help="Folder to put the data set's folder in.", show_default=False)
]
_Mirror = Annotated[
    str | None, typer.Option(help="URL of a folder with the same archives, instead of the origin.")
]


@app.command()
def esc50(root: _Root, mirror: _Mirror = None) -> None:
    """ESC-50: 2,000 recordings of five seconds, 50 classes, 0.6 GB (CC BY-NC)."""
    (folder,) = get([ESC50], root, mirror=mirror)
    _say("esc50", "--root", str(folder))


@app.command("speech-commands")
@app.command("speech_commands", hidden=True)
def speech_commands(
    root: _Root,
    version: Annotated[
        Literal["v1", "v2"],
        typer.Option(help="v2: 35 classes, 2.4 GB; v1: 12 classes and its test set, 1.6 GB."),
    ] = "v2",
    mirror: _Mirror = None,
) -> None:
    """Speech Commands: spoken words of one second (CC BY)."""
    if version == "v2":
        (folder,) = get([SPEECH_COMMANDS_V2], root, mirror=mirror)
        _say("speech-commands", "--root", str(folder))
    else:
        archives = [SPEECH_COMMANDS_V1, SPEECH_COMMANDS_V1_TEST]
        folder, test = get(archives, root, mirror=mirror)
        flags = ["--version", "v1", "--root", str(folder), "--test-root", str(test)]
        _say("speech-commands", *flags)


def get(archives: Sequence[Archive], root: Path, *, mirror: str | None = None) -> list[Path]:
    """Fetch and unpack archives whose folders are not there yet.

    Args:
        archives: What to get.
        root: Where to put the folders.
        mirror: URL of a folder that holds the same archives under the same names.

    Returns:
        The folders.

    Raises:
        PlatformError: If one cannot be fetched, is damaged or cannot be written.
    """
    return [_get_one(archive, root, mirror) for archive in archives]


def _get_one(archive: Archive, root: Path, mirror: str | None) -> Path:
    folder = root / archive.folder
    if folder.is_dir():
        return folder
    if mirror is not None:
        archive = replace(archive, url=f"{mirror.rstrip('/')}/{archive.url.rpartition('/')[2]}")
    with _byte_bar() as bar:
        task = bar.add_task(archive.file_name, total=None)

        def show(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        path = fetch(archive, root, show)
    return unpack(archive, path, root)


def _byte_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, quiet=not sys.stderr.isatty()),
        transient=True,
    )


def _say(*command: str) -> None:
    typer.echo(f"next: asit data prepare {shlex.join(command)} --out DIR")
