import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asit_platform.errors import PlatformError
from asit_platform.yaml_file import format_yaml, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1.5E3", 1500.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("1.", 1.0),
        ("010", 10),
        ("0o17", 15),
        ("0x10", 16),
        ("on", "on"),
        ("off", "off"),
        ("no", "no"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("true", True),
        ("~", None),
        ("", None),
        ("'1e-5'", "1e-5"),
    ],
)
def test_plain_scalars_mean_what_they_look_like(text, value):
    read = parse_yaml(f"key: {text}", source="t")["key"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("text", ["a: 1\na: 2", "b: {a: 1, a: 2}"])
def test_a_key_that_appears_twice_is_refused(text):
    with pytest.raises(PlatformError, match=r"t\.yaml, line \d, column \d+: key 'a' appears twice"):
        parse_yaml(text, source="t.yaml")


def test_anchors_and_merge_keys_are_read():
    content = parse_yaml("x: &x {a: 1}\ny: {<<: *x, b: 2}", source="t")
    assert content["y"] == {"a": 1, "b": 2}


@pytest.mark.parametrize("text", ["a: [", "a: !!python/name:os.system", "a: !!int x", "[1]: 2"])
def test_what_is_no_plain_yaml_gets_one_line(text):
    with pytest.raises(PlatformError) as caught:
        parse_yaml(text, source="t.yaml")
    assert str(caught.value).startswith("t.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{1: 2}", "t.yaml: keys must be strings, but got 1; quote it or correct it"),
        ("a: {b: [{true: 2}]}", "t.yaml: a.b.0: keys must be strings, but got true; quote it"),
        ("a: {~: 2}", "t.yaml: a: keys must be strings, but got null; quote it"),
        ("&a [*a]", "t.yaml: 0: an alias must not stand for what it is part of"),
        ("b: &a {c: {d: *a}}", "t.yaml: b.c.d: an alias must not stand for what it is part of"),
        ("[" * 5000, "t.yaml: is nested too deeply; write fewer levels"),
    ],
)
def test_what_no_config_can_hold_is_refused_with_its_path(text, line):
    with pytest.raises(PlatformError) as caught:
        parse_yaml(text, source="t.yaml")
    assert str(caught.value).startswith(line)


def test_aliases_of_aliases_are_looked_at_once():
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40)]
    content = parse_yaml("\n".join(["a0: &a0 [x]", *levels]), source="t")
    assert content["a1"] == [["x"]] * 9


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(PlatformError, match=r"missing\.yaml: no such file"):
        read_yaml(tmp_path / "missing.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(PlatformError, match=r"list\.yaml: must be a mapping .* but got \[1\]"):
        read_yaml(tmp_path / "list.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(PlatformError, match=r"binary\.yaml: cannot be read as text"):
        read_yaml(tmp_path / "binary.yaml")


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
words = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=8)
tricky = st.sampled_from(["1e-5", "on", "no", "010", "12:30", "null", "~", "", "2024-01-01", "="])


@given(st.dictionaries(words, scalars | words | tricky | st.lists(scalars | tricky, max_size=3)))
def test_what_is_written_is_read_back(content):
    assert parse_yaml(format_yaml(content), source="t") == content
