"""Checkpoints of several files, written beside the training; the newest that is whole counts."""

import json
import os
import pickle
import threading
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import save_file

from tests.checkpoints.test_checkpoint import save as save_whole
from tests.checkpoints.test_checkpoint import trained
from tests.training.toy import Toy
from vatt.checkpoints import checkpoint, divided
from vatt.checkpoints.checkpoint import TrainingState
from vatt.checkpoints.integrity import write_checksums
from vatt.checkpoints.saver import Saver
from vatt.errors import CheckpointError
from vatt.tensor_files import PARTS, read_tensors


def save(saver: Saver, toy: Toy, step: int, **facts: object) -> None:
    state = TrainingState(step=step, facts=facts)
    tensors = toy.model.state_dict(), toy.optimiser.state()
    saver.save(state, *tensors, toy.learner.write_model)


def sharded(folder: Path) -> tuple[Path, Toy]:
    toy = trained()
    with Saver(folder, 3, "sharded") as saver:
        save(saver, toy, 3)
    return folder / "step-000003", toy


def test_what_is_written_is_the_state_when_it_was_saved(tmp_path):
    """Though training goes on meanwhile; and until all is written there is no checkpoint."""
    toy, may_write = trained(), threading.Event()
    before = toy.weights(), {name: t.clone() for name, t in toy.optimiser.state().items()}
    real = divided.write_divided

    def write_later(*args):
        assert may_write.wait(10)
        return real(*args)

    with (
        mock.patch.object(divided, "write_divided", write_later),
        Saver(tmp_path, 3, "sharded") as saver,
    ):
        save(saver, toy, 3)
        for tensor in [*toy.model.parameters(), *toy.optimiser.state().values()]:
            tensor.data.zero_()
        saver.check()
        assert checkpoint.all_saved(tmp_path) == []
        may_write.set()
    other = Toy(steps=10)
    other.load(tmp_path / "step-000003")
    assert torch.equal(other.weights(), before[0])
    state = checkpoint.resume(tmp_path)
    assert state.optimiser.keys() == before[1].keys()
    assert all(torch.equal(state.optimiser[name], value) for name, value in before[1].items())


def test_a_write_that_fails_in_the_background_is_told(tmp_path):
    toy = trained()
    full = OSError(28, "No space left on device")
    saver = Saver(tmp_path, 3, "sharded")
    with mock.patch.object(divided, "save_file", side_effect=full):
        save(saver, toy, 3)
        with pytest.raises(CheckpointError, match=r"step-000003: cannot be written.*No space"):
            saver.wait()
    assert list(tmp_path.iterdir()) == []


def test_newest_checkpoints_and_the_best_stay(tmp_path):
    toy = trained()
    with Saver(tmp_path, 2, "sharded") as saver:
        for step in range(1, 6):
            save(saver, toy, step, best={"step": 2})
    assert [path.name[-1] for path in checkpoint.all_saved(tmp_path)] == ["2", "4", "5"]


@pytest.mark.parametrize("form", ["whole", "sharded"])
@pytest.mark.parametrize("file", ["state.json", "tensors", "checksums.json"])
def test_a_damaged_newest_gives_way_to_the_one_before_and_it_is_said(tmp_path, caplog, form, file):
    toy = trained()
    with Saver(tmp_path, 3, form) as saver:
        for step in (1, 2):
            save(saver, toy, step)
    newest = tmp_path / "step-000002"
    tensors = {"whole": "optimiser.safetensors", "sharded": "rank-00000.safetensors"}[form]
    path = newest / (tensors if file == "tensors" else file)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1  # in the last number
    path.write_bytes(content)
    assert checkpoint.resume(tmp_path).step == 1
    assert "step-000002: not a whole checkpoint" in caplog.text
    assert "step-000001 is the newest now" in caplog.text
    assert (tmp_path / "step-000002.damaged").is_dir()
    with Saver(tmp_path, 1, form) as saver:  # what is damaged is not counted among those to keep
        save(saver, toy, 2)
    assert checkpoint.resume(tmp_path).step == 2


class Runs:
    """What runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_hostile_metadata_runs_nothing_and_reads_no_other_file(tmp_path):
    path, _ = sharded(tmp_path / "checkpoints")
    save_file({"x": torch.zeros(2)}, tmp_path / "secret.safetensors")
    good = json.loads((path / PARTS).read_text())
    name = "optimiser/0.weight/exp_avg"
    bomb = pickle.dumps(Runs(tmp_path / "ran"))
    (path / ".metadata").write_bytes(bomb)  # where torch's own reader looks for it
    assert read_tensors(path, "model")

    def changed(key: str, value: object) -> bytes:
        copy = json.loads(json.dumps(good))
        tensor = copy["tensors"][name]
        (tensor["blocks"][0] if key in tensor["blocks"][0] else tensor)[key] = value
        return json.dumps(copy).encode()

    hostile = [
        bomb,
        b"[]",
        b"[" * 100_000,
        json.dumps({"format_version": "1.0", "tensors": [1]}).encode(),
        json.dumps(good).encode()[:-30],
        changed("file", "../../secret.safetensors"),
        changed("file", str(tmp_path / "secret.safetensors")),
        changed("key", "another"),
        changed("offsets", [1, 0]),
        changed("offsets", [-1, 0]),
        changed("shape", [2**40, 2**20]),  # would take all memory
        changed("blocks", good["tensors"][name]["blocks"] * 2),
    ]
    for content in hostile:
        (path / PARTS).write_bytes(content)
        (path / "checksums.json").unlink(missing_ok=True)
        with pytest.raises(CheckpointError):
            checkpoint.read_state(path, of_this_run=True)
        write_checksums(path)  # as a stranger would, who changed it
        with pytest.raises(CheckpointError):
            checkpoint.read_state(path, of_this_run=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("before", ["checksums", "none"])
def test_older_checkpoints_without_checksums_are_read(tmp_path, before):
    path = save_whole(trained(), tmp_path)
    if before == "none":
        (path / "checksums.json").unlink()
        record = json.loads((path / "state.json").read_text()) | {"format_version": "1.0"}
        (path / "state.json").write_text(json.dumps(record))
    assert checkpoint.resume(tmp_path).step == 3
