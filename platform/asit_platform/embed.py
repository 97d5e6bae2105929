"""`asit embed`: sound files -> one Parquet file of clip vectors.

Written whole or not at all. A file that cannot be used stops the command, which then names all of
them, or is left out, named and counted with `--skip-unreadable`.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import pyarrow.parquet as pq
import torch
import typer
from torch import Tensor

from asit_core.embedding import Embedding, Features, SpectrogramModel
from asit_core.model_file import load
from asit_core.waveform import AudioError, check_waveform, load_waveform
from asit_platform.data.progress import progress_bar
from asit_platform.embedding_table import Row, make_row, make_schema, make_table
from asit_platform.errors import PlatformError
from asit_platform.whole_files import replacing
from asit_platform.words import plural

_NAMED = 3  # unusable files named in an error; --json and the log name all
_ROWS_PER_GROUP = 64

Device = Literal["auto", "cpu", "cuda"]

_logger = logging.getLogger(__name__)


class EmbedOptions(NamedTuple):
    """How files are embedded, and what is done about those that cannot be."""

    features: Features = "mean"
    overlap: float = 0.25
    frames: bool = False
    skip_unreadable: bool = False


class Outcome(NamedTuple):
    """What became of the files."""

    num_embedded: int
    num_frames: int
    skipped: list[tuple[str, str]]  # path and reason


def embed(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CKPT",
            help="Model file or pre-training checkpoint; `asit convert` makes one of others'.",
            show_default=False,
        ),
    ],
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES...", help="Sound files: wav, flac, ogg or mp3.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(help="Parquet file to write.", show_default=False)],
    features: Annotated[
        Features, typer.Option(help="Clip vector: mean of the patches, class token, or both.")
    ] = "mean",
    frames: Annotated[
        bool, typer.Option("--frames", help="Also write a vector for every frame, and its time.")
    ] = False,
    overlap: Annotated[
        float, typer.Option(help="Share of a window that is also in the next, for long sound.")
    ] = 0.25,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out files that cannot be used.")
    ] = False,
    device: Annotated[Device, typer.Option(help="Where the model runs.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Embed sound files with a trained model: a Parquet file with a vector for each."""
    _check(checkpoint, files, out, overlap)
    options = EmbedOptions(features, overlap, frames, skip_unreadable)
    started = time.monotonic()
    model = load(checkpoint, device=_pick(device))
    with progress_bar("embedding") as bar:
        outcome = embed_files(
            model, files, out, options, checkpoint=str(checkpoint), on_progress=bar
        )
    for path, reason in outcome.skipped:
        _logger.warning("%s: left out: %s", path, reason)
    if as_json:
        summary = {
            "out": str(out),
            "checkpoint": str(checkpoint),
            "num_files": len(files),
            "num_embedded": outcome.num_embedded,
            "num_frames": outcome.num_frames,
            "embed_dim": model.encoder.config.embed_dim,
            "skipped": [{"path": path, "reason": reason} for path, reason in outcome.skipped],
            "elapsed_s": round(time.monotonic() - started, 2),
        }
        typer.echo(json.dumps(summary))
        return
    skipped = f", {len(outcome.skipped):,} left out" if outcome.skipped else ""
    typer.echo(
        f"{out}: {plural(outcome.num_embedded, 'clip')}, {plural(outcome.num_frames, 'frame')} "
        f"of {model.encoder.config.embed_dim} values{skipped}"
    )


def embed_files(
    model: SpectrogramModel,
    files: Sequence[Path],
    out: Path,
    options: EmbedOptions,
    *,
    checkpoint: str,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Writes a row for each file, in order.

    Args:
        model: Embeds; on its own device.
        files: At least one sound file.
        out: Parquet file; what lies there is replaced at the end.
        options: See there.
        checkpoint: Name of the model, kept in the file's metadata with the options.
        on_progress: Called with files done and files in all.

    Raises:
        PlatformError: If a file cannot be used and is not to be skipped, if none can be used, or
            `out` cannot be written. Then nothing is written.
    """
    schema = make_schema(
        model.encoder.config.embed_dim,
        both=options.features == "both",
        frames=options.frames,
        description={
            "checkpoint": checkpoint,
            "features": options.features,
            "overlap": options.overlap,
            "sample_rate_hz": model.log_mel.config.sample_rate_hz,
        },
    )
    num_embedded, num_frames, skipped = 0, 0, []
    rows: list[Row] = []
    try:
        with (
            _folder(out.parent),
            replacing(out) as temporary,
            pq.ParquetWriter(temporary, schema) as writer,
        ):
            for done, path in enumerate(files):
                on_progress(done, len(files))
                try:
                    waveform = _read(path, model)
                except AudioError as error:
                    skipped.append((str(path), str(error).removeprefix(f"{path}: ")))
                    continue
                if skipped and not options.skip_unreadable:
                    continue  # in vain: what is left is read only to name all faults
                embedding = _embed(model, waveform, options)
                rows.append(make_row(str(path), embedding, frames=options.frames))
                num_embedded += 1
                num_frames += len(embedding.frame_time_s)
                del embedding  # its grid of patches is large: not beside the next clip's
                if len(rows) == _ROWS_PER_GROUP:
                    writer.write_table(make_table(rows, schema))
                    rows = []
            _check_skipped(skipped, len(files), options)
            writer.write_table(make_table(rows, schema))
    except OSError as error:
        raise PlatformError(
            f"{out}: --out must be writable, but {error}; choose another or free space"
        ) from error
    return Outcome(num_embedded, num_frames, skipped)


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Makes a folder and those above it; an error takes away again what was made."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in made:
            with suppress(OSError):  # never made, or someone else uses it by now
                folder.rmdir()
        raise


def _check(checkpoint: Path, files: Sequence[Path], out: Path, overlap: float) -> None:
    if not 0.0 <= overlap < 1.0:
        raise PlatformError(f"--overlap must be in [0, 1), but got {overlap}")
    if os.path.isdir(out):  # Path.is_dir raises where this says no: a name too long, say
        raise PlatformError(f"{out}: --out must be a file, but is a folder")
    if out.resolve() in {path.resolve() for path in (checkpoint, *files)}:
        raise PlatformError(f"{out}: --out must not be a file that is read; choose another")


def _pick(device: Device) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise PlatformError("--device must be auto or cpu here, but got cuda: there is no GPU")
    return device


def _read(path: Path, model: SpectrogramModel) -> Tensor:
    sample_rate_hz = model.log_mel.config.sample_rate_hz
    try:
        waveform_S = load_waveform(path, sample_rate_hz=sample_rate_hz)
    except OSError as error:
        raise AudioError(f"{path}: cannot be read: {error}") from error
    waveform_S = check_waveform(waveform_S, str(path))
    if model.log_mel.num_frames(len(waveform_S)) == 0:
        raise AudioError(
            f"{path}: must last at least one frame ({model.log_mel.config.frame_length_ms:g} ms), "
            f"but got {len(waveform_S)} samples at {sample_rate_hz} Hz"
        )
    return waveform_S


def _embed(model: SpectrogramModel, waveform_S: Tensor, options: EmbedOptions) -> Embedding:
    return model.embed(
        waveform_S,
        model.log_mel.config.sample_rate_hz,
        features=options.features,
        overlap=options.overlap,
    )


def _check_skipped(
    skipped: Sequence[tuple[str, str]], num_files: int, options: EmbedOptions
) -> None:
    if not skipped or (options.skip_unreadable and len(skipped) < num_files):
        return
    named = "; ".join(f"{path}: {reason}" for path, reason in skipped[:_NAMED])
    more = f"; and {len(skipped) - _NAMED:,} more" if len(skipped) > _NAMED else ""
    remedy = "mend them" if options.skip_unreadable else "mend them or pass --skip-unreadable"
    raise PlatformError(
        f"{len(skipped):,} of {plural(num_files, 'file')} cannot be used: {named}{more}; {remedy}"
    )
