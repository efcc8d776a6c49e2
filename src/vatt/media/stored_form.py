"""Telling whether a file can be stored as it is, byte for byte."""

from __future__ import annotations

from collections import deque

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange

from vatt.errors import MediaError
from vatt.media.container import MediaSource, audio_stream, describe, opened, video_stream
from vatt.media.encode import (
    PART_S,
    SAMPLE_RATE_HZ,
    SHORTEST_PART,
    StoredForm,
    stored_fps,
    stored_size,
)
from vatt.media.frame_filters import BT601, BT709, color_matrix, is_vivid
from vatt.media.probe import MediaFacts
from vatt.media.video import VideoReader

_COPIED_MATRICES = (BT601, 5, BT709)  # 5 is BT.601 too, for 625 lines


def has_stored_form(
    source: MediaSource, facts: MediaFacts, form: StoredForm, *, part_s: float = PART_S
) -> bool:
    """Whether a file can be kept byte for byte: already in the stored form, or a smaller one.

    Its packets are read, and when they are as they should be, all of its picture and sound is
    decoded: what cannot be encoded is not kept either.

    Raises:
        MediaError: the file is damaged, or holds fewer frames than its own table says.
    """
    video, audio = facts.video, facts.audio
    if video is None or video.fps is None or video.codec != "h264" or video.pix_fmt != "yuv420p":
        return False
    if audio is not None and (audio.codec, audio.sample_rate_hz) != ("aac", SAMPLE_RATE_HZ):
        return False
    return (
        (video.height, video.width) == stored_size(video, form)
        and video.fps == stored_fps(video, form)
        and (video.rotation, video.mirrored) == (0, False)
        and facts.duration_s < part_s * (1 + SHORTEST_PART)
        and _evenly_coded(source, form.gop)
        and _decodes_as_it_is(source)
    )


def _evenly_coded(source: MediaSource, gop: int) -> bool:
    """MP4 with a constant rate, no B-frames, and a key frame at least every `gop` frames."""
    times, since_key = [], 0
    with opened(source) as container:
        stream = video_stream(container)
        assert stream is not None
        if "mp4" not in container.format.name.split(","):
            return False
        for packet in container.demux(stream):
            if packet.pts is None or packet.is_corrupt:
                break  # the end, or where the file is cut off
            times.append(packet.pts)
            since_key = 1 if packet.is_keyframe else since_key + 1
            if since_key > gop or packet.is_discard:
                return False
    if stream.frames and len(times) < stream.frames:
        raise MediaError(
            f"{describe(source)}: holds {len(times)} of {stream.frames} frames; it is cut off or "
            "damaged: get it again"
        )
    steps = np.diff(times)
    return len(times) > 0 and len(np.unique(steps)) <= 1 and bool((steps > 0).all())


def _decodes_as_it_is(source: MediaSource) -> bool:
    """Whether all its pictures are as they are to be shown; all of its sound is decoded, too."""
    with opened(source) as container:
        reader = VideoReader(container, source)
        for timed in reader.frames():
            if reader.interlaced or not _is_plain(timed.frame):
                return False
    with opened(source) as container:
        if (sound := audio_stream(container)) is not None:
            deque(container.decode(sound), maxlen=0)
    return True


def _is_plain(frame: VideoFrame) -> bool:
    """In colours that need no conversion but by the matrix they are tagged with."""
    return (
        color_matrix(frame) in _COPIED_MATRICES
        and frame.color_range in (ColorRange.UNSPECIFIED, ColorRange.MPEG)
        and not is_vivid(frame)
    )
