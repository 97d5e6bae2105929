"""Datasets of many small shards, written here clip by clip: no sound is decoded."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from asit_core.seeding import numpy_stream
from asit_core.spectrogram import LOG_MEL_FLOOR, LogMel, LogMelConfig
from asit_platform.data.dataset import CLIPS_FILE, DATASET_FILE, DatasetInfo, FoldStatistics
from asit_platform.data.listing import Content, LabelKind
from asit_platform.data.shard_file import FINGERPRINT_KEY, Shard, file_sha256, shard_schema
from asit_platform.data.source import ClipSource
from asit_platform.storage import Place

NUM_CLASSES = 5
FRONT_END = LogMelConfig(sample_rate_hz=16000, num_mel_bins=16)
_LOG_MEL = LogMel(FRONT_END)


def _write_dataset(
    folder: Path,
    *,
    num_shards: int,
    clips_per_shard: int = 8,
    content: Content = "log_mel",
    label_kind: LabelKind = "single",
    min_frames: int = 20,
) -> Path:
    """Clips of 20 to 60 frames; every fourth shard is of fold 2."""
    (folder / "shards").mkdir(parents=True)
    shards, rows = [], []
    for number in range(num_shards):
        fold = 2 if number % 4 == 3 else 1
        clips = [
            _clip(number, clip, fold=fold, label_kind=label_kind, min_frames=min_frames)
            for clip in range(clips_per_shard)
        ]
        file = f"shards/fold{fold}-{number:05d}.parquet"
        shards.append(_write_shard(folder / file, file, clips, content))
        rows += [{**_described(clip), "shard": file} for clip in clips]
    rows.sort(key=lambda row: row["clip_id"])
    fields = [("clip_id", pa.string()), ("labels", pa.list_(pa.int32())), ("fold", pa.int32())]
    schema = pa.schema([*fields, ("num_frames", pa.int32()), ("shard", pa.string())])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / CLIPS_FILE)
    info = _info(folder, shards, rows, content=content, label_kind=label_kind)
    Place.of(folder / DATASET_FILE).write_whole(json.dumps(info.to_json()))
    return folder


def _clip(
    shard: int, number: int, *, fold: int, label_kind: LabelKind, min_frames: int
) -> dict[str, Any]:
    generator = numpy_stream(0, "test_clip", shard, number)
    # the ids of a shard's clips are no neighbours
    clip_id = f"{generator.integers(2**32):08x}-{shard}-{number}"
    num_frames = int(generator.integers(min_frames, 61))
    num_samples = FRONT_END.frame_samples + (num_frames - 1) * FRONT_END.hop_samples
    samples = generator.integers(-3000, 3000, num_samples).astype(np.int16)
    labels = {"single": [number % NUM_CLASSES], "none": []}.get(label_kind)
    if labels is None:
        labels = sorted(set(generator.integers(0, NUM_CLASSES, number % 3).tolist()))
    return {"clip_id": clip_id, "labels": labels, "fold": fold, "source": "s", "samples": samples}


def _log_mel(clip: dict[str, Any]) -> np.ndarray:
    waveform_S = torch.from_numpy(clip["samples"]).float() / 32768
    return _LOG_MEL(waveform_S[None])[0].half().numpy()


def _described(clip: dict[str, Any]) -> dict[str, Any]:
    described = {name: clip[name] for name in ("clip_id", "labels", "fold")}
    return {**described, "num_frames": _LOG_MEL.num_frames(len(clip["samples"]))}


def _write_shard(path: Path, file: str, clips: list[dict[str, Any]], content: Content) -> Shard:
    rows = []
    for clip in clips:
        samples = clip["samples"]
        held: dict[str, Any] = {"num_samples": len(samples), "waveform": samples.tobytes()}
        if content == "log_mel":
            log_mel_TF = _log_mel(clip)
            held = {"num_frames": len(log_mel_TF), "log_mel": log_mel_TF.tobytes()}
        rows.append({**clip, **held})
    schema = shard_schema(content).with_metadata({FINGERPRINT_KEY: f"of {file}"})
    table = pa.Table.from_pylist(
        [{name: row[name] for name in schema.names} for row in rows], schema=schema
    )
    pq.write_table(table, path, row_group_size=4, compression="none", use_dictionary=False)
    return Shard(
        file=file,
        fold=clips[0]["fold"],
        num_rows=len(rows),
        num_bytes=path.stat().st_size,
        sha256=file_sha256(Place.of(path)),
        fingerprint=f"of {file}",
    )


def _info(
    folder: Path,
    shards: list[Shard],
    rows: list[dict[str, Any]],
    *,
    content: Content,
    label_kind: LabelKind,
) -> DatasetInfo:
    folds = tuple(sorted({row["fold"] for row in rows}))
    return DatasetInfo(
        folder=Place.of(folder),
        name="made up",
        synthetic=True,
        origin={},
        label_kind=label_kind,
        label_names=tuple("abcde") if label_kind != "none" else (),
        folds=folds,
        fold_names={},
        metric=None,
        recipes=(),
        num_clips=len(rows),
        duration_s=0.0,
        content=content,
        front_end=asdict(FRONT_END),
        fingerprint="made up",
        max_frames=max(row["num_frames"] for row in rows),
        fold_statistics={fold: FoldStatistics(100, -5.0, 900.0) for fold in folds},
        shards=tuple(shards),
        skipped=0,
        silent=0,
        num_duplicates=0,
        warnings=(),
    )


@pytest.fixture(scope="session")
def write_dataset() -> Callable[..., Path]:
    return _write_dataset


@pytest.fixture(scope="session")
def many_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """320 clips in 40 shards: enough for lanes."""
    return _write_dataset(tmp_path_factory.mktemp("many") / "dataset", num_shards=40)


@pytest.fixture(scope="module")
def held(local_ray: None, many_shards: Path) -> ClipSource:
    return ClipSource.open(many_shards, mode="in_memory")


@pytest.fixture(scope="module")
def streamed(local_ray: None, many_shards: Path) -> ClipSource:
    return ClipSource.open(many_shards, mode="streamed")


@pytest.fixture(scope="session")
def floor_in_shards() -> float:
    return float(np.float16(LOG_MEL_FLOOR))
