from collections.abc import Callable
from pathlib import Path

import pytest

from asit_core.recipes import RECIPES
from asit_platform.data.readers.librispeech import SUBSETS, read_librispeech
from asit_platform.data.readers.voxceleb import read_voxceleb1
from asit_platform.errors import PlatformError

WriteSounds = Callable[..., None]
SPLIT_LIST = [
    "1 id10003/na8-QEFmj44/00003.wav",
    "1 id10003/na8-QEFmj44/00004.wav",
    "2 id10003/tCq2LcKO6xY/00002.wav",
    "3 id10001/1zcIwhmdeo4/00001.wav",
    "1 id10001/7gWzIy6yIIk/00001.wav",
    "1 id10009/-gone/00001.wav",
]


@pytest.fixture
def voxceleb(tmp_path: Path, write_sounds: WriteSounds) -> Path:
    """Speakers of the development and the test archive, unpacked side by side."""
    root = tmp_path / "VoxCeleb1"
    for line in SPLIT_LIST[:-1]:
        path = line.split()[1]
        half = "vox1_test_wav" if path.startswith("id10001") else "vox1_dev_wav"
        write_sounds(root, [f"{half}/wav/{path}"])
    (root / "iden_split.txt").write_text("\n".join(SPLIT_LIST) + "\n")
    return root


def test_voxceleb_speakers_and_splits(voxceleb: Path) -> None:
    listing = read_voxceleb1(voxceleb)
    assert listing.label_names == ("id10001", "id10003")
    assert {clip.clip_id: (clip.labels[0], clip.fold, clip.source) for clip in listing.clips} == {
        "id10001/1zcIwhmdeo4/00001": (0, 3, "id10001/1zcIwhmdeo4"),
        "id10001/7gWzIy6yIIk/00001": (0, 1, "id10001/7gWzIy6yIIk"),
        "id10003/na8-QEFmj44/00003": (1, 1, "id10003/na8-QEFmj44"),
        "id10003/na8-QEFmj44/00004": (1, 1, "id10003/na8-QEFmj44"),
        "id10003/tCq2LcKO6xY/00002": (1, 2, "id10003/tCq2LcKO6xY"),
    }
    assert listing.clips[0].path == str(
        voxceleb / "vox1_test_wav" / "wav" / "id10001" / "1zcIwhmdeo4" / "00001.wav"
    )
    assert (listing.metric, set(listing.recipes) <= set(RECIPES)) == ("accuracy", True)
    assert listing.warnings == (
        "iden_split.txt: 1 of 6 listed files not on disk and left out (first: id10009/-gone/00001)",
        "VoxCeleb1 train: 138,361 clips officially, but 3 here (-138,358)",
        "VoxCeleb1 validation: 6,904 clips officially, but 1 here (-6,903)",
        "VoxCeleb1 test: 8,251 clips officially, but 1 here (-8,250)",
        "VoxCeleb1: 1,251 speakers officially, but 2 here (-1,249)",
    )


def test_voxceleb_list_of_s3prl_and_list_elsewhere(voxceleb: Path, tmp_path: Path) -> None:
    (voxceleb / "iden_split.txt").rename(voxceleb / "veri_test_class.txt")
    assert len(read_voxceleb1(voxceleb).clips) == 5
    (voxceleb / "veri_test_class.txt").rename(tmp_path / "list.txt")
    assert len(read_voxceleb1(voxceleb, split_list=tmp_path / "list.txt").clips) == 5
    with pytest.raises(PlatformError, match=r"iden_split\.txt: must exist.*--split-list"):
        read_voxceleb1(voxceleb)


@pytest.mark.parametrize("line", ["4 id1/v/1.wav", "id1/v/1.wav", "1 id1/1.wav", "1\tid1/v/1.wav"])
def test_voxceleb_malformed_list(voxceleb: Path, line: str) -> None:
    (voxceleb / "iden_split.txt").write_text(SPLIT_LIST[0] + "\n" + line + "\n")
    with pytest.raises(PlatformError, match=r"iden_split\.txt: line 2: must be `1\|2\|3 speaker"):
        read_voxceleb1(voxceleb)


@pytest.fixture
def librispeech(tmp_path: Path, write_sounds: WriteSounds) -> Path:
    files = [
        "train-clean-100/19/198/19-198-0000.flac",
        "train-clean-100/19/198/19-198-0001.flac",
        "dev-clean/84/121123/84-121123-0000.flac",
        "test-other/367/130732/367-130732-0000.flac",
    ]
    write_sounds(tmp_path / "data" / "LibriSpeech", files)
    (tmp_path / "data" / "LibriSpeech" / "SPEAKERS.TXT").write_text("; speakers")
    (
        tmp_path / "data" / "LibriSpeech" / "dev-clean" / "84" / "121123" / "84-121123.trans.txt"
    ).write_text("84-121123-0000 GO DO YOU HEAR\n")
    return tmp_path / "data"


def test_librispeech_has_splits_and_no_labels(librispeech: Path) -> None:
    listing = read_librispeech(librispeech)
    assert {clip.clip_id: (clip.fold, clip.source, clip.labels) for clip in listing.clips} == {
        "19-198-0000": (1, "19-198", ()),
        "19-198-0001": (1, "19-198", ()),
        "84-121123-0000": (2, "84-121123", ()),
        "367-130732-0000": (3, "367-130732", ()),
    }
    assert (listing.label_kind, listing.label_names, listing.metric) == ("none", (), None)
    assert listing.warnings[0] == (
        "train-clean-100: 28,539 utterances officially, but 2 here (-28,537)"
    )
    inside = read_librispeech(librispeech / "LibriSpeech")
    assert [clip.clip_id for clip in inside.clips] == [clip.clip_id for clip in listing.clips]


def test_librispeech_training_subsets_are_960_hours() -> None:
    assert sum(SUBSETS[name] for name in SUBSETS if name.startswith("train")) == 281_241


def test_librispeech_subsets(librispeech: Path) -> None:
    listing = read_librispeech(librispeech, subsets=["dev-clean"])
    assert [clip.clip_id for clip in listing.clips] == ["84-121123-0000"]
    assert dict(listing.fold_names) == {2: "validation"}
    with pytest.raises(PlatformError, match=r"--subset must be one of train-clean-100, .*'dev'"):
        read_librispeech(librispeech, subsets=["dev"])
    with pytest.raises(PlatformError, match=r"--subset dev-other must be on disk.*found: dev"):
        read_librispeech(librispeech, subsets=["dev-other"])


def test_librispeech_elsewhere(tmp_path: Path, write_sounds: WriteSounds) -> None:
    write_sounds(tmp_path, ["a/b/c/d.wav"])
    with pytest.raises(PlatformError, match="must hold a subset of LibriSpeech"):
        read_librispeech(tmp_path)
