import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torchaudio.functional import resample

from asit_core.embedding import SpectrogramModel
from asit_core.encoder import EncoderConfig, SpectrogramEncoder
from asit_core.initialization import initialize
from asit_core.seeding import stream
from asit_core.spectrogram import LOG_MEL_FLOOR, LogMelConfig
from asit_core.waveform import AudioError

FRONT_END = LogMelConfig(sample_rate_hz=16000, num_mel_bins=16)
MEAN, STD = -6.0, 3.0
ENCODER = EncoderConfig(
    embed_dim=16, depth=2, num_heads=2, patch_frames=8, patch_bins=8, input_bins=16
)
OVERLAPPING = replace(
    ENCODER, stride_frames=5, stride_bins=4, num_cls_tokens=2, token_order="frequency"
)


def _model(
    config: EncoderConfig = ENCODER, *, input_frames: int = 32, **fields
) -> SpectrogramModel:
    encoder = SpectrogramEncoder(config, input_frames=input_frames)
    initialize(encoder, seed=0)
    # as if trained: positions and class tokens that matter
    with torch.no_grad():
        for index, parameter in enumerate((encoder.pos_embed, encoder.cls_token)):
            parameter.normal_(generator=stream(0, "positions", index))
    return SpectrogramModel(encoder, front_end=FRONT_END, mean=MEAN, std=STD, **fields)


def _noise(num_frames: int, *, extra: int = 0) -> Tensor:
    """As many samples as that many frames need, and some more."""
    num_samples = FRONT_END.frame_samples + (num_frames - 1) * FRONT_END.hop_samples + extra
    return 0.1 * torch.randn(num_samples, generator=stream(1, "noise"))


def _window(model: SpectrogramModel, log_mel_TF: Tensor) -> tuple[Tensor, Tensor]:
    """Class tokens and patch grid of one window, token by token."""
    config = model.encoder.config
    tokens_ND = model.encoder((log_mel_TF[None] - MEAN) / (2 * STD))[0]
    columns, rows = model.encoder.grid
    grid_tfD = torch.empty(columns, rows, config.embed_dim)
    for t in range(columns):
        for f in range(rows):
            patch = t * rows + f if config.token_order == "time" else f * columns + t
            grid_tfD[t, f] = tokens_ND[config.num_cls_tokens + patch]
    return tokens_ND[: config.num_cls_tokens], grid_tfD


@pytest.mark.parametrize("config", [ENCODER, OVERLAPPING], ids=["plain", "overlapping"])
@torch.no_grad()
def test_a_clip_of_one_window(config):
    model, waveform = _model(config), _noise(32, extra=70)
    cls_CD, grid_tfD = _window(model, model.log_mel(waveform[None])[0])
    columns, rows = model.encoder.grid
    result = model.embed(waveform, 16000, features="both")
    assert result.patch_grid.shape == (columns, rows, 16)
    torch.testing.assert_close(result.patch_grid, grid_tfD)
    torch.testing.assert_close(result.frame_matrix, grid_tfD.mean(1))
    mean_D, cls_D = grid_tfD.mean((0, 1)), cls_CD.mean(0)
    torch.testing.assert_close(result.clip_vector, torch.cat([mean_D, cls_D]))
    torch.testing.assert_close(model.embed(waveform, 16000).clip_vector, mean_D)
    cls_vector = model.embed(waveform, 16000, features="cls").clip_vector
    torch.testing.assert_close(cls_vector, cls_D)


@torch.no_grad()
def test_a_short_clip_is_followed_by_silence_which_is_no_frame():
    """H9: padding is log-mel silence before normalisation, not the dataset's mean (0 after it)."""
    model, waveform = _model(), _noise(20)
    log_mel_TF = torch.full((32, 16), LOG_MEL_FLOOR)
    log_mel_TF[:20] = model.log_mel(waveform[None])[0]
    _, grid_tfD = _window(model, log_mel_TF)
    result = model.embed(waveform, 16000)
    assert result.patch_grid.shape == (3, 2, 16)  # 20 frames reach into the third column of 8
    torch.testing.assert_close(result.patch_grid, grid_tfD[:3])
    torch.testing.assert_close(result.clip_vector, grid_tfD[:3].mean((0, 1)))


@torch.no_grad()
def test_padding_may_be_the_zero_of_ast():
    """H9: AST pads log-mels with 0, which normalisation turns into -mean / (2 std)."""
    model, waveform = _model(pad_value=0.0), _noise(20)
    log_mel_TF = torch.zeros(32, 16)
    log_mel_TF[:20] = model.log_mel(waveform[None])[0]
    torch.testing.assert_close(
        model.embed(waveform, 16000).patch_grid, _window(model, log_mel_TF)[1][:3]
    )


@pytest.mark.parametrize(
    ("num_frames", "num_columns"), [(1, 1), (8, 1), (9, 2), (28, 5), (32, 5), (33, 6), (34, 7)]
)
def test_columns_of_overlapping_patches(num_frames, num_columns):
    """Training's 32 frames make 5 columns, 4 frames unread: so does a clip of 32 frames."""
    result = _model(OVERLAPPING).embed(_noise(num_frames), 16000)
    assert result.patch_grid.shape == (num_columns, 3, 16)


@pytest.mark.parametrize("config", [ENCODER, OVERLAPPING], ids=["plain", "overlapping"])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
@torch.no_grad()
def test_a_long_clip_is_stitched_from_windows(config, overlap):
    """Each column equals that of the window it is kept from, found by looking at every window."""
    model, waveform = _model(config), _noise(203)
    stride, columns = config.stride[0], model.encoder.grid[0]
    num_columns = math.ceil((203 - 8) / stride) + 1
    span = 8 + stride * (columns - 1)
    padded_TF = torch.full((8 + stride * (num_columns - 1), 16), LOG_MEL_FLOOR)
    padded_TF[:203] = model.log_mel(waveform[None])[0]
    hop = round(columns * (1 - overlap))
    starts = [*range(0, num_columns - columns, hop), num_columns - columns]
    windows = [_window(model, padded_TF[stride * s : stride * s + span]) for s in starts]
    result = model.embed(waveform, 16000, overlap=overlap, features="cls", windows_per_batch=3)
    assert len(result.patch_grid) == num_columns
    for column, patch_fD in enumerate(result.patch_grid):
        shown = [
            (min(column - s, s + columns - 1 - column), grid_tfD[column - s])
            for s, (_, grid_tfD) in zip(starts, windows, strict=True)
            if s <= column < s + columns
        ]
        # of windows that show a column equally far from their edges, either may be taken
        best = [
            grid_fD for depth, grid_fD in shown if depth >= max(depth for depth, _ in shown) - 1
        ]
        if column < columns // 2 or column >= num_columns - columns // 2:
            best = [grid_fD for _, grid_fD in shown]  # the clip's own ends are no edges
        assert any(torch.allclose(patch_fD, grid_fD, atol=1e-5) for grid_fD in best), column
    cls_D = torch.stack([cls_CD.mean(0) for cls_CD, _ in windows]).mean(0)
    torch.testing.assert_close(result.clip_vector, cls_D)


@torch.no_grad()
def test_frame_times_are_the_middle_of_what_a_frame_sees():
    model = _model(OVERLAPPING)
    times = model.embed(_noise(203), 16000).frame_time_s
    assert times.dtype == torch.float64
    # 8 frames of 25 ms, 10 ms apart, see 95 ms; columns are 5 frames apart
    expected = 0.0475 + 0.05 * torch.arange(len(times), dtype=torch.float64)
    torch.testing.assert_close(times, expected)


@pytest.mark.parametrize("native_rate_hz", [8000, 44100, 48000])
@torch.no_grad()
def test_other_rates_are_resampled(native_rate_hz):
    """H11: sound at another rate is brought to the front end's, never taken for it."""
    model = _model()
    waveform = 0.1 * torch.randn(native_rate_hz, generator=stream(2, "noise"))
    expected = model.embed(resample(waveform, native_rate_hz, 16000), 16000)
    result = model.embed(waveform, native_rate_hz)
    torch.testing.assert_close(result.patch_grid, expected.patch_grid)
    as_if_16k = model.embed(waveform, 16000)
    assert as_if_16k.patch_grid.shape != result.patch_grid.shape


@torch.no_grad()
def test_a_batch_equals_its_clips():
    model = _model()
    clips = [_noise(70), _noise(12), _noise(32)]
    for clip, result in zip(clips, model.embed(clips, 16000), strict=True):
        for ours, alone in zip(result, model.embed(clip, 16000), strict=True):
            torch.testing.assert_close(ours, alone, atol=1e-5, rtol=1e-5)
    stacked = torch.stack([clips[0], clips[0].flip(0)])
    result = model.embed(stacked, 16000)
    assert result.patch_grid.shape == (2, 9, 2, 16)
    assert (result.clip_vector.shape, result.frame_time_s.shape) == ((2, 16), (9,))
    torch.testing.assert_close(result.clip_vector[1], model.embed(stacked[1], 16000).clip_vector)


@torch.no_grad()
def test_arrays_and_double_precision_are_welcome():
    model, waveform = _model(), _noise(40)
    expected = model.embed(waveform, 16000)
    result = model.embed(waveform.double().numpy(), 16000)
    assert result.clip_vector.dtype == torch.float32
    torch.testing.assert_close(result.clip_vector, expected.clip_vector)
    assert torch.equal(waveform, _noise(40))


def test_embedding_leaves_no_gradient_and_no_trace_in_the_global_generator():
    model = _model()
    state = torch.get_rng_state()
    assert not model.embed(_noise(40), 16000).clip_vector.requires_grad
    assert torch.equal(state, torch.get_rng_state())
    assert not model.training


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (torch.tensor([0.0, math.nan] + 1000 * [0.0]), "waveform must be finite, but got nan at"),
        (torch.tensor([math.inf] + 1000 * [0.0]), "must be finite, but got inf at sample 0"),
        (torch.zeros(0), "waveform must hold at least one sample, but got none"),
        (torch.zeros(399), r"waveform must last at least one frame \(25 ms\), but got 399 samples"),
        # H10: 16-bit samples would shift log-mels by 20.8
        (torch.zeros(1000, dtype=torch.int16), r"must be floating point .* but got torch.int16"),
        (torch.full((1000,), 3000.0), r"must be scaled to \[-1, 1\], but got a peak of 3000"),
        ([torch.zeros(1000), torch.tensor([math.nan])], "waveform 1 must be finite, but got nan"),
        (torch.zeros(2, 0), "waveform 0 must hold at least one sample"),
        (np.zeros(0), "at least one sample"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(type(value).__name__),
)
def test_unusable_sound_is_one_clear_error(waveform, message):
    with pytest.raises(AudioError, match=message) as caught:
        _model().embed(waveform, 16000)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rate", [0, -1, 0.5, 44100.5, math.nan, math.inf])
def test_a_rate_that_makes_no_sense(rate):
    with pytest.raises(ValueError, match=f"sample_rate_hz must be a whole number > 0, .* {rate}"):
        _model().embed(_noise(32), rate)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": "max"}, "features must be one of mean, cls, both, but got 'max'"),
        ({"overlap": 1.0}, r"overlap must be in \[0, 1\), but got 1.0"),
        ({"overlap": math.nan}, "overlap must be in"),
        ({"windows_per_batch": 0}, "windows_per_batch must be >= 1, but got 0"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        _model().embed(_noise(32), 16000, **options)


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (torch.zeros(1, 1, 1000), r"must have shape \(S,\), \(B, S\) for a batch"),
        (torch.tensor(0.0), r"must have shape \(S,\)"),
        # H19: stereo in a list of clips is no clip
        ([torch.zeros(2, 1000)], r"waveform 0 must have .* but got \(2, 1000\); average its chan"),
        ([], "waveform must hold at least one clip, but got none"),
        (torch.zeros(0, 1000), "waveform must hold at least one clip"),
    ],
    ids=["3d", "0d", "stereo", "none", "empty"],
)
def test_shapes_that_are_no_sound(waveform, message):
    with pytest.raises(ValueError, match=message):
        _model().embed(waveform, 16000)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"front_end": LogMelConfig(num_mel_bins=64)},
            r"front_end.num_mel_bins must be 16 \(the encoder's input_bins\), but got 64",
        ),
        ({"std": 0.0}, "std finite and above 0, but got -6.0, .* and 0.0"),
        ({"mean": math.nan}, "mean and pad_value must be finite"),
        ({"pad_value": math.inf}, "mean and pad_value must be finite"),
    ],
)
def test_parts_that_do_not_fit(fields, message):
    with pytest.raises(ValueError, match=message):
        SpectrogramModel(
            SpectrogramEncoder(ENCODER, input_frames=32),
            **{"front_end": FRONT_END, "mean": MEAN, "std": STD, **fields},
        )


@pytest.mark.gpu
def test_same_on_the_gpu():
    model, waveform = _model(), _noise(203)
    expected = model.embed(waveform, 16000)
    result = model.cuda().embed(waveform, 16000)
    assert result.clip_vector.is_cuda
    torch.testing.assert_close(result.patch_grid.cpu(), expected.patch_grid, atol=1e-3, rtol=1e-3)
