from collections import Counter
from dataclasses import replace

import pytest

from asit_platform.data.listing import Clip
from asit_platform.data.readers.splits import (
    assemble,
    count_warnings,
    deal_folds,
    missing_warning,
)
from asit_platform.errors import PlatformError


def clip(clip_id: str, *labels: int, fold: int = 1) -> Clip:
    return Clip(clip_id=clip_id, path=clip_id, labels=labels, fold=fold, source=clip_id)


def test_folds_are_dealt_evenly_within_each_label_and_do_not_depend_on_the_order() -> None:
    groups = [(f"{label}-{number}", (label,)) for label in range(3) for number in range(20)]
    folds = deal_folds(groups, 5)
    assert folds == deal_folds(reversed(groups), 5)
    counts = Counter((source[0], fold) for source, fold in folds.items())
    assert set(counts.values()) == {4}
    assert set(folds.values()) == {1, 2, 3, 4, 5}
    in_order = [folds[f"0-{number}"] for number in range(20)]
    assert in_order != [number % 5 + 1 for number in range(20)]  # neighbours are no cycle


def test_rare_combinations_of_labels_are_spread_over_the_folds() -> None:
    folds = deal_folds([(str(number), (number, number + 1)) for number in range(50)], 5)
    assert set(Counter(folds.values()).values()) == {10}


def test_clips_of_one_recording_share_a_fold() -> None:
    folds = deal_folds([("a", (0,)), ("a", (1,)), ("b", (0,)), ("c", (1,))], 2)
    assert set(folds) == {"a", "b", "c"}


def test_one_fold_is_none() -> None:
    with pytest.raises(PlatformError, match="--folds must be at least 2, but got 1"):
        deal_folds([("a", (0,))], 1)


def test_counts_are_compared_part_by_part() -> None:
    assert count_warnings({"train": 1200, "test": 5}, {"train": 1000, "test": 5}) == [
        "train: 1,200 clips officially, but 1,000 here (-200)"
    ]


def test_missing_files_are_a_warning_unless_all_are() -> None:
    assert missing_warning("root", "train", [], num_found=0) == []
    assert missing_warning("root", "train", ["x", "y"], num_found=3) == [
        "train: 2 of 5 listed files not on disk and left out (first: x)"
    ]
    with pytest.raises(PlatformError, match=r"holds none of 2 \(first: x\); pass"):
        missing_warning("root", "train", ["x", "y"], num_found=0)


def test_a_listing_is_ordered_and_says_its_metric_and_splits() -> None:
    clips = [clip("b", 0, fold=3), clip("a", 0, fold=1)]
    listing = assemble(
        "x", clips, name="n", origin={}, label_kind="multi", label_names=["one", "two"]
    )
    assert [found.clip_id for found in listing.clips] == ["a", "b"]
    assert (listing.metric, dict(listing.fold_names)) == ("mAP", {1: "train", 3: "test"})


def test_recordings_in_two_folds_are_a_warning_unless_the_set_means_it() -> None:
    clips = [
        replace(clip(f"{source}{fold}", fold=fold), source=source)
        for source, fold in [("a", 1), ("a", 2), ("b", 1), ("b", 3), ("c", 2), ("noise", 1)]
    ]
    clips.append(replace(clip("noise2", fold=2), source="noise"))
    listing = assemble("x", clips, name="n", origin={}, label_kind="none", shared=["noise"])
    assert listing.warnings == (
        "x: 2 recordings lie in two folds (first: 'a'), so one is trained on what another is "
        "measured on; give each recording one fold",
    )
    shared = ["a", "b", "noise"]
    named = assemble("x", clips, name="n", origin={}, label_kind="none", shared=shared)
    assert named.warnings == ()


def test_a_listing_must_have_clips_and_each_once() -> None:
    with pytest.raises(PlatformError, match="x: must list at least one clip"):
        assemble("x", [], name="n", origin={}, label_kind="none")
    with pytest.raises(PlatformError, match="'a' is listed 2 times"):
        assemble("x", [clip("a"), clip("a")], name="n", origin={}, label_kind="none")
