"""Named configurations at named sizes, each a plain config one can print and change.

`asit_presets.py` holds the ASiT family, `masked_presets.py` SSAST, MAE-AST and MaskSpec. `nano` is
for laptops and CI. Besides widths, prototypes and crop it replaces what is made for long runs:
optimizer, epochs, batch and precision, the teacher's momentum and the weights of distillation, the
initial weights and the normalisation. So `asit_code` at `nano` is the released *method* at laptop
size, not the released total, 1 clip + 1 patch + 2 reconstruction: there distillation weighs 0.2.
"""

from asit_core.asit_presets import asit, asit_code, asit_paper
from asit_core.encoder_config import EncoderConfig
from asit_core.masked_presets import mae_ast, maskspec, ssast_frame, ssast_patch
from asit_core.pretrain_config import PretrainConfig
from asit_core.pretrainer import Pretrainer
from asit_core.sizes import SIZES, encoder_config

_PRESETS = {
    "asit": asit,
    "asit_code": asit_code,
    "asit_paper": asit_paper,
    "ssast_patch": ssast_patch,
    "ssast_frame": ssast_frame,
    "mae_ast": mae_ast,
    "maskspec": maskspec,
}
PRESETS = tuple(_PRESETS)
ENCODER_PRESETS = (*PRESETS, "ast")


def create_config(preset: str, *, size: str) -> PretrainConfig:
    """A preset at a size, as a config one can print and change (`dataclasses.replace`).

    Args:
        preset: One of `PRESETS`.
        size: One of `SIZES`: `nano` (encoder and heads about 0.5 M parameters each), `tiny`,
            `small` and `base`.

    Raises:
        ValueError: If preset or size is unknown; the message lists the known ones.
    """
    if preset == "ast":
        raise ValueError(
            f"preset must be one of {', '.join(PRESETS)}, but got 'ast', which is not pre-trained "
            "with a pretext task; see create_encoder_config"
        )
    _check("preset", preset, PRESETS)
    _check("size", size, SIZES)
    return _PRESETS[preset](size)


def create_pretrainer(preset: str, *, size: str, seed: int = 0) -> Pretrainer:
    """A preset's model with its initial weights, on the CPU.

    Args:
        preset: One of `PRESETS`.
        size: One of `SIZES`.
        seed: Decides the initial weights.

    Raises:
        ValueError: If preset or size is unknown; the message lists the known ones.
    """
    return Pretrainer(create_config(preset, size=size), seed=seed)


def create_encoder_config(preset: str, *, size: str) -> EncoderConfig:
    """The encoder of a pre-training preset, or `ast`'s for fine-tuning.

    `ast` has patches of 16 x 16 every 10 frames and bins, two class tokens, and positions cut or
    resized as AST does.

    Args:
        preset: One of `ENCODER_PRESETS`.
        size: One of `SIZES`.

    Raises:
        ValueError: If preset or size is unknown; the message lists the known ones.

    Source: AST (arXiv:2104.01778), Sec. 2.1.
    """
    _check("preset", preset, ENCODER_PRESETS)
    _check("size", size, SIZES)
    if preset != "ast":
        return create_config(preset, size=size).encoder
    return encoder_config(
        size,
        stride_frames=10,
        stride_bins=10,
        num_cls_tokens=2,
        token_order="frequency",
        position_adaptation="ast",
        drop_path_rate=0.0,
    )


def _check(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, but got {value!r}")
