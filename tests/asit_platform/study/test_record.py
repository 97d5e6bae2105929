import copy
import os
import subprocess
import sys
import textwrap

import optuna
import pytest

from asit_platform.errors import PlatformError
from asit_platform.study.record import StudyIdentity, compare_specs, open_record
from asit_platform.study.store import open_storage, open_study


@pytest.fixture
def spec(open_toy) -> dict:
    """A copy of the spec of a study that is already there."""
    with open_toy() as record:
        return copy.deepcopy(record.study.user_attrs["spec"])


def test_a_second_driver_is_refused(open_toy):
    with (
        open_toy(),
        pytest.raises(PlatformError, match=f"is being run by process {os.getpid()} on .* since"),
        open_toy(),
    ):
        pass


def test_the_lock_of_a_killed_driver_is_free(open_toy, study_folder):
    code = f"""
        import os, signal
        from pathlib import Path
        from asit_platform.study.record import _lock
        folder = Path({str(study_folder)!r})
        folder.mkdir(parents=True)
        with _lock(folder, "toy"):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert killed.returncode == -9
    assert (study_folder / "driver.lock").is_file()

    with open_toy():
        pass


def test_another_spec_says_what_differs_and_how_to_go_on(open_toy, spec, study_folder):
    spec["trial"]["pretrain"]["epochs"] = 20
    spec["search"]["parameters"]["y"] = {"min": 0, "max": 1}
    (study_folder.parent / "toy-2").mkdir()

    with pytest.raises(PlatformError) as caught, open_toy(spec=spec):
        pass

    assert str(caught.value).splitlines() == [
        f"study 'toy' in {study_folder.parent} was made with another spec:",
        "  search.parameters.y.max: (absent) -> 1",
        "  search.parameters.y.min: (absent) -> 0",
        "  trial.pretrain.epochs: 4 -> 20",
        "give the new one its own name (-S name=toy-3), or take the changes back to go on with "
        "the old one",
    ]


def test_other_data_are_refused(open_toy, spec):
    with pytest.raises(PlatformError, match="the data set: cafe -> beef"):
        with open_toy(spec=spec, data_fingerprint="beef"):
            pass


def test_a_study_may_grow_and_run_elsewhere(open_toy, spec, study_folder):
    spec["search"]["num_samples"] = 50
    spec["question"] = "Which x, really?"
    spec["resources"] = {"num_workers": 2}

    with open_toy(spec=spec):
        pass

    view = open_study(study_folder)
    assert view.spec == spec


def test_fewer_samples_than_trials_are_refused(open_toy, spec):
    with open_toy() as record:
        for _ in range(3):
            record.study.ask()
    spec["search"]["num_samples"] = 2

    with pytest.raises(PlatformError, match=r"num_samples must be >= 3, .* but got 2"):
        with open_toy(spec=spec):
            pass


def test_a_driver_killed_before_it_wrote_its_spec_is_no_obstacle(open_toy, study_folder):
    study_folder.mkdir(parents=True)
    with open_storage(study_folder / "study.db") as storage:
        optuna.create_study(storage=storage, study_name="toy", direction="maximize")

    with open_toy() as record:
        assert record.study.user_attrs["spec"]["name"] == "toy"
    assert (study_folder / "spec.yaml").is_file()


def create_identity(name: str) -> StudyIdentity:
    return StudyIdentity(
        name=name,
        spec={},
        metric={"name": "x", "goal": "minimize", "at": "last"},
        num_epochs=1,
        data_fingerprint="",
        asit_version="",
    )


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "results").write_text("a file, no folder")

    with pytest.raises(PlatformError, match=r"cannot be written .*--results DIR") as caught:
        with open_record(tmp_path / "results" / "toy", create_identity("toy")):
            pass

    assert "\n" not in str(caught.value)


def test_a_storage_that_is_no_database_is_one_line(tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "study.db").write_text("not a database, but long enough to look like one")

    with pytest.raises(PlatformError, match=r"study\.db: cannot be written") as caught:
        with open_record(tmp_path / "toy", create_identity("toy")):
            pass

    assert "\n" not in str(caught.value)


def test_errors_inside_a_run_are_not_the_storages(open_toy):
    with pytest.raises(FileNotFoundError, match="mine"), open_toy():
        raise FileNotFoundError("mine")


def test_specs_are_compared_by_dotted_path():
    old = {"a": {"b": 1, "c": []}, "question": "x", "result": {"seeds": 3}}
    new = {"a": {"b": 2, "c": [1]}, "question": "y", "result": {"seeds": 5}}

    assert compare_specs(old, new) == ["a.b: 1 -> 2", "a.c: [] -> [1]"]
    assert compare_specs(old, old) == []


def test_elapsed_time_adds_up_over_drivers(open_toy, study_folder):
    for _ in range(2):
        with open_toy() as record:
            record.add_elapsed(1.5)

    assert open_study(study_folder).attributes["elapsed_s"] == 3.0
