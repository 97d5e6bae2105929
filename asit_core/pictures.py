"""What a pre-trained model saw of a few clips and makes of them, as spectrograms to look at.

Shapes: `B` clips, `T` frames, `F` mel bins, `N` patches, `M` masked ones, `P` values of a patch.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from asit_core.encoder import patch_grid, unpatchify
from asit_core.networks import patch_pixels, take
from asit_core.pretrainer import Pretrainer, PretrainInputs
from asit_core.token_masking import TokenMasks


class Picture(NamedTuple):
    """The first view of each clip, in normalised log-mel units.

    Attributes:
        corrupted_BTF: What the student saw, masked patches as zeros.
        mask_BTF: Boolean, True where something was hidden.
        reconstructed_BTF: What it drew; None without a task that draws. Of a task that draws
            masked patches only, the rest is the input.
    """

    corrupted_BTF: Tensor
    mask_BTF: Tensor
    reconstructed_BTF: Tensor | None


@torch.no_grad()
def picture(pretrainer: Pretrainer, inputs: PretrainInputs) -> Picture:
    """Corrupted pixels and their reconstruction or, without such a task, masked patches.

    Args:
        pretrainer: The model.
        inputs: As `draw_inputs` draws them; stochastic depth is switched off.
    """
    inputs = inputs._replace(drop_path_keys_VB=None)
    if not inputs.token_masks or pretrainer.reconstruction is not None:
        return _of_pixels(pretrainer, inputs)
    return _of_tokens(pretrainer, inputs)


def _of_pixels(pretrainer: Pretrainer, inputs: PretrainInputs) -> Picture:
    corrupted_BTF, reconstructed_BTF = inputs.corrupted_VBTF[0], None
    if pretrainer.reconstruction is not None:
        encoder = pretrainer.student.encoder
        tokens_BND = encoder(corrupted_BTF)
        reconstructed_BTF = pretrainer.reconstruction.reconstruct(
            tokens_BND[:, encoder.num_cls_tokens :]
        )
    mask_BTF = (
        torch.zeros_like(corrupted_BTF, dtype=torch.bool)
        if inputs.mask_VBTF is None
        else inputs.mask_VBTF[0]
    )
    return Picture(corrupted_BTF, mask_BTF, reconstructed_BTF)


def _of_tokens(pretrainer: Pretrainer, inputs: PretrainInputs) -> Picture:
    clean_BTF, regression = inputs.clean_VBTF[0], pretrainer.patch_regression
    # The last pass is the only one, or that of the task that draws if there is one.
    all_masks = list(inputs.token_masks.values())[-1]
    masks = TokenMasks(*(index[: len(clean_BTF)] for index in all_masks))
    pixels_BNP = patch_pixels(clean_BTF, pretrainer.config.encoder)
    index_BMP = masks.masked_BM.unsqueeze(-1).expand(-1, -1, pixels_BNP.shape[2])
    hidden_BNP = torch.zeros_like(pixels_BNP).scatter(1, index_BMP, 1.0)
    reconstructed_BTF = None
    if regression is not None:
        first_view = inputs._replace(clean_VBTF=inputs.clean_VBTF[:1])
        tokens_BMD, _ = pretrainer.masked_patches(first_view, masks)
        drawn_BMP = regression.head(tokens_BMD)
        if regression.normalize_target:
            # The target knew neither mean nor deviation: they are the true patch's.
            true_BMP = take(pixels_BNP, masks.masked_BM)
            variance_BM1, mean_BM1 = torch.var_mean(true_BMP, dim=2, keepdim=True)
            drawn_BMP = drawn_BMP * (variance_BM1 + 1e-6).sqrt() + mean_BM1
        reconstructed_BTF = _from_patches(pretrainer, pixels_BNP.scatter(1, index_BMP, drawn_BMP))
    return Picture(
        _from_patches(pretrainer, pixels_BNP * (1.0 - hidden_BNP)),
        _from_patches(pretrainer, hidden_BNP) > 0.5,
        reconstructed_BTF,
    )


def _from_patches(pretrainer: Pretrainer, pixels_BNP: Tensor) -> Tensor:
    encoder = pretrainer.student.encoder
    pixels_BtfP = patch_grid(pixels_BNP, encoder.grid, encoder.config.token_order)
    return unpatchify(pixels_BtfP.flatten(1, 2), encoder.grid, encoder.config.patch)
