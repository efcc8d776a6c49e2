"""What is stored: frames, audio and parts of it, and which files are kept byte for byte."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.media.clips import Recipe, flashes, numbers, write
from tests.media.reading import decode_all_frames, encode, encode_parts, has_stored_form
from tests.media.swatches import Swatches, write_swatches
from tests.media.test_frame_filters import INTERLACED, write_interlaced
from vatt.errors import MediaError
from vatt.media.facts import VideoFacts
from vatt.media.media_file import decode_audio, open_media, probe
from vatt.media.stored_form import StoredForm, stored_fps, stored_size

FORM = StoredForm(short_side=256, fps=Fraction(10), gop=16)
SMALL = replace(FORM, short_side=32)
PLAIN = Recipe(frames=40)
SWATCHES = Swatches(codec="libx264", pix_fmt="yuv420p", options={"bf": "0", "g": "10"})
FACTS = VideoFacts(
    codec="h264",
    width=1920,
    height=1080,
    fps=Fraction(30),
    frames=0,
    rotation=0,
    pix_fmt="yuv420p",
    sample_aspect=Fraction(1),
)


def stored(tmp_path: Path, recipe: Recipe, form: StoredForm, name: str = "source.mkv") -> Path:
    target = tmp_path / "stored.mp4"
    encode(write(tmp_path / name, recipe), target, form)
    return target


def test_what_is_encoded_has_the_stored_form(tmp_path: Path) -> None:
    recipe = replace(PLAIN, sample_rate_hz=48_000, audio_codec="libopus", options={"bf": "3"})
    path = stored(tmp_path, recipe, SMALL)
    facts = probe(path)
    assert facts.video is not None
    assert facts.audio is not None
    assert (facts.video.height, facts.video.width) == (32, 42)
    assert (facts.audio.codec, facts.audio.sample_rate_hz, facts.audio.channels) == (
        "aac",
        48_000,
        1,
    )
    assert facts.duration_s == pytest.approx(4.0)
    assert has_stored_form(path, SMALL)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.pts is not None]
    keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
    assert [packet.pts for packet in packets] == [packet.dts for packet in packets]
    assert max(np.diff([*keys, len(packets)])) <= 16


def test_each_stored_frame_is_the_one_on_screen_in_the_source(tmp_path: Path) -> None:
    times_s = [0.0, 0.05, 0.33, 0.40, 0.95, 1.21, 1.29, 1.50]
    recipe = replace(PLAIN, frames=8, fps=Fraction(20), times_s=times_s, audio_codec=None)
    frames, starts_s, _ = decode_all_frames(stored(tmp_path, recipe, FORM), size=(48, 64))
    np.testing.assert_allclose(starts_s, np.arange(len(frames)) / 10)
    shown = [max(k for k in range(8) if times_s[k] <= t + 0.001) for t in starts_s]
    assert numbers(frames) == shown
    assert len(frames) == 16  # the last is shown from 1.5 s until 1.55 s


def test_a_slower_source_keeps_its_rate_and_a_smaller_one_its_size(tmp_path: Path) -> None:
    facts = probe(stored(tmp_path, replace(PLAIN, fps=Fraction(15, 2)), FORM)).video
    assert facts is not None
    assert (facts.height, facts.width, facts.fps) == (48, 64, Fraction(15, 2))


def test_a_turned_video_is_stored_upright(tmp_path: Path) -> None:
    path = stored(tmp_path, replace(PLAIN, frames=4, flash=2, rotation=90), FORM, "source.mp4")
    facts = probe(path).video
    assert facts is not None
    assert (facts.height, facts.width, facts.rotation) == (64, 48, 0)
    frames, _, _ = decode_all_frames(path, size=(64, 48))
    back = np.rot90(frames, -1, axes=(1, 2))
    assert numbers(back) == [0, 1, 2, 3]
    assert flashes(back).tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (256, 456)),
        ({"rotation": 90}, (456, 256)),
        ({"width": 1080, "height": 1920}, (456, 256)),
        ({"width": 321, "height": 181}, (180, 320)),  # smaller: only made even
        ({"width": 720, "height": 576, "sample_aspect": Fraction(64, 45)}, (256, 456)),
        ({"width": 64, "height": 48, "sample_aspect": Fraction(2)}, (24, 64)),
        ({"width": 2000, "height": 2}, (2, 2000)),
    ],
)
def test_sizes_are_upright_even_square_and_never_larger(
    changes: dict[str, Any], expected: tuple[int, int]
) -> None:
    assert stored_size(replace(FACTS, **changes), FORM) == expected


def test_rates_are_the_asked_one_or_less() -> None:
    assert stored_fps(FACTS, FORM) == 10
    assert stored_fps(FACTS, replace(FORM, fps=None)) == 30
    assert stored_fps(replace(FACTS, fps=Fraction(8)), FORM) == 8


def test_videos_without_audio_are_stored_without_a_track(tmp_path: Path) -> None:
    path = stored(tmp_path, replace(PLAIN, audio_codec=None), FORM)
    assert probe(path).audio is None
    assert has_stored_form(path, FORM)


def test_a_source_that_is_cut_off_is_refused_wherever_a_packet_is_cut(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mp4", replace(PLAIN, audio_codec=None))
    content = source.read_bytes()
    middle = len(content) * 2 // 3  # its table of frames is at the start
    for kept in range(middle, middle + 60, 3):  # more than a packet, of about 25 bytes
        source.write_bytes(content[:kept])
        with pytest.raises(MediaError, match=r"a\.mp4: .*cut off"):
            encode(source, tmp_path / "stored.mp4", FORM)


def test_a_full_disk_is_no_fault_of_the_video(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mp4", PLAIN)
    (tmp_path / "part-0000.mp4").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        list(encode_parts(source, tmp_path, FORM))


# ── parts ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("frames", "lengths_s"),
    [
        (20, [2.0]),
        (19, [1.9]),
        (40, [2.0, 2.0]),
        (41, [2.0, 2.1]),  # a rest of less than a tenth of a part stays with the part before it
        (43, [2.0, 2.0, 0.3]),
        (57, [2.0, 2.0, 1.7]),
    ],
)
def test_parts_follow_each_other_and_hold_each_frame_once(
    frames: int, lengths_s: list[float], tmp_path: Path
) -> None:
    source = write(tmp_path / "a.mp4", replace(PLAIN, frames=frames))
    parts = list(encode_parts(source, tmp_path, FORM, part_s=2.0))
    np.testing.assert_allclose([part.end_s - part.start_s for part in parts], lengths_s)
    assert [part.start_s for part in parts] == [0.0, *(part.end_s for part in parts[:-1])]
    seen = [decode_all_frames(part.path, size=(48, 64))[0] for part in parts]
    assert numbers(np.concatenate(seen)) == list(range(frames))
    for part in parts:
        assert has_stored_form(part.path, FORM)


def test_a_video_whose_container_gives_no_length_is_cut_like_others(tmp_path: Path) -> None:
    """A rest shorter than a tenth of a part stays with the part before it."""
    path = tmp_path / "live.webm"
    recipe = replace(PLAIN, frames=41, video_codec="libvpx", audio_codec="libopus", options={})
    write(path, recipe, container_options={"live": "1"})
    with open_media(path) as media:
        assert media.declared_s == 0
        assert media.facts.duration_s == pytest.approx(4.1)
    parts = list(encode_parts(path, tmp_path, FORM, part_s=2.0))
    assert [part.end_s for part in parts] == [2.0, 4.1]


def test_the_audio_of_all_parts_is_the_audio_of_the_whole(tmp_path: Path) -> None:
    source = tmp_path / "a.mkv"
    write(source, replace(PLAIN, frames=50, audio_codec="flac", noise=True))
    heard = decode_audio(source, sample_rate_hz=48_000)
    assert heard is not None
    stretches = []
    for part in encode_parts(source, tmp_path, FORM, part_s=1.7):
        waveform = decode_audio(part.path, sample_rate_hz=48_000)
        assert waveform is not None
        assert len(waveform) == round((part.end_s - part.start_s) * 48_000)
        stretches.append(waveform)
    whole = np.concatenate(stretches).astype(float)
    # Sample by sample what AAC loses at 96 kbit/s; sound that is late by one sample loses as much
    # again, and a gap at a joint would show in the stretches around it.
    error = np.abs(whole - heard).reshape(-1, 2400).mean(1)
    assert error.max() < 0.25 * np.abs(heard.astype(float)).mean()


def test_a_part_after_the_end_of_the_audio_has_no_audio_track(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mp4", replace(PLAIN, sound_s=1.5))
    parts = [probe(part.path) for part in encode_parts(source, tmp_path, FORM, part_s=2.0)]
    assert [facts.audio is not None for facts in parts] == [True, False]


def test_a_part_that_cannot_be_finished_leaves_no_file(tmp_path: Path) -> None:
    times_s = [*(k / 10 for k in range(39)), 5000]
    source = write(tmp_path / "a.mkv", replace(PLAIN, times_s=times_s, audio_codec=None))
    parts = encode_parts(source, tmp_path, FORM, part_s=2.0)
    first = next(parts)
    with pytest.raises(MediaError, match="stays for"):
        next(parts)
    assert sorted(tmp_path.iterdir()) == [source, first.path]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells a process its peak")
def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    """Peak of one process: two minutes, then an hour, with sound that is not interleaved."""
    # VmHWM and not ru_maxrss: that of a child begins at the peak of the process that started it.
    script = (
        "import re, sys; from pathlib import Path; from fractions import Fraction;"
        "from vatt.media.media_file import open_media;"
        "from vatt.media.stored_form import StoredForm, encode_parts;"
        "form = StoredForm(short_side=32, fps=Fraction(1), gop=16);"
        "opened = open_media(Path(sys.argv[1])); media = opened.__enter__();"
        "[part.path.unlink() for part in encode_parts(media, Path(sys.argv[2]), form)];"
        r"print(re.search(r'VmHWM:\s+(\d+)', Path('/proc/self/status').read_text())[1])"
    )
    peaks_kb = []
    for seconds in (120, 3600):
        recipe = replace(PLAIN, frames=seconds, fps=Fraction(1), audio_codec="flac")
        source = write(tmp_path / f"{seconds}.mkv", replace(recipe, sample_rate_hz=8_000))
        command = [sys.executable, "-c", script, str(source), str(tmp_path)]
        peaks_kb.append(int(subprocess.run(command, capture_output=True, check=True).stdout))
    # An hour of samples at 48 kHz would take 346 MB. Allocators vary by a few.
    assert peaks_kb[1] - peaks_kb[0] < 20_000


# ── files that have the form already ──────────────────────────────────────────────────────────────


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
