"""Opening media files: what may be opened, which streams count, FFmpeg's errors as MediaErrors."""

from __future__ import annotations

import errno
import io
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition, Stream
from av.video.stream import VideoStream

from vatt.errors import MediaError


class FilePart(NamedTuple):
    """A file inside another one, such as a member of a tar file: `size` bytes from `offset` on."""

    path: Path
    offset: int
    size: int


MediaSource = Path | bytes | FilePart  # a file, its content, or a part of a file (a shard member)

MAX_PIXELS = 8192 * 8192  # of one frame; larger is refused before memory is taken for it

# Files in folders that are taken for videos, by their names.
# fmt: off
VIDEO_SUFFIXES = frozenset((
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts",
    ".flv", ".f4v", ".wmv", ".asf", ".3gp", ".3g2", ".ogv", ".ogm", ".mxf", ".vob", ".gif", ".nut",
    ".ivf", ".dv", ".rm", ".rmvb", ".wtv", ".divx", ".y4m",
))
AUDIO_SUFFIXES = frozenset((
    ".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".wma", ".aif", ".aiff",
    ".caf", ".au", ".mka", ".w64",
))
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp"))
# fmt: on
# What may be opened: containers that hold their own media. Play lists (hls, concat, dash …) are
# left out on purpose: a file from the internet must not make us read other files or addresses.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,live_flv,asf,ogg,wav,w64,flac,mp3,"
    "aac,ac3,eac3,dts,amr,aiff,caf,au,gif,mxf,nut,rm,ivf,dv,nsv,wtv,swf,yuv4mpegpipe,wv,tta,ape,"
    "h264,hevc,m4v,mpegvideo,mjpeg,apng,obu,av1,gxf,voc,webp,jpeg_pipe,png_pipe,bmp_pipe,webp_pipe"
)
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # none of those inside image data
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # full, or not writable
_OPTIONS = {"protocol_whitelist": "file,subfile", "format_whitelist": _FORMATS}
# The header of an MP4 file is enough; FFmpeg also reads packets, which takes 3 ms for each file.
_QUICKLY = {"probesize": "32", "analyzeduration": "0", "fpsprobesize": "0"}
MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
_MOST_ERRORS = 100  # of a demuxer, one after the other; then the rest cannot be read
MAX_HELD_S = 600.0  # that one frame may stay on screen: damaged times must not fill the disk


def describe(source: MediaSource) -> str:
    """What error messages call a source: its path, or the size of its content."""
    if isinstance(source, FilePart):
        return f"{source.path} at byte {source.offset:,}"
    return str(source) if isinstance(source, Path) else f"video of {len(source):,} bytes"


def is_image(container: InputContainer) -> bool:
    """Whether it is the file of a still image."""
    return container.format.name.endswith("_pipe")


def open_container(source: MediaSource, *, quickly: bool = False) -> InputContainer:
    """A new handle on a source, at its start.

    Args:
        source: what to open.
        quickly: believe the header of an MP4 file; `frames` and rates that it lacks stay unknown.

    Raises:
        MediaError: the source cannot be opened.
    """
    try:
        jpeg = _first_jpeg(source)
        if quickly:
            with suppress(av.FFmpegError):  # some files need a closer look
                container = _opened(source, _OPTIONS | _QUICKLY, jpeg)
                if container.format.name == MP4 and len(_tracks(container)) < 2:
                    return container
                container.close()
        container = _opened(source, _OPTIONS, jpeg)
        if len(_tracks(container)) > 1:
            with _opened(source, _OPTIONS, jpeg) as again:
                _leave_out_stills(container, again)
        return container
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = _what_is_wrong(source) or _reason(error)
        if isinstance(error, av.ArgumentError):  # only its name is that of a format
            reason = "found no kind of media that is read"
        raise MediaError(f"{describe(source)}: cannot be opened: {reason}") from error


def open_audio_alone(source: MediaSource) -> InputContainer:
    """A new handle on a file that was opened before, at its start, to read nothing of its video."""
    container = _opened(source, _OPTIONS | {"skip_frame": "all"})  # else some frames are decoded
    for track in container.streams.video:
        track.discard = Discard.all
    return container


def _opened(
    source: MediaSource, options: dict[str, str], jpeg: FilePart | None = None
) -> InputContainer:
    part = source if isinstance(source, FilePart) else jpeg
    if part is not None:
        end = part.offset + part.size
        file: str | io.BytesIO = f"subfile,,start,{part.offset},end,{end},,:file:{part.path}"
    elif isinstance(source, bytes):
        file = io.BytesIO(source)
    else:
        file = f"file:{source}"  # else "talk: intro.mp4" asks for a protocol called "talk"
    kind = "jpeg_pipe" if jpeg else None
    return av.open(file, mode="r", format=kind, options=options, metadata_errors="ignore")


def _first_jpeg(source: MediaSource) -> FilePart | None:
    """The first image of a file that is JPEG by its name and its first bytes.

    FFmpeg goes by the name alone, and takes a reader of whole series of images for it, which may
    open other files and so is not among what may be opened. Phones put further images behind the
    first one: a preview, or a map of how bright HDR screens may show it.

    Raises:
        ValueError: it has no end; FFmpeg would show grey for what is missing.
    """
    if not isinstance(source, Path) or source.suffix.lower() not in (".jpg", ".jpeg"):
        return None
    with source.open("rb") as file:
        if file.read(3) != b"\xff\xd8\xff":
            return None
        file.seek(0)
        content = file.read()
    at = 2
    while marker := _JPEG_MARKER.search(content, at):
        if marker[1] == b"\xd9":  # the end; the other markers say how long what follows them is
            return FilePart(source, 0, marker.end())
        at = marker.end() + max(2, int.from_bytes(content[marker.end() : marker.end() + 2]))
    raise ValueError("found JPEG that ends early: copy it again")


def _what_is_wrong(source: MediaSource) -> str:
    """Of what cannot be opened, where its first bytes say more than FFmpeg does; else ""."""
    if isinstance(source, bytes):
        head = source[:8]
    else:
        try:
            with (source.path if isinstance(source, FilePart) else source).open("rb") as file:
                file.seek(source.offset if isinstance(source, FilePart) else 0)
                head = file.read(source.size if isinstance(source, FilePart) else 8)[:8]
        except OSError:  # what FFmpeg says, too
            return ""
    if not head.strip(b"\0"):
        return "found no content, expected a video or audio file: copy or record it again"
    if head[4:] == b"ftyp":
        return (
            "found MP4 whose index (moov) is missing or damaged, as where recording or copying did "
            "not end: copy it again, or repair it"
        )
    return ""


@contextmanager
def media_errors(source: MediaSource) -> Iterator[None]:
    """Errors of FFmpeg inside the block are raised as errors of the source that it reads.

    Raises:
        MediaError: what the block reads cannot be decoded.
        OSError: the disk on which the block writes is full.
    """
    try:
        yield
    except (av.FFmpegError, ValueError, IndexError) as error:
        if (number := getattr(error, "errno", None)) in _DISK:  # what the block writes
            raise OSError(number, os.strerror(number)) from error
        raise MediaError(f"{describe(source)}: cannot be decoded: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    words = getattr(error, "strerror", None) or str(error)
    log = getattr(error, "log", None)  # FFmpeg's own last line: (level, part, text)
    return f"{words} ({log[2].strip()})" if log else str(words)


def video_stream(container: InputContainer) -> VideoStream | None:
    """The video track that the file marks as its default, else the first; decoded by one thread.

    A cover is none: an attached picture, or a track with one frame beside one that has more.
    """
    stream = next(iter(_tracks(container)), None)
    if stream is not None:
        _refuse_unknown_codec(stream)
        if not stream.codec_context.is_open:
            stream.codec_context.thread_count = 1  # parallel over files; the same frames always
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def _tracks(container: InputContainer) -> list[VideoStream]:
    """The video tracks that may be the film, the likeliest first."""
    covers, default = Disposition.attached_pic, Disposition.default
    tracks = [
        stream
        for stream in container.streams.video
        if not stream.disposition & covers and stream.discard != Discard.all
    ]
    return sorted(tracks, key=lambda track: not track.disposition & default)


def _leave_out_stills(container: InputContainer, again: InputContainer) -> None:
    """Discard video tracks with one frame, up to the first with more; `again` is read to see."""
    tracks, frames = _tracks(container), Counter[int]()
    start_s: float | None = None
    for packet in past_errors(again):
        if packet is None or not packet.size or packet.pts is None:
            continue
        time_s = float(packet.pts * packet.time_base)
        start_s = time_s if start_s is None else start_s
        frames[packet.stream.index] += 1
        if frames[tracks[0].index] > 1 or time_s - start_s > MAX_HELD_S:
            break
    film = next((number for number, one in enumerate(tracks) if frames[one.index] > 1), 0)
    for still in tracks[:film]:
        still.discard = Discard.all


def past_errors(container: InputContainer, *streams: Stream) -> Iterator[Packet[Stream] | None]:
    """The packets of a container, of all streams if none are given; None for what has no sense."""
    errors = 0
    packets = container.demux(*streams)
    while errors < _MOST_ERRORS:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, IndexError):  # bytes, or a stream that the file does not have
            packets = container.demux(*streams)
            errors += 1
            yield None
            continue
        if packet is None:
            return
        errors = 0
        yield packet


def audio_stream(container: InputContainer) -> AudioStream | None:
    """The audio track that the file marks as its default, else the first."""
    tracks = container.streams.audio
    stream = next((t for t in tracks if t.disposition & Disposition.default), None)
    stream = stream or next(iter(tracks), None)
    if stream is not None:
        _refuse_unknown_codec(stream)
    return stream


def _refuse_unknown_codec(stream: VideoStream | AudioStream) -> None:
    if stream.codec_context is None:
        raise ValueError(f"FFmpeg does not know the codec of its {stream.type}")
