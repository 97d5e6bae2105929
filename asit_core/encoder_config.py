"""What an encoder is made of: size, patches, class tokens, order of its tokens."""

from dataclasses import dataclass
from typing import Any, Literal

from asit_core.blocks import check_sizes
from asit_core.positions import PositionAdaptation

TokenOrder = Literal["time", "frequency"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """Size and patches of the encoder; the length of its input is the crop's.

    Attributes:
        embed_dim: Width of a token.
        depth: Blocks.
        num_heads: Attention heads of a block.
        mlp_ratio: Hidden units of a block's MLP, as a multiple of the width.
        patch_frames: Length of a patch, in frames.
        patch_bins: Height of a patch, in mel bins.
        stride_frames: Frames from patch to patch; None: patches do not overlap.
        stride_bins: Bins from patch to patch; None: patches do not overlap.
        input_bins: Mel bins of the input.
        num_cls_tokens: 1, as in ASiT, or 2, as in AST and SSAST (class and distillation token).
        token_order: Order of the patch tokens; see `asit_core.encoder`.
        position_adaptation: How positions are fitted to another grid; see `adapt_positions`.
        drop_path_rate: Stochastic depth of the last block.
        norm_eps: Added to the variance in every LayerNorm.
    """

    __pydantic_config__ = {"extra": "forbid"}

    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    patch_frames: int = 16
    patch_bins: int = 16
    stride_frames: int | None = None
    stride_bins: int | None = None
    input_bins: int = 128
    num_cls_tokens: Literal[1, 2] = 1
    token_order: TokenOrder = "time"
    position_adaptation: PositionAdaptation = "interpolate"
    drop_path_rate: float = 0.1
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        check_sizes(self)
        for name in ("patch_frames", "patch_bins", "input_bins"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but got {getattr(self, name)}")
        self._check_patches()
        for name, known in (
            ("num_cls_tokens", (1, 2)),
            ("token_order", ("time", "frequency")),
            ("position_adaptation", ("interpolate", "ast", "ssast")),
        ):
            if getattr(self, name) not in known:
                listed = ", ".join(map(str, known))
                raise ValueError(f"{name} must be one of {listed}, but got {getattr(self, name)!r}")
        if not 0.0 <= self.drop_path_rate < 1.0:
            raise ValueError(f"drop_path_rate must be in [0, 1), but got {self.drop_path_rate}")
        if not 0.0 < self.norm_eps < 1.0:
            raise ValueError(f"norm_eps must be in (0, 1), but got {self.norm_eps}")

    def _check_patches(self) -> None:
        for axis in ("frames", "bins"):
            stride, patch = getattr(self, f"stride_{axis}"), getattr(self, f"patch_{axis}")
            if stride is not None and not 1 <= stride <= patch:
                raise ValueError(
                    f"stride_{axis} must be in [1, {patch}] (patch_{axis}), but got {stride}"
                )
        if self.input_bins < self.patch_bins:
            raise ValueError(
                f"input_bins must be at least patch_bins ({self.patch_bins}), "
                f"but got {self.input_bins}"
            )
        # Overlapping rows may leave bins at the top unread, as in AST: 12 rows of stride 10 end at
        # bin 126 of 128.
        if self.stride[1] == self.patch_bins and self.input_bins % self.patch_bins:
            raise ValueError(
                f"input_bins must be a multiple of patch_bins ({self.patch_bins}), "
                f"but got {self.input_bins}"
            )

    @property
    def patch(self) -> tuple[int, int]:
        """Frames and bins of a patch."""
        return self.patch_frames, self.patch_bins

    @property
    def stride(self) -> tuple[int, int]:
        """Frames and bins from patch to patch, with the defaults filled in."""
        return self.stride_frames or self.patch_frames, self.stride_bins or self.patch_bins

    @property
    def overlaps(self) -> bool:
        """Whether patches share pixels."""
        return self.stride != self.patch

    def grid_of(self, num_frames: int) -> tuple[int, int]:
        """Columns and rows of patches of a clip of `num_frames`; what is left over is not read.

        Raises:
            ValueError: If the clip is shorter than a patch.
        """
        if num_frames < self.patch_frames:
            raise ValueError(
                f"num_frames must be at least patch_frames ({self.patch_frames}), "
                f"but got {num_frames}; pad the clip"
            )
        return (
            (num_frames - self.patch_frames) // self.stride[0] + 1,
            (self.input_bins - self.patch_bins) // self.stride[1] + 1,
        )


def patch_fields(patch: tuple[int, int], stride: tuple[int, int]) -> dict[str, Any]:
    """Fields of `EncoderConfig` for frames and bins of patch and stride; None: no overlap."""
    strides = [None if step == length else step for step, length in zip(stride, patch, strict=True)]
    return {
        "patch_frames": patch[0],
        "patch_bins": patch[1],
        "stride_frames": strides[0],
        "stride_bins": strides[1],
    }
