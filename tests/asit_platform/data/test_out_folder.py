import dataclasses
import errno
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from asit_core.spectrogram import LogMelConfig
from asit_platform.data.listing import Clip, Listing
from asit_platform.data.manifest import Manifest
from asit_platform.data.options import PrepareOptions
from asit_platform.data.out_folder import agree_on_manifest, claimed, clear, finished_build
from asit_platform.errors import PlatformError
from asit_platform.storage import Place

CLIPS = tuple(
    Clip(clip_id=name, path=f"/x/{name}.wav", labels=(), fold=1, source=name) for name in "ab"
)
LISTING = Listing(
    name="Two",
    synthetic=False,
    origin={"kind": "two", "subset": "all"},
    label_kind="none",
    label_names=(),
    fold_names={},
    metric=None,
    recipes=(),
    warnings=(),
    clips=CLIPS,
)


@pytest.fixture
def options(front_end: LogMelConfig) -> PrepareOptions:
    return PrepareOptions(front_end=front_end)


def test_one_build_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    out = Place.of(tmp_path / "new" / "out")
    code = (
        "import sys; from asit_platform.data.out_folder import claimed, Place\n"
        "with claimed(Place.of(sys.argv[1])): print('mine', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(PlatformError, match=r"another build is running there; wait for it"):
            claimed(out).__enter__()
        other.kill()  # as the kernel ends it, so ends the claim
    with claimed(out), pytest.raises(PlatformError), claimed(out):
        pass
    with claimed(out):
        pass


def test_a_folder_with_other_files_is_not_claimed(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "mine.wav").write_text("precious")
    with (
        pytest.raises(PlatformError, match=r"it holds 'audio/mine\.wav'"),
        claimed(Place.of(tmp_path)),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["audio"]


def test_a_bucket_with_other_files_is_not_claimed(bucket_url: str) -> None:
    out = Place.of(bucket_url) / "unclaimed"
    with claimed(out / "new"):
        pass
    (out / "thesis.tex").write_whole("precious")
    with (
        pytest.raises(PlatformError, match=r"it holds 'thesis\.tex'; choose another"),
        claimed(out),
    ):
        pass


def test_the_manifest_is_written_once(tmp_path: Path) -> None:
    out = Place.of(tmp_path)
    agree_on_manifest(out, Manifest.of(LISTING))
    before = (tmp_path / "manifest.parquet").stat()
    warned = dataclasses.replace(LISTING, warnings=("another disk",))
    agree_on_manifest(out, Manifest.of(warned))
    assert (tmp_path / "manifest.parquet").stat().st_ino == before.st_ino
    moved = [dataclasses.replace(clip, path=f"/y/{clip.clip_id}.wav") for clip in CLIPS]
    agree_on_manifest(out, Manifest.of(dataclasses.replace(LISTING, clips=tuple(moved))))
    assert (tmp_path / "manifest.parquet").stat().st_ino != before.st_ino


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"origin": {"kind": "two", "subset": "a"}}, r"\(Two: subset all, wanted a\)"),
        ({"name": "Three"}, r"\(Two: other name\)"),
        ({"clips": CLIPS[:1]}, r"\(Two: 2 clips, wanted 1\)"),
        (
            {"clips": tuple(dataclasses.replace(clip, fold=2, source="s") for clip in CLIPS)},
            r"\(Two: other fold, source of clips\); choose another --out or delete the folder",
        ),
    ],
)
def test_the_manifest_of_another_set_is_left(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    out = Place.of(tmp_path)
    agree_on_manifest(out, Manifest.of(LISTING))
    other = dataclasses.replace(LISTING, **changes)
    with pytest.raises(PlatformError, match=message):
        agree_on_manifest(out, Manifest.of(other))


@pytest.mark.parametrize("content", ['{"version": 1}', "{", "[]"])
def test_a_dataset_of_another_version_is_left(
    tmp_path: Path, options: PrepareOptions, content: str
) -> None:
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(PlatformError, match=r"; delete the folder or choose another --out$") as c:
        finished_build(Place.of(tmp_path), origin=LISTING.origin, options=options)
    assert "build the dataset again" not in str(c.value)
    assert (tmp_path / "dataset.json").read_text() == content


def test_a_damaged_dataset_file_beside_a_manifest_is_no_finished_build(
    tmp_path: Path, options: PrepareOptions
) -> None:
    out = Place.of(tmp_path)
    agree_on_manifest(out, Manifest.of(LISTING))
    (tmp_path / "dataset.json").write_text("{")
    assert finished_build(out, origin=LISTING.origin, options=options) is None
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(PlatformError, match="delete the folder or choose another --out"):
        finished_build(out, origin=LISTING.origin, options=options)


def test_a_damaged_manifest_is_left(tmp_path: Path) -> None:
    (tmp_path / "manifest.parquet").write_text("half")
    with pytest.raises(PlatformError, match=r"readable parquet file.*; delete the folder or"):
        agree_on_manifest(Place.of(tmp_path), Manifest.of(LISTING))


def test_a_file_system_without_locks_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)  # no such file system can be mounted here
    with (
        pytest.raises(PlatformError, match=r"on a file system with locks, but .*No locks"),
        claimed(Place.of(tmp_path)),
    ):
        pass


def test_what_a_killed_build_left_is_taken_away(tmp_path: Path) -> None:
    out = Place.of(tmp_path)
    left = ("dataset.json", "clips.parquet", ".clips.parquet.12.tmp", "notes.txt", ".x.tmp")
    shards = ("fold1-00000.parquet", "fold9-00000.parquet", ".fold1-00000.parquet.12.tmp", "mine")
    (tmp_path / "shards").mkdir()
    for name in (*left, *(f"shards/{name}" for name in shards)):
        (tmp_path / name).write_text("")
    clear(out, keep={"shards/fold1-00000.parquet"})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".x.tmp",
        "clips.parquet",
        "notes.txt",
        "shards",
    ]
    kept = sorted(path.name for path in (tmp_path / "shards").iterdir())
    assert kept == ["fold1-00000.parquet", "mine"]
