"""`convert`: any layout that is known here -> our model file or a Hugging Face folder."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from asit_core.foreign_files import DESCRIPTIONS, Layout
from asit_core.interop.asit import Network, from_asit
from asit_core.interop.ast import from_ast
from asit_core.interop.files import tensors_of
from asit_core.interop.huggingface_folder import export_notes, read_folder, write_folder
from asit_core.interop.imagenet import Channels, from_imagenet
from asit_core.interop.layouts import detect
from asit_core.interop.ssast import SsastPool, from_ssast
from asit_core.model_file import read_model, save_model
from asit_core.model_weights import LoadedModel, ModelWeights, build

Target = Literal["asit", "hf"]

_GRID = ("num_heads", "input_frames", "stride", "input_bins")
_TAKES: dict[Layout, tuple[str, ...]] = {
    "model": (),
    "pretrain": (),
    "asit": ("network", "num_heads", "input_bins"),
    "ssast": (*_GRID, "pool"),
    "ast": _GRID,
    "hf": (),
    "imagenet": (*_GRID, "channels"),
}
_OF_EVERY_LAYOUT = ("layout", "sample_rate_hz", "mean", "std", "drop_head")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportOptions:
    """What a file does not say; None leaves it to the importer.

    Attributes:
        layout: `ast` or `ssast`, where the keys fit both.
        network: Of an ASiT checkpoint.
        num_heads: Attention heads; weights do not show them.
        input_frames: Length of the clips.
        stride: Frames and bins from patch to patch.
        input_bins: Mel bins.
        pool: What the head of a fine-tuned SSAST takes.
        channels: How the colours of ImageNet weights become one channel.
        sample_rate_hz: Of the front end, where it is not the program's.
        mean: Of the log-mels the model was trained on, where it is not AudioSet's.
        std: Their deviation, likewise.
        drop_head: Leave a classifier's head out; refused where there is none.
    """

    layout: Literal["ast", "ssast"] | None = None
    network: Network | None = None
    num_heads: int | None = None
    input_frames: int | None = None
    stride: tuple[int, int] | None = None
    input_bins: int | None = None
    pool: SsastPool | None = None
    channels: Channels | None = None
    sample_rate_hz: int | None = None
    mean: float | None = None
    std: float | None = None
    drop_head: bool = False


class Conversion(NamedTuple):
    """What was read and written."""

    layout: Layout
    weights: ModelWeights
    notes: list[str]


def convert(
    src: Path | str, dst: Path | str, *, to: Target, options: ImportOptions | None = None
) -> Conversion:
    """Turns a model of any known layout into one of ours, or into a Hugging Face folder.

    Args:
        src: File or folder.
        dst: File (`asit`) or folder (`hf`) to make; it must not exist.
        to: What to make.
        options: What the file does not say.

    Returns:
        What was found, its weights, what was guessed in reading them, and in which points the
        result differs from the source.

    Raises:
        ValueError: If `src` is of no known layout or does not fit its layout, an option is missing
            or idle, `dst` exists, or the target cannot hold the model.
        OSError: If it cannot be written.
    """
    src, dst = Path(src), Path(dst)
    if to not in ("asit", "hf"):
        raise ValueError(f"to must be one of asit, hf, but got {to!r}")
    if dst.exists():
        raise ValueError(f"{dst}: must not exist yet; remove it or choose another name")
    layout, weights = read_any(src, options)
    if to == "asit":
        save_model(dst, weights)
        return Conversion(layout, weights, [*weights.notes])
    try:
        write_folder(dst, weights)
    except ValueError as error:
        raise ValueError(f"{src}: {error}") from error
    return Conversion(layout, weights, [*weights.notes, *export_notes(weights)])


def load_any(path: Path | str, options: ImportOptions | None = None) -> LoadedModel:
    """Builds a model straight from a file or folder of any known layout.

    Raises:
        ValueError: As `convert`.
    """
    return build(read_any(Path(path), options)[1])


def read_any(path: Path, options: ImportOptions | None = None) -> tuple[Layout, ModelWeights]:
    """Detects the layout of a file or folder and reads it.

    Raises:
        ValueError: As `convert`.
    """
    options = options or ImportOptions()
    layout, content = detect(path)
    layout = _decide(path, layout, options)
    given = {
        name: value
        for name, value in asdict(options).items()
        if name not in _OF_EVERY_LAYOUT and value is not None
    }
    for name in given:
        if name not in _TAKES[layout]:
            raise ValueError(f"{path}: {name} must be left out for {DESCRIPTIONS[layout]}")
    match layout:
        case "model" | "pretrain":
            weights = read_model(path)
        case "hf":
            weights = read_folder(path)
        case _:
            try:
                weights = _from_content(layout, content, given)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
    try:
        return layout, _with_options(weights, options)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _from_content(layout: Layout, content: Any, given: dict[str, Any]) -> ModelWeights:
    match layout:
        case "asit":
            return from_asit(content, **given)
        case "ssast":
            return from_ssast(tensors_of(content), **given)
        case "imagenet":
            return from_imagenet(tensors_of(content), **given)
        case _:
            return from_ast(tensors_of(content), **given)


def _decide(path: Path, layout: Layout, options: ImportOptions) -> Layout:
    if layout == "ast_or_ssast":
        if options.layout is None:
            raise ValueError(
                f"{path}: layout must be ast (its head reads the class tokens) or ssast (the mean "
                f"of the patches) for {DESCRIPTIONS[layout]}, but got none; give layout"
            )
        return options.layout
    if options.layout is not None and options.layout != layout:
        raise ValueError(f"{path}: layout must be left out for {DESCRIPTIONS[layout]}")
    return layout


def _with_options(weights: ModelWeights, options: ImportOptions) -> ModelWeights:
    front_end = weights.front_end
    if options.sample_rate_hz is not None:
        front_end = replace(front_end, sample_rate_hz=options.sample_rate_hz)
    weights = replace(
        weights,
        front_end=front_end,
        mean=weights.mean if options.mean is None else options.mean,
        std=weights.std if options.std is None else options.std,
    )
    if not options.drop_head:
        if weights.num_classes == 1:
            raise ValueError(
                "its head must have at least 2 outputs, but has 1; leave it out with drop_head "
                "(--drop-head)"
            )
        return weights
    if weights.pool is None:
        raise ValueError("drop_head must be left out for a model without a head")
    tensors = {n: t for n, t in weights.tensors.items() if not n.startswith("head.")}
    return replace(weights, tensors=tensors, pool=None, label_names=None)
