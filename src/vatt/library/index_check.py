"""Whether an index is right: vectors find themselves, and the search finds what is nearest."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from vatt.library.vector_index import COLUMNS, Column, Index, Term, Vectors, matrix_of

NEAREST = 10  # recall@10
_ROUNDING = 1e-5  # of cosines of float32
_MOST_ALL = 20_000  # windows, of which each is looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnCheck:
    """What was found of one column of vectors.

    queries: stored vectors with noise, for recall, and as they are, to find themselves.
    recall: share of the ten windows of the highest cosine that the search finds.
    find_themselves: share of stored vectors that are their own best hit, or as good as it.
    p50_ms, p95_ms: of a search for ten windows, one at a time.
    unit_rows: whether all rows have length 1.
    """

    vectors: int
    queries: int
    exact: bool
    recall: float
    find_themselves: float
    p50_ms: float
    p95_ms: float
    unit_rows: bool


def check_column(index: Index, column: Column, queries: int = 200, seed: int = 0) -> ColumnCheck:
    """Compare the search with all vectors of a column, read a part at a time.

    Args:
        index: to be checked.
        column: of vectors.
        queries: how many stored vectors are drawn.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    ids, stored, unit = _drawn(index, column, queries, rng)
    asked = stored + rng.normal(size=stored.shape) * (0.3 / np.sqrt(max(stored.shape[1], 1)))
    asked = (asked / np.linalg.norm(asked, axis=1, keepdims=True)).astype(np.float32)
    best = _exact(index, column, asked)
    times_s, hits = [], 0.0
    for vector, lowest in zip(asked, best, strict=True):
        started = time.perf_counter()
        found = index.scores([Term(vector, column)], limit=NEAREST)
        times_s.append(time.perf_counter() - started)
        # By score, not by name: of windows that are alike any may be found.
        hits += sum(score >= lowest - _ROUNDING for _, score in found) / max(len(found), 1)
        hits -= 0.0 if found else 1.0
    own = 0
    for name, vector in zip(ids, stored, strict=True):
        found = index.scores([Term(vector, column)], limit=1)
        own += bool(found) and (found[0][0].window_id == name or found[0][1] >= 1 - _ROUNDING)
    milliseconds = np.array(times_s or [0.0]) * 1000
    total = max(len(ids), 1)
    return ColumnCheck(
        vectors=sum(int(matrix_of(table[column])[1].sum()) for table in index.batches()),
        queries=len(ids),
        exact=index.is_exact,
        recall=hits / total,
        find_themselves=own / total,
        p50_ms=float(np.percentile(milliseconds, 50)),
        p95_ms=float(np.percentile(milliseconds, 95)),
        unit_rows=unit,
    )


def _drawn(
    index: Index, column: Column, queries: int, rng: np.random.Generator
) -> tuple[list[str], Vectors, bool]:
    """Some stored vectors with the ids of their windows, and whether all are unit rows."""
    few = index.num_windows <= _MOST_ALL
    share = 1.0 if few else 2.0 * queries / max(index.num_windows, 1)
    names, rows, unit = list[str](), list[Vectors](), True
    for table in index.batches():
        matrix, present = matrix_of(table[column])
        lengths = np.linalg.norm(matrix[present], axis=1)
        unit &= bool(np.all(np.abs(lengths - 1) < 1e-3))
        chosen = np.flatnonzero(present & (rng.random(len(present)) < share))
        names += [table["window_id"][int(row)].as_py() for row in chosen]
        rows.append(matrix[chosen])
    vectors = np.concatenate(rows) if rows else np.zeros((0, 1), np.float32)
    kept = rng.permutation(len(names))[:queries]
    return [names[n] for n in kept], vectors[kept], unit


def _exact(index: Index, column: Column, asked: Vectors) -> Vectors:
    """The cosine of the tenth nearest window to each query, by comparing all."""
    best = np.full((len(asked), NEAREST), -np.inf, np.float32)
    for table in index.batches():
        matrix, present = matrix_of(table[column])
        both = np.concatenate([best, asked @ matrix[present].T], axis=1)
        best = np.partition(both, -NEAREST, axis=1)[:, -NEAREST:]
    lowest = best.min(axis=1)
    return np.where(np.isfinite(lowest), lowest, -1.0).astype(np.float32)


def check_index(index: Index, queries: int = 200) -> dict[str, ColumnCheck]:
    """Check every column of vectors that the index has."""
    return {
        name: check_column(index, name, queries) for name in COLUMNS if name in index.manifest.dims
    }
