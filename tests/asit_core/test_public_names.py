import json
import subprocess
import sys

import pytest

import asit_core

UNWANTED = {
    "ray", "pydantic", "typer", "plotly", "optuna", "scipy", "sklearn", "torchmetrics",
    "asit_platform", "transformers",
}  # fmt: skip
_TIME = """
import time
started = time.perf_counter()
import torch
torch_s = time.perf_counter() - started
import asit_core
print(time.perf_counter() - started - torch_s)
"""


def _run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_asit_core_brings_nothing_heavy():
    """Neither alone nor when every public name is used."""
    script = (
        "import asit_core, json, sys; before = sorted(sys.modules);"
        "[getattr(asit_core, name) for name in asit_core.__all__];"
        "print(json.dumps([before, sorted(sys.modules)]))"
    )
    before, after = ({name.split(".")[0] for name in part} for part in json.loads(_run(script)))
    assert not UNWANTED & before
    assert not {"torch", "timm", "torchaudio"} & before
    assert {"torch", "timm", "torchaudio"} <= after
    assert not UNWANTED & after


def test_every_public_name_is_there():
    assert asit_core.__all__ == list(asit_core._MODULE_OF)
    assert set(asit_core.__all__) <= set(dir(asit_core))
    for name in asit_core.__all__:
        value = getattr(asit_core, name)
        assert value is getattr(sys.modules[f"asit_core.{asit_core._MODULE_OF[name]}"], name)
        if callable(value):
            assert value.__doc__, f"{name} has no docstring"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'asit_core' has no attribute 'embed'"):
        asit_core.embed  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.slow
def test_importing_costs_less_than_two_and_a_half_seconds_more_than_torch():
    assert min(float(_run(_TIME)) for _ in range(3)) < 2.5
