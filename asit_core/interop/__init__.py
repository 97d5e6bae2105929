"""Models of other programs, both ways: ASiT, SSAST, AST, Hugging Face's AST, ImageNet weights."""

from asit_core.interop.asit import from_asit, to_asit
from asit_core.interop.ast import from_ast, to_ast
from asit_core.interop.conversion import Conversion, ImportOptions, convert, load_any, read_any
from asit_core.interop.huggingface import from_huggingface, to_huggingface
from asit_core.interop.imagenet import from_imagenet
from asit_core.interop.layouts import DESCRIPTIONS, Layout, detect
from asit_core.interop.ssast import from_ssast, to_ssast
from asit_core.interop.weights import LoadedModel, ModelWeights, build, read_model, save_model

__all__ = [
    "DESCRIPTIONS",
    "Conversion",
    "ImportOptions",
    "Layout",
    "LoadedModel",
    "ModelWeights",
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
