"""`cluster.yaml`: legal to Ray's launcher, and its set-up works where there is nothing."""

import subprocess
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def config():
    # Ray's own check needs Ray's own preparation first.
    prepared = prepare_config(yaml.safe_load((REPOSITORY / "cluster.yaml").read_text()))
    validate_config(prepared)
    return prepared


def test_the_head_only_drives_and_gpu_workers_come_and_go(config):
    nodes = config["available_node_types"]
    head = nodes.pop(config["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    (worker,) = nodes.values()
    assert worker["resources"]["GPU"] >= 1
    assert worker["min_workers"] == 0 < worker["max_workers"]


def test_ray_is_started_from_the_environment_that_is_set_up(config):
    starts = [
        command
        for command in config["head_start_ray_commands"] + config["worker_start_ray_commands"]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert all("~/asit/.venv/bin/ray start" in command for command in starts)
    assert "--num-cpus=0" in starts[0]
    assert config["setup_commands"][-1] == "~/asit/.venv/bin/asit doctor"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_setup_commands_work_in_an_empty_environment(config, empty_machine):
    home, environment = empty_machine
    assert config["file_mounts"] == {"~/asit": "."}
    printed = ""
    for command in config["setup_commands"]:
        done = run(command, home, environment)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        printed += done.stdout
    assert "ray cluster: starts" in printed
    # The same `make setup` again installs nothing, until the lock changes.
    assert "pip install" not in run("make -n -C ~/asit setup", home, environment).stdout
    (home / "asit" / "requirements.lock").touch()
    assert "pip install" in run("make -n -C ~/asit setup", home, environment).stdout


def run(command, home, environment):
    return subprocess.run(
        ["bash", "-c", command], cwd=home, env=environment, capture_output=True, text=True
    )
