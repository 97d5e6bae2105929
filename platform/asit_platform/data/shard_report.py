"""What a shard's task found out about its clips; kept in the shard and handed to the driver."""

import json
from typing import NamedTuple

from asit_platform.data.fold_statistics import FoldStatistics

SILENCE_REASON = "digital silence"
UNREADABLE = -1


class ClipOutcome(NamedTuple):
    """What became of one clip.

    Attributes:
        reason: Why it was left out; empty if it is in the shard.
        silent: Whether it is digital silence.
        num_frames: Of its spectrogram.
        duration_s: As decoded.
        content_sha256: Of the file; empty if it cannot be read.
        num_bytes: Of the file; `UNREADABLE` if it cannot be read.
    """

    reason: str
    silent: bool
    num_frames: int
    duration_s: float
    content_sha256: str
    num_bytes: int


class ShardReport(NamedTuple):
    """Outcomes of the clips planned for a shard, in their order, and sums over their values."""

    outcomes: tuple[ClipOutcome, ...]
    statistics: FoldStatistics

    @classmethod
    def from_json(cls, text: str | bytes) -> "ShardReport":
        """Read what `to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError: If it is not that.
        """
        raw = json.loads(text)
        return cls(
            outcomes=tuple(ClipOutcome(*outcome) for outcome in raw["outcomes"]),
            statistics=FoldStatistics(*raw["statistics"]),
        )

    def to_json(self) -> str:
        """As text; numbers come back exactly."""
        statistics = (self.statistics.count, self.statistics.mean, self.statistics.m2)
        return json.dumps({"outcomes": self.outcomes, "statistics": statistics})

    @property
    def content_hashes(self) -> list[str]:
        """Of the clips' files."""
        return [outcome.content_sha256 for outcome in self.outcomes]

    @property
    def num_kept(self) -> int:
        """Clips in the shard."""
        return sum(not outcome.reason for outcome in self.outcomes)
