"""`asit data check` and `asit data show`: read a dataset folder, change nothing in it."""

import json
import time
from typing import Annotated

import typer

from asit_platform.data.check import CheckReport, check_dataset
from asit_platform.data.progress import progress_bar
from asit_platform.errors import PlatformError
from asit_platform.words import duration_text, plural

_Folder = Annotated[
    str, typer.Argument(help="Dataset folder, or its s3:// or gs:// URL.", show_default=False)
]


def check(
    folder: _Folder,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Read every shard in full: content hashes, columns, clips and finite values."""
    started = time.monotonic()
    with progress_bar("checking", unit="shards") as bar:
        report = check_dataset(folder, bar)
    if as_json:
        _print_json(report)
        raise typer.Exit(2 if report.faults else 0)
    if report.faults:
        raise PlatformError("\n".join([_count(report), *report.faults]))
    typer.echo(
        f"{report.info.folder}: whole: {plural(len(report.info.shards), 'shard')}, "
        f"{plural(report.info.num_clips, 'clip')}, {report.num_bytes / 1e6:,.1f} MB read in "
        f"{duration_text(time.monotonic() - started)}"
    )


def _count(report: CheckReport) -> str:
    return (
        f"{report.info.folder}: must be whole, but {plural(len(report.faults), 'fault')} "
        f"{'was' if len(report.faults) == 1 else 'were'} found; build it again, or copy it again "
        "from where it is whole"
    )


def _print_json(report: CheckReport) -> None:
    values = {
        "folder": str(report.info.folder),
        "num_shards": len(report.info.shards),
        "num_clips": report.info.num_clips,
        "num_bytes": report.num_bytes,
        "faults": list(report.faults),
    }
    typer.echo(json.dumps(values))
