import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.data.small_shards import Video, damage, write_shards
from vatt.data import cache as cache_module
from vatt.data.cache import CacheSettings, DecodedVideo, VideoCache, open_cache
from vatt.errors import DataError
from vatt.media.media_file import decode_audio, decode_frames
from vatt.media.planes import Box
from vatt.shards.read import ShardFolder


def ALL(height: int, width: int) -> Box:  # noqa: N802
    return Box(0, 0, height, width)


SIZE = (24, 32)
SETTINGS = CacheSettings(size=SIZE, sample_rate_hz=8000)


@pytest.fixture
def data(tmp_path) -> ShardFolder:
    return write_shards(tmp_path / "shards", [Video(flash=3), Video(sound=False), Video(frames=5)])


@pytest.fixture(params=["memory", "disk"])
def cache(request, data, tmp_path) -> VideoCache:
    folder = tmp_path / "cache" if request.param == "disk" else None
    return open_cache(data, data.rows("train"), SETTINGS, folder=folder)


def video_of(cache: VideoCache, row: int) -> DecodedVideo:
    video = cache.get(row)
    assert video is not None
    return video


def test_cached_videos_are_those_decoded(data, cache):
    times_s = np.array([0.0, 0.13, 0.2, 0.49])
    for row in range(3):
        video, source = cache.get(row), data.read_video(row)
        assert video is not None
        assert_array_equal(video.frames_at(times_s, ALL), decode_frames(source, times_s, size=SIZE))
        track = decode_audio(source, sample_rate_hz=8000)
        assert (video.track is None) == (track is None) == (row == 1)
        if video.track is not None:
            assert_array_equal(video.track, track)


def test_times_past_the_end_are_not_answered(cache):
    video = video_of(cache, 2)  # ends at 0.5 s
    assert video.frames_at(np.array([0.4, 0.498]), ALL) is not None
    assert video.frames_at(np.array([0.4, 0.5]), ALL) is None


def test_a_cache_sent_to_another_process_has_the_same_bytes(cache):
    sent = pickle.loads(pickle.dumps(cache))
    assert len(pickle.dumps(cache)) < 10_000  # the way to the bytes, not the bytes
    for row in range(3):
        assert_array_equal(video_of(sent, row).frames, video_of(cache, row).frames)


def test_a_video_that_cannot_be_decoded_is_left_out(data, caplog):
    damage(data, 1)
    cache = open_cache(data, data.rows(), SETTINGS, folder=None)
    assert cache.get(1) is None
    assert cache.get(0) is not None
    assert cache.get(2) is not None
    assert "1 of 3 videos could not be decoded whole" in caplog.text


def test_a_cache_on_disk_is_used_again(data, tmp_path):
    first = open_cache(data, data.rows(), SETTINGS, folder=tmp_path / "cache")
    for row in range(3):
        damage(data, row)  # whoever decodes now would fail
    again = open_cache(data, data.rows(), SETTINGS, folder=tmp_path / "cache")
    for row in range(3):
        assert_array_equal(video_of(again, row).frames, video_of(first, row).frames)
        assert_array_equal(video_of(again, row).starts_s, video_of(first, row).starts_s)


def test_other_settings_and_other_videos_have_their_own_cache(data, tmp_path):
    folder = tmp_path / "cache"
    open_cache(data, data.rows(), SETTINGS, folder=folder)
    larger = open_cache(data, data.rows(), CacheSettings((48, 64), 8000), folder=folder)
    frames = video_of(larger, 0).frames
    assert isinstance(frames, np.ndarray)
    assert frames.shape[1:] == (48, 64, 3)
    faster = open_cache(data, data.rows(), CacheSettings((24, 32), 16_000), folder=folder)
    track = video_of(faster, 0).track
    assert track is not None
    assert len(track) == 64_000
    open_cache(data, data.rows()[:2], SETTINGS, folder=folder)
    assert len(list(folder.iterdir())) == 4


def test_filling_that_is_stopped_leaves_nothing(data, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache_module, "run_in_order", stop)
    with pytest.raises(KeyboardInterrupt):
        open_cache(data, data.rows(), SETTINGS, folder=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.slow
def test_many_videos_are_decoded_by_several_processes(tmp_path):
    data = write_shards(tmp_path / "shards", [Video(frames=5 + n) for n in range(9)])
    cache = open_cache(data, data.rows()[::-1].copy(), SETTINGS, folder=None)
    assert [len(video_of(cache, row).frames) for row in range(9)] == [5 + n for n in range(9)]
    last = decode_frames(data.read_video(8), np.array([1.2]), size=SIZE)
    assert_array_equal(video_of(cache, 8).frames[-1:], last)


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_cache_too_large_is_refused_before_anything_is_decoded(data, tmp_path, kind):
    huge = CacheSettings(size=(2_000_000, 2_000_000), sample_rate_hz=8000)
    folder = tmp_path / "cache" if kind == "disk" else None
    with pytest.raises(DataError, match=r"needs .* GB, but .* free; lower data.decode_size"):
        open_cache(data, data.rows(), huge, folder=folder)


def test_a_folder_that_cannot_be_written_is_an_error_with_advice(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file: cannot keep decoded videos: .*data.cache_dir"):
        open_cache(data, data.rows(), SETTINGS, folder=tmp_path / "file")
