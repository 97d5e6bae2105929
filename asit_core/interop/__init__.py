"""Models of other programs, both ways: ASiT, SSAST, AST, Hugging Face's AST, ImageNet weights."""

from asit_core.foreign_files import DESCRIPTIONS, Layout
from asit_core.interop.asit import Network, from_asit, to_asit
from asit_core.interop.ast import from_ast, to_ast
from asit_core.interop.conversion import (
    Conversion,
    ImportOptions,
    Target,
    convert,
    load_any,
    read_any,
)
from asit_core.interop.huggingface import from_huggingface, to_huggingface
from asit_core.interop.imagenet import Channels, from_imagenet
from asit_core.interop.layouts import detect
from asit_core.interop.ssast import SsastPool, from_ssast, to_ssast
from asit_core.model_file import read_model, save_model
from asit_core.model_weights import LoadedModel, ModelWeights, build

__all__ = [
    "DESCRIPTIONS",
    "Channels",
    "Conversion",
    "ImportOptions",
    "Layout",
    "LoadedModel",
    "ModelWeights",
    "Network",
    "SsastPool",
    "Target",
    "build",
    "convert",
    "detect",
    "from_asit",
    "from_ast",
    "from_huggingface",
    "from_imagenet",
    "from_ssast",
    "load_any",
    "read_any",
    "read_model",
    "save_model",
    "to_asit",
    "to_ast",
    "to_huggingface",
    "to_ssast",
]
