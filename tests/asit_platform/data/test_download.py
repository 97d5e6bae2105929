"""Downloads from a server on localhost that breaks off, lies, or does not know of ranges."""

import contextlib
import hashlib
import io
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from asit_platform.cli import main
from asit_platform.data.archives import Archive
from asit_platform.data.download import fetch
from asit_platform.data.get_cli import get
from asit_platform.data.unpack import unpack
from asit_platform.errors import PlatformError

# More than one chunk, and nothing that compression could make small.
CONTENT = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8).tobytes()
OTHER = CONTENT[::-1]


@dataclass
class Server:
    """What a server on localhost gives, and what it was asked for.

    `breaks` holds, for each request, after how many bytes the connection is cut. `if_range` holds
    what each request asked for as long as it is still the same file.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    breaks: list[int] = field(default_factory=list)
    knows_ranges: bool = True
    heeds_if_range: bool = True
    shift: int = 0  # of what it sends from what it was asked for
    validators: tuple[str, ...] = ("ETag",)
    asked: list[str | None] = field(default_factory=list)
    if_range: list[str | None] = field(default_factory=list)

    def archive(self, name: str, content: bytes) -> Archive:
        """Serve this content as an archive."""
        self.files[f"/{name}"] = content
        return Archive(
            url=f"{self.url}/{name}", folder=name.partition(".")[0], checksum=_sha256(content)
        )

    def headers(self, content: bytes) -> dict[str, str]:
        """What it says of the file beside its content."""
        tag = hashlib.sha256(content).hexdigest()[:8]
        seconds = int(tag, 16) % 60
        said = {
            "ETag": f'"{tag}"',
            "weak ETag": f'W/"{tag}"',
            "Last-Modified": f"Wed, 21 Oct 2015 07:28:{seconds:02d} GMT",
        }
        return {name.removeprefix("weak "): said[name] for name in self.validators}


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _first_byte(asked: str | None) -> int:
    assert asked is not None
    return int(asked.removeprefix("bytes=").rstrip("-"))


@pytest.fixture
def server() -> Iterator[Server]:
    described = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            described.asked.append(self.headers["Range"])
            if self.path not in described.files:
                self.send_error(404)
                return
            content, first = described.files[self.path], 0
            headers, wanted = described.headers(content), self.headers["If-Range"]
            described.if_range.append(wanted)
            is_same = not described.heeds_if_range or wanted in (None, *headers.values())
            if self.headers["Range"] and described.knows_ranges and is_same:
                first = _first_byte(self.headers["Range"]) + described.shift
                if first >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206)
                span = f"bytes {first}-{len(content) - 1}/{len(content)}"
                self.send_header("Content-Range", span)
            else:
                self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content) - first))
            self.end_headers()
            stop = first + described.breaks.pop(0) if described.breaks else len(content)
            self.wfile.write(content[first:stop])
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Be quiet."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    described.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    yield described
    http.shutdown()
    thread.join()
    http.server_close()


class Progress:
    def __init__(self) -> None:
        self.seen: list[tuple[int, int | None]] = []

    def __call__(self, done: int, total: int | None) -> None:
        self.seen.append((done, total))


def _break_off(server: Server, archive: Archive, root: Path, *, at: int) -> None:
    """Leave a file of about `at` bytes, as a run that gave up does."""
    server.breaks = [at, 0, 0, 0, 0, 0]
    with pytest.raises(PlatformError, match="run the command again"):
        fetch(archive, root, Progress(), wait_s=0.0)


def _tar(names: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in names.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _zip(names: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    return packed.getvalue()


def test_a_broken_connection_is_taken_up_again_where_it_broke(
    server: Server, tmp_path: Path
) -> None:
    archive = server.archive("set.zip", CONTENT)
    server.breaks = [1_500_000, 700_000]
    progress = Progress()
    path = fetch(archive, tmp_path, progress, wait_s=0.0)
    assert path.read_bytes() == CONTENT
    assert server.asked[0] is None
    for asked, broke_at in zip(server.asked[1:], (1_500_000, 2_200_000), strict=True):
        assert broke_at - 2 * 2**16 < _first_byte(asked) <= broke_at  # a chunk is lost each time
    assert progress.seen == sorted(progress.seen)  # never back to the beginning
    assert progress.seen[-1] == (len(CONTENT), len(CONTENT))
    assert [file.name for file in tmp_path.iterdir()] == ["set.zip"]


def test_the_next_run_goes_on_where_the_last_one_gave_up(server: Server, tmp_path: Path) -> None:
    archive = server.archive("set.zip", CONTENT)
    server.breaks = [2_000_000, 0, 0, 0, 0, 0]
    with pytest.raises(PlatformError, match=r"reachable, but .*; [12]\.\d MB of it is there: run"):
        fetch(archive, tmp_path, Progress(), wait_s=0.0)
    assert not (tmp_path / "set.zip").exists()
    server.asked.clear()
    assert fetch(archive, tmp_path, Progress(), wait_s=0.0).read_bytes() == CONTENT
    (asked,) = server.asked
    assert _first_byte(asked) > 1_900_000
    server.asked.clear()
    fetch(archive, tmp_path, Progress())
    assert server.asked == []  # it is there


def test_a_server_without_ranges_begins_again(server: Server, tmp_path: Path) -> None:
    archive = server.archive("set.zip", CONTENT)
    server.knows_ranges = False
    server.breaks = [2_900_000]
    assert fetch(archive, tmp_path, Progress(), wait_s=0.0).read_bytes() == CONTENT


def test_a_file_that_was_there_whole_before_it_got_its_name_is_not_read_again(
    server: Server, tmp_path: Path
) -> None:
    archive = server.archive("set.zip", CONTENT)
    _break_off(server, archive, tmp_path / "other", at=2_900_000)
    part = tmp_path / "other" / "set.zip.part"
    part.write_bytes(CONTENT)  # the program was ended before it was renamed
    server.asked.clear()
    assert fetch(archive, part.parent, Progress()).read_bytes() == CONTENT
    assert server.asked == []


def test_another_file_than_expected_is_refused_and_removed(server: Server, tmp_path: Path) -> None:
    archive = server.archive("set.zip", CONTENT)
    server.files["/set.zip"] = CONTENT[::-1]
    with pytest.raises(PlatformError, match=r"set\.zip: the file must have sha256:.*was removed"):
        fetch(archive, tmp_path, Progress(), wait_s=0.0)
    assert list(tmp_path.iterdir()) == []


def test_bytes_of_unknown_origin_are_not_gone_on_with(server: Server, tmp_path: Path) -> None:
    archive = replace(server.archive("set.zip", CONTENT), checksum=None)
    part = tmp_path / "set.zip.part"
    for record in (None, "", "[]", '{"url": 1}', "\xff"):
        part.write_bytes(OTHER[:1_000_000])
        if record is not None:
            part.with_name("set.zip.part.json").write_text(record, encoding="latin-1")
        path = fetch(archive, tmp_path, Progress(), wait_s=0.0)
        assert path.read_bytes() == CONTENT
        assert [file.name for file in tmp_path.iterdir()] == ["set.zip"]
        path.unlink()
    assert server.asked == [None] * 5


@pytest.mark.parametrize(
    ("heeds_if_range", "validators", "new"),
    [
        (True, ("ETag",), OTHER),
        (True, ("Last-Modified",), OTHER),
        (False, ("ETag",), OTHER),  # it sends the rest of the other file
        (False, ("ETag",), OTHER[:1_000_000]),  # it has less than is there
        (False, (), OTHER[:2_500_000]),
    ],
)
def test_two_versions_of_a_file_are_not_joined(
    server: Server, tmp_path: Path, heeds_if_range: bool, validators: tuple[str, ...], new: bytes
) -> None:
    archive = replace(server.archive("set.zip", CONTENT), checksum=None)
    server.heeds_if_range, server.validators = heeds_if_range, validators
    _break_off(server, archive, tmp_path, at=2_000_000)
    server.files["/set.zip"] = new
    assert fetch(archive, tmp_path, Progress(), wait_s=0.0).read_bytes() == new
    assert [file.name for file in tmp_path.iterdir()] == ["set.zip"]


def test_a_mirror_does_not_go_on_with_the_bytes_of_the_origin(
    server: Server, tmp_path: Path
) -> None:
    archive = replace(server.archive("set.zip", CONTENT), checksum=None)
    server.heeds_if_range = False
    _break_off(server, archive, tmp_path, at=2_000_000)
    mirror = replace(server.archive("mirror.zip", OTHER), folder="set", checksum=None)
    server.asked.clear()
    assert fetch(mirror, tmp_path, Progress(), wait_s=0.0).read_bytes() == OTHER
    assert server.asked == [None]


def test_a_server_that_sends_another_range_begins_again(server: Server, tmp_path: Path) -> None:
    archive = replace(server.archive("set.zip", CONTENT), checksum=None)
    server.shift, server.breaks = 1000, [2_000_000]
    assert fetch(archive, tmp_path, Progress(), wait_s=0.0).read_bytes() == CONTENT
    first, second, third = server.asked
    assert (first, third) == (None, None)
    assert second is not None


@pytest.mark.parametrize(
    ("validators", "name"),
    [
        (("ETag", "Last-Modified"), "ETag"),
        (("Last-Modified",), "Last-Modified"),
        (("weak ETag", "Last-Modified"), "Last-Modified"),
        (("weak ETag",), None),
        ((), None),
    ],
)
def test_a_file_is_gone_on_with_only_where_the_server_can_tell_it_from_another(
    server: Server, tmp_path: Path, validators: tuple[str, ...], name: str | None
) -> None:
    archive = replace(server.archive("set.zip", CONTENT), checksum=None)
    server.validators, server.breaks = validators, [2_000_000]
    assert fetch(archive, tmp_path, Progress(), wait_s=0.0).read_bytes() == CONTENT
    sent = None if name is None else server.headers(CONTENT)[name]
    assert server.if_range == [None, sent]
    assert (server.asked[1] is None) == (name is None)


def test_a_server_that_never_gets_further_is_given_up(server: Server, tmp_path: Path) -> None:
    archive = replace(server.archive("set.zip", CONTENT), checksum=None)
    server.knows_ranges = False
    server.breaks = [2_000_000, 1_000_000, 1_800_000, 900_000, 1_700_000, 800_000]
    with pytest.raises(PlatformError, match="reachable, but"):
        fetch(archive, tmp_path, Progress(), wait_s=0.0)
    assert len(server.asked) == 6


def test_what_is_not_on_the_server_is_one_line(server: Server, tmp_path: Path) -> None:
    archive = Archive(url=f"{server.url}/other.zip", folder="other")
    with pytest.raises(
        PlatformError, match=r"other\.zip: .* but it answers 404 .*Not Found.*; try"
    ):
        fetch(archive, tmp_path, Progress(), wait_s=0.0)
    assert server.asked == [None]  # asking again would not help


@pytest.mark.parametrize(
    ("name", "pack", "top"),
    [("set.zip", _zip, "ESC-50-master/"), ("set.tar.gz", _tar, "./")],
)
def test_what_was_fetched_is_unpacked_under_the_folder_s_own_name(
    server: Server, tmp_path: Path, name: str, pack: Callable[[dict[str, bytes]], bytes], top: str
) -> None:
    names = {f"{top}meta/a.csv": b"a,b\n", f"{top}audio/-1 \N{SNOWMAN}.wav": b"sound"}
    archive = replace(
        server.archive(name, pack(names)),
        files={"meta/a.csv": "md5:" + hashlib.md5(b"a,b\n").hexdigest()},
        counts={"audio/*.wav": 1},
    )
    (folder,) = get([archive], tmp_path / "root")
    assert folder == tmp_path / "root" / "set"
    assert (folder / "audio" / "-1 \N{SNOWMAN}.wav").read_bytes() == b"sound"
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["set"]
    server.asked.clear()
    assert get([archive], tmp_path / "root") == [folder]
    assert server.asked == []


def test_a_mirror_has_the_same_archives_elsewhere(server: Server, tmp_path: Path) -> None:
    archive = server.archive("set.zip", _zip({"set/a": b"a"}))
    server.files["/mirror/set.zip"] = server.files.pop("/set.zip")
    (folder,) = get([archive], tmp_path, mirror=f"{server.url}/mirror/")
    assert (folder / "a").read_bytes() == b"a"


def test_an_archive_without_what_it_should_hold_is_refused(server: Server, tmp_path: Path) -> None:
    content = _zip({"set/meta/a.csv": b"other", "set/audio/1.wav": b"sound"})
    good = _zip({"set/meta/a.csv": b"a", "set/meta/b.csv": b"a", "set/audio/1.wav": b"sound"})
    archive = replace(server.archive("set.zip", content), checksum=None)
    server.files["/mirror/set.zip"] = good
    md5 = "md5:0cc175b9c0f1b6a831c399e269772661"
    wrong_file = replace(archive, files={"meta/a.csv": md5})
    no_file = replace(archive, files={"meta/b.csv": md5})
    too_few = replace(archive, counts={"meta/*.csv": 2})
    for wanted, message in (
        (wrong_file, r"meta/a\.csv must have md5:0cc.*, but got md5:795f\w+"),
        (no_file, r"meta/b\.csv must have .*, but got no file"),
        (too_few, r"must hold 2 files meta/\*\.csv, but got 1"),
    ):
        with pytest.raises(PlatformError, match=f"{message}; it was removed: pass the URL of"):
            get([wanted], tmp_path)
        assert list(tmp_path.iterdir()) == []
        (folder,) = get([wanted], tmp_path, mirror=f"{server.url}/mirror")
        assert (folder / "meta" / "a.csv").read_bytes() == b"a"
        shutil.rmtree(folder)


def _flip(content: bytes) -> bytes:
    assert CONTENT in content
    return content.replace(CONTENT, CONTENT[::-1])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("set.tar.gz", _tar({"a": CONTENT})[:2_000_000]),
        ("set.tar.gz", b"<html>please log in</html>"),
        ("set.zip", _zip({"a": CONTENT})[:2_000_000]),
        ("set.zip", _flip(_zip({"a": CONTENT}))),
    ],
)
def test_a_damaged_archive_leaves_no_folder_behind(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    archive = Archive(url=f"http://host/{name}", folder="set")
    with pytest.raises(PlatformError, match=rf"{name}: must be a whole archive, but .* run the"):
        unpack(archive, tmp_path / name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pack", [_zip, _tar])
def test_nothing_is_written_outside_the_folder(
    tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    path = root / ("set.zip" if pack is _zip else "set.tar.gz")
    archive = Archive(url=f"http://host/{path.name}", folder="set")
    for name in ("../../outside", str(outside)):
        path.write_bytes(pack({name: b"x", "inside": b"y"}))
        with contextlib.suppress(PlatformError):  # refused, or put inside
            unpack(archive, path, root)
        assert not outside.exists()
        assert {left.name for left in root.iterdir()} <= {"set"}
        shutil.rmtree(root / "set", ignore_errors=True)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("is_absolute", [False, True])
def test_nothing_is_written_through_a_link(tmp_path: Path, kind: bytes, is_absolute: bool) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    kept = outside / "kept"
    kept.write_bytes(b"as it was")
    target = str(tmp_path) if is_absolute else "../.."
    for name, aim, written in (
        ("link", f"{target}/outside", "link/new"),  # a file in a folder outside
        ("link", f"{target}/outside/kept", "link"),  # a file outside, written over
    ):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, aim
            tar.addfile(link)
            member = tarfile.TarInfo(written)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
        (root / "set.tar.gz").write_bytes(packed.getvalue())
        archive = Archive(url="http://host/set.tar.gz", folder="set")
        with pytest.raises(PlatformError, match=r"must be a whole archive, but .*link"):
            unpack(archive, root / "set.tar.gz", root)
        assert list(root.iterdir()) == []
        assert [path.name for path in outside.iterdir()] == ["kept"]
        assert kept.read_bytes() == b"as it was"


def test_by_command(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.files["/speech_commands_v0.02.tar.gz"] = b"something else"
    command = ["data", "get", "speech-commands", "--root", str(tmp_path)]
    assert main([*command, "--mirror", server.url]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert "the file must have sha256:af14739ee7dc" in shown.err
    (tmp_path / "speech_commands_v0.02").mkdir()
    assert main(command) == 0
    assert capsys.readouterr().out == (
        f"next: asit data prepare speech-commands --root {tmp_path}/speech_commands_v0.02 "
        "--out DIR\n"
    )
