"""Our numbers against the released programs' own: every size is read from the reference files."""

import re

import pytest
import torch

from asit_core.spectrogram import LogMel, LogMelConfig

_FBANK_KEY = re.compile(r"fbank_(?P<kilohertz>\d+)k(?:_of_first_(?P<samples>\d+))?")


def test_fbank_equals_the_reference(golden):
    tensors, _ = golden("fbank")
    # The reference removes the mean of the whole waveform once, before it cuts.
    waveform = tensors["waveform"] - tensors["waveform"].mean()
    keys = [key for key in tensors if key.startswith("fbank_")]
    assert keys
    for key in keys:
        match = _FBANK_KEY.fullmatch(key)
        assert match, f"unknown entry {key}"
        config = LogMelConfig(
            sample_rate_hz=1000 * int(match["kilohertz"]),
            num_mel_bins=tensors[key].shape[-1],
            subtract_mean=False,
        )
        samples = int(match["samples"] or waveform.shape[1])
        log_mel = LogMel(config)(waveform[:, :samples])[0]
        # 1e-4 absolute: float32 in the emptiest bins, just above the floor
        torch.testing.assert_close(log_mel, tensors[key], rtol=0, atol=1e-4)


def test_fbank_subtracts_the_mean_itself(golden):
    tensors, _ = golden("fbank")
    for key, reference in tensors.items():
        match = _FBANK_KEY.fullmatch(key)
        if match and match["samples"] is None:
            config = LogMelConfig(
                sample_rate_hz=1000 * int(match["kilohertz"]), num_mel_bins=reference.shape[-1]
            )
            log_mel = LogMel(config)(tensors["waveform"])[0]
            torch.testing.assert_close(log_mel, reference, rtol=0, atol=1e-4)
            return
    pytest.skip("the reference holds no filterbank of the whole waveform")
