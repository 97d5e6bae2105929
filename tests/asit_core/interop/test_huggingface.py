"""Against transformers' own classes on random weights: nothing is downloaded."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, ASTModel

from asit_core import seeding
from asit_core.interop import build, convert, from_ast, from_huggingface, load_any, to_huggingface
from asit_core.interop.huggingface_folder import read_folder, write_folder
from asit_core.spectrogram import LogMel
from asit_core.views import normalize


def _model(kind: Any = ASTForAudioClassification, **options):
    fields = {
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "num_mel_bins": 64,
        "num_labels": 3,
    }
    with torch.random.fork_rng(devices=[]):
        model = kind(ASTConfig(**{**fields, **options}))
    for index, parameter in enumerate(model.parameters()):
        noise = torch.randn(parameter.shape, generator=seeding.stream(index, "hf"))
        parameter.data.add_(0.1 * noise)
    return model.eval()


@pytest.mark.parametrize("frames", [100, 203])
@pytest.mark.parametrize(("time_stride", "frequency_stride"), [(10, 10), (16, 12)])
def test_logits_equal_transformers_both_ways(
    tmp_path, log_mels, frames, time_stride, frequency_stride
):
    theirs = _model(max_length=frames, time_stride=time_stride, frequency_stride=frequency_stride)
    theirs.save_pretrained(tmp_path / "theirs")
    log_mel = log_mels(frames, bins=64)
    expected = theirs(log_mel).logits

    loaded = load_any(tmp_path / "theirs")
    assert loaded.classifier is not None
    torch.testing.assert_close(loaded.classifier(log_mel), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        loaded.encoder(log_mel),
        theirs.audio_spectrogram_transformer(log_mel).last_hidden_state,
        rtol=0,
        atol=1e-5,
    )

    convert(tmp_path / "theirs", tmp_path / "ours.safetensors", to="asit")
    convert(tmp_path / "ours.safetensors", tmp_path / "back", to="hf")
    opened: Any = ASTForAudioClassification.from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    back, report = opened
    assert not any(report.values())  # no key missing, unexpected or of another shape
    torch.testing.assert_close(back.eval()(log_mel).logits, expected, rtol=0, atol=1e-5)
    assert back.config.layer_norm_eps == theirs.config.layer_norm_eps


@pytest.mark.parametrize(("frames", "step"), [(100, 10), (203, 16)])
def test_an_ast_checkpoint_opens_with_transformers(tmp_path, published, log_mels, frames, step):
    columns, rows = (frames - 16) // step + 1, (128 - 16) // step + 1
    shapes = published.ssast_shapes(64, depth=2, num_patches=columns * rows, num_classes=4)
    weights = from_ast(
        published.drawn(shapes), num_heads=1, input_frames=frames, stride=(step, step)
    )
    write_folder(tmp_path / "ast", weights)
    theirs = ASTForAudioClassification.from_pretrained(tmp_path / "ast").eval()
    log_mel = log_mels(frames)
    classifier = build(weights).classifier
    assert classifier is not None
    torch.testing.assert_close(theirs(log_mel).logits, classifier(log_mel), rtol=0, atol=1e-5)


def test_a_bare_model_and_one_in_the_other_order(tmp_path, log_mels):
    theirs = _model(ASTModel, max_length=100)
    theirs.save_pretrained(tmp_path / "bare")
    weights = read_folder(tmp_path / "bare")
    assert weights.pool is None
    log_mel = log_mels(100, bins=64)
    expected = theirs(log_mel).last_hidden_state
    torch.testing.assert_close(build(weights).encoder(log_mel), expected, rtol=0, atol=1e-5)

    columns, rows = weights.encoder.grid_of(100)
    state, config = to_huggingface(_time_major(weights, columns, rows))
    again = from_huggingface(state, config)
    torch.testing.assert_close(build(again).encoder(log_mel), expected, rtol=0, atol=1e-5)


def _time_major(weights, columns, rows):
    """The same model with its tokens in ASiT's order."""
    positions = weights.tensors["encoder.pos_embed"]
    order = [f * columns + t for t in range(columns) for f in range(rows)]
    moved = torch.cat([positions[:, :2], positions[:, 2:][:, order]], dim=1)
    return replace(
        weights,
        encoder=replace(weights.encoder, token_order="time"),
        tensors={**weights.tensors, "encoder.pos_embed": moved},
    )


def test_published_keys_and_shapes(published):
    shapes = published.huggingface_shapes(768, depth=12, num_patches=1212, num_classes=527)
    weights = from_huggingface(published.empty(shapes), {})
    assert weights.encoder.grid_of(1024) == (101, 12)
    state, config = to_huggingface(weights)
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == shapes
    with torch.device("meta"):
        theirs = ASTForAudioClassification(ASTConfig(**config))
    assert sum(p.numel() for p in theirs.parameters()) == sum(t.numel() for t in state.values())


def test_a_missing_or_unknown_key_is_named(published):
    shapes = published.huggingface_shapes(32, depth=1, num_patches=1212, num_classes=3)
    config = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 128,
    }
    state = published.empty(shapes)
    assert from_huggingface(state, config).encoder.depth == 1
    for name in shapes:
        missing = {key: value for key, value in state.items() if key != name}
        shown = name.removeprefix("audio_spectrogram_transformer.")
        for theirs, ours in (("classifier.layernorm", "head.0"), ("classifier.dense", "head.1")):
            shown = shown.replace(theirs, ours)
        with pytest.raises(ValueError, match=rf"{re.escape(shown)}\b.*but"):
            from_huggingface(missing, config)
    extra = "audio_spectrogram_transformer.encoder.layer.1.output.dense.bias"
    with pytest.raises(ValueError, match=r"its keys only, but got 'encoder.layer.1"):
        from_huggingface({**state, extra: torch.zeros(32)}, config)


def test_the_front_end_travels(tmp_path):
    """H10: the extractor leaves the clip's mean in; otherwise its log-mels are ours."""
    theirs = _model(max_length=90, id2label={0: "dog", 1: "rain", 2: "siren"})
    theirs.save_pretrained(tmp_path / "theirs")
    extractor = ASTFeatureExtractor(num_mel_bins=64, max_length=90, mean=-6.5, std=5.25)
    extractor.save_pretrained(tmp_path / "theirs")
    weights = read_folder(tmp_path / "theirs")
    assert weights.label_names == ("dog", "rain", "siren")
    assert (weights.mean, weights.std, weights.pad_value) == (-6.5, 5.25, 0.0)

    waveform = 0.1 * torch.randn(16000, generator=seeding.stream(0, "waveform")) + 0.05
    expected = extractor(waveform.numpy(), sampling_rate=16000, return_tensors="pt").input_values
    log_mel = LogMel(weights.front_end)(waveform[None])[:, :90]
    ours = normalize(log_mel, mean=weights.mean, std=weights.std)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)

    write_folder(tmp_path / "back", weights)
    back = ASTFeatureExtractor.from_pretrained(tmp_path / "back")
    again = back(waveform.numpy(), sampling_rate=16000, return_tensors="pt").input_values
    torch.testing.assert_close(again, expected)
    reread = read_folder(tmp_path / "back")
    assert reread.label_names == weights.label_names
    assert (reread.front_end, reread.mean) == (weights.front_end, weights.mean)


def test_what_asts_classes_cannot_hold_says_so(published, tmp_path):
    shapes = published.ssast_shapes(192, depth=1, num_patches=1212, num_classes=3)
    weights = from_ast(published.empty(shapes))
    with pytest.raises(ValueError, match=r"pool must be 'class_tokens' .* got 'mean'; leave"):
        to_huggingface(replace(weights, pool="mean"))
    frame = published.ssast_shapes(192, depth=1, patch=(2, 128), num_classes=3)
    with pytest.raises(ValueError, match=r"patch must be square .* 2 frames x 128 bins"):
        to_huggingface(from_ast(published.empty(frame)))
    single = published.ssast_shapes(192, depth=1, num_patches=1212, num_cls=1, num_classes=3)
    with pytest.raises(ValueError, match=r"num_cls_tokens must be 2 .* but got 1"):
        to_huggingface(from_ast(published.empty(single)))
    (tmp_path / "full").mkdir()
    with pytest.raises(ValueError, match=r"full: must not exist yet"):
        write_folder(tmp_path / "full", weights)


def test_a_folder_that_cannot_be_read_says_why(tmp_path):
    folder = tmp_path / "folder"
    with pytest.raises(ValueError, match=r"config.json: must be a readable JSON file"):
        read_folder(folder)
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ValueError, match=r"model_type must be 'audio-spec.*', but got 'vit'"):
        read_folder(folder)
    config = {"model_type": "audio-spectrogram-transformer"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"model.safetensors: must be a file, but is not"):
        read_folder(folder)
    with pytest.raises(ValueError, match=r"hidden_act must be 'gelu', but got 'relu'"):
        from_huggingface({}, {"hidden_act": "relu"})
    with pytest.raises(ValueError, match=r"patch_size must be a whole number .* but got \[16, 8\]"):
        from_huggingface({}, {"patch_size": [16, 8]})
