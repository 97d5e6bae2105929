"""How a listing is turned into shards."""

from dataclasses import asdict, dataclass
from typing import Any

from asit_core.spectrogram import LogMelConfig
from asit_platform.data.listing import Content
from asit_platform.errors import PlatformError


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareOptions:
    """Options of a build.

    Attributes:
        front_end: The spectrogram; waveforms are kept at its sample rate.
        content: What the shards hold.
        keep_silent: Keep clips of digital silence.
        max_skipped: Largest share of the clips that may be left out, in [0, 1].
    """

    front_end: LogMelConfig
    content: Content = "log_mel"
    keep_silent: bool = False
    max_skipped: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.max_skipped <= 1:
            raise PlatformError(f"--max-skipped must be in [0, 1], but got {self.max_skipped}")

    def identity(self) -> dict[str, Any]:
        """What a shard depends on: arguments of `shard_fingerprint`, as JSON gives them back."""
        return {
            "front_end": asdict(self.front_end),
            "content": self.content,
            "keep_silent": self.keep_silent,
        }
