"""Before and after a probe: the clip vector without a network, and the share of clips got right.

Shape legend: B clips, T frames, F mel bins, M scored clips, C classes.
"""

import torch
from torch import Tensor


def accuracy(scores_MC: Tensor, label_M: Tensor) -> float:
    """Share of clips whose highest score is their label's; the lower class wins a tie.

    Raises:
        ValueError: If there is no clip, the shapes disagree or a score is NaN.
    """
    if scores_MC.ndim != 2 or label_M.shape != scores_MC.shape[:1] or len(label_M) == 0:
        raise ValueError(
            "scores_MC must be (M, C) and label_M (M,) with M >= 1, but got "
            f"{tuple(scores_MC.shape)} and {tuple(label_M.shape)}"
        )
    if scores_MC.isnan().any():
        raise ValueError("scores_MC must not hold NaN")
    return float((scores_MC.argmax(dim=1) == label_M.to(scores_MC.device)).double().mean())


@torch.no_grad()
def log_mel_statistics(log_mel_BTF: Tensor, num_frames_B: Tensor) -> Tensor:
    """Mean and standard deviation of each mel bin over time: a clip vector without a network.

    Args:
        log_mel_BTF: Log-mel spectrograms, padded in time with anything finite.
        num_frames_B: Valid frames of each clip, in [1, T].

    Returns:
        Float32 (B, 2F): F means, then F population deviations (0 for a single frame).

    Raises:
        ValueError: If the shapes disagree or a count is outside [1, T].
    """
    if log_mel_BTF.ndim != 3 or num_frames_B.shape != log_mel_BTF.shape[:1]:
        raise ValueError(
            "log_mel_BTF must be (B, T, F) and num_frames_B (B,), but got "
            f"{tuple(log_mel_BTF.shape)} and {tuple(num_frames_B.shape)}"
        )
    max_frames = log_mel_BTF.shape[1]
    if ((num_frames_B < 1) | (num_frames_B > max_frames)).any():
        raise ValueError(
            f"num_frames_B must be in [1, {max_frames}], but got {num_frames_B.tolist()}"
        )
    log_mel_BTF = log_mel_BTF.float()
    num_frames_B11 = num_frames_B.to(log_mel_BTF.device)[:, None, None]
    frame_T1 = torch.arange(max_frames, device=log_mel_BTF.device)[:, None]
    padding_BT1 = frame_T1 >= num_frames_B11
    total_B1F = log_mel_BTF.masked_fill(padding_BT1, 0.0).sum(dim=1, keepdim=True)
    mean_B1F = total_B1F / num_frames_B11
    deviation_BTF = (log_mel_BTF - mean_B1F).masked_fill(padding_BT1, 0.0)
    variance_BF = deviation_BTF.square().sum(dim=1) / num_frames_B11[:, 0]
    return torch.cat((mean_B1F[:, 0], variance_BF.sqrt()), dim=1)
