from pathlib import Path

import numpy as np

from asit_dashboards.pictures import Pictures, read_pictures


def write(folder: Path, num_frames: int, **others: np.ndarray) -> None:
    """Two clips of two bins: a ramp over frames, and the same plus one."""
    ramp_BTF = np.zeros((2, num_frames, 2), np.float16)
    ramp_BTF[:] = np.linspace(0, 1, num_frames)[None, :, None]
    arrays = {
        "clip_id": np.array(["a", "b"]),
        "label": np.array([1, 7]),
        "input": ramp_BTF,
        "corrupted": np.zeros_like(ramp_BTF),
        "reconstructed": ramp_BTF + np.float16(0.5),
    }
    np.savez_compressed(folder / "pictures.npz", **{**arrays, **others})  # pyright: ignore[reportArgumentType]


def test_pictures_keep_scale_labels_and_orientation(tmp_path: Path) -> None:
    write(tmp_path, 101)
    data = read_pictures(tmp_path, ["dog", "rain"])
    assert isinstance(data, Pictures)
    assert data.labels == ["rain", "label 7"]
    assert data.panels[0].shape == (2, 2, 101)
    assert data.panels[0].dtype == np.uint8
    assert np.isclose([data.low, data.high], [0.01, 0.99], atol=1e-3).all()
    assert (data.panels[0][0, 0, 0], data.panels[0][0, 0, -1]) == (0, 255)
    assert (data.panels[1] == 0).all()
    assert data.panels[2][0, 0, 50] == 255


def test_long_pictures_are_averaged_over_frames(tmp_path: Path) -> None:
    write(tmp_path, 515)
    data = read_pictures(tmp_path)
    assert isinstance(data, Pictures)
    assert data.frames_per_column == 3
    assert data.panels[0].shape == (2, 2, 171)


def test_the_error_is_read_over_the_mask_only(tmp_path: Path) -> None:
    mask_BTF = np.zeros((2, 101, 2), dtype=bool)
    mask_BTF[0, :50] = True
    write(tmp_path, 101, mask=mask_BTF)
    data = read_pictures(tmp_path)
    assert isinstance(data, Pictures)
    assert np.isclose(data.masked_error[0] or 0, 0.5, atol=1e-3)
    assert data.masked_error[1] is None


def test_what_is_missing_or_half_written_is_said(tmp_path: Path) -> None:
    assert read_pictures(tmp_path) == "The best trial has written no pictures."
    write(tmp_path, 50)
    path = tmp_path / "pictures.npz"
    path.write_bytes(path.read_bytes()[:200])
    assert "cannot be read" in str(read_pictures(tmp_path))
    path.write_bytes(b"")
    assert "cannot be read" in str(read_pictures(tmp_path))
    np.savez(path, clip_id=np.array(["a"]), label=np.array([0]))
    assert "lack corrupted, input" in str(read_pictures(tmp_path))


def test_without_a_reconstruction_task_two_panels_are_left(tmp_path: Path) -> None:
    clip_BTF = np.zeros((1, 4, 2), np.float16)
    label = {"clip_id": np.array(["a"]), "label": np.array([0])}
    np.savez(tmp_path / "pictures.npz", input=clip_BTF, corrupted=clip_BTF, **label)  # pyright: ignore[reportArgumentType]
    data = read_pictures(tmp_path)
    assert isinstance(data, Pictures)
    assert (data.names, data.masked_error) == (["input", "corrupted"], [None])
