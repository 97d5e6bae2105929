from collections.abc import Callable
from pathlib import Path

import pytest

from asit_platform.data.readers.fsd50k import read_fsd50k
from asit_platform.errors import PlatformError

WriteSounds = Callable[..., None]
DEV = (
    "fname,labels,mids,split\n"
    '64760,"Rain,Nature",/m/06mb1,train\n'
    "16399,Bark,/m/05tny_,val\n"
    '99999,"Rain",/m/06mb1,train\n'
)


@pytest.fixture
def fsd50k(tmp_path: Path, write_sounds: WriteSounds) -> Path:
    root = tmp_path / "FSD50K"
    write_sounds(root, ["FSD50K.dev_audio/64760.wav", "FSD50K.dev_audio/16399.wav"])
    write_sounds(root, ["FSD50K.eval_audio/37199.wav"])
    truth = root / "FSD50K.ground_truth"
    truth.mkdir()
    (truth / "vocabulary.csv").write_text("0,Bark,/m/05tny_\n1,Nature,/m/nat\n2,Rain,/m/06mb1\n")
    (truth / "dev.csv").write_text(DEV)
    (truth / "eval.csv").write_text('fname,labels,mids\n37199,"Bark,Rain",/m/05tny_\n')
    return root


def test_splits_and_labels(fsd50k: Path) -> None:
    listing = read_fsd50k(fsd50k)
    assert {clip.clip_id: (clip.labels, clip.fold) for clip in listing.clips} == {
        "64760": ((1, 2), 1),
        "16399": ((0,), 2),
        "37199": ((0, 2), 3),
    }
    assert listing.label_names == ("Bark", "Nature", "Rain")
    assert (listing.label_kind, listing.metric) == ("multi", "mAP")
    assert listing.warnings == (
        "FSD50K: 200 labels officially, but 3 here (-197)",
        "dev.csv: 1 of 3 listed files not on disk and left out (first: 99999)",
        "FSD50K train: 36,796 clips officially, but 1 here (-36,795)",
        "FSD50K validation: 4,170 clips officially, but 1 here (-4,169)",
        "FSD50K test: 10,231 clips officially, but 1 here (-10,230)",
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("64760,Brak,/m/x,train", r"dev\.csv: line 2: label must be in .*did you mean 'Bark'\?"),
        ("64760,Bark,/m/x,test", r"dev\.csv: line 2: split must be train or val, but got 'test'"),
        ("64760,Bark,Rain,/m/x,train", r"dev\.csv: line 2: must have 4 values, but has more"),
    ],
)
def test_malformed_rows(fsd50k: Path, row: str, message: str) -> None:
    (fsd50k / "FSD50K.ground_truth" / "dev.csv").write_text(DEV.split("\n")[0] + "\n" + row + "\n")
    with pytest.raises(PlatformError, match=message):
        read_fsd50k(fsd50k)


@pytest.mark.parametrize("name", ["dev.csv", "eval.csv", "vocabulary.csv"])
def test_missing_tables(fsd50k: Path, name: str) -> None:
    (fsd50k / "FSD50K.ground_truth" / name).unlink()
    with pytest.raises(PlatformError, match=rf"{name}: must exist, but it does not; pass"):
        read_fsd50k(fsd50k)


def test_a_half_that_is_not_unpacked(fsd50k: Path) -> None:
    (fsd50k / "FSD50K.eval_audio" / "37199.wav").unlink()
    with pytest.raises(PlatformError, match=r"FSD50K\.eval_audio: must hold sound files"):
        read_fsd50k(fsd50k)
