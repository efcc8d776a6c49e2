"""Audio whose packets have uneven times, and samples that are no numbers."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream

from vatt.media.audio import AudioReader
from vatt.media.container import open_container
from vatt.media.media_file import decode_audio, open_media

RATE, HZ, SECONDS = 48_000, 440, 8
JITTER = np.random.default_rng(1).uniform(-1, 1, 1000)


def write_tone(
    path: Path, when: Callable[[int, float], float], codec: str = "aac", ticks: int = 1000
) -> Path:
    """A tone without a break; packet n, which is at t s, is given the time `when(n, t)`."""
    tone = 0.25 * np.sin(2 * np.pi * HZ * np.arange(SECONDS * RATE) / RATE)
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=RATE, layout="mono")
        assert isinstance(stream, AudioStream)
        frame = av.AudioFrame.from_ndarray(tone[None].astype(np.float32), "flt", "mono")
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), 0
        last = -1
        for n, packet in enumerate([*stream.encode(frame), *stream.encode(None)]):
            assert packet.pts is not None
            time_s = when(n, max(float(packet.pts * packet.time_base), 0.0))
            last = max(last + 1, round(time_s * ticks))
            packet.time_base, packet.duration = Fraction(1, ticks), 0
            packet.pts = packet.dts = last
            output.mux(packet)
    return path


def lag_s(waveform: np.ndarray) -> np.ndarray:
    """How much later the tone is than at its start, at each sample, by its phase."""
    turned = waveform * np.exp(-2j * np.pi * HZ * np.arange(len(waveform)) / RATE)
    smooth = np.convolve(turned, np.ones(4800) / 4800, "valid")
    phase = np.unwrap(np.angle(smooth))
    return -(phase - phase[2400]) / (2 * np.pi * HZ)


def roughness(waveform: np.ndarray) -> float:
    """The largest step of the slope: of the tone, 28; of a hole or a click, thousands."""
    return float(np.abs(np.diff(waveform.astype(float), 2))[4800:-4800].max())


@pytest.mark.parametrize("name", ["a.mkv", "a.flv"])
@pytest.mark.parametrize(
    ("when", "drifts_s"),
    [
        (lambda n, t: t + 0.008 * JITTER[n], 0.0),
        (lambda n, t: t + 0.010 * JITTER[n], 0.0),
        (lambda n, t: n // 5 * 5 * 1024 / RATE, 0.0),  # five packets with one time
        (lambda n, t: n // 12 * 12 * 1024 / RATE, 0.0),
        (lambda n, t: t * 1.003, 0.003 * SECONDS),
        (lambda n, t: t * 0.995, -0.005 * SECONDS),
        (lambda n, t: t * 1.003 + 0.008 * JITTER[n], 0.003 * SECONDS),
    ],
    ids=["8 ms", "10 ms", "5 at once", "12 at once", "slow", "fast", "slow and uneven"],
)
def test_audio_goes_on_where_times_are_uneven_and_stays_in_time(
    name: str, when: Callable[[int, float], float], drifts_s: float, tmp_path: Path
) -> None:
    waveform = decode_audio(write_tone(tmp_path / name, when), sample_rate_hz=RATE)
    assert waveform is not None
    assert roughness(waveform) < 60
    assert len(waveform) / RATE == pytest.approx(SECONDS + drifts_s, abs=0.03)
    end_s = (len(waveform) - 9600) / RATE
    expected_s = drifts_s / SECONDS * np.array([end_s / 2, end_s])
    found_s = lag_s(waveform)[[(len(waveform) - 9600) // 2, len(waveform) - 9600]]
    # Corrected from 5 ms on, by and by; a second holds no whole number of large bursts.
    within_s = 0.025 if abs(when(11, 11 * 1024 / RATE)) < 0.01 else 0.012
    np.testing.assert_allclose(found_s, expected_s, atol=within_s)


@pytest.mark.parametrize("uneven_s", [0.0, 0.008])
def test_a_pause_stays_a_pause(uneven_s: float, tmp_path: Path) -> None:
    path = write_tone(
        tmp_path / "a.mkv", lambda n, t: t + uneven_s * JITTER[n] + (3.0 if n >= 200 else 0.0)
    )
    waveform = decode_audio(path, sample_rate_hz=RATE)
    assert waveform is not None
    loud = np.abs(waveform[: len(waveform) // 480 * 480].reshape(-1, 480)).max(1) > 1000
    silent_s = np.flatnonzero(~loud[10:-10]) / 100 + 0.1
    assert len(silent_s) / 100 == pytest.approx(3.0, abs=0.05)
    assert silent_s[0] == pytest.approx(199 * 1024 / RATE, abs=0.05)
    assert np.ptp(silent_s) == pytest.approx(3.0, abs=0.05)  # in one piece


def test_uneven_audio_read_in_order_is_the_whole_waveform(tmp_path: Path) -> None:
    path = write_tone(tmp_path / "a.mkv", lambda n, t: t * 1.003 + 0.008 * abs(JITTER[n]))
    whole = decode_audio(path, sample_rate_hz=16_000)
    assert whole is not None
    with open_container(path) as container:
        start_s = next(container.decode(audio=0)).time
    with open_container(path) as container:
        assert start_s is not None
        reader = AudioReader(container, zero_s=start_s, sample_rate_hz=16_000)
        pieces = [reader.read_until(end) for end in (1, 30_000, 30_001, len(whole))]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize("codec", ["pcm_f32le", "pcm_f64le"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_silence(codec: str, bad: float, tmp_path: Path) -> None:
    tone = (0.25 * np.sin(2 * np.pi * HZ * np.arange(RATE) / RATE)).astype(np.float64)
    tone[20_000:20_100] = bad
    form = {"pcm_f32le": "flt", "pcm_f64le": "dbl"}[codec]
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=RATE, layout="mono")
        assert isinstance(stream, AudioStream)
        samples = tone[None].astype(np.float32) if form == "flt" else tone[None]
        frame = av.AudioFrame.from_ndarray(samples, form, "mono")
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), 0
        for packet in (*stream.encode(frame), *stream.encode(None)):
            output.mux(packet)
    waveform = decode_audio(path, sample_rate_hz=RATE)
    assert waveform is not None
    expected = np.where(np.isfinite(tone), tone, 0.0) * 2**15
    np.testing.assert_allclose(waveform, expected, atol=1)


@pytest.mark.parametrize(
    ("when", "is_even"),
    [
        (lambda n, t: n * 1024 / RATE, True),
        (lambda n, t: n * 1024 / RATE + 0.008 * JITTER[n], False),
        (lambda n, t: n // 5 * 5 * 1024 / RATE, False),
        (lambda n, t: n * 1024 / RATE + (3.0 if n >= 200 else 0.0), False),
    ],
    ids=["even", "jitter", "5 at once", "pause"],
)
def test_audio_is_read_in_blocks_only_where_its_packets_follow_each_other(
    when: Callable[[int, float], float], is_even: bool, tmp_path: Path
) -> None:
    path = write_tone(tmp_path / "a.mp4", when, ticks=RATE)
    with open_media(path, quickly=True) as media:
        assert media.has_audio_at(RATE) == media.has_audio_at(16_000) == is_even
