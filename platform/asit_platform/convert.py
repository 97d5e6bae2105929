"""`asit convert`: another program's model -> a model file of ours, or a Hugging Face folder."""

import json
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from asit_core.interop import (
    DESCRIPTIONS,
    Channels,
    Conversion,
    ImportOptions,
    Network,
    SsastPool,
    Target,
)
from asit_core.interop import convert as convert_model
from asit_platform.errors import PlatformError
from asit_platform.words import plural

_STRIDE = re.compile(r"([1-9]\d*)(?:x([1-9]\d*))?")


def convert(
    src: Annotated[
        Path,
        typer.Argument(
            metavar="SRC",
            help="Checkpoint of SSAST, AST or ASiT, ImageNet weights of timm, Hugging Face AST "
            "folder, or a file of ours.",
            show_default=False,
        ),
    ],
    dst: Annotated[
        Path,
        typer.Argument(metavar="DST", help="File or folder to make.", show_default=False),
    ],
    to: Annotated[
        Target,
        typer.Option(help="A model file of ours, or a Hugging Face folder.", show_default=False),
    ],
    layout: Annotated[
        Literal["ast", "ssast"] | None,
        typer.Option(help="Where SRC may be an AST or a fine-tuned SSAST: which."),
    ] = None,
    network: Annotated[
        Network | None, typer.Option(help="Of an ASiT checkpoint; the teacher if left out.")
    ] = None,
    stride: Annotated[
        str | None,
        typer.Option(
            metavar="FRAMESxBINS",
            help="From patch to patch, as 10 or 10x10, where SRC leaves it open.",
        ),
    ] = None,
    input_frames: Annotated[
        int | None, typer.Option(min=1, help="Length of its clips, where SRC leaves it open.")
    ] = None,
    input_bins: Annotated[
        int | None, typer.Option(min=1, help="Mel bins, where SRC leaves them open: else 128.")
    ] = None,
    num_heads: Annotated[
        int | None,
        typer.Option(min=1, help="Attention heads, where no published model is as wide."),
    ] = None,
    pool: Annotated[
        SsastPool | None,
        typer.Option(help="What the head of a fine-tuned SSAST takes; mean if left out."),
    ] = None,
    channels: Annotated[
        Channels | None,
        typer.Option(help="Of ImageNet weights; sum (AST's program) if left out, or its paper's."),
    ] = None,
    sample_rate: Annotated[
        int | None, typer.Option(min=1, help="Of its sound in Hz, where not the program's.")
    ] = None,
    mean: Annotated[
        float | None, typer.Option(help="Of its log-mels, where not AudioSet's.")
    ] = None,
    std: Annotated[
        float | None, typer.Option(help="Of its log-mels, where not AudioSet's.")
    ] = None,
    drop_head: Annotated[
        bool, typer.Option("--drop-head", help="Leave a classifier's head out.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Turn a model of another program into one of ours, or into a Hugging Face folder."""
    options = ImportOptions(
        layout=layout,
        network=network,
        num_heads=num_heads,
        input_frames=input_frames,
        stride=None if stride is None else _parse_stride(stride),
        input_bins=input_bins,
        pool=pool,
        channels=channels,
        sample_rate_hz=sample_rate,
        mean=mean,
        std=std,
        drop_head=drop_head,
    )
    try:
        done = convert_model(src, dst, to=to, options=options)
    except (ValueError, OSError) as error:
        raise PlatformError(str(error)) from error
    summary = _summary(src, dst, to, done)
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        _print(summary)


def _parse_stride(text: str) -> tuple[int, int]:
    match = _STRIDE.fullmatch(text)
    if match is None:
        raise PlatformError(f"--stride must be as 10 or 10x10 (frames x bins), but got {text!r}")
    return int(match[1]), int(match[2] or match[1])


def _summary(src: Path, dst: Path, to: Target, done: Conversion) -> dict[str, Any]:
    weights = done.weights
    encoder = weights.encoder
    columns, rows = encoder.grid_of(weights.input_frames)
    return {
        "src": str(src),
        "layout": done.layout,
        "description": DESCRIPTIONS[done.layout],
        "dst": str(dst),
        "to": to,
        "embed_dim": encoder.embed_dim,
        "depth": encoder.depth,
        "num_heads": encoder.num_heads,
        "num_cls_tokens": encoder.num_cls_tokens,
        "patch": list(encoder.patch),
        "stride": list(encoder.stride),
        "input_frames": weights.input_frames,
        "input_bins": encoder.input_bins,
        "grid": {"columns": columns, "rows": rows},
        "num_parameters": sum(
            math.prod(tensor.shape)
            for name, tensor in weights.tensors.items()
            if name.startswith("encoder.")
        ),
        "num_classes": weights.num_classes or None,
        "pool": weights.pool,
        "sample_rate_hz": weights.front_end.sample_rate_hz,
        "mean": weights.mean,
        "std": weights.std,
        "notes": done.notes,
    }


def _print(summary: dict[str, Any]) -> None:
    patch, stride, grid = summary["patch"], summary["stride"], summary["grid"]
    overlap = "" if patch == stride else f", every {stride[0]} x {stride[1]}"
    typer.echo(f"{summary['src']}: {summary['description']}")
    typer.echo(
        f"  {plural(summary['depth'], 'block')} of width {summary['embed_dim']}, "
        f"{plural(summary['num_heads'], 'head')}, "
        f"{plural(summary['num_cls_tokens'], 'class token')}, "
        f"{summary['num_parameters'] / 1e6:.1f} M parameters"
    )
    typer.echo(
        f"  patches of {patch[0]} frames x {patch[1]} bins{overlap}: "
        f"{grid['columns']} x {grid['rows']} of {summary['input_frames']} frames"
    )
    if summary["num_classes"] is not None:
        typer.echo(f"  head: {summary['num_classes']} classes on {summary['pool']}")
    typer.echo(
        f"  front end: {summary['sample_rate_hz']} Hz, {summary['input_bins']} mel bins, "
        f"mean {summary['mean']:g}, std {summary['std']:g}"
    )
    for note in summary["notes"]:
        typer.echo(f"  note: {note}")
    typer.echo(f"{summary['dst']}: written")
