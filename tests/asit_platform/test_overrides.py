import pytest

from asit_platform.errors import PlatformError
from asit_platform.overrides import apply_override, parse_override


def apply(content, *options):
    for option in options:
        apply_override(content, parse_override(option))
    return content


def test_values_are_yaml():
    content = apply({}, "a.b=1e-5", "a.c=[1, 2]", "d=null", "e=", "f=x=y", "g={h: true}")
    assert content == {
        "a": {"b": 1e-5, "c": [1, 2]},
        "d": None,
        "e": None,
        "f": "x=y",
        "g": {"h": True},
    }


def test_the_last_one_wins_and_null_becomes_a_mapping():
    assert apply({"a": None}, "a.b=1", "a.b=2") == {"a": {"b": 2}}


def test_a_parameters_own_name_is_one_key():
    content = {"search": {"parameters": {"pretrain.masking.ratio": {"min": 0.3, "max": 0.8}}}}
    apply(
        content,
        "search.parameters.pretrain.masking.ratio.max=0.9",
        "search.parameters.pretrain.epochs={min: 1, max: 2}",
        "search.parameters.probe.k=null",
        "search.parameters.max={values: [1]}",
    )
    assert content["search"]["parameters"] == {
        "pretrain.masking.ratio": {"min": 0.3, "max": 0.9},
        "pretrain.epochs": {"min": 1, "max": 2},
        "probe.k": None,
        "max": {"values": [1]},
    }


@pytest.mark.parametrize("option", ["abc", "=3", "a..b=3", ".a=3", ""])
def test_what_is_no_assignment_is_refused(option):
    with pytest.raises(PlatformError, match=r"must be dotted\.key=value"):
        parse_override(option)


def test_errors_name_the_option():
    with pytest.raises(PlatformError, match=r"^-S a=\[, line 1"):
        parse_override("a=[")
    with pytest.raises(PlatformError, match=r"^-S name\.x=3: name must be a mapping, but got 'q'$"):
        apply({"name": "q"}, "name.x=3")
