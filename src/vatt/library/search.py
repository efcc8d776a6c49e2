"""Searching an index: from a query to moments, grouped by file; as JSON, play lists, edit lists.

library = vatt.open_index("library.index")
for hit in library.search("slicing onions").data: print(hit.file, hit.start, hit.end)
"""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vatt.errors import CheckpointError, ConfigError, DataError
from vatt.library.moments import Moment, find_moments
from vatt.library.vector_index import FileEntry, Index
from vatt.library.vector_index import open_index as open_vectors

if TYPE_CHECKING:
    from vatt.any_encoder import OpenedEncoder
    from vatt.library.query import QueryPart, Signal

GroupBy = Literal["clip", "video"]
EXPORTS = (".m3u", ".edl", ".csv")
CONSIDERED = 5000  # windows with the best scores, among which moments are found
_EDL_FPS = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class HitPart:
    """A piece of a hit: start and end in seconds, and its score."""

    score: float
    start: float
    end: float
    window_id: str
    caption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A moment, or a file with its moments.

    score: of its best window; compare scores only within one search. clips: of a moment its
    windows, of a file its moments. window_id: of its best window. thumbnail: its address at the
    server of `vatt serve`.
    """

    score: float
    start: float
    end: float
    video_id: str
    window_id: str
    file: str
    title: str
    caption: str
    thumbnail: str
    clips: Sequence[HitPart]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPool:
    """What was searched: files, and their seconds."""

    total_count: int
    total_duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """Hits, best first, in the shape that video search services answer with.

    notes: what is to be said about the query, such as words that the model does not know.
    """

    search_pool: SearchPool
    data: Sequence[Hit]
    notes: Sequence[str] = ()


class Library(Index):
    """An open index with what it takes to search it; `open_index` makes one."""

    def __init__(
        self,
        index: Index,
        *,
        model: Path | None = None,
        encoder: str | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__(index.place, index.manifest)
        self._model, self._peer, self._device = model, encoder, device
        self._opened: OpenedEncoder | None = None
        self._opening = threading.Lock()

    @property
    def encoder(self) -> OpenedEncoder:
        """The encoder that the index was made with; opened when it is first asked for.

        Raises:
            CheckpointError, ConfigError: it is not there.
            DataError: another one is there.
        """
        with self._opening:
            if self._opened is None:
                self._opened = self._open_encoder()
            return self._opened

    def reopened(self) -> Library:
        """The index as it is now, with the encoder that is open if it is still of that model.

        Raises:
            DataError: there is no index any more, or it is damaged.
        """
        new = Library(
            open_vectors(str(self.place)),
            model=self._model,
            encoder=self._peer,
            device=self._device,
        )
        if new.manifest.model_hash == self.manifest.model_hash:
            new._opened = self._opened
        return new

    def _open_encoder(self) -> OpenedEncoder:
        from vatt.any_encoder import open_encoder
        from vatt.hub import is_hub_name

        model, peer = self._model, self._peer
        if model is None and peer is None:
            named = self.manifest.model
            is_model = is_hub_name(named) or Path(named).exists() or ":" not in named
            model, peer = (Path(named), None) if is_model else (None, named)
        try:
            opened = open_encoder(model, peer, self._device)
        except CheckpointError as error:
            raise CheckpointError(
                f"{error}; the index {self.place} was made with it: if it was moved, say by "
                "--model where it is now"
            ) from error
        if opened.hash != self.manifest.model_hash:
            raise DataError(
                f"{self.place}: was made with the model {self.manifest.model_hash} "
                f"({self.manifest.model}), but {opened.name} is {opened.hash}; give that model, "
                "or embed anew with this one"
            )
        return opened

    def search(
        self,
        query: str | Sequence[QueryPart],
        *,
        top: int = 10,
        group_by: GroupBy = "video",
        within: str | Sequence[str] | None = None,
        signals: Sequence[tuple[QueryPart, str, Signal]] = (),
    ) -> SearchResult:
        """Search.

        Args:
            query: words, or parts of a query (`library.query`).
            top: moments to find at most.
            group_by: "video": hits are files, with their moments; "clip": hits are moments.
            within: paths, names or patterns (`*/2024/*.mp4`) of the files to search; all if None.
            signals: files of the query that were read elsewhere.

        Raises:
            ConfigError: the query is empty, or its words are unknown, or no file is `within`.
            MediaError: a file of the query cannot be read.
        """
        from vatt.library.query import parse_part, terms_of

        parts = [parse_part("words", query)] if isinstance(query, str) else query
        patterns = [within] if isinstance(within, str) else within
        files = self._within(patterns)
        terms, notes = terms_of(self, self.encoder, parts, signals)
        ids = None if patterns is None else [one.file_id for one in files]
        scored = self.scores(terms, ids, limit=CONSIDERED)
        if not scored:
            wanted = [one.column for one in terms if one.weight > 0]
            lacking = {"audio" if one == "audio_va" else "video" for one in wanted}
            notes.append(f"nothing here has {' and '.join(sorted(lacking))} to compare that with")
        moments = find_moments(scored, every_s=self.manifest.every_s, top=top)
        pool = SearchPool(
            total_count=len(files),
            total_duration=round(sum(one.duration_s for one in files), 3),
        )
        hits = [self._hit(one) for one in moments]
        data = by_video(hits) if group_by == "video" else hits
        return SearchResult(search_pool=pool, data=data, notes=notes)

    def _within(self, patterns: Sequence[str] | None) -> list[FileEntry]:
        files = self.files()
        if patterns is None:
            return files
        wanted = [*patterns, *(str(Path(one).absolute()) for one in patterns)]
        found = [
            one
            for one in files
            if any(
                text == pattern or fnmatch(text, pattern)
                for text in (one.path, Path(one.path).name, one.title, one.file_id)
                for pattern in wanted
            )
        ]
        if not found:
            raise ConfigError(
                f"within: found no file of the index in {', '.join(patterns)}, expected a path, a "
                "name, or a pattern such as '*.mp4'"
            )
        return found

    def _hit(self, moment: Moment) -> Hit:
        file, best = self.file(moment.file_id), moment.best
        at_ms = round((best.start_s + best.end_s) * 500)
        return Hit(
            score=round(moment.score, 6),
            start=round(moment.start_s, 3),
            end=round(moment.end_s, 3),
            video_id=file.file_id,
            window_id=best.window_id,
            file=file.path,
            title=file.title,
            caption=best.caption,
            thumbnail=f"/strips/{file.file_id}/{at_ms}-{at_ms}-1.jpg",
            clips=[
                HitPart(
                    score=round(score, 6),
                    start=round(window.start_s, 3),
                    end=round(window.end_s, 3),
                    window_id=window.window_id,
                    caption=window.caption,
                )
                for window, score in moment.windows
            ],
        )


def by_video(moments: Sequence[Hit]) -> list[Hit]:
    """Moments, best first, as files with their moments; the file with the best moment first."""
    groups: dict[str, list[Hit]] = {}
    for one in moments:
        groups.setdefault(one.video_id, []).append(one)
    return [
        replace(
            group[0],
            clips=[
                HitPart(
                    score=one.score,
                    start=one.start,
                    end=one.end,
                    window_id=one.window_id,
                    caption=one.caption,
                )
                for one in group
            ],
        )
        for group in groups.values()
    ]


def open_index(
    path: Path | str,
    *,
    model: Path | str | None = None,
    encoder: str | None = None,
    device: str | None = None,
) -> Library:
    """Open an index to search it.

    Args:
        path: its folder, or its URL in an object store.
        model: where the model that it was made with is now, if it was moved.
        encoder: as `model`, of a peer's: `package.module:factory`.
        device: where to compute.

    Raises:
        DataError: there is no index, it is damaged, or of a newer format.
    """
    index = open_vectors(path)
    folder = None if model is None else Path(model)
    return Library(index, model=folder, encoder=encoder, device=device)


# ── for players and editors ──────────────────────────────────────────────────────────────────────


def exported(hits: Sequence[Hit], suffix: str) -> str:
    """Moments as a play list (.m3u, of VLC and mpv), an edit list (.edl, CMX 3600) or a table.

    Args:
        hits: moments, so of a search with `group_by="clip"`.
        suffix: one of EXPORTS.
    """
    write = {".m3u": _play_list, ".edl": _edit_list, ".csv": _table}[suffix]
    return write(hits)


def _line(text: str) -> str:
    """A text as a part of one line."""
    return " ".join(text.split())


def _play_list(hits: Sequence[Hit]) -> str:
    lines = ["#EXTM3U"]
    for hit in hits:
        title = _line(f"{Path(hit.file).name} {hit.start:.1f}–{hit.end:.1f} s {hit.caption}")
        lines += [
            f"#EXTINF:{hit.end - hit.start:.3f},{title}",
            f"#EXTVLCOPT:start-time={hit.start:.3f}",
            f"#EXTVLCOPT:stop-time={hit.end:.3f}",
            # A name with a line break in it would be two entries; as an address it is one.
            hit.file if hit.file == _line(hit.file) else Path(hit.file).as_uri(),
        ]
    return "\n".join(lines) + "\n"


def _edit_list(hits: Sequence[Hit]) -> str:
    lines, at = ["TITLE: vatt search", "FCM: NON-DROP FRAME"], 0
    for number, hit in enumerate(hits, start=1):
        # In whole frames, so that an event is as long in the source as on the time line.
        first, last = (round(time_s * _EDL_FPS) for time_s in (hit.start, hit.end))
        codes = " ".join(map(_time_code, (first, last, at, at + last - first)))
        lines += [
            "",
            f"{number:03d}  AX       AA/V  C        {codes}",
            f"* FROM CLIP NAME: {_line(Path(hit.file).name)}",
            f"* SOURCE FILE: {_line(hit.file)}",
        ]
        if hit.caption:
            lines.append(f"* COMMENT: {_line(hit.caption)}")
        at += last - first
    return "\n".join(lines) + "\n"


def _time_code(frames: int) -> str:
    seconds, frames = divmod(frames, _EDL_FPS)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}:{frames:02d}"


def _table(hits: Sequence[Hit]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["file", "start_s", "end_s", "score", "caption"])
    rows.writerows(
        [hit.file, f"{hit.start:.3f}", f"{hit.end:.3f}", f"{hit.score:.6f}", hit.caption]
        for hit in hits
    )
    return text.getvalue()
