"""Fetch an archive over HTTP: checked against its checksum, taken up again where it broke off.

Pooch compares checksums and lets a file take its name only when they agree; it always begins at
the first byte, so what reads the server is ours.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pooch
import requests

from asit_platform.data.archives import Archive
from asit_platform.errors import PlatformError

OnProgress = Callable[[int, int | None], None]

_VAIN_ATTEMPTS = 5  # in a row
_TIMEOUT_S = 30.0  # without a byte
_CHUNK_BYTES = 2**16  # of what has come, a broken connection loses less than this
_RANGE_NOT_SATISFIABLE = 416

_logger = logging.getLogger(__name__)


def fetch(archive: Archive, root: Path, on_progress: OnProgress, *, wait_s: float = 2.0) -> Path:
    """Download an archive into a folder, unless it lies there already.

    A connection that breaks is taken up again where it broke, at once and by the next call too:
    until then the bytes lie in a file whose name ends in `.part`.

    Args:
        archive: What to fetch.
        root: Where to put it; made if missing.
        on_progress: Called with bytes there and bytes in all, None if the server does not say.
        wait_s: Pause before a broken connection is made again; longer each time.

    Raises:
        PlatformError: If the server does not give the file, or another one than it should.
    """
    pooch.get_logger().setLevel(logging.WARNING)  # it would tell of each file on stderr
    part = root / f"{archive.file_name}.part"

    def download(url: str, output_file: str, _pooch: object) -> None:
        _fetch_part(url, part, on_progress, wait_s=wait_s)
        part.replace(output_file)

    with _explained(archive, root, part):
        path = pooch.retrieve(
            archive.url,
            known_hash=archive.checksum,
            fname=archive.file_name,
            path=root,
            # its protocol calls the URL `fname`, and passes it by position
            downloader=download,  # pyright: ignore[reportArgumentType]
        )
    return Path(path)


@contextmanager
def _explained(archive: Archive, root: Path, part: Path) -> Iterator[None]:
    try:
        yield
    except requests.HTTPError as error:
        raise PlatformError(
            f"{archive.url}: the server must give the file, but it answers {error}; try later or "
            "pass --mirror"
        ) from error
    except requests.RequestException as error:
        kept = f"{_size(part) / 1e6:.1f} MB"
        raise PlatformError(
            f"{archive.url}: the server must be reachable, but {_reason(error)}; {kept} of it is "
            "there: run the command again to go on"
        ) from error
    except ValueError as error:  # pooch's, of a checksum
        raise PlatformError(
            f"{archive.url}: the file must have {archive.checksum}, but it does not; it was "
            "removed: run the command again, or pass another --mirror"
        ) from error
    except OSError as error:
        raise PlatformError(
            f"{root}: --root must be writable, but {error}; choose another or free space"
        ) from error


def _fetch_part(url: str, part: Path, on_progress: OnProgress, *, wait_s: float) -> None:
    vain = 0
    while True:
        before = _size(part)
        try:
            _go_on(url, part, on_progress)
            return
        except requests.HTTPError:
            raise
        except requests.RequestException as error:
            vain = vain + 1 if _size(part) <= before else 0
            if vain == _VAIN_ATTEMPTS:
                raise
            _logger.warning("%s: %s; going on", url, _reason(error))
            time.sleep(wait_s * (vain + 1))


def _go_on(url: str, part: Path, on_progress: OnProgress) -> None:
    """Ask for what is missing of the file; all of it where the server cannot leave off a part."""
    there = _size(part)
    headers = {"Accept-Encoding": "identity"}
    if there:
        headers["Range"] = f"bytes={there}-"
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
        if there and response.status_code == _RANGE_NOT_SATISFIABLE:
            return  # all of it is there; if not, its checksum will say so
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            there = 0
        length = response.headers.get("Content-Length")
        total = there + int(length) if length else None
        with part.open("ab" if there else "wb") as file:
            for chunk in response.iter_content(_CHUNK_BYTES):
                file.write(chunk)
                there += len(chunk)
                on_progress(there, total)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _reason(error: Exception) -> str:
    """The innermost cause, in one line: what wraps it repeats the URL."""
    while (inner := error.__context__) is not None and isinstance(inner, Exception):
        error = inner
    return " ".join(str(error).split()) or type(error).__name__
