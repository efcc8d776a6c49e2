from __future__ import annotations

import io
from dataclasses import replace

import av
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.data.scenes import Scene, film
from vatt.errors import MediaError
from vatt.media.media_file import decode_audio, decode_frames
from vatt.media.remux import join

SCENE = Scene(seed=1)


def sound_of(video: bytes, *, form: str = "ipod") -> bytes:
    """Its sound track alone, packet by packet, as `.m4a`."""
    file = io.BytesIO()
    with av.open(io.BytesIO(video), "r") as source, av.open(file, "w", format=form) as output:
        track = source.streams.audio[0]
        copy = output.add_stream_from_template(track)
        for packet in source.demux(track):
            if packet.size:
                packet.stream = copy
                output.mux(packet)
    return file.getvalue()


@pytest.mark.parametrize("container", ["mp4", "matroska"])
@pytest.mark.parametrize("b_frames", ["0", "2"])
def test_a_joined_file_shows_the_one_and_sounds_like_the_other(container, b_frames) -> None:
    scene = replace(SCENE, options={"bf": b_frames, "g": "10"})
    both = film(scene)
    silent = film(replace(scene, sound=None), container=container)
    joined = join(silent, sound_of(both))
    times = np.arange(20) / 10
    assert_array_equal(
        decode_frames(joined, times, size=(48, 64)), decode_frames(silent, times, size=(48, 64))
    )
    expected = decode_audio(both, sample_rate_hz=48_000)
    heard = decode_audio(joined, sample_rate_hz=48_000)
    assert expected is not None
    assert heard is not None
    if container == "mp4":
        assert_array_equal(heard, expected)
    else:  # Matroska's times are whole milliseconds: half of one is 24 samples
        middle = expected[20_000:60_000].astype(float)
        shifts = range(-60, 61)
        alike = [float(middle @ heard[20_000 + s : 60_000 + s].astype(float)) for s in shifts]
        assert abs(shifts[int(np.argmax(alike))]) <= 48


def test_what_lacks_is_said() -> None:
    silent, both = film(replace(SCENE, sound=None)), film(SCENE)
    with pytest.raises(MediaError, match="no sound in the sound file"):
        join(silent, silent)
    with pytest.raises(MediaError, match="no picture in the video"):
        join(sound_of(both), sound_of(both))
    with pytest.raises(MediaError, match="cannot be opened"):
        join(silent, b"nothing")
