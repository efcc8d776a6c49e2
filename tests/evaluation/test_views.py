"""Crops and resizes of evaluation, against the recorded official ones and their own properties."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from tests.parity.recordings import arrays, assert_near
from vatt.errors import DataError
from vatt.evaluation.views import (
    central_crop,
    mean_over_views,
    resize,
    resize_to_cover,
    three_crops,
)

RECORDED = arrays("misc/data_ops.npz")
SIDES = st.integers(4, 40)
each_shape = pytest.mark.parametrize("shape", ["wide", "tall"])


def assert_same_levels(found: Tensor, key: str, *, off_by: int) -> None:
    assert found.dtype == torch.uint8
    assert_near(found.int(), RECORDED[key].int(), key, atol=off_by, rtol=0)


@each_shape
def test_frames_are_resized_to_the_smallest_side_as_in_the_official_code(shape):
    frames = RECORDED[f"resize_smallest_{shape}/in"]
    found = resize_to_cover(frames, 8, 8)
    # Where the exact level is a whole number, rounding of float32 decides which one it is cut to.
    assert_same_levels(found, f"resize_smallest_{shape}/out", off_by=1)
    assert int((found != RECORDED[f"resize_smallest_{shape}/out"]).sum()) <= 1


@each_shape
def test_three_crops_are_those_of_the_official_code(shape):
    found = three_crops(RECORDED[f"three_crop_{shape}/in"], 9, 9)
    assert_same_levels(found.flatten(0, 1), f"three_crop_{shape}/out", off_by=0)


@each_shape
def test_central_crop_is_that_of_the_official_code(shape):
    found = central_crop(RECORDED[f"three_crop_{shape}/in"], 9, 9)
    assert_same_levels(found, f"central_crop_{shape}/out", off_by=0)


def test_a_resized_box_of_real_numbers_is_that_of_the_official_code():
    box = RECORDED["crop_resize/in"][:, 1:8, 2:11]  # offsets and sizes of data_ops.json
    key = "crop_resize/out"
    assert_near(resize(box, 6, 6), RECORDED[key], key, atol=1e-6, rtol=0)  # float32


def ramp(height: int, width: int) -> Tensor:
    """Two frames [2, H, W, 2] whose pixels tell their row and column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns], dim=-1).float().expand(2, -1, -1, -1)


@given(SIDES, SIDES, st.integers(1, 12), st.integers(1, 12))
def test_a_covering_frame_covers_the_box_and_keeps_the_aspect(height, width, h, w):
    found = resize_to_cover(ramp(height, width), h, w).shape[1:3]
    by_width, by_height = (max(h, height * w // width), w), (h, max(w, width * h // height))
    assert found == (by_width if height / width >= h / w else by_height)
    assert found[0] >= h
    assert found[1] >= w


@given(SIDES, SIDES, st.integers(1, 4))
def test_three_crops_start_begin_middle_and_end_of_the_longer_side(height, width, size):
    crops = three_crops(ramp(height, width), size, size)
    assert crops.shape == (3, 2, size, size, 2)
    firsts = crops[:, 0, 0, 0].tolist()
    along = 0 if height >= width else 1
    room = max(height, width) - size
    assert [first[1 - along] for first in firsts] == [0, 0, 0]
    assert (firsts[0][along], firsts[2][along]) == (0, room)
    assert abs(firsts[1][along] - room / 2) <= 1


def test_clips_keep_their_own_three_crops_in_a_row():
    clips = torch.stack([ramp(9, 14), ramp(9, 14) + 100])
    together = three_crops(clips, 9, 9)
    assert together.shape == (2, 3, 2, 9, 9, 2)
    for clip, crops in zip(clips, together, strict=True):
        assert torch.equal(crops, three_crops(clip, 9, 9))


def test_resize_to_the_same_size_changes_nothing():
    frames = torch.randint(0, 256, (2, 3, 7, 5, 3), dtype=torch.uint8)
    assert torch.equal(resize(frames, 7, 5), frames)


@pytest.mark.parametrize("crop", [central_crop, three_crops])
def test_frames_smaller_than_the_box_are_refused(crop):
    with pytest.raises(DataError, match="found frames of 5 × 9, expected at least 6 × 6"):
        crop(torch.zeros(1, 5, 9, 3), 6, 6)


def test_logits_are_averaged_over_consecutive_views():
    logits = torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 2.0], [7.0, 4.0]])
    assert_close(mean_over_views(logits, 2), torch.tensor([[2.0, 0.0], [6.0, 3.0]]))
    assert torch.equal(mean_over_views(logits, 1), logits)


def test_a_missing_view_is_refused():
    with pytest.raises(DataError, match="found logits of 5 views, expected a multiple of 3"):
        mean_over_views(torch.zeros(5, 2), 3)
