"""The public archives that `asit data get` fetches, and what must be in them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

_SPEECH_COMMANDS = "https://storage.googleapis.com/download.tensorflow.org/data"


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """A zip or tar file on a server, and the folder it becomes.

    Attributes:
        url: Where it lies.
        folder: What it is unpacked to, below `--root`.
        checksum: Of the archive, as "sha256:...". None where the server packs it anew for each
            request, so that its bytes change while its content does not.
        files: Checksums of files that must be in it, by their path inside the folder.
        counts: How many files must match a pattern inside the folder.
    """

    url: str
    folder: str
    checksum: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """The archive's own name."""
        return f"{self.folder}{self.suffix}"

    @property
    def suffix(self) -> str:
        """`.zip` or `.tar.gz`."""
        return ".tar.gz" if self.url.endswith(".tar.gz") else ".zip"


# One commit of the repository; five checksums of its zip are in circulation, one of its csv.
ESC50 = Archive(
    url="https://github.com/karolpiczak/ESC-50/archive/33c8ce9eb2cf0b1c2f8bcf322eb349b6be34dbb6.zip",
    folder="ESC-50",
    files={"meta/esc50.csv": "md5:54a0d0055a10bb7df84ad340a148722e"},
    counts={"audio/*.wav": 2000},
)
SPEECH_COMMANDS_V1 = Archive(
    url=f"{_SPEECH_COMMANDS}/speech_commands_v0.01.tar.gz",
    folder="speech_commands_v0.01",
    checksum="sha256:743935421bb51cccdb6bdd152e04c5c70274e935c82119ad7faeec31780d811d",
)
SPEECH_COMMANDS_V1_TEST = Archive(
    url=f"{_SPEECH_COMMANDS}/speech_commands_test_set_v0.01.tar.gz",
    folder="speech_commands_test_set_v0.01",
    checksum="sha256:baa084f6b62c91de660ff0588ae4dfc4e4d534aa99ac0e5f406cba75836cbd00",
)
SPEECH_COMMANDS_V2 = Archive(
    url=f"{_SPEECH_COMMANDS}/speech_commands_v0.02.tar.gz",
    folder="speech_commands_v0.02",
    checksum="sha256:af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
)
