"""The commands `asit sweep run` and `asit sweep export`."""

import csv
import io
import json
import shlex
import sys
from contextlib import redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from asit_platform.cli import call_command
from asit_platform.spec import SweepSpec, load_sweep
from asit_platform.study import trial
from asit_platform.study.run import describe_result, run_sweep
from asit_platform.study.search import TrialFunctions
from asit_platform.study.store import STUDY_DB, export_rows, find_study, open_study
from asit_platform.yaml_file import format_yaml

INTERRUPTED = 130

app = typer.Typer(no_args_is_help=True, help="Search a space of configurations.")

ResultsOption = Annotated[Path, typer.Option("--results", help="Folder that holds the studies.")]


class Format(StrEnum):
    """How `export` writes."""

    JSON = "json"
    CSV = "csv"
    YAML = "yaml"


@app.command()
def run(
    spec_file: Annotated[Path, typer.Argument(metavar="SPEC", help="The sweep's YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", "-S", metavar="KEY=VALUE", help="Set a key of SPEC; repeatable."),
    ] = None,
    results: ResultsOption = Path("results"),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Start without asking.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Run a sweep, or go on with it: search, select, measure once on the test fold, report."""
    spec = load_sweep(spec_file, overrides or [], results_dir=results)
    console = Console(stderr=True)
    if not yes and sys.stdin.isatty() and console.is_terminal:
        typer.confirm(_describe_plan(spec, results), default=True, abort=True, err=True)
    try:
        outcome = run_sweep(spec, results_dir=results, functions=FUNCTIONS, console=console)
    except KeyboardInterrupt:
        again = _command(spec_file, overrides or [], results)
        typer.echo(f"interrupted; this goes on: {again}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    # The report's own line says where it is; under --json it must not mix with the result.
    with redirect_stdout(sys.stderr) if as_json else redirect_stdout(sys.stdout):
        if not as_json:
            typer.echo("\n".join(describe_result(outcome)))
        call_command(
            "report", str(outcome.folder), "--out", str(_relative(outcome.folder / "report.html"))
        )
    if as_json:
        typer.echo(json.dumps(outcome.result, indent=2, ensure_ascii=False))


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="Name of a study in --results, or its folder.")],
    output_format: Annotated[Format, typer.Option("--format", help="How to write.")] = Format.JSON,
    results: ResultsOption = Path("results"),
) -> None:
    """List a study's trials: params, seed, state and value."""
    rows = export_rows(open_study(find_study(results, name)))
    match output_format:
        case Format.JSON:
            text = json.dumps(rows, indent=2, ensure_ascii=False)
        case Format.YAML:
            text = format_yaml({"trials": rows})
        case Format.CSV:
            text = _format_csv(rows)
    typer.echo(text.rstrip("\n"))


FUNCTIONS = TrialFunctions(
    run_trial=trial.run_trial,
    run_untrained=trial.run_untrained,
    run_log_mel_statistics=trial.run_log_mel_statistics,
)


def _describe_plan(spec: SweepSpec, results: Path) -> str:
    folder = results / spec.name
    done = 0
    if (folder / STUDY_DB).is_file():
        done = sum(row.state not in ("RUNNING", "WAITING") for row in open_study(folder).trials)
    goes_on = f" ({done} of them are done)" if done else ""
    epochs = spec.resolve({}).pretrain.epochs
    measured = 2 * spec.result.seeds + 1
    return (
        f"{spec.name}: {spec.search.num_samples} trials{goes_on} of up to {epochs} epochs, then "
        f"{measured} runs measured on test fold {spec.split.test}. Start?"
    )


def _command(spec_file: Path, overrides: list[str], results: Path) -> str:
    words = ["asit", "sweep", "run", str(spec_file)]
    for override in overrides:
        words += ["-S", override]
    return shlex.join([*words, "--results", str(results)])


def _relative(path: Path) -> Path:
    """A path as the user would write it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _format_csv(rows: list[dict[str, Any]]) -> str:
    paths = list(dict.fromkeys(path for row in rows for path in row["params"]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    last = ["seed", "state", "value", "transductive"]
    writer.writerow(["number", *paths, *last])
    for row in rows:
        params = [row["params"].get(path) for path in paths]
        writer.writerow([row["number"], *params, *(row[name] for name in last)])
    return text.getvalue()
