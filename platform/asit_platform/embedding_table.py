"""Embeddings as Arrow tables: a row for each clip, its vector, and on request its frames.

Shape legend: N rows of all clips, D width.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from torch import Tensor

from asit_core.embedding import Embedding

METADATA_KEY = b"asit"


class Row(NamedTuple):
    """What the table keeps of one clip, on the CPU."""

    path: str
    clip_vector: np.ndarray  # (D,) or (2 D,)
    frame_matrix: np.ndarray | None  # (t, D); None without frames
    frame_time_s: np.ndarray | None  # (t,)


def make_row(path: str, embedding: Embedding, *, frames: bool) -> Row:
    """A row without what the table leaves out, such as the grid of patches."""
    return Row(
        path,
        _to_numpy(embedding.clip_vector),
        _to_numpy(embedding.frame_matrix) if frames else None,
        _to_numpy(embedding.frame_time_s) if frames else None,
    )


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


def make_table(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """All rows as a table; any number of rows, also none."""
    columns: list[pa.Array] = [
        pa.array([row.path for row in rows], pa.string()),
        _vectors([row.clip_vector for row in rows], schema.field("clip_vector").type),
    ]
    if "frame_matrix" in schema.names:
        kind = schema.field("frame_matrix").type.value_type
        matrices = [row.frame_matrix for row in rows if row.frame_matrix is not None]
        times = [row.frame_time_s for row in rows if row.frame_time_s is not None]
        ends = np.cumsum([0, *map(len, matrices)]).astype(np.int32)
        columns.append(pa.ListArray.from_arrays(ends, _vectors(matrices, kind)))
        time_s = pa.array(np.concatenate(times or [[]]), pa.float64())
        columns.append(pa.ListArray.from_arrays(ends, time_s))
    return pa.Table.from_arrays(columns, schema=schema)


def _to_numpy(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()


def _vectors(parts: Sequence[np.ndarray], kind: pa.FixedSizeListType) -> pa.Array:
    """Vectors (N, D) of all parts, one after another."""
    flat = np.concatenate([part.ravel() for part in parts] or [[]])
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), kind.list_size)
