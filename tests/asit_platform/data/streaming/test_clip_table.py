"""Labels of each kind, and clips drawn by how rare their classes are."""

from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from asit_core.sampling import balanced_weights, occurrence_ids, sample_clips
from asit_platform.data.source import ClipSource
from asit_platform.data.stream import ClipStream, read_all
from asit_platform.data.streaming.clip_table import ClipTable, count_repeats

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


@pytest.fixture(scope="module")
def multi(
    local_ray: None,
    write_dataset: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> ClipSource:
    folder = tmp_path_factory.mktemp("multi") / "dataset"
    return ClipSource.open(
        write_dataset(folder, num_shards=6, clips_per_shard=9, label_kind="multi")
    )


def held_labels(source: ClipSource) -> dict[str, list[int]]:
    rows = source.clips.select(["clip_id", "labels"]).to_pylist()
    return {row["clip_id"]: row["labels"] for row in rows}


def test_one_label_a_clip(held: ClipSource) -> None:
    labels = held_labels(held)
    for batch in read_all(held, [2]):
        assert batch.labels_BC is None
        assert batch.label_B.dtype == torch.int64
        assert [[label] for label in batch.label_B.tolist()] == [
            labels[clip_id] for clip_id in batch.clip_ids
        ]


def test_any_number_of_labels_a_clip(multi: ClipSource) -> None:
    labels = held_labels(multi)
    assert {len(held) for held in labels.values()} == {0, 1, 2}
    for batch in read_all(multi, [1, 2], 8):
        assert batch.labels_BC is not None
        assert batch.labels_BC.dtype == torch.float32
        for clip_id, label, labels_C in zip(
            batch.clip_ids, batch.label_B.tolist(), batch.labels_BC, strict=True
        ):
            assert labels_C.nonzero().flatten().tolist() == labels[clip_id]
            assert labels_C.max() <= 1.0
            assert label == (labels[clip_id][0] if len(labels[clip_id]) == 1 else -1)


def test_no_labels_at_all(write_dataset: Callable[..., Path], tmp_path: Path) -> None:
    source = ClipSource.open(
        write_dataset(tmp_path / "dataset", num_shards=2, label_kind="none"), mode="streamed"
    )
    (batch,) = read_all(source, [1])
    assert batch.labels_BC is None
    assert batch.label_B.tolist() == [-1] * 16
    with pytest.raises(ValueError, match=r"labels of clip '.*' must hold a class"):
        ClipStream(source, folds=[1], seed=0, batch_size=8, weights="balanced")


def test_balanced_draws_are_those_of_the_library(held: ClipSource) -> None:
    clips = ClipStream(held, folds=[1], seed=5, batch_size=48, weights="balanced")
    table = ClipTable(held, [1])
    names, labels = table.names(np.arange(len(table))), held_labels(held)
    weights = balanced_weights(names, [labels[name] for name in names], num_classes=5)
    drawn = sample_clips(weights, num_draws=240, seed=5, epoch=2)
    expected = Counter(names[position] for position in drawn.tolist())
    seen = list(chain.from_iterable(batch.clip_ids for batch in clips.epoch(2)))
    assert Counter(name.partition("#")[0] for name in seen) == expected
    assert len(set(seen)) == len(seen) == 240
    assert sorted(occurrence_ids([name.partition("#")[0] for name in seen])) == sorted(seen)


def test_balanced_is_the_same_streamed_and_resumed(held: ClipSource, streamed: ClipSource) -> None:
    settings = {"folds": [1, 2], "seed": 0, "batch_size": 16, "weights": "balanced"}
    whole = list(ClipStream(held, **settings).epoch(1))
    rest = list(ClipStream(streamed, **settings).epoch(1, first_step=9))
    assert [batch.clip_ids for batch in whole[9:]] == [batch.clip_ids for batch in rest]
    for one, other in zip(whole[9:], rest, strict=True):
        assert torch.equal(one.log_mel_BTF, other.log_mel_BTF)


def test_rare_classes_come_as_often_as_common_ones(
    write_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    # six clips a shard in classes 0 to 4, and 0 again
    source = ClipSource.open(write_dataset(tmp_path / "dataset", num_shards=8, clips_per_shard=6))
    settings = {"folds": [1, 2], "seed": 0, "batch_size": 48, "donor_group": 1}
    counts: Counter[int] = Counter()
    for epoch in range(50):
        for batch in ClipStream(source, **settings, weights="balanced").epoch(epoch):
            counts.update(batch.label_B.tolist())
    # 2400 draws in five classes: the deviation of a count is 20
    assert all(abs(counts[label] - 480) < 100 for label in range(5))
    uniform = Counter(
        chain.from_iterable(
            batch.label_B.tolist() for batch in ClipStream(source, **settings).epoch(0)
        )
    )
    assert uniform == {0: 16, 1: 8, 2: 8, 3: 8, 4: 8}


def test_repeats_are_counted_in_the_order_of_the_epoch() -> None:
    position_SB = np.array([[3, 1, 3], [3, 0, 1]])
    assert count_repeats(position_SB).tolist() == [[0, 0, 1], [2, 0, 1]]
