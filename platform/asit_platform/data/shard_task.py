"""What one Ray Data task does: the clips of one shard -> one Parquet file.

Shape legend: T frames, F mel bins.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from asit_core.spectrogram import LogMel, LogMelConfig
from asit_core.waveform import AudioError, is_digital_silence, load_waveform
from asit_platform.data.dataset import (
    FINGERPRINT_KEY,
    FRONT_END_KEY,
    FoldStatistics,
    Shard,
    file_sha256,
)
from asit_platform.data.out_folder import not_writable
from asit_platform.whole_files import replacing

ROWS_PER_GROUP = 32
SILENCE_REASON = "digital silence"
_SHARD_FIELDS = [
    ("clip_id", pa.string()),
    ("log_mel", pa.large_binary()),  # float16, T*F values, row-major
    ("num_frames", pa.int32()),
    ("label", pa.int32()),
    ("fold", pa.int32()),
    ("source", pa.string()),
]


class ClipOutcome(NamedTuple):
    """What became of one clip; `reason` is empty if it is in the shard."""

    clip_id: str
    reason: str
    silent: bool
    num_frames: int
    duration_s: float


def build_block(
    block: pa.Table, *, out: str, front_end: dict[str, Any], fingerprint: str, keep_silent: bool
) -> pa.Table:
    """The task: one block of planned clips -> one shard on disk and one row of JSON."""
    files = block["file"].unique().to_pylist()
    assert len(files) == 1, f"a block must be one shard, but got {files}"
    log_mel = LogMel(LogMelConfig(**front_end))
    rows: list[dict[str, Any]] = []
    outcomes: list[ClipOutcome] = []
    statistics = FoldStatistics(0, 0.0, 0.0)
    for clip in block.to_pylist():
        with _one_thread():
            outcome, log_mel_TF = _read_clip(clip, log_mel, keep_silent=keep_silent)
        outcomes.append(outcome)
        if log_mel_TF is None:
            continue
        statistics = statistics.merge(_statistics(log_mel_TF))
        columns = {name: clip[name] for name in ("clip_id", "label", "fold", "source")}
        rows.append({**columns, "log_mel": log_mel_TF.tobytes(), "num_frames": len(log_mel_TF)})
    metadata = {FRONT_END_KEY: json.dumps(front_end), FINGERPRINT_KEY: fingerprint}
    report: dict[str, Any] = {"file": files[0]}
    try:
        report["shard"] = _write_shard(Path(out), files[0], rows, metadata=metadata)
    except OSError as error:
        # told by report: an exception would come back wrapped in a worker's traceback
        report["error"] = str(not_writable(Path(out), error))
    report["statistics"] = asdict(statistics)
    report["outcomes"] = outcomes
    return pa.table({"report": [json.dumps(report)]})


@contextmanager
def _one_thread() -> Iterator[None]:
    """The sum inside a matrix product may depend on the number of threads; bytes must not."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)  # Ray uses the process again, perhaps for training


def _read_clip(
    clip: Mapping[str, Any], log_mel: LogMel, *, keep_silent: bool
) -> tuple[ClipOutcome, np.ndarray | None]:
    path = Path(clip["path"])
    try:
        log_mel_TF, duration_s, silent = read_log_mel(path, log_mel)
    except AudioError as error:
        reason = str(error).removeprefix(f"{path}: ")
        return ClipOutcome(clip["clip_id"], reason, False, 0, 0.0), None
    dropped = silent and not keep_silent
    outcome = ClipOutcome(
        clip["clip_id"], SILENCE_REASON if dropped else "", silent, len(log_mel_TF), duration_s
    )
    return outcome, None if dropped else log_mel_TF


def _statistics(log_mel_TF: np.ndarray) -> FoldStatistics:
    values = log_mel_TF.astype(np.float64)
    mean = float(values.mean())
    return FoldStatistics(values.size, mean, float(np.square(values - mean).sum()))


def _write_shard(
    out: Path, file: str, rows: list[dict[str, Any]], *, metadata: dict[bytes, str]
) -> dict[str, Any] | None:
    """Write a shard whole: a reader never meets half of it."""
    if not rows:
        return None
    table = pa.Table.from_pylist(rows, schema=pa.schema(_SHARD_FIELDS, metadata=metadata))
    num_groups = math.ceil(len(rows) / ROWS_PER_GROUP)
    with replacing(out / file) as temporary:
        # without dictionary or compression the bytes are read at memory speed
        pq.write_table(
            table,
            temporary,
            row_group_size=math.ceil(len(rows) / num_groups),
            compression="none",
            use_dictionary=False,
            write_statistics=False,
        )
        shard = Shard(
            file=file,
            fold=rows[0]["fold"],
            num_rows=len(rows),
            num_bytes=temporary.stat().st_size,
            sha256=file_sha256(temporary),
        )
    return asdict(shard)


def read_log_mel(path: Path, log_mel: LogMel) -> tuple[np.ndarray, float, bool]:
    """Decode one file.

    Returns:
        Float16 spectrogram (T, F), the duration in seconds, and whether it is digital silence.

    Raises:
        AudioError: If the file is unusable.
    """
    sample_rate_hz = log_mel.config.sample_rate_hz
    waveform = load_waveform(path, sample_rate_hz=sample_rate_hz)
    if log_mel.num_frames(len(waveform)) == 0:
        raise AudioError(
            f"{path}: must last at least one frame ({log_mel.config.frame_length_ms:g} ms), "
            f"but got {len(waveform)} samples at {sample_rate_hz} Hz"
        )
    log_mel_TF = log_mel(waveform[None])[0].numpy().astype(np.float16)
    return log_mel_TF, len(waveform) / sample_rate_hz, is_digital_silence(waveform)
