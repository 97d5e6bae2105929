"""Speech Commands: version 2 with its 35 words, version 1 in the protocol of twelve classes.

Warden, "Speech Commands" (arXiv:1804.03209). The two tasks share a name and nothing else: their
numbers are never compared, so each has a name of its own.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import soundfile

from asit_platform.data.listing import Clip, Listing
from asit_platform.data.readers.files import find_sounds, open_root, read_lines
from asit_platform.data.readers.splits import (
    TEST,
    TRAIN,
    VALIDATION,
    assemble,
    count_warnings,
    missing_warning,
)
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
UNKNOWN, SILENCE = "_unknown_", "_silence_"
TWELVE_CLASSES = (*KEYWORDS, UNKNOWN, SILENCE)  # in the order of SUPERB's s3prl
_OTHER_WORDS_V1 = (
    *("bed", "bird", "cat", "dog", "eight", "five", "four", "happy", "house", "marvin"),
    *("nine", "one", "seven", "sheila", "six", "three", "tree", "two", "wow", "zero"),
)
WORDS_V1 = (*KEYWORDS, *_OTHER_WORDS_V1)
WORDS_V2 = tuple(sorted((*WORDS_V1, "backward", "follow", "forward", "learn", "visual")))
_NOISE_FOLDER = "_background_noise_"
_LISTS = {VALIDATION: "validation_list.txt", TEST: "testing_list.txt"}
_HOLDS = "a folder for each word, validation_list.txt and testing_list.txt"
_SPLIT_COUNTS_V2 = {"train": 84_843, "validation": 9_981, "test": 11_005}
# SUPERB counts 51,094 to train on: six of them are the noise files that silence is cut from.
_SPLIT_COUNTS_V1 = {"train": 51_088, "validation": 6_798, "test": 3_081}


def read_speech_commands_v2(root: str | Path) -> Listing:
    """List version 2 as 35 classes: train, validation and test by the official lists.

    Args:
        root: Folder with a folder for each word, `validation_list.txt` and `testing_list.txt`.

    Returns:
        Labels in alphabetical order; the source of a clip is its speaker. Background noise is no
        class and is left out.

    Raises:
        PlatformError: If a list is missing or a folder is no word of version 2.
    """
    place = open_root(root, holds=_HOLDS)
    sounds = find_sounds(place)
    splits, warnings = _splits(place, sounds)
    clips = []
    for relative in _word_files(place, sounds, WORDS_V2):
        word, key = _word_and_key(relative)
        fold = splits.get(key, TRAIN)
        clips.append(_clip(place, relative, label=WORDS_V2.index(word), fold=fold))
    return assemble(
        place,
        clips,
        name="Speech Commands v2 (35 classes)",
        origin={"kind": "speech_commands", "version": "v2"},
        label_kind="single",
        label_names=WORDS_V2,
        recipes=("ast_scv2", "ssast_scv2", "eat_scv2", "m2d_scv2"),
        warnings=[*warnings, *_count_warnings("v2", clips, _SPLIT_COUNTS_V2)],
    )


def read_speech_commands_v1(root: str | Path, *, test_root: str | Path) -> Listing:
    """List version 1 as twelve classes: ten words, unknown and silence (SUPERB's KS1).

    Training and validation clips are the words of `root`, those of its `testing_list.txt` left
    out, as in SUPERB; the other twenty words are `_unknown_`. The test clips are those of the
    separate archive, sorted into the twelve classes there.

    `_silence_` is cut from the six noise files second by second, where SUPERB draws a random
    second of a whole file at each visit. The last tenth of each file is for validation, so that
    no second is on both sides; SUPERB validates on the noise that it trains on.

    Args:
        root: Folder of `speech_commands_v0.01`.
        test_root: Folder of `speech_commands_test_set_v0.01`.

    Raises:
        PlatformError: If a list or the noise is missing, or a folder is no word of version 1.
    """
    place = open_root(root, holds=_HOLDS)
    test = open_root(
        test_root, holds="the twelve classes of the test archive", option="--test-root"
    )
    sounds = find_sounds(place)
    splits, warnings = _splits(place, sounds)
    clips = []
    for relative in _word_files(place, sounds, WORDS_V1):
        word, key = _word_and_key(relative)
        fold = splits.get(key, TRAIN)
        if fold != TEST:
            clips.append(_clip(place, relative, label=_twelve(word), fold=fold))
    for relative in _word_files(test, find_sounds(test), TWELVE_CLASSES):
        word, _ = _word_and_key(relative)
        clips.append(_clip(test, relative, label=_twelve(word), fold=TEST, prefix="test/"))
    warnings += _count_warnings("v1", clips, _SPLIT_COUNTS_V1)
    silence = list(_silence(place))
    return assemble(
        place,
        [*clips, *silence],
        name="Speech Commands v1 (12 classes)",
        origin={"kind": "speech_commands", "version": "v1"},
        label_kind="single",
        label_names=TWELVE_CLASSES,
        recipes=("superb_ks1",),
        warnings=warnings,
        shared={clip.source for clip in silence},
    )


def _splits(root: Place, sounds: Iterable[str]) -> tuple[dict[str, int], list[str]]:
    """Validation and test keys `word/file` of the lists, and warnings of those not on disk."""
    splits: dict[str, int] = {}
    warnings = []
    on_disk = {_word_and_key(relative)[1] for relative in sounds}
    for fold, name in _LISTS.items():
        remedy = f"pass the folder of the unpacked archive ({_HOLDS}) as --root"
        keys = [line.rsplit(".", 1)[0] for line in read_lines(root / name, remedy=remedy)]
        splits.update(dict.fromkeys(keys, fold))
        missing = [key for key in keys if key not in on_disk]
        warnings += missing_warning(root, name, missing, num_found=len(keys) - len(missing))
    return splits, warnings


def _word_files(root: Place, sounds: Iterable[str], words: Iterable[str]) -> Iterator[str]:
    """The relative paths `word/file`; noise is passed over."""
    known = {*words, _NOISE_FOLDER}
    for relative in sounds:
        word, _ = _word_and_key(relative)
        if word not in known:
            raise PlatformError(
                f"{root / relative}: folder must be one of the {len(known) - 1} classes, but got "
                f"{word!r}; pass the folder of the archive itself, or the other version"
            )
        if word != _NOISE_FOLDER:
            yield relative


def _word_and_key(relative: str) -> tuple[str, str]:
    path = PurePosixPath(relative)
    return path.parent.name, f"{path.parent.name}/{path.stem}"


def _twelve(word: str) -> int:
    return TWELVE_CLASSES.index(word if word in TWELVE_CLASSES else UNKNOWN)


def _clip(root: Place, relative: str, *, label: int, fold: int, prefix: str = "") -> Clip:
    _, key = _word_and_key(relative)
    speaker = re.search(r"([0-9a-f]+)_nohash_", relative)
    return Clip(
        clip_id=prefix + key,
        path=str(root / relative),
        labels=(label,),
        fold=fold,
        source=speaker[1] if speaker else prefix + key,
    )


def _silence(root: Place) -> Iterator[Clip]:
    noise = open_root(root / _NOISE_FOLDER, holds=f"{_NOISE_FOLDER}/ among the words")
    for relative in find_sounds(noise):
        stem = PurePosixPath(relative).stem
        seconds = _whole_seconds(noise / relative)
        for second in range(seconds):
            yield Clip(
                clip_id=f"{SILENCE}/{stem}-{second:03d}",
                path=str(noise / relative),
                labels=(TWELVE_CLASSES.index(SILENCE),),
                fold=VALIDATION if second >= seconds - seconds // 10 else TRAIN,
                source=stem,
                start_s=float(second),
                stop_s=float(second + 1),
            )


def _whole_seconds(place: Place) -> int:
    """From the header alone: the one length that no list says."""
    try:
        with place.open_input() as file:
            return int(soundfile.info(file).duration)
    except (OSError, soundfile.LibsndfileError) as error:
        raise PlatformError(
            f"{place}: must be a sound file, but {error}; unpack the archive again"
        ) from error


def _count_warnings(version: str, clips: Iterable[Clip], official: dict[str, int]) -> list[str]:
    names = {TRAIN: "train", VALIDATION: "validation", TEST: "test"}
    found = dict.fromkeys(official, 0)
    for clip in clips:
        found[names[clip.fold]] += 1
    prefix = f"Speech Commands {version}"
    return count_warnings(
        {f"{prefix} {part}": count for part, count in official.items()},
        {f"{prefix} {part}": count for part, count in found.items()},
    )
