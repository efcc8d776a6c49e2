"""When a clip's frames and audio samples are taken, and where evaluation takes clips (§4.3).

Pure functions of numbers; training, evaluation and `vatt.load` call the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vatt.contracts import ClipSpec

TOLERANCE_S = 1e-3  # durations come from containers that round to milliseconds


def fits(spec: ClipSpec, start_s: float, end_s: float) -> bool:
    """Whether a clip that starts at `start_s` ends by `end_s`."""
    return start_s + spec.duration_s <= end_s + TOLERANCE_S


def clip_times(
    spec: ClipSpec, start_s: float, end_s: float, *, step_s: float | None = None
) -> NDArray[np.float64]:
    """When each of the T frames is taken, in seconds [T]; they repeat from the start past `end_s`.

    Args:
        spec: gives T and the frame rate.
        start_s: time of the first frame.
        end_s: end of the segment. A clip that does not fit repeats [start_s, end_s), as the
            official code repeats short videos.
        step_s: from one frame to the next; 1 / frame rate if not given.
    """
    step_s = 1.0 / spec.fps if step_s is None else step_s
    offsets_s = np.round(np.arange(spec.frames, dtype=np.float64) * step_s, 9)
    if start_s + spec.frames * step_s > end_s + TOLERANCE_S:
        length_s = round(end_s - start_s, 9)
        # No time is at the very end: there the next frame counts as begun, and there is none.
        offsets_s = np.minimum(np.fmod(offsets_s, length_s), length_s - 2 * TOLERANCE_S)
    return np.maximum(start_s + offsets_s, start_s)


def frame_times(
    spec: ClipSpec, start_s: float, end_s: float, *, frame_step: str, fps: float
) -> tuple[float, NDArray[np.float64]]:
    """When a clip starts, and when each of its frames is taken; see `data.frame_step`.

    Args:
        spec: of the clip.
        start_s: where the clip is asked for.
        end_s: as of `clip_times`.
        frame_step: "time" or "stride".
        fps: frames per second of the video, 0 if not known; only strides ask for it.

    Returns:
        The start, which strides move back to where a frame begins; seconds [T].
    """
    if frame_step == "time" or fps <= 0:
        return start_s, clip_times(spec, start_s, end_s)
    start_s = math.floor(start_s * fps + 1e-6) / fps
    stride = max(1, int(fps / spec.fps + 1e-6))
    return start_s, clip_times(spec, start_s, end_s, step_s=stride / fps)


def audio_span(spec: ClipSpec, start_s: float, end_s: float) -> tuple[int, int]:
    """A clip's first audio sample, and the number of samples until they repeat (S: they do not)."""
    length = spec.samples
    if not fits(spec, start_s, end_s):
        length = max(1, round((end_s - start_s) * spec.sample_rate_hz))
    return round(start_s * spec.sample_rate_hz), length


def fill_waveform(audio: NDArray[np.int16], spec: ClipSpec, length: int) -> NDArray[np.int16]:
    """Samples of `audio_span` → S samples: zeros up to `length`, then `spec.short_audio`."""
    length = spec.samples if spec.short_audio == "silence" else length
    if len(audio) < length:
        audio = np.concatenate([audio, np.zeros(length - len(audio), np.int16)])
    return audio if length == spec.samples else np.resize(audio, spec.samples)


def clip_samples(
    track: NDArray[np.int16], spec: ClipSpec, start_s: float, end_s: float
) -> NDArray[np.int16]:
    """The S samples of the frames of `clip_times`.

    Args:
        track: int16 [S_total], all samples of the video; sample i is at i / sample rate.
        spec: gives S and the sample rate.
        start_s: of the clip.
        end_s: end of the segment; the samples repeat exactly as the frames do, or zeros follow.

    Returns:
        int16 [S]; zeros where the track has ended.
    """
    first, length = audio_span(spec, start_s, end_s)
    return fill_waveform(track[first : first + length], spec, length)


def spread_places(
    segments: Sequence[tuple[float, float]], spec: ClipSpec, clips: int
) -> list[tuple[float, float]]:
    """Where each clip starts, and the end of its segment: `spread_starts` over several segments.

    Args:
        segments: start and end of each, ascending; no clip lies across two of them.
        spec: how long a clip is.
        clips: how many, 2 or more. They lie in segments that are long enough, else all in the
            longest.
    """
    fitting = [one for one in segments if fits(spec, *one)]
    fitting = fitting or [max(segments, key=lambda one: one[1] - one[0])]
    rooms = [max(0.0, end_s - start_s - spec.duration_s) for start_s, end_s in fitting]
    until = [0.0, *np.cumsum(rooms).tolist()]
    places = []
    for at in np.linspace(0.0, until[-1], clips).tolist():
        number = min(int(np.searchsorted(until[1:], at)), len(fitting) - 1)
        start_s, end_s = fitting[number]
        places.append((start_s + (at - until[number]), end_s))
    return places


def spread_starts(duration_s: float, spec: ClipSpec, clips: int) -> NDArray[np.float64]:
    """Starts of the clips that evaluate a video, spread evenly over it [clips] (§4.3).

    The first starts at 0 and the last ends with the video; a single one lies in the middle. All
    start at 0 when the video is shorter than a clip.
    """
    room = max(0.0, duration_s - spec.duration_s)
    return np.array([room / 2]) if clips == 1 else np.linspace(0.0, room, clips)
