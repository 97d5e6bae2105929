"""What an installation must keep: the standard library's `platform`, small bases, one set-up."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def run(*command, cwd, env=None):
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_standard_librarys_platform_survives_in_the_repository(tmp_path):
    script = "import platform; print(platform.python_version())"
    expected = ".".join(map(str, sys.version_info[:3]))
    assert run(sys.executable, "-c", script, cwd=REPOSITORY).strip() == expected
    assert run(sys.executable, "-m", "platform", cwd=REPOSITORY)
    # A script in the root sees what lies beside it first: here the root's own entries, linked.
    for entry in REPOSITORY.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    (tmp_path / "script.py").write_text(script)
    assert run(sys.executable, "script.py", cwd=tmp_path).strip() == expected


@pytest.mark.parametrize("folder", ["platform", "dashboards", "tests", "tests/asit_platform"])
def test_folders_that_are_no_packages_stay_so(folder):
    assert not (REPOSITORY / folder / "__init__.py").exists()
    assert not (REPOSITORY / "tests" / "platform").exists()


def test_importing_asit_core_brings_neither_ray_nor_the_platform():
    script = (
        "import asit_core.presets, asit_core.probe, asit_core.pretrainer, asit_core.waveform, sys;"
        "print(sorted({name.split('.')[0] for name in sys.modules}))"
    )
    loaded = set(re.findall(r"'(\w+)'", run(sys.executable, "-c", script, cwd=REPOSITORY)))
    assert {"torch", "timm", "asit_core"} <= loaded
    assert not {"ray", "optuna", "pydantic", "typer", "plotly", "asit_platform"} & loaded


@pytest.mark.parametrize(
    "module",
    [
        "asit_platform.analysis.statistics",
        "asit_platform.study.store",
        "asit_platform.study.folders",
        "asit_dashboards.report",
        "asit_dashboards.app",
    ],
)
def test_reading_results_imports_neither_ray_nor_torch(module):
    script = f"import sys, {module}; print({{'ray', 'torch'}} & set(sys.modules))"
    assert run(sys.executable, "-c", script, cwd=REPOSITORY).strip() == "set()"


def test_the_lock_pins_every_dependency_and_names_no_host():
    lock = (REPOSITORY / "requirements.lock").read_text()
    pinned = {line.partition("==")[0] for line in lock.splitlines() if "==" in line}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(name for extra in extras for name in extra)]
    assert {re.split(r"[\[<>=]", name)[0] for name in wanted} <= pinned
    assert "://" not in lock
    assert not re.search(r"^--", lock, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_base_alone_gives_asit_core(empty_machine):
    home, environment = empty_machine
    python, uv = str(home / "clean" / "bin" / "python"), str(Path(sys.executable).parent / "uv")
    run("python3", "-m", "venv", "--without-pip", "clean", cwd=home, env=environment)
    constraints = ("--constraint", str(home / "asit" / "requirements.lock"))
    install = (uv, "pip", "install", "--python", python, *constraints, str(home / "asit"))
    run(*install, cwd=home, env=environment)
    use = "import asit_core.presets as p; print(p.create_config('asit', size='nano'))"
    assert "PretrainConfig" in run(python, "-c", use, cwd=home, env=environment)
    find = "import importlib.util as u; print([u.find_spec(n) for n in ('ray', 'optuna', 'typer')])"
    assert run(python, "-c", find, cwd=home, env=environment).strip() == "[None, None, None]"
    # The command is there too, and says in one line what it lacks.
    asit = home / "clean" / "bin" / "asit"
    done = subprocess.run([asit], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install '.[platform,dashboards]'" in done.stderr
