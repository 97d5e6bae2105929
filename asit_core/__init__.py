"""Self-supervised spectrogram transformers: models, losses, masks and probes. Never imports Ray.

The names below are imported when they are asked for, so that `import asit_core` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asit_core.checkpoint import load_checkpoint, save_checkpoint
    from asit_core.classifier import Classifier
    from asit_core.embedding import Embedding, SpectrogramModel
    from asit_core.encoder import EncoderConfig, SpectrogramEncoder
    from asit_core.interop import convert
    from asit_core.model_file import load
    from asit_core.optim import make_optimizer, schedule_optimizer
    from asit_core.presets import (
        PRESETS,
        SIZES,
        create_config,
        create_encoder_config,
        create_pretrainer,
    )
    from asit_core.pretrain_inputs import PretrainInputs, draw_inputs
    from asit_core.pretrainer import PretrainConfig, Pretrainer
    from asit_core.probe import knn, linear_probe
    from asit_core.recipes import create_recipe
    from asit_core.spectrogram import LogMel, LogMelConfig
    from asit_core.waveform import AudioError, load_waveform

__all__ = [
    "PRESETS",
    "SIZES",
    "AudioError",
    "Classifier",
    "Embedding",
    "EncoderConfig",
    "LogMel",
    "LogMelConfig",
    "PretrainConfig",
    "PretrainInputs",
    "Pretrainer",
    "SpectrogramEncoder",
    "SpectrogramModel",
    "convert",
    "create_config",
    "create_encoder_config",
    "create_pretrainer",
    "create_recipe",
    "draw_inputs",
    "knn",
    "linear_probe",
    "load",
    "load_checkpoint",
    "load_waveform",
    "make_optimizer",
    "save_checkpoint",
    "schedule_optimizer",
]

_MODULE_OF = {
    "PRESETS": "presets",
    "SIZES": "presets",
    "AudioError": "waveform",
    "Classifier": "classifier",
    "Embedding": "embedding",
    "EncoderConfig": "encoder",
    "LogMel": "spectrogram",
    "LogMelConfig": "spectrogram",
    "PretrainConfig": "pretrainer",
    "PretrainInputs": "pretrain_inputs",
    "Pretrainer": "pretrainer",
    "SpectrogramEncoder": "encoder",
    "SpectrogramModel": "embedding",
    "convert": "interop",
    "create_config": "presets",
    "create_encoder_config": "presets",
    "create_pretrainer": "presets",
    "create_recipe": "recipes",
    "draw_inputs": "pretrain_inputs",
    "knn": "probe",
    "linear_probe": "probe",
    "load": "model_file",
    "load_checkpoint": "checkpoint",
    "load_waveform": "waveform",
    "make_optimizer": "optim",
    "save_checkpoint": "checkpoint",
    "schedule_optimizer": "optim",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'asit_core' has no attribute {name!r}")
    value = getattr(import_module(f"asit_core.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
