"""One shard in this process: no Ray."""

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from asit_core.spectrogram import LogMel, LogMelConfig
from asit_core.waveform import load_waveform
from asit_platform.data.manifest import MANIFEST_SCHEMA
from asit_platform.data.options import PrepareOptions
from asit_platform.data.shard_file import Shard
from asit_platform.data.shard_report import ClipOutcome, ShardReport
from asit_platform.data.shard_task import build_block
from asit_platform.storage import Place

RATE_HZ = 16000
FILE = "shards/fold1-00000.parquet"


def noise(num_samples: int, *, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(num_samples)


def make_row(path: object, **fields: Any) -> dict[str, Any]:
    clip_id = fields.pop("clip_id", str(path).rpartition("/")[2])
    row = {"clip_id": clip_id, "path": str(path), "labels": [0], "fold": 1, "source": clip_id}
    return {**row, "start_s": 0.0, "stop_s": None, **fields}


def build(
    out: Path | Place, rows: list[dict[str, Any]], options: PrepareOptions
) -> tuple[Shard, ShardReport]:
    (Place.of(out) / "shards").mkdir()
    block = pa.Table.from_pylist(rows, schema=MANIFEST_SCHEMA)
    block = block.append_column("file", pa.array([FILE] * len(rows)))
    answer = json.loads(build_block(block, out=str(out), options=options)["answer"][0].as_py())
    assert "error" not in answer, answer
    return Shard(**answer["shard"]), ShardReport.from_json(answer["report"])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def options(front_end: LogMelConfig) -> PrepareOptions:
    return PrepareOptions(front_end=front_end)


def test_a_shard_of_spectrograms(tmp_path: Path, options: PrepareOptions) -> None:
    paths = [tmp_path / f"{number}.wav" for number in range(40)]
    for number, path in enumerate(paths):
        soundfile.write(path, noise(1600 + 160 * number, seed=number), RATE_HZ)
    rows = [make_row(path, labels=[number % 3, 7], fold=4) for number, path in enumerate(paths)]
    shard, report = build(tmp_path, rows, options)
    path = tmp_path / FILE
    assert shard == Shard(
        file=FILE,
        fold=4,
        num_rows=40,
        num_bytes=path.stat().st_size,
        sha256=sha256(path),
        fingerprint=shard.fingerprint,
    )
    file = pq.ParquetFile(path)
    assert [file.metadata.row_group(number).num_rows for number in range(2)] == [20, 20]
    column = file.metadata.row_group(0).column(5)
    assert (column.path_in_schema, column.compression) == ("log_mel", "UNCOMPRESSED")
    assert not column.has_dictionary_page
    assert file.schema_arrow.field("log_mel").type == pa.large_binary()
    metadata = file.schema_arrow.metadata
    assert metadata[b"asit.fingerprint"].decode() == shard.fingerprint
    assert json.loads(metadata[b"asit.front_end"]) == dataclasses.asdict(options.front_end)
    assert ShardReport.from_json(metadata[b"asit.report"]) == report
    values = []
    for number, row in enumerate(file.read().to_pylist()):
        waveform = load_waveform(paths[number], sample_rate_hz=RATE_HZ)
        expected = LogMel(options.front_end)(waveform[None])[0].numpy().astype(np.float16)
        assert row.pop("log_mel") == expected.tobytes()
        assert row == {
            "clip_id": paths[number].name,
            "labels": [number % 3, 7],
            "fold": 4,
            "source": paths[number].name,
            "num_frames": len(expected),
        }
        assert report.outcomes[number] == ClipOutcome(
            reason="",
            silent=False,
            num_frames=len(expected),
            duration_s=len(waveform) / RATE_HZ,
            content_sha256=sha256(paths[number]),
            num_bytes=paths[number].stat().st_size,
        )
        values.append(expected.ravel().astype(np.float64))
    everything = np.concatenate(values)
    assert report.statistics.count == everything.size
    assert report.statistics.mean == pytest.approx(everything.mean(), rel=1e-9)
    assert report.statistics.m2 == pytest.approx(everything.var() * everything.size, rel=1e-9)


def test_a_shard_of_waveforms_keeps_16_bit_samples_as_they_were(
    tmp_path: Path, options: PrepareOptions
) -> None:
    samples_S = np.array([0, 1, -1, 32767, -32768, 1234] * 500, dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", samples_S, RATE_HZ)
    loud_S = np.tile([1.5, -1.5, 0.25], 1000)
    soundfile.write(tmp_path / "b.wav", loud_S, RATE_HZ, subtype="FLOAT")
    rows = [make_row(tmp_path / name) for name in ("a.wav", "b.wav")]
    waveforms = dataclasses.replace(options, content="waveform")
    _, report = build(tmp_path, rows, waveforms)
    table = pq.read_table(tmp_path / FILE)
    assert table.column_names[4:] == ["num_samples", "waveform"]
    assert table["num_samples"].to_pylist() == [3000, 3000]
    first, second = (np.frombuffer(row, np.int16) for row in table["waveform"].to_pylist())
    assert np.array_equal(first, samples_S)
    assert np.array_equal(second, np.tile([32767, -32768, 8192], 1000))
    heard = torch.from_numpy(np.stack([first, second])).float() / 32768
    log_mel = LogMel(options.front_end)(heard).numpy().astype(np.float16).astype(np.float64)
    assert report.statistics.mean == pytest.approx(log_mel.mean(), rel=1e-6)
    assert report.outcomes[0].num_frames == log_mel.shape[1]


def test_parts_of_a_recording(tmp_path: Path, options: PrepareOptions) -> None:
    path = tmp_path / "long.flac"
    soundfile.write(path, noise(2 * RATE_HZ), RATE_HZ)
    parts = ((0.0, 0.5), (0.5, 1.25), (1.5, None), (1.5, 9.0), (2.0, None), (0.7, 0.7))
    rows = [
        make_row(path, clip_id=str(number), start_s=start_s, stop_s=stop_s)
        for number, (start_s, stop_s) in enumerate(parts)
    ]
    _, report = build(tmp_path, rows, dataclasses.replace(options, content="waveform"))
    assert [outcome.duration_s for outcome in report.outcomes] == [0.5, 0.75, 0.5, 0.5, 0, 0]
    assert "must last longer than 2 s, where the clip begins" in report.outcomes[4].reason
    assert "holds no samples" in report.outcomes[5].reason
    whole = soundfile.read(path, dtype="int16")[0]
    kept = [
        np.frombuffer(row, np.int16)
        for row in pq.read_table(tmp_path / FILE)["waveform"].to_pylist()
    ]
    assert np.array_equal(np.concatenate(kept[:2]), whole[:20000])
    assert np.array_equal(kept[2], whole[24000:])


def _headless_wav(path: Path) -> None:
    encoded = io.BytesIO()
    soundfile.write(encoded, noise(RATE_HZ), RATE_HZ, format="WAV")
    path.write_bytes(encoded.getvalue()[:20])


def _flac_of_68e9_samples(path: Path) -> None:
    soundfile.write(path, noise(RATE_HZ), RATE_HZ)
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4
    path.write_bytes(content)


_BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "zero bytes.wav": (lambda path: path.write_bytes(b""), "cannot be decoded as audio"),
    "text.wav": (lambda path: path.write_text("no audio\n" * 50), "cannot be decoded as audio"),
    "half a header.wav": (_headless_wav, "cannot be decoded as audio"),
    "3 samples.wav": (
        lambda path: soundfile.write(path, noise(3), RATE_HZ),
        "must last at least one frame (25 ms), but got 3 samples at 16000 Hz",
    ),
    "no samples.wav": (lambda path: soundfile.write(path, noise(0), RATE_HZ), "holds no samples"),
    "nan.wav": (
        lambda path: soundfile.write(path, np.full(RATE_HZ, np.nan), RATE_HZ, subtype="FLOAT"),
        "samples must be finite",
    ),
    "loud.wav": (
        lambda path: soundfile.write(path, np.r_[noise(8000), 1e25], RATE_HZ, subtype="FLOAT"),
        "samples must be scaled to [-1, 1], but got a peak of 1e+25",
    ),
    "overflow.wav": (
        lambda path: soundfile.write(path, np.full((99, 2), 3e38), RATE_HZ, subtype="FLOAT"),
        "samples must be finite",
    ),
    "length.flac": (_flac_of_68e9_samples, "cannot be decoded as audio"),
    "zeros.wav": (lambda path: soundfile.write(path, np.zeros(8000), RATE_HZ), "digital silence"),
    "a folder.wav": (Path.mkdir, "is not a file"),
    "loop.wav": (lambda path: path.symlink_to(path), "is not a file"),
    "dangling.wav": (lambda path: path.symlink_to("nowhere"), "is not a file"),
    "missing.wav": (lambda path: None, "is not a file"),
    "not mounted.wav": (lambda path: path.symlink_to("/proc/self/mem"), "cannot be read"),
}
_USABLE: dict[str, Callable[[Path], object]] = {
    "stereo.wav": lambda path: soundfile.write(path, noise(16000).reshape(-1, 2), RATE_HZ),
    "8 bit.wav": lambda path: soundfile.write(path, noise(8000), RATE_HZ, subtype="PCM_U8"),
    "96 kHz.flac": lambda path: soundfile.write(path, noise(48000), 96000),
    "größe 日本 \N{ROCKET}.ogg": lambda path: soundfile.write(path, noise(8000), RATE_HZ),
    "-rf *; $(x) 'a\" b,c.wav": lambda path: soundfile.write(path, noise(8000), RATE_HZ),
    "line\nbreak.wav": lambda path: soundfile.write(path, noise(8000), RATE_HZ),
    "flac named.wav": lambda path: soundfile.write(path, noise(8000), RATE_HZ, format="FLAC"),
}


def test_broken_files_are_told_from_odd_ones(tmp_path: Path, options: PrepareOptions) -> None:
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    for name, (make, _) in _BROKEN.items():
        make(sounds / name)
    for name, make in _USABLE.items():
        make(sounds / name)
    rows = [make_row(sounds / name) for name in (*_BROKEN, *_USABLE)]
    shard, report = build(tmp_path, rows, options)
    assert shard.num_rows == len(_USABLE)
    assert np.isfinite([report.statistics.mean, report.statistics.m2]).all()
    assert pq.read_table(tmp_path / FILE)["clip_id"].to_pylist() == list(_USABLE)
    for (name, (_, reason)), outcome in zip(_BROKEN.items(), report.outcomes, strict=False):
        assert reason in outcome.reason, name
        assert str(tmp_path) not in outcome.reason, name
        assert "\n" not in outcome.reason, name
    durations = [outcome.duration_s for outcome in report.outcomes[len(_BROKEN) :]]
    assert durations == pytest.approx([0.5] * len(_USABLE), abs=0.01)


def test_a_truncated_flac_is_left_out(tmp_path: Path, options: PrepareOptions) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(4 * RATE_HZ), RATE_HZ)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    _, report = build(tmp_path, [make_row(path)], options)
    assert report.outcomes[0].reason.startswith("cannot be decoded as audio")
    assert report.outcomes[0].duration_s == 0


def test_what_the_platform_refuses_in_a_task_is_one_line(
    tmp_path: Path, options: PrepareOptions
) -> None:
    block = pa.Table.from_pylist([make_row("http://h/x.wav")], schema=MANIFEST_SCHEMA)
    block = block.append_column("file", pa.array([FILE]))
    answer = json.loads(build_block(block, out=str(tmp_path), options=options)["answer"][0].as_py())
    assert answer["error"].startswith("http://h/x.wav: must be a local path or begin with file:")


def test_a_part_that_is_no_number_is_left_out(tmp_path: Path, options: PrepareOptions) -> None:
    soundfile.write(tmp_path / "a.wav", noise(RATE_HZ), RATE_HZ)
    starts = (float("nan"), float("inf"))
    rows = [make_row(tmp_path / "a.wav", start_s=start_s) for start_s in starts]
    _, report = build(tmp_path, rows, options)
    assert [outcome.reason[:25] for outcome in report.outcomes] == ["cannot be decoded as audi"] * 2


def test_silence_is_kept_on_request(tmp_path: Path, options: PrepareOptions) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), RATE_HZ)
    rows = [make_row(tmp_path / "a.wav")]
    keep = dataclasses.replace(options, keep_silent=True)
    shard, report = build(tmp_path / "keep", rows, keep)
    assert (shard.num_rows, report.outcomes[0].silent, report.outcomes[0].reason) == (1, True, "")
    shard, report = build(tmp_path / "drop", rows, options)
    assert (shard.num_rows, report.outcomes[0].silent) == (0, True)


@pytest.mark.parametrize("content", ["log_mel", "waveform"])
def test_bytes_depend_on_no_path_time_or_number_of_threads(
    tmp_path: Path, options: PrepareOptions, content: Any
) -> None:
    found = []
    for name, num_threads in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "x.wav", noise(RATE_HZ), 44100)
        (tmp_path / name / "broken.wav").write_bytes(b"")
        (tmp_path / name / "loop.wav").symlink_to(tmp_path / name / "loop.wav")
        names = ("x.wav", "broken.wav", "loop.wav", "missing.wav")
        rows = [make_row(tmp_path / name / each) for each in names]
        before = torch.get_num_threads()
        torch.set_num_threads(num_threads)
        try:
            build(tmp_path / name, rows, dataclasses.replace(options, content=content))
            assert torch.get_num_threads() == num_threads
        finally:
            torch.set_num_threads(before)
        found.append((tmp_path / name / FILE).read_bytes())
    assert found[0] == found[1]


def test_sound_and_shards_in_a_bucket(
    bucket_url: str, tmp_path: Path, options: PrepareOptions
) -> None:
    soundfile.write(tmp_path / "a b.wav", noise(RATE_HZ), RATE_HZ)
    remote = Place.of(bucket_url)
    (remote / "a b.wav").write_whole((tmp_path / "a b.wav").read_bytes())
    rows = [make_row(remote / name, clip_id=name) for name in ("a b.wav", "none.wav")]
    shard, report = build(remote, rows, options)
    assert [outcome.reason for outcome in report.outcomes] == ["", "is not a file; check the path"]
    local_rows = [make_row(tmp_path / name) for name in ("a b.wav", "none.wav")]
    assert build(tmp_path, local_rows, options) == (shard, report)
    assert (remote / FILE).read_bytes() == (tmp_path / FILE).read_bytes()
