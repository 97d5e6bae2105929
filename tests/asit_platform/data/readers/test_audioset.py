from collections.abc import Callable
from pathlib import Path

import pytest

from asit_core.recipes import RECIPES
from asit_platform.data.listing import Listing
from asit_platform.data.readers.audioset import read_audioset
from asit_platform.errors import PlatformError

WriteSounds = Callable[..., None]
HEADER = (
    "# Segments csv created Sun Mar  5 10:54:31 2017\n"
    "# num_ytids=22160, num_segs=22160\n"
    "# YTID, start_seconds, end_seconds, positive_labels\n"
)
VOCABULARY = (
    "index,mid,display_name\n"
    "0,/m/09x0r,Speech\n"
    '1,/m/05zppz,"Male speech, man speaking"\n'
    "2,/t/dd00003,Rain\n"
)
BALANCED = {
    "--PJHxphWEs": ("30.000", "/m/09x0r,/t/dd00003"),
    "-0RWZT-miFs": ("420.000", "/m/05zppz"),
    "Yabcdefghi_": ("0.000", "/m/09x0r"),
    "__p-iA312kg": ("70.000", "/t/dd00003"),
}
EVAL = {"_ab_30_40_5": ("10.000", "/m/09x0r"), "gone1234567": ("5.000", "/m/09x0r")}
UNBALANCED = {"zzzzzzzzzzz": ("1.500", "/m/05zppz,/m/09x0r")}
# One file for each habit of naming that is out there.
FILES = [
    "balanced/--PJHxphWEs.wav",
    "balanced/Y-0RWZT-miFs.flac",
    "balanced/Yabcdefghi__0.000_10.000.mp3",
    "deep/er/__p-iA312kg_70000_80000.wav",
    "eval/_ab_30_40_5_10.000.flac",
    "unbalanced/Yzzzzzzzzzzz_1.500.wav",
    "notes/readme of the set.wav",
]


def segments(rows: dict[str, tuple[str, str]], row: str = '{}, {}, {}, "{}"') -> str:
    return HEADER + "".join(
        row.format(ytid, start, f"{float(start) + 10:.3f}", mids) + "\n"
        for ytid, (start, mids) in rows.items()
    )


@pytest.fixture
def audioset(tmp_path: Path, write_sounds: WriteSounds) -> Path:
    root = tmp_path / "AudioSet"
    write_sounds(root, FILES)
    (root / "class_labels_indices.csv").write_text(VOCABULARY)
    (root / "balanced_train_segments.csv").write_text(segments(BALANCED))
    (root / "unbalanced_train_segments.csv").write_text(segments(UNBALANCED))
    (root / "eval_segments.csv").write_text(segments(EVAL))
    return root


def described(listing: Listing, root: Path) -> dict[str, tuple[str, tuple[int, ...], int]]:
    return {
        clip.source: (str(Path(clip.path).relative_to(root)), clip.labels, clip.fold)
        for clip in listing.clips
    }


def test_matches_every_habit_of_naming(audioset: Path) -> None:
    listing = read_audioset(audioset)
    assert described(listing, audioset) == {
        "--PJHxphWEs": (FILES[0], (0, 2), 1),
        "-0RWZT-miFs": (FILES[1], (1,), 1),
        "Yabcdefghi_": (FILES[2], (0,), 1),
        "__p-iA312kg": (FILES[3], (2,), 1),
        "_ab_30_40_5": (FILES[4], (0,), 3),
    }
    assert listing.clips[0].clip_id == "--PJHxphWEs_30000"
    assert (listing.label_kind, listing.metric) == ("multi", "mAP")
    assert dict(listing.fold_names) == {1: "train", 3: "test"}
    assert listing.label_names == ("Speech", "Male speech, man speaking", "Rain")
    assert set(listing.recipes) <= set(RECIPES)


def test_warns_of_the_counts_and_of_what_is_not_on_disk(audioset: Path) -> None:
    assert read_audioset(audioset).warnings == (
        "class_labels_indices.csv: 527 labels officially, but 3 here (-524)",
        "balanced_train_segments.csv: 22,160 segments officially, but 4 here (-22,156)",
        "eval_segments.csv: 20,371 segments officially, but 2 here (-20,369)",
        "eval: 1 of 2 listed files not on disk and left out (first: gone1234567)",
    )


def test_the_large_set_trains_on_both_lists(audioset: Path) -> None:
    listing = read_audioset(audioset, subset="2m", with_eval=False)
    assert [clip.fold for clip in listing.clips] == [1] * 5
    assert described(listing, audioset)["zzzzzzzzzzz"] == (FILES[5], (0, 1), 1)
    assert (listing.name, listing.recipes[0]) == ("AudioSet-2M", "ast_as2m")


def test_lists_may_lie_elsewhere(audioset: Path, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    for path in audioset.glob("*.csv"):
        path.rename(tmp_path / "lists" / path.name)
    assert len(read_audioset(audioset, metadata=tmp_path / "lists").clips) == 5
    with pytest.raises(PlatformError, match=r"class_labels_indices\.csv: must exist.*--metadata"):
        read_audioset(audioset)


@pytest.mark.parametrize("row", ["{},{},{},{}", "{}, {}, {}, '{}'", '"{}","{}","{}","{}"'])
def test_other_quoting_is_the_same_list(audioset: Path, row: str) -> None:
    as_released = described(read_audioset(audioset), audioset)
    (audioset / "balanced_train_segments.csv").write_text(segments(BALANCED, row))
    assert described(read_audioset(audioset), audioset) == as_released


def test_a_file_of_another_segment_of_the_video_is_not_taken(
    audioset: Path, write_sounds: WriteSounds
) -> None:
    write_sounds(audioset, ["a/gone1234567_35.000.wav"])
    assert "gone1234567" not in described(read_audioset(audioset), audioset)
    write_sounds(audioset, ["b/gone1234567_5.000.wav", "a/gone1234567.wav"])
    found = described(read_audioset(audioset), audioset)["gone1234567"]
    assert found[0] == "b/gone1234567_5.000.wav"  # the name that says the start goes first


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("abcdefghijk, 0, 10", r"line 4: must be `YTID, start, end, "),
        ("abcdefghijk; 0; 10; x", r"line 4: must be `YTID, start, end, "),
        ("abcdefghijk, ten, 20, x", r"line 4: must be `YTID, start, end, "),
        ("abcdefghijk, 0, 10, /m/unknown", r"line 4: label must be in .* but got '/m/unknown'"),
    ],
)
def test_malformed_lines(audioset: Path, line: str, message: str) -> None:
    (audioset / "balanced_train_segments.csv").write_text(HEADER + line + "\n")
    with pytest.raises(PlatformError, match=message) as caught:
        read_audioset(audioset)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("num_rows", [2, 9000], ids=["to the end", "past the limit of a field"])
def test_a_quote_that_is_not_closed(audioset: Path, num_rows: int) -> None:
    lines = ["abcdefghijk, 0.000, 10.000, /m/09x0r"] * num_rows
    lines[0] = 'abcdefghijk, 0.000, 10.000, "/m/09x0r'
    (audioset / "balanced_train_segments.csv").write_text(HEADER + "\n".join(lines) + "\n")
    with pytest.raises(PlatformError, match=r"segments\.csv: line 4: must be csv, but .*; close"):
        read_audioset(audioset)


def test_a_missing_list(audioset: Path) -> None:
    (audioset / "eval_segments.csv").unlink()
    with pytest.raises(PlatformError, match=r"eval_segments\.csv: must exist, but it does not"):
        read_audioset(audioset)
    assert len(read_audioset(audioset, with_eval=False).clips) == 4


def test_the_wrong_folder(audioset: Path, tmp_path: Path, write_sounds: WriteSounds) -> None:
    write_sounds(tmp_path / "other", ["a.wav"])
    with pytest.raises(PlatformError, match=r"holds none of 4 \(first: --PJHxphWEs\)"):
        read_audioset(tmp_path / "other", metadata=audioset)
