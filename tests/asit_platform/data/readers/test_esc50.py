import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from asit_core.recipes import RECIPES
from asit_platform.data.readers.esc50 import read_esc50
from asit_platform.errors import PlatformError

WriteCsv = Callable[..., None]


def rows_of(root: Path) -> list[list[str]]:
    with (root / "meta" / "esc50.csv").open(newline="") as file:
        return list(csv.reader(file))[1:]


def test_lists_clips_with_labels_renumbered(esc50: Path) -> None:
    listing = read_esc50(esc50)
    assert listing.name == "ESC-50"
    assert not listing.synthetic
    assert listing.label_names == ("dog", "rain")
    assert len(listing.clips) == 20
    assert [clip.clip_id for clip in listing.clips] == sorted(c.clip_id for c in listing.clips)
    rain = next(clip for clip in listing.clips if clip.clip_id == "3-1002-A-10")
    assert (rain.labels, rain.fold, rain.source) == ((1,), 3, "1002")
    assert rain.path == str(esc50 / "audio" / "3-1002-A-10.wav")
    assert (listing.label_kind, listing.metric, dict(listing.fold_names)) == (
        "single",
        "accuracy",
        {},
    )
    assert set(listing.recipes) <= set(RECIPES)
    assert "ast_esc50" in listing.recipes


def test_subset_keeps_rows_marked_esc10(esc50: Path) -> None:
    listing = read_esc50(esc50, subset="esc10")
    assert listing.name == "ESC-10 subset of ESC-50"
    assert listing.label_names == ("dog",)
    assert len(listing.clips) == 10


def test_warns_of_another_count_than_the_official_one(esc50: Path) -> None:
    assert read_esc50(esc50).warnings == ("ESC-50: 2,000 clips officially, but 20 here (-1,980)",)
    assert read_esc50(esc50, subset="esc10").warnings == (
        "ESC-10 subset of ESC-50: 400 clips officially, but 10 here (-390)",
    )


def test_real_recordings_have_the_official_count(esc10: Path) -> None:
    listing = read_esc50(esc10)
    assert (len(listing.clips), len(listing.label_names), listing.warnings) == (400, 10, ())


def test_a_missing_recording_is_listed_and_left_to_be_skipped(esc50: Path) -> None:
    (esc50 / "audio" / "1-1000-A-0.wav").unlink()
    assert read_esc50(esc50).clips[0].path == str(esc50 / "audio" / "1-1000-A-0.wav")


def test_finds_a_recording_converted_to_ogg(esc50: Path) -> None:
    path = esc50 / "audio" / "1-1000-A-0.wav"
    path.rename(path.with_suffix(".ogg"))
    assert read_esc50(esc50).clips[0].path == str(path.with_suffix(".ogg"))


def test_without_source_column_each_clip_is_its_own_recording(
    esc50: Path, write_csv: WriteCsv
) -> None:
    write_csv(
        esc50, [row[:4] for row in rows_of(esc50)], ("filename", "fold", "target", "category")
    )
    listing = read_esc50(esc50)
    assert all(clip.source == clip.clip_id for clip in listing.clips)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=r"nowhere: dataset folder must exist.*--root"):
        read_esc50(tmp_path / "nowhere")


def test_missing_csv(esc50: Path) -> None:
    shutil.rmtree(esc50 / "meta")
    with pytest.raises(PlatformError, match=r"esc50\.csv: must exist, but it does not"):
        read_esc50(esc50)


def test_csv_that_cannot_be_read(esc50: Path) -> None:
    path = esc50 / "meta" / "esc50.csv"
    path.unlink()
    path.symlink_to(path)  # a loop also stops the superuser, whom no permission does
    with pytest.raises(PlatformError, match=r"esc50\.csv: must be readable, but .*; correct"):
        read_esc50(esc50)


def test_missing_column_names_it_and_those_found(esc50: Path, write_csv: WriteCsv) -> None:
    write_csv(esc50, [["a.wav", 1, "dog"]], ("filename", "fold", "category"))
    with pytest.raises(
        PlatformError, match=r"but target is missing \(found: filename, fold, category\)"
    ):
        read_esc50(esc50)


def test_empty_csv(esc50: Path) -> None:
    (esc50 / "meta" / "esc50.csv").write_text("")
    with pytest.raises(PlatformError, match="found: none"):
        read_esc50(esc50)


def test_csv_without_rows(esc50: Path, write_csv: WriteCsv) -> None:
    write_csv(esc50, [])
    with pytest.raises(PlatformError, match="must list at least one clip"):
        read_esc50(esc50)


def test_binary_csv(esc50: Path) -> None:
    (esc50 / "meta" / "esc50.csv").write_bytes(b"\xff\xfe\x00\x80filename")
    with pytest.raises(PlatformError, match="must be UTF-8 text"):
        read_esc50(esc50)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (1, "two", r"line 2: fold must be a whole number >= 0, but got 'two'"),
        (2, "", r"line 2: target must be a whole number >= 0, but got ''"),
        (0, "", r"line 2: filename and category must not be empty"),
        (0, "2-1001-A-0.wav", r"'2-1001-A-0' is listed 2 times"),
        (3, "cat", r"target 0 must have one category, but got 'cat' and 'dog'"),
    ],
)
def test_malformed_values(
    esc50: Path, write_csv: WriteCsv, column: int, value: str, message: str
) -> None:
    rows = rows_of(esc50)
    rows[0][column] = value
    write_csv(esc50, rows)
    with pytest.raises(PlatformError, match=message):
        read_esc50(esc50)


def test_label_with_one_clip(esc50: Path, write_csv: WriteCsv) -> None:
    write_csv(esc50, rows_of(esc50)[:11])
    with pytest.raises(PlatformError, match=r"at least 2 usable clips, but got rain \(1\)"):
        read_esc50(esc50)


def test_every_message_is_one_line(esc50: Path, write_csv: WriteCsv) -> None:
    write_csv(esc50, [["a.wav", 1, 0, "dog", "True", 1, "A"]])
    with pytest.raises(PlatformError) as caught:
        read_esc50(esc50)
    assert "\n" not in str(caught.value)
