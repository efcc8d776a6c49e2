import colorsys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.testing import assert_close

from tests.parity.recordings import arrays, assert_near
from vatt.contracts import Augmentation, Batch, ClipSpec, Crop
from vatt.data.augment import (
    AugmentConfig,
    add_noise,
    apply,
    draw,
    saturate,
    turn_hue,
)
from vatt.data.resize import centre_crop
from vatt.errors import ConfigError

RECORDED = arrays("misc/data_ops.npz")
T, H, W, S = 2, 9, 13, 50
SPEC = ClipSpec(frames=T, height=H, width=W)
OFF = AugmentConfig(
    crop_area=(1, 1), flip=False, brightness=0, saturation=0, contrast=0, hue=0, audio_noise=0
)


def batch_of(*changes: Augmentation, seed: int = 0) -> Batch:
    B, random = len(changes), torch.Generator().manual_seed(seed)
    boxes = [(c.crop.top, c.crop.left, c.crop.height, c.crop.width) for c in changes]
    colours = [(c.brightness, c.saturation, c.contrast, c.hue) for c in changes]
    frames = torch.randint(0, 256, (B, T, H, W, 3), dtype=torch.uint8, generator=random)
    waveform = torch.randint(-(2**15), 2**15, (B, S), generator=random).short()
    return Batch(
        keys=("",) * B,
        starts_s=(0.0,) * B,
        frames=frames,
        layout=torch.zeros(B, 5, dtype=torch.long),
        waveform=waveform,
        has_audio=torch.ones(B, dtype=torch.bool),
        word_ids=torch.zeros(B, 1, 1, dtype=torch.long),
        text_mask=torch.ones(B, 1, dtype=torch.bool),
        draw=torch.arange(B),
        crop=torch.tensor(boxes),
        flip=torch.tensor([c.flip for c in changes]),
        colour=torch.tensor(colours),
        gain=torch.tensor([c.gain for c in changes]),
    )


MANY = (
    Augmentation(),
    Augmentation(crop=Crop(0.1, 0.3, 0.5, 0.6), flip=True, brightness=0.05),
    Augmentation(crop=Crop(0.0, 0.05, 0.9, 0.9), saturation=1.4, contrast=0.7),
    Augmentation(flip=True, hue=0.15),
    Augmentation(brightness=-0.1, saturation=0.6, contrast=1.3, hue=-0.2),
    Augmentation(contrast=1.2, gain=0.5),
)


def test_nothing_drawn_changes_nothing():
    batch = batch_of(Augmentation(), Augmentation())
    inputs = apply(batch, SPEC)
    assert_close(inputs.frames, batch.frames * (2 / 255) - 1, rtol=0, atol=1e-6)
    assert torch.equal(inputs.audio, batch.waveform / 2**15)


def test_frames_and_waveform_end_between_minus_one_and_one():
    changes = (Augmentation(brightness=0.9, contrast=2.0, gain=3.0), Augmentation(brightness=-0.9))
    inputs = apply(batch_of(*changes), SPEC)
    assert inputs.frames.min() == inputs.audio.min() == -1
    assert inputs.frames.max() == inputs.audio.max() == 1


def test_a_clip_comes_out_the_same_whatever_its_neighbours_ask_for():
    batch = batch_of(*MANY)
    together = apply(batch, SPEC)
    for place in range(len(MANY)):
        values = {
            name: getattr(batch, name)[place : place + 1] for name in Batch.__dataclass_fields__
        }
        alone = apply(Batch(**values), SPEC)
        # parts that only neighbours ask for are then done as the identity: rounding differs
        assert_close(together.frames[place], alone.frames[0], rtol=0, atol=2e-5)
        assert torch.equal(together.audio[place], alone.audio[0])


def test_autocast_around_it_changes_nothing():
    batch = batch_of(*MANY)
    with torch.autocast("cpu", torch.bfloat16):
        inside = apply(batch, SPEC)
    assert torch.equal(inside.frames, apply(batch, SPEC).frames)


def test_flip_swaps_left_and_right():
    batch = batch_of(Augmentation(flip=True), Augmentation())
    frames = apply(batch, SPEC).frames
    unflipped = apply(replace(batch, flip=torch.tensor([False, False])), SPEC).frames
    assert torch.equal(frames[0], unflipped[0].flip(2))
    assert torch.equal(frames[1], unflipped[1])


@pytest.mark.parametrize("size", [(9, 13), (4, 5), (20, 7), (24, 32)])
@pytest.mark.parametrize("flip", [False, True])
def test_crop_and_resize_are_those_of_pillow(size, flip):
    """Pillow's linear filter, widened where the picture shrinks, over the same box."""
    crop = Crop(0.12, 0.2, 0.7, 0.55)
    batch = batch_of(Augmentation(), Augmentation(crop=crop, flip=flip))
    frames = apply(batch, ClipSpec(frames=T, height=size[0], width=size[1])).frames[1]
    box = (crop.left * W, crop.top * H, (crop.left + crop.width) * W, (crop.top + crop.height) * H)
    for t in range(T):
        for channel in range(3):
            plane = Image.fromarray(batch.frames[1, t, :, :, channel].numpy().astype(np.float32))
            resized = np.array(plane.resize(size[::-1], Image.Resampling.BILINEAR, box=box))
            expected = torch.from_numpy(resized[:, ::-1].copy() if flip else resized)
            # Pillow keeps the box in float32: a hundredth of a grey level
            assert_close(frames[t, :, :, channel], expected * (2 / 255) - 1, rtol=0, atol=1e-4)


def colour_of_one_pixel(pixel, mean, change: Augmentation):
    """The four changes on one RGB pixel in [0, 1], by Python's own HSV."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(pixel + change.brightness))
    saturation = min(saturation * change.saturation, 1.0)
    pixel = np.array(colorsys.hsv_to_rgb(hue, saturation, value))
    pixel = (pixel - mean) * change.contrast + mean
    hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
    pixel = np.array(colorsys.hsv_to_rgb((hue + change.hue) % 1.0, saturation, value))
    return np.clip(pixel, 0, 1)


@pytest.mark.parametrize("hue", [-0.2, 0.0, 0.2])
@pytest.mark.parametrize("contrast", [0.7, 1.0])
@pytest.mark.parametrize("saturation", [0.6, 1.0, 1.4])
@pytest.mark.parametrize("brightness", [0.0, 0.12])
def test_colours_are_those_of_a_pixel_by_pixel_reference(brightness, saturation, contrast, hue):
    change = Augmentation(brightness=brightness, saturation=saturation, contrast=contrast, hue=hue)
    batch = batch_of(change)
    frames = apply(batch, SPEC).frames[0]
    plain = batch.frames[0].numpy() / 255.0
    saturated = replace(change, contrast=1.0, hue=0.0)
    for t in range(T):
        pixels = plain[t].reshape(-1, 3)
        mean = np.mean([_unclipped(pixel, saturated) for pixel in pixels], axis=0)
        coloured = [colour_of_one_pixel(pixel, mean, change) for pixel in pixels]
        expected = torch.tensor(np.array(coloured) * 2 - 1).float().view(H, W, 3)
        assert_close(frames[t], expected, rtol=0, atol=5e-6)  # float32 against float64


def _unclipped(pixel, change: Augmentation):
    hue, saturation, value = colorsys.rgb_to_hsv(*(pixel + change.brightness))
    return np.array(colorsys.hsv_to_rgb(hue, min(saturation * change.saturation, 1.0), value))


def test_saturation_and_hue_are_those_of_the_official_code():
    saturated = saturate(RECORDED["color/brightness"], torch.tensor(1.25))
    assert_near(saturated, RECORDED["color/saturation"], "color/saturation", rtol=0, atol=1e-6)
    turned = turn_hue(RECORDED["color/contrast"], torch.tensor(-0.13))
    assert_near(turned, RECORDED["color/hue"], "color/hue", rtol=0, atol=1e-6)


OFFICIAL_CHANGES = {"brightness": 0.08, "saturation": 1.25, "contrast": 0.7, "hue": -0.13}


@pytest.mark.parametrize(
    ("number", "key"),
    [
        (0, "normalize/zero_one"),
        (0, "color/zero_one"),
        *((number, f"color/{name}") for number, name in enumerate(OFFICIAL_CHANGES, 1)),
    ],
)
def test_frames_after_each_colour_change_are_those_of_the_official_code(number, key):
    """After the first changes of the official order; it clips after the last, ours after any."""
    found = official_frames(dict(list(OFFICIAL_CHANGES.items())[:number]))
    expected = RECORDED[key].clamp(0, 1) * 2 - 1
    assert_near(found, expected, key, rtol=0, atol=3e-6 if number else 1e-6)  # float32


def test_frames_without_and_with_all_changes_are_those_of_the_official_code():
    key = "normalize/zero_centered"
    assert_near(official_frames({}), RECORDED[key], key, rtol=0, atol=1e-6)
    found = official_frames(OFFICIAL_CHANGES)
    assert_near(found, RECORDED["color/final"], "color/final", rtol=0, atol=3e-6)


def official_frames(changes: dict[str, Any]) -> torch.Tensor:
    batch = batch_of(Augmentation(**changes))
    return apply(replace(batch, frames=RECORDED["normalize/in"][None]), SPEC).frames[0]


def test_the_mean_of_contrast_is_of_one_frame_and_channel():
    batch = batch_of(Augmentation(contrast=0.0))
    frames = apply(batch, SPEC).frames[0]
    means = batch.frames[0].float().mean((1, 2), keepdim=True) * (2 / 255) - 1
    assert_close(frames, means.expand_as(frames), rtol=0, atol=1e-5)


@given(st.integers(0, 2**63 - 1), st.floats(0.3, 3.0))
def test_draws_stay_in_their_ranges(seed, aspect):
    config = AugmentConfig(gain=1.0)
    change = draw(config, np.random.default_rng(seed), aspect, SPEC)
    crop = change.crop
    assert 0 <= crop.top <= crop.top + crop.height <= 1 + 1e-9
    assert 0 <= crop.left <= crop.left + crop.width <= 1 + 1e-9
    if crop != Crop():
        assert 0.08 - 1e-9 <= crop.height * crop.width <= 1
        assert 0.5 - 1e-9 <= crop.width * aspect / crop.height <= 2 + 1e-9
    assert abs(change.brightness) <= 32 / 255
    assert abs(change.saturation - 1) <= 0.4
    assert abs(change.contrast - 1) <= 0.4
    assert abs(change.hue) <= 0.2
    assert 0.5 <= change.gain <= 2
    assert change == draw(config, np.random.default_rng(seed), aspect, SPEC)


def test_draws_are_spread_over_their_ranges():
    config = AugmentConfig(gain=1.0)
    changes = [draw(config, np.random.default_rng(seed), 4 / 3, SPEC) for seed in range(2000)]
    assert np.mean([change.flip for change in changes]) == pytest.approx(0.5, abs=0.05)
    coloured = [change for change in changes if change.hue]
    assert len(coloured) / 2000 == pytest.approx(0.8, abs=0.04)
    for name, low, high in (
        ("brightness", -32 / 255, 32 / 255),
        ("saturation", 0.6, 1.4),
        ("contrast", 0.6, 1.4),
        ("hue", -0.2, 0.2),
    ):
        values = np.array([getattr(change, name) for change in coloured])
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.03 * (high - low))
        assert values.min() < low + 0.02 * (high - low)
        assert values.max() > high - 0.02 * (high - low)


SMALLER_SIDE = AugmentConfig(crop_style="smaller_side")
JITTERED = (0.8 / 1.2, 1.2 / 0.8)  # from one side least and the other most, to the reverse


@given(st.integers(0, 2**63 - 1), st.floats(0.3, 3.0), st.integers(1, 60), st.integers(1, 60))
def test_a_smaller_side_crop_is_as_large_as_fits_and_of_the_models_aspect_up_to_the_jitter(
    seed, aspect, height, width
):
    spec = ClipSpec(height=height, width=width)
    crop = draw(SMALLER_SIDE, np.random.default_rng(seed), aspect, spec).crop
    assert max(crop.height, crop.width) == 1.0
    assert 0 <= crop.top <= crop.top + crop.height <= 1 + 1e-9
    assert 0 <= crop.left <= crop.left + crop.width <= 1 + 1e-9
    stretched = width / height / (crop.width * aspect / crop.height)
    assert JITTERED[0] - 1e-9 <= stretched <= JITTERED[1] + 1e-9


def test_smaller_side_crops_are_jittered_four_times_in_five_and_lie_everywhere():
    crops = [
        draw(SMALLER_SIDE, np.random.default_rng(seed), 2.0, ClipSpec()).crop
        for seed in range(2000)
    ]
    widths = np.array([crop.width for crop in crops])  # 1 / 2 of the frame, before the jitter
    plain = widths == 0.5
    assert plain.mean() == pytest.approx(0.2, abs=0.04)
    assert widths.min() < 0.5 * (JITTERED[0] + 0.04)
    assert widths.max() > 0.5 * (JITTERED[1] - 0.08)
    # log(U / U') of two uniform stretches: as often narrower as wider
    assert (widths[~plain] < 0.5).mean() == pytest.approx(0.5, abs=0.04)
    places = np.array([crop.left / (1 - crop.width) for crop in crops])
    assert np.histogram(places, bins=4, range=(0, 1))[0] / 2000 == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("style", ["area", "smaller_side"])
def test_both_styles_of_crop_take_as_many_random_numbers(style):
    rng = np.random.default_rng(0)
    draw(AugmentConfig(crop_style=style), rng, 1.3, SPEC)
    assert rng.random() == np.random.default_rng(0).random(48)[47]


def test_parts_that_are_switched_off_are_not_drawn():
    rng = np.random.default_rng(0)
    assert all(draw(OFF, rng, W / H, SPEC) == Augmentation() for _ in range(50))


@pytest.mark.parametrize("aspect", [9 / 16, 1.0, 4 / 3, 16 / 9])
def test_the_whole_frame_is_the_box_of_evaluation_and_is_not_stretched(aspect):
    rng = np.random.default_rng(0)
    assert draw(OFF, rng, aspect, SPEC).crop == centre_crop(aspect, SPEC).crop
    uncoloured = replace(AugmentConfig(), colour_probability=0.0)
    assert all(draw(uncoloured, rng, 1.3, SPEC).hue == 0 for _ in range(50))


@pytest.mark.parametrize("aspect", [0.5, 1.0, 4 / 3, 16 / 9])
def test_centre_crop_is_the_largest_box_of_the_models_aspect(aspect):
    spec = ClipSpec(height=48, width=64)
    crop = centre_crop(aspect, spec).crop
    assert max(crop.height, crop.width) == 1.0
    assert crop.width * aspect / crop.height == pytest.approx(64 / 48)
    assert crop.top == pytest.approx((1 - crop.height) / 2)
    assert crop.left == pytest.approx((1 - crop.width) / 2)


def test_noise_is_a_share_of_the_peak_and_leaves_silence_alone():
    rng = np.random.default_rng(0)
    sound = (20_000 * np.sin(np.arange(50_000) / 7)).astype(np.int16)
    added = add_noise(sound, 0.01, rng).astype(int) - sound
    assert added.std() == pytest.approx(200, rel=0.03)
    assert abs(added.mean()) < 5
    silence = np.zeros(100, np.int16)
    assert not add_noise(silence, 0.01, rng).any()
    loud = np.full(1000, -(2**15), np.int16)
    assert add_noise(loud, 0.1, rng).max() < 0  # clipped, not wrapped around


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("crop_area", (0.0, 1.0)),
        ("crop_area", (0.5, 0.2)),
        ("crop_aspect", (2.0, 0.5)),
        ("colour_probability", 1.5),
        ("brightness", -0.1),
        ("hue", 0.6),
        ("gain", -1.0),
    ],
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ConfigError, match=f"augment.{name}: found"):
        AugmentConfig(**{name: value})
