from pathlib import Path

import pytest

from asit_platform.data.readers.tables import Vocabulary, read_table, read_vocabulary
from asit_platform.errors import PlatformError
from asit_platform.storage import Place


def write(path: Path, text: str) -> Place:
    path.write_text(text, encoding="utf-8")
    return Place.of(path)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_reads_any_delimiter_quotes_and_a_byte_order_mark(tmp_path: Path, delimiter: str) -> None:
    lines = ["\ufeffpath,label", '"a, b.wav","say ""hi"""', "c.wav,two\r"]
    text = "\n".join(lines).replace(",", delimiter).replace(f"a{delimiter} b", f"a{delimiter}b")
    rows = read_table(write(tmp_path / "t.csv", text), needed=["path", "label"], remedy="")
    assert [dict(row.values) for row in rows] == [
        {"path": f"a{delimiter}b.wav", "label": 'say "hi"'},
        {"path": "c.wav", "label": "two"},
    ]
    assert [row.line for row in rows] == [2, 3]


def test_a_text_with_commas_and_no_quotes_is_found(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "path,label\na.wav,dog, barking\n")
    with pytest.raises(PlatformError, match=r"line 2: must have 2 values, but has more; put"):
        read_table(table, needed=["path"], remedy="")


@pytest.mark.parametrize("size", [1, 20_000], ids=["to the end", "past the limit of a field"])
def test_a_quote_that_is_not_closed_loses_no_rows(tmp_path: Path, size: int) -> None:
    rows = [f"{number}.wav,dog,{'x' * size}" for number in range(20)]
    rows[5] = '5.wav,dog,"7 inch'
    table = write(tmp_path / "t.csv", "path,label,note\n" + "\n".join(rows) + "\n")
    with pytest.raises(
        PlatformError, match=r"t\.csv: line 7: must be csv, but .*; close"
    ) as caught:
        read_table(table, needed=["path"], remedy="")
    assert "\n" not in str(caught.value)


def test_a_later_quote_does_not_close_it(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", 'path,note\na.wav,"7 inch\nb.wav,\nc.wav,"good"\nd.wav,\n')
    with pytest.raises(PlatformError, match=r"t\.csv: line 2: must be csv, but .*; close"):
        read_table(table, needed=["path"], remedy="")


def test_a_vocabulary_with_a_quote_that_is_not_closed(tmp_path: Path) -> None:
    labels = write(tmp_path / "labels.csv", '0,/m/a,Dog\n1,/m/b,"Rain, heavy\n2,/m/c,Wind\n')
    with pytest.raises(PlatformError, match=r"labels\.csv: line 2: must be csv, but .*; close"):
        read_vocabulary(labels, remedy="")


@pytest.mark.parametrize(
    "text",
    [
        'index,mid,display_name\n0,/m/09x0r,Speech\n1,/m/05zppz,"Male speech, man speaking"\n',
        "0,/m/09x0r,Speech\n1,/m/05zppz,Male speech, man speaking\n",
        '0,Speech,/m/09x0r\n1,"Male speech, man speaking",/m/05zppz\n',
        '1,/m/05zppz,"Male speech, man speaking"\n0,/m/09x0r,Speech\n',
    ],
    ids=["AudioSet", "fairseq", "FSD50K", "another order"],
)
def test_vocabularies_of_all_kinds_say_the_same(tmp_path: Path, text: str) -> None:
    found = read_vocabulary(write(tmp_path / "labels.csv", text), remedy="")
    assert found.names == ("Speech", "Male speech, man speaking")
    assert found.look_up(["/m/05zppz", "/m/09x0r", "/m/05zppz"], where="") == (0, 1)
    assert found.look_up(["Male speech, man speaking"], where="") == (1,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,a\n2,b\n", r"must be 0, 1, 2, \.\.\. and each there once, but got 2 where 1 is due"),
        ("0,a\n0,b\n", r"but got 0 where 1 is due"),
        ("index,name\n", r"but got none"),
        ("0,a\nb,1\n", r"line 2: must be a number and a label, but got 'b,1'"),
        ("0,a\n1,a\n", r"each label must be there once, but 'a' is not"),
    ],
)
def test_malformed_vocabularies(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PlatformError, match=message):
        read_vocabulary(write(tmp_path / "labels.csv", text), remedy="")


def test_a_label_that_is_not_in_the_vocabulary_names_the_near_miss() -> None:
    vocabulary = Vocabulary.of_names(["rain", "dog"], where="labels.csv")
    with pytest.raises(
        PlatformError,
        match=r"^x: label must be in labels\.csv \(2 labels\), but got 'dgo'; did you mean 'dog'\?",
    ):
        vocabulary.look_up(["rain", "dgo"], where="x")


def test_names_that_are_numbers_are_ordered_as_numbers() -> None:
    assert Vocabulary.of_names(["10", "9", "1"], where="").names == ("1", "9", "10")
    assert Vocabulary.of_names(["10", "9", "b"], where="").names == ("10", "9", "b")
