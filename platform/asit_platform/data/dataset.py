"""The dataset folder as everything downstream reads it; imports neither Ray nor torch.

    DIR/dataset.json      what the set is, its front end, its fingerprint; written last
    DIR/manifest.parquet  one row per clip
    DIR/shards/*.parquet  log-mel spectrograms, each shard of one fold
    DIR/skipped.csv       what was left out, and why

A folder without a readable `dataset.json` is no dataset: half a build never reads as a whole one.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from asit_platform.errors import PlatformError

FORMAT_VERSION = 1
DATASET_FILE = "dataset.json"
MANIFEST_FILE = "manifest.parquet"
SKIPPED_FILE = "skipped.csv"
SHARD_FOLDER = "shards"
FINGERPRINT_KEY = b"asit.fingerprint"
FRONT_END_KEY = b"asit.front_end"
_REMEDY = "build the dataset again with `asit data prepare` or `asit data synth`"


@dataclass(frozen=True, slots=True)
class FoldStatistics:
    """Sums over log-mel values, mergeable: so a mean can be formed without the test fold."""

    count: int
    mean: float
    m2: float  # sum of squared deviations from the mean

    def merge(self, other: "FoldStatistics") -> "FoldStatistics":
        """Statistics of both together (Chan et al. 1979: stable, unlike a sum of squares)."""
        count = self.count + other.count
        if count == 0:
            return self
        delta = other.mean - self.mean
        mean = self.mean + delta * other.count / count
        m2 = self.m2 + other.m2 + delta * delta * self.count * other.count / count
        return FoldStatistics(count, mean, m2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One Parquet file of spectrograms, as it was when the dataset was finished."""

    file: str
    fold: int
    num_rows: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInfo:
    """What `dataset.json` says, checked against the shards that lie beside it.

    Attributes:
        folder: Where the dataset lies.
        name: Such as "ESC-10 subset of ESC-50" or "synthetic".
        synthetic: True for sounds that the program made itself.
        origin: What it was made from, as far as a second build must agree with it.
        label_names: Name of label 0, 1, ...
        folds: The folds, ascending.
        num_clips: Clips in the shards.
        duration_s: Their summed duration.
        front_end: Fields of `asit_core.spectrogram.LogMelConfig`.
        fingerprint: Hash of front end, format version and every clip's content, label and fold.
        max_frames: Frames of the longest clip.
        fold_statistics: Of the log-mel values of each fold.
        shards: The files.
        skipped: Clips left out; `skipped.csv` lists them.
        silent: Clips of digital silence that were met, left out or not.
    """

    folder: Path
    name: str
    synthetic: bool
    origin: Mapping[str, Any]
    label_names: tuple[str, ...]
    folds: tuple[int, ...]
    num_clips: int
    duration_s: float
    front_end: Mapping[str, Any]
    fingerprint: str
    max_frames: int
    fold_statistics: Mapping[int, FoldStatistics]
    shards: tuple[Shard, ...]
    skipped: int
    silent: int

    @classmethod
    def open(cls, folder: str | Path) -> "DatasetInfo":
        """Read a dataset folder and check that its shards are whole and belong to it.

        Args:
            folder: What `--out` named.

        Raises:
            PlatformError: If the folder is missing, unfinished, of another version, or holds a
                missing, truncated or stale shard.
        """
        info = cls.read(folder)
        for shard in info.shards:
            _check_shard(info, shard)
        manifest = info.folder / MANIFEST_FILE
        if not manifest.is_file():
            raise PlatformError(f"{manifest}: must exist, but it does not; {_REMEDY}")
        _read_metadata(manifest, "manifest")
        return info

    @classmethod
    def read(cls, folder: str | Path) -> "DatasetInfo":
        """Read `dataset.json` without looking at the shards."""
        folder = Path(folder)
        raw = _read_json(folder)
        if raw.get("version") != FORMAT_VERSION:
            raise PlatformError(
                f"{folder / DATASET_FILE}: version must be {FORMAT_VERSION}, but got "
                f"{raw.get('version')!r}; {_REMEDY}"
            )
        try:
            return _from_json(folder, raw)
        except (KeyError, TypeError, ValueError) as error:
            raise PlatformError(
                f"{folder / DATASET_FILE}: a field is missing or malformed "
                f"({type(error).__name__}: {error}); {_REMEDY}"
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
        """Manifest rows of some folds (all by default), in the order of their clip ids."""
        table = pq.read_table(self.folder / MANIFEST_FILE).sort_by("clip_id")
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
                    f"got {found[:12]} (damaged shard); {_REMEDY}"
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
        fields["fold_statistics"] = {
            str(fold): asdict(statistics) for fold, statistics in self.fold_statistics.items()
        }
        return {"version": FORMAT_VERSION, **fields}


def file_sha256(path: Path) -> str:
    """Content hash of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_json(folder: Path) -> dict[str, Any]:
    path = folder / DATASET_FILE
    try:
        if not folder.is_dir():
            raise PlatformError(f"{folder}: dataset folder must exist, but it does not; {_REMEDY}")
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PlatformError(
            f"{path}: must exist, but it does not (not a dataset, or a build that did not end); "
            f"{_REMEDY}"
        ) from None
    except OSError as error:
        raise PlatformError(f"{path}: must be readable, but {error}; {_REMEDY}") from error
    except ValueError as error:
        raise PlatformError(f"{path}: must be JSON, but {error}; {_REMEDY}") from error
    return raw if isinstance(raw, dict) else {}


def _from_json(folder: Path, raw: Mapping[str, Any]) -> DatasetInfo:
    fields = {name: raw[name] for name in DatasetInfo.__slots__ if name != "folder"}
    fields["label_names"] = tuple(raw["label_names"])
    fields["folds"] = tuple(int(fold) for fold in raw["folds"])
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


def _check_shard(info: DatasetInfo, shard: Shard) -> None:
    path = info.folder / shard.file
    if not path.is_file():
        raise PlatformError(f"{path}: shard must exist, but it does not; {_REMEDY}")
    num_bytes = path.stat().st_size
    if num_bytes != shard.num_bytes:
        raise PlatformError(
            f"{path}: shard must hold {shard.num_bytes} bytes, but got {num_bytes} "
            f"(truncated or replaced); {_REMEDY}"
        )
    metadata = _read_metadata(path, "shard")
    found = (metadata.metadata or {}).get(FINGERPRINT_KEY, b"none").decode()
    if found != info.fingerprint:
        raise PlatformError(
            f"{path}: shard must carry fingerprint {info.fingerprint}, but got {found} "
            f"(stale shard); {_REMEDY}"
        )


def _read_metadata(path: Path, what: str) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise PlatformError(
            f"{path}: {what} must be readable Parquet, but {reason}; {_REMEDY}"
        ) from error
