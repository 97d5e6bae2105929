import json
import re

import pytest
import torch
import typer
from typer.testing import CliRunner

from asit_core import seeding
from asit_core.interop import from_ast, load_any, read_model, save_model, to_ast
from asit_core.model_weights import ModelWeights
from asit_platform import cli
from asit_platform.convert import convert
from asit_platform.errors import PlatformError

APP = typer.Typer()
APP.command()(convert)


def _run(*arguments: object):
    return CliRunner().invoke(APP, [str(argument) for argument in arguments])


def _refused(*arguments: object) -> str:
    """The one line of a refusal."""
    result = _run(*arguments)
    assert isinstance(result.exception, PlatformError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


@pytest.fixture
def ast_file(tmp_path):
    """An AST as published, one block deep, on clips of 128 frames."""
    width, num_patches = 192, 144
    shapes = {
        "v.cls_token": (1, 1, width),
        "v.dist_token": (1, 1, width),
        "v.pos_embed": (1, num_patches + 2, width),
        "v.patch_embed.proj.weight": (width, 1, 16, 16),
        "v.patch_embed.proj.bias": (width,),
        "v.blocks.0.attn.qkv.weight": (3 * width, width),
        "v.blocks.0.attn.qkv.bias": (3 * width,),
        "v.blocks.0.attn.proj.weight": (width, width),
        "v.blocks.0.attn.proj.bias": (width,),
        "v.blocks.0.mlp.fc1.weight": (4 * width, width),
        "v.blocks.0.mlp.fc1.bias": (4 * width,),
        "v.blocks.0.mlp.fc2.weight": (width, 4 * width),
        "v.blocks.0.mlp.fc2.bias": (width,),
        "mlp_head.1.weight": (5, width),
        "mlp_head.1.bias": (5,),
    }
    for norm in ("v.blocks.0.norm1", "v.blocks.0.norm2", "v.norm", "mlp_head.0"):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    state = {
        f"module.{name}": 0.1 * torch.randn(shape, generator=seeding.stream(0, "ast", name))
        for name, shape in shapes.items()
    }
    path = tmp_path / "ast.pth"
    torch.save(state, path)
    return path


def test_a_checkpoint_becomes_a_model_file_and_a_folder(ast_file, tmp_path):
    model, folder = tmp_path / "new" / "ast.safetensors", tmp_path / "new" / "hf"
    result = _run(ast_file, model, "--to", "asit", "--layout", "ast")
    assert result.exit_code == 0, result.output
    shown = re.sub(r"  note: .*\n", "", result.output)
    assert shown == (
        f"{ast_file}: an AST checkpoint\n"
        "  1 block of width 192, 3 heads, 2 class tokens, 0.5 M parameters\n"
        "  patches of 16 frames x 16 bins, every 10 x 10: 12 x 12 of 128 frames\n"
        "  head: 5 classes on class_tokens\n"
        "  front end: 16000 Hz, 128 mel bins, mean -4.26774, std 4.569\n"
        f"{model}: written\n"
    )
    result = _run(model, folder, "--to", "hf", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert (summary["layout"], summary["to"], summary["dst"]) == ("model", "hf", str(folder))
    assert (summary["stride"], summary["grid"]) == ([10, 10], {"columns": 12, "rows": 12})
    assert (summary["num_classes"], summary["pool"]) == (5, "class_tokens")
    assert len(summary["notes"]) == 2
    first, last = load_any(model), load_any(folder)
    log_mel = torch.randn(2, 128, 128, generator=seeding.stream(0, "log_mel"))
    assert torch.equal(first.encoder(log_mel), last.encoder(log_mel))


def test_what_the_file_does_not_say_is_given_by_options(ast_file, tmp_path):
    out = tmp_path / "ast.safetensors"
    arguments = ["--layout", "ssast", "--mean", "-6.8", "--std", "5.5", "--sample-rate", "8000"]
    grid = ["--stride", "10x10", "--input-frames", "130", "--num-heads", "4", "--drop-head"]
    result = _run(ast_file, out, "--to", "asit", *arguments, *grid)
    assert result.exit_code == 0, result.output
    weights = read_model(out)
    assert (weights.mean, weights.std, weights.front_end.sample_rate_hz) == (-6.8, 5.5, 8000)
    assert (weights.input_frames, weights.encoder.num_heads, weights.pool) == (130, 4, None)
    assert weights.source == "ssast"


def test_a_refusal_is_one_line_with_the_remedy(ast_file, tmp_path):
    out = tmp_path / "out"
    assert "layout must be ast" in _refused(ast_file, out, "--to", "asit")
    assert "but got '10:10'" in _refused(ast_file, out, "--to", "asit", "--stride", "10:10")
    message = _refused(ast_file, out, "--to", "asit", "--layout", "ast", "--input-frames", "999")
    assert "none fits clips of 999 frames" in message
    assert "channels must be left out" in _refused(
        ast_file, out, "--to", "asit", "--layout", "ast", "--channels", "mean"
    )
    assert "must be a file, but is not" in _refused(tmp_path / "gone.pth", out, "--to", "asit")
    out.write_text("mine")
    assert "must not exist yet" in _refused(ast_file, out, "--to", "asit")
    assert "asit" in _run(ast_file, out, "--to", "onnx").output
    assert _run(ast_file, out, "--to", "onnx").exit_code == 2


def test_what_cannot_be_written_is_a_refusal_too(ast_file, tmp_path):
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "model.safetensors"
    assert "file" in _refused(ast_file, out, "--to", "asit", "--layout", "ast")


def test_the_command_makes_what_the_library_does(ast_file, tmp_path):
    state = torch.load(ast_file, weights_only=True)
    weights: ModelWeights = from_ast(state)
    save_model(tmp_path / "library.safetensors", weights)
    _run(ast_file, tmp_path / "command.safetensors", "--to", "asit", "--layout", "ast")
    library, command = (
        (tmp_path / f"{name}.safetensors").read_bytes() for name in ("library", "command")
    )
    assert library == command
    back = to_ast(read_model(tmp_path / "command.safetensors"))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize(
    "given",
    [["--layout", "ssast", "--pool", "mean", "--num-heads", "5"], ["--stride", "a"], []],
)
def test_a_refusal_ends_with_2_and_one_line(ast_file, tmp_path, capsys, given):
    assert cli.main(["convert", str(ast_file), str(tmp_path / "out"), "--to", "asit", *given]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_heads_pool_and_a_guessed_grid_are_shown(ast_file, tmp_path):
    out = tmp_path / "out"
    arguments = ("--layout", "ssast", "--pool", "class_tokens")
    result = _run(ast_file, out, "--to", "asit", *arguments)
    assert result.exit_code == 0, result.output
    assert read_model(out).pool == "class_tokens"
    assert "  note: took 12 rows x 12 columns (stride 10)" in result.output
    assert "8 rows x 18 columns (stride 16)" in result.output
