"""Relative buckets, resampled positions and spectrograms of the official code."""

import pytest

from tests.parity.recordings import arrays, assert_near
from vatt.models.positions import relative_buckets, resample
from vatt.models.spectrogram import SpectrogramConfig, log_mel, mel_matrix

BUCKETS = arrays("misc/t5_relative_buckets.npz")
POSITIONS = arrays("misc/position_interpolation.npz")
DATA = arrays("misc/data_ops.npz")
SOURCES = [key for key in POSITIONS if key.endswith("/source")]
SMALL = SpectrogramConfig(window_s=512 / 16_000, step_s=256 / 16_000, bands=40)


# The official code solves for the spline in float32, we in float64: by rows of the table, how far
# the recordings are from an exact solution of entries of about 1.
FLOAT32_SPLINE = {2: 1e-6, 3: 1e-6, 4: 2e-6, 6: 5e-5, 8: 5e-5, 9: 1.2e-4, 14: 1.2e-3}


@pytest.mark.parametrize("key", BUCKETS)
def test_relative_buckets(key):
    _, buckets, _, distance, _, length = key.split("_")
    found = relative_buckets(int(length), int(buckets), int(distance))
    assert_near(found, BUCKETS[key].long(), key, atol=0, rtol=0)


@pytest.mark.parametrize("key", SOURCES)
def test_resampled_positions(key):
    target, source = key.replace("source", "target"), POSITIONS[key]
    found = resample(source, len(POSITIONS[target]), "polyharmonic")
    assert_near(found, POSITIONS[target], target, atol=FLOAT32_SPLINE[len(source)], rtol=0)


@pytest.mark.parametrize(
    ("name", "rate", "config"),
    [("mel_pretrain", 48_000, SpectrogramConfig()), ("mel_small", 16_000, SMALL)],
)
def test_spectrograms(name, rate, config):
    key = f"{name}/matrix"
    matrix = mel_matrix(len(DATA[key]), rate, config.bands, 80.0, 7600.0)
    assert_near(matrix, DATA[key], key, atol=2e-5, rtol=0)  # theirs in float32
    found = log_mel(DATA[f"{name}/in"], rate, config)
    key = f"{name}/normalized"
    assert_near(found, DATA[key][..., 0], key, atol=1e-5, rtol=0)
    # Ours has no other scale than [0, 1]: on theirs, each clip from its least to its greatest.
    key = f"{name}/out"
    plain = DATA[key][..., 0]
    low, high = plain.amin((1, 2), keepdim=True), plain.amax((1, 2), keepdim=True)
    assert_near(low + (high - low) * found, plain, key, atol=5e-5, rtol=0)
