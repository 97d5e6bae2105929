import os
import subprocess
import sys
from pathlib import Path

import pytest

from asit_platform.cluster import ResourceSpec, count_placeable, start_ray
from asit_platform.errors import PlatformError
from asit_platform.validation import InvalidError, validate

REPOSITORY = Path(__file__).parents[2]
LAPTOP = [{"CPU": 2.0}]
GPU_BOX = [{"CPU": 16.0, "GPU": 4.0}]


def spec(**fields):
    return ResourceSpec(**fields)


class TestCountPlaceable:
    @pytest.mark.parametrize(
        ("resources", "nodes", "data_cpus", "expected"),
        [
            (spec(), LAPTOP, 0, 2),
            (spec(), LAPTOP, 1, 1),
            (spec(cpus_per_worker=0.3), [{"CPU": 0.9}], 0, 3),
            (spec(num_workers=2, cpus_per_worker=0.5), LAPTOP, 1, 1),
            (spec(max_concurrent_trials=1), LAPTOP, 0, 1),
            (spec(gpus_per_worker=0.5), GPU_BOX, 1, 8),
            (spec(gpus_per_worker=1, num_workers=2), GPU_BOX, 1, 2),
            (spec(), [{"CPU": 1.0}, {"CPU": 3.0}, {}], 0, 4),
        ],
    )
    def test_trials_that_fit_at_a_time(self, resources, nodes, data_cpus, expected):
        assert count_placeable(resources, nodes, data_cpus=data_cpus) == expected

    @pytest.mark.parametrize(
        ("resources", "nodes", "message"),
        [
            (
                spec(num_workers=2),
                LAPTOP,
                "resources: a trial takes 2 x 1 CPU + 1 CPU to read data = 3 CPU, but Ray has 2; "
                "try -S resources.cpus_per_worker=0.5",
            ),
            (
                spec(),
                [{"CPU": 1.0}],
                "resources: a trial takes 1 x 1 CPU + 1 CPU to read data = 2 CPU, but Ray has 1; "
                "use a larger machine",
            ),
            (
                spec(gpus_per_worker=0.5),
                LAPTOP,
                "resources: a trial takes 1 x 0.5 GPU = 0.5 GPU, but Ray has 0; "
                "-S resources.gpus_per_worker=0 trains on the CPU",
            ),
            (
                spec(cpus_per_worker=4),
                [{"CPU": 3.0}, {"CPU": 3.0, "GPU": 1.0}],
                "resources: a worker takes 4 CPU and 0 GPU on one node, but the nodes have "
                "3 CPU and 0 GPU, 3 CPU and 1 GPU",
            ),
        ],
    )
    def test_what_cannot_be_placed_is_refused_with_the_sum(self, resources, nodes, message):
        with pytest.raises(PlatformError) as caught:
            count_placeable(resources, nodes, data_cpus=1)
        assert str(caught.value) == message

    def test_an_autoscaled_cluster_counts_what_may_come(self):
        resources = spec(gpus_per_worker=1, cpus_per_worker=4)
        limit = {"CPU": 32, "GPU": 4}
        assert count_placeable(resources, [{}], data_cpus=1, autoscaled=limit) == 4
        with pytest.raises(PlatformError, match="but Ray has 4"):
            count_placeable(
                spec(gpus_per_worker=5, cpus_per_worker=4), [{}], data_cpus=1, autoscaled=limit
            )


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"num_workers": 0}, "resources.num_workers must be >= 1, but got 0"),
        ({"cpus_per_worker": 0}, "resources.cpus_per_worker must be > 0, but got 0"),
        ({"gpus_per_worker": -1}, "resources.gpus_per_worker must be >= 0, but got -1"),
        (
            {"max_concurrent_trials": 0},
            "resources.max_concurrent_trials must be >= 1 or null, but got 0",
        ),
    ],
)
def test_impossible_resources_are_refused(content, line):
    with pytest.raises(InvalidError, match=line):
        validate(ResourceSpec, content, path="resources")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_a_cluster_that_does_not_answer_is_named_at_once(address, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(PlatformError, match=f"no Ray cluster answers at '{address}'"), start_ray():
        pass


@pytest.mark.parametrize("address", ["foo", "http://x:y"])
def test_an_address_that_is_none_gets_one_line(address, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(PlatformError, match="set RAY_ADDRESS to host:port") as caught, start_ray():
        pass
    assert "\n" not in str(caught.value)


LIFE_OF_RAY = """
import ray
from asit_platform.cluster import ResourceSpec, preflight, start_ray
from asit_platform.errors import PlatformError

try:
    with start_ray(address="local", object_store_bytes=1):
        raise AssertionError("Ray starts with one byte")
except PlatformError as error:
    assert str(error).startswith("Ray does not start on this machine"), error
    assert "minimum" in str(error), error

with start_ray(address="local", num_cpus=2, object_store_bytes=200 * 2**20):
    with start_ray():
        assert preflight(ResourceSpec(), data_cpus=0) == 2
        assert preflight(ResourceSpec(num_workers=2, cpus_per_worker=0.5)) == 1
    assert ray.is_initialized(), "what was not started here is not ours to stop"

    @ray.remote
    def stdlib_platform():
        import platform
        return platform.python_version()

    print(ray.get(stdlib_platform.remote()))
assert not ray.is_initialized()
"""


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_ray_starts_quietly_and_ends():
    # From the repository root, whose folder `platform` must not hide the standard library's.
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", LIFE_OF_RAY],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ".".join(map(str, sys.version_info[:3]))
    assert done.stderr == ""
