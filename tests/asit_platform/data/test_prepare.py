import csv
import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from asit_core.spectrogram import LogMelConfig
from asit_platform.data import shards
from asit_platform.data.dataset import DatasetInfo
from asit_platform.data.manifest import Manifest
from asit_platform.data.manifest_file import read_manifest
from asit_platform.data.prepare import PrepareOptions, prepare
from asit_platform.data.readers.esc50 import read_esc50
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

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


def inodes(folder: Path) -> dict[str, tuple[int, int]]:
    """With the time of writing: a number that was freed is given out again."""
    stats = {path.name: path.stat() for path in sorted(folder.glob("shards/*"))}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


@pytest.mark.parametrize("content", ["log_mel", "waveform"])
def test_what_is_built_is_what_is_opened(
    esc50: Path, tmp_path: Path, options: PrepareOptions, content: Any
) -> None:
    given = dataclasses.replace(options, content=content)
    info = prepare(read_esc50(esc50), tmp_path / "out", given)
    assert info == DatasetInfo.open(tmp_path / "out")
    assert (info.num_clips, info.folds, info.skipped) == (20, (1, 2, 3, 4, 5), 0)
    assert info.content == content
    clips = info.clips()
    assert info.max_frames == max(clips["num_frames"].to_pylist())
    assert info.duration_s == pytest.approx(sum(clips["duration_s"].to_pylist()))
    in_shards = {}
    for shard in info.shards:
        table = pq.read_table((info.folder / shard.file).local)
        assert set(table["fold"].to_pylist()) == {shard.fold}
        in_shards |= dict.fromkeys(table["clip_id"].to_pylist(), shard.file)
    assert in_shards == dict(
        zip(clips["clip_id"].to_pylist(), clips["shard"].to_pylist(), strict=True)
    )
    listed = read_manifest(tmp_path / "out" / "manifest.parquet")
    assert listed.clips.equals(clips.select(listed.clips.column_names))


def test_two_builds_are_byte_identical_wherever_they_lie(
    esc50: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    first = prepare(read_esc50(esc50), tmp_path / "a", options)
    second = prepare(read_esc50(esc50), tmp_path / "b", options)
    assert first.fingerprint == second.fingerprint
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


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
    listed = {row["path"]: row["reason"] for row in skipped_rows(tmp_path / "out")}
    assert set(listed) == {str(path) for path in paths.values()}
    for how, reason in reasons.items():
        assert reason in listed[str(paths[how])], how
        assert listed[str(paths[how])], how
    kept = info.clips()["path"].to_pylist()
    assert not set(kept) & set(listed)


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


def test_finished_shards_are_not_built_again(
    esc50: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    out = tmp_path / "out"
    info = prepare(read_esc50(esc50), out, options)
    before, first = contents(out), inodes(out)
    (out / "dataset.json").unlink()  # as if killed: one shard missing, one half written
    (out / info.shards[0].file).unlink()
    os.truncate(out / info.shards[1].file, 1000)
    assert prepare(read_esc50(esc50), out, options) == info
    assert contents(out) == before
    changed = [name for name, inode in inodes(out).items() if inode != first[name]]
    assert changed == ["fold1-00000.parquet", "fold2-00000.parquet"]


def test_a_changed_sound_is_read_again(
    esc50: Path, tmp_path: Path, options: PrepareOptions, break_clip: Break
) -> None:
    out = tmp_path / "out"
    info = prepare(read_esc50(esc50), out, options)
    first = inodes(out)
    break_clip(esc50 / "audio" / "4-1003-A-0.wav", "text")
    again = prepare(read_esc50(esc50), out, options)
    assert (again.num_clips, again.skipped) == (19, 1)
    assert again.fingerprint != info.fingerprint
    changed = [name for name, inode in inodes(out).items() if inode != first[name]]
    assert changed == ["fold4-00000.parquet"]
    (esc50 / "audio" / "1-1000-A-0.wav").unlink()  # what was read of it is in the shard
    assert prepare(read_esc50(esc50), out, options) == again


def test_other_sounds_of_the_same_size_elsewhere_are_read(
    esc50: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    other = Path(shutil.copytree(esc50, tmp_path / "other"))
    swapped = [other / "audio" / name for name in ("2-1001-A-0.wav", "2-1001-A-10.wav")]
    contents_of = [path.read_bytes() for path in swapped]
    for path, content in zip(swapped, reversed(contents_of), strict=True):
        path.write_bytes(content)
    out = tmp_path / "out"
    prepare(read_esc50(esc50), out, options)
    first = inodes(out)
    prepare(read_esc50(other), out, options)
    changed = [name for name, inode in inodes(out).items() if inode != first[name]]
    assert changed == ["fold2-00000.parquet"]
    prepare(read_esc50(other), tmp_path / "fresh", options)
    assert contents(out) == contents(tmp_path / "fresh")


def test_a_finished_shard_with_any_other_byte_is_built_again(
    esc50: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    out = tmp_path / "out"
    info = prepare(read_esc50(esc50), out, options)
    before = contents(out)
    path = out / info.shards[0].file
    path.write_bytes(path.read_bytes().replace(b"parquet-cpp", b"parquet-cpq"))
    assert contents(out) != before
    prepare(read_esc50(esc50), out, options)
    assert contents(out) == before


def test_a_shard_without_a_usable_clip(
    esc50: Path, tmp_path: Path, options: PrepareOptions, break_clip: Break
) -> None:
    for path in (esc50 / "audio").glob("3-*"):
        break_clip(path, "text")
    given = dataclasses.replace(options, max_skipped=0.5)
    calls: list[tuple[int, int]] = []
    info = prepare(read_esc50(esc50), tmp_path / "out", given)
    assert info.folds == (1, 2, 4, 5)
    assert len(info.shards) == 4
    again = prepare(
        read_esc50(esc50),
        tmp_path / "out",
        given,
        on_progress=lambda done, total: calls.append((done, total)),
    )
    assert again == info
    assert not calls


def test_the_same_sound_in_two_folds_is_warned_of(
    esc50: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    shutil.copy(esc50 / "audio" / "1-1000-A-0.wav", esc50 / "audio" / "2-1001-A-0.wav")
    info = prepare(read_esc50(esc50), tmp_path / "out", options)
    assert info.num_duplicates == 1
    assert "leakage between fold 1 and fold 2: 1 clip byte for byte" in info.warnings[-1]


def test_another_dataset_is_never_overwritten(
    esc50: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    out = tmp_path / "out"
    listing = read_esc50(esc50)
    prepare(listing, out, options)
    before = contents(out)
    other = dataclasses.replace(options.front_end, num_mel_bins=8)
    with pytest.raises(PlatformError, match=r"another \(ESC-50: num_mel_bins 16, wanted 8\)"):
        prepare(listing, out, dataclasses.replace(options, front_end=other))
    with pytest.raises(PlatformError, match=r"\(ESC-50: content log_mel, wanted waveform\)"):
        prepare(listing, out, dataclasses.replace(options, content="waveform"))
    fewer = dataclasses.replace(listing, clips=listing.clips[1:])
    with pytest.raises(PlatformError, match=r"another \(ESC-50: 20 clips, wanted 19\)"):
        prepare(fewer, out, options)
    assert contents(out) == before


def test_an_unfinished_build_may_get_other_options(
    esc50: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    out = tmp_path / "out"
    prepare(read_esc50(esc50), out, options)
    (out / "dataset.json").unlink()
    other = LogMelConfig(sample_rate_hz=16000, num_mel_bins=8)
    given = dataclasses.replace(options, front_end=other)
    assert prepare(read_esc50(esc50), out, given) == dataclasses.replace(
        prepare(read_esc50(esc50), tmp_path / "new", given), folder=Place.of(out)
    )


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
    esc50: Path, tmp_path: Path, options: PrepareOptions
) -> None:
    clips = Manifest.of(read_esc50(esc50)).clips
    plan = shards.plan_shards(clips)[0]._replace(file="no/such/folder.parquet")
    building = shards.build_shards(clips, [plan], Place.of(tmp_path), options)
    with pytest.raises(PlatformError, match=r"--out must be writable, but .*folder\.parquet"):
        list(building)


def test_waves_make_no_difference(
    esc50: Path, tmp_path: Path, options: PrepareOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(read_esc50(esc50), tmp_path / "a", options)
    monkeypatch.setattr(shards, "SHARDS_PER_WAVE", 2)
    second = prepare(read_esc50(esc50), tmp_path / "b", options)
    assert dataclasses.replace(second, folder=first.folder) == first
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_esc10_recordings(esc10: Path, tmp_path: Path) -> None:
    options = PrepareOptions(front_end=LogMelConfig(sample_rate_hz=16000, num_mel_bins=32))
    info = prepare(read_esc50(esc10), tmp_path / "out", options)
    assert info.name == "ESC-10 subset of ESC-50"
    assert (info.num_clips, info.num_labels, info.folds) == (400, 10, (1, 2, 3, 4, 5))
    clips = info.clips()
    assert len(set(clips["source"].to_pylist())) < 400
    assert info.duration_s == pytest.approx(2000, rel=0.01)
