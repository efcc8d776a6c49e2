"""Embedding a library: windows of many files are decoded by workers and encoded in batches."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from vatt.any_encoder import OpenedEncoder
from vatt.contracts import Batch
from vatt.data.augment import apply
from vatt.ingest.sources import Skipped
from vatt.library.index_writer import IndexWriter
from vatt.library.library_files import LibraryFile
from vatt.library.vector_index import COLUMNS, FileEntry, vector_array, window_schema
from vatt.library.windows import FileFacts, Piece, Reading, ReadWindow, read_windows
from vatt.workers.pool import stream
from vatt.workers.process import Ended, Limits, Lost
from vatt.workers.progress import ProgressBar

_WINDOWS_AT_ONCE = 512  # of one write of the index; fewer when that much time has gone by
_SECONDS_AT_ONCE = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """How a library is embedded; see the settings of `vatt embed`."""

    encoder: OpenedEncoder
    reading: Reading
    batch: int
    workers: int
    limits: Limits
    executor: Literal["processes", "ray"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """What became of files. seconds: of video. waiting_s: until there were windows to encode."""

    skipped: Sequence[Skipped]
    files: int
    windows: int
    seconds: float
    waiting_s: float


def dims_of(encoder: OpenedEncoder) -> dict[str, int]:
    """Vector column → its width, by encoding one empty clip."""
    spec, dims = encoder.spec, dict[str, int]()
    frames = torch.zeros(1, spec.frames, spec.height, spec.width, 3)
    for column, values in _encoded(encoder, frames, torch.zeros(1, spec.samples)).items():
        dims[column] = values.shape[1]
    return {name: dims[name] for name in COLUMNS if name in dims}


def _encoded(
    encoder: OpenedEncoder, frames: Tensor | None, waveforms: Tensor | None
) -> dict[str, Tensor]:
    """Unit rows by column, for what the encoder takes and gives."""
    found: dict[str, Any] = {}
    has = getattr(encoder.encoder, "has", {"video", "audio"})
    if frames is not None and "video" in has:
        video = encoder.encoder.encode_video(frames)
        found |= {"vt": getattr(video, "vt", None), "va": getattr(video, "va", None)}
    if waveforms is not None and "audio" in has:
        rate = encoder.spec.sample_rate_hz
        audio = encoder.encoder.encode_audio(waveforms, sample_rate_hz=rate)
        found["audio_va"] = getattr(audio, "va", None)
    return {name: one.float().cpu() for name, one in found.items() if one is not None}


@dataclass(slots=True)
class _Film:
    """A file that is being read.

    given, encoded: how many windows of it there are so far.
    frames: the last of its different frames, [n, H, W, 3], and the number of the first of them.
    reached_s: up to where it was read.
    """

    facts: FileFacts
    given: int = 0
    encoded: int = 0
    frames: Tensor | None = None
    first: int = 0
    reached_s: float = 0.0

    def read_bytes(self) -> float:
        """How much of the file was read, about."""
        return self.facts.file.size * min(self.reached_s / max(self.facts.duration_s, 1e-3), 1.0)

    def entry(self) -> FileEntry:
        file, facts = self.facts.file, self.facts
        return FileEntry(
            file_id=file.file_id,
            path=file.path,
            size=file.size,
            mtime_ns=file.mtime_ns,
            duration_s=facts.duration_s,
            width=facts.width,
            height=facts.height,
            has_audio=facts.has_audio,
            title=facts.title,
            n_windows=self.encoded,
            library=file.library,
            state=file.state,
        )


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A window that is not encoded yet.

    frames: float [n, H, W, 3] in [-1, 1], among them its own; chosen: which these are, int64 [T].
    """

    film: _Film
    window: ReadWindow
    frames: Tensor | None = None
    chosen: Tensor | None = None


def _light(one: _Waiting) -> _Waiting:
    """Without its frames and samples, so that rows can wait in numbers to be written."""
    heard = None if one.window.waveform is None else one.window.waveform[:0].copy()
    return _Waiting(one.film, replace(one.window, frames=None, waveform=heard))


@dataclass(slots=True)
class _Work:
    """What is between the workers and the index."""

    how: Embedding
    writer: IndexWriter
    films: dict[str, _Film] = field(default_factory=dict)
    waiting: list[_Waiting] = field(default_factory=list)
    rows: list[tuple[_Waiting, dict[str, np.ndarray[Any, Any]]]] = field(default_factory=list)
    whole: list[_Film] = field(default_factory=list)
    written: set[str] = field(default_factory=set)
    written_at: float = field(default_factory=time.monotonic)
    skipped: list[Skipped] = field(default_factory=list)
    files: int = 0
    windows: int = 0
    seconds: float = 0.0

    def take(self, file: LibraryFile, given: Any) -> None:
        """Use what a worker gave of a file."""
        if isinstance(given, FileFacts):
            self._begin(file, given)
        elif isinstance(given, Piece):
            self._add(self.films[file.path], given)
        else:
            self._end(file, given.outcome)

    def _begin(self, file: LibraryFile, facts: FileFacts) -> None:
        if (before := self.films.get(file.path)) is not None:  # it is damaged, and read anew
            self._void(before)
        self.films[file.path] = _Film(facts)

    def _void(self, film: _Film) -> None:
        self.waiting = [one for one in self.waiting if one.film is not film]
        self.rows = [one for one in self.rows if one[0].film is not film]
        self.windows -= film.encoded
        if film.facts.file.file_id in self.written:
            self.writer.drop([film.facts.file.file_id])
            self.written.remove(film.facts.file.file_id)

    def _add(self, film: _Film, piece: Piece) -> None:
        if piece.frames is not None:
            clip, spec = piece.frames
            batch = Batch.collate([clip]).to(self.how.encoder.device)
            new = apply(batch, spec, antialias=self.how.reading.path.antialias).frames[0]
            film.frames = new if film.frames is None else torch.cat([film.frames, new])
        for window in piece.windows:
            film.given += 1
            if window.frames is None:
                self.waiting.append(_Waiting(film, window))
            else:
                chosen = torch.from_numpy(window.frames - film.first)
                self.waiting.append(_Waiting(film, window, film.frames, chosen))
        if piece.windows[-1].frames is not None and film.frames is not None:
            later = int(piece.windows[-1].frames.min())  # no later window needs those before it
            film.frames, film.first = film.frames[later - film.first :].clone(), later
        film.reached_s = piece.windows[-1].end_s
        while len(self.waiting) >= self.how.batch:
            self.encode()
        self._write_some()

    def _end(self, file: LibraryFile, outcome: Any) -> None:
        film = self.films.pop(file.path, None)
        if isinstance(outcome, Lost):
            reason = f"{file.path}: {outcome.reason}"
            outcome = Skipped(source=file.path, cause=outcome.cause, reason=reason)
        if outcome is None and (film is None or not film.given):
            outcome = Skipped(source=file.path, cause="empty", reason=f"{file.path}: no window")
        if outcome is not None:
            self.skipped.append(outcome)
            if film is not None:
                self._void(film)
            return
        assert film is not None
        film.frames = None
        self.files += 1
        self.seconds += film.facts.duration_s
        self.whole.append(film)

    def encode(self) -> None:
        """Encode the windows that have waited longest."""
        batch, self.waiting = self.waiting[: self.how.batch], self.waiting[self.how.batch :]
        rows: list[dict[str, np.ndarray[Any, Any]]] = [{} for _ in batch]
        seen = [n for n, one in enumerate(batch) if one.frames is not None]
        heard = [n for n, one in enumerate(batch) if one.window.waveform is not None]
        device = self.how.encoder.device
        if seen:
            frames = _frames_of([batch[n] for n in seen])
            _spread(_encoded(self.how.encoder, frames, None), seen, rows)
        if heard:
            waveforms = np.stack([np.asarray(batch[n].window.waveform) for n in heard])
            values = torch.from_numpy(waveforms).to(device).float().div_(2**15)
            _spread(_encoded(self.how.encoder, None, values), heard, rows)
        for one in batch:
            one.film.encoded += 1
        self.windows += len(batch)
        self.rows += zip(map(_light, batch), rows, strict=True)

    def _write_some(self) -> None:
        late = time.monotonic() - self.written_at > _SECONDS_AT_ONCE
        if len(self.rows) >= _WINDOWS_AT_ONCE or (late and self.rows):
            self.write()

    def write(self) -> None:
        """Write what is encoded, and the files that are whole with it."""
        whole = [one for one in self.whole if one.encoded == one.given]
        self.writer.add(self._table(), [one.entry() for one in whole])
        self.written |= {one.film.facts.file.file_id for one, _ in self.rows}
        self.rows, self.written_at = [], time.monotonic()
        self.whole = [one for one in self.whole if one.encoded < one.given]

    def _table(self) -> pa.Table:
        dims = self.writer.manifest.dims
        windows = [one.window for one, _ in self.rows]
        ids = [one.film.facts.file.file_id for one, _ in self.rows]
        columns: list[Any] = [
            [f"{i}:{round(1000 * w.start_s)}" for i, w in zip(ids, windows, strict=True)],
            ids,
            [one.start_s for one in windows],
            [one.end_s for one in windows],
            [one.waveform is not None for one in windows],
            [one.caption for one in windows],
        ]
        for name, width in dims.items():
            present = np.array([name in row for _, row in self.rows], np.bool_)
            vectors = np.zeros((len(self.rows), width), np.float32)
            for number, (_, row) in enumerate(self.rows):
                if name in row:
                    vectors[number] = row[name]
            columns.append(vector_array(vectors, present))
        schema = window_schema(dims)
        return pa.table(
            [pa.array(one, kind.type) for one, kind in zip(columns, schema, strict=True)],
            schema=schema,
        )


def _frames_of(windows: Sequence[_Waiting]) -> Tensor:
    """The frames of windows that have some, [B, T, H, W, 3]; each is copied once."""
    batch: Tensor | None = None
    for row, one in enumerate(windows):
        assert one.frames is not None
        assert one.chosen is not None
        if batch is None:
            batch = one.frames.new_empty(len(windows), len(one.chosen), *one.frames.shape[1:])
        chosen = one.chosen.to(batch.device)
        torch.index_select(one.frames, 0, chosen, out=batch[row])
    assert batch is not None
    return batch


def _spread(
    found: dict[str, Tensor], places: Sequence[int], rows: list[dict[str, np.ndarray[Any, Any]]]
) -> None:
    for name, values in found.items():
        for place, vector in zip(places, values.numpy(), strict=True):
            rows[place][name] = vector


def embed_files(
    files: Sequence[LibraryFile], writer: IndexWriter, how: Embedding, hours: float = 0.0
) -> Embedded:
    """Embed files into an index; what is written stays, whatever happens then.

    Args:
        files: none of them is in the index.
        writer: of the index.
        how: the encoder, and how files are read.
        hours: of video that the index holds already, for the bar.
    """
    work, started, waited_s, read_bytes = _Work(how, writer), time.monotonic(), 0.0, 0
    given = stream(
        partial(read_windows, reading=how.reading),
        files,
        workers=how.workers,
        limits=how.limits,
        executor=how.executor,
    )
    total = sum(one.size for one in files)
    step = max(total // 1000, 1)

    def note() -> str:
        seconds = work.seconds + sum(film.reached_s for film in work.films.values())
        now_h, rate = seconds / 3600, seconds / (time.monotonic() - started)
        bad = f", {len(work.skipped)} skipped" if work.skipped else ""
        return f"{hours + now_h:.2f} h of video, {rate:.1f} × real time{bad}"

    with closing(given), ProgressBar("embedding ‰", 1000, shown=bool(files)) as bar:
        try:
            while True:
                since = time.monotonic()
                file, one = next(given, (None, None))
                waited_s += time.monotonic() - since
                if file is None:
                    break
                work.take(file, one)
                if isinstance(one, Ended):
                    read_bytes += file.size
                so_far = read_bytes + sum(film.read_bytes() for film in work.films.values())
                bar.update(min(int(so_far // step), 1000), note())
        finally:  # an interrupted run keeps what is whole
            while work.waiting:
                work.encode()
            if work.rows or work.whole:
                work.write()
    return Embedded(
        skipped=work.skipped,
        files=work.files,
        windows=work.windows,
        seconds=work.seconds,
        waiting_s=waited_s,
    )


def failures_text(skipped: Sequence[tuple[Skipped, LibraryFile | None]]) -> str:
    """The lines of failures.jsonl: source, cause, reason; and what the file was."""
    return "".join(
        json.dumps(
            {
                "source": one.source,
                "cause": one.cause,
                "reason": one.reason,
                "size": file.size if file else 0,
                "mtime_ns": file.mtime_ns if file else 0,
                "state": file.state if file else "",
            },
            ensure_ascii=False,
        )
        + "\n"
        for one, file in skipped
    )
