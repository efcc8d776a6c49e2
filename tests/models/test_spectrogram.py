import math

import pytest
import torch
from torch.testing import assert_close

from vatt.errors import ConfigError
from vatt.models.spectrogram import SpectrogramConfig, log_mel, mel_matrix

RATE = 48_000


def tone(hertz: float, seconds: float = 0.5) -> torch.Tensor:
    return 0.5 * torch.sin(2 * math.pi * hertz * torch.arange(int(RATE * seconds)) / RATE)[None]


def mel(hertz: float) -> float:
    return 1127.0 * math.log1p(hertz / 700.0)


@pytest.mark.parametrize("hertz", [300.0, 1000.0, 4000.0])
def test_tone_is_loudest_in_the_band_of_its_frequency(hertz):
    config = SpectrogramConfig()
    band = log_mel(tone(hertz), RATE, config)[0, 5].argmax().item()
    width = (mel(config.highest_hz) - mel(config.lowest_hz)) / (config.bands + 1)
    assert band == pytest.approx((mel(hertz) - mel(config.lowest_hz)) / width - 1, abs=1.0)


def test_paper_clip_has_150_frames_of_80_bands_in_0_to_1():
    spectrogram = log_mel(torch.randn(1, 153_600), RATE, SpectrogramConfig())
    assert spectrogram.shape == (1, 150, 80)
    assert spectrogram.min() == 0
    assert spectrogram.max() == 1


def test_sound_shorter_than_a_step_still_makes_a_frame():
    assert log_mel(torch.randn(1, 100), RATE, SpectrogramConfig()).shape == (1, 1, 80)


def test_silence_is_zero_not_nan():
    assert (log_mel(torch.zeros(1, 9600), RATE, SpectrogramConfig()) == 0).all()


def test_clips_are_scaled_on_their_own():
    both = torch.cat([tone(300.0), 0.01 * tone(4000.0)])
    expected = [log_mel(one[None], RATE, SpectrogramConfig())[0] for one in both]
    assert_close(log_mel(both, RATE, SpectrogramConfig()), torch.stack(expected))


def test_triangles_overlap_so_that_no_frequency_between_the_first_and_last_peak_is_lost():
    matrix = mel_matrix(1025, RATE, 80, 80.0, 7600.0)
    hertz = torch.linspace(0, RATE / 2, 1025)
    inside = (hertz > 130) & (hertz < 7350)
    assert_close(matrix[inside].sum(1), torch.ones(int(inside.sum())))
    assert (matrix[hertz > 7600] == 0).all()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"step_s": 0.0}, "model.audio.spectrogram.step_s: found 0.0"),
        ({"lowest_hz": 9000.0}, "model.audio.spectrogram.lowest_hz: found 9000.0"),
    ],
)
def test_impossible_settings_are_refused_by_name(changes, named):
    with pytest.raises(ConfigError, match=named):
        SpectrogramConfig(**changes)
