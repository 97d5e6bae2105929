"""What a dataset folder looks like: counts, durations, and twenty clips to look at and listen to.

Shape legend: S samples, T frames, F mel bins.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from asit_core.seeding import numpy_stream
from asit_core.spectrogram import LogMel, LogMelConfig
from asit_platform.data.dataset import DatasetInfo
from asit_platform.data.show_media import file_sound, sound_mp3, spectrogram_png
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

NUM_EXAMPLES = 20
_NUM_BINS = 24
_LOOKED_AT = 2000  # clips among which the examples are chosen
_DARK, _BRIGHT = -2.0, 2.0  # standard deviations from the mean


class Fold(NamedTuple):
    """A fold's name and how much is in it."""

    name: str
    num_clips: int
    duration_s: float


class Durations(NamedTuple):
    """How long clips are: the extremes, the median, and counts between evenly spaced edges."""

    shortest_s: float
    median_s: float
    longest_s: float
    counts: tuple[int, ...]


class Example(NamedTuple):
    """One clip; `sound` is None if its file is no longer where it was."""

    clip_id: str
    labels: tuple[str, ...]
    fold: str
    duration_s: float
    picture: bytes
    sound: bytes | None


class Overview(NamedTuple):
    """All that the page shows."""

    info: DatasetInfo
    class_counts: tuple[tuple[str, int], ...]  # the most frequent first
    folds: tuple[Fold, ...]
    durations: Durations
    examples: tuple[Example, ...]


def look_at(folder: str | Path | Place) -> Overview:
    """Count what is in a dataset folder and draw some of its clips, always the same.

    Args:
        folder: The dataset folder: a path, or an s3:// or gs:// URL.

    Raises:
        PlatformError: If it is no whole dataset.
    """
    info = DatasetInfo.open(folder)
    clips = info.clips()
    return Overview(
        info=info,
        class_counts=_class_counts(info, clips),
        folds=_folds(info, clips),
        durations=_durations(clips["duration_s"].to_numpy()),
        examples=_examples(info, clips),
    )


def _class_counts(info: DatasetInfo, clips: pa.Table) -> tuple[tuple[str, int], ...]:
    numbers = clips["labels"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    counts = np.bincount(numbers, minlength=info.num_labels).tolist()
    named = zip(info.label_names, counts, strict=True)
    return tuple(sorted(named, key=lambda pair: -pair[1]))


def _folds(info: DatasetInfo, clips: pa.Table) -> tuple[Fold, ...]:
    fold, duration_s = clips["fold"].to_numpy(), clips["duration_s"].to_numpy()
    return tuple(
        Fold(
            _fold_name(info, each), int((fold == each).sum()), float(duration_s[fold == each].sum())
        )
        for each in info.folds
    )


def _fold_name(info: DatasetInfo, fold: int) -> str:
    return info.fold_names.get(fold, f"fold {fold}")


def _durations(duration_s: np.ndarray) -> Durations:
    counts, _ = np.histogram(duration_s, bins=_NUM_BINS)
    return Durations(
        float(duration_s.min()),
        float(np.median(duration_s)),
        float(duration_s.max()),
        tuple(counts.tolist()),
    )


def _examples(info: DatasetInfo, clips: pa.Table) -> tuple[Example, ...]:
    log_mel = LogMel(LogMelConfig(**info.front_end))
    chosen = clips.take(_choose(clips)).to_pylist()
    examples = [_example(info, clip, log_mel) for clip in chosen]
    return tuple(sorted(examples, key=lambda example: (example.labels, example.clip_id)))


def _example(info: DatasetInfo, clip: Mapping[str, Any], log_mel: LogMel) -> Example:
    mean, std = info.mean_std(info.folds)
    rate_hz = log_mel.config.sample_rate_hz
    waveform_S, log_mel_TF = _decode(_read_row(info, clip["shard"], clip["clip_id"]), log_mel)
    if waveform_S is None:
        part = {name: clip[name] for name in ("start_s", "stop_s")}
        waveform_S = file_sound(clip["path"], **part, rate_hz=rate_hz)
    return Example(
        clip_id=clip["clip_id"],
        labels=tuple(info.label_names[label] for label in clip["labels"]),
        fold=_fold_name(info, clip["fold"]),
        duration_s=clip["duration_s"],
        picture=spectrogram_png(log_mel_TF, low=mean + _DARK * std, high=mean + _BRIGHT * std),
        sound=None if waveform_S is None else sound_mp3(waveform_S, rate_hz),
    )


def _choose(clips: pa.Table) -> list[int]:
    """Rows of the examples: of as many labels as there are, then further clips of each."""
    order = numpy_stream(0, "show").permutation(len(clips))[:_LOOKED_AT]
    labels = clips["labels"].take(pa.array(order)).to_pylist()
    met: Counter[int | None] = Counter()
    ranked = []
    for position, (row, held) in enumerate(zip(order.tolist(), labels, strict=True)):
        first = held[0] if held else None
        ranked.append((met[first], position, row))
        met[first] += 1
    return [row for _, _, row in sorted(ranked)[:NUM_EXAMPLES]]


def _read_row(info: DatasetInfo, shard: str, clip_id: str) -> dict[str, Any]:
    """One clip's row; of its shard, only the group of rows that it is in."""
    place = info.folder / shard
    try:
        with place.open_input() as file:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            for group in range(parquet.num_row_groups):
                ids = parquet.read_row_group(group, columns=["clip_id"])["clip_id"].to_pylist()
                if clip_id in ids:
                    row = parquet.read_row_group(group).slice(ids.index(clip_id), 1)
                    return row.to_pylist()[0]
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise PlatformError(
            f"{place}: shard must be readable, but {reason}; `asit data check` says more"
        ) from error
    raise PlatformError(
        f"{place}: shard must hold clip {clip_id!r}, but it does not; `asit data check` says more"
    )


def _decode(held: dict[str, Any], log_mel: LogMel) -> tuple[torch.Tensor | None, np.ndarray]:
    """The samples, where the shard holds them, and the spectrogram."""
    if "log_mel" in held:
        values = np.frombuffer(held["log_mel"], dtype=np.float16)
        return None, values.reshape(-1, log_mel.config.num_mel_bins)
    samples = np.frombuffer(held["waveform"], dtype=np.int16)
    waveform_S = torch.from_numpy(samples.astype(np.float32) / 32768)
    return waveform_S, log_mel(waveform_S[None])[0].numpy()
