"""The dataset folder as everything downstream reads it; imports neither Ray nor torch.

    DIR/manifest.parquet  what was to be built, one row per clip listed
    DIR/shards/*.parquet  log-mel spectrograms or waveforms, each shard of one fold
    DIR/clips.parquet     what is in the shards, one row per clip
    DIR/skipped.csv       what was left out, and why
    DIR/dataset.json      what the set is, its front end, its fingerprint; written last

A folder without a readable `dataset.json` is no dataset: half a build never reads as a whole one.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from asit_platform.data.fold_statistics import FoldStatistics
from asit_platform.data.listing import Content, LabelKind
from asit_platform.data.shard_file import (
    FINGERPRINT_KEY,
    FORMAT_VERSION,
    FRONT_END_KEY,
    REMEDY,
    REPORT_KEY,
    SHARD_FOLDER,
    Shard,
    check_shards,
    file_sha256,
    read_footer,
)
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

__all__ = [
    "CLIPS_FILE",
    "DATASET_FILE",
    "FINGERPRINT_KEY",
    "FORMAT_VERSION",
    "FRONT_END_KEY",
    "MANIFEST_FILE",
    "REPORT_KEY",
    "SHARD_FOLDER",
    "SKIPPED_FILE",
    "DatasetInfo",
    "FoldStatistics",
    "Shard",
    "file_sha256",
]

DATASET_FILE = "dataset.json"
MANIFEST_FILE = "manifest.parquet"
CLIPS_FILE = "clips.parquet"
SKIPPED_FILE = "skipped.csv"


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInfo:
    """What `dataset.json` says, checked against the shards that lie beside it.

    Attributes:
        folder: Where the dataset lies.
        name: Such as "ESC-10 subset of ESC-50" or "synthetic".
        synthetic: True for sounds that the program made itself.
        origin: What it was made from, as far as a second build must agree with it.
        label_kind: Whether a clip has one label, any number of them, or none.
        label_names: Name of label 0, 1, ...
        folds: The folds, ascending.
        fold_names: What official splits are called; empty where folds are only numbered.
        metric: What the set's published results are measured in, None where there are none.
        recipes: Names in `asit_core.recipes` that fit.
        num_clips: Clips in the shards.
        duration_s: Their summed duration.
        content: What the shards hold.
        front_end: Fields of `asit_core.spectrogram.LogMelConfig`; for waveforms, of the
            spectrograms that a stream computes by default.
        fingerprint: Hash over the shards' fingerprints.
        max_frames: Frames of the longest clip.
        fold_statistics: Of the log-mel values of each fold.
        shards: The files.
        skipped: Clips left out; `skipped.csv` lists them.
        silent: Clips of digital silence that were met, left out or not.
        num_duplicates: Clips whose sound is that of a clip before them, byte for byte.
        warnings: One line each: about the files listed, and clips that are in two splits.
    """

    folder: Place
    name: str
    synthetic: bool
    origin: Mapping[str, Any]
    label_kind: LabelKind
    label_names: tuple[str, ...]
    folds: tuple[int, ...]
    fold_names: Mapping[int, str]
    metric: Literal["accuracy", "mAP"] | None
    recipes: tuple[str, ...]
    num_clips: int
    duration_s: float
    content: Content
    front_end: Mapping[str, Any]
    fingerprint: str
    max_frames: int
    fold_statistics: Mapping[int, FoldStatistics]
    shards: tuple[Shard, ...]
    skipped: int
    silent: int
    num_duplicates: int
    warnings: tuple[str, ...]

    @classmethod
    def open(cls, folder: str | Path | Place) -> "DatasetInfo":
        """Read a dataset folder and check that its shards are whole and belong to it.

        Args:
            folder: What `--out` named: a path, or an s3:// or gs:// URL.

        Raises:
            PlatformError: If the folder is missing, unfinished, of another version, or holds a
                missing, truncated or stale shard.
        """
        info = cls.read(folder)
        check_shards(info.folder, info.shards)
        clips = info.folder / CLIPS_FILE
        if not clips.is_file():
            raise PlatformError(f"{clips}: must exist, but it does not; {REMEDY}")
        read_footer(clips, "list of clips")
        return info

    @classmethod
    def read(cls, folder: str | Path | Place) -> "DatasetInfo":
        """Read `dataset.json` without looking at the shards."""
        folder = Place.of(folder)
        raw = _read_json(folder)
        if raw.get("version") != FORMAT_VERSION:
            raise PlatformError(
                f"{folder / DATASET_FILE}: version must be {FORMAT_VERSION}, but got "
                f"{raw.get('version')!r}; {REMEDY}"
            )
        try:
            return _from_json(folder, raw)
        except (KeyError, TypeError, ValueError) as error:
            raise PlatformError(
                f"{folder / DATASET_FILE}: a field is missing or malformed "
                f"({type(error).__name__}: {error}); {REMEDY}"
            ) from error

    @property
    def num_labels(self) -> int:
        """Number of labels."""
        return len(self.label_names)

    @property
    def num_mel_bins(self) -> int:
        """Mel bins of a frame."""
        return int(self.front_end["num_mel_bins"])

    def mean_std(self, folds: Sequence[int]) -> tuple[float, float]:
        """Mean and standard deviation of the log-mel values of some folds.

        Args:
            folds: Folds to look at; leave the test fold out.
        """
        self.check_folds(folds)
        total = FoldStatistics(0, 0.0, 0.0)
        for fold in sorted(set(folds)):
            total = total.merge(self.fold_statistics[fold])
        return total.mean, math.sqrt(total.m2 / total.count)

    def clips(self, folds: Sequence[int] | None = None) -> pa.Table:
        """Rows of `clips.parquet` of some folds (all by default), in the order of their ids."""
        place = self.folder / CLIPS_FILE
        with pq.ParquetFile(place.path, filesystem=place.filesystem) as file:
            table = file.read()
        if folds is None:
            return table
        self.check_folds(folds)
        return table.filter(pc.field("fold").isin(list(folds)))

    def check_folds(self, folds: Iterable[int]) -> None:
        """Raise PlatformError if a fold is not one of the dataset's."""
        wanted = list(folds)
        unknown = sorted(set(wanted) - set(self.folds))
        if unknown or not wanted:
            raise PlatformError(
                f"{self.folder}: folds must be some of {list(self.folds)}, but got {wanted}; "
                "correct `split`"
            )

    def verify(self) -> None:
        """Read every shard in full and compare its content hash.

        Raises:
            PlatformError: Naming the first shard that changed.
        """
        for shard in self.shards:
            found = file_sha256(self.folder / shard.file)
            if found != shard.sha256:
                raise PlatformError(
                    f"{self.folder / shard.file}: content hash must be {shard.sha256[:12]}, but "
                    f"got {found[:12]} (damaged shard); {REMEDY}"
                )

    def is_whole(self) -> bool:
        """Whether every file is there and has the content it was written with."""
        try:
            DatasetInfo.open(self.folder).verify()
        except PlatformError:
            return False
        return True

    def to_json(self) -> dict[str, Any]:
        """The content of `dataset.json`."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "folder"}
        fields["shards"] = [_shard_to_json(shard) for shard in self.shards]
        fields["fold_names"] = {str(fold): name for fold, name in self.fold_names.items()}
        fields["fold_statistics"] = {
            str(fold): asdict(statistics) for fold, statistics in self.fold_statistics.items()
        }
        return {"version": FORMAT_VERSION, **fields}


def _read_json(folder: Place) -> dict[str, Any]:
    path = folder / DATASET_FILE
    try:
        if not folder.is_dir():
            raise PlatformError(f"{folder}: dataset folder must exist, but it does not; {REMEDY}")
        raw = json.loads(path.read_text())
    except FileNotFoundError:
        raise PlatformError(
            f"{path}: must exist, but it does not (not a dataset, or a build that did not end); "
            f"{REMEDY}"
        ) from None
    except OSError as error:
        raise PlatformError(f"{path}: must be readable, but {error}; {REMEDY}") from error
    except ValueError as error:
        raise PlatformError(f"{path}: must be JSON, but {error}; {REMEDY}") from error
    return raw if isinstance(raw, dict) else {}


def _from_json(folder: Place, raw: Mapping[str, Any]) -> DatasetInfo:
    fields = {name: raw[name] for name in DatasetInfo.__slots__ if name != "folder"}
    for name in ("label_names", "recipes", "warnings", "folds"):
        fields[name] = tuple(raw[name])
    fields["fold_names"] = {int(fold): name for fold, name in raw["fold_names"].items()}
    fields["fold_statistics"] = {
        int(fold): FoldStatistics(**statistics)
        for fold, statistics in raw["fold_statistics"].items()
    }
    fields["shards"] = tuple(
        Shard(num_bytes=shard["bytes"], **{key: shard[key] for key in shard if key != "bytes"})
        for shard in raw["shards"]
    )
    return DatasetInfo(folder=folder, **fields)


def _shard_to_json(shard: Shard) -> dict[str, Any]:
    fields = asdict(shard)
    fields["bytes"] = fields.pop("num_bytes")
    return fields
