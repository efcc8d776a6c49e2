"""Clips as planes, from the loader to the model's inputs: the same pictures, whatever the way."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.testing import assert_close

from tests.data.small_shards import FPS, Video, damage, write_shards
from tests.media.plane_clips import smooth_planes
from vatt.contracts import Augmentation, Batch, Clip, ClipSpec, Crop, PlaneLayout
from vatt.data import clip_reader as reader_module
from vatt.data.augment import AugmentConfig, apply
from vatt.data.data_config import DataConfig
from vatt.data.datasets import ClipDataset
from vatt.data.loader import make_loader
from vatt.errors import DataError
from vatt.media.planes import Box
from vatt.shards.read import ShardFolder

CPU = torch.device("cpu")
SPEC = ClipSpec(frames=4, fps=FPS, height=24, width=32, sample_rate_hz=8000, texts=1, words=4)
T = SPEC.frames
GREY_LEVEL = 2 / 255  # of frames in [-1, 1]
CROP = Crop(0.12, 0.2, 0.7, 0.55)
# Kr and Kb of H.273, table 4.
SHARES = {False: (0.299, 0.114), True: (0.2126, 0.0722)}


def clip_of(layout: PlaneLayout, augmentation: Augmentation, seed: int) -> Clip:
    planes = smooth_planes(T, layout.height, layout.width, seed=seed)
    chroma = np.stack(planes[1:], axis=1)
    return Clip(
        key="",
        start_s=0.0,
        frames=np.concatenate([planes[0].reshape(-1), chroma.reshape(-1)]),
        waveform=np.zeros(SPEC.samples, np.int16),
        has_audio=False,
        word_ids=np.zeros((1, 4), np.int64),
        text_mask=np.zeros(1, np.bool_),
        augmentation=augmentation,
        draw=0,
        layout=layout,
    )


def reference(layout: PlaneLayout, augmentation: Augmentation, seed: int) -> NDArray[np.float64]:
    """One clip by Pillow's filter and the equations of H.273: RGB in [-1, 1]."""
    crop = augmentation.crop
    box = (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
    resized = []
    for number, plane in enumerate(smooth_planes(T, layout.height, layout.width, seed=seed)):
        scale = 1 if number == 0 else 2
        sides = np.array([layout.width, layout.height] * 2) / scale
        pictures = [Image.fromarray(one.astype(np.float32)) for one in plane]
        size = (SPEC.width, SPEC.height)
        limits = tuple((np.array(box) * sides).tolist())
        resized.append(
            np.stack(
                [np.array(p.resize(size, Image.Resampling.BILINEAR, limits)) for p in pictures]
            )
        )
    y, blue, red = (plane.astype(np.float64) for plane in resized)
    lowest, luma_range, chroma_range = (0, 255, 255) if layout.full_range else (16, 219, 224)
    y, blue, red = (
        (y - lowest) / luma_range,
        (blue - 128) / chroma_range,
        (red - 128) / chroma_range,
    )
    kr, kb = SHARES[layout.bt709]
    r, b = y + 2 * (1 - kr) * red, y + 2 * (1 - kb) * blue
    g = (y - kr * r - kb * b) / (1 - kr - kb)
    found = np.clip(np.stack([r, g, b], axis=-1), 0, 1) * 2 - 1
    return found[:, :, ::-1] if augmentation.flip else found


@pytest.mark.parametrize("bt709", [False, True])
@pytest.mark.parametrize("full_range", [False, True])
def test_planes_of_several_sizes_become_the_rgb_of_a_clip_by_clip_reference(bt709, full_range):
    asked = [
        (PlaneLayout(48, 64, bt709, full_range), Augmentation()),
        (PlaneLayout(30, 90, bt709, full_range), Augmentation(crop=CROP)),
        (PlaneLayout(96, 54, not bt709, full_range), Augmentation(crop=CROP, flip=True)),
        (PlaneLayout(16, 20, bt709, not full_range), Augmentation(flip=True)),
        (PlaneLayout(51, 33, bt709, full_range), Augmentation(crop=CROP)),
    ]
    batch = Batch.collate([clip_of(*one, seed) for seed, one in enumerate(asked)])
    frames = apply(batch, SPEC).frames
    for seed, one in enumerate(asked):
        expected = torch.from_numpy(reference(*one, seed).copy()).float()
        # A tenth of a grey level: both work in floats, Pillow keeps its box in float32.
        assert_close(frames[seed], expected, rtol=0, atol=0.1 * GREY_LEVEL)
    swapped = replace(batch, layout=batch.layout * torch.tensor([1, 1, 1, 0, 1]))
    assert (apply(swapped, SPEC).frames - frames).abs().max() > 2 * GREY_LEVEL


def test_autocast_around_planes_changes_nothing():
    batch = Batch.collate([clip_of(PlaneLayout(48, 64, True, False), Augmentation(crop=CROP), 0)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        frames = apply(batch, SPEC).frames
    assert frames.dtype == torch.float32
    assert torch.equal(frames, apply(batch, SPEC).frames)


VIDEOS = [Video(flash=12), Video(sound=False, size=(40, 96)), Video(frames=3), Video(size=(64, 48))]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ShardFolder:
    return write_shards(tmp_path_factory.mktemp("shards"), VIDEOS)


def dataset_of(data: ShardFolder, **settings: Any) -> ClipDataset:
    values: dict[str, Any] = {"shards": (data.folder,), "batch_size": 6, "workers": 0}
    return ClipDataset(DataConfig(**(values | settings)), SPEC, AugmentConfig(), None, seed=3)


def same(one: Batch, other: Batch) -> bool:
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(Batch)]
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


@pytest.fixture(scope="module")
def batches(data: ShardFolder) -> list[Batch]:
    return list(make_loader(dataset_of(data), steps=4, device=CPU))


@pytest.mark.parametrize("settings", [{"workers": 2}, {"cache": "memory"}, {"cache": "disk"}])
def test_planes_are_the_same_with_workers_and_with_a_cache(data, batches, settings, tmp_path):
    dataset = dataset_of(data, cache_dir=tmp_path, **settings)
    loaded = list(make_loader(dataset, steps=4, start_step=1, device=CPU))
    assert all(map(same, loaded, batches[1:]))
    assert len(loaded) == 3
    assert len({tuple(row) for batch in batches for row in batch.layout[:, 1:3].tolist()}) > 3


def test_batches_of_ranks_joined_are_those_of_one_process(data, batches):
    parts = [
        list(make_loader(dataset_of(data), batch_size=3, first_slot=slot, steps=4, device=CPU))
        for slot in (0, 3)
    ]
    for step, batch in enumerate(batches):
        joined = Batch.joined([part[step] for part in parts])
        assert same(joined, batch)


def test_only_what_the_crop_needs_is_read_and_nothing_is_seen_of_that(data, batches, monkeypatch):
    def whole(_crop: Crop, _spec: ClipSpec, height: int, width: int) -> Box:
        return Box(0, 0, height, width)

    monkeypatch.setattr(reader_module, "needed", whole)
    uncut = list(make_loader(dataset_of(data), steps=4, device=CPU))
    for batch, other in zip(batches, uncut, strict=True):
        assert len(batch.frames) < len(other.frames)
        # Fractions of a box are float32: a hundredth of a grey level, and colours magnify it.
        assert_close(apply(batch, SPEC).frames, apply(other, SPEC).frames, rtol=0, atol=2e-3)


def test_planes_that_cannot_be_read_are_replaced_counted_and_named_or_stop_the_run(tmp_path):
    data = write_shards(tmp_path, [Video()] * 4)
    damage(data, 2)
    loader = make_loader(dataset_of(data, max_bad_fraction=0.25), steps=4, device=CPU)
    assert [len(batch) for batch in loader] == [6] * 4
    assert [clip.key for clip in loader.unreadable] == [f"{tmp_path}: v2"]
    with pytest.raises(DataError, match=r"^1 videos cannot be read, more than data.max_bad"):
        list(make_loader(dataset_of(data, max_bad_fraction=0.0), steps=4, device=CPU))


def test_planes_and_rgb_of_the_same_shards_show_the_same(data):
    spec = replace(SPEC, height=48, width=64)
    still = AugmentConfig(crop_area=(1.0, 1.0), colour_probability=0.0, audio_noise=0.0)
    found = []
    for settings in ({"decode": "planes"}, {"decode": "rgb", "decode_size": (48, 64)}):
        config = DataConfig(shards=(data.folder,), batch_size=6, **settings)
        dataset = ClipDataset(config, spec, still, None, seed=3)
        found.append(apply(dataset.batch(range(6)), spec))
    planes, rgb = found
    assert torch.equal(planes.audio, rgb.audio)
    # libswscale's RGB is one to two grey levels darker than its planes say, also where it is flat.
    assert (planes.frames - rgb.frames).abs().mean() < 3 * GREY_LEVEL
