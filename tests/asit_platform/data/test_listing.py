import dataclasses

import pytest

from asit_platform.data.listing import Clip, check_clip_ids, check_labels
from asit_platform.errors import PlatformError

CLIP = Clip(clip_id="a", path="a.wav", labels=(0,), fold=1, source="a")


def clips(*labels: tuple[int, ...]) -> list[Clip]:
    return [
        dataclasses.replace(CLIP, clip_id=f"c{number}", labels=each)
        for number, each in enumerate(labels)
    ]


def test_ids_must_differ() -> None:
    check_clip_ids("x.csv", clips((0,), (0,)))
    check_clip_ids("x.csv", [])
    with pytest.raises(PlatformError, match=r"^x\.csv: each clip must be .* 'a' is listed 3 times"):
        check_clip_ids("x.csv", [*clips((0,)), CLIP, CLIP, CLIP])


def test_a_label_needs_two_clips_where_each_clip_has_one() -> None:
    check_labels("x", clips((0,), (1,), (1,), (0,)), ("dog", "rain"), "single")
    with pytest.raises(PlatformError, match=r"but got rain \(1\), wind \(0\); add clips"):
        check_labels("x", clips((0,), (0,), (1,)), ("dog", "rain", "wind"), "single")


def test_sets_of_several_labels_or_none_are_not_looked_at() -> None:
    check_labels("x", clips((0,), (0, 1)), ("dog", "rain", "wind"), "multi")
    check_labels("x", clips(()), (), "none")
