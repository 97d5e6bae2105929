import io
import math

import numpy as np
import pytest
import soundfile
import torch

from asit_core.waveform import (
    AudioError,
    is_digital_silence,
    load_waveform,
    resample_waveform,
)


def _tone(*, rate_hz: int, duration_s: float = 0.5, frequency_hz: float = 440.0) -> np.ndarray:
    time_s = np.arange(int(rate_hz * duration_s)) / rate_hz
    return 0.5 * np.sin(2 * np.pi * frequency_hz * time_s)


@pytest.mark.parametrize(
    ("suffix", "tolerance"),
    [
        pytest.param("wav", 1e-4, id="wav-16-bit"),
        pytest.param("flac", 1e-4, id="flac-16-bit"),
        pytest.param("ogg", 0.1, id="ogg-lossy"),
        pytest.param("mp3", 0.1, id="mp3-lossy"),
    ],
)
def test_decodes_the_usual_formats(tmp_path, suffix, tolerance):
    path = tmp_path / f"tone.{suffix}"
    samples = _tone(rate_hz=32000)
    soundfile.write(path, samples, 32000)
    waveform = load_waveform(path, sample_rate_hz=32000)
    assert waveform.dtype == torch.float32
    assert waveform.ndim == 1
    decoded = waveform.numpy()[: len(samples)]
    middle = slice(2000, -2000)  # encoders ring at the ends
    assert np.abs(decoded[middle] - samples[: len(decoded)][middle]).max() < tolerance


def test_averages_the_channels(tmp_path):
    channels = np.stack((np.full(100, 0.5), np.full(100, -0.25)), axis=1)
    soundfile.write(tmp_path / "stereo.wav", channels, 16000, subtype="FLOAT")
    waveform = load_waveform(tmp_path / "stereo.wav", sample_rate_hz=16000)
    torch.testing.assert_close(waveform, torch.full((100,), 0.125), rtol=0, atol=0)


@pytest.mark.parametrize("native_rate_hz", [8000, 22050, 44100, 48000, 44101, 11127])
def test_resampling_keeps_pitch_and_duration(tmp_path, native_rate_hz):
    soundfile.write(
        tmp_path / "tone.wav", _tone(rate_hz=native_rate_hz), native_rate_hz, subtype="FLOAT"
    )
    waveform = load_waveform(tmp_path / "tone.wav", sample_rate_hz=32000)
    expected = torch.from_numpy(_tone(rate_hz=32000)).float()
    assert abs(len(waveform) - len(expected)) <= 4
    middle = slice(1000, 15000)
    assert (waveform[middle] - expected[middle]).abs().max() < 5e-3


def test_keeps_the_samples_of_a_file_at_the_wanted_rate(tmp_path):
    samples = _tone(rate_hz=32000).astype(np.float32)
    soundfile.write(tmp_path / "tone.wav", samples, 32000, subtype="FLOAT")
    assert torch.equal(
        load_waveform(str(tmp_path / "tone.wav"), sample_rate_hz=32000), torch.from_numpy(samples)
    )


def test_refuses_a_missing_file(tmp_path):
    with pytest.raises(AudioError, match=r"none\.wav: is not a file"):
        load_waveform(tmp_path / "none.wav", sample_rate_hz=32000)


@pytest.mark.parametrize("name", ["text.wav", "text.mp3", "text.raw", "text"])
def test_refuses_what_is_not_audio(tmp_path, name):
    (tmp_path / name).write_text("not a sound")
    with pytest.raises(AudioError, match="cannot be decoded as audio") as caught:
        load_waveform(tmp_path / name, sample_rate_hz=32000)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refuses_a_file_of_no_bytes(tmp_path):
    (tmp_path / "void.wav").touch()
    with pytest.raises(AudioError, match="cannot be decoded"):
        load_waveform(tmp_path / "void.wav", sample_rate_hz=32000)


def test_refuses_a_file_without_samples(tmp_path):
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 32000)
    with pytest.raises(AudioError, match="holds no samples"):
        load_waveform(tmp_path / "empty.wav", sample_rate_hz=32000)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_refuses_samples_that_are_not_finite(tmp_path, value):
    samples = np.zeros(1000, dtype=np.float32)
    samples[500] = value
    soundfile.write(tmp_path / "bad.wav", samples, 44100, subtype="FLOAT")
    with pytest.raises(AudioError, match="must be finite"):
        load_waveform(tmp_path / "bad.wav", sample_rate_hz=32000)


def test_refuses_a_rate_that_cannot_be_resampled(tmp_path):
    soundfile.write(tmp_path / "slow.wav", np.zeros(10), 1)
    with pytest.raises(AudioError, match="1 Hz cannot be resampled to 32000 Hz"):
        load_waveform(tmp_path / "slow.wav", sample_rate_hz=32000)


def test_refuses_a_wanted_rate_of_zero(tmp_path):
    with pytest.raises(ValueError, match="sample_rate_hz must be > 0, but got 0"):
        load_waveform(tmp_path / "none.wav", sample_rate_hz=0)


def test_samples_in_memory_are_resampled_alike(tmp_path):
    samples = _tone(rate_hz=44100).astype(np.float32)
    soundfile.write(tmp_path / "tone.wav", samples, 44100, subtype="FLOAT")
    resampled = resample_waveform(torch.from_numpy(samples), 44100, sample_rate_hz=32000)
    assert torch.equal(resampled, load_waveform(tmp_path / "tone.wav", sample_rate_hz=32000))
    with pytest.raises(ValueError, match="native_rate_hz must be > 0, but got 0"):
        resample_waveform(resampled, 0, sample_rate_hz=32000)
    with pytest.raises(AudioError, match=r"^a sample rate of 1 Hz cannot be resampled to 32000 Hz"):
        resample_waveform(resampled, 1, sample_rate_hz=32000)


def test_digital_silence_means_every_sample_is_zero():
    assert is_digital_silence(torch.zeros(100))
    assert not is_digital_silence(torch.full((100,), 0.1))
    quiet = torch.zeros(100)
    quiet[7] = 1e-30
    assert not is_digital_silence(quiet)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_part_of_a_file(tmp_path, suffix):
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, _tone(rate_hz=16000), 16000)
    whole = load_waveform(path, sample_rate_hz=16000)
    part = load_waveform(path, sample_rate_hz=16000, start_s=0.125, stop_s=0.25)
    assert torch.equal(part, whole[2000:4000])
    tail = load_waveform(path, sample_rate_hz=16000, start_s=0.4, stop_s=9.0)
    assert torch.equal(tail, whole[6400:])


def test_a_part_that_is_not_there(tmp_path):
    path = tmp_path / "tone.wav"
    soundfile.write(path, _tone(rate_hz=16000), 16000)
    with pytest.raises(AudioError, match=r"tone\.wav: must last longer than 0\.5 s.* lasts 0\.5 s"):
        load_waveform(path, sample_rate_hz=16000, start_s=0.5)
    with pytest.raises(AudioError, match="holds no samples"):
        load_waveform(path, sample_rate_hz=16000, start_s=0.3, stop_s=0.2)


def test_an_open_file_is_read_as_one_on_disk(tmp_path):
    path = tmp_path / "tone.ogg"
    soundfile.write(path, _tone(rate_hz=16000), 16000)
    expected = load_waveform(path, sample_rate_hz=8000)
    assert torch.equal(load_waveform(io.BytesIO(path.read_bytes()), sample_rate_hz=8000), expected)
    with pytest.raises(AudioError, match=r"^cannot be decoded as audio \(Format not recognised"):
        load_waveform(io.BytesIO(b"no sound"), sample_rate_hz=8000)
