import json
from collections.abc import Callable
from pathlib import Path

import pytest

from asit_platform.cli import main


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
    monkeypatch.setattr("asit_platform.data.cli.start_ray", None)  # nothing is left to do
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
    monkeypatch.setattr("asit_platform.data.cli.start_ray", None)  # nothing is left to do
    assert main([*command, "--sample-rate", "16000", "--num-mels", "32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fingerprint"] == summary["fingerprint"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "esc50", "--root", "nowhere", "--out", "out"], "nowhere: dataset folder must"),
        (["synth", "--out", "out", "--clips-per-class", "3"], "--clips-per-class must be in"),
        (["synth", "--out", "out", "--num-mels", "2"], "num_mel_bins must be >= 4, but got 2"),
        (["synth", "--out", "out", "--max-skipped", "5"], "--max-skipped must be in [0, 1]"),
        (["info", "nowhere"], "nowhere: dataset folder must exist"),
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
