from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.distributed.objective import CLIP, whole
from vatt.config import from_values
from vatt.contracts import Batch, UnreadableClip
from vatt.failed_step import computed_again, keep_step, load_batch, rank_folders, save_batch
from vatt.models.model_config import ModelConfig
from vatt.models.vatt import Vatt
from vatt.presets import tiny
from vatt.pretraining import objective
from vatt.tasks.pretrain import PretrainConfig
from vatt.training.loop import TrainConfig


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


def test_a_step_that_fails_again_on_fewer_ranks_holds_no_batch_of_others(tmp_path):
    where, batch, model = tmp_path / "step-000003", whole("uneven"), torch.nn.Linear(1, 1)
    for rank in (10, 0, 2):
        (where / f"rank-{rank}").mkdir(parents=True)
    assert [folder.name for folder in rank_folders(where)] == ["rank-0", "rank-2", "rank-10"]
    keep_step(where, batch, lambda _: None, model, lambda: {"loss": model(torch.ones(1)).sum()})
    assert [folder.name for folder in rank_folders(where)] == ["rank-0"]


@pytest.mark.parametrize("micro_batch", [None, 5])
def test_the_clip_that_a_step_failed_by_is_named_in_micro_batches_too(micro_batch):
    model = Vatt(from_values(ModelConfig, tiny()["model"], where="tiny")).train()
    train = TrainConfig(autocast="off", micro_batch=micro_batch)
    settings = PretrainConfig(out=Path("unused"), clip=CLIP, train=train)
    batch = whole("uneven")
    bad = int(batch.has_audio.nonzero()[-1])
    batch.gain[bad] = float("nan")
    found = computed_again(model, partial(objective, batch, model, settings), batch.keys)
    assert found.began is not None
    assert found.began.startswith("audio_tokens")
    assert found.clips == (str(bad),)
