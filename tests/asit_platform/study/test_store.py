import sqlite3
import threading

import pytest

from asit_platform.errors import PlatformError
from asit_platform.study.record import Ending
from asit_platform.study.store import (
    best_config,
    export_rows,
    find_study,
    list_studies,
    open_study,
)


@pytest.fixture
def studied(open_toy, study_folder):
    """Three complete rows, one that failed and one that runs."""
    with open_toy() as record:
        for number, value in enumerate((0.5, 0.7, 0.7)):
            trial = record.study.ask()
            trial.suggest_float("x", 0.0, 1.0)
            record.start(number, seed=3)
            record.finish(number, Ending(state="COMPLETE", epoch=4, value=value))
        record.study.ask()
        record.finish(3, Ending(state="FAIL", epoch=None, value=None, reason="ValueError: x"))
        record.study.ask()
    return study_folder


def test_a_view_holds_what_was_written(studied):
    view = open_study(studied)

    assert (view.name, view.num_epochs) == ("toy", 4)
    assert view.metric == {"name": "probe/accuracy", "goal": "maximize", "at": "last"}
    assert view.spec["search"]["num_samples"] == 12
    assert view.attributes["data_fingerprint"] == "cafe"
    assert [row.state for row in view.trials] == ["COMPLETE"] * 3 + ["FAIL", "RUNNING"]
    assert view.trials[3].reason == "ValueError: x"
    assert view.trials[4].folder == studied / "trials" / "0004"
    assert view.result is None


def test_the_best_is_complete_and_the_earliest_of_equals(studied):
    best = open_study(studied).best

    assert best is not None
    assert best.number == 1


def test_the_best_of_a_metric_that_is_minimised(open_toy, study_folder):
    with open_toy(metric={"name": "loss", "goal": "minimize", "at": "last"}) as record:
        for number, value in enumerate((0.5, 0.2, 0.7)):
            record.study.ask()
            record.finish(number, Ending(state="COMPLETE", epoch=4, value=value))

    best = open_study(study_folder).best
    assert best is not None
    assert best.number == 1


def test_export_lists_params_seed_state_and_value(studied):
    rows = export_rows(open_study(studied))

    assert [set(row) for row in rows] == [
        {"number", "params", "seed", "state", "value", "transductive"}
    ] * 5
    assert rows[1]["value"] == 0.7
    assert rows[1]["seed"] == 3
    assert 0.0 <= rows[1]["params"]["x"] <= 1.0
    assert rows[3]["value"] is None


def test_the_best_configuration_is_read_from_its_folder(studied):
    folder = studied / "trials" / "0001"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("trial: {pretrain: {epochs: 4}}\nseed: 0\n")

    assert best_config(studied.parent, "toy") == {"pretrain": {"epochs": 4}}


def test_a_study_without_a_complete_trial_has_no_best(open_toy, study_folder):
    with open_toy():
        pass

    assert open_study(study_folder).best is None
    with pytest.raises(PlatformError, match="study 'toy' has no complete trial yet"):
        best_config(study_folder.parent, "toy")


def test_studies_are_found_by_name_and_by_folder(studied, tmp_path):
    root = studied.parent

    assert list_studies(root) == [studied]
    assert list_studies(tmp_path / "nowhere") == []
    assert find_study(root, "toy") == studied
    assert find_study(tmp_path / "nowhere", str(studied)) == studied
    with pytest.raises(PlatformError, match=r"no study 'tyo' in .*: did you mean 'toy'"):
        find_study(root, "tyo")
    with pytest.raises(PlatformError, match="it holds no study; --results names another"):
        find_study(tmp_path / "nowhere", "toy")


def test_a_study_that_is_just_being_created_is_empty(tmp_path):
    (tmp_path / "study.db").touch()
    assert open_study(tmp_path).trials == []

    sqlite3.connect(tmp_path / "study.db").close()
    assert open_study(tmp_path).trials == []


def test_a_file_that_is_no_study_is_named(tmp_path):
    with pytest.raises(PlatformError, match=r"holds no study \(study.db is missing\)"):
        open_study(tmp_path)
    (tmp_path / "study.db").write_text("no database, but long enough to be looked at closely")
    with pytest.raises(PlatformError, match=r"study\.db: cannot be read as a study") as caught:
        open_study(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_study_is_read_while_it_is_written(open_toy, study_folder):
    errors, stop = [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                open_study(study_folder)
            except Exception as error:
                errors.append(error)
                return

    with open_toy() as record:
        reader = threading.Thread(target=read)
        reader.start()
        for number in range(10):
            record.study.ask()
            for epoch in range(1, 4):
                record.report(number, epoch=epoch, value=0.5, metrics={}, elapsed_s=1.0)
            record.finish(number, Ending(state="COMPLETE", epoch=4, value=0.5))
        stop.set()
        reader.join()

    assert errors == []
    assert len(open_study(study_folder).trials) == 10
