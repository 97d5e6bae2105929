import json
import os
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from asit_core.checkpoint import (
    FORMAT_VERSION,
    Checkpoint,
    flatten_optimizer,
    load_checkpoint,
    load_meta,
    restore_optimizer,
    save_checkpoint,
)
from asit_core.initialization import initialize
from asit_core.optim import OptimizerConfig, make_optimizer, schedule_optimizer
from asit_core.seeding import stream

CONFIG = OptimizerConfig(lr_per_256=0.1, warmup_ratio=0.0)


def _model() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    initialize(model, seed=0)
    return model


def _train(model: nn.Sequential, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad(set_to_none=True)
        model(torch.randn(5, 3, generator=stream(step, "test"))).square().sum().backward()
        if step < 2:  # as a last layer that is frozen at first: it has no state yet
            model[2].zero_grad(set_to_none=True)
        schedule_optimizer(optimizer, CONFIG, step=step, total_steps=10, batch_size=256)
        optimizer.step()


def test_tensors_and_meta_round_trip(tmp_path):
    checkpoint = Checkpoint(
        {
            "fp32": torch.randn(3, 4, generator=stream(0, "test")),
            "bf16": torch.ones(2, dtype=torch.bfloat16),
            "scalar": torch.tensor(7, dtype=torch.int64),
            "transposed": torch.arange(6).reshape(2, 3).T,
            "empty": torch.zeros(0, 3),
        },
        {"kind": "test", "history": [{"loss": 0.1}, {"loss": float("inf")}], "name": "ü"},
    )
    path = tmp_path / "new" / "folder" / "checkpoint.safetensors"
    save_checkpoint(path, checkpoint)
    loaded = load_checkpoint(path)
    assert loaded.meta == checkpoint.meta
    assert loaded.tensors.keys() == checkpoint.tensors.keys()
    for name, value in checkpoint.tensors.items():
        assert loaded.tensors[name].dtype == value.dtype
        assert torch.equal(loaded.tensors[name], value)
    save_checkpoint(path, loaded)
    assert load_checkpoint(path).meta == checkpoint.meta
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("steps_before", [1, 4])
def test_a_restored_optimizer_goes_on_bit_for_bit(tmp_path, steps_before):
    whole = _model()
    optimizer = make_optimizer(whole, CONFIG)
    _train(whole, optimizer, range(8))

    model = _model()
    optimizer = make_optimizer(model, CONFIG)
    _train(model, optimizer, range(steps_before))
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, Checkpoint({**model.state_dict(), **flatten_optimizer(optimizer)}, {}))

    loaded = load_checkpoint(path).tensors
    resumed = _model()
    optimizer = make_optimizer(resumed, CONFIG)
    resumed.load_state_dict({name: loaded[name] for name in resumed.state_dict()})
    restore_optimizer(optimizer, loaded)
    _train(resumed, optimizer, range(steps_before, 8))
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_a_failing_write_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    old = Checkpoint({"weight": torch.ones(3)}, {"epoch": 1})
    save_checkpoint(path, old)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # a full disk
    try:
        with pytest.raises(OSError, match=r"checkpoint\.safetensors: must be writable, but: "):
            save_checkpoint(path, Checkpoint({"weight": torch.ones(100_000)}, {"epoch": 2}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(TypeError):
        save_checkpoint(path, Checkpoint({}, {"epoch": object()}))
    assert load_checkpoint(path).meta == old.meta
    assert torch.equal(load_checkpoint(path).tensors["weight"], torch.ones(3))
    assert os.listdir(tmp_path) == [path.name]


def _whole_file(folder: Path) -> bytes:
    save_checkpoint(folder / "whole", Checkpoint({"weight": torch.ones(100)}, {"epoch": 1}))
    return (folder / "whole").read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:20],
        lambda content: content[:-1],
        lambda content: b"\xff" * 8 + content[8:],
        lambda content: content[:8] + b"?" + content[9:],
    ],
    ids=["empty", "cut in the header", "one byte short", "wrong length", "wrong header"],
)
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(damage(_whole_file(tmp_path)))
    with pytest.raises(ValueError, match=r"damaged\.safetensors: must be a readable checkpoint"):
        load_checkpoint(path)


def test_what_is_not_a_file_is_named(tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(ValueError, match=f"{path}: must be a readable checkpoint, but: "):
            load_checkpoint(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_foreign_safetensors_file_is_refused(tmp_path, metadata):
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.ones(3)}, path, metadata=metadata)
    with pytest.raises(ValueError, match=r"foreign\.safetensors: must be an asit checkpoint"):
        load_checkpoint(path)


def test_a_newer_version_is_refused(tmp_path):
    path = tmp_path / "newer.safetensors"
    header = json.dumps({"version": FORMAT_VERSION + 1})
    save_file({"weight": torch.ones(3)}, path, metadata={"asit": header})
    with pytest.raises(
        ValueError, match=rf"newer\.safetensors: version must be at most {FORMAT_VERSION}, but got"
    ):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{}", "version must be a whole number, but got None"),
        ('{"version": "1"}', "version must be a whole number, but got '1'"),
        ('{"version": true}', "version must be a whole number, but got True"),
        ("[]", "asit metadata must be a JSON object, but is a list"),
        ("1.0", "asit metadata must be a JSON object, but is a float"),
        ("{version", "asit metadata must be JSON, but: .*line 1"),
        ("", "asit metadata must be JSON, but: "),
    ],
)
@pytest.mark.parametrize("read", [load_checkpoint, load_meta])
def test_a_damaged_header_is_one_line_with_the_path(tmp_path, header, message, read):
    path = tmp_path / "bad.safetensors"
    save_file({"weight": torch.ones(3)}, path, metadata={"asit": header})
    with pytest.raises(ValueError, match=rf"bad\.safetensors: {message}") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_tied_tensors_are_saved_apart(tmp_path):
    """Safetensors refuses tensors that share memory: whole ones and parts of one."""
    weight = torch.arange(6.0).reshape(2, 3)
    tensors = {"weight": weight, "tied": weight, "first": weight[:1], "last": weight[1:]}
    save_checkpoint(tmp_path / "tied", Checkpoint(tensors, {}))
    loaded = load_checkpoint(tmp_path / "tied").tensors
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())


def test_the_description_is_read_without_the_tensors(tmp_path):
    save_checkpoint(tmp_path / "x", Checkpoint({"weight": torch.ones(3)}, {"kind": "test"}))
    assert load_meta(tmp_path / "x") == {"kind": "test"}
    with pytest.raises(ValueError, match="missing: must be a readable checkpoint, but: "):
        load_meta(tmp_path / "missing")
