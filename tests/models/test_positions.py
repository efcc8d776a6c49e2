import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from vatt.models.positions import (
    RelativeBias,
    relative_buckets,
    resample,
    resampling_weights,
)
from vatt.models.tokens import AxisPositions

each_method = pytest.mark.parametrize("method", ["bicubic", "polyharmonic"])


def test_position_is_the_sum_of_one_row_per_axis_last_axis_fastest():
    positions = AxisPositions((2, 3, 4), 5, form="sum", resampling="bicubic")
    t, h, w = positions.tables
    rows = positions((2, 3, 4))
    for i, j, k in ((0, 0, 0), (1, 2, 3), (0, 2, 1)):
        assert_close(rows[(i * 3 + j) * 4 + k], t[i] + h[j] + w[k])


def test_official_positions_are_layer_normed_after_the_sum():
    positions = AxisPositions((2, 3), 5, form="normed", resampling="bicubic")
    t, f = positions.tables
    assert_close(positions((2, 3))[4], F.layer_norm(t[1] + f[1], (5,), eps=1e-6))


def test_transposed_positions_number_the_first_axis_fastest():
    positions = AxisPositions((2, 3), 5, form="sum", resampling="bicubic", transposed=True)
    t, f = positions.tables
    for n, row in enumerate(positions((2, 3))):
        assert_close(row, t[n % 2] + f[n // 2])


@each_method
def test_table_of_the_asked_length_is_itself(method):
    table = torch.rand(6, 3)
    assert resample(table, 6, method) is table


@each_method
@pytest.mark.parametrize(("n", "size"), [(14, 20), (8, 4), (1, 5), (2, 3), (158, 200)])
def test_equal_rows_stay_equal_rows(method, n, size):
    table = torch.rand(1, 4).expand(n, 4)
    assert_close(resample(table, size, method), table[:1].expand(size, 4), atol=1e-5, rtol=1e-5)


def test_bicubic_is_that_of_images():
    table = torch.rand(14, 3)
    image = table.T[None, :, None, :]  # one row of pixels
    expected = F.interpolate(image, (1, 20), mode="bicubic", align_corners=False)[0, :, 0].T
    assert_close(resample(table, 20, "bicubic"), expected)


def test_polyharmonic_continues_a_line_beyond_its_ends():
    line = (torch.arange(14) / 14)[:, None]
    assert_close(resample(line, 20, "polyharmonic"), (torch.arange(20) / 20)[:, None])


def test_polyharmonic_of_half_the_length_takes_every_second_row():
    table = torch.rand(14, 3)
    assert_close(resample(table, 7, "polyharmonic"), table[::2], atol=1e-5, rtol=1e-5)


@each_method
def test_gradient_reaches_the_table_even_when_first_used_in_evaluation(method):
    resampling_weights.cache_clear()
    table = torch.rand(5, 2, requires_grad=True)
    with torch.inference_mode():
        resample(table, 9, method)
    (gradient,) = torch.autograd.grad(resample(table, 9, method).sum(), table)
    # Every new row is a weighting of old rows whose weights add up to 1.
    assert_close(gradient.sum(), torch.tensor(18.0))


@each_method
def test_resampling_is_in_float32_under_autocast(method):
    table = torch.rand(5, 2)
    expected = resample(table, 9, method)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(resample(table, 9, method), expected)


def t5_bucket(key: int, query: int, buckets: int, max_distance: int) -> int:
    """Written from the description of T5, for one pair."""
    half = buckets // 2
    exact = half // 2
    distance = abs(key - query)
    later = half if key > query else 0
    if distance < exact:
        return later + distance
    share = math.log(distance / exact) / math.log(max_distance / exact)
    return later + min(half - 1, exact + int(share * (half - exact)))


def test_relative_buckets_are_those_of_t5():
    found = relative_buckets(17, 32, 64)
    for query in range(17):
        for key in range(17):
            assert found[query, key] == t5_bucket(key, query, 32, 64), (query, key)


def test_relative_bias_depends_on_distance_and_direction_alone():
    bias = RelativeBias(2, buckets=32, max_distance=64)(10)
    assert_close(bias[:, :-1, :-1], bias[:, 1:, 1:])
    assert not torch.equal(bias[0], bias[0].T)
