"""The spectrogram transformer: patches of a log-mel spectrogram through timm's blocks.

Shapes: `B` clips, `T` frames, `F` mel bins, `N` patches, `P` values per patch, `D` width. Time
comes first, as in ASiT: patch token `t * (F / patch_bins) + f` is the patch in column `t` of time
and row `f` of frequency.
"""

from dataclasses import dataclass
from functools import partial

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

from asit_core.seeding import uniform

_LayerNorm = partial(nn.LayerNorm, eps=1e-6)


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """Size and patches of the encoder; the length of its input is the crop's."""

    __pydantic_config__ = {"extra": "forbid"}

    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    patch_frames: int = 16
    patch_bins: int = 16
    input_bins: int = 128
    drop_path_rate: float = 0.1

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        for name in ("embed_dim", "depth", "num_heads", "patch_frames", "patch_bins", "input_bins"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but got {getattr(self, name)}")
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"embed_dim must be a multiple of num_heads ({self.num_heads}), "
                f"but got {self.embed_dim}"
            )
        if self.input_bins % self.patch_bins:
            raise ValueError(
                f"input_bins must be a multiple of patch_bins ({self.patch_bins}), "
                f"but got {self.input_bins}"
            )
        if not 1.0 <= self.embed_dim * self.mlp_ratio < float("inf"):
            raise ValueError(
                f"mlp_ratio must be finite and leave at least one hidden unit, "
                f"but got {self.mlp_ratio}"
            )
        if not 0.0 <= self.drop_path_rate < 1.0:
            raise ValueError(f"drop_path_rate must be in [0, 1), but got {self.drop_path_rate}")


class SpectrogramEncoder(nn.Module):
    """Vision transformer over (time, mel) patches with one class token.

    Source: ASiT (arXiv:2211.13189), Sec. III-A; blocks as in ViT: pre-norm, GELU, LayerNorm with
    eps 1e-6.
    """

    def __init__(self, config: EncoderConfig, *, input_frames: int) -> None:
        """Build an encoder whose positional embedding fits `input_frames` frames."""
        super().__init__()
        if input_frames < config.patch_frames:
            raise ValueError(
                f"input_frames must be at least patch_frames ({config.patch_frames}), "
                f"but got {input_frames}"
            )
        self.config = config
        self.grid = (input_frames // config.patch_frames, config.input_bins // config.patch_bins)
        patch = (config.patch_frames, config.patch_bins)
        self.patch_embed = nn.Conv2d(1, config.embed_dim, patch, stride=patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        num_tokens = 1 + self.grid[0] * self.grid[1]
        self.pos_embed = nn.Parameter(torch.zeros(1, num_tokens, config.embed_dim))
        self.blocks = nn.ModuleList(
            Block(
                config.embed_dim,
                config.num_heads,
                mlp_ratio=config.mlp_ratio,
                qkv_bias=True,
                norm_layer=_LayerNorm,  # pyright: ignore[reportArgumentType]
            )
            for _ in range(config.depth)
        )
        self.norm = _LayerNorm(config.embed_dim)

    def forward(self, log_mel_BTF: Tensor, drop_path_keys_B: Tensor | None = None) -> Tensor:
        """Tokens of a batch of normalised spectrograms.

        Args:
            log_mel_BTF: Normalised log-mels; frames beyond the last whole patch are cut off.
            drop_path_keys_B: Keys of this step's clips; None switches stochastic depth off.

        Returns:
            (B, 1 + N, D): the class token, then the patch tokens in time-major order, after the
            last norm.

        Raises:
            ValueError: If the mel bins differ from the config's, or clips are shorter than a patch.
        """
        frames, bins = log_mel_BTF.shape[1:]
        if bins != self.config.input_bins or frames < self.config.patch_frames:
            raise ValueError(
                f"input must have {self.config.input_bins} mel bins and at least "
                f"{self.config.patch_frames} frames, but got shape {tuple(log_mel_BTF.shape)}"
            )
        grid = (frames // self.config.patch_frames, bins // self.config.patch_bins)
        patches_BNP = patchify(log_mel_BTF[:, : grid[0] * self.config.patch_frames], grid)
        # Patches do not overlap: the convolution is a linear layer, and faster as one.
        weight_DP = self.patch_embed.weight.flatten(1)
        tokens_BND = functional.linear(patches_BNP, weight_DP, self.patch_embed.bias)
        cls_B1D = self.cls_token.expand(len(tokens_BND), -1, -1)
        tokens_BND = torch.cat([cls_B1D, tokens_BND], dim=1) + self.positions(grid)
        self._choose_attention(tokens_BND.device.type)
        if drop_path_keys_B is None or self.config.drop_path_rate == 0.0:
            for block in self.blocks:
                tokens_BND = block(tokens_BND)
        else:
            tokens_BND = self._blocks_with_drop_path(tokens_BND, drop_path_keys_B)
        return self.norm(tokens_BND)

    def _choose_attention(self, device_type: str) -> None:
        """Fused attention, except under bf16 on a CPU: there its backward is six times slower."""
        fused = not (device_type == "cpu" and torch.is_autocast_enabled("cpu"))
        for block in self.blocks:
            block.attn.fused_attn = fused  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Positional embedding (1, 1 + N, D), bilinearly resized to another grid of patches."""
        if grid == self.grid:
            return self.pos_embed
        pos_1Dtf = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, self.grid)
        pos_1Dtf = functional.interpolate(pos_1Dtf, grid, mode="bilinear", align_corners=False)
        return torch.cat([self.pos_embed[:, :1], pos_1Dtf.flatten(2).transpose(1, 2)], dim=1)

    def _blocks_with_drop_path(self, tokens_BND: Tensor, keys_B: Tensor) -> Tensor:
        """Run timm's blocks part by part: its own DropPath would draw from the global generator."""
        scales = _drop_path_scales(keys_B, self.config).to(tokens_BND.dtype)
        for block, (attention_B11, mlp_B11) in zip(self.blocks, scales, strict=True):
            residual = block.attn(block.norm1(tokens_BND))  # pyright: ignore[reportCallIssue]
            tokens_BND = tokens_BND + attention_B11 * residual
            residual = block.mlp(block.norm2(tokens_BND))  # pyright: ignore[reportCallIssue]
            tokens_BND = tokens_BND + mlp_B11 * residual
        return tokens_BND


def patchify(pixels_BTF: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, T, F) -> (B, N, P): patches in time-major order, each flattened time-major."""
    patches_BtTfF = pixels_BTF.unflatten(2, (grid[1], -1)).unflatten(1, (grid[0], -1))
    return patches_BtTfF.transpose(2, 3).flatten(3).flatten(1, 2)


def unpatchify(patches_BNP: Tensor, grid: tuple[int, int], patch: tuple[int, int]) -> Tensor:
    """Undo `patchify` for patches of `patch` frames and bins."""
    patches_BtfTF = patches_BNP.unflatten(2, patch).unflatten(1, grid)
    return patches_BtfTF.transpose(2, 3).flatten(3).flatten(1, 2)


def _drop_path_scales(keys_B: Tensor, config: EncoderConfig) -> Tensor:
    """(depth, 2, B, 1, 1): 0 where a residual is dropped, 1 / keep probability elsewhere.

    The rate rises linearly from 0 in the first block to `drop_path_rate` in the last.
    """
    rates = torch.linspace(0.0, config.drop_path_rate, config.depth, dtype=torch.float64)
    keep_L111 = (1.0 - rates).to(keys_B.device)[:, None, None]
    draws_L2B = uniform(keys_B, 2 * config.depth).T.unflatten(0, (config.depth, 2))
    return ((draws_L2B < keep_L111) / keep_L111).float()[..., None, None]
