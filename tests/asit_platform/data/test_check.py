"""Datasets damaged in all the ways a disk, a copy or a program can."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from asit_core.spectrogram import LogMelConfig
from asit_platform.cli import main
from asit_platform.data.check import check_dataset
from asit_platform.data.dataset import CLIPS_FILE, DATASET_FILE, DatasetInfo
from asit_platform.data.prepare import PrepareOptions, prepare
from asit_platform.data.readers.esc50 import read_esc50
from asit_platform.data.shard_file import FINGERPRINT_KEY, FRONT_END_KEY, file_sha256
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

Change = Callable[[pa.Table], pa.Table]


def _faults(folder: Path) -> tuple[str, ...]:
    return check_dataset(folder, lambda done, total: None).faults


def _first_shard(folder: Path) -> Path:
    return folder / DatasetInfo.read(folder).shards[0].file


def _rewrite(folder: Path, change: Change) -> None:
    """Change the first shard as a program with an error would: its size and hash are right."""
    path = _first_shard(folder)
    pq.write_table(change(pq.read_table(path)), path, compression="none", use_dictionary=False)
    raw = json.loads((folder / DATASET_FILE).read_text())
    raw["shards"][0] |= {"bytes": path.stat().st_size, "sha256": file_sha256(Place.of(path))}
    (folder / DATASET_FILE).write_text(json.dumps(raw))


def _with(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    field = table.schema.field(name)
    column = pa.array(values, field.type)
    return table.set_column(table.column_names.index(name), field, column)


def _with_column(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


def _with_value(value: float, *rows: int) -> Change:
    def change(table: pa.Table) -> pa.Table:
        held = table["log_mel"].to_pylist()
        for row in rows:
            log_mel = np.frombuffer(held[row], dtype=np.float16).copy()
            log_mel[-1] = value
            held[row] = log_mel.tobytes()
        return _with(table, "log_mel", held)

    return change


def _replace_metadata(key: bytes, value: bytes) -> Change:
    return lambda table: table.replace_schema_metadata({**table.schema.metadata, key: value})


@pytest.mark.ray
def test_a_whole_dataset_is_whole(built_once: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[int, int]] = []
    report = check_dataset(built_once, lambda done, total: seen.append((done, total)))
    assert report.faults == ()
    assert seen == [(done, 5) for done in range(1, 6)]
    assert main(["data", "check", str(built_once)]) == 0
    assert f"{built_once}: whole: 5 shards, 60 clips, " in capsys.readouterr().out
    assert main(["data", "check", str(built_once), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["faults"], summary["num_clips"]) == ([], 60)


@pytest.mark.ray
def test_all_faults_are_found_in_one_run(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flipped, cut, gone, text = (built / shard.file for shard in DatasetInfo.read(built).shards[:4])
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[:1000])
    gone.unlink()
    text.write_text("not a shard")
    assert main(["data", "check", str(built)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    first, *lines = shown.err.splitlines()
    assert first.startswith(f"error: {built}: must be whole, but 4 faults were found; ")
    for path, line in zip((flipped, cut, gone, text), lines, strict=True):
        assert line.startswith(f"{path}: ")
        assert ("shard must exist" if path is gone else "content hash must be") in line
    assert main(["data", "check", str(built), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["faults"] == lines


@pytest.mark.ray
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_with_value(np.nan, 3), r"log_mel must be finite, but is not for clip '\S+'$"),
        (_with_value(-np.inf, 0, 5), r"log_mel must be finite, but is not for clip '\S+' and 1 mo"),
        (
            lambda table: _with(
                table, "log_mel", [held[:-2] for held in table["log_mel"].to_pylist()]
            ),
            "log_mel must be as long as num_frames says, but is not for clip",
        ),
        (
            lambda table: _with(table, "fold", [1 - table["fold"][0].as_py()] * len(table)),
            r"fold must be as clips\.parquet lists it, but differs for clip",
        ),
        (
            lambda table: _with(table, "labels", [[7], *table["labels"].to_pylist()[1:]]),
            r"labels must be as clips\.parquet lists it, but differs for clip '\S+'$",
        ),
        (lambda table: table.slice(1), r"must hold 12 clips, but holds 11"),
        (lambda table: table.slice(1), r"clips must be those that clips\.parquet lists"),
        (lambda table: table.drop_columns(["source"]), "columns must be clip_id string, labels"),
        (_replace_metadata(FINGERPRINT_KEY, b"old"), r"fingerprint must be \w+, but got old"),
        (_replace_metadata(FINGERPRINT_KEY, b"\xff"), r"fingerprint must be \w+, but got "),
        (_replace_metadata(FRONT_END_KEY, b"{}"), r"front end must be .*, but got \{\}"),
        (_replace_metadata(FRONT_END_KEY, b"{"), r"front end must be .*, but got '\{'"),
        (_replace_metadata(FRONT_END_KEY, b"\xff"), r"front end must be .*, but got '"),
        (
            lambda table: _with(table, "log_mel", [None, *table["log_mel"].to_pylist()[1:]]),
            "log_mel must have a value for every clip, but has none for 1",
        ),
    ],
)
def test_a_shard_that_was_written_wrong_is_told_apart_from_a_damaged_one(
    built: Path, change: Change, message: str
) -> None:
    _rewrite(built, change)
    faults = _faults(built)
    assert all(fault.startswith(f"{_first_shard(built)}: ") for fault in faults)
    assert any(re.search(message, fault) for fault in faults), faults


@pytest.mark.ray
def test_lists_that_disagree_are_faults(built: Path) -> None:
    clips = pq.read_table(built / CLIPS_FILE)
    pq.write_table(clips.slice(1), built / CLIPS_FILE)
    listed, shard = _faults(built)
    assert listed.endswith("clips.parquet: must list 60 clips, but lists 59")
    assert "clips must be those that" in shard
    pq.write_table(clips, built / CLIPS_FILE)
    raw = json.loads((built / DATASET_FILE).read_text())
    (built / DATASET_FILE).write_text(json.dumps({**raw, "fingerprint": "other"}))
    (fault,) = _faults(built)
    assert re.search(r"fingerprint must be \w+, of its shards, but got other", fault)


@pytest.mark.ray
def test_a_list_that_is_none_is_a_fault(built: Path) -> None:
    clips = pq.read_table(built / CLIPS_FILE)
    pq.write_table(clips.slice(0, 0), built / CLIPS_FILE)
    listed, *shards = _faults(built)
    assert listed.endswith("clips.parquet: must list 60 clips, but lists 0")
    assert len(shards) == 5
    assert all("clips must be those that" in fault for fault in shards)
    numbers = pa.array(range(len(clips)), pa.int64())
    for damaged, got in (
        (clips.drop_columns(["shard"]), "no shard"),
        (clips.drop_columns(["clip_id", "fold"]), "no clip_id, no fold"),
        (_with_column(clips, "shard", numbers), "shard int64"),
    ):
        pq.write_table(damaged, built / CLIPS_FILE)
        (fault,) = _faults(built)
        assert "clips.parquet: columns must be clip_id string, labels list" in fault
        assert fault.endswith(f", shard string, but got {got}")
    _first_shard(built).unlink()  # the shards are looked at all the same
    assert len(_faults(built)) == 2
    empty = _with_column(clips, "shard", pa.nulls(len(clips), pa.string()))
    pq.write_table(empty, built / CLIPS_FILE)
    assert len(_faults(built)) == 5


@pytest.mark.ray
def test_what_is_no_dataset_is_one_line(built: Path, tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="dataset folder must exist"):
        _faults(tmp_path / "nowhere")
    (built / CLIPS_FILE).write_text("not a table")
    with pytest.raises(PlatformError, match=r"clips\.parquet: must be readable, but .*; build the"):
        _faults(built)


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_waveform_shards_are_checked_too(
    esc50: Path, tmp_path: Path, front_end: LogMelConfig
) -> None:
    out = tmp_path / "waveforms"
    prepare(read_esc50(esc50), out, PrepareOptions(front_end=front_end, content="waveform"))
    assert _faults(out) == ()
    _rewrite(
        out,
        lambda table: _with(
            table, "num_samples", [n + 1 for n in table["num_samples"].to_pylist()]
        ),
    )
    (fault,) = _faults(out)
    assert "waveform must be as long as num_samples says, but is not for clip" in fault


@pytest.mark.ray
def test_a_dataset_in_a_bucket_is_checked_there(built_once: Path, bucket_url: str) -> None:
    folder = Place.of(bucket_url) / "checked"
    for path in (*built_once.glob("*.*"), *built_once.glob("shards/*")):
        (folder / path.relative_to(built_once).as_posix()).write_whole(path.read_bytes())
    assert check_dataset(folder, lambda done, total: None).faults == ()
    (folder / DatasetInfo.read(folder).shards[2].file).unlink()
    (fault,) = check_dataset(folder, lambda done, total: None).faults
    assert fault.endswith(": shard must exist, but it does not")
