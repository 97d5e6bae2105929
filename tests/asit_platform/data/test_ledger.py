import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from asit_platform.data.duplicates import Duplicates, find_duplicates
from asit_platform.data.fold_statistics import FoldStatistics
from asit_platform.data.ledger import CLIPS_SCHEMA, Ledger
from asit_platform.data.manifest import MANIFEST_SCHEMA
from asit_platform.data.shard_report import SILENCE_REASON, ClipOutcome, ShardReport
from asit_platform.data.shards import ShardPlan
from asit_platform.storage import Place

NOTHING = FoldStatistics(0, 0.0, 0.0)


def sha256(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def outcome(content: str, reason: str = "", *, silent: bool = False) -> ClipOutcome:
    return ClipOutcome(reason, silent, 10, 0.5, sha256(content) if content else "", len(content))


def table(*rows: tuple[str, int, float, float | None]) -> pa.Table:
    """Clips of these ids, folds, starts and stops."""
    return pa.Table.from_pylist(
        [
            {
                "clip_id": clip_id,
                "path": f"/x/{clip_id}.wav",
                "labels": [number % 2],
                "fold": fold,
                "source": clip_id,
                "start_s": start_s,
                "stop_s": stop_s,
            }
            for number, (clip_id, fold, start_s, stop_s) in enumerate(rows)
        ],
        schema=MANIFEST_SCHEMA,
    )


def ledger_of(clips: pa.Table, outcomes: list[ClipOutcome]) -> Ledger:
    """All clips in two shards, dealt out in turn and recorded backwards."""
    ledger = Ledger(clips)
    for number in (1, 0):
        rows = np.arange(number, len(clips), 2)
        plan = ShardPlan(number, f"shards/fold1-{number:05d}.parquet", 1, rows)
        ledger.record(plan, ShardReport(tuple(outcomes[row] for row in rows), NOTHING))
    return ledger


CLIPS = table(*((clip_id, 1, 0.0, None) for clip_id in ("a", "b", "c,d", "e", "f")))
OUTCOMES = [
    outcome("one"),
    outcome("", "is not a file"),
    outcome("two", SILENCE_REASON, silent=True),
    outcome("three", silent=True),
    outcome("four"),
]


def test_what_became_of_the_clips(tmp_path: Path) -> None:
    ledger = ledger_of(CLIPS, OUTCOMES)
    assert ledger.kept.tolist() == [True, False, False, True, True]
    assert (ledger.num_kept, ledger.num_silent, ledger.num_silent_skipped) == (3, 2, 1)
    assert ledger.skipped == {1: "is not a file", 2: "digital silence"}
    assert ledger.first_skipped() == "/x/b.wav: is not a file"
    assert ledger.label_counts() == {0: 2, 1: 1}
    ledger.write_skipped(Place.of(tmp_path))
    assert (tmp_path / "skipped.csv").read_text() == (
        'path,reason\n/x/b.wav,is not a file\n"/x/c,d.wav",digital silence\n'
    )


def test_the_list_of_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = ledger_of(CLIPS, OUTCOMES)
    ledger.write_clips(Place.of(tmp_path))
    found = pq.read_table(tmp_path / "clips.parquet")
    assert found.schema.equals(CLIPS_SCHEMA)
    assert found["clip_id"].to_pylist() == ["a", "e", "f"]
    assert found["shard"].to_pylist() == [
        f"shards/fold1-0000{number}.parquet" for number in (0, 1, 0)
    ]
    assert found["content_sha256"].to_pylist() == [
        sha256(text) for text in ("one", "three", "four")
    ]
    assert found["num_frames"].to_pylist() == [10, 10, 10]
    monkeypatch.setattr("asit_platform.data.ledger._ROWS_PER_WRITE", 2)
    (tmp_path / "parts").mkdir()
    ledger.write_clips(Place.of(tmp_path / "parts"))
    assert pq.read_table(tmp_path / "parts" / "clips.parquet").equals(found)


def test_nothing_left_out_is_a_header(tmp_path: Path) -> None:
    ledger_of(CLIPS, [outcome(str(number)) for number in range(5)]).write_skipped(
        Place.of(tmp_path)
    )
    assert (tmp_path / "skipped.csv").read_text() == "path,reason\n"


def test_the_same_sound_twice_is_counted_and_in_two_folds_warned_of() -> None:
    clips = table(
        ("a", 1, 0.0, None),
        ("b", 1, 0.0, None),
        ("c", 3, 0.0, None),
        ("d", 2, 0.0, None),
        ("e", 3, 0.0, None),
    )
    outcomes = [outcome(content) for content in ("x", "x", "x", "y", "z")]
    found = find_duplicates(clips, ledger_of(clips, outcomes), {1: "train", 3: "test"})
    assert found.num_duplicates == 2
    (warning,) = found.warnings
    assert warning.startswith("leakage between fold 1 (train) and fold 3 (test): 1 clip byte for ")
    assert "such as 'a' and 'c'" in warning


def test_parts_of_one_file_are_duplicates_only_where_they_are_the_same_part() -> None:
    clips = table(
        ("a", 1, 0.0, 1.0),
        ("b", 2, 1.0, 2.0),
        ("c", 2, 0.0, None),
        ("d", 2, 1.0, 2.0),
        ("e", 2, 0.0, None),
    )
    found = find_duplicates(clips, ledger_of(clips, [outcome("x")] * 5), {})
    assert found == Duplicates(2, ())


def test_what_was_left_out_is_no_duplicate() -> None:
    clips = table(("a", 1, 0.0, None), ("b", 2, 0.0, None), ("c", 2, 0.0, None))
    outcomes = [outcome("x"), outcome("x", "digital silence"), outcome("", "is not a file")]
    assert find_duplicates(clips, ledger_of(clips, outcomes), {}) == Duplicates(0, ())
