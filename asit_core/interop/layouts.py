"""Says what a file or folder holds, by the names of its tensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from asit_core.checkpoint import is_checkpoint, load_meta
from asit_core.foreign_files import DESCRIPTIONS, Layout, layout_of_names
from asit_core.interop.files import read_foreign, tensors_of
from asit_core.interop.timm_names import without_wrappers

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
    try:
        if path.is_dir():
            if (path / "config.json").is_file():
                return Found("hf", None)
            raise ValueError(
                f"{path}: must be a file, or a folder with config.json, but is neither"
            )
        if is_checkpoint(path):
            return Found("pretrain" if load_meta(path).get("kind") == "pretrain" else "model", None)
        content = read_foreign(path)
    except OSError as error:
        raise ValueError(f"{path}: must be readable, but: {error}") from error
    layout = layout_of(content)
    if layout == "hf":
        raise ValueError(f"{path}: must come with its config.json; give the folder {path.parent}")
    if layout is None:
        keys = tensors_of(content) or (content if isinstance(content, Mapping) else ())
        names = sorted(map(str, keys))
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
    layout = layout_of_names("\n".join(state))
    if layout == "ast_or_ssast":
        kernel = state.get("v.patch_embed.proj.weight")
        is_square = kernel is not None and tuple(kernel.shape[2:]) == _SQUARE
        return layout if is_square and "v.dist_token" in state else "ssast"
    return layout
