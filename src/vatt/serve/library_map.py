"""The map of a library: its windows in two dimensions, so that what is alike lies together.

Principal components first, t-SNE after them, both of scikit-learn. It takes seconds, so it is kept
beside the copies, by what the index was when it was made.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vatt.errors import DataError
from vatt.library.vector_index import Column, Index, Window
from vatt.storage import atomic_file

logger = logging.getLogger(__name__)

MOST_POINTS = 2000  # windows; of more, every n-th
_COMPONENTS = 30
_FEWEST = 8  # points that t-SNE has something to say about


def library_map(index: Index, folder: Path) -> dict[str, Any]:
    """Files, and points [x, y, number of the file, start in ms], x and y in 0 … 1.

    Raises:
        DataError: there are no windows.
    """
    column: Column = "vt" if "vt" in index.manifest.dims else "va"
    windows, vectors = index.all_vectors(column)
    if not len(vectors) and "audio_va" in index.manifest.dims:
        windows, vectors = index.all_vectors("audio_va")
    if not len(vectors):
        raise DataError("there are no windows to show yet")
    step = -(-len(windows) // MOST_POINTS)
    windows, vectors = windows[::step], vectors[::step]
    places = _kept(index, windows, vectors, folder)
    files = {one.file_id: number for number, one in enumerate(index.files())}
    points = [
        [*map(float, place.round(4)), files[window.file_id], round(window.start_s * 1000)]
        for place, window in zip(places, windows, strict=True)
    ]
    named = [{"video_id": one.file_id, "title": one.title} for one in index.files()]
    return {"files": named, "points": points, "step": step}


def _kept(
    index: Index, windows: list[Window], vectors: NDArray[np.float32], folder: Path
) -> NDArray[np.float64]:
    of = hashlib.sha256(repr([asdict(index.manifest), *(w.window_id for w in windows)]).encode())
    path = folder / f"map-{of.hexdigest()[:16]}.npy"
    if path.is_file():
        return np.asarray(np.load(path, allow_pickle=False))
    places = projected(vectors)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("map-*.npy"):
        old.unlink(missing_ok=True)
    with atomic_file(path, first_wins=True) as aside, aside.open("wb") as file:
        np.save(file, places)
    return places


def projected(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Vectors [N, E] → places [N, 2] in 0 … 1."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    most = min(_COMPONENTS, *vectors.shape)
    places = PCA(most, random_state=0).fit_transform(vectors) if most > 1 else vectors
    if len(vectors) >= _FEWEST:
        near = min(30.0, (len(vectors) - 1) / 3)
        places = TSNE(2, perplexity=near, init="pca", random_state=0).fit_transform(places)
    places = np.pad(places, [(0, 0), (0, max(0, 2 - places.shape[1]))])[:, :2].astype(np.float64)
    low, high = places.min(0), places.max(0)
    return np.asarray((places - low) / np.maximum(high - low, 1e-9))
