"""What became of each clip of a manifest: a hundred bytes a clip, however the run goes."""

import csv
import io
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from asit_platform.data.dataset import CLIPS_FILE, SKIPPED_FILE
from asit_platform.data.manifest import MANIFEST_SCHEMA, label_numbers
from asit_platform.data.shard_report import SILENCE_REASON, ShardReport
from asit_platform.data.shards import ShardPlan
from asit_platform.storage import Place

CLIPS_SCHEMA = pa.schema(
    [
        *MANIFEST_SCHEMA,
        ("duration_s", pa.float64()),
        ("num_frames", pa.int32()),
        ("shard", pa.string()),
        ("content_sha256", pa.string()),
    ]
)
_SHA256_BYTES = 32
_ROWS_PER_WRITE = 65536


class Ledger:
    """Outcomes by row of the manifest.

    Attributes:
        kept: Whether the clip is in a shard.
        duration_s: Of the clip.
        num_frames: Of its spectrogram.
        content: Hash of its file; zeros where it could not be read.
        num_silent: Clips of digital silence, left out or not.
        num_silent_skipped: Those of them that were left out.
    """

    def __init__(self, clips: pa.Table) -> None:
        """Begin with no outcome.

        Args:
            clips: Of the manifest.
        """
        self._clips = clips
        self.kept = np.zeros(len(clips), dtype=bool)
        self.duration_s = np.zeros(len(clips))
        self.num_frames = np.zeros(len(clips), dtype=np.int32)
        self.content = np.zeros((len(clips), _SHA256_BYTES), dtype=np.uint8)
        self.num_silent = 0
        self.num_silent_skipped = 0
        self._shard = np.zeros(len(clips), dtype=np.int32)
        self._files: dict[int, str] = {}
        self._reasons: dict[int, str] = {}

    def record(self, plan: ShardPlan, report: ShardReport) -> None:
        """Enter what a shard's task found out."""
        self._files[plan.number] = plan.file
        self._shard[plan.rows] = plan.number
        for row, outcome in zip(plan.rows.tolist(), report.outcomes, strict=True):
            self.kept[row] = not outcome.reason
            self.duration_s[row] = outcome.duration_s
            self.num_frames[row] = outcome.num_frames
            self.content[row, :] = np.frombuffer(
                bytes.fromhex(outcome.content_sha256).ljust(_SHA256_BYTES, b"\0"), dtype=np.uint8
            )
            self.num_silent += outcome.silent
            self.num_silent_skipped += outcome.reason == SILENCE_REASON
            if outcome.reason:
                self._reasons[row] = outcome.reason

    @property
    def num_kept(self) -> int:
        """Clips in the shards."""
        return int(self.kept.sum())

    @property
    def skipped(self) -> Mapping[int, str]:
        """Why a clip was left out, by row."""
        return self._reasons

    def first_skipped(self) -> str:
        """Path and reason of one."""
        row = min(self._reasons)
        return f"{self._clips['path'][row].as_py()}: {self._reasons[row]}"

    def label_counts(self) -> Counter[int]:
        """Clips kept of each label; only of sets with one label a clip."""
        return Counter(label_numbers(self._clips)[self.kept].tolist())

    def write_skipped(self, folder: Place) -> None:
        """Write `skipped.csv`; a header alone says that nothing was left out."""
        lines = io.StringIO(newline="")
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(("path", "reason"))
        for row in sorted(self._reasons):
            writer.writerow((self._clips["path"][row].as_py(), self._reasons[row]))
        (folder / SKIPPED_FILE).write_whole(lines.getvalue())

    def write_clips(self, folder: Place) -> None:
        """Write `clips.parquet`, a part at a time: never a second table of all clips."""
        with (
            (folder / CLIPS_FILE).replacing() as temporary,
            pq.ParquetWriter(temporary, CLIPS_SCHEMA) as writer,
        ):
            for start in range(0, len(self._clips), _ROWS_PER_WRITE):
                writer.write_table(self._kept_part(slice(start, start + _ROWS_PER_WRITE)))

    def _kept_part(self, part: slice) -> pa.Table:
        kept = self.kept[part]
        files = [self._files[number] for number in self._shard[part][kept].tolist()]
        hashes = [content.tobytes().hex() for content in self.content[part][kept]]
        clips = self._clips.slice(part.start, len(kept)).filter(pa.array(kept))
        columns = {
            "duration_s": self.duration_s[part][kept],
            "num_frames": self.num_frames[part][kept],
            "shard": files,
            "content_sha256": hashes,
        }
        for name, values in columns.items():
            clips = clips.append_column(name, pa.array(values, CLIPS_SCHEMA.field(name).type))
        return clips
