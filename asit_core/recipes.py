"""Published fine-tuning recipes by name: AST, SSAST, SUPERB, EAT, Audio-MAE, M2D, AudioMosaic."""

from collections.abc import Callable

from asit_core import recipes_ast, recipes_masked
from asit_core.recipe import Recipe

_RECIPES: dict[str, Callable[[], Recipe]] = {
    "ast_as20k": recipes_ast.ast_as20k,
    "ast_as2m": recipes_ast.ast_as2m,
    "ast_esc50": recipes_ast.ast_esc50,
    "ast_esc50_imagenet": recipes_ast.ast_esc50_imagenet,
    "ast_scv2": recipes_ast.ast_scv2,
    "ssast_as20k": recipes_ast.ssast_as20k,
    "ssast_esc50": recipes_ast.ssast_esc50,
    "ssast_scv2": recipes_ast.ssast_scv2,
    "superb_ks1": recipes_ast.superb_ks1,
    "superb_er": recipes_ast.superb_er,
    "superb_sid": recipes_ast.superb_sid,
    "eat_as20k": recipes_masked.eat_as20k,
    "eat_esc50": recipes_masked.eat_esc50,
    "eat_scv2": recipes_masked.eat_scv2,
    "audiomae_as20k": recipes_masked.audiomae_as20k,
    "audiomae_as2m": recipes_masked.audiomae_as2m,
    "m2d_as2m": recipes_masked.m2d_as2m,
    "m2d_esc50": recipes_masked.m2d_esc50,
    "m2d_scv2": recipes_masked.m2d_scv2,
    "m2d_vox1": recipes_masked.m2d_vox1,
    "audiomosaic_as20k": recipes_masked.audiomosaic_as20k,
    "audiomosaic_esc50": recipes_masked.audiomosaic_esc50,
}
RECIPES = tuple(_RECIPES)


def create_recipe(name: str) -> Recipe:
    """A published recipe, as a config one can print and change (`dataclasses.replace`).

    Args:
        name: One of `RECIPES`.

    Raises:
        ValueError: If the name is unknown; the message lists the known ones.
    """
    if name not in _RECIPES:
        raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, but got {name!r}")
    return _RECIPES[name]()
