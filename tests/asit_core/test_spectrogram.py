import math

import pytest
import torch
from torchaudio.compliance import kaldi

from asit_core.seeding import stream
from asit_core.spectrogram import LOG_MEL_EPSILON, LOG_MEL_FLOOR, LogMel, LogMelConfig

RATES_HZ = [8000, 16000, 22050, 32000, 44100, 48000]


def _noise(*, num_samples: int, num_clips: int = 2) -> torch.Tensor:
    return 0.1 * torch.randn(num_clips, num_samples, generator=stream(0, "noise"))


def _speech_like(*, sample_rate_hz: int, duration_s: float = 1.0) -> torch.Tensor:
    """A gliding pulse train through two resonances, in bursts, with a little breath."""
    time_S = torch.arange(int(sample_rate_hz * duration_s), dtype=torch.float64) / sample_rate_hz
    pitch_S = 120 + 40 * torch.sin(2 * math.pi * 1.5 * time_S)
    phase_S = 2 * math.pi * pitch_S.cumsum(0) / sample_rate_hz
    voice_S = torch.zeros_like(time_S)
    for harmonic in range(1, 25):
        frequency_hz = 120 * harmonic
        formants = sum(math.exp(-(((frequency_hz - peak) / 250) ** 2)) for peak in (700, 1800))
        voice_S += (formants + 0.02) * torch.sin(harmonic * phase_S)
    bursts_S = torch.sin(2 * math.pi * 3 * time_S).clamp_min(0)
    breath_S = 0.003 * torch.randn(len(time_S), generator=stream(1, "breath"), dtype=torch.float64)
    return (0.1 * voice_S * bursts_S + breath_S).float()[None]


def _kaldi(waveform_BS: torch.Tensor, config: LogMelConfig) -> torch.Tensor:
    """The call in AST's and ASiT's loaders, one clip at a time."""
    return torch.stack(
        [
            kaldi.fbank(
                (waveform_S - waveform_S.mean())[None],
                htk_compat=True,
                use_energy=False,
                dither=0.0,
                window_type=config.window,
                num_mel_bins=config.num_mel_bins,
                sample_frequency=config.sample_rate_hz,
                frame_length=config.frame_length_ms,
                frame_shift=config.hop_ms,
                low_freq=config.low_freq_hz,
                high_freq=config.high_freq_hz or 0.0,
                preemphasis_coefficient=config.preemphasis,
            )
            for waveform_S in waveform_BS
        ]
    )


def _assert_equals_kaldi(waveform_BS: torch.Tensor, config: LogMelConfig) -> None:
    # 1e-4 absolute is float32's reach in the emptiest bins; the others agree to 1e-6
    log_mel_BTF = LogMel(config)(waveform_BS)
    torch.testing.assert_close(log_mel_BTF, _kaldi(waveform_BS, config), rtol=0, atol=1e-4)


@pytest.mark.parametrize("num_mel_bins", [23, 80, 128])
@pytest.mark.parametrize("sample_rate_hz", RATES_HZ)
def test_equals_kaldi_on_noise(sample_rate_hz, num_mel_bins):
    config = LogMelConfig(sample_rate_hz=sample_rate_hz, num_mel_bins=num_mel_bins)
    _assert_equals_kaldi(_noise(num_samples=sample_rate_hz + 17), config)


@pytest.mark.parametrize("window", ["hanning", "povey"])
@pytest.mark.parametrize("sample_rate_hz", RATES_HZ)
def test_equals_kaldi_on_speech_like_sound(sample_rate_hz, window):
    config = LogMelConfig(sample_rate_hz=sample_rate_hz, window=window)
    _assert_equals_kaldi(_speech_like(sample_rate_hz=sample_rate_hz), config)


@pytest.mark.parametrize("sample_rate_hz", RATES_HZ)
def test_equals_kaldi_at_any_length(sample_rate_hz):
    """One frame, one sample short of the next, ragged ends, and three seconds."""
    config = LogMelConfig(sample_rate_hz=sample_rate_hz, num_mel_bins=64)
    frame, hop = config.frame_samples, config.hop_samples
    for num_samples in (
        frame,
        frame + hop - 1,
        frame + hop,
        7 * hop + 3 * frame,
        3 * sample_rate_hz,
    ):
        _assert_equals_kaldi(_noise(num_samples=num_samples), config)


@pytest.mark.parametrize("sample_rate_hz", [16000, 32000])
def test_a_ragged_batch_equals_kaldi_clip_by_clip(sample_rate_hz):
    config = LogMelConfig(sample_rate_hz=sample_rate_hz)
    lengths = [sample_rate_hz, sample_rate_hz // 2 + 1, 3 * config.frame_samples]
    waveform_BS = _noise(num_samples=sample_rate_hz, num_clips=3) + 0.01
    log_mel_BTF = LogMel(config)(waveform_BS, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        theirs_TF = _kaldi(waveform_BS[row : row + 1, :length], config)[0]
        ours_TF = log_mel_BTF[row, : len(theirs_TF)]
        torch.testing.assert_close(ours_TF, theirs_TF, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "fields",
    [
        {"window": "povey"},
        {"frame_length_ms": 32.0, "hop_ms": 16.0},
        {"frame_length_ms": 10.5, "hop_ms": 3.3},
        {"low_freq_hz": 0.0, "high_freq_hz": 7000.0},
        {"preemphasis": 0.0},
        {"sample_rate_hz": 11025, "num_mel_bins": 4},
    ],
    ids=lambda fields: "-".join(fields),
)
def test_equals_kaldi_in_every_option(fields):
    config = LogMelConfig(**{"sample_rate_hz": 16000, **fields})
    _assert_equals_kaldi(_noise(num_samples=8000), config)


@pytest.mark.parametrize("sample_rate_hz", RATES_HZ)
def test_pure_tones_agree_within_80_db_of_the_peak(sample_rate_hz):
    """Farther down a frame holds rounding noise of the FFT only, in both programs."""
    time_S = torch.arange(sample_rate_hz) / sample_rate_hz
    waveform_BS = torch.stack(
        [0.5 * torch.sin(2 * math.pi * hertz * time_S) for hertz in (100, 997, 3800)]
    )
    config = LogMelConfig(sample_rate_hz=sample_rate_hz)
    ours, theirs = LogMel(config)(waveform_BS), _kaldi(waveform_BS, config)
    heard = theirs > theirs.amax(dim=2, keepdim=True) - 80 / 10 * math.log(10)
    assert (ours - theirs)[heard].abs().max() < 1e-4


def test_equals_a_loop_written_reference():
    """Kaldi's definition, sample by sample in float64 (window, DFT and triangles by hand)."""
    config = LogMelConfig(sample_rate_hz=1000, num_mel_bins=6, frame_length_ms=20.0, hop_ms=7.0)
    waveform_S = _noise(num_samples=50, num_clips=1)[0]
    ours_TF = LogMel(config)(waveform_S[None])[0]
    samples = [float(value) for value in waveform_S]
    mean = sum(samples) / len(samples)
    samples = [value - mean for value in samples]
    length, hop, fft = 20, 7, 32

    def mel(hertz: float) -> float:
        return 1127 * math.log(1 + hertz / 700)

    delta = (mel(500) - mel(20)) / 7
    for t in range(5):
        frame = samples[t * hop : t * hop + length]
        level = sum(frame) / length
        frame = [value - level for value in frame]
        frame = [frame[i] - 0.97 * frame[max(i - 1, 0)] for i in range(length)]
        frame = [
            frame[i] * (0.5 - 0.5 * math.cos(2 * math.pi * i / (length - 1))) for i in range(length)
        ]
        for f in range(6):
            left, center, right = (mel(20) + (f + j) * delta for j in range(3))
            energy = 0.0
            for h in range(fft // 2):  # the Nyquist bin is left out
                angle = [2 * math.pi * h * i / fft for i in range(length)]
                real = sum(x * math.cos(a) for x, a in zip(frame, angle, strict=True))
                imaginary = sum(x * math.sin(a) for x, a in zip(frame, angle, strict=True))
                at = mel(h * 1000 / fft)
                weight = max(
                    0.0, min((at - left) / (center - left), (right - at) / (right - center))
                )
                energy += weight * (real**2 + imaginary**2)
            expected = math.log(max(energy, 2.0**-23))
            assert float(ours_TF[t, f]) == pytest.approx(expected, abs=1e-4)
    assert ours_TF.shape == (5, 6)


@pytest.mark.parametrize("sample_rate_hz", [16000, 22050, 32000])
def test_num_frames_is_the_shape_that_comes_out(sample_rate_hz):
    log_mel = LogMel(LogMelConfig(sample_rate_hz=sample_rate_hz))
    length, hop = log_mel.config.frame_samples, log_mel.config.hop_samples
    assert log_mel.num_frames(0) == log_mel.num_frames(length - 1) == 0
    for num_samples in (length, length + 1, length + hop - 1, length + hop, length + 3 * hop + 5):
        waveform_BS = _noise(num_samples=num_samples, num_clips=1)
        assert log_mel(waveform_BS).shape[1] == log_mel.num_frames(num_samples)


def test_default_front_end_gives_998_frames_for_ten_seconds():
    assert LogMel(LogMelConfig()).num_frames(320000) == 998


def test_silence_lies_on_the_floor():
    log_mel_BTF = LogMel(LogMelConfig())(torch.zeros(1, 3200))
    assert pytest.approx(-15.942385, abs=1e-6) == LOG_MEL_FLOOR
    assert math.log(LOG_MEL_EPSILON) == LOG_MEL_FLOOR
    assert torch.equal(log_mel_BTF, torch.full_like(log_mel_BTF, LOG_MEL_FLOOR))


def test_a_constant_waveform_is_silence():
    log_mel_BTF = LogMel(LogMelConfig())(torch.full((1, 3200), 0.25))
    assert torch.equal(log_mel_BTF, torch.full_like(log_mel_BTF, LOG_MEL_FLOOR))


def test_a_clip_does_not_depend_on_its_batch():
    log_mel = LogMel(LogMelConfig(sample_rate_hz=44100))
    waveform_BS = _noise(num_samples=44100, num_clips=5) + 0.05
    alone_BTF = torch.cat([log_mel(waveform_S[None]) for waveform_S in waveform_BS])
    torch.testing.assert_close(log_mel(waveform_BS), alone_BTF, rtol=0, atol=2e-6)


@pytest.mark.parametrize("block", [1, 1 << 10, 1 << 14])
def test_long_sound_goes_through_in_blocks(block, monkeypatch):
    """The working memory does not grow with the clip, and the seams do not show."""
    log_mel = LogMel(LogMelConfig(sample_rate_hz=16000))
    waveform_BS = _noise(num_samples=16000, num_clips=3)
    expected_BTF = log_mel(waveform_BS)
    monkeypatch.setattr("asit_core.spectrogram._CPU_BLOCK", block)
    torch.testing.assert_close(log_mel(waveform_BS), expected_BTF, rtol=0, atol=2e-6)


def test_samples_that_were_not_divided_show_as_a_constant():
    """H10: 16-bit samples taken for [-1, 1] shift log-mels by 2 ln 32768 = 20.8."""
    log_mel = LogMel(LogMelConfig(sample_rate_hz=16000, num_mel_bins=64))
    waveform_BS = _noise(num_samples=16000)
    shift_BTF = log_mel(32768 * waveform_BS) - log_mel(waveform_BS)
    torch.testing.assert_close(shift_BTF, torch.full_like(shift_BTF, 20.794415), rtol=0, atol=1e-4)


def test_filters_without_a_bin_stay_on_the_floor():
    """H10: 128 mel bins at 8 kHz; the lowest filters are narrower than an FFT bin."""
    log_mel = LogMel(LogMelConfig(sample_rate_hz=8000))
    empty_F = ~log_mel.mel_banks.any(dim=0)
    assert empty_F.any()
    log_mel_BTF = log_mel(_noise(num_samples=8000))
    assert (log_mel_BTF[..., empty_F] == LOG_MEL_FLOOR).all()
    assert (log_mel_BTF[..., ~empty_F] > LOG_MEL_FLOOR).any(dim=1).all()


def test_windows_are_not_periodic():
    """H10: Kaldi's windows end where they begin, at zero."""
    hanning_W = LogMel(LogMelConfig(sample_rate_hz=16000)).window
    povey_W = LogMel(LogMelConfig(sample_rate_hz=16000, window="povey")).window
    for window_W in (hanning_W, povey_W):
        torch.testing.assert_close(window_W, window_W.flip(0))
        assert window_W[0] == 0
    expected_W = 0.5 - 0.5 * torch.cos(2 * math.pi * torch.arange(400) / 399)
    torch.testing.assert_close(hanning_W, expected_W)
    torch.testing.assert_close(povey_W, expected_W.clamp_min(0) ** 0.85)


@pytest.mark.parametrize(
    ("sample_rate_hz", "fft_samples"),
    [(8000, 256), (16000, 512), (22050, 1024), (32000, 1024), (44100, 2048), (48000, 2048)],
)
def test_the_fft_is_the_next_power_of_two(sample_rate_hz, fft_samples):
    """H10: and the mel range reaches half the rate."""
    config = LogMelConfig(sample_rate_hz=sample_rate_hz)
    assert (config.fft_samples, config.upper_edge_hz) == (fft_samples, sample_rate_hz / 2)


def test_padding_changes_nothing_but_the_padded_frames():
    log_mel = LogMel(LogMelConfig(sample_rate_hz=16000))
    lengths = [16000, 9000, 400, 100]
    waveform_BS = _noise(num_samples=16000, num_clips=4) + 0.1
    padded_BS = waveform_BS.clone()
    for row, length in enumerate(lengths):
        padded_BS[row, length:] = 7.0
    log_mel_BTF = log_mel(padded_BS, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        num_frames = log_mel.num_frames(length)
        if num_frames:
            alone_TF = log_mel(waveform_BS[row : row + 1, :length])[0]
            torch.testing.assert_close(log_mel_BTF[row, :num_frames], alone_TF, rtol=0, atol=2e-6)
        assert (log_mel_BTF[row, num_frames:] == LOG_MEL_FLOOR).all()


def test_subtract_mean_is_an_option():
    waveform_BS = _noise(num_samples=16000) + 0.5
    kept = LogMel(LogMelConfig(subtract_mean=False))(waveform_BS - waveform_BS.mean(1, True))
    removed = LogMel(LogMelConfig())(waveform_BS)
    torch.testing.assert_close(removed, kept, rtol=0, atol=1e-3)


def test_input_types_and_gradients():
    log_mel = LogMel(LogMelConfig(sample_rate_hz=16000))
    waveform_BS = _noise(num_samples=1600)
    reference_BTF = log_mel(waveform_BS)
    assert log_mel(waveform_BS.double()).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(log_mel(waveform_BS), reference_BTF)
    assert not log_mel(waveform_BS.requires_grad_()).requires_grad
    assert log_mel.state_dict() == {}
    assert torch.equal(waveform_BS, _noise(num_samples=1600))


@pytest.mark.gpu
def test_same_on_the_gpu():
    log_mel = LogMel(LogMelConfig())
    waveform_BS = _noise(num_samples=64000)
    expected_BTF = log_mel(waveform_BS)
    on_gpu_BTF = log_mel.cuda()(waveform_BS.cuda()).cpu()
    torch.testing.assert_close(on_gpu_BTF, expected_BTF, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sample_rate_hz": 0}, "sample_rate_hz must be > 0, but got 0"),
        ({"sample_rate_hz": -1}, "sample_rate_hz must be > 0"),
        ({"num_mel_bins": 0}, "num_mel_bins must be >= 4, but got 0"),
        ({"frame_length_ms": 0.0}, "frame_length_ms must be finite and last at least 2 samples"),
        ({"frame_length_ms": math.nan}, "frame_length_ms must be finite"),
        ({"frame_length_ms": math.inf}, "frame_length_ms must be finite"),
        ({"hop_ms": 0.001}, "hop_ms must be finite and last at least 1 samples at 32000 Hz"),
        ({"hop_ms": -10.0}, "hop_ms must be"),
        ({"window": "hamming"}, "window must be one of hanning, povey, but got 'hamming'"),
        ({"low_freq_hz": -1.0}, "low_freq_hz must be in"),
        ({"low_freq_hz": 16000.0}, "low_freq_hz must be in"),
        ({"low_freq_hz": math.nan}, "low_freq_hz must be in"),
        ({"low_freq_hz": 500.0, "high_freq_hz": 400.0}, "low_freq_hz must be in .* but got 500"),
        ({"high_freq_hz": 16001.0}, "high_freq_hz must be in .0, 16000. .* but got 16001"),
        ({"high_freq_hz": 0.0}, "high_freq_hz must be in"),
        ({"preemphasis": 1.5}, "preemphasis must be in .0, 1., but got 1.5"),
    ],
    ids=str,
)
def test_config_names_the_field_that_makes_no_sense(fields, message):
    with pytest.raises(ValueError, match=message):
        LogMelConfig(**fields)


@pytest.mark.parametrize(
    ("waveform", "num_samples_B", "message"),
    [
        (torch.zeros(1600), None, r"shape \(B, S\)"),
        (torch.zeros(0, 1600), None, "with B >= 1"),
        (torch.zeros(1, 1600, dtype=torch.int16), None, "floating point"),
        (torch.zeros(1, 799), None, "at least one frame .800 samples, 25 ms.*got 799"),
        (torch.zeros(1, 0), None, "at least one frame"),
        (torch.zeros(2, 1600), torch.tensor([1600]), r"num_samples_B must have shape \(2,\)"),
        (torch.zeros(1, 1600), torch.tensor([1601]), r"num_samples_B must be in \[1, 1600\]"),
        (torch.zeros(1, 1600), torch.tensor([0]), "num_samples_B must be in"),
    ],
)
def test_forward_refuses_what_does_not_fit(waveform, num_samples_B, message):
    with pytest.raises(ValueError, match=message):
        LogMel(LogMelConfig())(waveform, num_samples_B)
