"""What every command that makes a dataset folder does: build it, then say what it holds."""

import json
import logging
import time
from pathlib import Path

import typer

from asit_platform.cluster import start_ray
from asit_platform.data.dataset import DatasetInfo
from asit_platform.data.listing import Listing
from asit_platform.data.manifest import Manifest
from asit_platform.data.out_folder import AUDIO_FOLDER, claimed, finished_build
from asit_platform.data.prepare import PrepareOptions, build, plan_build
from asit_platform.data.progress import progress_bar
from asit_platform.data.summary import summarize, summary_lines
from asit_platform.data.synthetic import SyntheticConfig, synthetic_origin, write_synthetic
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

_logger = logging.getLogger(__name__)


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
    manifest = Manifest.of(listing)
    del listing  # of two million clips, a gigabyte
    build_manifest(manifest, out, options, as_json=as_json)


def build_manifest(manifest: Manifest, out: str, options: PrepareOptions, *, as_json: bool) -> None:
    """Build what a manifest lists and print a summary; otherwise as `build_listing`."""
    started = time.monotonic()
    place = Place.of(out)
    with claimed(place):
        info = _build(manifest, place, options)
    print_summary(info, as_json=as_json, elapsed_s=time.monotonic() - started)


def build_synthetic(
    config: SyntheticConfig, out: str | Path | Place, options: PrepareOptions
) -> DatasetInfo:
    """Make the synthetic set, or find it made already without starting Ray.

    Raises:
        PlatformError: If `out` holds another dataset, a file of it is damaged, or it is a bucket.
    """
    place = Place.of(out)
    if not place.is_local:
        raise PlatformError(f"{place}: --out must be a local folder: the sounds are written there")
    with claimed(place):
        found = finished_build(place, origin=synthetic_origin(config), options=options)
        if found is not None and found.is_whole():
            return found
        listing = write_synthetic((place / AUDIO_FOLDER).local, config)
        return _build(Manifest.of(listing), place, options)


def print_summary(info: DatasetInfo, *, as_json: bool, elapsed_s: float | None = None) -> None:
    """Print what a dataset folder holds."""
    if as_json:
        elapsed = {} if elapsed_s is None else {"elapsed_s": round(elapsed_s, 2)}
        typer.echo(json.dumps({**summarize(info), **elapsed}))
        return
    for line in summary_lines(info):
        typer.echo(line)


def _build(manifest: Manifest, out: Place, options: PrepareOptions) -> DatasetInfo:
    """Build in a folder that is claimed, with Ray only if there is something to do."""
    with progress_bar(f"{manifest.listing.name}: checking", unit="shards") as bar:
        plan = plan_build(manifest, out, options, on_progress=bar)
    if plan.finished is not None:
        return plan.finished
    for warning in manifest.listing.warnings:  # a build may last hours: said before it, too
        _logger.warning("%s", warning)
    with start_ray(), progress_bar(manifest.listing.name) as bar:
        return build(plan, on_progress=bar)
