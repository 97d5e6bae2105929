import dataclasses
from pathlib import Path

import pyarrow.parquet as pq

from asit_platform.data.datasets import Clip
from asit_platform.data.manifest import (
    MANIFEST_SCHEMA,
    SkippedClip,
    fingerprint,
    hash_files,
    write_manifest,
    write_skipped,
)

CLIPS = tuple(
    Clip(
        clip_id=f"c{number}",
        path=Path(f"/data/c{number}.wav"),
        label=number % 2,
        label_name="ab"[number % 2],
        fold=number + 1,
        source="s",
    )
    for number in range(4)
)
HASHES = ("h0", "h1", "h2", "h3")
FRONT_END = {"sample_rate_hz": 16000}


def mark(clips=CLIPS, hashes=HASHES, front_end=FRONT_END, *, keep_silent=False) -> str:
    return fingerprint(clips, hashes, front_end=front_end, keep_silent=keep_silent)


def test_fingerprint_ignores_where_files_lie() -> None:
    moved = [dataclasses.replace(clip, path=Path("/elsewhere") / clip.path.name) for clip in CLIPS]
    assert mark(moved) == mark()


def test_fingerprint_changes_with_anything_that_changes_a_number() -> None:
    changed = {
        mark(),
        mark(hashes=("h0", "h1", "h2", "other")),
        mark(front_end={"sample_rate_hz": 32000}),
        mark(keep_silent=True),
        mark(CLIPS[:3], HASHES[:3]),
        mark((dataclasses.replace(CLIPS[0], fold=5), *CLIPS[1:])),
        mark((dataclasses.replace(CLIPS[0], label=1), *CLIPS[1:])),
        mark((dataclasses.replace(CLIPS[0], source="t"), *CLIPS[1:])),
    }
    assert len(changed) == 8


def test_hashes_follow_content_and_a_missing_file_has_none(tmp_path: Path) -> None:
    for name, content in (("a", b"x"), ("b", b"x"), ("c", b"y")):
        (tmp_path / name).write_bytes(content)
    a, b, c, missing = hash_files([tmp_path / name for name in "abcd"])
    assert a == b != c
    assert missing == ""


def test_manifest_round_trip(tmp_path: Path) -> None:
    row = {
        **dataclasses.asdict(CLIPS[0]),
        "path": str(CLIPS[0].path),
        "duration_s": 1.5,
        "num_frames": 148,
        "shard": "shards/fold1-00000.parquet",
    }
    write_manifest(tmp_path, [row])
    table = pq.read_table(tmp_path / "manifest.parquet")
    assert table.schema.equals(MANIFEST_SCHEMA)
    assert table.to_pylist() == [row]


def test_skipped_list_quotes_commas(tmp_path: Path) -> None:
    write_skipped(tmp_path, [SkippedClip("a,b.wav", "holds no samples")])
    assert (tmp_path / "skipped.csv").read_text() == ('path,reason\n"a,b.wav",holds no samples\n')
