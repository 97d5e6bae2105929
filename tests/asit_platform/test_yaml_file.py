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
