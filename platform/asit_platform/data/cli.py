"""`asit data`: make a dataset folder, look at it, check it."""

import time
from typing import Annotated

import typer

from asit_core.spectrogram import LogMelConfig
from asit_platform.data.cli_build import build_manifest, build_synthetic, print_summary
from asit_platform.data.dataset import DatasetInfo
from asit_platform.data.get_cli import app as get_app
from asit_platform.data.inspect_cli import check, show
from asit_platform.data.listing import Content
from asit_platform.data.manifest_file import read_manifest
from asit_platform.data.prepare import PrepareOptions
from asit_platform.data.prepare_cli import app as prepare_app
from asit_platform.data.synthetic import SyntheticConfig

app = typer.Typer(
    help="Make a dataset folder of log-mel or waveform shards, look at one, check one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(get_app, name="get")
app.add_typer(prepare_app, name="prepare")
app.command()(check)
app.command()(show)

_Out = Annotated[
    str,
    typer.Option(
        help="Dataset folder to make: a path, or an s3:// or gs:// URL.", show_default=False
    ),
]
_SampleRate = Annotated[int, typer.Option(help="Resample to this rate, in Hz.")]
_NumMels = Annotated[int, typer.Option(help="Mel bins of the spectrogram.")]
_Content = Annotated[
    Content, typer.Option(help="What shards hold: spectrograms, or 16-bit samples.")
]
_KeepSilent = Annotated[bool, typer.Option("--keep-silent", help="Keep clips of digital silence.")]
_MaxSkipped = Annotated[float, typer.Option(help="Share of the clips that may be unusable.")]
_Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]


@app.command()
def shards(
    manifest: Annotated[
        str,
        typer.Argument(
            help="A manifest.parquet that `asit data prepare` wrote, or a .parquet or .csv file "
            "with columns clip_id and path and, as needed, labels, fold, source, start_s, stop_s.",
            show_default=False,
        ),
    ],
    out: _Out,
    sample_rate: _SampleRate = 32000,
    num_mels: _NumMels = 128,
    content: _Content = "log_mel",
    keep_silent: _KeepSilent = False,
    max_skipped: _MaxSkipped = 0.05,
    as_json: _Json = False,
) -> None:
    """Make a dataset folder from a manifest; run again after an interruption, go on."""
    options = PrepareOptions(
        front_end=LogMelConfig(sample_rate_hz=sample_rate, num_mel_bins=num_mels),
        content=content,
        keep_silent=keep_silent,
        max_skipped=max_skipped,
    )
    build_manifest(read_manifest(manifest), out, options, as_json=as_json)


@app.command()
def synth(
    out: _Out,
    seed: Annotated[int, typer.Option(help="Of every draw.")] = 0,
    clips_per_class: Annotated[int, typer.Option(help="Clips of each of the ten classes.")] = 120,
    duration: Annotated[float, typer.Option(help="Seconds of a clip.")] = 1.615,
    sample_rate: Annotated[int, typer.Option(help="Of the sound files, in Hz.")] = 16000,
    num_mels: _NumMels = 64,
    content: _Content = "log_mel",
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
        content=content,
        keep_silent=keep_silent,
        max_skipped=max_skipped,
    )
    started = time.monotonic()
    made = build_synthetic(config, out, options)
    print_summary(made, as_json=as_json, elapsed_s=time.monotonic() - started)


@app.command()
def info(
    folder: Annotated[
        str, typer.Argument(help="Dataset folder, or its s3:// or gs:// URL.", show_default=False)
    ],
    verify: Annotated[
        bool, typer.Option("--verify", help="Also compare the content hash of every shard.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Say what a dataset folder holds, and check that its shards are whole."""
    opened = DatasetInfo.open(folder)
    if verify:
        opened.verify()
    print_summary(opened, as_json=as_json)
