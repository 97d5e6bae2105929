import json
import math

import pytest

from asit_platform.analysis.statistics import mean_interval
from asit_platform.errors import PlatformError
from asit_platform.study.folders import claim_folder, read_json, write_json
from asit_platform.study.result import (
    Outcome,
    ResultJob,
    assemble_result,
    plan_jobs,
    read_outcome,
)

METRIC = "probe/accuracy"


@pytest.fixture
def jobs(tmp_path) -> list[ResultJob]:
    return plan_jobs(tmp_path, [1, 2, 3], lambda row, seed: f"{row}-{seed}")


def measure(jobs: list[ResultJob], **values: list[float]) -> list[Outcome]:
    left = {name: list(numbers) for name, numbers in values.items()}
    return [Outcome(job, {METRIC: left[job.row].pop(0)}) for job in jobs]


def test_every_run_has_its_own_folder_and_the_long_ones_come_first(jobs, tmp_path):
    assert [str(job.folder.relative_to(tmp_path)) for job in jobs] == [
        "result/seed1",
        "result/seed2",
        "result/seed3",
        "baselines/untrained-seed1",
        "baselines/untrained-seed2",
        "baselines/untrained-seed3",
        "baselines/log_mel_statistics",
    ]
    assert jobs[-1].seed is None


def test_differences_are_paired_by_seed(jobs):
    outcomes = measure(
        jobs, pretrained=[0.7, 0.8, 0.6], untrained=[0.6, 0.7, 0.5], log_mel_statistics=[0.55]
    )

    result = assemble_result(outcomes[::-1], metric=METRIC, about={"study": "toy"})

    assert result["study"] == "toy"
    pretrained, untrained, statistics = result["rows"]
    assert pretrained["seeds"] == [1, 2, 3]
    assert pretrained["values"] == [0.7, 0.8, 0.6]
    assert pretrained["ci95"] == list(mean_interval([0.7, 0.8, 0.6]).interval or ())
    assert untrained["mean"] == pytest.approx(0.6)
    assert (statistics["seeds"], statistics["values"], statistics["ci95"]) == ([], [0.55], None)
    against_untrained, against_statistics = result["differences"]
    assert against_untrained["mean"] == pytest.approx(0.1)
    assert against_untrained["ci95"] == pytest.approx([0.1, 0.1])
    assert against_statistics["mean"] == pytest.approx(0.15)
    assert against_statistics["n"] == 3
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("metrics", [{METRIC: math.nan}, {"loss/total": 0.1}])
def test_a_run_without_a_number_is_named(jobs, metrics):
    outcomes = measure(
        jobs, pretrained=[0.7, 0.8, 0.6], untrained=[0.6, 0.7, 0.5], log_mel_statistics=[0.55]
    )
    outcomes[1] = Outcome(jobs[1], metrics)

    with pytest.raises(PlatformError, match=r"result/seed2: probe/accuracy must be a number"):
        assemble_result(outcomes, metric=METRIC, about={})


def test_only_an_outcome_of_the_same_configuration_counts(jobs):
    job = jobs[0]
    assert read_outcome(job) is None
    job.folder.mkdir(parents=True)
    write_json(job.folder / "outcome.json", {"fingerprint": "other", "metrics": {METRIC: 0.1}})
    assert read_outcome(job) is None
    write_json(
        job.folder / "outcome.json", {"fingerprint": job.fingerprint, "metrics": {METRIC: 0.2}}
    )
    assert read_outcome(job) == {METRIC: 0.2}


def test_a_folder_is_kept_for_its_own_run_and_emptied_for_another(tmp_path):
    folder = tmp_path / "trials" / "0000"
    claim_folder(folder, "mine")
    (folder / "checkpoint").write_text("half way")

    claim_folder(folder, "mine")
    assert (folder / "checkpoint").exists()

    claim_folder(folder, "yours")
    assert not (folder / "checkpoint").exists()
    assert read_json(folder / "identity.json") == {"fingerprint": "yours"}


def test_a_json_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "outcome.json"
    assert read_json(path) == {}
    path.write_text('{"metrics": ')
    assert read_json(path) == {}
    write_json(path, {"a": 1})
    assert read_json(path) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["outcome.json"]
