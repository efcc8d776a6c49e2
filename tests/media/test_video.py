from __future__ import annotations

from bisect import bisect_right
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from tests.media.clips import HEIGHT, WIDTH, Recipe, numbers, picture, starts_s, write
from tests.media.reading import decode_all_frames
from vatt.errors import MediaError
from vatt.media import media_file
from vatt.media.container import FilePart
from vatt.media.media_file import decode_frames, probe

SIZE = (HEIGHT, WIDTH)
LONG = Recipe(frames=120, audio_codec=None, options={"bf": "0", "g": "50"})
KINDS = {
    "steady.mp4": LONG,
    "b-frames.mp4": replace(LONG, options={"bf": "3", "g": "50"}),
    "open groups.mkv": replace(
        LONG, options={"bf": "3", "g": "25", "x264-params": "open-gop=1:scenecut=0"}
    ),
    "uneven.mkv": replace(LONG, times_s=[0.1 * k + 0.04 * (k % 2) for k in range(120)]),
    "late.mp4": replace(LONG, video_starts_s=1.3),
    "late.ts": replace(LONG, video_starts_s=1.3),
    "no index.ts": LONG,
}


def shown_at(recipe: Recipe, time_s: float) -> int:
    """By definition: the last frame that starts at or before a time; the first if none does."""
    own = [start - starts_s(recipe)[0] for start in starts_s(recipe)]
    return max(0, bisect_right(own, time_s + 0.001) - 1)


@pytest.mark.parametrize("name", KINDS)
def test_each_time_gets_the_frame_on_screen_then(name: str, tmp_path: Path) -> None:
    recipe = KINDS[name]
    path = write(tmp_path / name, recipe)
    # Out of order, twice the same, between frames, far apart (so that it seeks), before the start.
    times_s = np.array([11.85, 0.0, 5.31, 5.349, 3.3, 3.3, 9.99, -0.5, 7.0, 0.149])
    frames = decode_frames(path, times_s, size=SIZE)
    assert numbers(frames) == [shown_at(recipe, time_s) for time_s in times_s]


@pytest.mark.parametrize("name", KINDS)
def test_a_frame_has_the_same_bytes_however_it_is_reached(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, KINDS[name])
    frames, all_s, end_s = decode_all_frames(path, size=(36, 40))
    assert frames.shape == (120, 36, 40, 3)
    assert end_s == pytest.approx(all_s[-1] + 0.1, abs=0.002)
    for start in (0, 47, 103):
        asked = all_s[start : start + 16 : 3]
        again = decode_frames(path, asked, size=(36, 40))
        np.testing.assert_array_equal(again, frames[start : start + 16 : 3])


def test_content_in_memory_is_decoded_like_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", LONG)
    times_s = np.arange(16) / 10 + 7.3
    from_file = decode_frames(path, times_s, size=SIZE)
    np.testing.assert_array_equal(decode_frames(path.read_bytes(), times_s, size=SIZE), from_file)
    assert probe(path.read_bytes()) == probe(path)


def test_a_time_after_the_end_is_refused_with_both_times(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", replace(LONG, frames=20))
    assert numbers(decode_frames(path, np.array([1.99]), size=SIZE)) == [19]
    with pytest.raises(MediaError, match=r"a\.mp4: needs the frame at 2\.00 s.*ends at 2\.00 s"):
        decode_frames(path, np.array([0.5, 2.0]), size=SIZE)
    with pytest.raises(MediaError, match=r"ends at 2\.00 s"):
        decode_frames(path, np.array([9.0]), size=SIZE)


def test_no_times_give_no_frames(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", replace(LONG, frames=20))
    assert decode_frames(path, np.array([]), size=SIZE).shape == (0, *SIZE, 3)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_turned_video_is_decoded_upright(rotation: int, tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.mp4", replace(LONG, frames=3))
    turned = write(tmp_path / "turned.mp4", replace(LONG, frames=3, rotation=rotation))
    expected = np.rot90(decode_all_frames(plain, size=SIZE)[0], rotation // 90, axes=(1, 2))
    upright = decode_all_frames(turned, size=expected.shape[1:3])[0]
    assert probe(turned).video.rotation == rotation  # type: ignore[union-attr]
    np.testing.assert_array_equal(upright, expected)


def test_colours_survive_within_what_the_codec_loses(tmp_path: Path) -> None:
    options = {"bf": "0", "g": "10", "crf": "1"}
    path = write(tmp_path / "a.mp4", replace(LONG, frames=2, flash=1, options=options))
    frames, _, _ = decode_all_frames(path, size=SIZE)
    # Limited range and chroma rounding lose up to 3 of 255; the wrong range would lose 16 or more.
    np.testing.assert_allclose(frames[1].astype(int), picture(1, flash=True).astype(int), atol=4)


def test_scaling_down_averages_the_area_of_each_pixel(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", replace(LONG, frames=1))
    full = decode_all_frames(path, size=SIZE)[0][0].astype(float)
    half = decode_all_frames(path, size=(HEIGHT // 2, WIDTH // 2))[0][0]
    means = full.reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean((1, 3))
    np.testing.assert_allclose(half, means, atol=3)  # averaged before the change of colour space


def test_facts_are_those_of_the_file(tmp_path: Path) -> None:
    recipe = replace(LONG, fps=Fraction(25, 2), audio_codec="aac", sample_rate_hz=44_100)
    facts = probe(write(tmp_path / "a.mp4", recipe))
    assert facts.video is not None
    assert facts.audio is not None
    assert facts.duration_s == pytest.approx(9.6)
    assert (facts.video.codec, facts.video.pix_fmt, facts.video.frames) == ("h264", "yuv420p", 120)
    assert (facts.video.height, facts.video.width, facts.video.fps) == (48, 64, Fraction(25, 2))
    assert (facts.audio.codec, facts.audio.sample_rate_hz, facts.audio.channels) == (
        "aac",
        44_100,
        1,
    )


def test_files_that_are_no_video_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "talk.mp4"
    for content in (b"", b"not a video at all" * 100):
        path.write_bytes(content)
        with pytest.raises(MediaError, match=r"talk\.mp4: cannot be opened"):
            probe(path)
    with pytest.raises(MediaError, match=r"absent\.mp4"):
        probe(tmp_path / "absent.mp4")


def test_what_cannot_be_opened_says_so_where_its_first_bytes_tell_more(tmp_path: Path) -> None:
    movie = write(tmp_path / "a.mp4", LONG).read_bytes()
    path = tmp_path / "b.mp4"
    for content, found in (
        (b"", "no content"),
        (bytes(4096), "no content"),
        (movie.replace(b"moov", b"xxxx"), r"MP4 whose index \(moov\)"),
        (b"not a video at all" * 100, "Invalid data"),
    ):
        path.write_bytes(content)
        for source in (path, content, FilePart(path, 0, len(content))):
            with pytest.raises(MediaError, match=f"cannot be opened: (found )?{found}"):
                probe(source)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_cut_off_file_lacks_its_later_frames_and_says_so(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, LONG)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(MediaError):
        decode_frames(path, np.array([0.0, 11.5]), size=SIZE)


def test_a_play_list_cannot_make_us_open_other_files(tmp_path: Path) -> None:
    write(tmp_path / "secret.ts", LONG)
    concat, hls = tmp_path / "concat.mp4", tmp_path / "hls.mp4"
    concat.write_text("ffconcat version 1.0\nfile secret.ts\n")
    hls.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:12\n#EXTINF:12,\nsecret.ts\n#EXT-X-ENDLIST\n")
    for path in (concat, hls):
        with pytest.raises(MediaError, match="cannot be opened"):
            probe(path)


def test_frames_larger_than_the_limit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.mp4", replace(LONG, frames=2))
    monkeypatch.setattr("vatt.media.video.MAX_PIXELS", HEIGHT * WIDTH - 1)
    with pytest.raises(MediaError, match=f"frames of {WIDTH}x{HEIGHT}, expected at most"):
        decode_all_frames(path, size=SIZE)


def test_a_video_too_long_for_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.mp4", replace(LONG, frames=20))
    monkeypatch.setattr(media_file, "_MAX_DECODED_BYTES", 19 * HEIGHT * WIDTH * 3)
    with pytest.raises(MediaError, match="more than 19 frames"):
        decode_all_frames(path, size=SIZE)


def test_a_frame_that_stays_for_hours_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", replace(LONG, frames=3, times_s=[0.0, 0.1, 5000.0]))
    with pytest.raises(MediaError, match=r"a\.mkv: a frame near 5,000 s stays for 5,000 s"):
        decode_all_frames(path, size=SIZE)


def test_audio_alone_has_no_frames(tmp_path: Path) -> None:
    import av

    path = tmp_path / "song.m4a"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=48_000, layout="mono")
        silence = np.zeros((1, 4800), np.int16)
        frame = av.AudioFrame.from_ndarray(silence, format="s16", layout="mono")
        frame.sample_rate = 48_000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    assert probe(path).video is None
    with pytest.raises(MediaError, match="holds no picture"):
        decode_all_frames(path, size=SIZE)


def join_tracks(path: Path, sources: list[Path], default: int | None) -> Path:
    """The video tracks of several files in one, of which one is marked as default."""
    with av.open(str(path), "w") as output, ExitStack() as opened:
        packets = []
        for number, source in enumerate(sources):
            copied = opened.enter_context(av.open(str(source)))
            to = output.add_stream_from_template(copied.streams.video[0])
            to.disposition = Disposition.default if number == default else Disposition(0)
            packets += [(p.dts or 0, p, to) for p in copied.demux(video=0) if p.size]
        for _, packet, to in sorted(packets, key=lambda one: one[0]):
            packet.stream = to
            output.mux(packet)
    return path


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_the_video_track_marked_as_default_is_read(container: str, tmp_path: Path) -> None:
    """As with audio; where none is marked, the first."""
    sources = [
        write(tmp_path / f"{size[1]}.mp4", Recipe(size=size, audio_codec=None))
        for size in ((48, 64), (96, 128))
    ]
    for default, expected in ((0, 64), (1, 128)):
        path = join_tracks(tmp_path / f"{default}.{container}", sources, default)
        video = probe(path).video
        assert video is not None
        assert video.width == expected


@pytest.mark.parametrize("default", [None, 0, 1], ids=str)
@pytest.mark.parametrize("order", ["cover film", "film cover", "cover cover film"])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.nut", "jpeg.mp4", "jpeg.mkv"])
def test_a_track_with_one_frame_beside_one_with_more_is_a_cover(
    name: str, order: str, default: int | None, tmp_path: Path
) -> None:
    """Wherever it stands, and when it is marked as the default track."""
    film = Recipe(size=(48, 64), audio_codec=None)
    cover = replace(film, frames=1, size=(96, 96))
    if "jpeg" in name:
        cover = replace(cover, video_codec="mjpeg", pix_fmt="yuvj420p", options={})
    made = {
        "film": write(tmp_path / "film.mp4", film),
        "cover": write(tmp_path / "cover.mov", cover),
    }
    path = join_tracks(tmp_path / name, [made[one] for one in order.split()], default)
    facts = probe(path)
    assert facts.video is not None
    assert facts.video.width == 64
    assert facts.duration_s == pytest.approx(3.0, abs=0.01)
    assert numbers(decode_frames(path, np.array([0.0, 2.5]), size=SIZE)) == [0, 25]


def test_a_still_that_is_alone_is_the_film(tmp_path: Path) -> None:
    facts = probe(write(tmp_path / "a.mp4", Recipe(frames=1)))
    assert facts.video is not None


@pytest.mark.parametrize(("name", "wrong"), [("a.mp4", 0), ("a.mkv", 4)])
def test_frames_whose_times_are_in_the_order_of_decoding_are_shown_evenly(
    name: str, wrong: int, tmp_path: Path
) -> None:
    """Of Matroska, which has no times of decoding, but for the first: they are not known yet."""
    options = {"bf": "3", "b_strategy": "0", "g": "30", "x264-params": "scenecut=0"}
    source, path = write(tmp_path / "b.mp4", replace(LONG, options=options)), tmp_path / name
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        to = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(video=0) if packet.size]
        assert any(packet.pts != packet.dts for packet in packets)
        first = packets[0].dts or 0
        for packet in packets:
            packet.pts = packet.dts = (packet.dts or 0) - first
            packet.stream = to
            new.mux(packet)
    shown = numbers(decode_frames(path, np.arange(LONG.frames) / 10, size=SIZE))
    assert shown[wrong:] == list(range(wrong, LONG.frames))
    for time_s in (4.0, 8.5, 11.6):  # after seeking
        assert numbers(decode_frames(path, np.array([time_s]), size=SIZE)) == [round(time_s * 10)]
