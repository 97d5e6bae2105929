import io
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asit_platform.cli import main
from asit_platform.data.dataset import DatasetInfo
from asit_platform.data.listing import Listing
from asit_platform.data.options import PrepareOptions
from asit_platform.data.readers.speech_commands import TWELVE_CLASSES, WORDS_V1

Capture = pytest.CaptureFixture[str]
NAMES = (
    "esc50",
    "audioset",
    "speech-commands",
    "voxceleb1",
    "librispeech",
    "fsd50k",
    "json",
    "fairseq",
    "folder",
    "csv",
)
SMALL = ["--sample-rate", "8000", "--num-mels", "16", "--json"]


def write_sounds(root: Path, paths: Iterable[str], *, seconds: float = 0.2) -> None:
    for number, relative in enumerate(paths):
        samples = 0.1 * np.random.default_rng(number).standard_normal(round(8000 * seconds))
        buffer = io.BytesIO()
        soundfile.write(buffer, samples, 8000, format="WAV")
        (root / relative).parent.mkdir(parents=True, exist_ok=True)
        (root / relative).write_bytes(buffer.getvalue())


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Listing, str, PrepareOptions, bool]]:
    """What commands ask to be built, instead of the build."""
    asked: list[tuple[Listing, str, PrepareOptions, bool]] = []

    def record(listing: Listing, out: str, options: PrepareOptions, *, as_json: bool) -> None:
        asked.append((listing, out, options, as_json))

    monkeypatch.setattr("asit_platform.data.prepare_command.build_listing", record)
    return asked


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_the_flags_of_every_dataset_folder(name: str, capsys: Capture) -> None:
    assert main(["data", "prepare", name, "--help"]) == 0
    shown = capsys.readouterr().out
    for flag in ("--out", "--sample-rate", "--num-mels", "--content", "--keep-silent", "--json"):
        assert flag in shown


def test_flags_of_the_folder_and_of_the_build(
    tmp_path: Path, built: list[tuple[Listing, str, PrepareOptions, bool]]
) -> None:
    write_sounds(tmp_path / "mine", [f"{name}/{n}.wav" for name in "ab" for n in range(3)])
    command = ["data", "prepare", "folder", "--root", str(tmp_path / "mine"), "--folds", "3"]
    flags = ["--content", "waveform", "--keep-silent", "--max-skipped", "0.5", "--num-mels", "64"]
    assert main([*command, "--out", "s3://bucket/out", *flags]) == 0
    listing, out, options, as_json = built[0]
    assert (listing.name, len(listing.clips), out, as_json) == ("mine", 6, "s3://bucket/out", False)
    assert {clip.fold for clip in listing.clips} == {1, 2, 3}
    assert (options.content, options.keep_silent, options.max_skipped) == ("waveform", True, 0.5)
    assert (options.front_end.sample_rate_hz, options.front_end.num_mel_bins) == (32000, 64)


def test_columns_of_a_csv_are_mapped_by_flags(
    tmp_path: Path, built: list[tuple[Listing, str, PrepareOptions, bool]]
) -> None:
    table = tmp_path / "birds.of.prey.csv"
    table.write_text("f;k;s;r;b;e;i\nx.wav;a+b;train;r1;1;2;one\ny.wav;a;test;r2;0;;two\n")
    command = ["data", "prepare", "csv", "--table", str(table), "--out", "o", "--json"]
    columns = "path=f label=k fold=s source=r start=b stop=e id=i"
    flags = [f"--{pair.replace('=', '-column=')}" for pair in columns.split()]
    assert main([*command, *flags, "--label-separator", "+"]) == 0
    listing, _, _, as_json = built[0]
    assert (listing.name, listing.label_kind, as_json) == ("birds.of.prey", "multi", True)
    one = listing.clips[0]
    assert (one.clip_id, one.labels, one.fold, one.source) == ("one", (0, 1), 1, "r1")
    assert (one.start_s, one.stop_s) == (1.0, 2.0)


def test_manifests_are_passed_by_split(
    tmp_path: Path, built: list[tuple[Listing, str, PrepareOptions, bool]]
) -> None:
    for name in ("train", "eval"):
        entries = [{"wav": f"{name}.wav", "labels": "/m/a"}]
        (tmp_path / f"{name}.json").write_text(json.dumps({"data": entries}))
    flags = ["--train", str(tmp_path / "train.json"), "--test", str(tmp_path / "eval.json")]
    assert main(["data", "prepare", "json", *flags, "--out", "o"]) == 0
    assert {clip.clip_id: clip.fold for clip in built[0][0].clips} == {"train": 1, "eval": 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["esc50", "--root", "nowhere"], "nowhere: dataset folder must exist"),
        (["audioset", "--root", "."], "class_labels_indices.csv: must exist, but it does not"),
        (["audioset", "--root", ".", "--metadata", "x"], "pass the folder that holds lists as --m"),
        (["speech-commands", "--root", ".", "--version", "v1"], "must come with --test-root"),
        (["speech-commands", "--root", ".", "--test-root", "."], "--test-root is of --version v1"),
        (["voxceleb1", "--root", "."], "iden_split.txt: must exist, but it does not"),
        (["librispeech", "--root", "."], "must hold sound files"),
        (["fsd50k", "--root", "."], "vocabulary.csv: must exist, but it does not"),
        (["json"], "at least one manifest must be passed: --train, --validation, --test"),
        (["json", "--train", "none.json"], "none.json: must exist, but it does not"),
        (["fairseq", "--root", "."], "must hold train.tsv, valid.tsv or eval.tsv"),
        (["folder", "--root", "."], "must hold sound files"),
        (["folder", "--root", "ftp://host/x"], "ftp://host/x: must"),
        (["csv", "--table", "none.csv"], "none.csv: must exist, but it does not"),
        (["folder", "--root", "nowhere", "--max-skipped", "5"], "--max-skipped must be in [0, 1]"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "prepare", *arguments, "--out", "out"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert message in shown.err
    assert not (tmp_path / "out").exists()


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_parts_of_files_and_official_splits_reach_the_dataset_folder(
    tmp_path: Path, capsys: Capture
) -> None:
    root, test_root, out = tmp_path / "v1", tmp_path / "test", tmp_path / "out"
    clips = ("00000001_nohash_0", "0000000a_nohash_0")
    write_sounds(root, [f"{word}/{clip}.wav" for word in WORDS_V1 for clip in clips])
    write_sounds(root, ["_background_noise_/pink_noise.wav"], seconds=10.5)
    write_sounds(test_root, [f"{name}/1.wav" for name in TWELVE_CLASSES])
    lines = "".join(f"{word}/{clips[1]}.wav\n" for word in WORDS_V1)
    (root / "validation_list.txt").write_text(lines)
    (root / "testing_list.txt").write_text("")
    command = ["data", "prepare", "speech-commands", "--version", "v1", "--out", str(out)]
    assert main([*command, "--root", str(root), "--test-root", str(test_root), *SMALL]) == 0
    assert json.loads(capsys.readouterr().out)["num_clips"] == 60 + 10 + 12
    info = DatasetInfo.open(out)
    assert dict(info.fold_names) == {1: "train", 2: "validation", 3: "test"}
    assert (info.metric, info.recipes, info.label_kind) == ("accuracy", ("superb_ks1",), "single")
    rows = info.clips(info.folds).to_pylist()
    cut = next(row for row in rows if row["clip_id"] == "_silence_/pink_noise-003")
    assert (cut["start_s"], cut["stop_s"], cut["duration_s"]) == (3.0, 4.0, 1.0)
    assert cut["labels"] == [TWELVE_CLASSES.index("_silence_")]


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_clips_of_any_number_of_labels_reach_the_dataset_folder(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # paths in manifests and on the command line may be relative
    write_sounds(tmp_path, ["-a.wav", "b ü.wav", "c.wav", "d.wav"])
    (tmp_path / "labels.csv").write_text("0,/m/a,Dog\n1,/m/b,Rain\n")
    labels = ("/m/a,/m/b", "/m/b", "", "/m/a")
    entries = [
        {"wav": wav, "labels": text}
        for wav, text in zip(("-a.wav", "b ü.wav", "c.wav", "d.wav"), labels, strict=True)
    ]
    Path("train.json").write_text(json.dumps({"data": entries}))
    command = ["data", "prepare", "json", "--train", "train.json", "--labels", "labels.csv"]
    assert main([*command, "--out", "out", "--name", "mine", *SMALL]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "mine"
    info = DatasetInfo.open(Path("out"))
    assert (info.label_kind, info.metric, info.label_names) == ("multi", "mAP", ("Dog", "Rain"))
    rows = info.clips(info.folds).to_pylist()
    found = {row["clip_id"]: row["labels"] for row in rows}
    assert found == {"-a": [0, 1], "b ü": [1], "c": [], "d": [0]}
