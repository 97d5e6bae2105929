import json
import weakref
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
import typer

from asit_core.checkpoint import Checkpoint, save_checkpoint
from asit_core.embedding import SpectrogramModel
from asit_core.encoder import EncoderConfig, SpectrogramEncoder
from asit_core.initialization import initialize
from asit_core.model_file import load
from asit_core.spectrogram import LogMelConfig
from asit_core.waveform import load_waveform
from asit_platform import cli
from asit_platform.embed import embed
from asit_platform.embedding_table import METADATA_KEY

ENCODER = EncoderConfig(
    embed_dim=16, depth=1, num_heads=2, patch_frames=8, patch_bins=8, input_bins=16
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    encoder = SpectrogramEncoder(ENCODER, input_frames=32)
    initialize(encoder, seed=0)
    meta = {
        "kind": "encoder",
        "encoder": asdict(ENCODER),
        "input_frames": 32,
        "front_end": asdict(LogMelConfig(sample_rate_hz=16000, num_mel_bins=16)),
        "normalization": {"mean": -6.0, "std": 3.0},
    }
    tensors = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    save_checkpoint(path, Checkpoint(tensors, meta))
    return path


@pytest.fixture
def sounds(tmp_path: Path) -> list[Path]:
    """Half a second at 16 kHz, two seconds of stereo at 44.1 kHz, 0.2 s."""
    rng = np.random.default_rng(0)
    shapes = {
        "short.wav": (8000, 16000),
        "long.flac": ((88200, 2), 44100),
        "tiny.wav": (3200, 16000),
    }
    for name, (shape, rate_hz) in shapes.items():
        soundfile.write(tmp_path / name, 0.1 * rng.standard_normal(shape), rate_hz)
    return [tmp_path / name for name in shapes]


@pytest.fixture(autouse=True)
def _command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command by itself: `main` finds it whether or not the installation lists it."""

    def build_app(arguments: object) -> typer.Typer:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.callback()(cli._nothing)
        app.command("embed")(embed)
        return app

    monkeypatch.setattr(cli, "build_app", build_app)


def _run(checkpoint: Path, files: list[Path], *options: str) -> int:
    return cli.main(["embed", str(checkpoint), *map(str, files), *options])


def _model(checkpoint: Path) -> SpectrogramModel:
    return load(checkpoint)


def test_a_row_for_each_file_in_order(tmp_path, checkpoint, sounds, capsys):
    out = tmp_path / "new" / "x.parquet"
    assert _run(checkpoint, sounds, "--out", str(out), "--features", "both", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["num_files"], summary["num_embedded"], summary["skipped"]) == (3, 3, [])
    assert (summary["out"], summary["embed_dim"]) == (str(out), 16)
    table = pq.read_table(out)
    assert table.column_names == ["path", "clip_vector"]
    assert table["path"].to_pylist() == [str(path) for path in sounds]
    for path, vector in zip(sounds, table["clip_vector"].to_pylist(), strict=True):
        waveform = load_waveform(path, sample_rate_hz=16000)
        expected = _model(checkpoint).embed(waveform, 16000, features="both").clip_vector
        torch.testing.assert_close(torch.tensor(vector), expected)
    assert (table.schema.metadata or {})[METADATA_KEY] == json.dumps(
        {
            "checkpoint": str(checkpoint),
            "features": "both",
            "overlap": 0.25,
            "sample_rate_hz": 16000,
        }
    ).encode()


def test_frames_come_with_their_times(tmp_path, checkpoint, sounds, capsys):
    out = tmp_path / "x.parquet"
    options = ("--out", str(out), "--frames", "--overlap", "0.5", "--device", "cpu")
    assert _run(checkpoint, sounds, *options) == 0
    rows = pq.read_table(out).to_pylist()
    total = 0
    for path, row in zip(sounds, rows, strict=True):
        waveform = load_waveform(path, sample_rate_hz=16000)
        expected = _model(checkpoint).embed(waveform, 16000, overlap=0.5)
        torch.testing.assert_close(torch.tensor(row["frame_matrix"]), expected.frame_matrix)
        assert row["frame_time_s"] == expected.frame_time_s.tolist()
        total += len(expected.frame_time_s)
    assert capsys.readouterr().out == f"{out}: 3 clips, {total} frames of 16 values\n"


def test_many_files_are_written_in_groups(tmp_path, checkpoint, sounds):
    out = tmp_path / "x.parquet"
    assert _run(checkpoint, 65 * sounds[2:], "--out", str(out), "--frames") == 0
    assert pq.ParquetFile(out).num_row_groups == 2
    rows = pq.read_table(out).to_pylist()
    assert len(rows) == 65
    assert all(row == rows[0] for row in rows)


def _broken(folder: Path) -> list[Path]:
    """H19: text, no samples, NaN, less than a frame, no file at all."""
    (folder / "text.wav").write_text("not a sound")
    soundfile.write(folder / "empty.wav", np.zeros(0), 16000)
    soundfile.write(folder / "nan.wav", np.full(16000, np.nan), 16000, subtype="FLOAT")
    soundfile.write(folder / "click.wav", np.zeros(100), 16000)
    return [folder / name for name in ("text.wav", "empty.wav", "nan.wav", "click.wav", "no.wav")]


def test_an_unusable_file_stops_the_command_and_all_are_named(tmp_path, checkpoint, sounds, capsys):
    out = tmp_path / "x.parquet"
    out.write_text("old")
    bad = _broken(tmp_path)
    files = [sounds[0], *bad[:2], sounds[1], *bad[2:]]
    assert _run(checkpoint, files, "--out", str(out), "--json") == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert shown.err.startswith(f"error: 5 of 7 files cannot be used: {bad[0]}: cannot be decoded")
    assert f"{bad[2]}: samples must be finite" in shown.err
    assert shown.err.endswith("; and 2 more; mend them or pass --skip-unreadable\n")
    assert out.read_text() == "old"
    assert not list(tmp_path.glob(".*"))


def test_unusable_files_are_left_out_when_asked(tmp_path, checkpoint, sounds, capsys):
    out = tmp_path / "x.parquet"
    bad = _broken(tmp_path)
    files = [bad[0], sounds[0], *bad[1:], sounds[1]]
    assert _run(checkpoint, files, "--out", str(out), "--skip-unreadable", "--json") == 0
    shown = capsys.readouterr()
    summary = json.loads(shown.out)
    assert (summary["num_files"], summary["num_embedded"]) == (7, 2)
    reasons = {Path(item["path"]).name: item["reason"] for item in summary["skipped"]}
    assert list(reasons) == [path.name for path in bad]
    assert (
        reasons["click.wav"]
        == "must last at least one frame (25 ms), but got 100 samples at 16000 Hz"
    )
    assert reasons["no.wav"] == "is not a file; check the path"
    assert shown.err.count("left out") == 5
    assert pq.read_table(out)["path"].to_pylist() == [str(path) for path in sounds[:2]]


def test_without_a_usable_file_nothing_is_written(tmp_path, checkpoint, capsys):
    out = tmp_path / "x.parquet"
    assert _run(checkpoint, _broken(tmp_path), "--out", str(out), "--skip-unreadable") == 2
    assert "5 of 5 files cannot be used" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        ("x.parquet", ["--overlap", "1"], "--overlap must be in [0, 1), but got 1.0"),
        (".", [], "--out must be a file, but is a folder"),
        ("short.wav", [], "--out must not be a file that is read; choose another"),
        ("text/x.parquet", [], "--out must be writable, but"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(
    tmp_path, checkpoint, sounds, capsys, out, options, message
):
    (tmp_path / "text").write_text("a file where a folder should be")
    before = sounds[0].read_bytes()
    assert _run(checkpoint, sounds, "--out", str(tmp_path / out), *options) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert shown.err.startswith("error: ")
    assert message in shown.err
    assert sounds[0].read_bytes() == before


def test_another_programs_checkpoint_comes_with_the_command_that_converts_it(
    tmp_path, sounds, capsys
):
    torch.save({"module.v.patch_embed.proj.weight": torch.zeros(1)}, tmp_path / "ast.pth")
    assert _run(tmp_path / "ast.pth", sounds, "--out", str(tmp_path / "x.parquet")) == 2
    shown = capsys.readouterr().err
    assert "looks like an AST or fine-tuned SSAST checkpoint" in shown
    assert f"`asit convert {tmp_path / 'ast.pth'} MODEL.safetensors --to asit`" in shown
    assert not (tmp_path / "x.parquet").exists()


def test_what_the_table_leaves_out_is_not_kept(tmp_path, checkpoint, sounds, monkeypatch):
    """The grids of patches are f times as large as the frames: one at a time."""
    grids, alive = [], []
    embed_clip = SpectrogramModel.embed

    def spy(*args, **options):
        alive.append(sum(grid() is not None for grid in grids))
        embedding = embed_clip(*args, **options)
        grids.append(weakref.ref(embedding.patch_grid))
        return embedding

    monkeypatch.setattr(SpectrogramModel, "embed", spy)
    assert _run(checkpoint, 2 * sounds, "--out", str(tmp_path / "x.parquet"), "--frames") == 0
    assert alive == 6 * [0]


def test_a_sound_that_the_system_refuses_is_named(tmp_path, checkpoint, sounds, capsys):
    refused = tmp_path / (300 * "x")
    files = [sounds[0], refused]
    assert _run(checkpoint, files, "--out", str(tmp_path / "x.parquet")) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: 1 of 2 files cannot be used: {refused}: cannot be read: ")
    assert "--out" not in shown


def test_a_failure_takes_its_new_folders_away(tmp_path, checkpoint):
    out = tmp_path / "new" / "folder" / "x.parquet"
    assert _run(checkpoint, [tmp_path / "none.wav"], "--out", str(out)) == 2
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    assert _run(checkpoint, [tmp_path / "none.wav"], "--out", str(tmp_path / "old" / "x")) == 2
    assert (tmp_path / "old").is_dir()
