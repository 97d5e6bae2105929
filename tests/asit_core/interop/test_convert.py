"""`convert` on files as the programs write them: what they look like, what is missing, safely."""

import argparse
import dataclasses
import json
import os
import re

import pytest
import torch
from safetensors.torch import save_file

from asit_core import seeding
from asit_core.checkpoint import Checkpoint, save_checkpoint
from asit_core.interop import DESCRIPTIONS, ImportOptions, convert, load_any, read_model, save_model
from asit_core.interop.files import read_foreign
from asit_core.interop.layouts import layout_of
from asit_core.model_file import load
from asit_core.pretrainer import Pretrainer
from asit_core.spectrogram import LogMelConfig


@pytest.fixture
def files(published, tmp_path):
    """One file of each of the other programs, two blocks deep."""
    ssast = published.drawn(
        published.ssast_shapes(192, depth=2, num_patches=8 * 4), p_input_fdim=128, p_input_tdim=64
    )
    fine_tuned = published.drawn(
        published.ssast_shapes(192, depth=2, num_patches=144, num_classes=3)
    )
    framed = published.drawn(
        published.ssast_shapes(192, depth=2, patch=(2, 128), num_patches=127, num_classes=3)
    )
    asit = published.drawn(published.asit_shapes(192, depth=2, num_patches=8 * 4))
    contents = {
        "ssast.pth": ssast,
        "fine_tuned.pth": fine_tuned,
        "framed.pth": framed,
        "asit.pth": {
            "student": {f"module.{name}": tensor for name, tensor in asit.items()},
            "teacher": asit,
            "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1.0}]},
            "epoch": 1,
            "args": argparse.Namespace(data_path="x", lr=1e-3, drop_replace=None),
            "loss_cls": {"center": torch.zeros(1, 8192)},
            "loss_data": {"center": torch.zeros(1, 1, 1024)},
            "fp16_scaler": {"scale": 65536.0},
        },
        "deit.pth": {
            "model": published.drawn(
                published.vit_shapes(192, depth=2, kernel=(3, 16, 16), num_patches=9, num_cls=2)
            )
        },
    }
    for name, content in contents.items():
        torch.save(content, tmp_path / name)
    return tmp_path


LAYOUTS = {
    "ssast.pth": ("ssast", ImportOptions()),
    "fine_tuned.pth": ("ast", ImportOptions(layout="ast")),
    "framed.pth": ("ssast", ImportOptions()),
    "asit.pth": ("asit", ImportOptions(network="student")),
    "deit.pth": ("imagenet", ImportOptions(input_frames=64, channels="mean")),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_becomes_a_model_file_that_opens(files, name):
    layout, options = LAYOUTS[name]
    out = files / "out" / "model.safetensors"
    done = convert(files / name, out, to="asit", options=options)
    assert done.layout == layout
    guessed = {"fine_tuned.pth": "8 rows x 18 columns", "framed.pth": "127 columns (stride 2)"}
    assert len(done.notes) == (name in guessed)
    assert all(guessed[name] in note for note in done.notes)
    reread = read_model(out)
    assert reread.tensors.keys() == done.weights.tensors.keys()
    direct, ours = load_any(files / name, options), load_any(out)
    frames = direct.encoder.input_frames
    log_mel = torch.randn(2, frames, 128, generator=seeding.stream(0, "log_mel"))
    assert torch.equal(direct.encoder(log_mel), ours.encoder(log_mel))
    assert (direct.classifier is None) == (ours.classifier is None)
    if direct.classifier is not None and ours.classifier is not None:
        assert torch.equal(direct.classifier(log_mel), ours.classifier(log_mel))
    model = load(out)
    assert model.log_mel.config == direct.front_end
    assert (model.mean, model.std, model.pad_value) == (direct.mean, direct.std, direct.pad_value)
    assert torch.equal(model.encoder(log_mel), direct.encoder(log_mel))


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_foreign_file_is_named_with_the_command_that_converts_it(files, name):
    with pytest.raises(ValueError, match=rf"looks like .*`asit convert {files / name} .* asit`"):
        load(files / name)


@pytest.mark.parametrize("network", ["teacher", "student"])
def test_our_own_pretraining_becomes_a_model_file(tmp_path, micro_config, network):
    """The teacher's encoder, which is what was evaluated, or the student's where it is alone."""
    if network == "student":
        tasks = dataclasses.replace(
            micro_config.pretext, patch_distillation=None, clip_distillation=None
        )
        micro_config = dataclasses.replace(
            micro_config, pretext=tasks, projection_head=None, teacher=None
        )
    pretrainer = Pretrainer(micro_config, seed=0)
    with torch.no_grad():
        pretrainer.student.encoder.pos_embed.add_(1.0)
    front_end = LogMelConfig(sample_rate_hz=8000, num_mel_bins=16)
    checkpoint = Checkpoint(
        {f"model.{name}": tensor for name, tensor in pretrainer.state_dict().items()},
        {
            "kind": "pretrain",
            "config": dataclasses.asdict(micro_config),
            "normalization": {"mean": -3.0, "std": 2.0},
            "front_end": dataclasses.asdict(front_end),
        },
    )
    save_checkpoint(tmp_path / "last.safetensors", checkpoint)
    done = convert(tmp_path / "last.safetensors", tmp_path / "model.safetensors", to="asit")
    assert done.layout == "pretrain"
    loaded = load_any(tmp_path / "model.safetensors")
    assert loaded.encoder.config == micro_config.encoder
    assert (loaded.front_end, loaded.mean, loaded.std) == (front_end, -3.0, 2.0)
    expected = pretrainer.encoder.state_dict()
    assert all(torch.equal(t, expected[name]) for name, t in loaded.encoder.state_dict().items())


def test_ast_and_fine_tuned_ssast_must_be_told_apart(files):
    path = files / "fine_tuned.pth"
    with pytest.raises(ValueError, match=r"layout must be ast .* or ssast .* but got none; give"):
        load_any(path)
    ast, ssast = (load_any(path, ImportOptions(layout=layout)) for layout in ("ast", "ssast"))
    assert ast.classifier is not None
    assert ssast.classifier is not None
    assert (ast.classifier.pool, ssast.classifier.pool) == ("class_tokens", "mean")
    log_mel = torch.randn(2, 128, 128, generator=seeding.stream(0, "log_mel"))
    assert torch.equal(ast.encoder(log_mel), ssast.encoder(log_mel))


def test_a_head_can_be_left_out_and_statistics_put_right(files):
    options = ImportOptions(layout="ast", drop_head=True, mean=-6.8, std=5.5, sample_rate_hz=8000)
    loaded = load_any(files / "fine_tuned.pth", options)
    assert loaded.classifier is None
    assert (loaded.mean, loaded.std, loaded.front_end.sample_rate_hz) == (-6.8, 5.5, 8000)


def test_options_that_decide_nothing_are_refused(files):
    with pytest.raises(ValueError, match=r"network must be left out for an SSAST checkpoint"):
        load_any(files / "ssast.pth", ImportOptions(network="student"))
    with pytest.raises(ValueError, match=r"layout must be left out for a training checkpoint of"):
        load_any(files / "asit.pth", ImportOptions(layout="ast"))
    with pytest.raises(ValueError, match=r"ssast.pth: input_bins must be left out, as a pre-tr"):
        load_any(files / "ssast.pth", ImportOptions(input_bins=64))
    with pytest.raises(ValueError, match=r"std finite and above 0, but got .* and 0.0"):
        load_any(files / "ssast.pth", ImportOptions(std=0.0))
    with pytest.raises(ValueError, match=r"ssast.pth: drop_head must be left out for a model"):
        load_any(files / "ssast.pth", ImportOptions(drop_head=True))
    with pytest.raises(ValueError, match=r"pool must be left out for an AST checkpoint"):
        load_any(files / "fine_tuned.pth", ImportOptions(layout="ast", pool="mean"))
    for number in (0, 8):
        with pytest.raises(ValueError, match=rf"input_bins must be at least 16 .* got {number}"):
            load_any(files / "fine_tuned.pth", ImportOptions(layout="ast", input_bins=number))


def test_nothing_is_written_over_and_no_target_invented(files):
    out = files / "taken"
    out.write_text("mine")
    with pytest.raises(ValueError, match=r"taken: must not exist yet"):
        convert(files / "ssast.pth", out, to="asit")
    assert out.read_text() == "mine"
    with pytest.raises(ValueError, match=r"to must be one of asit, hf, but got 'onnx'"):
        convert(files / "ssast.pth", files / "new", to="onnx")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"asit.pth: num_cls_tokens must be 2 for Hugging Face"):
        convert(files / "asit.pth", files / "new", to="hf")
    assert not (files / "new").exists()
    assert not list(files.glob(".new*"))


def test_an_export_says_what_it_does_otherwise(files):
    done = convert(
        files / "fine_tuned.pth", files / "hf", to="hf", options=ImportOptions(layout="ast")
    )
    assert [re.findall(r"^took|LayerNorm|mean first", note)[0] for note in done.notes] == [
        "took",
        "LayerNorm",
        "mean first",
    ]
    weights = dataclasses.replace(
        done.weights,
        pad_value=-15.5,
        tensors={**done.weights.tensors, "pretext.mask": torch.zeros(1)},
        notes=(),
    )
    save_model(files / "ours", weights)
    notes = convert(files / "ours", files / "hf2", to="hf").notes
    assert any("with log-mels of 0, this model's training with -15.5" in note for note in notes)
    assert any("pre-training tasks is left out" in note for note in notes)


class _Bomb:
    def __reduce__(self):
        return os.mkdir, (os.environ["ASIT_TEST_BOMB"],)


def test_a_pickle_from_a_stranger_runs_nothing(tmp_path, monkeypatch):
    """H15: weights only, with argparse's namespace allowed."""
    crater = tmp_path / "crater"
    monkeypatch.setenv("ASIT_TEST_BOMB", str(crater))
    torch.save({"teacher": {"w": torch.zeros(1)}, "args": _Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(ValueError, match=r"bomb.pth: must hold tensors and plain .*mkdir"):
        load_any(tmp_path / "bomb.pth")
    assert not crater.exists()


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 broken", b"not a model", b"hello world\n", b"\x80\x02}q\x00."]
)
def test_a_file_that_is_no_model_says_so(tmp_path, content):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x.pth: must be (a checkpoint of PyTorch|of a known)"):
        load_any(path)


def test_what_is_not_there_or_of_no_known_layout(tmp_path):
    with pytest.raises(ValueError, match=r"gone.pth: must be a file, but is not"):
        load_any(tmp_path / "gone.pth")
    with pytest.raises(ValueError, match=r"must be a file, or a folder with config.json"):
        load_any(tmp_path)
    save_file({"fc.weight": torch.zeros(2), "fc.bias": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"layout \(a model file of.*'fc.bias' and 1 more"):
        load_any(tmp_path / "x.safetensors")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"known layout .* but holds no tensors"):
        load_any(tmp_path / "list.pth")
    save_checkpoint(tmp_path / "odd", Checkpoint({"w": torch.zeros(1)}, {"kind": "optimizer"}))
    with pytest.raises(ValueError, match=r"must be encoder, classifier or pretrain, but got 'opti"):
        load_any(tmp_path / "odd")
    save_file({"embeddings.distillation_token": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"must come with its config.json; give the folder"):
        load_any(tmp_path / "model.safetensors")


def test_every_layout_is_told_from_its_names(files):
    found = {
        name: layout_of(read_foreign(files / name))
        for name in ("ssast.pth", "fine_tuned.pth", "framed.pth", "asit.pth", "deit.pth")
    }
    assert found == {
        "ssast.pth": "ssast",
        "fine_tuned.pth": "ast_or_ssast",
        "framed.pth": "ssast",
        "asit.pth": "asit",
        "deit.pth": "imagenet",
    }
    assert set(found.values()) <= set(DESCRIPTIONS)


def _damaged_ast(published, **changed):
    shapes = published.ssast_shapes(192, depth=1, num_patches=1212, num_classes=3)
    return {**published.drawn(shapes), **{f"module.v.{k}": v for k, v in changed.items()}}


def _damaged(published, name):
    """Content of a file with one fault."""
    asit = published.drawn(published.asit_shapes(192, depth=1, num_patches=8))
    ssast = published.drawn(
        published.ssast_shapes(192, depth=1), p_input_fdim=128, p_input_tdim=1024
    )
    vit = published.drawn(
        published.vit_shapes(192, depth=1, kernel=(3, 16, 16), num_patches=9, num_cls=2)
    )
    kernel = "patch_embed.proj.weight"
    return {
        "flat positions": _damaged_ast(published, pos_embed=torch.zeros(5)),
        "flat kernel": _damaged_ast(published, **{kernel: torch.zeros(4, 4)}),
        "empty width": _damaged_ast(published, cls_token=torch.zeros(1, 1, 0)),
        "other distillation token": _damaged_ast(published, dist_token=torch.zeros(1, 1, 3)),
        "ASiT, flat kernel": {**asit, f"backbone.{kernel}": torch.zeros(4, 4)},
        "ImageNet, flat positions": {**vit, "pos_embed": torch.zeros(5)},
        "no centre": {"teacher": asit, "loss_cls": {"center": None}},
        "no tensor": {"teacher": {**asit, "backbone.extra": 3}},
        "no network": {"teacher": asit, "student": [1]},
        "two sizes": {**ssast, "module.p_input_fdim": torch.tensor([128, 128])},
        "flat head": {**ssast, "module.cpredlayer.2.bias": torch.tensor(1.0)},
    }[name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flat positions", r"pos_embed must have 3 dimensions.* but has \(5,\)"),
        ("flat kernel", r"patch_embed.proj.weight must have 4 dimensions.* but has \(4, 4\)"),
        ("empty width", r"cls_token must have 3 dimensions, none empty, but has \(1, 1, 0\)"),
        ("other distillation token", r"dist_token must have cls_token's shape"),
        ("ASiT, flat kernel", r"patch_embed.proj.weight must have 4 dimensions"),
        ("ImageNet, flat positions", r"pos_embed must have 3 dimensions"),
        ("no centre", r"loss_cls.center must be a tensor, but is a NoneType"),
        ("no tensor", r"backbone.extra must be a tensor, but is a int"),
        ("no network", r"student must be a state dict, but is a list"),
        ("two sizes", r"p_input_fdim must hold one number, but has shape \(2,\)"),
        ("flat head", r"cpredlayer.2.bias must have a row for each of 256 pixels"),
    ],
)
def test_a_damaged_checkpoint_is_one_line_with_the_fault(published, tmp_path, name, message):
    path = tmp_path / "x.pth"
    torch.save(_damaged(published, name), path)
    options = ImportOptions(
        layout="ast"
        if name in ("flat positions", "empty width", "other distillation token")
        else None,
        network="student" if name == "no network" else None,
    )
    with pytest.raises(ValueError, match=rf"x.pth: .*{message}") as caught:
        load_any(path, options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"id2label": None}, "id2label must map numbers to names, but got None"),
        ({"id2label": ["dog"]}, r"id2label must map numbers to names, but got \['dog'\]"),
        ({"hidden_size": 0}, "hidden_size must be a whole number of at least 1, but got 0"),
        ({"hidden_size": "768"}, "hidden_size must be a whole number .* but got '768'"),
        ({"layer_norm_eps": "x"}, "layer_norm_eps must be a number, but got 'x'"),
        ({"qkv_bias": 1}, "qkv_bias must be true or false, but got 1"),
        ({}, "must hold 'embeddings.cls_token', but does not"),
    ],
    ids=str,
)
def test_a_damaged_hugging_face_folder_is_one_line_too(tmp_path, changed, message):
    config = {"model_type": "audio-spectrogram-transformer", **changed}
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save([1, 2], tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=f"^{tmp_path}: .*{message}"):
        load_any(tmp_path)


def test_a_head_with_one_output_is_refused_before_it_is_written(published, tmp_path):
    shapes = published.ssast_shapes(192, depth=1, num_patches=1212, num_classes=1)
    torch.save(published.drawn(shapes), tmp_path / "one.pth")
    with pytest.raises(ValueError, match=r"at least 2 outputs, but has 1; .*--drop-head"):
        convert(
            tmp_path / "one.pth", tmp_path / "x", to="asit", options=ImportOptions(layout="ast")
        )
    options = ImportOptions(layout="ast", drop_head=True)
    assert load_any(tmp_path / "one.pth", options).classifier is None
