import json
import pickle
from argparse import Namespace
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from asit_core.checkpoint import Checkpoint, save_checkpoint
from asit_core.interop import ModelWeights, load_any, save_model
from asit_core.model_file import load, read_model
from asit_core.pretrainer import PretextConfig, PretrainConfig, Pretrainer
from asit_core.seeding import stream
from asit_core.spectrogram import LOG_MEL_FLOOR, LogMelConfig

FRONT_END = LogMelConfig(sample_rate_hz=16000, num_mel_bins=16)


def _to_json(value):
    return json.loads(json.dumps(value))


@pytest.fixture(scope="module")
def pretrainer(micro_config: PretrainConfig) -> Pretrainer:
    """Student and teacher differ, as after a step."""
    pretrainer = Pretrainer(micro_config, seed=0)
    with torch.no_grad():
        pretrainer.student.encoder.cls_token.fill_(1.0)
    return pretrainer


def _pretrain_checkpoint(pretrainer: Pretrainer, **meta) -> Checkpoint:
    """As the training loop writes it."""
    tensors = {f"model.{name}": value for name, value in pretrainer.state_dict().items()}
    return Checkpoint(
        {**tensors, "optimizer.0.exp_avg": torch.zeros(3)},
        {
            "kind": "pretrain",
            "seed": 0,
            "config": _to_json(asdict(pretrainer.config)),
            "normalization": {"mean": -6.0, "std": 3.0},
            "history": [],
            **meta,
        },
    )


def _model_file(pretrainer: Pretrainer, **meta) -> Checkpoint:
    encoder = pretrainer.encoder
    tensors = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    return Checkpoint(
        tensors,
        {
            "kind": "encoder",
            "encoder": _to_json(asdict(encoder.config)),
            "input_frames": 32,
            "front_end": asdict(FRONT_END),
            "normalization": {"mean": -6.0, "std": 3.0},
            **meta,
        },
    )


@pytest.mark.parametrize("kind", ["encoder", "classifier", "pretrain"])
def test_a_model_is_what_was_saved(tmp_path, pretrainer, kind):
    if kind == "pretrain":
        saved = _pretrain_checkpoint(pretrainer, front_end=asdict(FRONT_END))
    else:
        saved = _model_file(pretrainer, kind=kind)
    if kind == "classifier":
        shapes = {"0.weight": (16,), "0.bias": (16,), "1.weight": (5, 16), "1.bias": (5,)}
        saved.tensors.update({f"head.{name}": torch.zeros(s) for name, s in shapes.items()})
    save_checkpoint(tmp_path / "model.safetensors", saved)
    state = torch.get_rng_state()
    model = load(str(tmp_path / "model.safetensors"))
    assert torch.equal(state, torch.get_rng_state())
    assert (model.mean, model.std, model.pad_value) == (-6.0, 3.0, LOG_MEL_FLOOR)
    assert model.log_mel.config == FRONT_END
    assert not model.training
    log_mel_BTF = torch.randn(2, 32, 16, generator=stream(0, "input"))
    assert pretrainer.teacher is not None
    expected = pretrainer.teacher.encoder(log_mel_BTF)
    assert torch.equal(model.encoder(log_mel_BTF), expected)
    assert not torch.equal(pretrainer.student.encoder(log_mel_BTF), expected)
    waveform = 0.1 * torch.randn(16000, generator=stream(0, "sound"))
    assert model.embed(waveform, 16000).clip_vector.shape == (16,)


def test_opens_what_the_converters_save(tmp_path, pretrainer):
    encoder = pretrainer.encoder
    weights = ModelWeights(
        tensors={f"encoder.{name}": value for name, value in encoder.state_dict().items()},
        encoder=encoder.config,
        input_frames=32,
        front_end=FRONT_END,
        mean=-5.0,
        std=2.0,
        pad_value=0.0,
        source="asit",
    )
    save_model(tmp_path / "model.safetensors", weights)
    model = load(tmp_path / "model.safetensors")
    assert (model.mean, model.std, model.pad_value) == (-5.0, 2.0, 0.0)
    assert model.encoder.config == encoder.config
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, encoder.state_dict()[name])


def test_without_a_teacher_the_student_is_loaded(tmp_path, micro_config):
    config = replace(
        micro_config, pretext=PretextConfig(reconstruction=micro_config.pretext.reconstruction)
    )
    pretrainer = Pretrainer(config, seed=0)
    assert pretrainer.teacher is None
    saved = _pretrain_checkpoint(pretrainer, front_end=asdict(FRONT_END))
    save_checkpoint(tmp_path / "model.safetensors", saved)
    loaded = load(tmp_path / "model.safetensors").encoder.state_dict()
    for name, value in pretrainer.student.encoder.state_dict().items():
        assert torch.equal(loaded[name], value)


def test_a_checkpoint_without_a_front_end_asks_for_one(tmp_path, pretrainer):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, _pretrain_checkpoint(pretrainer))
    with pytest.raises(
        ValueError, match=r"holds no front end; pass front_end=LogMelConfig\(\.\.\."
    ):
        load(path)
    assert load(path, front_end=FRONT_END).log_mel.config == FRONT_END


def test_another_front_end_than_the_files_is_refused(tmp_path, pretrainer):
    """H11: 16 kHz weights and statistics never meet a 32 kHz front end."""
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, _model_file(pretrainer))
    assert load(path, front_end=FRONT_END).log_mel.config == FRONT_END
    with pytest.raises(ValueError, match="but got sample_rate_hz 32000 for 16000; leave it out"):
        load(path, front_end=replace(FRONT_END, sample_rate_hz=32000))


def test_padding_is_what_the_model_was_trained_on(tmp_path, pretrainer):
    """H9: AST's zero after a short clip is no silence."""
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, _model_file(pretrainer, pad_value=0.0))
    assert load(path).pad_value == 0.0
    saved = _pretrain_checkpoint(pretrainer, front_end=asdict(FRONT_END))
    saved.meta["config"]["views"]["padding"] = "zero"
    save_checkpoint(path, saved)
    assert load(path).pad_value == 0.0


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        (
            {"kind": "optimizer"},
            "kind must be encoder, classifier or pretrain, but got 'optimizer'",
        ),
        ({"kind": None}, "kind must be .* but got None"),
        (
            {"encoder": {"embed_dim": 16, "width": 3}},
            "encoder must hold known keys only, .*'width'",
        ),
        ({"encoder": {"embed_dim": 16}}, "encoder: .*missing"),
        ({"front_end": {"sample_rate_hz": 0}}, "front_end: sample_rate_hz must be > 0, but got 0"),
        ({"front_end": {"num_mel_bins": 64}}, "num_mel_bins must be 16, .* but got 64"),
        ({"normalization": {"mean": 0.0}}, "metadata must hold 'std', but does not"),
        ({"normalization": None}, "normalization must be an object, but got None"),
        ({"normalization": {"mean": "x", "std": 1}}, "mean must be a number, but got 'x'"),
        ({"input_frames": "1"}, "input_frames must be a whole number, but got '1'"),
        ({"encoder": []}, r"encoder must be an object, but got \[\]"),
        ({"encoder": {"embed_dim": "16"}}, "encoder: embed_dim must be .*int.*, but got '16'"),
        ({"label_names": "dog"}, "label_names must be a list or null, but got 'dog'"),
        ({"kind": "classifier", "pool": "max"}, "pool must be one of mean, .* but got 'max'"),
        ({"kind": "classifier"}, "head.1.weight must have 2 dimensions, but is missing"),
        ({"kind": "pretrain"}, "metadata must hold 'config', but does not"),
        ({"kind": "pretrain", "config": {"views": 1}}, "views must be an object, but got 1"),
        ({"input_frames": 3}, "input_frames must be at least patch_frames .* but got 3"),
        ({"input_frames": 64}, r"encoder.pos_embed must have shape \(1, 17, 16\), but has \(1, 9,"),
    ],
    ids=str,
)
def test_a_damaged_model_file_says_what_is_wrong(tmp_path, pretrainer, meta, message):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, _model_file(pretrainer, **meta))
    for read in (load, read_model):
        with pytest.raises(ValueError, match=message) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_missing_and_unknown_weights_are_named(tmp_path, pretrainer):
    path = tmp_path / "model.safetensors"
    saved = _model_file(pretrainer)
    bias = saved.tensors.pop("encoder.norm.bias")
    save_checkpoint(path, saved)
    with pytest.raises(ValueError, match=r"encoder.norm.bias must have .* but is missing"):
        load(path)
    saved.tensors.update({"encoder.norm.bias": bias, "encoder.norm.gain": bias.clone()})
    save_checkpoint(path, saved)
    with pytest.raises(ValueError, match=r"must be the model's only, but got 'encoder.norm.gain'"):
        load(path)


def _names(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(1) for name in names}


ASIT = {
    "student": _names("module.backbone.patch_embed.proj.weight", "module.head_recons.mlp.0.weight"),
    "teacher": _names("backbone.patch_embed.proj.weight"),
    "args": Namespace(lr=0.1),
}
SSAST = _names("module.mask_embed", "module.p_input_fdim", "module.v.patch_embed.proj.weight")
AST = _names("module.v.patch_embed.proj.weight", "module.mlp_head.0.weight")
HUGGING_FACE = _names("audio_spectrogram_transformer.embeddings.cls_token")
TIMM = _names("patch_embed.proj.weight", "cls_token")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("content", "looks"),
    [
        (ASIT, "a training checkpoint of the released ASiT program"),
        (SSAST, "an SSAST checkpoint"),
        (AST, "an AST or fine-tuned SSAST checkpoint, whose keys are the same"),
        (HUGGING_FACE, "a Hugging Face AST model"),
        (TIMM, "ImageNet ViT or DeiT weights of timm"),
        ({"weights": 1.0}, r"a PyTorch checkpoint \(pickle\)"),
    ],
    ids=["asit", "ssast", "ast", "hugging-face", "timm", "unknown"],
)
def test_another_programs_checkpoint_is_named_with_the_command(tmp_path, content, looks, legacy):
    path = tmp_path / "theirs.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    command = f"`asit convert {path} MODEL.safetensors --to asit`"
    with pytest.raises(ValueError, match=f"looks like {looks}; convert it: ") as caught:
        load(path)
    assert command in str(caught.value)


def test_nothing_in_a_foreign_pickle_is_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    path = tmp_path / "trap.bin"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="looks like a PyTorch checkpoint"):
        load(path)
    assert not (tmp_path / "sprung").exists()


def test_safetensors_and_folders_of_others(tmp_path):
    save_file(HUGGING_FACE, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="looks like a Hugging Face AST model"):
        load(tmp_path / "model.safetensors")
    save_file(_names("weight"), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="looks like a safetensors file of another program"):
        load(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="must be a model file, but is a folder; give") as caught:
        load(tmp_path)
    assert "asit convert" not in str(caught.value)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="looks like a Hugging Face folder; convert it"):
        load(tmp_path)


def test_what_is_no_model_at_all(tmp_path):
    with pytest.raises(ValueError, match=r"none\.safetensors: is not a file; check the path"):
        load(tmp_path / "none.safetensors")
    for content in (b"", b"RIFF....WAVE", b"\x00" * 100):
        (tmp_path / "sound.wav").write_bytes(content)
        with pytest.raises(ValueError, match=r"sound\.wav: must be a readable checkpoint"):
            load(tmp_path / "sound.wav")


def test_a_path_that_the_system_refuses_is_an_error_of_one_line(tmp_path):
    for read in (load, load_any):
        with pytest.raises(ValueError, match=r"x: must be readable, but: .*too long"):
            read(tmp_path / (300 * "x"))
