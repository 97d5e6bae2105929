from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from asit_core.recipes import RECIPES
from asit_platform.data.readers.speech_commands import (
    KEYWORDS,
    TWELVE_CLASSES,
    WORDS_V1,
    WORDS_V2,
    read_speech_commands_v1,
    read_speech_commands_v2,
)
from asit_platform.errors import PlatformError

WriteSounds = Callable[..., None]
TRAIN, VALIDATION, TEST = "00000001_nohash_0", "0000000a_nohash_0", "0000000f_nohash_1"


@pytest.fixture
def archive(tmp_path: Path, write_sounds: WriteSounds) -> Callable[[tuple[str, ...]], Path]:
    """Call with the words: three speakers of each, one in every split, and two noises."""

    def write(words: tuple[str, ...]) -> Path:
        root = tmp_path / "speech commands"
        speakers = (TRAIN, VALIDATION, TEST)
        write_sounds(root, [f"{word}/{who}.wav" for word in words for who in speakers])
        noises = [f"_background_noise_/{name}.wav" for name in ("pink_noise", "running_tap")]
        write_sounds(root, noises, seconds=10.7)
        for name, who in (("validation", VALIDATION), ("testing", TEST)):
            lines = [f"{word}/{who}.wav\n" for word in words]
            (root / f"{name}_list.txt").write_text("".join(lines))
        return root

    return write


@pytest.fixture
def test_archive(tmp_path: Path, write_sounds: WriteSounds) -> Path:
    root = tmp_path / "speech_commands_test_set_v0.01"
    write_sounds(root, [f"{name}/{number}.wav" for name in TWELVE_CLASSES for number in range(2)])
    (root / "README.md").write_text("twelve folders")
    return root


def test_vocabularies_are_the_official_ones() -> None:
    assert (len(WORDS_V1), len(set(WORDS_V1))) == (30, 30)
    assert (len(WORDS_V2), WORDS_V2[0], WORDS_V2[-1]) == (35, "backward", "zero")
    assert {*WORDS_V2} - {*WORDS_V1} == {"backward", "follow", "forward", "learn", "visual"}
    assert TWELVE_CLASSES == (*KEYWORDS, "_unknown_", "_silence_")


def test_version_2_has_35_words_in_the_official_splits(
    archive: Callable[[tuple[str, ...]], Path],
) -> None:
    root = archive(WORDS_V2)
    listing = read_speech_commands_v2(root)
    assert listing.label_names == WORDS_V2
    assert Counter(clip.fold for clip in listing.clips) == {1: 35, 2: 35, 3: 35}
    assert dict(listing.fold_names) == {1: "train", 2: "validation", 3: "test"}
    clip = next(c for c in listing.clips if c.clip_id == f"wow/{VALIDATION}")
    assert (clip.labels, clip.fold, clip.source) == ((WORDS_V2.index("wow"),), 2, "0000000a")
    assert clip.path == str(root / "wow" / f"{VALIDATION}.wav")
    assert set(listing.recipes) <= set(RECIPES)
    assert listing.warnings == (
        "Speech Commands v2 train: 84,843 clips officially, but 35 here (-84,808)",
        "Speech Commands v2 validation: 9,981 clips officially, but 35 here (-9,946)",
        "Speech Commands v2 test: 11,005 clips officially, but 35 here (-10,970)",
    )


def test_version_1_has_twelve_classes_and_a_test_archive(
    archive: Callable[[tuple[str, ...]], Path], test_archive: Path
) -> None:
    listing = read_speech_commands_v1(archive(WORDS_V1), test_root=test_archive)
    assert listing.label_names == TWELVE_CLASSES
    assert listing.recipes == ("superb_ks1",)
    counts = Counter((listing.label_names[clip.labels[0]], clip.fold) for clip in listing.clips)
    assert [counts[word, fold] for word in KEYWORDS for fold in (1, 2, 3)] == [1, 1, 2] * 10
    assert [counts["_unknown_", fold] for fold in (1, 2, 3)] == [20, 20, 2]
    assert [counts["_silence_", fold] for fold in (1, 2, 3)] == [18, 2, 2]
    # what the word list calls test is in no split: the archive replaces it
    assert not any(TEST in clip.clip_id for clip in listing.clips)
    assert "Speech Commands v1 test: 3,081 clips officially, but 24 here" in listing.warnings[-1]


def test_silence_is_cut_second_by_second_and_no_second_is_on_both_sides(
    archive: Callable[[tuple[str, ...]], Path], test_archive: Path
) -> None:
    listing = read_speech_commands_v1(archive(WORDS_V1), test_root=test_archive)
    cuts = [clip for clip in listing.clips if clip.clip_id.startswith("_silence_/pink_noise")]
    assert [(clip.start_s, clip.stop_s) for clip in cuts] == [(s, s + 1.0) for s in range(10)]
    assert [clip.fold for clip in cuts] == [1] * 9 + [2]
    assert {clip.source for clip in cuts} == {"pink_noise"}
    assert len({clip.path for clip in cuts}) == 1


@pytest.mark.parametrize("name", ["validation_list.txt", "testing_list.txt"])
def test_a_missing_split_list(archive: Callable[[tuple[str, ...]], Path], name: str) -> None:
    root = archive(WORDS_V2)
    (root / name).unlink()
    with pytest.raises(PlatformError, match=rf"{name}: must exist, but it does not; pass"):
        read_speech_commands_v2(root)


def test_files_of_the_lists_that_are_not_on_disk_are_a_warning(
    archive: Callable[[tuple[str, ...]], Path],
) -> None:
    root = archive(WORDS_V2)
    (root / "wow" / f"{TEST}.wav").unlink()
    assert read_speech_commands_v2(root).warnings[0] == (
        f"testing_list.txt: 1 of 35 listed files not on disk and left out (first: wow/{TEST})"
    )


def test_the_other_version_is_told_by_its_words(
    archive: Callable[[tuple[str, ...]], Path], test_archive: Path
) -> None:
    root = archive(WORDS_V2)
    with pytest.raises(PlatformError, match=r"one of the 30 classes, but got 'backward'"):
        read_speech_commands_v1(root, test_root=test_archive)


def test_noise_that_cannot_be_read(
    archive: Callable[[tuple[str, ...]], Path], test_archive: Path
) -> None:
    root = archive(WORDS_V1)
    (root / "_background_noise_" / "pink_noise.wav").write_bytes(b"")
    with pytest.raises(
        PlatformError, match=r"pink_noise\.wav: must be a sound file, but"
    ) as caught:
        read_speech_commands_v1(root, test_root=test_archive)
    assert "\n" not in str(caught.value)
