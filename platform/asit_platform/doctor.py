"""`asit doctor`: what this machine has, what is missing, and the command that mends it.

Everything is imported while it is checked: the doctor must open its door when Ray or torch
cannot be imported.
"""

import importlib
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer
from packaging.requirements import Requirement

MIN_FREE_GIB = 2.0
_INSTALL = "in a clone of the repository: `make setup`, or pip install '.[platform,dashboards]'"
_MARKS = {"good": "ok     ", "note": "note   ", "bad": "MISSING"}


class Finding(NamedTuple):
    """One line of the report; a `bad` one makes the exit code 1."""

    topic: str
    state: Literal["good", "note", "bad"]
    text: str
    remedy: str | None = None


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Versions, devices, Ray's resources, disk space; what is missing and how to mend it."""
    findings = examine()
    healthy = all(finding.state != "bad" for finding in findings)
    if as_json:
        content = {"healthy": healthy, "findings": [finding._asdict() for finding in findings]}
        typer.echo(json.dumps(content, indent=2))
    else:
        for finding in findings:
            typer.echo(f"{_MARKS[finding.state]} {finding.topic}: {finding.text}")
            if finding.remedy is not None:
                typer.echo(f"        -> {finding.remedy}")
    raise typer.Exit(0 if healthy else 1)


def examine() -> list[Finding]:
    """All findings; a check that fails in a way nobody foresaw is itself a finding."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python,
        _packages,
        _commands,
        _devices,
        _sound_formats,
        _disk,
        _ray,
    ]
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check()
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            findings.append(Finding(check.__name__.strip("_"), "bad", reason, _INSTALL))
    return findings


def _python() -> Iterator[Finding]:
    text = f"{platform.python_version()} at {sys.executable}, {platform.platform()}"
    yield Finding("python", "good", text)
    yield Finding("asit", "good", version("asit"))


def _packages() -> Iterator[Finding]:
    """Each distribution that asit asks for, apart from the tools of its developers."""
    seen: set[str] = set()
    for extra in ("", "platform", "dashboards"):
        for requirement in map(Requirement, requires("asit") or []):
            marker = requirement.marker
            is_wanted = marker is None or marker.evaluate({"extra": extra})
            if is_wanted and requirement.name not in seen:
                seen.add(requirement.name)
                yield _package(requirement, is_optional=extra == "dashboards")


def _package(requirement: Requirement, *, is_optional: bool) -> Finding:
    wanted = f"{requirement.name}{requirement.specifier}"
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        state = "note" if is_optional else "bad"
        return Finding(requirement.name, state, f"not installed; {wanted} is needed", _INSTALL)
    if not requirement.specifier.contains(found, prereleases=True):
        text = f"{found}, but {wanted} is needed"
        return Finding(requirement.name, "bad", text, f"pip install '{wanted}'")
    return Finding(requirement.name, "good", found)


def _commands() -> Iterator[Finding]:
    for point in entry_points(group="asit.commands"):
        try:
            point.load()
        except Exception as error:
            text = f"cannot be loaded: {type(error).__name__}: {error}"
            yield Finding(f"asit {point.name}", "bad", text, _INSTALL)


def _devices() -> Iterator[Finding]:
    torch = importlib.import_module("torch")
    importlib.import_module("torchaudio")
    yield Finding("cpu", "good", f"{os.cpu_count()} cores, {torch.get_num_threads()} torch threads")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            text = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
            yield Finding(f"gpu {index}", "good", text)
    elif shutil.which("nvidia-smi") is not None:
        text = f"there is a driver, but torch {torch.__version__} cannot use it"
        yield Finding(
            "gpu", "note", text, f"update the driver to CUDA {torch.version.cuda} or later"
        )
    else:
        yield Finding("gpu", "note", "none; trials run on the CPU")


def _sound_formats() -> Iterator[Finding]:
    formats = importlib.import_module("soundfile").available_formats()
    missing = [name for name in ("WAV", "FLAC", "OGG", "MP3") if name not in formats]
    if missing:
        text = f"libsndfile cannot read {', '.join(missing)}"
        yield Finding("sound", "bad", text, "pip install --force-reinstall soundfile")
    else:
        yield Finding("sound", "good", "wav, flac, ogg, mp3")


def _disk() -> Iterator[Finding]:
    for topic, folder in (("results", Path.cwd()), ("ray's files", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free / 2**30
        text = f"{free:.1f} GiB free in {folder}"
        if not os.access(folder, os.W_OK):
            yield Finding(topic, "bad", f"{folder} is not writable", "use another folder")
        elif free < MIN_FREE_GIB:
            yield Finding(topic, "bad", text, f"free at least {MIN_FREE_GIB:g} GiB")
        else:
            yield Finding(topic, "good", text)


def _ray() -> Iterator[Finding]:
    cluster: Any = importlib.import_module("asit_platform.cluster")
    ray: Any = importlib.import_module("ray")
    with cluster.start_ray():
        resources = ray.cluster_resources()
        nodes = sum(node["Alive"] for node in ray.nodes())
    store = resources.get("object_store_memory", 0.0) / 2**30
    text = (
        f"starts: {nodes} node{'s' if nodes > 1 else ''}, {resources.get('CPU', 0):g} CPU, "
        f"{resources.get('GPU', 0):g} GPU, object store {store:.1f} GiB"
    )
    yield Finding("ray cluster", "good", text)
