from pathlib import Path

import pytest
import ray

from asit_platform.errors import PlatformError
from asit_platform.study.run import describe_result
from asit_platform.study.store import open_study

pytestmark = pytest.mark.ray


def read_log(folder: Path) -> list[str]:
    return (folder / "log.txt").read_text().splitlines()


@pytest.fixture(scope="module")
def finished(tiny_data, local_ray, toy_sweep, tmp_path_factory):
    """A sweep of eight trials, one of each kind of trouble among them."""
    results = tmp_path_factory.mktemp("finished")
    faults = {"0001": "once", "0002": "diverges", "0003": "always"}
    functions = toy_sweep.create_functions(faults)
    outcome = toy_sweep.sweep(results, tiny_data, "search.num_samples=8", functions=functions)
    return results, outcome


def test_every_row_says_what_happened(finished):
    view = open_study(finished[0] / "toy")
    rows = {row.number: row for row in view.trials}

    assert sorted(rows) == list(range(8))
    assert rows[2].state == rows[3].state == "FAIL"
    assert rows[2].reason == "loss/total is nan at epoch 2"
    assert rows[3].reason == "RuntimeError: it never works"
    others = [row for number, row in rows.items() if number not in (2, 3)]
    assert {row.state for row in others} == {"COMPLETE", "PRUNED"}
    for row in others:
        last = 4 if row.state == "COMPLETE" else 2
        assert list(row.curve) == list(range(1, last + 1))
        assert row.value == row.curve[last]
        assert row.metrics["loss/total"] == 1 / last


def test_a_trial_that_failed_once_went_on_where_it_was(finished):
    starts = [line for line in read_log(finished[0] / "toy/trials/0001") if "start" in line]

    assert starts == ["start at epoch 1", "start at epoch 2"]


def test_what_cannot_get_better_is_not_tried_again(finished):
    log = read_log(finished[0] / "toy/trials/0002")

    assert [line for line in log if "start" in line] == ["start at epoch 1"]


def test_a_complete_trial_has_written_its_files(finished):
    for row in open_study(finished[0] / "toy").trials:
        assert ("written" in read_log(row.folder)) == (row.state == "COMPLETE")


def test_the_result_is_measured_with_fresh_seeds_on_the_test_fold(finished):
    result, view = finished[1].result, open_study(finished[0] / "toy")

    assert view.result == result
    assert view.best is not None
    assert result["best"]["number"] == view.best.number
    assert result["best"]["selected_value"] == view.best.value
    rows = {row["name"]: row for row in result["rows"]}
    assert rows["pretrained"]["seeds"] == rows["untrained"]["seeds"] == [1, 2]
    assert rows["untrained"]["values"] == pytest.approx([0.301, 0.302])
    assert rows["log_mel_statistics"]["values"] == [0.25]
    assert rows["log_mel_statistics"]["ci95"] is None
    ratio = view.best.params["pretrain.masking.ratio"]
    assert rows["pretrained"]["values"] == pytest.approx([ratio + 0.001, ratio + 0.002])
    against = {difference["against"]: difference for difference in result["differences"]}
    assert against["untrained"]["mean"] == pytest.approx(ratio - 0.3)
    assert against["log_mel_statistics"]["n"] == 2
    text = "\n".join(describe_result(finished[1]))
    assert "(selected, optimistic)" in text
    assert "synthetic" in text


def test_a_second_run_starts_nothing(finished, tiny_data, toy_sweep, monkeypatch):
    results, outcome = finished
    before = {path: path.read_text() for path in results.glob("toy/**/log.txt")}
    monkeypatch.setattr(ray, "is_initialized", fail)

    again = toy_sweep.sweep(results, tiny_data, "search.num_samples=8")

    assert again.result["rows"] == outcome.result["rows"]
    assert before == {path: path.read_text() for path in results.glob("toy/**/log.txt")}


def fail():
    raise AssertionError("Ray is not needed")


def test_a_study_that_grows_keeps_what_it_has(finished, tiny_data, toy_sweep):
    results, _ = finished
    earlier = open_study(results / "toy").trials
    logs = {row.number: read_log(row.folder) for row in earlier}

    outcome = toy_sweep.sweep(results, tiny_data, "search.num_samples=10", "result.seeds=3")

    rows = open_study(results / "toy").trials
    assert [row.number for row in rows] == list(range(10))
    assert rows[:8] == earlier
    assert logs == {row.number: read_log(row.folder) for row in rows[:8]}
    assert outcome.result["rows"][0]["seeds"] == [1, 2, 3]


def test_another_spec_is_refused(finished, tiny_data, toy_sweep):
    with pytest.raises(PlatformError, match=r"trial\.pretrain\.epochs: 4 -> 5") as caught:
        toy_sweep.sweep(finished[0], tiny_data, "trial.pretrain.epochs=5")

    assert "-S name=toy-2" in str(caught.value)


def test_a_fold_that_is_not_there_is_refused(tmp_path, tiny_data, toy_sweep):
    with pytest.raises(PlatformError, match=r"split must name folds .* but got \[9\]"):
        toy_sweep.sweep(tmp_path, tiny_data, "split.test=9")


def test_a_sweep_in_which_nothing_works_says_why(tmp_path, tiny_data, local_ray, toy_sweep):
    functions = toy_sweep.create_functions({"0000": "diverges", "0001": "diverges"})
    with pytest.raises(PlatformError, match="none of its 2 trials reached") as caught:
        toy_sweep.sweep(tmp_path, tiny_data, "search.num_samples=2", functions=functions)

    assert "loss/total is nan at epoch 2" in str(caught.value)
