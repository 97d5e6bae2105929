"""What README shows must run."""

import dataclasses
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

import asit_core
from asit_core.checkpoint import Checkpoint
from asit_platform.spec import load_sweep
from asit_platform.yaml_file import parse_yaml, read_yaml

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_library_examples_run(tmp_path, monkeypatch):
    pretraining, embedding = blocks("python")
    assert 'size="base"' in pretraining
    names: dict = {}
    exec(pretraining.replace('size="base"', 'size="nano"'), names)
    losses = names["report"].losses
    assert list(losses) == ["reconstruction", "patch_distillation", "clip_distillation"]
    assert all(loss.isfinite() for loss in losses.values())

    monkeypatch.chdir(tmp_path)
    encoder = names["model"].encoder
    asit_core.save_checkpoint(
        Path("model.safetensors"),
        Checkpoint(
            {f"encoder.{name}": value for name, value in encoder.state_dict().items()},
            {
                "kind": "encoder",
                "encoder": dataclasses.asdict(encoder.config),
                "input_frames": 128,
                "front_end": dataclasses.asdict(names["front_end"].config),
                "normalization": names["normalization"],
            },
        ),
    )
    soundfile.write("dog.wav", np.sin(np.arange(2 * 44100) / 20), 44100)
    exec(embedding, names)
    assert names["clip_vector"].shape == (96,)
    assert names["frame_matrix"].shape == (len(names["frame_time_s"]), 96)


def test_the_yaml_is_legal_and_in_the_words_of_the_quickstart(tmp_path):
    (example,) = blocks("yaml")
    path = tmp_path / "sweep.yaml"
    path.write_text(example)
    load_sweep(path)
    quickstart = read_yaml(REPOSITORY / "sweeps" / "quickstart.yaml")
    shown = parse_yaml(example, source="README.md")
    same = ("name", "question", "base", "data", "split", "metric", "scheduler", "result")
    assert {key: shown[key] for key in same} == {key: quickstart[key] for key in same}
    assert shown["search"]["parameters"].items() <= quickstart["search"]["parameters"].items()
    assert shown["search"]["num_samples"] == quickstart["search"]["num_samples"]
    seeds = {3: "three", 4: "four", 5: "five"}[quickstart["result"]["seeds"]]
    assert re.search(rf"{seeds}\s+fresh seeds", README)
    assert f"best of {quickstart['search']['num_samples']} configurations" in README
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


@pytest.mark.parametrize("name", re.findall(r"\]\((?!https?:|#)([^)]+)\)", README))
def test_links_lead_somewhere(name):
    assert (REPOSITORY / name).exists()


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)", README, flags=re.MULTILINE))
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE)
