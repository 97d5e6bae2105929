"""Clip vectors of a frozen encoder: what probes are fitted on."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from asit_core.classifier import windows
from asit_core.encoder import SpectrogramEncoder
from asit_core.precision import autocast
from asit_core.probe import log_mel_statistics
from asit_core.views import normalize
from asit_platform.data.stream import ClipBatch
from asit_platform.training.worker import Normalization


class ClipVectors(NamedTuple):
    """Features of clips, with what is needed to score them."""

    clip_ids: list[str]
    vector_ND: Tensor
    label_N: Tensor
    fold_N: Tensor

    def of_folds(self, folds: Iterable[int]) -> "ClipVectors":
        """The clips of some folds, in the same order."""
        chosen_N = torch.isin(self.fold_N, torch.tensor(sorted(folds)))
        clip_ids = [c for c, kept in zip(self.clip_ids, chosen_N.tolist(), strict=True) if kept]
        return ClipVectors(
            clip_ids, self.vector_ND[chosen_N], self.label_N[chosen_N], self.fold_N[chosen_N]
        )


@torch.no_grad()
def encode(
    encoder: SpectrogramEncoder,
    batches: Iterable[ClipBatch],
    *,
    normalization: Normalization,
    crop_frames: int,
    features: Literal["mean", "cls", "both"],
    dtype: torch.dtype | None = None,
) -> ClipVectors:
    """Clip vectors: the mean over windows that cover a clip of the chosen tokens' mean.

    Args:
        encoder: Frozen encoder, on the device to use.
        batches: Whole clips.
        normalization: The one the encoder was trained with.
        crop_frames: Length of a window, that of the pre-training crop.
        features: `mean` of patch tokens, `cls` token, or `both` side by side.
        dtype: Autocast type, None for fp32.
    """
    was_training = encoder.training
    encoder.eval()
    device = encoder.cls_token.device

    def vectors(batch: ClipBatch) -> Tensor:
        log_mel_BTF = batch.log_mel_BTF.to(device)
        window_BWTF = windows(log_mel_BTF, batch.num_frames_B, frames=crop_frames)
        clean_BTF = normalize(window_BWTF.flatten(0, 1), **normalization._asdict())
        with autocast(device, dtype):
            tokens = encoder(clean_BTF).float()
        tokens_BWND = tokens.unflatten(0, window_BWTF.shape[:2])
        cls_BD, mean_BD = tokens_BWND[:, :, 0].mean(1), tokens_BWND[:, :, 1:].mean((1, 2))
        match features:
            case "mean":
                return mean_BD
            case "cls":
                return cls_BD
            case "both":
                return torch.cat([mean_BD, cls_BD], dim=1)

    collected = _collect((batch, vectors(batch)) for batch in batches)
    encoder.train(was_training)
    return collected


def statistics_vectors(batches: Iterable[ClipBatch]) -> ClipVectors:
    """Mean and deviation of every mel bin: the row any encoder has to beat."""
    return _collect(
        (batch, log_mel_statistics(batch.log_mel_BTF.float(), batch.num_frames_B))
        for batch in batches
    )


def _collect(pairs: Iterable[tuple[ClipBatch, Tensor]]) -> ClipVectors:
    clip_ids: list[str] = []
    vectors, labels, folds = [], [], []
    for batch, vector_BD in pairs:
        clip_ids.extend(batch.clip_ids)
        vectors.append(vector_BD.cpu())
        labels.append(batch.label_B)
        folds.append(batch.fold_B)
    return ClipVectors(clip_ids, torch.cat(vectors), torch.cat(labels), torch.cat(folds))
