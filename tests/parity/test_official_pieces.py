"""Relative buckets, resampled positions and spectrograms of the official code."""

import pytest
import torch
from torch.testing import assert_close

from tests.parity.recordings import arrays
from vatt.models.positions import relative_buckets, resample
from vatt.models.spectrogram import SpectrogramConfig, log_mel, mel_matrix

BUCKETS = arrays("misc/t5_relative_buckets.npz")
POSITIONS = arrays("misc/position_interpolation.npz")
DATA = arrays("misc/data_ops.npz")
SOURCES = [key for key in POSITIONS if key.endswith("/source")]
SMALL = SpectrogramConfig(window_s=512 / 16_000, step_s=256 / 16_000, bands=40)


@pytest.mark.parametrize("key", BUCKETS)
def test_relative_buckets(key):
    _, buckets, _, distance, _, length = key.split("_")
    assert torch.equal(
        relative_buckets(int(length), int(buckets), int(distance)), BUCKETS[key].long()
    )


@pytest.mark.parametrize("key", SOURCES)
def test_resampled_positions(key):
    expected = POSITIONS[key.replace("source", "target")]
    found = resample(POSITIONS[key], len(expected), "polyharmonic")
    # The official code solves in float32: off by some 1e-6 from few rows, by 1e-3 from 14 of them.
    assert_close(found, expected, atol=5e-6 if len(POSITIONS[key]) <= 4 else 2e-3, rtol=0)


@pytest.mark.parametrize(
    ("name", "rate", "config"),
    [("mel_pretrain", 48_000, SpectrogramConfig()), ("mel_small", 16_000, SMALL)],
)
def test_spectrograms(name, rate, config):
    matrix = mel_matrix(len(DATA[f"{name}/matrix"]), rate, config.bands, 80.0, 7600.0)
    assert_close(matrix, DATA[f"{name}/matrix"], atol=2e-5, rtol=0)  # theirs in float32
    found = log_mel(DATA[f"{name}/in"], rate, config)
    assert_close(found, DATA[f"{name}/normalized"][..., 0], atol=1e-5, rtol=0)
