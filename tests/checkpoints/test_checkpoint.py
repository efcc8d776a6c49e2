import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.training.toy import Toy, batches
from vatt.checkpoints import checkpoint
from vatt.checkpoints.checkpoint import TrainingState
from vatt.checkpoints.integrity import CHECKSUMS, write_checksums
from vatt.errors import CheckpointError


def trained(steps=3) -> Toy:
    toy = Toy(steps=10)
    for step, batch in enumerate(batches(0, steps)):
        torch.autograd.backward(toy.learner.objective(batch)["loss"])
        toy.optimiser.step(step)
    return toy


def save(toy: Toy, folder: Path, step: int = 3) -> Path:
    state = TrainingState(step=step, facts={"failed": ["a", "b"]})
    checkpoint.save(folder, state, toy.optimiser.state(), toy.learner.write_model)
    return folder / f"step-{step:06d}"


def test_saved_training_goes_on_as_if_it_had_not_stopped(tmp_path):
    toy = trained()
    path = save(toy, tmp_path)
    other = Toy(steps=10)
    other.load(path)
    state = checkpoint.resume(path.parent)
    other.optimiser.load_state(state.optimiser)
    assert (state.step, state.facts) == (3, {"failed": ["a", "b"]})
    for learner in (toy, other):
        torch.manual_seed(5)
        torch.autograd.backward(learner.learner.objective(next(batches(3, 4)))["loss"])
        learner.optimiser.step(3)
    assert torch.equal(toy.weights(), other.weights())


def test_latest_is_the_highest_step_and_ignores_what_is_not_a_checkpoint(tmp_path):
    assert checkpoint.all_saved(tmp_path / "nothing") == []
    for name in ("step-000900", "step-1000000", ".step-2000000.part", "step-x", "notes"):
        (tmp_path / name).mkdir()
    assert checkpoint.all_saved(tmp_path)[-1] == tmp_path / "step-1000000"


def test_what_a_killed_writer_left_aside_does_not_disturb_the_next(tmp_path):
    left = tmp_path / ".step-000003.part"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    path = save(trained(), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]
    assert (path / "model.safetensors").stat().st_size > 100


def test_failing_writer_leaves_nothing_behind(tmp_path):
    def breaks(folder, /, *, weights=True):
        (folder / "model.safetensors").write_bytes(b"half")
        raise RuntimeError("stopped half way")

    state = TrainingState(step=1, facts={})
    with pytest.raises(RuntimeError, match="half way"):
        checkpoint.save(tmp_path, state, trained().optimiser.state(), breaks)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["state.json", "optimiser.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_damaged_checkpoint_is_named(tmp_path, name, damage):
    path = save(trained(), tmp_path)
    if damage == "missing":
        (path / name).unlink()
    else:
        (path / name).write_bytes((path / name).read_bytes()[:40])
    with pytest.raises(CheckpointError, match=r"step-000003: not a whole checkpoint"):
        checkpoint.resume(path.parent)


def test_newer_format_is_refused_with_both_versions(tmp_path):
    path = save(trained(), tmp_path)
    record = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(record | {"format_version": "2.0"}))
    with pytest.raises(CheckpointError, match=r"found format version 2\.0, expected 1\.1"):
        checkpoint.resume(path.parent)


def test_an_old_checkpoint_that_cannot_be_deleted_ends_no_training(tmp_path, monkeypatch, caplog):
    """E.g. on a network disk, while another process reads it."""
    for step in (1, 2, 3):
        save(trained(), tmp_path, step)
    busy, real = tmp_path / "step-000001", shutil.rmtree

    def delete(path, **how):
        if path == busy:
            raise OSError(39, "Directory not empty")
        real(path, **how)

    monkeypatch.setattr(shutil, "rmtree", delete)
    checkpoint.prune(tmp_path, 1)
    assert [path.name[-1] for path in checkpoint.all_saved(tmp_path)] == ["1", "3"]
    assert "step-000001: an old checkpoint that cannot be deleted" in caplog.text


def test_files_that_other_machines_wrote_have_checksums_before_they_are_listed(tmp_path):
    (tmp_path / "state.json").write_text("{}")
    write_checksums(tmp_path, {"rank-00001.safetensors": "0badcafe"})
    found = json.loads((tmp_path / CHECKSUMS).read_text())
    assert found.keys() == {"state.json", "rank-00001.safetensors"}
