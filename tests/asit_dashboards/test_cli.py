import socket
from pathlib import Path

import pytest

from asit_platform.cli import call_command, main


def test_report_writes_beside_the_study_and_prints_the_path(
    study_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "quickstart", "--results", str(study_folder.parent)]) == 0
    printed = Path(capsys.readouterr().out.strip())
    assert printed == study_folder / "report.html"
    assert "Result on test fold 5" in printed.read_text(encoding="utf-8")


def test_the_end_of_a_sweep_can_call_it(study_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "report.html"
    assert call_command("report", str(study_folder), "--out", str(out))
    assert out.is_file()


def test_an_unknown_study_is_one_line(
    study_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "quikstart", "--results", str(study_folder.parent)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "did you mean 'quickstart'?" in captured.err


def test_an_unwritable_file_is_one_line(
    study_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "report.html"
    assert main(["report", str(study_folder), "--out", str(out)]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "cannot be written" in message
    assert "choose another --out" in message


def test_a_taken_port_is_one_line(study_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["dashboard", str(study_folder.parent), "--port", str(port)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: --port {port} on 127.0.0.1 cannot be used")
    assert captured.err.count("\n") == 1


def test_a_missing_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err
