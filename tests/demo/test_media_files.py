import av
import numpy as np
import pysubs2
import pytest

from vatt_demo.game import FRAME_RATE, HEIGHT, SAMPLES_PER_FRAME, WIDTH
from vatt_demo.media_files import KEYFRAME_EVERY, write_captions, write_video

FRAMES = 50


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Flashes of light with a burst of noise at the same frames."""
    path = tmp_path_factory.mktemp("media") / "flash.mp4"
    rng = np.random.default_rng(0)
    pictures = np.full((FRAMES, HEIGHT, WIDTH, 3), 20, np.uint8)
    sound = np.zeros((FRAMES, SAMPLES_PER_FRAME), np.int16)
    for frame in (10, 23, 41):
        pictures[frame] = 220
        sound[frame] = rng.normal(0, 6000, SAMPLES_PER_FRAME)
    write_video(path, pictures, sound.reshape(-1))
    return path


def decoded(path):
    with av.open(path) as file:
        frames = list(file.decode(video=0))
    with av.open(path) as file:
        sound = np.concatenate([one.to_ndarray() for one in file.decode(audio=0)], 1)[0]
    return frames, sound


def test_picture_and_sound_happen_at_the_same_time(video):
    frames, sound = decoded(video)
    light = np.array([frame.to_ndarray(format="gray").mean() for frame in frames])
    samples = round(48_000 / FRAME_RATE)
    loud = np.array([sound[i * samples : (i + 1) * samples].std() for i in range(FRAMES)])
    assert len(frames) == FRAMES
    assert np.flatnonzero(light > 100).tolist() == [10, 23, 41]
    # The frame with the burst is far louder than its neighbours: in sync to well under a frame.
    assert np.flatnonzero(loud > 0.3 * loud.max()).tolist() == [10, 23, 41]


def test_files_fit_what_prepare_copies_without_encoding_anew(video):
    with av.open(video) as file:
        stream, sound = file.streams.video[0], file.streams.audio[0]
        packets = [one for one in file.demux(stream) if one.size]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == FRAME_RATE
        assert (sound.codec_context.name, sound.codec_context.sample_rate) == ("aac", 48_000)
    keys = [i for i, packet in enumerate(packets) if packet.is_keyframe]
    assert max(np.diff([*keys, FRAMES])) <= KEYFRAME_EVERY
    assert all(packet.pts == packet.dts for packet in packets), "a B-frame is shown out of order"


def test_decoding_twice_gives_the_same_sound_bit_for_bit(video):
    first, second = decoded(video)[1], decoded(video)[1]
    assert np.array_equal(first, second)


def test_captions_read_back_in_order_of_time(tmp_path):
    path = tmp_path / "a.srt"
    write_captions(path, [(2.5, 4.0, "later, an imp"), (0.25, 2.0, "first")])
    read = [(one.start, one.end, one.text) for one in pysubs2.load(str(path))]
    assert read == [(250, 2000, "first"), (2500, 4000, "later, an imp")]
