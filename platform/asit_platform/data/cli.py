"""`asit data`: make a dataset folder, look at it, check it."""

import json
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from asit_core.spectrogram import LogMelConfig
from asit_platform.cluster import start_ray
from asit_platform.data.dataset import DatasetInfo
from asit_platform.data.datasets import Listing, read_esc50
from asit_platform.data.out_folder import AUDIO_FOLDER, clear, finished_build
from asit_platform.data.prepare import PrepareOptions, build, plan_build
from asit_platform.data.progress import progress_bar
from asit_platform.data.synthetic import SyntheticConfig, synthetic_origin, write_synthetic

app = typer.Typer(
    help="Make a dataset folder of log-mel shards, and look at one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
prepare_app = typer.Typer(
    help="Turn audio files on disk into a dataset folder.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(prepare_app, name="prepare")


class Subset(StrEnum):
    """Part of ESC-50."""

    ALL = "all"
    ESC10 = "esc10"


_Out = Annotated[Path, typer.Option(help="Dataset folder to make.", show_default=False)]
_NumMels = Annotated[int, typer.Option(help="Mel bins of the spectrogram.")]
_KeepSilent = Annotated[bool, typer.Option("--keep-silent", help="Keep clips of digital silence.")]
_MaxSkipped = Annotated[float, typer.Option(help="Share of the clips that may be unusable.")]
_Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]


@prepare_app.callback()
def _prepare() -> None:
    """Keep `esc50` a command of its own while it is the only one."""


@prepare_app.command("esc50")
def prepare_esc50(
    root: Annotated[
        Path,
        typer.Option(
            help="Folder with audio/ and meta/esc50.csv: ESC-50, or the ESC-10 subset of ESC-50; "
            "wav, ogg, flac or mp3.",
            show_default=False,
        ),
    ],
    out: _Out,
    subset: Annotated[Subset, typer.Option(help="Rows of the csv to take.")] = Subset.ALL,
    sample_rate: Annotated[int, typer.Option(help="Resample to this rate, in Hz.")] = 32000,
    num_mels: _NumMels = 128,
    keep_silent: _KeepSilent = False,
    max_skipped: _MaxSkipped = 0.05,
    as_json: _Json = False,
) -> None:
    """Make a dataset folder from ESC-50 or the ESC-10 subset of ESC-50."""
    options = PrepareOptions(
        front_end=LogMelConfig(sample_rate_hz=sample_rate, num_mel_bins=num_mels),
        keep_silent=keep_silent,
        max_skipped=max_skipped,
    )
    started = time.monotonic()
    info = _build(read_esc50(root, subset=subset.value), out, options)
    _print_summary(info, as_json=as_json, elapsed_s=time.monotonic() - started)


@app.command()
def synth(
    out: _Out,
    seed: Annotated[int, typer.Option(help="Of every draw.")] = 0,
    clips_per_class: Annotated[int, typer.Option(help="Clips of each of the ten classes.")] = 120,
    duration: Annotated[float, typer.Option(help="Seconds of a clip.")] = 1.615,
    sample_rate: Annotated[int, typer.Option(help="Of the sound files, in Hz.")] = 16000,
    num_mels: _NumMels = 64,
    keep_silent: _KeepSilent = False,
    max_skipped: _MaxSkipped = 0.05,
    as_json: _Json = False,
) -> None:
    """Make a small labelled set of synthetic sounds: ten classes, five folds."""
    config = SyntheticConfig(
        seed=seed,
        clips_per_class=clips_per_class,
        duration_s=duration,
        sample_rate_hz=sample_rate,
    )
    options = PrepareOptions(
        front_end=LogMelConfig(sample_rate_hz=sample_rate, num_mel_bins=num_mels),
        keep_silent=keep_silent,
        max_skipped=max_skipped,
    )
    started = time.monotonic()
    info = build_synthetic(config, out, options)
    _print_summary(info, as_json=as_json, elapsed_s=time.monotonic() - started)


@app.command()
def info(
    folder: Annotated[Path, typer.Argument(help="Dataset folder.", show_default=False)],
    verify: Annotated[
        bool, typer.Option("--verify", help="Also compare the content hash of every shard.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Say what a dataset folder holds, and check that its shards are whole."""
    opened = DatasetInfo.open(folder)
    if verify:
        opened.verify()
    _print_summary(opened, as_json=as_json)


def build_synthetic(config: SyntheticConfig, out: Path, options: PrepareOptions) -> DatasetInfo:
    """Make the synthetic set, or find it made already without starting Ray.

    Raises:
        PlatformError: If `out` holds another dataset, or a file of it is damaged.
    """
    found = finished_build(
        out,
        origin=synthetic_origin(config),
        front_end=options.front_end,
        keep_silent=options.keep_silent,
    )
    if found is not None and found.is_whole():
        return found
    clear(out)  # says so if the folder cannot be written, before anything is made
    return _build(write_synthetic(out / AUDIO_FOLDER, config), out, options)


def _build(listing: Listing, out: Path, options: PrepareOptions) -> DatasetInfo:
    plan = plan_build(listing, out, options)
    if plan.finished is not None:
        return plan.finished
    with start_ray(), progress_bar(f"{listing.name}: log-mel") as bar:
        return build(plan, on_progress=bar)


def _print_summary(info: DatasetInfo, *, as_json: bool, elapsed_s: float | None = None) -> None:
    summary: dict[str, Any] = {
        "folder": str(info.folder),
        "name": info.name,
        "synthetic": info.synthetic,
        "num_clips": info.num_clips,
        "num_labels": info.num_labels,
        "label_names": list(info.label_names),
        "folds": list(info.folds),
        "duration_s": round(info.duration_s, 3),
        "skipped": info.skipped,
        "silent": info.silent,
        "num_shards": len(info.shards),
        "num_bytes": sum(shard.num_bytes for shard in info.shards),
        "max_frames": info.max_frames,
        "front_end": dict(info.front_end),
        "fingerprint": info.fingerprint,
    }
    if elapsed_s is not None:
        summary["elapsed_s"] = round(elapsed_s, 2)
    if as_json:
        typer.echo(json.dumps(summary))
        return
    typer.echo(
        f"{info.name}: {info.num_clips} clips, {info.num_labels} labels, {len(info.folds)} folds, "
        f"{info.duration_s:.0f} s; {info.skipped} skipped, {info.silent} of digital silence"
    )
    typer.echo(
        f"{info.folder}: {len(info.shards)} shards, {summary['num_bytes'] / 1e6:.1f} MB, "
        f"fingerprint {info.fingerprint}"
    )
