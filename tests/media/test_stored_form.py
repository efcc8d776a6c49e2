"""Only what is in the stored form already is kept byte for byte."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest

from tests.media.clips import Recipe, write
from tests.media.reading import encode_parts, has_stored_form
from tests.media.swatches import Swatches, write_swatches
from tests.media.test_frame_filters import INTERLACED, write_interlaced
from vatt.errors import MediaError
from vatt.media.stored_form import StoredForm

FORM = StoredForm(short_side=256, fps=Fraction(10), gop=16)
PLAIN = Recipe(frames=40)
SWATCHES = Swatches(codec="libx264", pix_fmt="yuv420p", options={"bf": "0", "g": "10"})


def kept(path: Path, form: StoredForm = FORM) -> bool:
    return has_stored_form(path, form)


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("b-frames.mp4", replace(PLAIN, options={"bf": "2", "g": "10"})),
        ("long groups.mp4", replace(PLAIN, options={"bf": "0", "g": "40"})),
        ("other sound.mp4", replace(PLAIN, audio_codec="libmp3lame")),
        ("other rate of sound.mp4", replace(PLAIN, sample_rate_hz=44_100)),
        ("other codec.mp4", replace(PLAIN, video_codec="mpeg4")),
        ("other container.mkv", PLAIN),
        ("other pixels.mp4", replace(PLAIN, pix_fmt="yuv444p")),
        ("too fast.mp4", replace(PLAIN, fps=Fraction(25))),
        ("too large.mp4", replace(PLAIN, size=(258, 344))),
        ("turned.mp4", replace(PLAIN, rotation=180)),
        ("uneven.mp4", replace(PLAIN, times_s=[k * 0.1 + 0.02 * (k % 2) for k in range(40)])),
    ],
)
def test_files_of_another_form_are_recognised(name: str, recipe: Recipe, tmp_path: Path) -> None:
    fitting = write(tmp_path / "fits.mp4", PLAIN)
    assert has_stored_form(fitting, FORM)
    other = write(tmp_path / name, recipe)
    assert not has_stored_form(other, FORM)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"tagged": False, "matrix": "601"}, True),
        ({"matrix": "601"}, True),
        ({"full_range": True}, False),
        ({"matrix": "2020"}, False),
        ({"primaries": 9}, False),
        ({"curve": 16}, False),  # PQ
        ({"mirrored": True}, False),
        ({"aspect": Fraction(3, 2)}, False),
        ({"size": (46, 62)}, True),
    ],
)
def test_colours_that_need_more_than_their_matrix_are_not_kept(
    changes: dict[str, object], expected: bool, tmp_path: Path
) -> None:
    path = write_swatches(tmp_path / "a.mp4", replace(SWATCHES, frames=4, **changes))  # type: ignore[arg-type]
    assert kept(path) is expected


def test_interlaced_videos_are_not_kept(tmp_path: Path) -> None:
    codec, options = INTERLACED["h264.mkv"]
    form = replace(FORM, fps=None)
    assert kept(write_interlaced(tmp_path / "a.mp4", codec, {"g": "12", "bf": "0"}), form)
    assert not kept(write_interlaced(tmp_path / "a.mp4", codec, options), form)


def test_what_an_edit_list_hides_is_not_kept(tmp_path: Path) -> None:
    assert not kept(write(tmp_path / "a.mp4", replace(PLAIN, edit_list_skips_s=0.55)))


def test_a_video_longer_than_a_part_is_not_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", PLAIN)
    assert has_stored_form(path, FORM, part_s=3.9)  # a tenth more is one part, too
    assert not has_stored_form(path, FORM, part_s=3.0)


def test_a_file_that_lacks_frames_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mp4", replace(PLAIN, audio_codec=None))
    content = source.read_bytes()
    source.write_bytes(content[: len(content) * 2 // 3])  # its table of frames is at the start
    with pytest.raises(MediaError, match=r"a\.mp4: holds \d+ of 40 frames"):
        kept(source)


@pytest.mark.parametrize("stream", ["video", "audio"])
def test_damage_within_packets_is_noticed(stream: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", replace(PLAIN, noise=True, size=(96, 128)))
    assert kept(path)
    damage(path, stream)
    with pytest.raises(MediaError, match=r"a\.mp4"):
        kept(path)
    with pytest.raises(MediaError, match=r"a\.mp4"):  # what is not kept is not encoded either
        list(encode_parts(path, tmp_path, FORM))


def damage(path: Path, kind: str) -> None:
    """Overwrite the middle half of a packet in the middle of a stream."""
    with av.open(str(path)) as container:
        (stream,) = container.streams.get(**{kind: 0})
        packets = [packet for packet in container.demux(stream) if packet.pts is not None]
    packet = packets[len(packets) // 2]
    assert packet.pos is not None
    content = bytearray(path.read_bytes())
    quarter = packet.size // 4
    begin, end = packet.pos + quarter, packet.pos + packet.size - quarter
    content[begin:end] = b"\xff" * (end - begin)
    path.write_bytes(content)
