"""Embeddings as Arrow tables: a row for each clip, its vector, and on request its frames.

Shape legend: N rows of all clips, D width.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from asit_core.embedding import Embedding

METADATA_KEY = b"asit"


def make_schema(
    width: int, *, both: bool, frames: bool, description: Mapping[str, Any]
) -> pa.Schema:
    """Columns `path`, `clip_vector`, and with `frames` also `frame_matrix` and `frame_time_s`.

    Args:
        width: Of a frame's vector, and of a clip's.
        both: Whether clip vectors are two such vectors side by side.
        frames: Whether frames are kept.
        description: Says what made the numbers; kept as JSON in the metadata.
    """
    fields = [
        ("path", pa.string()),
        ("clip_vector", pa.list_(pa.float32(), 2 * width if both else width)),
    ]
    if frames:
        fields.append(("frame_matrix", pa.list_(pa.list_(pa.float32(), width))))
        fields.append(("frame_time_s", pa.list_(pa.float64())))
    return pa.schema(fields, metadata={METADATA_KEY: json.dumps(dict(description))})


def make_table(rows: Sequence[tuple[str, Embedding]], schema: pa.Schema) -> pa.Table:
    """A row for each path and embedding; any number of rows, also none."""
    clips = [clip for _, clip in rows]
    columns: list[pa.Array] = [
        pa.array([path for path, _ in rows], pa.string()),
        _vectors([clip.clip_vector[None] for clip in clips], schema.field("clip_vector").type),
    ]
    if "frame_matrix" in schema.names:
        kind = schema.field("frame_matrix").type.value_type
        ends = np.cumsum([0, *(len(clip.frame_matrix) for clip in clips)]).astype(np.int32)
        matrix = _vectors([clip.frame_matrix for clip in clips], kind)
        times = np.concatenate([clip.frame_time_s.cpu().numpy() for clip in clips] or [[]])
        columns.append(pa.ListArray.from_arrays(ends, matrix))
        columns.append(pa.ListArray.from_arrays(ends, pa.array(times, pa.float64())))
    return pa.Table.from_arrays(columns, schema=schema)


def _vectors(parts: Sequence[Tensor], kind: pa.FixedSizeListType) -> pa.Array:
    """Vectors (N, D) of all parts, one after another."""
    flat = np.concatenate([part.cpu().numpy().ravel() for part in parts] or [[]])
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), kind.list_size)
