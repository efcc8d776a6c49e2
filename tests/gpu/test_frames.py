"""Frames that are cropped, resized and coloured on the GPU are those of the CPU."""

from collections.abc import Sequence

import pytest
import torch
from torch.testing import assert_close

from tests.data.test_planes import CROP, SPEC, clip_of
from vatt.contracts import Augmentation, Batch, PlaneLayout
from vatt.data.augment import apply
from vatt.data.loader import Loader

pytestmark = pytest.mark.gpu

COLOURED = Augmentation(
    crop=CROP, flip=True, brightness=0.1, saturation=1.3, contrast=0.7, hue=0.1, gain=0.5
)
CLIPS = [
    (PlaneLayout(48, 64, True, False), Augmentation()),
    (PlaneLayout(30, 90, False, True), COLOURED),
    (PlaneLayout(51, 33, True, True), Augmentation(crop=CROP)),
]


def planes() -> Batch:
    return Batch.collate([clip_of(*one, seed) for seed, one in enumerate(CLIPS)])


@pytest.mark.parametrize("antialias", [True, False])
def test_planes_become_the_frames_of_the_cpu(cuda, antialias):
    expected = apply(planes(), SPEC, antialias=antialias)
    found = apply(planes().to(cuda), SPEC, antialias=antialias)
    assert found.frames.device == cuda
    # Products of rows and columns are summed in another order; hue divides by small differences.
    assert_close(found.frames.cpu(), expected.frames, rtol=0, atol=1e-3)
    assert_close(found.audio.cpu(), expected.audio)


def test_a_pinned_batch_is_prepared_without_waiting_for_the_gpu(cuda, no_waiting):
    apply(planes().to(cuda), SPEC)  # what is done once, such as making a cuBLAS handle
    pinned = planes().pin_memory()
    no_waiting()
    found = apply(pinned.to(cuda), SPEC)
    torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(found.frames, apply(planes().to(cuda), SPEC).frames)


def test_a_batch_is_copied_while_the_gpu_computes(cuda):
    class Source:
        def batch(self, positions: Sequence[int]) -> Batch:
            return planes()

    loader = Loader(Source(), range(0, 12, 3), 3, workers=0, device=cuda)
    batches = iter(loader)
    for _ in range(3):  # makes what is made once, also the pinned memory that is used in turn
        next(batches)
    torch.cuda.synchronize()
    torch.cuda._sleep(10**9)  # about half a second of computing
    batch = next(batches)
    assert loader._copies is not None
    loader._copies.synchronize()
    assert not torch.cuda.current_stream().query()  # the copies have not waited for it
    assert torch.equal(batch.frames.cpu(), planes().frames)
