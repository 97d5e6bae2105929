"""Tables of text and vocabularies of labels: csv with a header, and index,id,name with or without.

`class_labels_indices.csv` of AudioSet and AST, `label_descriptors.csv` of fairseq and EAT and
`vocabulary.csv` of FSD50K are one thing: a number, an id (a mid such as /m/09x0r) and a name; they
differ in their headers and in the order of id and name.
"""

import csv
import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

from asit_platform.data.readers.files import iterate_lines, read_text
from asit_platform.errors import PlatformError
from asit_platform.storage import Place


class Row(NamedTuple):
    """One row of a table, and the line it ends on."""

    line: int
    values: Mapping[str, str]


def read_table(
    place: Place, *, needed: Sequence[str], remedy: str, delimiter: str | None = None
) -> list[Row]:
    """Read a csv file with a header.

    Args:
        place: The file.
        needed: Columns that must be there.
        remedy: What to do if it is missing.
        delimiter: Found in the header if not given: comma, semicolon, tab or bar.

    Raises:
        PlatformError: If it cannot be read, has no such column, or a row has more values than the
            header has names, as happens where a text with commas is not in double quotes.
    """
    text = read_text(place, remedy=remedy)
    delimiter = delimiter or _delimiter(text)
    rows = iterate_rows(place, text, delimiter=delimiter)
    columns = next(rows, (0, []))[1]
    _check_columns(place, found=columns, needed=needed)
    return [_row(place, line, columns, values) for line, values in rows]


def iterate_rows(
    place: Place, text: str, *, delimiter: str = ",", skip_spaces: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """Rows of a csv that are not empty: the line each ends on, and its values, stripped.

    Args:
        place: The file, for messages.
        text: What it holds.
        delimiter: Between the values.
        skip_spaces: Values may have spaces before their quotes.

    Raises:
        PlatformError: If the quotes are wrong. One that is never closed would else take all the
            rows after it for one value.
    """
    lines = iterate_lines(text)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=skip_spaces, strict=True)
    line = 0
    try:
        for row in reader:
            line = reader.line_num
            if row:
                yield line, [value.strip() for value in row]
    except csv.Error as error:
        raise PlatformError(
            f"{place}: line {line + 1}: must be csv, but {error}; close each double quote, and "
            "write one that belongs to a text twice"
        ) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """Label names in their order, and the number of each, by name and by id.

    Attributes:
        where: The file it came from, for messages.
        names: Name of label 0, 1, ...
        numbers: By name, and by id where there are ids.
    """

    where: str
    names: tuple[str, ...]
    numbers: Mapping[str, int]

    @staticmethod
    def of_names(names: Iterable[str], *, where: str) -> "Vocabulary":
        """The distinct names, sorted; as numbers if all are."""
        distinct = set(names)
        numeric = all(name.isdecimal() for name in distinct)
        ordered = sorted(distinct, key=lambda name: (int(name) if numeric else 0, name))
        numbers = {name: number for number, name in enumerate(ordered)}
        return Vocabulary(where=where, names=tuple(ordered), numbers=numbers)

    def look_up(self, labels: Iterable[str], *, where: str) -> tuple[int, ...]:
        """Numbers of some labels, each once, in rising order.

        Raises:
            PlatformError: If a label is not in the vocabulary; the message starts with `where`.
        """
        try:
            return tuple(sorted({self.numbers[label] for label in labels}))
        except KeyError as error:
            raise self._unknown(str(error.args[0]), where) from None

    def _unknown(self, label: str, where: str) -> PlatformError:
        near = difflib.get_close_matches(label, self.numbers, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "; correct one of the two"
        return PlatformError(
            f"{where}: label must be in {self.where} ({len(self.names)} labels), but got "
            f"{label!r}{hint}"
        )


def read_vocabulary(place: Place, *, remedy: str) -> Vocabulary:
    """Read a vocabulary: a number, then an id and a name in either order, or one name alone.

    Raises:
        PlatformError: If it cannot be read, or its numbers are not 0, 1, 2, ...
    """
    entries: list[tuple[int, str, str]] = []
    for line, row in _vocabulary_rows(place, remedy):
        if not row[0].isdecimal() or len(row) < 2:
            raise PlatformError(
                f"{place}: line {line}: must be a number and a label, but got {','.join(row)!r}"
            )
        first, second = row[1], ", ".join(row[2:]) or row[1]  # names hold commas, also unquoted
        # FSD50K puts the name first, AudioSet the id
        mid, name = (second, first) if second.startswith("/") else (first, second)
        entries.append((int(row[0]), mid, name))
    entries.sort()
    if [number for number, _, _ in entries] != list(range(len(entries))) or not entries:
        raise PlatformError(
            f"{place}: label numbers must be 0, 1, 2, ... and each there once, but got "
            f"{_first_gap(number for number, _, _ in entries)}; correct the first column"
        )
    twice = [mid for mid, times in Counter(mid for _, mid, _ in entries).items() if times > 1]
    if twice:
        raise PlatformError(f"{place}: each label must be there once, but {twice[0]!r} is not")
    return Vocabulary(
        where=str(place),
        names=tuple(name for _, _, name in entries),
        numbers={
            **{name: number for number, _, name in entries},
            **{mid: number for number, mid, _ in entries},
        },
    )


def _vocabulary_rows(place: Place, remedy: str) -> Iterator[tuple[int, list[str]]]:
    text = read_text(place, remedy=remedy)
    for line, row in iterate_rows(place, text, skip_spaces=True):
        is_header = line == 1 and not row[0].isdecimal()
        if any(row) and not is_header:
            yield line, row


def _first_gap(numbers: Iterable[int]) -> str:
    for wanted, number in enumerate(numbers):
        if number != wanted:
            return f"{number} where {wanted} is due"
    return "none"


def _delimiter(text: str) -> str:
    header = text.split("\n", 1)[0]
    return max(",;\t|", key=header.count)


def _check_columns(place: Place, *, found: Sequence[str], needed: Sequence[str]) -> None:
    missing = [column for column in needed if column not in found]
    if missing:
        raise PlatformError(
            f"{place}: must have the columns {', '.join(needed)}, but {', '.join(missing)} "
            f"is missing (found: {', '.join(found) or 'none'}); correct the first line"
        )


def _row(place: Place, line: int, columns: Sequence[str], values: Sequence[str]) -> Row:
    if len(values) > len(columns):
        raise PlatformError(
            f"{place}: line {line}: must have {len(columns)} values, but has more; put a value "
            "that holds the separator in double quotes"
        )
    return Row(line, dict(zip_longest(columns, values, fillvalue="")))
