"""Unpack an archive into a folder that is there whole or not at all."""

import gzip
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path

import pooch

from asit_platform.data.archives import Archive
from asit_platform.errors import PlatformError

_UNREADABLE = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)


def unpack(archive: Archive, path: Path, root: Path) -> Path:
    """Unpack, check what came out, and only then give the folder its name.

    Args:
        archive: What was fetched.
        path: Where it lies; removed at the end, unless the disk is at fault.
        root: Where the folder goes.

    Returns:
        The folder.

    Raises:
        PlatformError: If the archive is damaged, would write outside the folder, or does not hold
            what it should; or if the disk is full.
    """
    beside = root / f".{archive.folder}.unpacking"
    try:
        shutil.rmtree(beside, ignore_errors=True)
        _extract(path, beside)
        inside = _content(beside)
        _check(archive, inside)
        folder = root / archive.folder
        inside.replace(folder)
    except _UNREADABLE as error:
        path.unlink()
        reason = " ".join(str(error).split())
        raise PlatformError(
            f"{path}: must be a whole archive, but {reason}; it was removed: run the command again"
        ) from error
    except PlatformError:
        path.unlink()  # or the next fetch would take it for what a mirror has
        raise
    except OSError as error:
        raise PlatformError(
            f"{root}: --root must be writable, but {error}; free space and run the command again"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    path.unlink()
    return folder


def _extract(path: Path, folder: Path) -> None:
    """Neither leaves the folder: `zipfile` by itself, `tarfile` with its filter for data."""
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
    else:
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")


def _content(folder: Path) -> Path:
    """The one folder inside, where everything is packed in one."""
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def _check(archive: Archive, folder: Path) -> None:
    for name, checksum in archive.files.items():
        path = folder / name
        algorithm = checksum.partition(":")[0]
        found = f"{algorithm}:{pooch.file_hash(path, algorithm)}" if path.is_file() else "no file"
        if found != checksum:
            raise PlatformError(
                f"{archive.url}: {name} must have {checksum}, but got {found}; it was removed: "
                "pass the URL of another copy as --mirror"
            )
    for pattern, count in archive.counts.items():
        found = len(list(folder.glob(pattern)))
        if found != count:
            raise PlatformError(
                f"{archive.url}: must hold {count} files {pattern}, but got {found}; it was "
                "removed: pass the URL of another copy as --mirror"
            )
