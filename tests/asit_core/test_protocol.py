import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asit_core.protocol import Fold, Measurement, Protocol, split_hash


def _protocol(**changes: object) -> Protocol:
    fields = {
        "dataset": "speech_commands_v2",
        "split_hash": split_hash([Fold(["a", "b"], ["c"])]),
        "num_clips": 11005,
        "num_classes": 35,
        "encoder": "frozen",
        "readout": "linear",
        "metric": "accuracy",
    }
    return Protocol(**(fields | changes))  # pyright: ignore[reportArgumentType]


_CHANGES = {
    "dataset": "speech_commands_v1",
    "split_hash": "feed",
    "num_clips": 11004,
    "num_classes": 12,
    "encoder": "fine-tuned",
    "readout": "knn",
    "metric": "mAP",
    "label_set": "enhanced",
}


def test_results_of_one_protocol_are_ranked_and_subtracted():
    low = Measurement(value=0.5, protocol=_protocol())
    high = Measurement(value=0.75, protocol=_protocol())
    assert high - low == 0.25
    assert low < high
    assert high >= low
    assert max(low, high) is high
    assert sorted([high, low]) == [low, high]


def test_every_field_is_part_of_the_key():
    assert _CHANGES.keys() == {field.name for field in dataclasses.fields(Protocol)}


@pytest.mark.parametrize("name", _CHANGES)
def test_results_of_other_protocols_are_refused_by_name(name):
    """H21: frozen or fine-tuned, 12 or 35 classes, labels raw or enhanced, clips scored."""
    ours = Measurement(value=0.9, protocol=_protocol())
    theirs = Measurement(value=0.8, protocol=_protocol(**{name: _CHANGES[name]}))
    message = rf"but differ in {name} \({getattr(ours.protocol, name)} and {_CHANGES[name]}\)$"
    for compare in (
        lambda: ours - theirs,
        lambda: ours < theirs,
        lambda: ours <= theirs,
        lambda: min(theirs, ours),
    ):
        with pytest.raises(ValueError, match=message):
            compare()
    assert ours != theirs


@settings(deadline=None, max_examples=30)
@given(changed=st.sets(st.sampled_from(sorted(_CHANGES))))
def test_the_difference_names_exactly_what_differs(changed):
    ours, theirs = _protocol(), _protocol(**{name: _CHANGES[name] for name in changed})
    assert (ours == theirs) == (not changed)
    for difference in (ours.difference(theirs), theirs.difference(ours)):
        named = {part.split(" (")[0] for part in difference.split(", ") if part}
        assert named == changed


def test_the_text_names_value_and_key():
    measurement = Measurement(value=0.98123, protocol=_protocol(), left_out=(4,))
    assert str(measurement) == (
        "accuracy 0.9812 on speech_commands_v2, 11005 clips, 35 classes (1 left out)"
    )


@settings(deadline=None, max_examples=30)
@given(names=st.lists(st.text(max_size=5), unique=True, min_size=2), data=st.data())
def test_the_split_hash_knows_roles_and_not_order(names, data):
    cut = data.draw(st.integers(1, len(names) - 1))
    trained, scored = names[:cut], names[cut:]
    found = split_hash([Fold(trained, scored)])
    assert found == split_hash([Fold(trained[::-1], scored[::-1])])
    assert found != split_hash([Fold(scored, trained)])
    assert len(found) == 16


def test_a_clip_has_one_role_in_a_fold():
    with pytest.raises(ValueError, match=r"1 are named twice \(first: 'b'\)"):
        split_hash([Fold(["a"], ["c"]), Fold(["a", "b"], ["b", "c"])])
    with pytest.raises(ValueError, match="must be named once in a fold"):
        split_hash([Fold(["a", "a"], ["c"])])
    with pytest.raises(ValueError, match="folds must hold at least one fold"):
        split_hash([])


def test_five_folds_train_on_and_score_every_clip():
    """ESC-50: each clip is scored once and trained on in the four other folds."""
    groups = [[f"{group}-{clip}" for clip in range(3)] for group in range(5)]
    folds = [
        Fold([clip for other in groups if other is not group for clip in other], group)
        for group in groups
    ]
    found = split_hash(folds)
    assert found == split_hash(folds[::-1])
    assert len({found, *(split_hash([fold]) for fold in folds), split_hash(folds[:4])}) == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": ""}, "dataset must not be empty"),
        ({"num_clips": 0}, "num_clips must be >= 1, but got 0"),
        ({"num_classes": 1}, "num_classes must be >= 2, but got 1"),
        ({"encoder": "frosted"}, "encoder must be one of frozen, fine-tuned, but got 'frosted'"),
        ({"metric": "loss"}, "metric must be one of accuracy, mAP, AUC, d-prime, but got 'loss'"),
        ({"label_set": "new"}, "label_set must be one of raw, enhanced, but got 'new'"),
    ],
)
def test_a_protocol_names_the_field_that_makes_no_sense(changes, message):
    with pytest.raises(ValueError, match=message):
        _protocol(**changes)
