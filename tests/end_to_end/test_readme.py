"""What README shows must run."""

import re
import subprocess
from pathlib import Path

import pytest

from asit_platform.spec import load_sweep
from asit_platform.yaml_file import parse_yaml, read_yaml

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_library_example_runs():
    (example,) = blocks("python")
    names: dict = {}
    exec(example, names)
    assert names["tokens_BND"].shape == (8, 1 + 8 * 8, 96)


def test_the_yaml_is_legal_and_in_the_words_of_the_quickstart(tmp_path):
    (example,) = blocks("yaml")
    path = tmp_path / "sweep.yaml"
    path.write_text(example)
    load_sweep(path)
    quickstart = read_yaml(REPOSITORY / "sweeps" / "quickstart.yaml")
    shown = parse_yaml(example, source="README.md")
    same = ("name", "question", "base", "data", "split", "metric", "scheduler")
    assert {key: shown[key] for key in same} == {key: quickstart[key] for key in same}
    assert shown["search"]["parameters"].items() <= quickstart["search"]["parameters"].items()
    assert shown["trial"]["pretrain"].items() <= quickstart["trial"]["pretrain"].items()


def test_the_demo_prepares_whatever_lies_there_already(tmp_path):
    (tmp_path / "Makefile").write_text((REPOSITORY / "Makefile").read_text())
    for name in ("pyproject.toml", "requirements.lock", ".venv/.installed"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "demo" / "esc50").mkdir(parents=True)
    (tmp_path / "demo" / "esc50" / "dataset.json").touch()
    command = ["make", "-n", "-C", str(tmp_path), "demo", "DATA=B"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 'asit data prepare esc50 --root "B"' in done.stdout


def test_the_options_shown_are_legal():
    shown = [option for option in re.findall(r"-S (\S+=\S+)", README) if "data=" not in option]
    assert len(shown) >= 4
    load_sweep(REPOSITORY / "sweeps" / "quickstart.yaml", [o.rstrip("'") for o in shown])


@pytest.mark.parametrize("name", re.findall(r"\]\((?!https?:)([^)]+)\)", README))
def test_links_lead_somewhere(name):
    assert (REPOSITORY / name).exists()


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)", README, flags=re.MULTILINE))
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE)
