import csv
import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from asit_core.spectrogram import LogMel, LogMelConfig
from asit_core.waveform import load_waveform
from asit_platform.data import shards
from asit_platform.data.dataset import DatasetInfo
from asit_platform.data.datasets import read_esc50
from asit_platform.data.prepare import PrepareOptions, prepare
from asit_platform.errors import PlatformError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

Break = Callable[[Path, str], object]


@pytest.fixture
def options(front_end: LogMelConfig) -> PrepareOptions:
    return PrepareOptions(front_end=front_end)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def skipped_rows(out: Path) -> list[dict[str, str]]:
    with (out / "skipped.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_shards_hold_the_front_end_of_each_file(
    esc50: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    info = prepare(read_esc50(esc50), tmp_path / "out", options)
    assert info == DatasetInfo.open(tmp_path / "out")
    assert (info.num_clips, info.folds, info.skipped) == (20, (1, 2, 3, 4, 5), 0)
    log_mel = LogMel(options.front_end)
    num_seen = 0
    for shard in info.shards:
        file = pq.ParquetFile(info.folder / shard.file)
        metadata = file.schema_arrow.metadata
        assert metadata[b"asit.fingerprint"].decode() == info.fingerprint
        assert json.loads(metadata[b"asit.front_end"]) == dataclasses.asdict(options.front_end)
        for row in file.read().to_pylist():
            waveform = load_waveform(
                esc50 / "audio" / f"{row['clip_id']}.wav", sample_rate_hz=16000
            )
            expected = log_mel(waveform[None])[0].numpy().astype(np.float16)
            assert row["log_mel"] == expected.tobytes()
            assert row["num_frames"] == len(expected)
            assert row["fold"] == shard.fold
            num_seen += 1
    assert num_seen == 20
    assert info.max_frames == max(info.clips()["num_frames"].to_pylist())


def test_two_builds_are_byte_identical_wherever_they_lie(
    esc50: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    first = prepare(read_esc50(esc50), tmp_path / "a", options)
    second = prepare(read_esc50(esc50), tmp_path / "b", options)
    assert first.fingerprint == second.fingerprint
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_large_folds_are_split_evenly_and_labels_mixed(esc50: Path) -> None:
    clip = read_esc50(esc50).clips[0]
    clips = [
        dataclasses.replace(clip, clip_id=f"{label}-{number:04d}", label=label)
        for label in range(2)
        for number in range(65)
    ]
    plans = shards.plan_shards(clips)
    assert [len(plan.clips) for plan in plans] == [43, 43, 44]
    assert sorted(clip.clip_id for plan in plans for clip in plan.clips) == sorted(
        clip.clip_id for clip in clips
    )
    for plan in plans:
        assert 10 < sum(clip.label for clip in plan.clips) < 34
    assert plans == shards.plan_shards(reversed(clips))


def test_broken_clips_are_skipped_counted_and_listed(
    esc50: Path, tmp_path: Path, options: PrepareOptions, break_clip: Break
) -> None:
    reasons = {
        "zero bytes": "cannot be decoded as audio",
        "text": "cannot be decoded as audio",
        "NaN": "NaN or infinity",
        "no samples": "holds no samples",
        "shorter than a frame": "must last at least one frame",
        "missing": "is not a file",
        "truncated flac": "",
        "silence": "digital silence",
    }
    paths = dict(zip(reasons, sorted((esc50 / "audio").iterdir()), strict=False))
    for how, path in paths.items():
        break_clip(path, how)
    allowed = dataclasses.replace(options, max_skipped=0.5)
    info = prepare(read_esc50(esc50), tmp_path / "out", allowed)
    assert (info.num_clips, info.skipped, info.silent) == (12, 8, 1)
    listed = {row["path"]: row["reason"] for row in skipped_rows(info.folder)}
    assert set(listed) == {str(path) for path in paths.values()}
    for how, reason in reasons.items():
        assert reason in listed[str(paths[how])], how
        assert listed[str(paths[how])], how
    kept = info.clips()["path"].to_pylist()
    assert not set(kept) & set(listed)


def test_stereo_is_averaged(esc50: Path, tmp_path: Path, options: PrepareOptions) -> None:
    path = esc50 / "audio" / "1-1000-A-0.wav"
    samples, rate_hz = soundfile.read(path)
    soundfile.write(path, np.stack((2 * samples, 0 * samples), axis=1), rate_hz, subtype="FLOAT")
    info = prepare(read_esc50(esc50), tmp_path / "out", options)
    shard = info.clips()["shard"].to_pylist()[0]
    row = pq.read_table(info.folder / shard, filters=[("clip_id", "=", path.stem)]).to_pylist()[0]
    mono = torch.from_numpy(samples).float()[None]
    expected = LogMel(options.front_end)(mono)[0].numpy().ravel()
    assert np.allclose(np.frombuffer(row["log_mel"], np.float16), expected, atol=0.02)


def test_silence_is_kept_on_request(
    esc50: Path, tmp_path: Path, options: PrepareOptions, break_clip: Break
) -> None:
    break_clip(esc50 / "audio" / "3-1002-A-10.wav", "silence")
    kept = dataclasses.replace(options, keep_silent=True)
    info = prepare(read_esc50(esc50), tmp_path / "out", kept)
    assert (info.num_clips, info.skipped, info.silent) == (20, 0, 1)


def test_more_than_the_share_allowed_is_an_error_until_allowed(
    esc50: Path, tmp_path: Path, options: PrepareOptions, break_clip: Break
) -> None:
    break_clip(esc50 / "audio" / "1-1000-A-0.wav", "text")
    break_clip(esc50 / "audio" / "2-1001-A-0.wav", "silence")
    listing = read_esc50(esc50)
    with pytest.raises(PlatformError, match=r"skipped\.csv: at most 5%.*2 of 20 \(10\.0%; 1 of"):
        prepare(listing, tmp_path / "out", options)
    assert len(skipped_rows(tmp_path / "out")) == 2
    with pytest.raises(PlatformError, match="a build that did not end"):
        DatasetInfo.open(tmp_path / "out")
    info = prepare(listing, tmp_path / "out", dataclasses.replace(options, max_skipped=0.1))
    assert info.skipped == 2


def test_no_readable_audio(
    esc50: Path, tmp_path: Path, options: PrepareOptions, break_clip: Break
) -> None:
    for path in (esc50 / "audio").iterdir():
        break_clip(path, "zero bytes")
    with pytest.raises(PlatformError, match=r"none of 20 is \(first: .*1-1000-A-0\.wav"):
        prepare(read_esc50(esc50), tmp_path / "out", options)


def test_a_label_left_with_one_clip(
    esc50: Path, tmp_path: Path, options: PrepareOptions, break_clip: Break
) -> None:
    for path in sorted((esc50 / "audio").glob("*-10.wav"))[1:]:
        break_clip(path, "text")
    allowed = dataclasses.replace(options, max_skipped=1.0)
    with pytest.raises(PlatformError, match=r"at least 2 usable clips, but got rain \(1\)"):
        prepare(read_esc50(esc50), tmp_path / "out", allowed)


def test_a_second_build_of_the_same_is_left_as_it_is(
    esc50: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    out = tmp_path / "out"
    first = prepare(read_esc50(esc50), out, options)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    calls = []
    second = prepare(read_esc50(esc50), out, options, on_progress=lambda *call: calls.append(call))
    assert first == second
    assert not calls
    assert times == {path: path.stat().st_mtime_ns for path in out.rglob("*")}


def test_a_damaged_or_unfinished_build_is_mended(
    esc50: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    out = tmp_path / "out"
    info = prepare(read_esc50(esc50), out, options)
    before = contents(out)
    os.truncate(out / info.shards[0].file, 10)
    prepare(read_esc50(esc50), out, options)
    assert contents(out) == before
    (out / "dataset.json").unlink()
    (out / "shards" / "fold9-00000.parquet").write_bytes(b"left over")
    (out / "shards" / ".fold1-00000.parquet.123.tmp").write_bytes(b"left over")
    prepare(read_esc50(esc50), out, options)
    assert contents(out) == before


def test_another_dataset_is_never_overwritten(
    esc50: Path, tmp_path: Path, options: PrepareOptions, break_clip: Break
) -> None:
    out = tmp_path / "out"
    prepare(read_esc50(esc50), out, options)
    before = contents(out)
    other = dataclasses.replace(options.front_end, num_mel_bins=8)
    with pytest.raises(PlatformError, match=r"another \(ESC-50: num_mel_bins 16, wanted 8\)"):
        prepare(read_esc50(esc50), out, dataclasses.replace(options, front_end=other))
    break_clip(esc50 / "audio" / "1-1000-A-0.wav", "text")
    with pytest.raises(PlatformError, match=r"another \(ESC-50: fingerprint \w+, wanted \w+\)"):
        prepare(read_esc50(esc50), out, options)
    assert contents(out) == before


def test_a_folder_with_other_files_is_left_alone(
    esc50: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("precious")
    with pytest.raises(PlatformError, match=r"new or empty folder, but it holds 'thesis\.tex'"):
        prepare(read_esc50(esc50), out, options)
    assert contents(out) == {"thesis.tex": b"precious"}


def test_progress_counts_clips(esc50: Path, tmp_path: Path, options: PrepareOptions) -> None:
    calls: list[tuple[int, int]] = []
    prepare(
        read_esc50(esc50),
        tmp_path / "out",
        options,
        on_progress=lambda done, total: calls.append((done, total)),
    )
    assert calls[0] == (0, 20)
    assert calls[-1] == (20, 20)
    assert calls == sorted(calls)


def test_audio_of_someone_else_is_left_alone(
    esc50: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    listing = read_esc50(esc50)
    shutil.rmtree(esc50 / "meta")  # what is left looks like the folder of a synthetic set
    before = contents(esc50)
    with pytest.raises(PlatformError, match=r"it holds 'audio/1-1000-A-0\.wav' and more"):
        prepare(listing, esc50, options)
    assert contents(esc50) == before


def test_a_folder_that_cannot_be_made(esc50: Path, tmp_path: Path, options: PrepareOptions) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(PlatformError, match=r"--out must be"):
            prepare(read_esc50(esc50), out, options)


def test_a_shard_that_cannot_be_written(
    esc50: Path, tmp_path: Path, front_end: LogMelConfig
) -> None:
    (plan,) = shards.plan_shards(read_esc50(esc50).clips[:2])
    plan = plan._replace(file="no/such/folder.parquet")
    building = shards.build_shards(
        [plan], tmp_path, front_end=front_end, fingerprint="f", keep_silent=False
    )
    with pytest.raises(PlatformError, match=r"--out must be writable, but .*folder\.parquet"):
        list(building)


def test_esc10_recordings(esc10: Path, tmp_path: Path) -> None:
    options = PrepareOptions(front_end=LogMelConfig(sample_rate_hz=16000, num_mel_bins=32))
    info = prepare(read_esc50(esc10), tmp_path / "out", options)
    assert info.name == "ESC-10 subset of ESC-50"
    assert (info.num_clips, info.num_labels, info.folds) == (400, 10, (1, 2, 3, 4, 5))
    clips = info.clips()
    assert len(set(clips["source"].to_pylist())) < 400
    assert info.duration_s == pytest.approx(2000, rel=0.01)
