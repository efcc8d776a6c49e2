from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from av.stream import Disposition

from tests.media.clips import Recipe, click_s, write
from vatt.errors import MediaError
from vatt.media import audio
from vatt.media.audio import AudioReader
from vatt.media.container import open_container
from vatt.media.media_file import decode_audio, probe

PLAIN = Recipe(flash=17)


def write_sound(path: Path, waveform, *, rate: int, layout: str, codec: str) -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, AudioStream)
        frame = av.AudioFrame.from_ndarray(waveform, format="s16", layout=layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def interleaved(*channels: np.ndarray):
    return np.stack(channels, axis=1).astype(np.int16).reshape(1, -1)


def tone(hz: float, *, rate: int, seconds: float = 1.0):
    return 8000 * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)


def test_audio_that_starts_late_is_preceded_by_zeros(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", replace(PLAIN, audio_codec="pcm_s16le", sound_starts_s=0.5))
    waveform = decode_audio(path, sample_rate_hz=48_000)
    assert waveform is not None
    assert not waveform[: 48_000 * 17 // 10].any()
    assert click_s(waveform, 48_000) == pytest.approx(1.7, abs=0.001)


def test_audio_before_the_first_frame_is_cut(tmp_path: Path) -> None:
    early = replace(PLAIN, audio_codec="pcm_s16le", video_starts_s=0.7, sound_starts_s=0.0)
    waveform = decode_audio(write(tmp_path / "a.mkv", early), sample_rate_hz=48_000)
    assert waveform is not None
    assert len(waveform) == 3 * 48_000
    assert click_s(waveform, 48_000) == pytest.approx(1.7, abs=0.001)


def test_audio_may_end_before_the_video_but_not_after_it(tmp_path: Path) -> None:
    for sound_s, expected_s in ((2.0, 2.0), (5.0, 3.0)):
        recipe = replace(PLAIN, audio_codec="pcm_s16le", sound_s=sound_s)
        waveform = decode_audio(write(tmp_path / "a.mkv", recipe), sample_rate_hz=16_000)
        assert waveform is not None
        assert len(waveform) / 16_000 == pytest.approx(expected_s, abs=0.001)


def test_no_audio_track_gives_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", replace(PLAIN, audio_codec=None))
    assert decode_audio(path, sample_rate_hz=16_000) is None


def test_channels_are_mixed_to_their_mean(tmp_path: Path) -> None:
    left, right = tone(440, rate=48_000), tone(1000, rate=48_000)
    path = write_sound(
        tmp_path / "a.wav",
        interleaved(left, right),
        rate=48_000,
        layout="stereo",
        codec="pcm_s16le",
    )
    mixed = decode_audio(path, sample_rate_hz=48_000)
    assert mixed is not None
    np.testing.assert_allclose(mixed, (left + right) / 2, atol=2)  # cut to integers twice


@pytest.mark.parametrize(
    ("layout", "gains"),
    [
        # FFmpeg's mix: front 1/√2, centre 1, surround 1/2, no LFE; divided by their sum.
        ("5.1", np.array([0.5**0.5, 0.5**0.5, 1, 0, 0.5, 0.5])),
        ("quad", np.array([0.5**0.5, 0.5**0.5, 0.5, 0.5])),
    ],
)
def test_each_channel_of_surround_sound_is_heard_at_its_share(
    layout: str, gains: np.ndarray, tmp_path: Path
) -> None:
    hz = [200 * (3 + channel) for channel in range(len(gains))]
    channels = [tone(each, rate=48_000) for each in hz]
    path = write_sound(
        tmp_path / "a.wav", interleaved(*channels), rate=48_000, layout=layout, codec="pcm_s16le"
    )
    mixed = decode_audio(path, sample_rate_hz=48_000)
    assert mixed is not None
    spectrum = np.abs(np.fft.rfft(mixed)) / 24_000  # of one second: a bin is 1 Hz
    np.testing.assert_allclose(spectrum[hz] / 8000, gains / gains.sum(), atol=0.002)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 96_000, 192_000])
def test_a_tone_keeps_pitch_loudness_and_phase_at_any_rate(rate: int, tmp_path: Path) -> None:
    path = write_sound(
        tmp_path / "a.wav",
        interleaved(tone(440, rate=rate)),
        rate=rate,
        layout="mono",
        codec="pcm_s16le",
    )
    waveform = decode_audio(path, sample_rate_hz=24_000)
    expected = tone(440, rate=24_000)
    assert waveform is not None
    assert len(waveform) == pytest.approx(24_000, abs=1)
    inner = slice(1000, 22_000)  # at both ends the filter sees silence
    np.testing.assert_allclose(waveform[inner], expected[inner], atol=80)  # 1 % of the loudness


def test_what_the_new_rate_cannot_hold_is_filtered_out(tmp_path: Path) -> None:
    path = write_sound(
        tmp_path / "a.wav",
        interleaved(tone(7_000, rate=48_000)),
        rate=48_000,
        layout="mono",
        codec="pcm_s16le",
    )
    waveform = decode_audio(path, sample_rate_hz=11_025)
    assert waveform is not None
    assert np.abs(waveform[500:-500]).max() < 80  # instead of an alias at 4,025 Hz of 8,000


def test_audio_alone_starts_its_own_clock(tmp_path: Path) -> None:
    samples = interleaved(tone(440, rate=48_000))
    path = write_sound(tmp_path / "a.flac", samples, rate=48_000, layout="mono", codec="flac")
    waveform = decode_audio(path, sample_rate_hz=48_000)
    np.testing.assert_array_equal(waveform, samples[0])


def test_the_same_file_gives_the_same_samples_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", PLAIN)
    first = decode_audio(path, sample_rate_hz=11_025)
    np.testing.assert_array_equal(decode_audio(path.read_bytes(), sample_rate_hz=11_025), first)


def write_tracks(path: Path, hz: list[int], default: int | None) -> Path:
    """A file with several sound tracks of a second, one of them marked as the default."""
    with av.open(str(path), "w") as output:
        streams = [output.add_stream("pcm_s16le", rate=48_000, layout="mono") for _ in hz]
        for number, stream in enumerate(streams):
            stream.disposition = Disposition.default if number == default else Disposition.dub
        for stream, each in zip(streams, hz, strict=True):
            assert isinstance(stream, AudioStream)
            frame = av.AudioFrame.from_ndarray(interleaved(tone(each, rate=48_000)), layout="mono")
            frame.sample_rate, frame.time_base = 48_000, Fraction(1, 48_000)
            output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("default", "heard"), [(None, 0), (0, 0), (2, 2)])
def test_of_several_tracks_the_default_is_heard_else_the_first(
    default: int | None, heard: int, tmp_path: Path
) -> None:
    hz = [440, 600, 800]
    path = write_tracks(tmp_path / "a.mkv", hz, default)
    waveform = decode_audio(path, sample_rate_hz=48_000)
    assert waveform is not None
    assert int(np.abs(np.fft.rfft(waveform)).argmax()) == hz[heard]
    facts = probe(path).audio
    assert facts is not None
    assert (facts.track, facts.tracks) == (heard, 3)


def test_silence_is_audio(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", Recipe())
    waveform = decode_audio(path, sample_rate_hz=16_000)
    assert waveform is not None
    assert len(waveform) == 48_000
    assert not waveform.any()


@pytest.mark.parametrize(
    "recipe",
    [
        PLAIN,
        replace(PLAIN, silent_gap_s=(0.5, 1.2)),
        replace(PLAIN, sound_starts_s=0.5),
        replace(PLAIN, video_starts_s=0.7),
        replace(PLAIN, sound_s=2.0, sample_rate_hz=44_100),
    ],
    ids=["plain", "gap", "late sound", "late picture", "short sound"],
)
def test_audio_read_in_order_is_the_whole_waveform(recipe: Recipe, tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", recipe)
    whole = decode_audio(path, sample_rate_hz=48_000)
    assert whole is not None
    with open_container(path) as container:
        zero_s = recipe.video_starts_s
        reader = AudioReader(container, zero_s=zero_s, sample_rate_hz=48_000)
        ends = [1, 4800, 4800, 50_000, 100_001, len(whole)]
        pieces = [reader.read_until(end) for end in ends]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_a_track_that_claims_to_last_for_ever_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio, "MAX_DURATION_S", 2.0)
    path = write(tmp_path / "a.mp4", PLAIN)
    with pytest.raises(MediaError, match=r"a\.mp4: sound up to 3 s, expected at most 2 s"):
        decode_audio(path, sample_rate_hz=16_000)
