"""Says what a file or folder holds, by the names of its tensors."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from safetensors import SafetensorError, safe_open

from asit_core.checkpoint import load_checkpoint
from asit_core.interop.files import read_foreign, tensors_of
from asit_core.interop.timm_names import without_wrappers

Layout = Literal["model", "pretrain", "asit", "ssast", "ast", "ast_or_ssast", "hf", "imagenet"]

DESCRIPTIONS: dict[Layout, str] = {
    "model": "a model file of asit",
    "pretrain": "a pre-training checkpoint of asit",
    "asit": "a training checkpoint of the released ASiT program",
    "ssast": "an SSAST checkpoint",
    "ast": "an AST checkpoint",
    "ast_or_ssast": "an AST or fine-tuned SSAST checkpoint, whose keys are the same",
    "hf": "a Hugging Face AST folder",
    "imagenet": "ImageNet ViT or DeiT weights of timm",
}

_SQUARE = (16, 16)  # AST has no other patches


class Found(NamedTuple):
    """What a path holds; `content` of other programs' files, read."""

    layout: Layout
    content: Any


def detect(path: Path) -> Found:
    """Opens a file or folder and says what it is.

    Raises:
        ValueError: If it is missing, damaged, or nothing that is known here.
    """
    if path.is_dir():
        if (path / "config.json").is_file():
            return Found("hf", None)
        raise ValueError(f"{path}: must be a file, or a folder with config.json, but is neither")
    if _is_ours(path):
        kind = load_checkpoint(path).meta.get("kind")
        return Found("pretrain" if kind == "pretrain" else "model", None)
    content = read_foreign(path)
    layout = layout_of(content)
    if layout == "hf":
        raise ValueError(f"{path}: must come with its config.json; give the folder {path.parent}")
    if layout is None:
        names = sorted(tensors_of(content) or (content if isinstance(content, Mapping) else ()))
        held = f"{names[0]!r} and {len(names) - 1} more" if names else "no tensors"
        raise ValueError(
            f"{path}: must be of a known layout ({', '.join(DESCRIPTIONS.values())}), "
            f"but holds {held}"
        )
    return Found(layout, content)


def layout_of(content: Any) -> Layout | None:
    """Which program wrote what `read_foreign` gave; None if it is not known."""
    if not isinstance(content, Mapping):
        return None
    for network in ("teacher", "student"):
        if isinstance(content.get(network), Mapping):
            return layout_of(content[network])
    state = without_wrappers(tensors_of(content))
    names: Collection[str] = state.keys()
    if "backbone.pos_embed" in names:
        return "asit"
    if "v.pos_embed" in names:
        if "p_input_fdim" in names or "mask_embed" in names:
            return "ssast"
        kernel = state.get("v.patch_embed.proj.weight")
        is_square = kernel is not None and tuple(kernel.shape[2:]) == _SQUARE
        return "ast_or_ssast" if is_square and "v.dist_token" in names else "ssast"
    if any(name.endswith("embeddings.distillation_token") for name in names):
        return "hf"
    if "patch_embed.proj.weight" in names and "pos_embed" in names:
        return "imagenet"
    return None


def _is_ours(path: Path) -> bool:
    try:
        with safe_open(path, "pt") as file:
            return "asit" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False
