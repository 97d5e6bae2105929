"""Says which program wrote a model file that is not ours, without running anything in it."""

import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

_PICKLE_START = b"\x80"
_ZIP_START = b"PK\x03\x04"
# Parameter names that only one program gives, in the order to look for them.
_MARKS = (
    ("head_recons", "an ASiT training checkpoint"),
    ("p_input_fdim", "an SSAST checkpoint"),
    ("mask_embed", "an SSAST checkpoint"),
    ("audio_spectrogram_transformer", "Hugging Face AST weights"),
    ("encoder.layer.0.attention.attention", "Hugging Face AST weights"),
    ("v.patch_embed.proj", "an AST or fine-tuned SSAST checkpoint"),
    ("patch_embed.proj", "ImageNet ViT or DeiT weights of timm"),
)


def describe_foreign_file(path: Path) -> str | None:
    """What a file looks like.

    Returns:
        Such as `an SSAST checkpoint`; None for a file of ours, and for whatever cannot be told:
        opening that says what is wrong with it.

    Raises:
        ValueError: If there is nothing at `path`, or it cannot be opened.
    """
    if path.is_dir():
        is_hugging_face = (path / "config.json").is_file()
        return "a Hugging Face folder" if is_hugging_face else "a folder"
    if not path.is_file():
        raise ValueError(f"{path}: is not a file; check the path")
    try:
        with safe_open(path, "pt") as file:
            if "asit" in (file.metadata() or {}):
                return None
            return _describe_names(
                "\n".join(file.keys()), otherwise="a safetensors file of another program"
            )
    except (SafetensorError, OSError):
        pass  # only now: its header may begin with any byte, a pickle's too
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise ValueError(f"{path}: must be readable, but {error}; change its mode") from error
    if start == _ZIP_START or start[:1] == _PICKLE_START:
        return _describe_names(_pickled(path), otherwise="a PyTorch checkpoint (pickle)")
    return None


def _describe_names(text: str, *, otherwise: str) -> str:
    return next((words for mark, words in _MARKS if mark in text), otherwise)


def _pickled(path: Path) -> str:
    """The text of the pickle, which holds the parameters' names; it is read, never loaded."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return file.read(1 << 24).decode("latin-1")  # before torch 1.6: names come first
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        return "".join(archive.read(name).decode("latin-1") for name in names)
