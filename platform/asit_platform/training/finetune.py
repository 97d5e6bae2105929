"""Plain fine-tuning: random crops, cross entropy, AdamW; scored over windows."""

import torch
from torch import Tensor

from asit_core.classifier import Classifier, FinetuneConfig, finetune_step, windows
from asit_core.encoder import SpectrogramEncoder
from asit_core.precision import autocast_dtype
from asit_core.schedules import cosine
from asit_core.views import ViewsConfig, make_views, normalize
from asit_platform.data.stream import ClipSource, ClipStream, read_all
from asit_platform.training.worker import Normalization


def finetune(
    encoder: SpectrogramEncoder,
    config: FinetuneConfig,
    *,
    seed: int,
    source: ClipSource,
    folds: tuple[int, ...],
    num_classes: int,
    normalization: Normalization,
    crop_frames: int,
) -> Classifier:
    """Train a classifier on some folds, from a copy of the encoder; one worker."""
    stream = ClipStream(source, folds=folds, seed=seed, batch_size=config.batch_size, donor_group=1)
    device = encoder.cls_token.device
    classifier = Classifier(encoder, num_classes=num_classes, seed=seed).to(device)
    decaying = [p for p in classifier.parameters() if p.ndim > 1]
    others = [p for p in classifier.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decaying}, {"params": others, "weight_decay": 0.0}],
        lr=config.lr,
        weight_decay=config.weight_decay,
    )
    dtype = autocast_dtype(config.precision, device)
    views = ViewsConfig(
        num_views=1, crop_frames=crop_frames, roll_probability=config.roll_probability
    )
    total_steps, step = config.epochs * stream.steps_per_epoch, 0
    for epoch in range(config.epochs):
        for batch in stream.epoch(epoch):
            crop_BTF = make_views(
                batch.log_mel_BTF.to(device),
                batch.num_frames_B,
                batch.clip_ids,
                views,
                seed=seed,
                epoch=epoch,
            )[0]
            for group in optimizer.param_groups:
                group["lr"] = cosine(
                    step,
                    base=config.lr,
                    final=0.0,
                    total_steps=total_steps,
                    warmup_steps=round(config.warmup_ratio * total_steps),
                )
            finetune_step(
                classifier,
                optimizer,
                normalize(crop_BTF, **normalization._asdict()),
                batch.label_B.to(device),
                label_smoothing=config.label_smoothing,
                dtype=dtype,
            )
            step += 1
    return classifier


@torch.no_grad()
def predict(
    classifier: Classifier,
    *,
    source: ClipSource,
    folds: tuple[int, ...],
    normalization: Normalization,
    crop_frames: int,
) -> tuple[list[str], Tensor, Tensor]:
    """Clip ids, probabilities (M, C) averaged over windows, and labels (M,)."""
    classifier.eval()
    device = classifier.encoder.cls_token.device
    clip_ids: list[str] = []
    scores, labels = [], []
    for batch in read_all(source, folds):
        window_BWTF = windows(batch.log_mel_BTF.to(device), batch.num_frames_B, frames=crop_frames)
        clean_BTF = normalize(window_BWTF.flatten(0, 1), **normalization._asdict())
        logits = classifier(clean_BTF).unflatten(0, window_BWTF.shape[:2])
        scores.append(logits.softmax(-1).mean(1).cpu())
        labels.append(batch.label_B)
        clip_ids.extend(batch.clip_ids)
    return clip_ids, torch.cat(scores), torch.cat(labels)
