"""The spectrogram transformer: patches of a log-mel spectrogram through timm's blocks.

Shapes: `B` clips, `T` frames, `F` mel bins, `N` patches, `M` patches kept, `P` values per patch,
`D` width, `C` class tokens, `L` blocks, `H` heads. A grid of patches is `(t, f)`: `t` columns in
time, `f` rows in frequency. Tokens are the class tokens, then the patches in the config's order:
`time`, as in ASiT, counts rows fastest (patch `t * rows + f`); `frequency`, as in AST and SSAST,
counts columns fastest (patch `f * columns + t`).
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from asit_core.blocks import choose_attention, make_blocks
from asit_core.encoder_config import EncoderConfig, TokenOrder, patch_fields
from asit_core.positions import adapt_positions
from asit_core.seeding import uniform


class SpectrogramEncoder(nn.Module):
    """Vision transformer over patches of a spectrogram, with one or two class tokens.

    Source: ASiT (arXiv:2211.13189), Sec. III-A; AST (arXiv:2104.01778), Sec. 2.1, for overlapping
    patches and two class tokens; blocks as in ViT: pre-norm, GELU.
    """

    def __init__(self, config: EncoderConfig, *, input_frames: int) -> None:
        """Build an encoder whose positional embedding fits `input_frames` frames.

        Raises:
            ValueError: If `input_frames` is less than one patch.
        """
        super().__init__()
        if input_frames < config.patch_frames:
            raise ValueError(
                f"input_frames must be at least patch_frames ({config.patch_frames}), "
                f"but got {input_frames}"
            )
        self.config = config
        self.input_frames = input_frames
        self.grid = config.grid_of(input_frames)
        self.patch_embed = nn.Conv2d(1, config.embed_dim, config.patch, stride=config.stride)
        self.cls_token = nn.Parameter(torch.zeros(1, config.num_cls_tokens, config.embed_dim))
        num_tokens = config.num_cls_tokens + self.grid[0] * self.grid[1]
        self.pos_embed = nn.Parameter(torch.zeros(1, num_tokens, config.embed_dim))
        self.blocks = make_blocks(config, norm_eps=config.norm_eps)
        self.norm = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)

    @property
    def num_cls_tokens(self) -> int:
        """Class tokens before the patch tokens."""
        return self.config.num_cls_tokens

    def grid_of(self, num_frames: int) -> tuple[int, int]:
        """As `EncoderConfig.grid_of`."""
        return self.config.grid_of(num_frames)

    def forward(self, log_mel_BTF: Tensor, drop_path_keys_B: Tensor | None = None) -> Tensor:
        """Tokens of a batch of normalised spectrograms.

        Args:
            log_mel_BTF: Normalised log-mels; frames beyond the last whole patch are cut off.
            drop_path_keys_B: Keys of this step's clips; None switches stochastic depth off.

        Returns:
            (B, C + N, D): the class tokens, then the patch tokens, after the last norm.

        Raises:
            ValueError: If the mel bins differ from the config's, or clips are shorter than a patch.
        """
        patch_BND, grid = self.embed_patches(log_mel_BTF)
        return self.encode(patch_BND, grid, drop_path_keys_B=drop_path_keys_B)

    def embed_patches(self, log_mel_BTF: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Linear embeddings (B, N, D) of the patches, without positions, and their grid.

        Raises:
            ValueError: As `forward`.
        """
        if (
            log_mel_BTF.ndim != 3
            or log_mel_BTF.shape[2] != self.config.input_bins
            or log_mel_BTF.shape[1] < self.config.patch_frames
        ):
            raise ValueError(
                f"input must have {self.config.input_bins} mel bins and at least "
                f"{self.config.patch_frames} frames, but got shape {tuple(log_mel_BTF.shape)}"
            )
        patch, stride = self.config.patch, self.config.stride
        patches_BtfTF = log_mel_BTF.unfold(1, patch[0], stride[0]).unfold(2, patch[1], stride[1])
        if self.config.token_order == "frequency":
            patches_BtfTF = patches_BtfTF.transpose(1, 2)
        # A convolution is a linear layer on its patches, and faster as one.
        patches_BNP = patches_BtfTF.flatten(3).flatten(1, 2)
        weight_DP = self.patch_embed.weight.flatten(1)
        patch_BND = functional.linear(patches_BNP, weight_DP, self.patch_embed.bias)
        return patch_BND, self.grid_of(log_mel_BTF.shape[1])

    def encode(
        self,
        patch_BND: Tensor,
        grid: tuple[int, int],
        *,
        visible_BM: Tensor | None = None,
        drop_path_keys_B: Tensor | None = None,
    ) -> Tensor:
        """Adds positions and class tokens, and runs the blocks.

        Args:
            patch_BND: Patch embeddings of all patches of `grid`.
            grid: Their columns and rows.
            visible_BM: int64 indices of each clip's patches that are encoded (MAE), in the order
                they shall have; None means all.
            drop_path_keys_B: As in `forward`.

        Returns:
            (B, C + N, D), or (B, C + M, D) with `visible_BM`.
        """
        tokens_BND = self._with_positions(patch_BND, grid, visible_BM)
        choose_attention(self.blocks, tokens_BND)
        if drop_path_keys_B is None or self.config.drop_path_rate == 0.0:
            for block in self.blocks:
                tokens_BND = block(tokens_BND)
        else:
            tokens_BND = self._blocks_with_drop_path(tokens_BND, drop_path_keys_B)
        return self.norm(tokens_BND)

    def layers(self, log_mel_BTF: Tensor) -> list[Tensor]:
        """Output (B, C + N, D) of every block, first to last, before the last norm."""
        tokens_BND = self._with_positions(*self.embed_patches(log_mel_BTF))
        choose_attention(self.blocks, tokens_BND)
        outputs = []
        for block in self.blocks:
            tokens_BND = block(tokens_BND)
            outputs.append(tokens_BND)
        return outputs

    def attention_maps(self, log_mel_BTF: Tensor) -> Tensor:
        """Attention weights (L, B, H, C + N, C + N) of every block: rows query, and sum to one.

        The weights of all blocks are kept: for a look at some clips, not for training.
        """
        tokens_BND = self._with_positions(*self.embed_patches(log_mel_BTF))
        choose_attention(self.blocks, tokens_BND)
        maps = []
        for block in self.blocks:
            normed_BND = block.norm1(tokens_BND)  # pyright: ignore[reportCallIssue]
            maps.append(_attention_weights(block.attn, normed_BND))  # pyright: ignore[reportArgumentType]
            tokens_BND = block(tokens_BND)
        return torch.stack(maps)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Positional embedding (1, C + N, D), adapted to another grid of patches if need be."""
        if grid == self.grid:
            return self.pos_embed
        num_cls = self.num_cls_tokens
        pos_1Dtf = _to_grid(self.pos_embed[:, num_cls:], self.grid, self.config.token_order)
        pos_1Dtf = adapt_positions(pos_1Dtf, grid, how=self.config.position_adaptation)
        pos_1ND = _from_grid(pos_1Dtf, self.config.token_order)
        return torch.cat([self.pos_embed[:, :num_cls], pos_1ND], dim=1)

    def refitted(
        self,
        *,
        input_frames: int,
        stride: tuple[int, int] | None = None,
        input_bins: int | None = None,
    ) -> "SpectrogramEncoder":
        """A copy for clips of another length, other strides or other mel bins.

        Positions are adapted once, as the config says, and learned from there: how AST and SSAST
        start fine-tuning.

        Args:
            input_frames: Length of the clips.
            stride: Frames and bins from patch to patch; None keeps them.
            input_bins: Mel bins of the clips; None keeps them.

        Raises:
            ValueError: If such clips cannot be cut into patches.
        """
        config = replace(
            self.config,
            **patch_fields(self.config.patch, stride or self.config.stride),
            input_bins=self.config.input_bins if input_bins is None else input_bins,
        )
        with torch.random.fork_rng(devices=[]):
            copy = SpectrogramEncoder(config, input_frames=input_frames)
        state = self.state_dict()
        state["pos_embed"] = self.positions(copy.grid)
        copy.load_state_dict(state)
        return copy.to(self.cls_token.device, self.cls_token.dtype).train(self.training)

    def _with_positions(
        self, patch_BND: Tensor, grid: tuple[int, int], visible_BM: Tensor | None = None
    ) -> Tensor:
        cls_BCD = self.cls_token.expand(len(patch_BND), -1, -1)
        positions_1ND = self.positions(grid)
        if visible_BM is None:
            return torch.cat([cls_BCD, patch_BND], dim=1) + positions_1ND
        num_cls = self.num_cls_tokens
        patch_BND = patch_BND + positions_1ND[:, num_cls:]
        index_BMD = visible_BM[..., None].expand(-1, -1, patch_BND.shape[2])
        cls_BCD = cls_BCD + positions_1ND[:, :num_cls]
        return torch.cat([cls_BCD, patch_BND.gather(1, index_BMD)], dim=1)

    def _blocks_with_drop_path(self, tokens_BND: Tensor, keys_B: Tensor) -> Tensor:
        """Run timm's blocks part by part: its own DropPath would draw from the global generator."""
        scales = _drop_path_scales(keys_B, self.config).to(tokens_BND.dtype)
        for block, (attention_B11, mlp_B11) in zip(self.blocks, scales, strict=True):
            residual = block.attn(block.norm1(tokens_BND))  # pyright: ignore[reportCallIssue]
            tokens_BND = tokens_BND + attention_B11 * residual
            residual = block.mlp(block.norm2(tokens_BND))  # pyright: ignore[reportCallIssue]
            tokens_BND = tokens_BND + mlp_B11 * residual
        return tokens_BND


def patch_grid(
    patch_tokens_BND: Tensor, grid: tuple[int, int], token_order: TokenOrder = "time"
) -> Tensor:
    """(B, N, D) patch tokens, class tokens removed, as (B, t, f, D)."""
    if token_order == "time":
        return patch_tokens_BND.unflatten(1, grid)
    return patch_tokens_BND.unflatten(1, grid[::-1]).transpose(1, 2)


def frame_embeddings(
    patch_tokens_BND: Tensor, grid: tuple[int, int], token_order: TokenOrder = "time"
) -> Tensor:
    """One vector for each column of patches, (B, t, D): the mean over frequency."""
    return patch_grid(patch_tokens_BND, grid, token_order).mean(dim=2)


def patchify(pixels_BTF: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, T, F) -> (B, N, P): patches in time-major order, each flattened time-major."""
    patches_BtTfF = pixels_BTF.unflatten(2, (grid[1], -1)).unflatten(1, (grid[0], -1))
    return patches_BtTfF.transpose(2, 3).flatten(3).flatten(1, 2)


def unpatchify(patches_BNP: Tensor, grid: tuple[int, int], patch: tuple[int, int]) -> Tensor:
    """Undo `patchify` for patches of `patch` frames and bins."""
    patches_BtfTF = patches_BNP.unflatten(2, patch).unflatten(1, grid)
    return patches_BtfTF.transpose(2, 3).flatten(3).flatten(1, 2)


def _to_grid(pos_1ND: Tensor, grid: tuple[int, int], token_order: TokenOrder) -> Tensor:
    pos_1DN = pos_1ND.transpose(1, 2)
    if token_order == "time":
        return pos_1DN.unflatten(2, grid)
    return pos_1DN.unflatten(2, grid[::-1]).transpose(2, 3)


def _from_grid(pos_1Dtf: Tensor, token_order: TokenOrder) -> Tensor:
    if token_order == "frequency":
        pos_1Dtf = pos_1Dtf.transpose(2, 3)
    return pos_1Dtf.flatten(2).transpose(1, 2)


def _attention_weights(attention: nn.Module, normed_BND: Tensor) -> Tensor:
    """(B, H, N, N): the softmax that fused attention never writes down."""
    num_heads: int = attention.num_heads  # pyright: ignore[reportAssignmentType]
    qkv_BN3D = attention.qkv(normed_BND).unflatten(2, (3, num_heads, -1))  # pyright: ignore[reportCallIssue]
    query_BHND, key_BHND = qkv_BN3D[:, :, 0].transpose(1, 2), qkv_BN3D[:, :, 1].transpose(1, 2)
    scale = query_BHND.shape[3] ** -0.5
    return (scale * query_BHND @ key_BHND.transpose(2, 3)).softmax(dim=-1)


def _drop_path_scales(keys_B: Tensor, config: EncoderConfig) -> Tensor:
    """(depth, 2, B, 1, 1): 0 where a residual is dropped, 1 / keep probability elsewhere.

    The rate rises linearly from 0 in the first block to `drop_path_rate` in the last.
    """
    rates = torch.linspace(0.0, config.drop_path_rate, config.depth, dtype=torch.float64)
    keep_L111 = (1.0 - rates).to(keys_B.device)[:, None, None]
    draws_L2B = uniform(keys_B, 2 * config.depth).T.unflatten(0, (config.depth, 2))
    return ((draws_L2B < keep_L111) / keep_L111).float()[..., None, None]
