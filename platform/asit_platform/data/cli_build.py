"""What every command that makes a dataset folder does: build it, then say what it holds."""

import json
import time
from typing import Any

import typer

from asit_platform.cluster import start_ray
from asit_platform.data.dataset import DatasetInfo
from asit_platform.data.listing import Listing
from asit_platform.data.prepare import PrepareOptions, build, plan_build
from asit_platform.data.progress import progress_bar
from asit_platform.storage import Place


def build_listing(listing: Listing, out: str, options: PrepareOptions, *, as_json: bool) -> None:
    """Build what a reader listed and print a summary.

    Args:
        listing: From a reader.
        out: The dataset folder: a path, or an s3:// or gs:// URL.
        options: Front end, content and what may be skipped.
        as_json: Print the summary as JSON.

    Raises:
        PlatformError: If the folder cannot be built in, or too little is usable.
    """
    started = time.monotonic()
    plan = plan_build(listing, Place.of(out), options)
    info = plan.finished
    if info is None:
        with start_ray(), progress_bar(f"{listing.name}: log-mel") as bar:
            info = build(plan, on_progress=bar)
    print_summary(info, as_json=as_json, elapsed_s=time.monotonic() - started)


def print_summary(info: DatasetInfo, *, as_json: bool, elapsed_s: float | None = None) -> None:
    """Print what a dataset folder holds."""
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
