"""Fetch an archive over HTTP: checked against its checksum, taken up again where it broke off.

Pooch compares checksums and lets a file take its name only when they agree; it always begins at
the first byte, so what reads the server is ours. Beside the bytes of a download that broke off lies
what the server said of their file: not every archive has a checksum, and two versions of one must
never be joined.
"""

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pooch
import requests

from asit_platform.data.archives import Archive
from asit_platform.errors import PlatformError

OnProgress = Callable[[int, int | None], None]

_VAIN_ATTEMPTS = 5  # in a row
_TIMEOUT_S = 30.0  # without a byte
_CHUNK_BYTES = 2**16  # of what has come, a broken connection loses less than this
_CONTENT_RANGE = re.compile(r"bytes (?P<first>\d+)-\d+/(?P<length>\d+|\*)")

_logger = logging.getLogger(__name__)


class _Source(NamedTuple):
    """The file that the bytes of a `.part` are of."""

    url: str
    validator: str | None  # what the server tells it by from other versions
    length: int | None


def fetch(archive: Archive, root: Path, on_progress: OnProgress, *, wait_s: float = 2.0) -> Path:
    """Download an archive into a folder, unless it lies there already.

    A connection that breaks is taken up again where it broke, at once and by the next call too:
    until then the bytes lie in a file whose name ends in `.part`. Where they could be another
    file's, it begins anew.

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
        _record(part).unlink()

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
        there = _usable(part, _read_source(part, archive.url))
        kept = f"{there / 1e6:.1f} MB of it is there: " if there else ""
        raise PlatformError(
            f"{archive.url}: the server must be reachable, but {_reason(error)}; {kept}run the "
            f"command again{' to go on' if there else ''}"
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
    vain, furthest = 0, _usable(part, _read_source(part, url))
    while True:
        try:
            _go_on(url, part, on_progress)
            return
        except requests.HTTPError:
            raise
        except requests.RequestException as error:
            there = _size(part)
            vain, furthest = (0, there) if there > furthest else (vain + 1, furthest)
            if vain == _VAIN_ATTEMPTS:
                raise
            _logger.warning("%s: %s; going on", url, _reason(error))
            time.sleep(wait_s * (vain + 1))


def _go_on(url: str, part: Path, on_progress: OnProgress) -> None:
    """Ask for what is missing of the file; all of it where the server cannot leave off a part."""
    source = _read_source(part, url)
    there = _usable(part, source)
    if source is not None and there and there == source.length:
        return
    headers, rest = {"Accept-Encoding": "identity"}, requests.codes.partial_content
    if source is not None and source.validator is not None and there:
        headers |= {"Range": f"bytes={there}-", "If-Range": source.validator}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
        if "Range" in headers and _is_of_another(response, source, there):
            part.unlink()
            _go_on(url, part, on_progress)
            return
        response.raise_for_status()
        if source is None or "Range" not in headers or response.status_code != rest:
            there, source = 0, _begin(url, part, response.headers)
        with part.open("ab") as file:
            for chunk in response.iter_content(_CHUNK_BYTES):
                file.write(chunk)
                there += len(chunk)
                on_progress(there, source.length)
    if source.length is not None and there != source.length:
        raise requests.ConnectionError(f"{there} bytes came of {source.length}")


def _is_of_another(response: requests.Response, source: _Source | None, there: int) -> bool:
    """Whether the answer to a range is no continuation of what is there."""
    if response.status_code == requests.codes.requested_range_not_satisfiable:
        return True
    if source is None or response.status_code != requests.codes.partial_content:
        return False
    span = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if span is None or int(span["first"]) != there:
        return True
    is_as_long = span["length"] == "*" or source.length in (None, int(span["length"]))
    # servers are free not to repeat a date, and some do not know If-Range
    return not is_as_long or _validator(response.headers) not in (None, source.validator)


def _begin(url: str, part: Path, headers: Mapping[str, str]) -> _Source:
    """Empty the file, and only then write beside it what will be in it."""
    length = headers.get("Content-Length")
    if "Content-Encoding" in headers:  # its bytes are not the file's
        source = _Source(url, None, None)
    else:
        source = _Source(url, _validator(headers), int(length) if length else None)
    part.write_bytes(b"")
    _record(part).write_text(json.dumps(source._asdict()))
    return source


def _validator(headers: Mapping[str, str]) -> str | None:
    """The ETag, or else the date; a weak ETag does not tell files apart byte for byte."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified")


def _record(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_source(part: Path, url: str) -> _Source | None:
    """What the bytes that are there are of; None if that is unknown or not this URL's file."""
    try:
        source = _Source(**json.loads(_record(part).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return source if source.url == url else None


def _usable(part: Path, source: _Source | None) -> int:
    """How many bytes are there that can be gone on with."""
    there = _size(part)
    if source is None or (source.length is not None and there > source.length):
        return 0
    return there if source.validator is not None or there == source.length else 0


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _reason(error: Exception) -> str:
    """The innermost cause, in one line: what wraps it repeats the URL."""
    while (inner := error.__context__) is not None and isinstance(inner, Exception):
        error = inner
    return " ".join(str(error).split()) or type(error).__name__
