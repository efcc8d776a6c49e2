"""Planes on the device against a reference that takes one clip and one plane at a time."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from PIL import Image

from tests.data.small_shards import Video, write_shards
from vatt.contracts import Augmentation, Clip, ClipSpec, Crop, Layout
from vatt.data import augment
from vatt.data.augment import AugmentConfig
from vatt.data.datasets import ClipDataset
from vatt.data.loader import collate
from vatt.data.pictures import needed, within
from vatt.data.settings import DataConfig
from vatt.media.planes import Box, Planes

SPEC = ClipSpec(frames=2, fps=10, height=32, width=40, sample_rate_hz=8000, texts=1, words=4)
SIZES = ((36, 48), (51, 33), (96, 130), (32, 40))  # also odd, smaller and much larger
FORMS = ((False, False), (True, False), (False, True), (True, True))  # bt709, full_range
# BT.601 and BT.709 as H.273 gives them: what red and blue difference add to red, green and blue.
MATRICES = {
    False: np.array([[0.0, 1.402], [-0.344136, -0.714136], [1.772, 0.0]]),
    True: np.array([[0.0, 1.5748], [-0.187324, -0.468124], [1.8556, 0.0]]),
}


def whole_planes(size: tuple[int, int], form: tuple[bool, bool], seed: int) -> Planes:
    """Noise, so that every pixel counts."""
    planes = Planes.empty(SPEC.frames, Layout(*size, *form), Box(0, 0, *size))
    planes.flat[:] = np.random.default_rng(seed).integers(16, 236, len(planes.flat))
    return planes


def clip_of(planes: Planes, change: Augmentation) -> Clip:
    """The part that the crop needs, as a reader delivers it."""
    height, width, *colours = planes.form
    box = partial(needed, change.crop, SPEC)(height, width)
    kept = planes.cut(box, np.arange(SPEC.frames))
    return Clip(
        key="k",
        start_s=0.0,
        frames=kept.flat,
        layout=Layout(*kept.box.size, *colours),
        waveform=np.zeros(SPEC.samples, np.int16),
        has_audio=False,
        word_ids=np.zeros((1, 4), np.int64),
        text_mask=np.zeros(1, np.bool_),
        augmentation=within(change, box, height, width),
        draw=0,
    )


def resized(
    plane: NDArray[np.uint8], crop: Crop, shape: NDArray[np.float64]
) -> NDArray[np.float64]:
    """A box of a plane at the model's size, by Pillow; `shape` is the picture's, in its pixels."""
    height, width = shape
    right, bottom = crop.left + crop.width, crop.top + crop.height
    box = (crop.left * width, crop.top * height, right * width, bottom * height)
    image = Image.fromarray(plane.astype(np.float32))
    small = image.resize((SPEC.width, SPEC.height), Image.Resampling.BILINEAR, box=box)
    return np.asarray(small, np.float64)


def reference(planes: Planes, change: Augmentation) -> NDArray[np.float64]:
    """RGB [T, h, w, 3] in [0, 255]."""
    height, width, bt709, full = planes.form
    shape, frames = np.array([height, width], float), []
    for luma, chroma in zip(planes.luma, planes.chroma, strict=True):
        y = resized(luma, change.crop, shape)
        differences = (
            np.stack([resized(one, change.crop, shape / 2) for one in chroma], axis=-1) - 128
        )
        if not full:
            y, differences = (y - 16) * 255 / 219, differences * 255 / 224
        rgb = y[..., None] + differences @ MATRICES[bt709].T
        frames.append(rgb[:, ::-1] if change.flip else rgb)
    return np.clip(np.stack(frames), 0, 255)


@pytest.mark.parametrize("seed", range(6))
def test_planes_of_many_sizes_become_what_each_alone_becomes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    changes, all_planes = [], []
    for number, size in enumerate(SIZES):
        height, width = rng.uniform(0.3, 1.0, 2).tolist()
        top, left = (rng.random(2) * (1 - height, 1 - width)).tolist()
        crop = Crop(top, left, height, width) if seed else Crop()
        changes.append(Augmentation(crop=crop, flip=bool(rng.random() < 0.5)))
        all_planes.append(whole_planes(size, FORMS[(number + seed) % 4], seed))
    batch = collate([clip_of(*one) for one in zip(all_planes, changes, strict=True)])
    found = (augment.apply(batch, SPEC).frames.numpy().astype(np.float64) + 1) * 127.5
    for number, (planes, change) in enumerate(zip(all_planes, changes, strict=True)):
        # Far below the one grey level that is promised: float32 against float64.
        assert_allclose(found[number], reference(planes, change), atol=0.05)


def test_a_crop_of_part_of_a_picture_is_that_of_the_whole() -> None:
    planes = whole_planes((96, 130), (True, False), 1)
    crop = Augmentation(crop=Crop(0.2, 0.4, 0.5, 0.3))
    part = clip_of(planes, crop)
    height, width, *colours = planes.form
    whole = replace(part, frames=planes.flat, layout=Layout(height, width, *colours))
    whole = replace(whole, augmentation=crop)
    assert len(part.frames) < len(whole.frames) / 2
    one, other = (augment.apply(collate([clip]), SPEC).frames for clip in (part, whole))
    assert_allclose(one.numpy(), other.numpy(), atol=2e-5)  # of [-1, 1]: crops are float32


def test_planes_and_rgb_of_the_same_shards_show_the_same(tmp_path: Path) -> None:
    write_shards(tmp_path, [Video(frames=20)])
    spec = ClipSpec(frames=4, fps=5, height=48, width=64, sample_rate_hz=8000, texts=1, words=4)
    still = AugmentConfig(crop_area=(1.0, 1.0), colour_probability=0.0, audio_noise=0.0)
    batches = [
        collate(
            [
                ClipDataset(
                    DataConfig(
                        shards=(tmp_path,), decode=decode, decode_size=(48, 64), batch_size=2
                    ),
                    spec,
                    still,
                    None,
                    seed=0,
                )[3, slot]
                for slot in range(2)
            ]
        )
        for decode in ("planes", "rgb")
    ]
    planes, rgb = (augment.apply(batch, spec) for batch in batches)
    assert batches[0].frames.ndim == 1
    assert batches[1].frames.ndim == 5
    assert_array_equal(planes.audio.numpy(), rgb.audio.numpy())
    # libswscale rounds and places chroma its own way: about a grey level of 127.5 on average.
    assert torch.mean((planes.frames - rgb.frames).abs()) < 2 / 127.5
