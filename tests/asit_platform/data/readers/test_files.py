import os
from collections.abc import Callable
from pathlib import Path

import pytest

from asit_platform.data.readers.files import by_stem, find_sounds, open_root, read_text
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

WriteSounds = Callable[..., None]


def test_finds_sounds_in_any_folder_with_any_name(
    tmp_path: Path, write_sounds: WriteSounds
) -> None:
    names = ["-starts-with.wav", "a b/ünï ☃.flac", "a b/deep/er/UPPER.WAV", "_x.ogg"]
    write_sounds(tmp_path, names)
    (tmp_path / "notes.txt").write_text("no sound")
    assert find_sounds(Place.of(tmp_path)) == sorted(names)


def test_hidden_files_of_a_mac_are_passed_over(tmp_path: Path, write_sounds: WriteSounds) -> None:
    write_sounds(tmp_path, ["a.wav", "._a.wav", ".cache/b.wav"])
    assert find_sounds(Place.of(tmp_path)) == ["a.wav"]


def test_links_are_followed_and_a_loop_of_them_ends(
    tmp_path: Path, write_sounds: WriteSounds
) -> None:
    write_sounds(tmp_path, ["root/dog/1.wav", "elsewhere/cat/2.wav"])
    root = tmp_path / "root"
    (root / "cat").symlink_to(tmp_path / "elsewhere" / "cat")
    (root / "dog" / "up").symlink_to(root)
    (root / "again").symlink_to(root / "dog")
    (root / "self").symlink_to(root / "self")
    (root / "linked.wav").symlink_to(root / "dog" / "1.wav")
    assert find_sounds(Place.of(root)) == ["cat/2.wav", "dog/1.wav", "linked.wav"]


@pytest.mark.parametrize("name", [b"caf\xe9.wav", b"caf\xe9/1.wav"])
def test_a_name_that_is_not_utf_8_is_named(
    tmp_path: Path, write_sounds: WriteSounds, name: bytes
) -> None:
    write_sounds(tmp_path, ["a.wav", os.fsdecode(name)])
    with pytest.raises(
        PlatformError, match=r"caf\\udce9.*: name must be UTF-8.*; rename"
    ) as caught:
        find_sounds(Place.of(tmp_path))
    assert str(caught.value).encode()


def test_an_extension_that_is_not_utf_8_can_be_printed(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"a.w\xe9v")).touch()
    with pytest.raises(PlatformError, match="holds none") as caught:
        find_sounds(Place.of(tmp_path))
    assert str(caught.value).encode()


def test_says_what_lies_there_instead_of_sound(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.mkv").touch()
    with pytest.raises(PlatformError, match=r"holds none \(found: 3 \.mkv\); .* convert them"):
        find_sounds(Place.of(tmp_path))


def test_root_must_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PlatformError, match=r"but it is a file; pass the folder that holds x as"):
        open_root(tmp_path / "file", holds="x")
    with pytest.raises(PlatformError, match=r"but it is missing.*--test-root"):
        open_root(tmp_path / "none", holds="x", option="--test-root")
    with pytest.raises(PlatformError, match=r"\\udce9': name must be UTF-8.*; rename"):
        open_root(tmp_path / os.fsdecode(b"\xe9"), holds="x")


def test_of_one_recording_in_several_formats_the_preferred_is_taken() -> None:
    found = by_stem(["b/x.flac", "a/x.mp3", "c/x.wav", "z/y.ogg"])
    assert found == {"x": "c/x.wav", "y": "z/y.ogg"}
    assert by_stem(["dev/wav/id1/v/1.wav"], parts=3) == {"id1/v/1": "dev/wav/id1/v/1.wav"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, r"must exist, but it does not; look"),
        (lambda path: path.mkdir(), r"must be a (file|text)|must be readable"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), r"must be UTF-8 text, but .*; look"),
    ],
)
def test_text_that_cannot_be_read(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path / "list.txt")
    with pytest.raises(PlatformError, match=message) as caught:
        read_text(Place.of(tmp_path / "list.txt"), remedy="look elsewhere")
    assert "\n" not in str(caught.value)
