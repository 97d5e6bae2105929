"""The fine-tuned model: an encoder, the mean of its patch tokens, LayerNorm and one linear layer.

Shapes: `B` clips, `T` frames, `F` mel bins, `N` patches, `D` width, `C` classes.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from asit_core.encoder import SpectrogramEncoder
from asit_core.initialization import initialize
from asit_core.precision import Precision, autocast
from asit_core.spectrogram import LOG_MEL_FLOOR


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
    """Mean of patch tokens -> LayerNorm -> linear.

    Source: SSAST's fine-tuning default (arXiv:2110.09784, Sec. 4.1) with AST's MLP head.
    """

    def __init__(self, encoder: SpectrogramEncoder, *, num_classes: int, seed: int) -> None:
        """Copy the encoder and draw a head from `seed`.

        Raises:
            ValueError: If there are fewer than two classes.
        """
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, but got {num_classes}")
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(True).train()
        embed_dim = encoder.config.embed_dim
        with torch.random.fork_rng(devices=[]):
            self.head = nn.Sequential(nn.LayerNorm(embed_dim), nn.Linear(embed_dim, num_classes))
        initialize(self.head, seed=seed)

    def forward(self, log_mel_BTF: Tensor) -> Tensor:
        """Normalised log-mels (B, T, F) -> fp32 logits (B, C)."""
        return self.head(self.encoder(log_mel_BTF)[:, 1:].mean(dim=1)).float()


def finetune_step(
    classifier: Classifier,
    optimizer: torch.optim.Optimizer,
    log_mel_BTF: Tensor,
    label_B: Tensor,
    *,
    label_smoothing: float = 0.0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """One plain step: cross entropy, backward, update.

    Args:
        classifier: Model to train.
        optimizer: Its optimizer, already scheduled for this step.
        log_mel_BTF: Normalised crops.
        label_B: int64 classes.
        label_smoothing: Share of each target spread over all classes.
        dtype: Autocast type, None for fp32.

    Returns:
        The loss, detached.
    """
    with autocast(log_mel_BTF.device, dtype):
        logits_BC = classifier(log_mel_BTF)
    loss = functional.cross_entropy(logits_BC, label_B, label_smoothing=label_smoothing)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.detach()


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
