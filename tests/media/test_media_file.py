from fractions import Fraction

import av
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.media.clips import Recipe, write
from tests.media.reading import encode
from vatt.media.media_file import decode_audio, decode_frames, open_media, probe
from vatt.media.stored_form import StoredForm

RATE = 48_000
NO_NOISE = {"aac_pns": "0"}  # as `vatt prepare` stores audio


@pytest.fixture(scope="module", params=["prepared", "late sound", "late picture"])
def stored(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("moments")
    recipe = {
        "prepared": Recipe(frames=60, flash=23, video_starts_s=0.2),
        "late sound": Recipe(frames=60, flash=23, sound_starts_s=0.537, sound_s=4.0),
        "late picture": Recipe(frames=60, flash=23, video_starts_s=0.31, sound_s=6.5),
    }[request.param]
    path = write(folder / "source.mp4", recipe)
    if request.param == "prepared":
        encode(path, folder / "stored.mp4", StoredForm(short_side=48, fps=None, gop=16))
        return folder / "stored.mp4"
    return path


@pytest.mark.parametrize("start_s", [0.0, 0.7, 1.0, 2.2, 2.31, 4.9, 5.5])
def test_a_second_of_audio_is_that_of_the_whole_track(stored, start_s):
    track = decode_audio(stored, sample_rate_hz=RATE)
    assert track is not None
    first, count = round(start_s * RATE), RATE // 2
    expected = np.pad(track[first : first + count], (0, max(0, first + count - len(track))))
    with open_media(stored, quickly=True) as media:
        assert media.has_audio_at(RATE)
        frames = media.frames(np.array([start_s]), size=(24, 32))  # frames first, as clips do
        found = media.audio_at(first, min(count, 6 * RATE - first), sample_rate_hz=RATE)
    assert_array_equal(found, expected[: len(found)])
    assert_array_equal(frames, decode_frames(stored, np.array([start_s]), size=(24, 32)))


@pytest.mark.parametrize("stored_hz", [48_000, 44_100, 22_050, 11_025])
@pytest.mark.parametrize("priming", [0, 1024, 2112], ids=["none", "FFmpeg's", "Apple's"])
def test_a_second_of_audio_at_another_rate_is_that_of_the_whole_track(stored_hz, priming, tmp_path):
    path = write_noise(tmp_path / "a.mp4", rate=stored_hz, priming=priming, options=NO_NOISE)
    for rate in (48_000, 44_100, 22_050, 16_000, 11_025):
        track = decode_audio(path, sample_rate_hz=rate)
        assert track is not None
        for start_s in (0.0, 0.03, 1.0, 2.31, 3.5):
            first, count = round(start_s * rate), rate // 2
            with open_media(path, quickly=True) as media:
                assert media.has_audio_at(rate)
                found = media.audio_at(first, count, sample_rate_hz=rate)
            expected = track[first : first + count]
            assert_array_equal(found[: len(expected)], expected)


def test_a_rate_whose_filter_is_rounded_is_left_to_decoding_the_whole_track(tmp_path):
    path = write_noise(tmp_path / "a.mp4")
    with open_media(path, quickly=True) as media:
        assert not media.has_audio_at(47_999)


def test_a_sample_is_the_same_wherever_reading_begins_also_with_noise_substitution(tmp_path):
    noisy = write_noise(tmp_path / "noise.mp4", options={"aac_pns": "1"})
    with open_media(noisy, quickly=True) as media:
        whole = media.audio_at(0, 4 * RATE, sample_rate_hz=RATE)
        for first, count in ((0, 100), (31_000, 70_000), (48_000, 10), (100_001, 50_000)):
            found = media.audio_at(first, count, sample_rate_hz=RATE)
            assert_array_equal(found, whole[first : first + count])
    decoded = decode_audio(noisy, sample_rate_hz=RATE)
    assert decoded is not None
    assert not np.array_equal(whole[RATE:], decoded[RATE : len(whole)])  # noise is drawn anew


def write_noise(path, *, rate=RATE, priming=1024, options=None):
    """A file whose sound is coded with noise substitution, as FFmpeg does by default.

    priming: samples before its start, which an edit list leaves out.
    """
    random = np.random.default_rng(0)
    sound = (random.standard_normal(4 * rate) * 3000).astype(np.int16)
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=10, options={"bf": "0"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = output.add_stream("aac", rate=rate, layout="mono", options=options or {})
        audio.bit_rate = 32_000
        packets = []
        for _ in range(40):
            picture = np.zeros((48, 64, 3), np.uint8)
            packets += video.encode(av.VideoFrame.from_ndarray(picture))
        frame = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        coded = [*audio.encode(frame), *audio.encode(None)]
        for number, packet in enumerate(coded):
            packet.pts = packet.dts = number * 1024 - priming
        for packet in (*packets, *video.encode(None), *coded):
            output.mux(packet)
    return path


@pytest.mark.parametrize(
    ("ending", "codec"),
    [("mkv", "aac"), ("mp4", "mp3")],
)
def test_other_audio_is_left_to_decoding_the_whole_track(tmp_path, ending, codec):
    recipe = Recipe(audio_codec=codec, frames=20)
    with open_media(write(tmp_path / f"v.{ending}", recipe), quickly=True) as media:
        assert not media.has_audio_at(RATE)
        track = media.audio(sample_rate_hz=RATE)
    assert track is not None
    assert len(track) == pytest.approx(2 * RATE, abs=2000)


def test_a_file_is_read_in_any_order_as_alone(tmp_path):
    path = write(tmp_path / "a.mkv", Recipe(frames=60, flash=17, options={"bf": "3", "g": "12"}))
    times_s, size = np.array([4.2, 0.1, 5.9]), (24, 32)
    with open_media(path) as media:
        first, audio = media.frames(times_s, size=size), media.audio(sample_rate_hz=16_000)
        packets, again = media.packets, media.frames(times_s, size=size)
        every, starts_s, end_s = media.all_frames(size)
        facts, counted = media.facts, media.count_frames()
    assert_array_equal(first, decode_frames(path, times_s, size=size))
    assert_array_equal(again, first)
    assert_array_equal(every[[42, 1, 59]], first)
    assert_array_equal(audio, decode_audio(path, sample_rate_hz=16_000))
    assert facts == probe(path)
    assert len(every) == len(starts_s) == counted == packets.frames == 60
    assert end_s == pytest.approx(packets.end_s)


def test_audio_read_before_the_frames_leaves_them_as_they_are(stored):
    times_s = np.array([2.3, 0.4])
    with open_media(stored, quickly=True) as media:
        media.audio_at(RATE, RATE, sample_rate_hz=RATE)
        frames = media.frames(times_s, size=(24, 32))
        audio = media.audio_at(RATE, RATE, sample_rate_hz=RATE)
        assert_array_equal(media.frames(times_s, size=(24, 32)), frames)
    assert_array_equal(frames, decode_frames(stored, times_s, size=(24, 32)))
    track = decode_audio(stored, sample_rate_hz=RATE)
    assert track is not None
    assert_array_equal(audio, track[RATE : 2 * RATE])
