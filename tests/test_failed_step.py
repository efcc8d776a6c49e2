from dataclasses import fields, replace

import torch

from tests.distributed.objective import whole
from vatt.contracts import Batch, UnreadableClip
from vatt.failed_step import load_batch, save_batch


def test_a_captured_batch_comes_back_as_it_was(tmp_path):
    batch = replace(
        whole("uneven"),
        labels=({"action": ("left", "jump")}, {}),
        positions=(24, 25),
        unreadable=(UnreadableClip("shards: v0", "cannot be opened", 2),),
    )
    save_batch(batch, tmp_path)
    again = load_batch(Batch, tmp_path)
    for field in fields(Batch):
        value, found = getattr(batch, field.name), getattr(again, field.name)
        assert torch.equal(value, found) if torch.is_tensor(value) else value == found, field.name
    assert isinstance(again.unreadable[0], UnreadableClip)
