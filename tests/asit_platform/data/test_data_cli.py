import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from asit_platform.cli import main
from asit_platform.data.dataset import DatasetInfo
from asit_platform.words import duration_text


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_synth_then_info_then_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "synthetic"
    command = ["data", "synth", "--out", str(out), "--clips-per-class", "10", "--duration", "0.5"]
    assert main([*command, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["name"], first["synthetic"], first["num_clips"]) == ("synthetic", True, 100)
    assert main(["data", "info", str(out), "--verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fingerprint"] == first["fingerprint"]
    monkeypatch.setattr("asit_platform.data.cli_build.start_ray", None)  # nothing is left to do
    assert main(command) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("synthetic: 100 clips, 10 labels, 5 folds")
    assert shown.err == ""
    assert main([*command, "--seed", "1"]) == 2
    assert "another (synthetic: seed 0, wanted 1)" in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_prepare_by_command(
    esc50: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    command = ["data", "prepare", "esc50", "--root", str(esc50), "--out", str(out)]
    assert main([*command, "--sample-rate", "16000", "--num-mels", "32", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["name"], summary["num_clips"]) == ("ESC-50", 20)
    assert summary["front_end"]["num_mel_bins"] == 32
    monkeypatch.setattr("asit_platform.data.cli_build.start_ray", None)  # nothing is left to do
    assert main([*command, "--sample-rate", "16000", "--num-mels", "32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fingerprint"] == summary["fingerprint"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "esc50", "--root", "nowhere", "--out", "out"], "nowhere: dataset folder must"),
        (["synth", "--out", "out", "--clips-per-class", "3"], "--clips-per-class must be in"),
        (["synth", "--out", "out", "--num-mels", "2"], "num_mel_bins must be >= 4, but got 2"),
        (["synth", "--out", "out", "--max-skipped", "5"], "--max-skipped must be in [0, 1]"),
        (["synth", "--out", "s3://bucket/x"], "--out must be a local folder"),
        (["info", "nowhere"], "nowhere: dataset folder must exist"),
        (["info", "ftp://host/x"], "ftp://host/x: must be a local path or begin with"),
        (["shards", "none.csv", "--out", "out"], "none.csv: manifest must exist"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert message in shown.err
    assert not (tmp_path / "out").exists()


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_the_second_half_alone(
    esc50: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a csv, and from the manifest that this leaves: the same shards."""
    paths = sorted((esc50 / "audio").iterdir())
    lines = [
        f"{path.stem},esc50/audio/{path.name},{path.stem[-2:]},{path.name[0]}" for path in paths
    ]
    table = tmp_path / "mine.csv"
    table.write_text("\n".join(["clip_id,path,labels,fold", *lines]))
    options = ["--num-mels", "16", "--sample-rate", "16000", "--content", "waveform", "--json"]
    assert main(["data", "shards", str(table), "--out", str(tmp_path / "a"), *options]) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["name"], first["num_clips"], first["label_names"]) == ("mine", 20, ["-0", "10"])
    manifest = str(tmp_path / "a" / "manifest.parquet")
    assert main(["data", "shards", manifest, "--out", str(tmp_path / "b"), *options]) == 0
    second = json.loads(capsys.readouterr().out)
    assert second["fingerprint"] == first["fingerprint"]
    assert (tmp_path / "a" / "clips.parquet").read_bytes() == (
        tmp_path / "b" / "clips.parquet"
    ).read_bytes()


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_the_report_at_the_end(
    esc50: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    break_clip: Callable[[Path, str], object],
) -> None:
    break_clip(esc50 / "audio" / "1-1000-A-0.wav", "text")
    break_clip(esc50 / "audio" / "2-1001-A-0.wav", "silence")
    shutil.copy(esc50 / "audio" / "3-1002-A-0.wav", esc50 / "audio" / "4-1003-A-0.wav")
    out = tmp_path / "out"
    command = ["data", "prepare", "esc50", "--root", str(esc50), "--out", str(out)]
    assert main([*command, "--num-mels", "16", "--max-skipped", "0.2"]) == 0
    info = DatasetInfo.open(out)
    mean, std = info.mean_std(info.folds)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        f"ESC-50: 18 clips, 2 labels, 5 folds, {duration_text(info.duration_s)}; "
        "2 skipped, 1 of digital silence"
    )
    assert lines[1] == (f"log-mel mean {mean:.3f}, standard deviation {std:.3f} (folds 1,2,3,4,5)")
    assert lines[2] == (
        f"skipped: 1 cannot be decoded as audio, 1 digital silence ({out}/skipped.csv)"
    )
    assert lines[3] == "duplicates: 1 clip byte for byte"
    size = sum(path.stat().st_size for path in (out / "shards").iterdir())
    assert lines[4] == (
        f"{out}: 5 shards of log-mels, {size / 1e6:.1f} MB, fingerprint {info.fingerprint}"
    )
    assert [line.partition(":")[0] for line in lines[5:]] == ["warning"] * len(info.warnings)
    assert "leakage between fold 3 and fold 4" in lines[-1]
    assert main(["data", "info", str(out), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    reasons = {"cannot be decoded as audio": 1, "digital silence": 1}
    assert (values["skipped_reasons"], values["num_duplicates"]) == (reasons, 1)


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_unusable_audio_by_command(
    esc50: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    break_clip: Callable[[Path, str], object],
) -> None:
    for path in (esc50 / "audio").iterdir():
        break_clip(path, "text")
    out = tmp_path / "out"
    assert main(["data", "prepare", "esc50", "--root", str(esc50), "--out", str(out)]) == 2
    assert "at least one clip must be readable" in capsys.readouterr().err
