import json
import math
import shutil
from typing import Any, Literal

import optuna
import pytest
from optuna.trial import TrialState

from asit_platform.spec import ParameterSpec
from asit_platform.study.scheduler import create_asha
from asit_platform.study.searcher import SearchSpace, StudySearcher
from asit_platform.study.store import open_study

Method = Literal["tpe", "random"]
PARAMETERS = {
    "ratio": ParameterSpec(min=0.3, max=0.8),
    "temperature": ParameterSpec(min=0.02, max=0.1, log=True),
    "prototypes": ParameterSpec(min=64, max=512),
    "align": ParameterSpec(values=[True, False]),
    "betas": ParameterSpec(values=[[0.9, 0.95], [0.9, 0.999]]),
}


def create_searcher(
    record, *, num_samples=6, method: Method = "tpe", scheduler=None, concurrent=False
) -> StudySearcher:
    return StudySearcher(
        record,
        space=SearchSpace(method, 0, PARAMETERS, num_samples),
        metric="probe/accuracy",
        mode="max",
        num_epochs=4,
        trial_seed=7,
        concurrent=concurrent,
        scheduler=scheduler,
    )


def suggest(searcher: StudySearcher, trial_id: str) -> dict[str, Any]:
    config = searcher.suggest(trial_id)
    assert isinstance(config, dict)
    return config


def report(epoch, value):
    metrics = {"epoch": epoch, "probe/accuracy": value, "loss/total": 1.0}
    told = {"epoch": epoch, "probe/accuracy": value, "metrics": json.dumps(metrics)}
    return {**told, "finished": True} if epoch == 4 else told


def run(searcher, trial_id, values, *, stop_at=None):
    """What Tune calls for one trial: the last result comes with the completion only."""
    config = suggest(searcher, trial_id)
    last = stop_at or len(values)
    for epoch, value in enumerate(values[: last - 1], start=1):
        searcher.on_trial_result(trial_id, report(epoch, value))
    searcher.on_trial_complete(trial_id, result=report(last, values[last - 1]))
    return config


def score(config):
    params = json.loads(config["params"])
    return [params["ratio"] * epoch / 4 for epoch in (1, 2, 3, 4)]


def run_to_end(searcher, prefix="t"):
    configs = []
    while True:
        trial_id = f"{prefix}{len(configs)}"
        config = searcher.suggest(trial_id)
        if config == "FINISHED":
            return configs
        for epoch, value in enumerate(score(config)[:-1], start=1):
            searcher.on_trial_result(trial_id, report(epoch, value))
        searcher.on_trial_complete(trial_id, result=report(4, score(config)[-1]))
        configs.append(config)


def test_only_the_last_epoch_makes_a_row_complete(open_toy, study_folder):
    with open_toy() as record:
        searcher = create_searcher(record)
        run(searcher, "a", [0.1, 0.2, 0.3, 0.4])
        run(searcher, "b", [0.1, 0.15, 0.2, 0.3], stop_at=2)

    complete, pruned = open_study(study_folder).trials
    assert (complete.state, complete.value) == ("COMPLETE", 0.4)
    assert complete.curve == {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}
    assert complete.seed == 7
    assert complete.folder == study_folder / "trials" / "0000"
    assert complete.metrics["loss/total"] == 1.0
    assert (pruned.state, pruned.value) == ("PRUNED", 0.15)
    assert pruned.curve == {1: 0.1, 2: 0.15}
    assert pruned.reason == "stopped by the scheduler at epoch 2 of 4"


def test_errors_and_numbers_that_are_none_fail_with_a_reason(open_toy, study_folder):
    with open_toy() as record:
        searcher = create_searcher(record)
        searcher.set_error_source({"a": "ValueError: boom"}.get)
        searcher.suggest("a")
        searcher.on_trial_result("a", report(1, 0.1))
        searcher.on_trial_complete("a", error=True)
        searcher.suggest("b")
        searcher.on_trial_complete("b", result=report(1, math.nan))
        searcher.suggest("c")
        searcher.on_trial_complete("c", error=True)

    rows = open_study(study_folder).trials
    assert [row.state for row in rows] == ["FAIL"] * 3
    assert [row.value for row in rows] == [None] * 3
    assert [row.reason for row in rows] == [
        "ValueError: boom",
        "probe/accuracy is nan at epoch 1",
        "it ended without a word",
    ]
    assert rows[0].curve == {1: 0.1}
    assert rows[1].curve == {}


def test_what_a_dead_driver_left_is_handed_out_first_under_its_own_row(open_toy, study_folder):
    with open_toy() as record:
        searcher = create_searcher(record)
        run(searcher, "a", [0.1, 0.2, 0.3, 0.4])
        left = suggest(searcher, "b")
        searcher.on_trial_result("b", report(1, 0.25))
    untouched = open_study(study_folder).trials[0]

    with open_toy() as record:
        searcher = create_searcher(record)
        resumed = run(searcher, "again", [0.25, 0.3, 0.35, 0.5])
        following = suggest(searcher, "c")

    rows = open_study(study_folder).trials
    assert resumed == left
    assert following["number"] == 2
    assert [row.number for row in rows] == [0, 1, 2]
    assert rows[0] == untouched
    assert (rows[1].state, rows[1].value) == ("COMPLETE", 0.5)
    assert rows[1].curve == {1: 0.25, 2: 0.3, 3: 0.35, 4: 0.5}


def test_an_end_that_was_decided_but_not_told_is_told_by_the_next_driver(
    open_toy, study_folder, monkeypatch
):
    with open_toy() as record:
        searcher = create_searcher(record)
        searcher.suggest("a")
        searcher.on_trial_result("a", report(1, 0.1))
        with monkeypatch.context() as patch:
            patch.setattr(optuna.Study, "tell", kill)
            with pytest.raises(SystemExit):
                searcher.on_trial_complete("a", result=report(2, 0.2))
    assert open_study(study_folder).trials[0].state == "RUNNING"

    with open_toy() as record:
        assert suggest(create_searcher(record), "b")["number"] == 1

    row = open_study(study_folder).trials[0]
    assert (row.state, row.value, row.curve) == ("PRUNED", 0.2, {1: 0.1, 2: 0.2})


def kill(*_arguments, **_keywords):
    raise SystemExit


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, open_study_record):
    """Eight rows drawn by one driver, five before TPE begins; and the folder after seven."""
    folder, copy = (tmp_path_factory.mktemp(name) / "toy" for name in ("whole", "copy"))
    with open_study_record(folder) as record:
        configs = run_to_end(create_searcher(record, num_samples=7))
        shutil.copytree(folder, copy)
        configs += run_to_end(create_searcher(record, num_samples=8), prefix="u")
    return configs, copy


def test_draws_depend_on_seed_and_number_only(open_toy, undisturbed):
    disturbed = []
    for num_samples in (2, 7, 8):  # a new driver each time, and the study grows
        with open_toy() as record:
            searcher = create_searcher(record, num_samples=num_samples)
            disturbed += run_to_end(searcher, prefix=f"{num_samples}-")

    assert disturbed == undisturbed[0]
    assert len({config["params"] for config in disturbed}) == 8


def test_random_draws_are_as_repeatable(open_toy, undisturbed):
    with open_toy() as record:
        configs = run_to_end(create_searcher(record, num_samples=2, method="random"))
        configs += run_to_end(create_searcher(record, num_samples=3, method="random"), prefix="u")

    # Until TPE begins it draws at random too, from the same streams.
    assert configs == undisturbed[0][:3]


@pytest.mark.parametrize("num_drawn", [0, 1, 3])
def test_a_row_killed_while_it_was_drawn_gets_the_draw_it_would_have_had(
    open_toy, undisturbed, study_folder, num_drawn
):
    shutil.copytree(undisturbed[1], study_folder)
    with open_toy() as record:
        searcher = create_searcher(record, num_samples=8)
        drawn = dict(list(PARAMETERS.items())[:num_drawn])
        searcher._space = searcher._space._replace(parameters=drawn)
        searcher.suggest("killed")
    with open_toy() as record:
        resumed = suggest(create_searcher(record, num_samples=8), "again")

    assert resumed == undisturbed[0][7]


def test_parameters_keep_their_types(undisturbed):
    for params in (json.loads(config["params"]) for config in undisturbed[0]):
        assert 0.3 <= params["ratio"] <= 0.8
        assert 0.02 <= params["temperature"] <= 0.1
        assert isinstance(params["prototypes"], int)
        assert isinstance(params["align"], bool)
        assert params["betas"] in ([0.9, 0.95], [0.9, 0.999])


def test_an_epoch_that_was_not_measured_has_no_place_in_the_curve(open_toy, study_folder):
    with open_toy() as record:
        searcher = create_searcher(record)
        searcher.suggest("a")
        unmeasured = {"epoch": 1, "metrics": json.dumps({"epoch": 1, "loss/total": 2.0})}
        searcher.on_trial_result("a", unmeasured)
        assert open_study(study_folder).trials[0].metrics == {"epoch": 1, "loss/total": 2.0}
        searcher.on_trial_complete("a", result=report(4, 0.4))

    row = open_study(study_folder).trials[0]
    assert (row.state, row.curve) == ("COMPLETE", {4: 0.4})


def test_trials_at_the_same_time_are_different(open_toy, undisturbed, study_folder):
    shutil.copytree(undisturbed[1], study_folder)
    with open_toy() as record:
        searcher = create_searcher(record, num_samples=12, concurrent=True)
        together = [suggest(searcher, f"t{i}") for i in range(4)]

    assert len({config["params"] for config in together}) == 4


def test_a_trial_taken_back_before_it_ran_is_not_lost(open_toy):
    with open_toy() as record:
        searcher = create_searcher(record)
        first = suggest(searcher, "a")
        searcher.on_trial_complete("a")
        assert record.rows(TrialState.RUNNING)[0].number == 0
    with open_toy() as record:
        assert suggest(create_searcher(record), "b") == first


def test_a_new_driver_judges_by_what_earlier_ones_saw(open_toy):
    with open_toy() as record:
        searcher = create_searcher(record)
        for index, level in enumerate((0.5, 0.6, 0.7)):
            run(searcher, f"t{index}", [level] * 4)
    with open_toy() as record:
        asha = create_asha(
            metric="probe/accuracy", mode="max", num_epochs=4, grace_period=2, reduction_factor=3
        )
        create_searcher(record, scheduler=asha)

    trial = type("Trial", (), {"trial_id": "new"})()
    asha.on_trial_add(None, trial)  # pyright: ignore[reportArgumentType]
    assert asha.on_trial_result(None, trial, report(1, 0.1)) == "CONTINUE"  # pyright: ignore
    assert asha.on_trial_result(None, trial, report(2, 0.1)) == "STOP"  # pyright: ignore


def test_a_resumed_trial_is_not_stopped_where_it_has_passed(open_toy):
    with open_toy() as record:
        searcher = create_searcher(record)
        searcher.suggest("slow")
        for epoch in (1, 2):
            searcher.on_trial_result("slow", report(epoch, 0.1))
        for index, level in enumerate((0.5, 0.6, 0.7)):
            run(searcher, f"t{index}", [level] * 4)
    with open_toy() as record:
        asha = create_asha(
            metric="probe/accuracy", mode="max", num_epochs=4, grace_period=2, reduction_factor=3
        )
        searcher = create_searcher(record, scheduler=asha)
        assert suggest(searcher, "again")["number"] == 0

    trial = type("Trial", (), {"trial_id": "again"})()
    asha.on_trial_add(None, trial)  # pyright: ignore[reportArgumentType]
    decisions = [asha.on_trial_result(None, trial, report(epoch, 0.1)) for epoch in (1, 2, 3)]  # pyright: ignore
    assert decisions == ["CONTINUE"] * 3
