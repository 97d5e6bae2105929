"""Says which program wrote a model file, by the names of its parameters, running nothing in it."""

import zipfile
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError, safe_open

from asit_core.checkpoint import is_checkpoint

Layout = Literal["model", "pretrain", "asit", "ssast", "ast", "ast_or_ssast", "hf", "imagenet"]

DESCRIPTIONS: dict[Layout, str] = {
    "model": "a model file of asit",
    "pretrain": "a pre-training checkpoint of asit",
    "asit": "a training checkpoint of the released ASiT program",
    "ssast": "an SSAST checkpoint",
    "ast": "an AST checkpoint",
    "ast_or_ssast": "an AST or fine-tuned SSAST checkpoint, whose keys are the same",
    "hf": "a Hugging Face AST model",
    "imagenet": "ImageNet ViT or DeiT weights of timm",
}

_PICKLE_START = b"\x80"
_ZIP_START = b"PK\x03\x04"
# Parts of parameters' names that only one program gives, in the order to look for them.
_MARKS: tuple[tuple[str, Layout], ...] = (
    ("backbone.patch_embed", "asit"),
    ("p_input_fdim", "ssast"),
    ("mask_embed", "ssast"),
    ("v.patch_embed", "ast_or_ssast"),
    ("embeddings.distillation_token", "hf"),
    ("audio_spectrogram_transformer", "hf"),
    ("patch_embed.proj", "imagenet"),
)


def layout_of_names(text: str) -> Layout | None:
    """Which program gives the parameter names that a text holds; None if it is not known."""
    return next((layout for mark, layout in _MARKS if mark in text), None)


def describe_foreign_file(path: Path) -> str | None:
    """What a file looks like.

    Returns:
        Such as `an SSAST checkpoint`; None for a file of ours, and for whatever cannot be told:
        opening that says what is wrong with it.

    Raises:
        ValueError: If there is nothing at `path`, a folder that is no model, or it cannot be
            opened.
    """
    try:
        if path.is_dir():
            if (path / "config.json").is_file():
                return "a Hugging Face folder"
            raise ValueError(f"{path}: must be a model file, but is a folder; give a file in it")
        if not path.is_file():
            raise ValueError(f"{path}: is not a file; check the path")
        return None if is_checkpoint(path) else _describe(path)
    except OSError as error:
        raise ValueError(f"{path}: must be readable, but: {error}; change its mode") from error


def _describe(path: Path) -> str | None:
    try:
        with safe_open(path, "pt") as file:
            names = "\n".join(file.keys())
    except SafetensorError:
        pass  # only now: a safetensors header may begin with any byte, a pickle's too
    else:
        return _describe_names(names, otherwise="a safetensors file of another program")
    with path.open("rb") as file:
        start = file.read(4)
    if start == _ZIP_START or start[:1] == _PICKLE_START:
        return _describe_names(_pickled(path), otherwise="a PyTorch checkpoint (pickle)")
    return None


def _describe_names(text: str, *, otherwise: str) -> str:
    layout = layout_of_names(text)
    return otherwise if layout is None else DESCRIPTIONS[layout]


def _pickled(path: Path) -> str:
    """The text of the pickle, which holds the parameters' names; it is read, never loaded."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return file.read(1 << 24).decode("latin-1")  # before torch 1.6: names come first
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        return "".join(archive.read(name).decode("latin-1") for name in names)
