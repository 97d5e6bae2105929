import dataclasses
import math
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from asit_platform.data.listing import Clip, Listing
from asit_platform.data.manifest import MANIFEST_SCHEMA, Manifest, write_manifest
from asit_platform.data.manifest_file import read_manifest
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

PLAIN = Clip(clip_id="c", path="c.wav", labels=(0,), fold=1, source="c")
CLIPS = (
    Clip(clip_id="b", path="x/b.wav", labels=(1,), fold=2, source="r", start_s=1.5, stop_s=3.0),
    Clip(clip_id="-a", path="s3://bucket/a b.wav", labels=(0,), fold=1, source="-a"),
    PLAIN,
    dataclasses.replace(PLAIN, clip_id="d", labels=(1,)),
)
LISTING = Listing(
    name="Two",
    synthetic=False,
    origin={"kind": "two", "parts": ("x", "y")},
    label_kind="single",
    label_names=("dog", "rain"),
    fold_names={1: "train", 2: "test"},
    metric="accuracy",
    recipes=("ast_esc50",),
    warnings=("one is missing",),
    clips=CLIPS,
)


def changed(number: int, **fields: Any) -> Listing:
    clips = list(CLIPS)
    clips[number] = dataclasses.replace(clips[number], **fields)
    return dataclasses.replace(LISTING, clips=tuple(clips))


def test_a_listing_as_a_table() -> None:
    manifest = Manifest.of(LISTING)
    assert manifest.clips.schema.equals(MANIFEST_SCHEMA)
    assert manifest.clips["clip_id"].to_pylist() == ["-a", "b", "c", "d"]
    assert manifest.clips["path"].to_pylist()[:2] == [
        "s3://bucket/a b.wav",
        os.path.abspath("x/b.wav"),
    ]
    assert manifest.clips["stop_s"].to_pylist()[:2] == [None, 3.0]
    assert manifest.listing.clips == ()


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    manifest = Manifest.of(LISTING)
    write_manifest(Place.of(tmp_path), manifest)
    found = read_manifest(tmp_path / "manifest.parquet")
    assert found.listing == manifest.listing
    assert found.listing.fold_names == {1: "train", 2: "test"}
    assert found.clips.equals(manifest.clips)
    assert b"asit.listing" in pq.read_schema(tmp_path / "manifest.parquet").metadata


def test_the_same_listing_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        write_manifest(Place.of(tmp_path / name), Manifest.of(LISTING))
    first, second = (tmp_path / name / "manifest.parquet" for name in "ab")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        (dataclasses.replace(LISTING, clips=()), "Two: must list at least one clip"),
        (changed(0, clip_id="-a"), "'-a' is listed 2 times"),
        (changed(0, labels=(2,)), r"labels must be in \[0, 2\), the label names, but got 2"),
        (changed(0, labels=(-1,)), r"but got -1"),
        (changed(0, labels=(0, 1)), "each clip must have one label, but 'b' has 2"),
        (changed(0, labels=()), "each clip must have one label, but 'b' has 0"),
        (
            dataclasses.replace(LISTING, label_kind="none"),
            "each clip must have no label, but '-a' has 1",
        ),
        (changed(0, path="http://h/x.wav"), "^Two: path http://h/x.wav: must be a local path or"),
        (changed(0, path="s3://b/a?.wav"), "Two: path s3://b/a.*: must hold no question mark"),
        (changed(0, start_s=math.nan), "start_s must be finite and >= 0, .* 'b' has nan and 3.0"),
        (changed(0, start_s=-1.0), "'b' has -1.0 and 3.0; correct them"),
        (changed(0, stop_s=1.5), "'b' has 1.5 and 1.5"),
        (changed(1, stop_s=math.inf), "'-a' has 0.0 and inf"),
        (changed(1, stop_s=math.nan), "'-a' has 0.0 and nan"),
        (changed(0, fold=-1), "fold must be >= 0, but got -1"),
        (changed(0, labels=(0,)), r"at least 2 usable clips, but got rain \(1\)"),
    ],
)
def test_what_a_build_could_not_take(listing: Listing, message: str) -> None:
    with pytest.raises(PlatformError, match=message) as caught:
        Manifest.of(listing)
    assert "\n" not in str(caught.value)


def test_any_number_of_labels() -> None:
    listing = dataclasses.replace(changed(0, labels=(0, 1)), label_kind="multi")
    assert Manifest.of(listing).clips["labels"].to_pylist()[:2] == [[0], [0, 1]]
