import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from asit_core.spectrogram import LogMelConfig
from asit_platform.data.manifest import MANIFEST_SCHEMA
from asit_platform.data.options import PrepareOptions
from asit_platform.data.shard_reuse import find_built, is_of_other_sounds
from asit_platform.data.shard_task import build_block
from asit_platform.storage import Place

FILE = "shards/fold1-00000.parquet"
NAMES = ("a.wav", "b.wav", "broken.wav", "missing.wav")
Rows = list[dict[str, Any]]


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    for seed, name in enumerate(NAMES[:2]):
        samples_S = 0.1 * np.random.default_rng(seed).standard_normal(8000)
        soundfile.write(tmp_path / name, samples_S, 16000)
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    clip = {"labels": [0], "fold": 1, "start_s": 0.0, "stop_s": None}
    return [
        {"clip_id": name, "path": str(tmp_path / name), "source": name, **clip} for name in NAMES
    ]


@pytest.fixture
def options(front_end: LogMelConfig) -> PrepareOptions:
    return PrepareOptions(front_end=front_end)


@pytest.fixture
def out(tmp_path: Path, rows: Rows, options: PrepareOptions) -> Path:
    """A dataset folder with one shard."""
    (tmp_path / "out" / "shards").mkdir(parents=True)
    block = pa.Table.from_pylist(rows, schema=MANIFEST_SCHEMA)
    block = block.append_column("file", pa.array([FILE] * len(rows)))
    build_block(block, out=str(tmp_path / "out"), options=options)
    return tmp_path / "out"


def test_a_finished_shard_is_found(out: Path, rows: Rows, options: PrepareOptions) -> None:
    found = find_built(Place.of(out), FILE, rows, options)
    assert found is not None
    assert (found.shard.file, found.shard.num_rows) == (FILE, 2)
    assert [bool(outcome.reason) for outcome in found.report.outcomes] == [False, False, True, True]


def test_the_task_does_not_write_it_again(
    out: Path, rows: Rows, options: PrepareOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (out / FILE).stat()
    block = pa.Table.from_pylist(rows, schema=MANIFEST_SCHEMA)
    block = block.append_column("file", pa.array([FILE] * len(rows)))
    build_block(block, out=str(out), options=options)
    assert (out / FILE).stat().st_ino == before.st_ino


def test_any_flipped_byte_of_the_pages_is_noticed(
    out: Path, rows: Rows, options: PrepareOptions
) -> None:
    whole = (out / FILE).read_bytes()
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    for position in np.linspace(4, len(whole) - footer - 1, 40).astype(int):
        damaged = bytearray(whole)
        damaged[position] ^= 4
        (out / FILE).write_bytes(damaged)
        assert find_built(Place.of(out), FILE, rows, options) is None, position


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: os.truncate(path, path.stat().st_size - 1),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\0" * path.stat().st_size),
    ],
)
def test_half_a_shard_is_none(
    out: Path, rows: Rows, options: PrepareOptions, damage: Callable[[Path], object]
) -> None:
    damage(out / FILE)
    assert find_built(Place.of(out), FILE, rows, options) is None


@pytest.mark.parametrize(
    "changes", [{"content": "waveform"}, {"keep_silent": True}, {"front_end": LogMelConfig()}]
)
def test_other_options_are_another_shard(
    out: Path, rows: Rows, options: PrepareOptions, changes: dict[str, Any]
) -> None:
    other = dataclasses.replace(options, **changes)
    assert find_built(Place.of(out), FILE, rows, other) is None
    lenient = dataclasses.replace(options, max_skipped=1.0)
    assert find_built(Place.of(out), FILE, rows, lenient) is not None


@pytest.mark.parametrize(
    "changes",
    [{"clip_id": "x"}, {"labels": [1]}, {"fold": 2}, {"source": "x"}, {"start_s": 0.1}],
)
def test_other_clips_are_another_shard(
    out: Path, rows: Rows, options: PrepareOptions, changes: dict[str, Any]
) -> None:
    other = [{**rows[0], **changes}, *rows[1:]]
    assert find_built(Place.of(out), FILE, other, options) is None
    assert find_built(Place.of(out), FILE, rows[:3], options) is None


@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize("mtime_ns", [1, 2**62])
def test_another_sound_of_the_same_size_makes_it_stale(
    out: Path, rows: Rows, options: PrepareOptions, number: int, mtime_ns: int
) -> None:
    path = Path(rows[number]["path"])
    whole = path.read_bytes()
    os.utime(path, ns=(mtime_ns, mtime_ns))
    assert find_built(Place.of(out), FILE, rows, options) is not None
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    os.utime(path, ns=(mtime_ns, mtime_ns))  # as a copy that keeps its times
    assert find_built(Place.of(out), FILE, rows, options) is None


def test_other_sounds_elsewhere_are_told_by_their_content(
    out: Path, rows: Rows, tmp_path: Path
) -> None:
    assert not is_of_other_sounds(Place.of(out), FILE, rows)
    (tmp_path / "moved").mkdir()
    moved = [{**row, "path": str(tmp_path / "moved" / row["clip_id"])} for row in rows]
    shutil.copy(rows[0]["path"], moved[0]["path"])
    assert not is_of_other_sounds(Place.of(out), FILE, moved)
    shutil.copy(rows[0]["path"], moved[1]["path"])  # both are of one size
    assert is_of_other_sounds(Place.of(out), FILE, moved)
    (out / FILE).unlink()
    assert is_of_other_sounds(Place.of(out), FILE, rows)


@pytest.mark.parametrize("key", ["asit.fingerprint", "asit.report", "asit.digest"])
def test_a_shard_that_lacks_what_it_says_of_itself_is_none(
    out: Path, rows: Rows, options: PrepareOptions, key: str
) -> None:
    table = pq.read_table(out / FILE)
    metadata = {name: text for name, text in table.schema.metadata.items() if name != key.encode()}
    pq.write_table(table.replace_schema_metadata(metadata), out / FILE, write_page_checksum=True)
    assert find_built(Place.of(out), FILE, rows, options) is None


def test_a_report_with_other_numbers_is_noticed(
    out: Path, rows: Rows, options: PrepareOptions
) -> None:
    table = pq.read_table(out / FILE)
    raw = json.loads(table.schema.metadata[b"asit.report"])
    raw["statistics"][1] += 1.0
    metadata = table.schema.metadata | {b"asit.report": json.dumps(raw).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), out / FILE, write_page_checksum=True)
    assert find_built(Place.of(out), FILE, rows, options) is None


def test_a_damaged_footer_never_ends_in_an_error_or_another_report(
    out: Path, rows: Rows, options: PrepareOptions
) -> None:
    whole = (out / FILE).read_bytes()
    intact = find_built(Place.of(out), FILE, rows, options)
    assert intact is not None
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    for position in np.linspace(len(whole) - footer, len(whole) - 1, 150).astype(int):
        damaged = bytearray(whole)
        damaged[position] ^= 4
        (out / FILE).write_bytes(damaged)
        found = find_built(Place.of(out), FILE, rows, options)
        assert found is None or found.report == intact.report, position


def test_a_sound_of_another_size_makes_it_stale(
    out: Path, rows: Rows, options: PrepareOptions
) -> None:
    path = Path(rows[0]["path"])
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(1, 1))
    assert find_built(Place.of(out), FILE, rows, options) is None


def test_a_sound_that_was_missing_and_is_there_makes_it_stale(
    out: Path, rows: Rows, options: PrepareOptions
) -> None:
    shutil.copy2(rows[0]["path"], rows[3]["path"])
    assert find_built(Place.of(out), FILE, rows, options) is None


def test_sounds_may_be_gone_or_lie_elsewhere(
    out: Path, rows: Rows, options: PrepareOptions, tmp_path: Path
) -> None:
    moved = [{**row, "path": str(tmp_path / "moved" / row["clip_id"])} for row in rows]
    assert find_built(Place.of(out), FILE, moved, options) is not None
