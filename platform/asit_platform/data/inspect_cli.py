"""`asit data check` and `asit data show`: read a dataset folder, change nothing in it."""

import json
import time
from typing import Annotated

import typer

from asit_platform.data.check import CheckReport, check_dataset
from asit_platform.data.progress import progress_bar
from asit_platform.data.show import Overview, look_at
from asit_platform.data.show_page import render
from asit_platform.data.summary import summary_lines
from asit_platform.errors import PlatformError
from asit_platform.storage import Place
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


def show(
    folder: _Folder,
    out: Annotated[str, typer.Option(help="HTML file to write.")] = "show.html",
) -> None:
    """Say what a dataset holds, and write a page with counts, spectrograms and sounds."""
    overview = look_at(folder)
    summary = summary_lines(overview.info)
    place = Place.of(out)
    try:
        place.parent.mkdir()
        place.write_whole(render(overview, summary))
    except OSError as error:
        raise PlatformError(f"{place}: --out must be writable, but {error}") from error
    for line in (*summary, *_more(overview), f"written: {place}"):
        typer.echo(line)


def _more(overview: Overview) -> list[str]:
    shortest_s, median_s, longest_s, _ = overview.durations
    lines = [f"durations: {shortest_s:.2f} s to {longest_s:.2f} s, median {median_s:.2f} s"]
    if overview.class_counts:
        (most, count), (least, few) = overview.class_counts[0], overview.class_counts[-1]
        lines.append(f"clips of a class: {few:,} ({least}) to {count:,} ({most})")
    folds = ", ".join(f"{fold.name} {fold.num_clips:,}" for fold in overview.folds)
    return [*lines, f"clips of a fold: {folds}"]
