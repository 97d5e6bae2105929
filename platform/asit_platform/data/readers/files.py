"""The sound files below a folder, and the text files beside them; local or at a URL.

A set is found by one walk, never by asking for each listed file: two million questions take hours
on a network file system, and names vary (another format, another folder) where stems do not.
"""

import os
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import pyarrow.fs as pa_fs

from asit_platform.errors import PlatformError
from asit_platform.storage import Place

# What libsndfile decodes; of one recording in several formats, the first is taken.
SOUND_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au")
_PREFERENCE = {suffix: number for number, suffix in enumerate(SOUND_SUFFIXES)}


def open_root(root: str | Path | Place, *, holds: str, option: str = "--root") -> Place:
    """The folder of a data set.

    Args:
        root: What the user typed.
        holds: What must be in it, for the message.
        option: The flag it was passed with.

    Raises:
        PlatformError: If it is not a folder, or its name is not UTF-8.
    """
    place = root if isinstance(root, Place) else Place.of(root)
    _check_name(str(place))
    if not place.is_dir():
        was = "a file" if place.exists() else "missing"
        raise PlatformError(
            f"{place}: dataset folder must exist, but it is {was}; "
            f"pass the folder that holds {holds} as {option}"
        )
    return place


def find_sounds(root: Place) -> list[str]:
    """Sound files below `root`, as sorted relative paths; each folder once, links followed.

    Hidden files and folders are passed over: archives from a Mac bring a `._x.wav` for every
    `x.wav`.

    Raises:
        PlatformError: If a folder cannot be read, a sound has a name that is not UTF-8, or no
            sound file is there.
    """
    others: Counter[str] = Counter()
    sounds = []
    for relative in _walk(root):
        suffix = PurePosixPath(relative).suffix.lower()
        if suffix in _PREFERENCE:
            _check_name(relative, where=f"{root}: ")
            sounds.append(relative)
        else:
            others[suffix.encode(errors="replace").decode() or "no extension"] += 1
    if not sounds:
        seen = ", ".join(f"{count:,} {suffix}" for suffix, count in others.most_common(3))
        raise PlatformError(
            f"{root}: must hold sound files ({', '.join(SOUND_SUFFIXES[:5])} ...), but holds none "
            f"(found: {seen or 'nothing'}); choose another folder or convert them to flac"
        )
    return sorted(sounds)


def by_stem(sounds: Iterable[str], *, parts: int = 1) -> dict[str, str]:
    """Relative paths by their last `parts` components without extension.

    `by_stem(["dev/wav/id1/vid/01.wav"], parts=3)` has the key `id1/vid/01`. Of several files with
    one key the preferred format is taken, then the first path.
    """
    found: dict[str, str] = {}
    for relative in sounds:
        key = "/".join(relative.rsplit("/", parts)[-parts:])
        key = key[: -len(PurePosixPath(relative).suffix)]
        if key not in found or _rank(relative) < _rank(found[key]):
            found[key] = relative
    return found


def read_text(place: Place, *, remedy: str) -> str:
    """A text file in UTF-8, with or without a byte order mark.

    Raises:
        PlatformError: If it is missing, unreadable or no text; the message ends with `remedy`.
    """
    try:
        return place.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise PlatformError(f"{place}: must exist, but it does not; {remedy}") from None
    except IsADirectoryError:
        raise PlatformError(f"{place}: must be a file, but it is a folder; {remedy}") from None
    except UnicodeDecodeError as error:
        raise PlatformError(f"{place}: must be UTF-8 text, but {error}; {remedy}") from error
    except OSError as error:
        raise PlatformError(
            f"{place}: must be readable, but {_one_line(error)}; correct its permissions"
        ) from error


def iterate_lines(text: str) -> Iterator[str]:
    """The lines of a text with their ends; `io.StringIO` would hold four bytes a character."""
    return (match[0] for match in re.finditer(r".*\n|.+$", text))


def read_lines(place: Place, *, remedy: str) -> list[str]:
    """The lines of a text file that are not blank, without spaces at their ends."""
    lines = (line.strip() for line in read_text(place, remedy=remedy).splitlines())
    return [line for line in lines if line]


def _check_name(name: str, *, where: str = "") -> None:
    """Neither a table nor a shard could hold such a name."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise PlatformError(
            f"{where}{name!r}: name must be UTF-8, but is not; rename the file or its folder"
        ) from None


def _rank(relative: str) -> tuple[int, str]:
    return _PREFERENCE[PurePosixPath(relative).suffix.lower()], relative


def _walk(root: Place) -> Iterator[str]:
    try:
        if isinstance(root.filesystem, pa_fs.LocalFileSystem):
            yield from _walk_local(root.path)
        else:
            yield from _walk_remote(root)
    except OSError as error:
        raise PlatformError(
            f"{root}: must be readable, but {_one_line(error)}; correct its permissions"
        ) from error


def _walk_local(top: str) -> Iterator[str]:
    """Folders behind links come last and each folder once, so a loop of links ends."""
    pending = deque([""])
    linked: deque[str] = deque()
    visited: set[tuple[int, int]] = set()
    while pending or linked:
        folder = pending.popleft() if pending else linked.popleft()
        status = os.stat(os.path.join(top, folder))
        if (status.st_dev, status.st_ino) in visited:
            continue
        visited.add((status.st_dev, status.st_ino))
        with os.scandir(os.path.join(top, folder)) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                relative = f"{folder}/{entry.name}" if folder else entry.name
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink() and os.path.isdir(entry.path):
                    linked.append(relative)
                elif entry.is_dir(follow_symlinks=False):
                    pending.append(relative)
                else:
                    yield relative


def _walk_remote(root: Place) -> Iterator[str]:
    top = root.path.rstrip("/") + "/"
    for info in root.filesystem.get_file_info(pa_fs.FileSelector(root.path, recursive=True)):
        relative = info.path.removeprefix(top)
        if info.type == pa_fs.FileType.File and "/." not in f"/{relative}":
            yield relative


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
