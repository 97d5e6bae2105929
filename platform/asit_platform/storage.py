"""Places where files lie, on this machine or in a bucket, behind one small pathlib-like face.

Wherever the platform takes a path to data it takes a URL: `s3://bucket/key` or `gs://bucket/key`,
with what the file system needs to know in the query (`?endpoint_override=host:port&scheme=http`).
Credentials come from where the clouds' own tools look for them.
"""

import os
import re
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import pyarrow as pa
from pyarrow import fs

from asit_platform.errors import PlatformError
from asit_platform.whole_files import replacing, write_whole

_REMOTE = re.compile(r"(?P<scheme>s3|gs|gcs)://(?P<path>[^?]*)(?P<query>\?\w+=[^?]*)?")
_REMOTE_START = re.compile(r"(s3|gs|gcs)://")
_SCHEME = re.compile(r"[a-zA-Z][\w+.-]+://")


class FileStat(NamedTuple):
    """Size in bytes, and times in nanoseconds since 1970.

    Attributes:
        size: In bytes.
        mtime_ns: Of the last change, as the file says; a copy may say that of its original.
        ctime_ns: Of the last change of the file or its name; 0 in a bucket.
    """

    size: int
    mtime_ns: int
    ctime_ns: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """A file or folder; equal, hashed and pickled by its name alone.

    Errors of the storage are `OSError`, wherever it is.
    """

    name_as_given: str

    @classmethod
    def of(cls, place: "str | Path | Place") -> "Place":
        """Take a local path, file:, s3:// or gs:// URL.

        Raises:
            PlatformError: If the URL is of another kind, or holds a password.
        """
        if isinstance(place, Place):
            return place
        name = str(place)
        if name.startswith("file:"):
            return cls(unquote(urlsplit(name).path))
        if _SCHEME.match(name):
            _check_remote(name)
        return cls(name)

    def __str__(self) -> str:
        """What the user typed."""
        return self.name_as_given

    def __truediv__(self, name: str) -> "Place":
        """A file or folder inside.

        Raises:
            PlatformError: If the name of a file in a bucket holds a question mark.
        """
        if not self.is_local and "?" in name:
            raise _no_question_mark(f"{self._split()[0]}/{name}")
        head, query = self._split()
        return Place(f"{head.rstrip('/') if head != '/' else ''}/{name}{query}")

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine's own file system."""
        return not _SCHEME.match(self.name_as_given)

    @property
    def name(self) -> str:
        """The last part."""
        return PurePosixPath(self._split()[0]).name

    @property
    def parent(self) -> "Place":
        """The folder it lies in."""
        head, query = self._split()
        if self.is_local:
            return Place(str(Path(head).parent))
        above, _, last = head.rstrip("/").rpartition("/")
        return Place(f"{head if above.endswith('/') or not last else above}{query}")

    @property
    def local(self) -> Path:
        """As a path of this machine; only if it is one."""
        assert self.is_local, f"{self} is not local"
        return Path(self.name_as_given)

    @property
    def filesystem(self) -> fs.FileSystem:
        """Pyarrow's file system for it."""
        if self.is_local:
            return _LOCAL
        head, query = self._split()
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
        return _connect(urlsplit(head).scheme, urlsplit(head).netloc, query, endpoint)

    @property
    def bucket(self) -> str:
        """URL of its bucket, with the query; empty on this machine."""
        head, query = self._split()
        scheme, netloc, *_ = urlsplit(head)
        return "" if self.is_local else f"{scheme}://{netloc}{query}"

    @property
    def path(self) -> str:
        """Its name in that file system."""
        if self.is_local:
            return self.name_as_given
        bucket, slash, key = self._split()[0].partition("://")[2].partition("/")
        return f"{bucket.rpartition('@')[2]}{slash}{key}".rstrip("/")

    def absolute(self) -> "Place":
        """The same place for a process with another working directory."""
        return Place(os.path.abspath(self.name_as_given)) if self.is_local else self

    def exists(self) -> bool:
        """Whether a file or a folder is there."""
        return self._info().type != fs.FileType.NotFound

    def is_dir(self) -> bool:
        """Whether it is a folder; in a bucket, one that something lies in."""
        return self._info().type == fs.FileType.Directory

    def is_file(self) -> bool:
        """Whether it is a file."""
        return self._info().type == fs.FileType.File

    def stat(self) -> FileStat:
        """Size and time of change.

        Raises:
            FileNotFoundError: If no file is there.
        """
        (found,) = stat_all([self])
        if found is None:
            raise FileNotFoundError(2, "No such file", str(self))
        return found

    def open_input(self) -> pa.NativeFile:
        """Open for reading, with random access."""
        return self.filesystem.open_input_file(self.path)

    def read_bytes(self) -> bytes:
        """Read it all."""
        with self.open_input() as file:
            return file.read()

    def read_text(self) -> str:
        """Read it all as UTF-8."""
        return self.read_bytes().decode()

    def write_whole(self, content: str | bytes) -> None:
        """Write it so that it is there whole or not at all."""
        if self.is_local:
            write_whole(self.local, content)
        else:
            self._upload(content.encode() if isinstance(content, str) else content)

    @contextmanager
    def replacing(self) -> Iterator[Path]:
        """Give a local file to write to, which takes this one's place at the end.

        An error or a kill leaves what was there before.
        """
        if self.is_local:
            with replacing(self.local) as temporary:
                yield temporary
            return
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / self.name
            yield temporary
            self._upload(temporary.read_bytes())

    def iterdir(self) -> list["Place"]:
        """What lies in the folder, in the order of the names; nothing if it is not there."""
        found = self.filesystem.get_file_info(
            fs.FileSelector(self.path, allow_not_found=True, recursive=False)
        )
        return [self / name for name in sorted(info.base_name for info in found)]

    def file_sizes(self) -> dict[str, int]:
        """Size of each file in the folder, by name, from one listing."""
        found = self.filesystem.get_file_info(
            fs.FileSelector(self.path, allow_not_found=True, recursive=False)
        )
        return {info.base_name: info.size for info in found if info.is_file}

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove the file."""
        if self.is_local:
            self.local.unlink(missing_ok=missing_ok)
        elif not missing_ok or self.is_file():
            self.filesystem.delete_file(self.path)

    def mkdir(self) -> None:
        """Make the folder and those above it; a bucket has none and needs none."""
        if self.is_local:
            self.local.mkdir(parents=True, exist_ok=True)

    def _split(self) -> tuple[str, str]:
        """Name without the query, and the query."""
        match = None if self.is_local else _REMOTE.fullmatch(self.name_as_given)
        if match is None:
            return self.name_as_given, ""
        query = match["query"] or ""
        return self.name_as_given.removesuffix(query), query

    def _info(self) -> fs.FileInfo:
        return self.filesystem.get_file_info(self.path)

    def _upload(self, content: bytes) -> None:
        with self.filesystem.open_output_stream(self.path) as stream:
            stream.write(content)


def stat_all(places: Sequence[Place]) -> list[FileStat | None]:
    """Size and time of change of many files; None for what is not there or is no file.

    A bucket is asked for all of them at once.
    """
    found: dict[Place, FileStat | None] = {}
    remote: dict[str, list[Place]] = {}
    for place in places:
        if place.is_local:
            found[place] = _stat_local(place.local)
        else:
            remote.setdefault(place.bucket, []).append(place)
    for asked in remote.values():
        answers = asked[0].filesystem.get_file_info([place.path for place in asked])
        for place, info in zip(asked, answers, strict=True):
            is_file = info.type == fs.FileType.File
            found[place] = FileStat(info.size, info.mtime_ns or 0) if is_file else None
    return [found[place] for place in places]


def _stat_local(path: Path) -> FileStat | None:
    try:
        status = path.stat()
    except OSError:  # a symlink loop too
        return None
    is_file = stat.S_ISREG(status.st_mode)
    return FileStat(status.st_size, status.st_mtime_ns, status.st_ctime_ns) if is_file else None


def _check_remote(name: str) -> None:
    match = _REMOTE.fullmatch(name)
    if match is None and _REMOTE_START.match(name):
        raise _no_question_mark(name)
    if match is None:
        raise PlatformError(
            f"{name}: must be a local path or begin with file:, s3:// or gs://; correct it"
        )
    if ":" in match["path"].partition("/")[0]:
        raise PlatformError(
            f"{match['scheme']}://...: must hold no key or password, but it does; set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile, instead"
        )


def _no_question_mark(name: str) -> PlatformError:
    return PlatformError(
        f"{name}: must hold no question mark but before settings such as "
        "?endpoint_override=host:port, which follow one in a URL; rename the file"
    )


_LOCAL = fs.LocalFileSystem()


@cache
def _connect(scheme: str, bucket: str, query: str, endpoint: str) -> fs.FileSystem:
    """One file system for all files of a bucket: it holds connections."""
    settings = {name: values[-1] for name, values in parse_qs(query.removeprefix("?")).items()}
    if scheme == "s3" and endpoint and "endpoint_override" not in settings:
        # Pyarrow would first ask Amazon for the bucket's region.
        url = urlsplit(endpoint)
        settings |= {"endpoint_override": url.netloc, "scheme": url.scheme}
    if "endpoint_override" in settings and scheme == "s3":
        settings.setdefault("region", os.environ.get("AWS_DEFAULT_REGION", "us-east-1"))
    uri = f"{'gs' if scheme == 'gcs' else scheme}://{bucket}"
    try:
        return fs.FileSystem.from_uri(f"{uri}?{urlencode(settings)}" if settings else uri)[0]
    except (pa.ArrowInvalid, OSError) as error:
        reason = " ".join(str(error).split())
        raise PlatformError(
            f"{uri}: must be a bucket that can be reached, but {reason}; correct the URL"
        ) from error
