import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from asit_platform.data.dataset import DatasetInfo, FoldStatistics
from asit_platform.errors import PlatformError
from asit_platform.storage import Place


def shard_values(info: DatasetInfo, folds: tuple[int, ...]) -> np.ndarray:
    parts = [
        np.frombuffer(value, dtype=np.float16)
        for shard in info.shards
        if shard.fold in folds
        for value in pq.read_table((info.folder / shard.file).local)["log_mel"].to_pylist()
    ]
    return np.concatenate(parts).astype(np.float64)


def test_mean_and_std_come_from_the_folds_asked_for(info: DatasetInfo) -> None:
    values = shard_values(info, (1, 3))
    mean, std = info.mean_std([3, 1])
    assert mean == pytest.approx(values.mean(), rel=1e-12)
    assert std == pytest.approx(values.std(), rel=1e-12)
    assert info.mean_std([2]) != (mean, std)


def test_merging_statistics_survives_a_large_offset() -> None:
    values = 1e8 + np.random.default_rng(0).standard_normal(1000)
    total = FoldStatistics(0, 0.0, 0.0)
    for part in np.split(values, 10):
        total = total.merge(FoldStatistics(100, part.mean(), np.square(part - part.mean()).sum()))
    assert total.m2 / total.count == pytest.approx(values.var(), rel=1e-6)


def test_merging_nothing_is_nothing() -> None:
    assert FoldStatistics(0, 0.0, 0.0).merge(FoldStatistics(0, 0.0, 0.0)).count == 0


def test_clips_of_some_folds_in_the_order_of_their_ids(info: DatasetInfo) -> None:
    table = info.clips([5, 2])
    assert set(table["fold"].to_pylist()) == {2, 5}
    assert table["clip_id"].to_pylist() == sorted(table["clip_id"].to_pylist())
    assert len(info.clips()) == info.num_clips == 60


def test_json_round_trip(info: DatasetInfo) -> None:
    assert info.to_json()["version"] == 2
    assert json.loads(json.dumps(info.to_json())) == json.loads(
        (info.folder / "dataset.json").read_text()
    )
    assert DatasetInfo.read(info.folder) == info


def test_folds_keep_their_names(built: Path) -> None:
    raw = json.loads((built / "dataset.json").read_text())
    raw["fold_names"] = {"1": "train", "3": "test"}
    (built / "dataset.json").write_text(json.dumps(raw))
    assert DatasetInfo.read(built).fold_names == {1: "train", 3: "test"}


def test_what_the_reader_said_is_kept(info: DatasetInfo) -> None:
    assert (info.label_kind, info.label_names, info.metric) == (
        "single",
        ("dog", "rain"),
        "accuracy",
    )
    assert "ast_esc50" in info.recipes
    assert info.content == "log_mel"
    assert info.num_duplicates == 0
    assert all("2000" in warning or "2,000" in warning for warning in info.warnings)


def test_the_fingerprint_is_that_of_the_shards(info: DatasetInfo) -> None:
    marks = [shard.fingerprint for shard in info.shards]
    assert len({*marks, info.fingerprint}) == 6
    assert info.clips()["labels"].to_pylist()[0] == [0]


@pytest.mark.parametrize("folds", [[], [6], [1, 0]])
def test_unknown_folds(info: DatasetInfo, folds: list[int]) -> None:
    with pytest.raises(PlatformError, match=r"folds must be some of \[1, 2, 3, 4, 5\]"):
        info.mean_std(folds)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="nowhere: dataset folder must exist"):
        DatasetInfo.open(tmp_path / "nowhere")


def test_half_a_build_is_no_dataset(built: Path) -> None:
    (built / "dataset.json").unlink()
    with pytest.raises(PlatformError, match="a build that did not end"):
        DatasetInfo.open(built)


def test_missing_list_of_clips(built: Path) -> None:
    (built / "clips.parquet").unlink()
    with pytest.raises(PlatformError, match=r"clips\.parquet: must exist"):
        DatasetInfo.open(built)


def test_damaged_list_of_clips_is_named(built: Path) -> None:
    (built / "clips.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(PlatformError, match=r"list of clips must be readable Parquet"):
        DatasetInfo.open(built)


def test_other_version(built: Path) -> None:
    raw = json.loads((built / "dataset.json").read_text())
    (built / "dataset.json").write_text(json.dumps({**raw, "version": 7}))
    with pytest.raises(PlatformError, match="version must be 2, but got 7"):
        DatasetInfo.open(built)


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 1}', '{"version": 2}'])
def test_malformed_json(built: Path, content: str) -> None:
    (built / "dataset.json").write_text(content)
    with pytest.raises(PlatformError, match=r"dataset\.json"):
        DatasetInfo.open(built)


def test_truncated_shard_is_named(built: Path) -> None:
    os.truncate(built / "shards" / "fold2-00000.parquet", 1000)
    with pytest.raises(PlatformError, match=r"fold2-00000\.parquet: shard must hold \d+ bytes"):
        DatasetInfo.open(built)


def test_missing_shard_is_named(built: Path) -> None:
    (built / "shards" / "fold3-00000.parquet").unlink()
    with pytest.raises(PlatformError, match=r"fold3-00000\.parquet: shard must exist"):
        DatasetInfo.open(built)


def test_stale_shard_is_named(built: Path) -> None:
    path = built / "shards" / "fold4-00000.parquet"
    content = path.read_bytes()
    shard = next(each for each in DatasetInfo.read(built).shards if each.file.endswith(path.name))
    fingerprint = shard.fingerprint.encode()
    stale = fingerprint[::-1]
    assert content.count(fingerprint) > 0
    path.write_bytes(content.replace(fingerprint, stale))
    with pytest.raises(PlatformError, match=rf"fold4-00000\.parquet.*but got {stale.decode()}"):
        DatasetInfo.open(built)


def test_overwritten_shard_is_named(built: Path) -> None:
    path = built / "shards" / "fold4-00000.parquet"
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(PlatformError, match=r"fold4-00000\.parquet: shard must be readable"):
        DatasetInfo.open(built)


def test_verify_finds_a_flipped_byte(built: Path) -> None:
    path = built / "shards" / "fold1-00000.parquet"
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    info = DatasetInfo.open(built)
    assert not info.is_whole()
    with pytest.raises(PlatformError, match=r"fold1-00000\.parquet: content hash must be"):
        info.verify()


def test_a_dataset_in_a_bucket(built: Path, bucket_url: str) -> None:
    remote = Place.of(bucket_url) / "dataset"
    for path in sorted(built.rglob("*")):
        if path.is_file():
            (remote / path.relative_to(built).as_posix()).write_whole(path.read_bytes())
    info, local = DatasetInfo.open(str(remote)), DatasetInfo.open(built)
    assert dataclasses.replace(info, folder=local.folder) == local
    assert info.clips([2]).equals(local.clips([2]))
    info.verify()
    (remote / info.shards[1].file).unlink()
    with pytest.raises(PlatformError, match=r"s3://.*fold2-00000\.parquet.*: shard must exist"):
        DatasetInfo.open(remote)


def test_reading_a_dataset_needs_neither_ray_nor_torch() -> None:
    code = (
        "import sys, asit_platform.data.dataset; "
        "print([name for name in ('ray', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
