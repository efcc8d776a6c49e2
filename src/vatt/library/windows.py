"""The windows of one file: decoded once, forwards, frames and audio together, a piece at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vatt.contracts import Clip, ClipSpec, FramePath
from vatt.data.clip_timing import TOLERANCE_S, audio_span, fill_waveform, fits
from vatt.data.file_clips import Segments, StoredFrames, healthy_segments, is_damaged
from vatt.errors import DataError, MediaError
from vatt.ingest.sources import Skipped
from vatt.library.library_files import LibraryFile
from vatt.media.audio import AudioReader
from vatt.media.captions.choose import CaptionChoice, find_captions
from vatt.media.captions.clean import Caption, on_clock
from vatt.media.container import media_errors
from vatt.media.media_file import MediaFile, open_media
from vatt.storage import sha256_of
from vatt.workers.process import TimeLimit

PIECE_FRAMES = 48  # new frames of a piece, about
_FLOOR_S, _SLOWEST_BYTES_PER_S = 120.0, 5e6  # of hashing
_AUDIO_S = 60.0  # audio alone that is shorter is read whole to know how long it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How files are read: clips of `spec` every `every_s` seconds, frames by `path`."""

    spec: ClipSpec
    path: FramePath
    every_s: float
    captions: CaptionChoice = field(default_factory=CaptionChoice)
    has_video: bool = True
    has_audio: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """What a file is; comes before its pieces, and again when it is read anew as damaged.

    All pieces before it are then void.
    """

    file: LibraryFile
    duration_s: float
    width: int
    height: int
    has_audio: bool
    title: str


@dataclass(frozen=True, slots=True)
class ReadWindow:
    """One window.

    frames: numbers of its frames among the different ones of the file, int64 [T]; None: no video.
    waveform: int16 [S]; None: no audio.
    """

    start_s: float
    end_s: float
    caption: str
    frames: NDArray[np.int64] | None
    waveform: NDArray[np.int16] | None


@dataclass(frozen=True, slots=True)
class Piece:
    """The next windows of a file, with those of their frames that no piece before had.

    frames: as the frames of one clip, and what that clip is; None when there are no new ones.
    first: number of the first of them among the different frames of the file.
    """

    windows: Sequence[ReadWindow]
    frames: tuple[Clip, ClipSpec] | None
    first: int


Given = FileFacts | Piece


def read_windows(
    file: LibraryFile, time_limit: TimeLimit, reading: Reading
) -> Generator[Given, None, Skipped | None]:
    """Read all windows of a file: a job for `workers.pool.stream`.

    A damaged file is read again, of its healthy segments alone.

    Returns:
        Why it has none; None if all is well.
    """
    cause = "unreadable"
    try:
        if not file.file_id:
            time_limit.allow(_FLOOR_S + file.size / _SLOWEST_BYTES_PER_S)
            file = replace(file, file_id=_content_hash(file))
        damaged = False
        with open_media(file.source, damaged=True, sparsely=True) as media:
            if media.is_image:
                raise MediaError(f"{file.path}: an image, expected a video")
            facts = yield from _facts(media, file)
            cause = "damaged"
            try:
                yield from _pieces(media, facts, reading, None)
            except MediaError:
                damaged = True
            damaged = damaged or is_damaged(media)
        if damaged:
            yield from _read_again(file, time_limit, reading)
    except MediaError as error:
        return Skipped(source=file.path, cause=cause, reason=str(error))
    except (OSError, DataError) as error:
        reason = str(error) if isinstance(error, DataError) else f"{file.path}: {error.strerror}"
        return Skipped(source=file.path, cause="unreadable", reason=reason)
    return None


def _content_hash(file: LibraryFile) -> str:
    if isinstance(file.source, Path):
        return sha256_of(file.source)
    assert isinstance(file.source, bytes)  # a part of a shard has its hash in the index
    return hashlib.sha256(file.source).hexdigest()


def _read_again(
    file: LibraryFile, time_limit: TimeLimit, reading: Reading
) -> Generator[Given, None, None]:
    time_limit.allow(_FLOOR_S + file.size / _SLOWEST_BYTES_PER_S * 8)
    segments = healthy_segments(file.source)
    if not segments:
        raise MediaError(f"{file.path}: nothing of it is healthy")
    with open_media(file.source, damaged=True) as media:
        facts = yield from _facts(media, file)
        yield from _pieces(media, facts, reading, segments)


def _facts(media: MediaFile, file: LibraryFile) -> Generator[Given, None, FileFacts]:
    found = media.facts
    width, height = (found.video.width, found.video.height) if found.video else (0, 0)
    if found.video and found.video.rotation % 180:
        width, height = height, width
    title = media.container.metadata.get("title", "").strip()
    name = file.path.rpartition("#")[2] if "#" in file.path else Path(file.path).stem
    facts = FileFacts(
        file=file,
        duration_s=found.duration_s,
        width=width,
        height=height,
        has_audio=found.audio is not None,
        title=title or Path(name).name,
    )
    yield facts
    return facts


def window_places(segments: Segments, spec: ClipSpec, every_s: float) -> list[tuple[float, float]]:
    """Where windows begin, and the end of the segment of each.

    One begins every `every_s` seconds of a segment, and a last one ends with it. A segment that is
    shorter than a clip has one window; its frames and audio repeat.
    """
    places = []
    for start_s, end_s in segments:
        room_s = end_s - start_s - spec.duration_s
        more = int(max(room_s + TOLERANCE_S, 0) / every_s)
        starts = [start_s + n * every_s for n in range(more + 1)]
        if fits(spec, start_s, end_s) and start_s + room_s - starts[-1] > TOLERANCE_S:
            starts.append(start_s + room_s)
        places += [(one, end_s) for one in starts]
    return places


def _pieces(
    media: MediaFile, facts: FileFacts, reading: Reading, segments: Segments | None
) -> Iterator[Piece]:
    spec, every_s = reading.spec, reading.every_s
    video, audio = facts.width > 0 and reading.has_video, facts.has_audio and reading.has_audio
    if not (video or audio):
        raise MediaError(f"{facts.file.path}: holds nothing that this encoder takes")
    segments = segments or [(0.0, _length_s(media, facts, spec))]
    captions = _captions(media, facts, reading)
    heard = _Heard(media, spec) if audio else None
    if not video:
        assert heard is not None
        for start_s, end_s in window_places(segments, spec, every_s):
            if (waveform := heard.clip(start_s, end_s)) is not None:
                yield Piece([_window(start_s, end_s, spec, captions, None, waveform)], None, 0)
        return
    film = StoredFrames(media, spec, reading.path)
    stored = [(film.begins(start_s), film.begins(end_s)) for start_s, end_s in segments]
    places = window_places([one for one in stored if one[0] < one[1]], spec, every_s)
    if not places:
        raise MediaError(f"{facts.file.path}: none of its frames is ever shown")
    # Times lie on one grid, so that windows that overlap share their frames exactly.
    times_s, shown = np.unique([film.times(*place) for place in places], return_inverse=True)
    shown = shown.reshape(len(places), spec.frames)
    media.read_forwards(times_s)
    done = 0  # different frames
    for first, last in _groups(shown):
        upto = int(shown[first:last].max()) + 1
        frames = film.read(times_s[done:upto]) if upto > done else None
        windows = [
            _window(*places[n], spec, captions, shown[n], heard.clip(*places[n]) if heard else None)
            for n in range(first, last)
        ]
        yield Piece(windows, frames, done)
        done = max(done, upto)


def _groups(shown: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """First and last windows of pieces of about as many new frames."""
    reached = np.maximum.accumulate(shown.max(1)) // PIECE_FRAMES
    edges = [0, *(np.flatnonzero(np.diff(reached)) + 1).tolist(), len(shown)]
    yield from pairwise(edges)


def _length_s(media: MediaFile, facts: FileFacts, spec: ClipSpec) -> float:
    """Where it ends; of a short file of audio alone that is known once it is read."""
    if facts.width or facts.duration_s > _AUDIO_S:
        return facts.duration_s
    track = media.audio(sample_rate_hz=spec.sample_rate_hz)
    return 0.0 if track is None else len(track) / spec.sample_rate_hz


def _captions(media: MediaFile, facts: FileFacts, reading: Reading) -> Sequence[Caption]:
    if facts.file.captions is not None:
        return facts.file.captions
    if not isinstance(media.source, Path):
        return ()
    found = find_captions(media, reading.captions).captions
    return list(on_clock(found, media.facts.start_s, facts.duration_s))


def _window(
    start_s: float,
    end_s: float,
    spec: ClipSpec,
    captions: Sequence[Caption],
    frames: NDArray[np.int64] | None,
    waveform: NDArray[np.int16] | None,
) -> ReadWindow:
    end_s = min(start_s + spec.duration_s, end_s)
    said = [one.text for one in captions if one.start_s < end_s and start_s < one.end_s]
    return ReadWindow(start_s, end_s, " ".join(said), frames, waveform)


class _Heard:
    """The audio of windows in order; holds no more than a window of it."""

    def __init__(self, media: MediaFile, spec: ClipSpec) -> None:
        self._spec, self._source = spec, media.source
        self._reader: AudioReader = media.audio_reader(sample_rate_hz=spec.sample_rate_hz)
        self._first, self._kept = 0, np.zeros(0, np.int16)  # number of the first sample kept

    def clip(self, start_s: float, end_s: float) -> NDArray[np.int16] | None:
        """The samples of a window, int16 [S]; None where the track has ended before it."""
        first, count = audio_span(self._spec, start_s, end_s)
        with media_errors(self._source):
            while self._reader.position < first and not self._reader.ended:
                step = self._spec.sample_rate_hz
                self._keep(self._reader.read_until(min(first, self._reader.position + step)), first)
            self._keep(self._reader.read_until(first + count), first)
        found = self._kept[:count]
        return fill_waveform(found, self._spec, count) if len(found) else None

    def _keep(self, samples: NDArray[np.int16], first: int) -> None:
        """Add samples, and forget those before number `first`."""
        self._kept = np.concatenate([self._kept, samples])
        late = min(max(first - self._first, 0), len(self._kept))
        self._kept, self._first = self._kept[late:], self._first + late
