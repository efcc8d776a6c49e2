"""`vatt search`: the moments of a library that fit words, audio, a clip or an image."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from vatt.errors import ConfigError
from vatt.library.search import (
    EXPORTS,
    GroupBy,
    Hit,
    SearchPool,
    by_video,
    exported,
    open_index,
)
from vatt.storage import write_atomically

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchConfig:
    """Find moments in an index of `vatt embed`. Words and files together are one query.

    Each part may have a weight: "slicing onions^2", --audio knock.wav^0.5.
    """

    index: Positional[str]
    """Folder of the index, or its URL in an object store."""
    words: Positional[tuple[str, ...]] = ()
    """What is to be seen, in words of the captions that the model was trained with."""
    audio: Annotated[tuple[str, ...], arg(aliases=["--sound"])] = ()
    """Audio that sounds like it: FILE, or FILE@SECONDS for the clip around a second."""
    video: tuple[str, ...] = ()
    """A clip that looks like it: FILE, or FILE@SECONDS."""
    image: tuple[str, ...] = ()
    """A still image that looks like it."""
    avoid: Annotated[tuple[str, ...], arg(name="not")] = ()
    """Words for what is not wanted; it needs something that is."""
    within: tuple[str, ...] = ()
    """Search only these files of the index: paths, names or patterns such as '*/2024/*.mp4'."""
    top: int = 10
    """Moments to find."""
    group_by: GroupBy = "video"
    """Show files with their moments, or the moments by themselves."""
    out: Path | None = None
    """Also write the moments for players and editors: .m3u, .edl or .csv."""
    model: Path | None = None
    """Where the index's model is now, if it was moved."""
    encoder: str | None = None
    """The same of a peer's encoder: package.module:factory."""
    device: str | None = None

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ConfigError(f"top: found {self.top}, expected >= 1")
        if self.out is not None and self.out.suffix not in EXPORTS:
            raise ConfigError(
                f"out: found {self.out}, expected a name that ends in {', '.join(EXPORTS)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundMoments:
    """Moments in the shape that video search services answer with."""

    search_pool: SearchPool
    data: Sequence[Hit]
    group_by: GroupBy
    notes: Sequence[str] = ()
    out: Path | None = None

    def shown(self) -> Mapping[str, Any]:
        """For people: a line for each moment."""
        rows = [
            {
                "score": f"{clip.score:.3f}",
                "from": _clock(clip.start),
                "to": _clock(clip.end),
                "file": hit.file,
                "caption there": clip.caption,
            }
            for hit in self.data
            for clip in (hit.clips if self.group_by == "video" else [hit])
        ]
        minutes = self.search_pool.total_duration / 60
        shown: dict[str, Any] = {
            "searched": f"{self.search_pool.total_count} files, {minutes:,.1f} minutes",
            "moments (scores compare only within this search)": rows,
        }
        if self.out is not None:
            shown["written"] = self.out
        return shown


def run(config: SearchConfig) -> FoundMoments:
    """Search; write `out` if it is given.

    Raises:
        ConfigError: the query is empty, or its words are unknown.
        DataError: there is no index.
    """
    with _no_garbage():
        library = open_index(
            config.index, model=config.model, encoder=config.encoder, device=config.device
        )
        from vatt.library.query import parse_part

        parts = [parse_part("words", one) for one in config.words]
        parts += [parse_part("audio", one) for one in config.audio]
        parts += [parse_part("video", one) for one in config.video]
        parts += [parse_part("image", one) for one in config.image]
        parts += [parse_part("words", one, sign=-1.0) for one in config.avoid]
        within = config.within or None
        found = library.search(parts, top=config.top, group_by="clip", within=within)
    for note in found.notes:
        logger.warning("%s", note)
    if config.out is not None:
        write_atomically(config.out, exported(found.data, config.out.suffix))
        if any(".tar#" in hit.file for hit in found.data):
            logger.warning("moments of videos in shards cannot be opened by players and editors")
    return FoundMoments(
        search_pool=found.search_pool,
        data=found.data if config.group_by == "clip" else by_video(found.data),
        group_by=config.group_by,
        notes=found.notes,
        out=config.out,
    )


@contextmanager
def _no_garbage() -> Iterator[None]:
    """What is made meanwhile is kept: looking for garbage in PyTorch takes a sixth of a search."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()


def _clock(time_s: float) -> str:
    minutes, seconds = divmod(time_s, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{seconds:04.1f}" if hours else f"{minutes}:{seconds:04.1f}"
