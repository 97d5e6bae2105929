import json
from collections.abc import Callable
from pathlib import Path

import pytest

from asit_platform.data.readers.fairseq import read_fairseq
from asit_platform.data.readers.json_manifest import read_json_manifests
from asit_platform.errors import PlatformError

LABELS = 'index,mid,display_name\n0,/m/a,Dog\n1,/m/b,"Rain, heavy"\n'


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "class_labels_indices.csv"
    path.write_text(LABELS)
    return path


@pytest.fixture
def write_json(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, *entries: dict[str, object]) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps({"data": entries}))
        return path

    return write


WriteJson = Callable[..., Path]


def test_json_manifests_are_splits(labels: Path, write_json: WriteJson, tmp_path: Path) -> None:
    train = write_json(
        "train.json",
        {"wav": "/data/x y.flac", "labels": "/m/b,/m/a", "video_id": "vid"},
        {"wav": "clips/-z.wav", "labels": "/m/a"},
    )
    test = write_json("eval.json", {"wav": "s3://bucket/w.wav", "labels": "/m/b"})
    listing = read_json_manifests({1: train, 2: None, 3: test}, name="mine", labels=labels)
    described = [(c.clip_id, c.path, c.labels, c.fold, c.source) for c in listing.clips]
    assert described == [
        ("-z", str(tmp_path / "clips" / "-z.wav"), (0,), 1, "-z"),
        ("w", "s3://bucket/w.wav", (1,), 3, "w"),
        ("x y", "/data/x y.flac", (0, 1), 1, "vid"),
    ]
    assert (listing.name, listing.label_kind, listing.metric) == ("mine", "multi", "mAP")
    assert dict(listing.fold_names) == {1: "train", 3: "test"}
    assert listing.label_names == ("Dog", "Rain, heavy")


def test_json_with_one_label_each_is_single(labels: Path, write_json: WriteJson) -> None:
    mids = ["/m/a", "/m/b", "/m/a", "/m/b"]
    entries = [{"wav": f"{number}.wav", "labels": mid} for number, mid in enumerate(mids)]
    train = write_json("train.json", *entries)
    assert read_json_manifests({1: train}, name="n", labels=labels).label_kind == "single"
    forced = read_json_manifests({1: train}, name="n", labels=labels, label_kind="multi")
    assert forced.label_kind == "multi"


def test_json_without_a_vocabulary_ignores_labels_and_joins_the_root(
    write_json: WriteJson, tmp_path: Path
) -> None:
    train = write_json("train.json", {"wav": "./b/a.wav", "labels": "/m/whatever"})
    listing = read_json_manifests({1: train}, name="n", root=tmp_path / "audio")
    assert listing.clips[0].path == str(tmp_path / "audio" / "b" / "a.wav")
    assert (listing.label_kind, listing.clips[0].labels, listing.metric) == ("none", (), None)


def test_names_that_repeat_are_told_apart_by_their_folders(write_json: WriteJson) -> None:
    train = write_json("train.json", {"wav": "/d/dog/1.wav"}, {"wav": "/d/cat/1.wav"})
    clips = read_json_manifests({1: train}, name="n").clips
    assert [clip.clip_id for clip in clips] == ["cat/1", "dog/1"]


def test_a_clip_that_is_listed_twice(write_json: WriteJson) -> None:
    train = write_json("train.json", {"wav": "/d/dog/1.wav"})
    test = write_json("test.json", {"wav": "/d/dog/1.wav"})
    with pytest.raises(PlatformError, match=r"train\.json, .*test\.json: .*'1' is listed 2 times"):
        read_json_manifests({1: train, 3: test}, name="n")


def test_the_comment_of_asts_sample_file(tmp_path: Path) -> None:
    path = tmp_path / "sample.json"
    path.write_text('# a comment\n{"data": [\n{"wav": "a.wav", "labels": "/m/#a"}]}\n')
    assert len(read_json_manifests({1: path}, name="n").clips) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"must be JSON, but .*; write it again"),
        ('{"clips": []}', r'must be \{"data": \['),
        ('{"data": {}}', r'must be \{"data": \['),
        ('{"data": []}', r"must list at least one clip"),
        ('{"data": [{"path": "x"}]}', r"data\[0\]: must have a path as `wav`"),
        ('{"data": [{"wav": ""}]}', r"data\[0\]: must have a path as `wav`"),
        ('{"data": [{"wav": "x", "labels": [1]}]}', r"data\[0\]: labels must be one text"),
        ('{"data": [{"wav": "x", "labels": "/m/c"}]}', r"data\[0\]: label must be in .*'/m/c'"),
    ],
)
def test_malformed_json(tmp_path: Path, labels: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(PlatformError, match=message) as caught:
        read_json_manifests({1: path}, name="n", labels=labels)
    assert "\n" not in str(caught.value)


def test_label_kinds_that_do_not_fit(labels: Path, write_json: WriteJson) -> None:
    train = write_json("train.json", {"wav": "a.wav", "labels": "/m/a,/m/b"})
    with pytest.raises(PlatformError, match=r"data\[0\]: clip must have one label, but has 2"):
        read_json_manifests({1: train}, name="n", labels=labels, label_kind="single")
    with pytest.raises(PlatformError, match=r"--label-kind multi must come with --labels"):
        read_json_manifests({1: train}, name="n", label_kind="multi")
    with pytest.raises(PlatformError, match=r"at least one manifest must be passed: --train, "):
        read_json_manifests({1: None, 2: None, 3: None}, name="n")


@pytest.fixture
def fairseq(tmp_path: Path) -> Path:
    root = tmp_path / "manifests"
    root.mkdir()
    (root / "train.tsv").write_text("/audio\nx/a.wav\t160000\n-c.flac\t160000\n")
    (root / "train.lbl").write_text("a\t/m/a,/m/b\n-c\t/m/b\n")
    (root / "eval.tsv").write_text("/audio eval\nd e.wav\t160000\n")
    (root / "eval.lbl").write_text("d e\t/m/a\n")
    (root / "label_descriptors.csv").write_text("0,/m/a,Dog\n1,/m/b,Rain, heavy\n")
    return root


def test_fairseq_manifests(fairseq: Path) -> None:
    listing = read_fairseq(fairseq, name="mine")
    assert [(c.clip_id, c.path, c.labels, c.fold) for c in listing.clips] == [
        ("-c", "/audio/-c.flac", (1,), 1),
        ("a", "/audio/x/a.wav", (0, 1), 1),
        ("d e", "/audio eval/d e.wav", (0,), 3),
    ]
    assert listing.label_names == ("Dog", "Rain, heavy")
    assert (listing.label_kind, dict(listing.fold_names)) == ("multi", {1: "train", 3: "test"})


@pytest.mark.parametrize("line", ["/m/a", "d e /m/a", "d e.wav\t/m/a", "d e\t/m/a\r"])
def test_fairseq_label_lines_of_other_kinds(fairseq: Path, line: str) -> None:
    (fairseq / "eval.lbl").write_text(line + "\n\n")
    found = {clip.clip_id: clip.labels for clip in read_fairseq(fairseq, name="n").clips}
    assert found["d e"] == (0,)


@pytest.mark.parametrize("text", ["a\t/m/a,/m/b\n\n", "\n-c\t/m/b\n", "a\t\n-c\t/m/a\n"])
def test_fairseq_clip_without_a_label(fairseq: Path, text: str) -> None:
    (fairseq / "train.lbl").write_text(text)
    listing = read_fairseq(fairseq, name="n")
    assert (listing.label_kind, len(listing.clips)) == ("multi", 3)
    assert sum(not clip.labels for clip in listing.clips) == 1
    with pytest.raises(PlatformError, match=r"clip must have one label, but has"):
        read_fairseq(fairseq, name="n", label_kind="single")


def test_fairseq_without_labels_and_with_another_root(fairseq: Path, tmp_path: Path) -> None:
    for path in fairseq.glob("*.lbl"):
        path.unlink()
    with pytest.raises(PlatformError, match=r"train\.lbl: must exist.*--label-kind none"):
        read_fairseq(fairseq, name="n")
    listing = read_fairseq(fairseq, name="n", audio_root=tmp_path, label_kind="none")
    assert listing.clips[0].path == str(tmp_path / "-c.flac")
    assert listing.label_kind == "none"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train.lbl", "a\t/m/a\n", r"train\.lbl: must have one line for each of the 2 clips"),
        ("train.lbl", "-c\t/m/b\na\t/m/a\n", r"line 1: must be about x/a\.wav.*about '-c'"),
        ("train.lbl", "c e\t/m/a\n-c\t/m/b\n", r"line 1: must be about x/a\.wav.*about 'c e'"),
        ("train.lbl", "a\t/m/a\n-c\t/m/x\n", r"train\.tsv: line 3: label must be in .*'/m/x'"),
        ("train.tsv", "x/a.wav\t1600\n", r"train\.tsv: first line must be the root folder"),
        ("train.tsv", "", r"train\.tsv: first line must be the root folder, but got ''"),
    ],
)
def test_malformed_fairseq(fairseq: Path, name: str, text: str, message: str) -> None:
    (fairseq / name).write_text(text)
    with pytest.raises(PlatformError, match=message):
        read_fairseq(fairseq, name="n")


def test_a_folder_without_manifests(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=r"must hold train\.tsv, valid\.tsv or eval\.tsv"):
        read_fairseq(tmp_path, name="n")
