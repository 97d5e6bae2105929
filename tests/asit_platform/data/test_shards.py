import hashlib

import pyarrow as pa

from asit_platform.data.manifest import MANIFEST_SCHEMA
from asit_platform.data.shards import plan_shards, planned_clips


def table(num_clips: int, *, num_folds: int = 1) -> pa.Table:
    rows = [
        {
            "clip_id": f"{number:05d}",
            "path": "x.wav",
            "labels": [number * 2 // num_clips],
            "fold": number % num_folds + 1,
            "source": "x",
            "start_s": 0.0,
            "stop_s": None,
        }
        for number in range(num_clips)
    ]
    return pa.Table.from_pylist(rows, schema=MANIFEST_SCHEMA)


def test_large_folds_are_split_evenly_and_labels_mixed() -> None:
    clips = table(130)
    plans = plan_shards(clips)
    assert [len(plan.rows) for plan in plans] == [43, 43, 44]
    assert sorted(row for plan in plans for row in plan.rows) == list(range(130))
    for plan in plans:
        assert 10 < sum(label for (label,) in planned_clips(clips, plan)["labels"].to_pylist()) < 34


def test_each_shard_is_of_one_fold_in_the_order_of_hashes() -> None:
    clips = table(500, num_folds=3)
    by_fold: dict[int, list[str]] = {}
    for plan in plan_shards(clips):
        part = planned_clips(clips, plan)
        assert set(part["fold"].to_pylist()) == {plan.fold}
        assert plan.file.startswith(f"shards/fold{plan.fold}-")
        by_fold.setdefault(plan.fold, []).extend(part["clip_id"].to_pylist())
    for fold, clip_ids in by_fold.items():
        expected = [f"{number:05d}" for number in range(fold - 1, 500, 3)]
        assert clip_ids == sorted(expected, key=lambda each: hashlib.sha256(each.encode()).digest())


def test_names_and_numbers_follow_the_order() -> None:
    plans = plan_shards(table(300, num_folds=2))
    assert [plan.number for plan in plans] == list(range(6))
    assert [plan.file for plan in plans] == sorted(plan.file for plan in plans)
