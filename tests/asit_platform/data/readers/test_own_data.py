from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from asit_platform.data.readers.csv_table import CsvColumns, read_csv_table
from asit_platform.data.readers.folder import read_folder
from asit_platform.errors import PlatformError

WriteSounds = Callable[..., None]


@pytest.fixture
def folder(tmp_path: Path, write_sounds: WriteSounds) -> Path:
    root = tmp_path / "my sounds"
    write_sounds(root, [f"{name}/{n}.wav" for name in ("dog", "-ünï") for n in range(10)])
    return root


def test_a_class_is_a_subfolder(folder: Path) -> None:
    listing = read_folder(folder, name="mine")
    assert listing.label_names == ("-ünï", "dog")
    clip = next(c for c in listing.clips if c.clip_id == "dog/3")
    assert (clip.labels, clip.source, clip.path) == (
        (1,),
        "dog/3",
        str(folder / "dog" / "3.wav"),
    )
    assert set(Counter((c.labels, c.fold) for c in listing.clips).values()) == {2}
    assert (dict(listing.fold_names), listing.metric) == ({}, "accuracy")


def test_folders_above_the_classes_are_splits(tmp_path: Path, write_sounds: WriteSounds) -> None:
    write_sounds(
        tmp_path,
        [f"{split}/{c}/{n}.wav" for split in ("Train", "val") for c in ("a", "b") for n in "12"],
    )
    listing = read_folder(tmp_path, name="n")
    assert dict(listing.fold_names) == {1: "train", 2: "validation"}
    assert listing.label_names == ("a", "b")
    assert {c.clip_id: c.fold for c in listing.clips}["val/b/1"] == 2


def test_one_split_alone_is_one(tmp_path: Path, write_sounds: WriteSounds) -> None:
    write_sounds(tmp_path, [f"train/{c}/{n}.wav" for c in "ab" for n in "12"])
    listing = read_folder(tmp_path, name="n")
    assert (dict(listing.fold_names), listing.label_names) == ({1: "train"}, ("a", "b"))
    assert {clip.fold for clip in listing.clips} == {1}
    write_sounds(tmp_path, ["train/3.wav"])
    assert read_folder(tmp_path, name="n", num_folds=2).label_names == ("train",)


def test_a_class_may_be_called_test(tmp_path: Path, write_sounds: WriteSounds) -> None:
    write_sounds(tmp_path, [f"{c}/{n}.wav" for c in ("test", "tone") for n in "12"])
    assert read_folder(tmp_path, name="n", num_folds=2).label_names == ("test", "tone")


def test_splits_beside_a_class_are_not_guessed_about(
    tmp_path: Path, write_sounds: WriteSounds
) -> None:
    write_sounds(tmp_path, ["train/a/1.wav", "test/a/1.wav", "a/2.wav"])
    with pytest.raises(PlatformError, match=r"all be splits \(test, train\).*but 'a' lies beside"):
        read_folder(tmp_path, name="n")


def test_sounds_without_labels(tmp_path: Path, write_sounds: WriteSounds) -> None:
    write_sounds(tmp_path, [f"{n}.wav" for n in range(4)] + ["deep/er/x.flac"])
    with pytest.raises(PlatformError, match=r"0\.wav: must lie in the folder of a class.*--no-l"):
        read_folder(tmp_path, name="n")
    listing = read_folder(tmp_path, name="n", with_labels=False, num_folds=2)
    assert (listing.label_kind, len(listing.clips)) == ("none", 5)


def write_csv(root: Path, text: str) -> Path:
    path = root / "clips.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_any_columns_of_a_csv(tmp_path: Path) -> None:
    table = write_csv(
        tmp_path,
        "id;file;tags;split;from;begin;end\n"
        "one;a b/-x.wav;dog|rain;Train;r1;0.5;1.5\n"
        "two;/abs/y.wav;rain;dev;r1;2;\n"
        "three;s3://b/z.wav;;test;r2;;\n",
    )
    columns = CsvColumns(
        path="file",
        label="tags",
        fold="split",
        source="from",
        clip_id="id",
        start="begin",
        stop="end",
    )
    listing = read_csv_table(table, columns, name="n", label_separator="|")
    clips = {clip.clip_id: clip for clip in listing.clips}
    one, two, three = clips["one"], clips["two"], clips["three"]
    assert (one.path, one.labels, one.fold) == (str(tmp_path / "a b" / "-x.wav"), (0, 1), 1)
    assert (one.start_s, one.stop_s, one.source) == (0.5, 1.5, "r1")
    assert (two.path, two.labels, two.fold) == ("/abs/y.wav", (1,), 2)
    assert (two.start_s, two.stop_s) == (2.0, None)
    assert (three.path, three.labels, three.fold) == ("s3://b/z.wav", (), 3)
    assert (listing.label_kind, listing.label_names) == ("multi", ("dog", "rain"))
    assert dict(listing.fold_names) == {1: "train", 2: "validation", 3: "test"}
    assert listing.warnings == (
        f"{table}: 1 recording lies in two folds (first: 'r1'), so one is trained on what another "
        "is measured on; give each recording one fold",
    )


def test_recordings_are_dealt_to_folds_as_wholes(tmp_path: Path) -> None:
    rows = [f"{n}.wav,{'ab'[n % 2]},rec{n // 4}" for n in range(80)]
    table = write_csv(tmp_path, "path,label,source\n" + "\n".join(rows) + "\n")
    listing = read_csv_table(table, CsvColumns(label="label", source="source"), name="n")
    folds = defaultdict(set)
    for clip in listing.clips:
        folds[clip.source].add(clip.fold)
    assert all(len(found) == 1 for found in folds.values())
    assert Counter(fold for found in folds.values() for fold in found) == dict.fromkeys(
        range(1, 6), 4
    )
    assert dict(listing.fold_names) == {}


def test_parts_of_a_file_are_clips_of_one_recording(tmp_path: Path) -> None:
    table = write_csv(tmp_path, "path,start\na.wav,0\na.wav,1.5\nb.wav,0\n")
    listing = read_csv_table(table, CsvColumns(start="start"), name="n", num_folds=2)
    assert [(c.clip_id, c.source) for c in listing.clips] == [
        ("a_0", "a.wav"),
        ("a_1500", "a.wav"),
        ("b_0", "b.wav"),
    ]
    assert listing.clips[0].fold == listing.clips[1].fold
    assert listing.label_kind == "none"


def test_one_recording_in_several_spellings_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    audio = tmp_path / "audio"
    spellings = ["{}.wav", "./{}.wav", "x/../{}.wav", "../audio/{}.wav", f"{audio}/./{{}}.wav"]
    rows = [spelling.format(f"r{n}") for n in range(8) for spelling in spellings]
    table = write_csv(tmp_path, "path\n" + "\n".join([*rows, "s3://b/r0.wav"]) + "\n")
    for root in (Path("audio"), audio):
        listing = read_csv_table(table, CsvColumns(), name="n", root=root)
        folds = defaultdict(set)
        for clip in listing.clips:
            folds[clip.source].add(clip.fold)
        assert set(folds) == {*(f"r{n}.wav" for n in range(8)), "s3://b/r0.wav"}
        assert all(len(found) == 1 for found in folds.values())
        assert listing.warnings == ()


def test_the_folds_do_not_depend_on_where_the_set_lies(tmp_path: Path) -> None:
    rows = "\n".join(f"../audio/{n}.wav" for n in range(20))
    listed = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        table = write_csv(tmp_path / place, f"path\n{rows}\n")
        clips = read_csv_table(table, CsvColumns(), name="n").clips
        listed.append([(clip.clip_id, clip.fold, clip.source) for clip in clips])
    assert listed[0] == listed[1]


def test_numbered_folds_and_a_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("0,rain\n1,dog\n")
    table = write_csv(
        tmp_path, "path,label,fold\na.wav,dog,1\nb.wav,rain,2\nc.wav,dog,2\nd.wav,rain,1\n"
    )
    columns = CsvColumns(label="label", fold="fold")
    listing = read_csv_table(table, columns, name="n", vocabulary=tmp_path / "labels.csv")
    assert [(c.labels, c.fold) for c in listing.clips] == [
        ((1,), 1),
        ((0,), 2),
        ((1,), 2),
        ((0,), 1),
    ]
    assert (dict(listing.fold_names), listing.label_names) == ({}, ("rain", "dog"))
    write_csv(tmp_path, "path,label,fold\na.wav,dgo,1\n")
    with pytest.raises(PlatformError, match=r"line 2: label must be in .*did you mean 'dog'\?"):
        read_csv_table(table, columns, name="n", vocabulary=tmp_path / "labels.csv")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.wav,,train,0,1", r"line 2: label must not be empty"),
        (",x,train,0,1", r"line 2: path must not be empty"),
        ("a.wav,x,holdout,0,1", r"line 2: fold must be train, validation or test, but got 'holdo"),
        ("a.wav,x,train,x,1", r"line 2: start must be seconds >= 0, but got 'x'"),
        ("a.wav,x,train,-1,1", r"line 2: start must be seconds >= 0, but got '-1'"),
        ("a.wav,x,train,nan,1", r"line 2: start must be seconds >= 0, but got 'nan'"),
        ("a.wav,x,train,2,1", r"line 2: stop must be after 2 s, but got 1 s"),
        ("a.wav,x,train,0,1,2", r"line 2: must have 5 values, but has more"),
    ],
)
def test_malformed_rows(tmp_path: Path, row: str, message: str) -> None:
    table = write_csv(tmp_path, f"path,label,fold,start,stop\n{row}\n")
    columns = CsvColumns(label="label", fold="fold", start="start", stop="stop")
    with pytest.raises(PlatformError, match=message) as caught:
        read_csv_table(table, columns, name="n")
    assert "\n" not in str(caught.value)


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    table = write_csv(tmp_path, "file,label\na.wav,x\n")
    with pytest.raises(PlatformError, match=r"but path is missing \(found: file, label\)"):
        read_csv_table(table, CsvColumns(label="label"), name="n")
    with pytest.raises(PlatformError, match=r"--delimiter must be one character, but got ', '"):
        read_csv_table(table, CsvColumns(), name="n", delimiter=", ")
    with pytest.raises(PlatformError, match=r"none\.csv: must exist, but it does not; pass"):
        read_csv_table(tmp_path / "none.csv", CsvColumns(), name="n")
