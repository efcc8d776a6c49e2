from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tests.media.plane_clips import smooth_planes, write_planes
from vatt.contracts import Augmentation, Clip, ClipSpec, Crop, Layout
from vatt.data.augment import apply
from vatt.data.loader import collate
from vatt.data.pictures import needed, within
from vatt.media.moments import opened_moments
from vatt.media.planes import Box, Planes

T, HEIGHT, WIDTH = 3, 54, 71  # odd: the last column of chroma stands for one of luma
SPEC = ClipSpec(frames=T, height=20, width=24)
WHOLE = Crop()
SMALL = Crop(top=0.31, left=0.2, height=0.27, width=0.31)  # enlarged
CORNER = Crop(top=0.0, left=0.4, height=0.7, width=0.6)
CROPS = [WHOLE, SMALL, CORNER]


def planes_of(form: Layout, *, seed: int = 0) -> Planes:
    planes = Planes.empty(T, form, Box(0, 0, form.height, form.width))
    luma, blue, red = smooth_planes(T, form.height, form.width, seed=seed)
    planes.luma[:], planes.chroma[:, 0], planes.chroma[:, 1] = luma, blue, red
    return planes


def clip_of(planes: Planes, change: Augmentation, *, cut: bool) -> Clip:
    """A clip with the whole pictures, or only with what the crop needs of them."""
    height, width, *colours = planes.form
    box = needed(change.crop, SPEC, height, width) if cut else planes.box
    part = planes.cut(box, np.arange(T))
    return Clip(
        key="",
        start_s=0.0,
        frames=part.flat,
        waveform=np.zeros(8, np.int16),
        has_audio=False,
        word_ids=np.zeros((1, 1), np.int64),
        text_mask=np.zeros(1, np.bool_),
        augmentation=within(change, box, height, width),
        draw=0,
        layout=Layout(*box.size, *colours),
    )


def resized(plane: NDArray[np.uint8], crop: Crop, height: float, width: float):
    """One plane [H, W], by Pillow; height and width of the picture in its pixels."""
    box = (crop.left * width, crop.top * height)
    box += (box[0] + crop.width * width, box[1] + crop.height * height)
    # Half a luma pixel beyond the last chroma pixel of an odd side: Pillow refuses, so it repeats.
    image = Image.fromarray(plane.astype(np.float32))
    return np.array(image.resize((SPEC.width, SPEC.height), Image.Resampling.BILINEAR, box=box))


def reference(planes: Planes, change: Augmentation) -> NDArray[np.float64]:
    """RGB [T, h, w, 3] in [0, 255], plane by plane, by the matrices as BT.601 and BT.709 print them."""
    height, width, bt709, full = planes.form
    to_rgb = {
        False: [[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]],
        True: [[1, 0, 1.5748], [1, -0.187324, -0.468124], [1, 1.8556, 0]],
    }[bt709]
    frames = []
    for t in range(T):
        y = resized(planes.luma[t], change.crop, height, width)
        blue, red = (resized(c, change.crop, height / 2, width / 2) for c in planes.chroma[t])
        if not full:
            y, blue, red = (y - 16) * 255 / 219, (blue - 128) * 255 / 224, (red - 128) * 255 / 224
        else:
            blue, red = blue - 128, red - 128
        frames.append(np.stack([y, blue, red], -1) @ np.array(to_rgb).T)
    found = np.clip(np.stack(frames), 0, 255)
    return found[:, :, ::-1] if change.flip else found


def levels(clips: list[Clip], **settings) -> NDArray[np.float64]:
    """What `apply` gives, in [0, 255]."""
    return (apply(collate(clips), SPEC, **settings).frames.double().numpy() + 1) * 127.5


@pytest.mark.parametrize("bt709", [False, True])
@pytest.mark.parametrize("full_range", [False, True])
def test_planes_become_the_rgb_of_a_clip_by_clip_reference(bt709, full_range):
    """A batch of clips of three sizes; within a hundredth of a grey level (float32)."""
    changes = [Augmentation(crop=crop, flip=flip) for crop in CROPS for flip in (False, True)]
    sizes = [(54, 71), (90, 64), (36, 36)]
    videos = [planes_of(Layout(*size, bt709, full_range), seed=n) for n, size in enumerate(sizes)]
    pairs = [(video, change) for video in videos for change in changes]
    found = levels([clip_of(video, change, cut=True) for video, change in pairs])
    for frames, (video, change) in zip(found, pairs, strict=True):
        np.testing.assert_allclose(frames, reference(video, change), atol=0.01, rtol=0)


boxes = st.tuples(*[st.floats(0.0, 0.9)] * 2, *[st.floats(0.1, 1.0)] * 2).map(
    lambda b: Crop(b[0], b[1], min(b[2], 1 - b[0]), min(b[3], 1 - b[1]))
)


@settings(max_examples=40, deadline=None)
@given(boxes, st.booleans(), st.booleans())
def test_what_is_cut_away_was_not_needed(crop, flip, antialias):
    planes = planes_of(Layout(HEIGHT, WIDTH, bt709=True, full_range=False))
    change = Augmentation(crop=crop, flip=flip)
    whole, part = (clip_of(planes, change, cut=cut) for cut in (False, True))
    assert len(part.frames) <= len(whole.frames)
    found = levels([whole, part], antialias=antialias)
    np.testing.assert_allclose(found[1], found[0], atol=0.01, rtol=0)  # float32 places of pixels


def test_cutting_leaves_a_small_crop_few_bytes():
    planes = planes_of(Layout(256, 456, bt709=True, full_range=False))
    change = Augmentation(crop=Crop(0.3, 0.3, 0.3, 0.3))
    assert len(clip_of(planes, change, cut=True).frames) < 0.16 * planes.flat.size  # 0.09 and a rim


def test_colours_are_those_of_libswscale(tmp_path):
    """Full size, so that only the conversion counts; chroma enlarged linearly and not repeated."""
    path = write_planes(tmp_path / "v.mp4", smooth_planes(4, 96, 128), colorspace=1)
    spec = ClipSpec(frames=2, height=96, width=128)
    with opened_moments(path) as moments:
        rgb = moments.frames(np.array([0.0, 0.2]), size=(96, 128)).astype(float)
    with opened_moments(path) as moments:
        planes = moments.planes(np.array([0.0, 0.2]), lambda *size: Box(0, 0, *size))
    clip = replace(
        clip_of(planes_of(Layout(4, 4, bt709=True, full_range=False)), Augmentation(), cut=False),
        frames=planes.flat,
        layout=planes.form,
    )
    found = (apply(collate([clip]), spec).frames[0].numpy() + 1) * 127.5
    assert np.abs(found - rgb).mean() < 1.5
    assert np.abs(found[:, 2:-2, 2:-2] - rgb[:, 2:-2, 2:-2]).max() < 12


def test_not_antialiased_each_pixel_is_between_its_nearest_neighbours():
    """As TensorFlow resizes: at the middle of each new pixel."""
    planes = planes_of(Layout(60, 72, bt709=True, full_range=True))
    planes.chroma[:] = 128  # grey: R = G = B = luma
    found = levels([clip_of(planes, Augmentation(), cut=True)], antialias=False)[0]
    rows, columns = (np.arange(20) + 0.5) * 3 - 0.5, (np.arange(24) + 0.5) * 3 - 0.5
    expected = planes.luma[:, rows.astype(int)][:, :, columns.astype(int)]  # whole numbers: no mix
    np.testing.assert_allclose(found, np.repeat(expected[..., None], 3, axis=3), atol=0.01)


def test_autocast_and_a_changed_default_device_change_nothing():
    clip = clip_of(planes_of(Layout(54, 71, True, False)), Augmentation(crop=SMALL), cut=True)
    plain = levels([clip])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert np.array_equal(levels([clip]), plain)


def test_a_file_of_planes(tmp_path: Path):
    """From file to RGB: the crop that a clip asks for, cut while decoding."""
    planes = smooth_planes(4, 54, 72)
    path = write_planes(tmp_path / "v.mp4", planes, colorspace=6)
    change = Augmentation(crop=CORNER)
    with opened_moments(path) as moments:
        found = moments.planes(np.array([0.0, 0.1, 0.2]), lambda *s: needed(CORNER, SPEC, *s))
    height, width, *colours = found.form
    clip = replace(
        clip_of(planes_of(found.form), change, cut=True),
        frames=found.flat,
        layout=Layout(*found.box.size, *colours),
        augmentation=within(change, found.box, height, width),
    )
    whole = Planes.empty(3, found.form, Box(0, 0, 54, 72))
    whole.luma[:], whole.chroma[:, 0], whole.chroma[:, 1] = (plane[:3] for plane in planes)
    np.testing.assert_allclose(levels([clip])[0], reference(whole, change), atol=0.01)
