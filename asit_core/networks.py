"""The networks around the encoder: what distillation adds to it, and what masked tokens need.

Shapes: `V` views, `B` clips, `T` frames, `F` mel bins, `N` patches, `M` masked ones, `P` values of
a patch, `D` width, `K` prototypes.
"""

import torch
from torch import Tensor, nn

from asit_core.decoder import Decoder
from asit_core.encoder import SpectrogramEncoder
from asit_core.encoder_config import EncoderConfig
from asit_core.heads import ProjectionHead, Prototypes
from asit_core.pretrain_config import PretrainConfig
from asit_core.token_masking import TokenMasks


class DistillationNetwork(nn.Module):
    """What student and teacher share: the encoder and, to distil, projection and prototypes."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.encoder = SpectrogramEncoder(config.encoder, input_frames=config.views.crop_frames)
        clip, patch = config.pretext.clip_distillation, config.pretext.patch_distillation
        shared = config.projection_head is not None and config.projection_head.shared
        self.projection = _projection(config, present=bool(clip or patch) and shared)
        self.clip_projection = _projection(config, present=bool(clip) and not shared)
        self.patch_projection = _projection(config, present=bool(patch) and not shared)
        self.clip_prototypes = _prototypes(config, clip.num_prototypes) if clip else None
        self.patch_prototypes = _prototypes(config, patch.num_prototypes) if patch else None

    def prototypes(self) -> list[Prototypes]:
        """The last layers present, which the recipe freezes at first."""
        return [layer for layer in (self.clip_prototypes, self.patch_prototypes) if layer]

    def forward(
        self, views_VBTF: Tensor, drop_path_keys_VB: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Tokens (V, B, C + N, D) and the logits of each distillation task present."""
        keys = None if drop_path_keys_VB is None else drop_path_keys_VB.flatten()
        tokens = self.encoder(views_VBTF.flatten(0, 1), keys).unflatten(0, views_VBTF.shape[:2])
        num_cls, logits = self.encoder.num_cls_tokens, {}
        clip_projection = self.projection or self.clip_projection
        patch_projection = self.projection or self.patch_projection
        if self.clip_prototypes is not None and clip_projection is not None:
            clip_VBD = tokens[..., :num_cls, :].mean(dim=-2)
            logits["clip_distillation"] = self.clip_prototypes(clip_projection(clip_VBD))
        if self.patch_prototypes is not None and patch_projection is not None:
            patch_VBND = tokens[..., num_cls:, :]
            logits["patch_distillation"] = self.patch_prototypes(patch_projection(patch_VBND))
        return tokens, logits


class MaskedTokenNetwork(nn.Module):
    """Tokens of masked patches: a mask embedding in the encoder's input, or a decoder behind it.

    Source: SSAST (arXiv:2110.09784), Sec. 3.1, where a learned embedding replaces a masked patch's
    before positions are added; MAE (arXiv:2111.06377), Sec. 3, for the decoder.
    """

    def __init__(self, config: PretrainConfig, encoder: SpectrogramEncoder) -> None:
        super().__init__()
        self.mask_embed, self.decoder = None, None
        if config.decoder is None:
            self.mask_embed = nn.Parameter(torch.zeros(1, 1, config.encoder.embed_dim))
        else:
            self.decoder = Decoder(config.decoder, encoder)

    def forward(
        self,
        encoder: SpectrogramEncoder,
        views_BTF: Tensor,
        masks: TokenMasks,
        drop_path_keys_B: Tensor | None = None,
    ) -> Tensor:
        """(B, M, D) tokens of the masked patches, in their order; B counts views as clips."""
        patch_BND, grid = encoder.embed_patches(views_BTF)
        if self.decoder is not None:
            encoded_BUD = encoder.encode(
                patch_BND, grid, visible_BM=masks.visible_BU, drop_path_keys_B=drop_path_keys_B
            )
            return take(self.decoder(encoded_BUD, masks.visible_BU), masks.masked_BM)
        assert self.mask_embed is not None, "made where there is no decoder"
        index_BM1 = masks.masked_BM.unsqueeze(-1)
        is_masked_BN1 = torch.zeros_like(patch_BND[..., :1], dtype=torch.bool)
        is_masked_BN1 = is_masked_BN1.scatter(1, index_BM1, torch.ones_like(index_BM1).bool())
        patch_BND = torch.where(is_masked_BN1, self.mask_embed.to(patch_BND.dtype), patch_BND)
        tokens_BND = encoder.encode(patch_BND, grid, drop_path_keys_B=drop_path_keys_B)
        return take(tokens_BND[:, encoder.num_cls_tokens :], masks.masked_BM)


def take(rows_BND: Tensor, index_BM: Tensor) -> Tensor:
    """(B, M, D): of each clip the rows of these indices."""
    return rows_BND.gather(1, index_BM.unsqueeze(-1).expand(-1, -1, rows_BND.shape[2]))


def patch_pixels(views_BTF: Tensor, config: EncoderConfig) -> Tensor:
    """(B, T, F) -> (B, N, P): the pixels of patches that do not overlap, in the token order.

    A patch's pixels lie frame by frame, as the encoder reads them.
    """
    frames, bins = config.patch
    patches_BtfTF = views_BTF.unfold(1, frames, frames).unfold(2, bins, bins)
    if config.token_order == "frequency":
        patches_BtfTF = patches_BtfTF.transpose(1, 2)
    return patches_BtfTF.flatten(3).flatten(1, 2)


def _projection(config: PretrainConfig, *, present: bool) -> ProjectionHead | None:
    if not present:
        return None
    assert config.projection_head is not None, "the config is checked"
    return ProjectionHead(config.encoder.embed_dim, config.projection_head)


def _prototypes(config: PretrainConfig, num_prototypes: int) -> Prototypes:
    assert config.projection_head is not None, "the config is checked"
    return Prototypes(config.projection_head.bottleneck_dim, num_prototypes)
