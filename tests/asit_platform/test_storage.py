import os
import pickle
from pathlib import Path

import pytest

from asit_platform.errors import PlatformError
from asit_platform.storage import FileStat, Place, stat_all

QUERY = "?endpoint_override=localhost:1&scheme=http"


@pytest.fixture(params=["local", "bucket"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "local":
        return Place.of(tmp_path)
    head, query = request.getfixturevalue("bucket_url").split("?")
    return Place.of(f"{head}/{tmp_path.name}?{query}")


def test_a_file_is_written_read_listed_and_removed(folder: Place) -> None:
    inside = folder / "a b" / "-ü.txt"
    assert not inside.exists()
    inside.parent.mkdir()
    inside.write_whole("größer")
    assert inside.is_file()
    assert not inside.is_dir()
    assert inside.parent.is_dir()
    assert inside.read_text() == "größer"
    assert inside.stat().size == len("größer".encode())
    with inside.open_input() as file:
        file.seek(2)
        assert file.read(2) == "ö".encode()
    (inside.parent / "0.bin").write_whole(b"\x00")
    assert [place.name for place in inside.parent.iterdir()] == ["-ü.txt", "0.bin"]
    assert inside.parent.file_sizes() == {"-ü.txt": 8, "0.bin": 1}
    assert str(inside.parent.iterdir()[0]) == str(inside)
    inside.unlink()
    assert not inside.exists()
    inside.unlink(missing_ok=True)


def test_what_is_not_there(folder: Place) -> None:
    missing = folder / "none"
    for read in (missing.read_bytes, missing.stat, missing.unlink):
        with pytest.raises(FileNotFoundError):
            read()
    assert missing.iterdir() == []
    assert missing.file_sizes() == {}
    assert not missing.is_dir()


def test_an_error_leaves_what_was_there(folder: Place) -> None:
    place = folder / "file"
    place.write_whole("old")
    with pytest.raises(KeyError), place.replacing() as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise KeyError
    assert place.read_text() == "old"
    assert [inside.name for inside in folder.iterdir()] == ["file"]
    with place.replacing() as temporary:
        temporary.write_text("new")
    assert place.read_text() == "new"


def test_many_are_asked_at_once(folder: Place, tmp_path: Path) -> None:
    (folder / "file").write_whole("four")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    found = stat_all([folder / "none", folder / "file", Place.of(loop), Place.of(tmp_path)])
    assert [None if stat is None else stat.size for stat in found] == [None, 4, None, None]
    assert (folder / "file").stat() == found[1]


def test_time_of_change(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"ab")
    os.utime(path, ns=(1, 123_456_789_000))
    expected = FileStat(2, 123_456_789_000, path.stat().st_ctime_ns)
    assert Place.of(path).stat() == expected


@pytest.mark.parametrize(
    ("name", "child", "parent", "path"),
    [
        ("data/set", "data/set/x", "data", "data/set"),
        ("/data/set/", "/data/set/x", "/data", "/data/set/"),
        ("/", "/x", "/", "/"),
        (".", "./x", ".", "."),
        ("s3://b/k", "s3://b/k/x", "s3://b", "b/k"),
        ("gs://b/k/", "gs://b/k/x", "gs://b", "b/k"),
        ("s3://b", "s3://b/x", "s3://b", "b"),
        ("s3://user@b/a@b/c@d", "s3://user@b/a@b/c@d/x", "s3://user@b/a@b", "b/a@b/c@d"),
        (f"s3://b/k{QUERY}", f"s3://b/k/x{QUERY}", f"s3://b{QUERY}", "b/k"),
    ],
)
def test_names(name: str, child: str, parent: str, path: str) -> None:
    place = Place.of(name)
    assert str(place) == name
    assert str(place / "x") == child
    assert (place / "x").name == "x"
    assert str(place.parent) == parent
    assert place.path == path


def test_what_a_place_is_made_of(tmp_path: Path) -> None:
    place = Place.of(tmp_path)
    assert Place.of(place) is place
    assert Place.of(f"file://{tmp_path}") == place == Place.of(str(tmp_path))
    assert Place.of("file:///a%20b").local == Path("/a b")
    assert pickle.loads(pickle.dumps(Place.of(f"s3://b/k{QUERY}"))) == Place.of(f"s3://b/k{QUERY}")


def test_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Place.of("a/../b").absolute().local == tmp_path / "b"
    assert str(Place.of("s3://b/k").absolute()) == "s3://b/k"


@pytest.mark.parametrize("name", ["ftp://host/x", "http://host/x", "S3://bucket/x"])
def test_other_schemes(name: str) -> None:
    with pytest.raises(PlatformError, match=rf"^{name}: must be a local path or begin with file:"):
        Place.of(name)


@pytest.mark.parametrize("name", ["a@b.wav", "a#b.wav", "a%20b.wav", "a b@c%.wav", "@"])
def test_odd_keys_are_what_they_say(bucket_url: str, name: str) -> None:
    folder = Place.of(bucket_url) / "od@d"
    (folder / name).write_whole(name)
    found = [place for place in folder.iterdir() if place.name == name]
    assert [place.read_text() for place in found] == [name]
    assert Place.of(str(found[0])) == found[0]


def test_keys_with_a_question_mark_are_refused_in_one_line() -> None:
    for name in ("s3://b/what?.wav", "s3://b/a?b.wav?region=x"):
        with pytest.raises(PlatformError, match=r"must hold no question mark but .*; rename"):
            Place.of(name)
    with pytest.raises(PlatformError, match=r"^s3://b/k/what\?\.wav: must hold no question mark"):
        _ = Place.of(f"s3://b/k{QUERY}") / "what?.wav"


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(PlatformError, match="must hold no key or password") as caught:
        Place.of("s3://key:secret@bucket/x")
    assert "secret" not in str(caught.value)


def test_a_wrong_query_is_one_line() -> None:
    with pytest.raises(PlatformError, match=r"^s3://b: must be a bucket that can be reached") as c:
        _ = Place.of("s3://b/x?no_such_setting=1").filesystem
    assert "\n" not in str(c.value)


def test_the_endpoint_that_the_clouds_own_tools_read(
    bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (Place.of(bucket_url) / "seen").write_whole("by its query")
    address = bucket_url.partition("endpoint_override=")[2].partition("&")[0]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{address}")
    assert Place.of("s3://bucket/folder/seen").read_text() == "by its query"
