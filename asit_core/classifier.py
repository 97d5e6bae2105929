"""The fine-tuned model: an encoder, one vector made of its tokens, LayerNorm and a linear layer.

Shapes: `B` clips, `T` frames, `F` mel bins, `N` tokens, `M` visible patches, `D` width, `C`
classes.
"""

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from asit_core.encoder import SpectrogramEncoder
from asit_core.initialization import initialize
from asit_core.precision import Precision, autocast
from asit_core.spectrogram import LOG_MEL_FLOOR
from asit_core.targets import LossKind, classification_loss

Pool = Literal["mean", "class_token", "class_tokens"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneConfig:
    """A plain recipe: AdamW, warm-up, cosine; crops of rolled clips; everything is trained."""

    __pydantic_config__ = {"extra": "forbid"}

    epochs: int = 40
    batch_size: int = 32
    lr: float = 5e-4
    warmup_ratio: float = 0.1
    weight_decay: float = 0.05
    label_smoothing: float = 0.0
    roll_probability: float = 0.5
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but got {getattr(self, name)}")
        if not self.lr > 0.0:
            raise ValueError(f"lr must be above 0, but got {self.lr}")
        if not self.weight_decay >= 0.0:
            raise ValueError(f"weight_decay must be at least 0, but got {self.weight_decay}")
        if not 0.0 <= self.warmup_ratio <= 1.0:
            raise ValueError(f"warmup_ratio must be in [0, 1], but got {self.warmup_ratio}")
        if not 0.0 <= self.roll_probability <= 1.0:
            raise ValueError(f"roll_probability must be in [0, 1], but got {self.roll_probability}")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(f"label_smoothing must be in [0, 1), but got {self.label_smoothing}")


class Classifier(nn.Module):
    """Encoder -> one vector per clip -> LayerNorm -> linear.

    Source: SSAST's fine-tuning default, the mean of patch tokens (arXiv:2110.09784, Sec. 4.1), with
    AST's head; AST itself takes the mean of its two class tokens (arXiv:2104.01778, Sec. 2.2).
    """

    def __init__(
        self,
        encoder: SpectrogramEncoder,
        *,
        num_classes: int,
        seed: int,
        pool: Pool = "mean",
        projector_dim: int | None = None,
    ) -> None:
        """Copy the encoder and draw a head from `seed`.

        Args:
            encoder: Pre-trained encoder; it stays as it is.
            num_classes: At least two.
            seed: The trial's.
            pool: Which tokens make the clip's vector, as in `pool_tokens`.
            projector_dim: None is LayerNorm and one linear layer; a width is SUPERB's head instead,
                two linear layers without a non-linearity. (SUPERB projects each token, then takes
                the mean: the same, as both are linear.)

        Raises:
            ValueError: If there are fewer than two classes, or `class_tokens` has only one to take.
        """
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, but got {num_classes}")
        if projector_dim is not None and projector_dim < 1:
            raise ValueError(f"projector_dim must be at least 1 or null, but got {projector_dim}")
        if pool == "class_tokens" and encoder.num_cls_tokens < 2:
            raise ValueError(
                f"pool 'class_tokens' must have two class tokens, but the encoder has "
                f"{encoder.num_cls_tokens}; take 'class_token'"
            )
        super().__init__()
        self.pool: Pool = pool
        self.encoder = copy.deepcopy(encoder).requires_grad_(True).train()
        embed_dim = encoder.config.embed_dim
        with torch.random.fork_rng(devices=[]):
            if projector_dim is None:
                layers = [nn.LayerNorm(embed_dim), nn.Linear(embed_dim, num_classes)]
            else:
                layers = [
                    nn.Linear(embed_dim, projector_dim),
                    nn.Linear(projector_dim, num_classes),
                ]
        self.head = nn.Sequential(*layers)
        initialize(self.head, seed=seed)

    def forward(
        self,
        log_mel_BTF: Tensor,
        *,
        visible_BM: Tensor | None = None,
        drop_path_keys_B: Tensor | None = None,
    ) -> Tensor:
        """Normalised log-mels (B, T, F) -> fp32 logits (B, C).

        Args:
            log_mel_BTF: Input of any length the encoder takes.
            visible_BM: Numbers of the patches to keep, from `augment.visible_patches`; None: all.
            drop_path_keys_B: Keys of this step's clips; None switches stochastic depth off.
        """
        if visible_BM is None:
            tokens_BND = self.encoder(log_mel_BTF, drop_path_keys_B)
        else:
            patch_BND, grid = self.encoder.embed_patches(log_mel_BTF)
            tokens_BND = self.encoder.encode(
                patch_BND, grid, visible_BM=visible_BM, drop_path_keys_B=drop_path_keys_B
            )
        num_cls_tokens = self.encoder.num_cls_tokens
        pooled_BD = pool_tokens(tokens_BND, num_cls_tokens=num_cls_tokens, pool=self.pool)
        return self.head(pooled_BD).float()


def pool_tokens(tokens_BND: Tensor, *, num_cls_tokens: int, pool: Pool) -> Tensor:
    """One vector (B, D) per clip.

    Args:
        tokens_BND: Class tokens, then patch tokens.
        num_cls_tokens: How many of the former.
        pool: `mean` of the patch tokens; the first `class_token`; the mean of all `class_tokens`.
    """
    match pool:
        case "mean":
            return tokens_BND[:, num_cls_tokens:].mean(dim=1)
        case "class_token":
            return tokens_BND[:, 0]
        case "class_tokens":
            return tokens_BND[:, :num_cls_tokens].mean(dim=1)


def finetune_step(
    classifier: Classifier,
    optimizer: torch.optim.Optimizer,
    log_mel_BTF: Tensor,
    target: Tensor,
    *,
    loss: LossKind = "ce",
    label_smoothing: float = 0.0,
    present: Tensor | None = None,
    visible_BM: Tensor | None = None,
    drop_path_keys_B: Tensor | None = None,
    clip_grad_norm: float | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """One plain step: loss, backward, update.

    Args:
        classifier: Model to train.
        optimizer: Its optimizer, already scheduled for this step.
        log_mel_BTF: Normalised crops.
        target: int64 classes (B,), or class weights (B, C) in [0, 1].
        loss: `ce` for one label a clip, `bce` for several.
        label_smoothing: Share of each target spread over all classes.
        present: Classes to learn; None: all.
        visible_BM: Patches to keep; None: all.
        drop_path_keys_B: Keys for stochastic depth; None: none.
        clip_grad_norm: Largest norm of all gradients together; None: no limit.
        dtype: Autocast type, None for fp32.

    Returns:
        The loss, detached.
    """
    with autocast(log_mel_BTF.device, dtype):
        logits_BC = classifier(
            log_mel_BTF, visible_BM=visible_BM, drop_path_keys_B=drop_path_keys_B
        )
    value = classification_loss(
        logits_BC, target, kind=loss, label_smoothing=label_smoothing, present=present
    )
    optimizer.zero_grad(set_to_none=True)
    value.backward()
    if clip_grad_norm is not None:
        nn.utils.clip_grad_norm_(classifier.parameters(), clip_grad_norm)
    optimizer.step()
    return value.detach()


def windows(log_mel_BTF: Tensor, num_frames_B: Tensor, *, frames: int) -> Tensor:
    """Evenly spaced windows that cover each clip.

    Args:
        log_mel_BTF: Whole clips, not normalised, padded with silence to one length T.
        num_frames_B: Valid frames of each.
        frames: Length of a window; a shorter clip is followed by silence, as in training.

    Returns:
        (B, W, frames, F) with W = ceil(T / frames): the first window starts at a clip's start, the
        last one ends at its end.
    """
    missing = max(0, frames - log_mel_BTF.shape[1])
    log_mel_BTF = functional.pad(log_mel_BTF, (0, 0, 0, missing), value=LOG_MEL_FLOOR)
    num_windows = -(-log_mel_BTF.shape[1] // frames)
    room_B1 = (num_frames_B.to(log_mel_BTF.device)[:, None] - frames).clamp(min=0)
    share_W = torch.linspace(0, 1, num_windows, device=log_mel_BTF.device)
    start_BW = (room_B1 * share_W).round().long()
    index_BWT = start_BW[..., None] + torch.arange(frames, device=log_mel_BTF.device)
    clip_B11 = torch.arange(len(log_mel_BTF), device=log_mel_BTF.device)[:, None, None]
    return log_mel_BTF[clip_B11, index_BWT]
