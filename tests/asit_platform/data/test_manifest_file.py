import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from asit_platform.data.manifest_file import read_manifest
from asit_platform.errors import PlatformError


def test_a_csv_with_every_column(tmp_path: Path) -> None:
    path = tmp_path / "birds.csv"
    path.write_text(
        "source,clip_id,path,labels,fold,start_s,stop_s\n"
        'r1,007,"a, ""b"".wav",rain;dog,2,1.5,3\n'
        "r1,-x,/elsewhere/x.wav,dog,1,0,\n"
        "r2,y,s3://bucket/y.wav,,1,0,\n"
    )
    manifest = read_manifest(path)
    assert (manifest.listing.name, manifest.listing.label_kind) == ("birds", "multi")
    assert manifest.listing.label_names == ("dog", "rain")
    assert manifest.clips.to_pylist() == [
        {
            "clip_id": clip_id,
            "path": where,
            "labels": labels,
            "fold": fold,
            "source": source,
            "start_s": start_s,
            "stop_s": stop_s,
        }
        for clip_id, where, labels, fold, source, start_s, stop_s in (
            ("-x", "/elsewhere/x.wav", [0], 1, "r1", 0.0, None),
            ("007", str(tmp_path / 'a, "b".wav'), [1, 0], 2, "r1", 1.5, 3.0),
            ("y", "s3://bucket/y.wav", [], 1, "r2", 0.0, None),
        )
    ]


def test_columns_that_may_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "plain.csv"
    path.write_text("clip_id,path\na,a.wav\nb,b.wav\n")
    manifest = read_manifest(path)
    assert (manifest.listing.label_kind, manifest.listing.label_names) == ("none", ())
    assert manifest.clips["fold"].to_pylist() == [1, 1]
    assert manifest.clips["source"].to_pylist() == ["a", "b"]
    assert manifest.clips["labels"].to_pylist() == [[], []]


def test_labels_that_are_numbers_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "numbers.csv"
    path.write_text("clip_id,path,labels\na,a.wav,10\nb,b.wav,9\nc,c.wav,10\nd,d.wav,9\n")
    manifest = read_manifest(path)
    assert (manifest.listing.label_kind, manifest.listing.label_names) == ("single", ("9", "10"))
    assert manifest.clips["labels"].to_pylist() == [[1], [0], [1], [0]]


def test_numbers_that_are_equal_as_numbers_have_one_order(tmp_path: Path) -> None:
    path = tmp_path / "numbers.csv"
    path.write_text("clip_id,path,labels\na,a.wav,001;01;1;02;2;0\n")
    names = ("0", "1", "01", "001", "2", "02")
    assert read_manifest(path).listing.label_names == names


def test_label_numbers_with_gaps_are_no_labels_without_clips(tmp_path: Path) -> None:
    table = pa.table(
        {"path": list("abcd"), "clip_id": list("abcd"), "labels": [[1], [7], [7], [1]]}
    )
    pq.write_table(table, tmp_path / "mine.parquet")
    manifest = read_manifest(tmp_path / "mine.parquet")
    assert manifest.listing.label_names == ("1", "7")
    assert manifest.clips["labels"].to_pylist() == [[0], [1], [1], [0]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"labels": [[0, None], [0]]}, "labels must be numbers, but 1 inside the lists are null"),
        ({"labels": [[-1], [0]]}, r"labels must be in \[0, 1\), the label names, but got -1"),
        ({"labels": [[0], [1]]}, r"at least 2 usable clips, but got 0 \(1\), 1 \(1\)"),
        ({"fold": [-1, 1]}, "fold must be >= 0, but got -1"),
        ({"stop_s": [float("nan"), 1.0]}, "stop_s finite and greater"),
        ({"path": ["http://h/a.wav", "b"]}, "must be a local path or begin with file:"),
    ],
)
def test_a_parquet_that_will_not_do(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    table = pa.table({"path": ["a", "b"], "clip_id": ["a", "b"], **columns})
    pq.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(PlatformError, match=message) as caught:
        read_manifest(tmp_path / "m.parquet")
    assert "\n" not in str(caught.value)


def test_somebodys_parquet(tmp_path: Path) -> None:
    table = pa.table({"path": ["a.wav", "b.wav"], "clip_id": ["a", "b"], "labels": [[1], [0, 2]]})
    pq.write_table(table, tmp_path / "mine.parquet")
    manifest = read_manifest(tmp_path / "mine.parquet")
    assert manifest.listing.label_names == ("0", "1", "2")
    assert manifest.listing.label_kind == "multi"
    assert manifest.clips["path"].to_pylist()[0] == str(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"m\.csv: must be a readable csv file, but Empty CSV"),
        ("clip_id,path\n", r"m\.csv: must list at least one clip"),
        ("clip,path\na,a.wav\n", r"but clip_id is missing \(found: clip, path\)"),
        ("clip_id,path\na,a.wav\na,b.wav\n", r"'a' is listed 2 times"),
        ("clip_id,path,fold\na,a.wav,two\n", r"invalid value 'two'"),
        ("clip_id,path,fold\na,a.wav,\n", r"fold must be given for every clip, but 1 of 1"),
        ("clip_id,path\na,a.wav,3\n", r"Expected 2 columns, got 3"),
        ('clip_id;path\na;"b;c.wav"\n', r"but clip_id, path is missing \(found: clip_id;path\)"),
    ],
)
def test_a_csv_that_will_not_do(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(PlatformError, match=message) as caught:
        read_manifest(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.parquet", b"PAR1 and no more", r"must be a readable parquet file"),
        ("m.csv", b"clip_id,path\n\xff\xfe,a.wav\n", r"must be a readable csv file, but .*UTF8"),
        ("m.json", b"{}", r"a manifest must be a \.parquet or \.csv file"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PlatformError, match=message):
        read_manifest(tmp_path / name)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=r"none\.csv: manifest must exist, but it does not"):
        read_manifest(tmp_path / "none.csv")


def test_metadata_that_are_not_ours(tmp_path: Path) -> None:
    table = pa.table({"path": ["a.wav"], "clip_id": ["a"]})
    table = table.replace_schema_metadata({"asit.listing": json.dumps({"name": "x"})})
    pq.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(PlatformError, match=r"its metadata are malformed \(KeyError: 'synthetic'"):
        read_manifest(tmp_path / "m.parquet")
