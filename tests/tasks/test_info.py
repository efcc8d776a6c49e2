"""`vatt info`, as users run it."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import vatt
from vatt.cli.main import main
from vatt.costs.paper_tables import PaperRow
from vatt.errors import CheckpointError, ConfigError
from vatt.tasks.info import InfoConfig, InfoResult, PaperTables, run


def said(capsys, *args: str) -> dict:
    assert main(["info", *args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_run_is_described_as_it_was_trained(tiny, capsys):
    found = said(capsys, str(tiny.run))
    module = vatt.load(tiny.run).module
    assert found["parts"]["total"]["parameters"] == sum(p.numel() for p in module.parameters())
    assert found["folder"] == str(tiny.run / "model")
    assert found["vocabulary"] == str(tiny.run / "model" / "tokenizer.json")
    assert found["modalities"]["video"]["tokens"] == 2 * 3 * 4 + 1
    assert found["modalities"]["video"]["tokens_in_training"] == 2 * 3 * 4 / 2 + 1
    assert found["modalities"]["text"]["tokens"] == 8 + 1


def test_a_run_and_its_preset_say_the_same(tiny, capsys):
    of_run, of_preset = said(capsys, str(tiny.run)), said(capsys, "--preset", "tiny")
    for key in ("parts", "modalities", "memory"):
        assert of_run[key] == of_preset[key]
    assert of_preset["vocabulary"] is None


def test_a_missing_vocabulary_is_said(tiny, tmp_path, capsys):
    shutil.copytree(tiny.run / "model", tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").unlink()
    assert said(capsys, str(tmp_path / "model"))["vocabulary"].startswith("missing ")
    assert main(["info", str(tmp_path / "model")]) == 0
    assert "missing (no tokenizer.json" in " ".join(capsys.readouterr().out.split())


def test_the_weights_need_not_be_there(tiny, tmp_path):
    shutil.copytree(tiny.run / "model", tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    with_weights, without = (run(InfoConfig(run=folder)) for folder in (tiny.run, tmp_path))
    assert isinstance(with_weights, InfoResult)
    assert isinstance(without, InfoResult)
    assert with_weights.parts == without.parts


def test_the_parts_add_up_to_the_whole(capsys):
    found = said(capsys, "--preset", "demo-shared")
    parts = found["parts"]
    total = parts.pop("total")
    for key in total:
        assert sum(part[key] for part in parts.values()) == pytest.approx(total[key], rel=1e-12)
    heads = parts["heads"]
    by_modality = sum(m["gflops"] for m in found["modalities"].values()) + heads["gflops"]
    assert by_modality == pytest.approx(total["gflops"], rel=1e-12)
    assert total["gflops_in_training"] < total["gflops"]  # half of the tokens are dropped


@pytest.mark.slow
def test_the_papers_own_model_is_described_without_building_it(capsys):
    """Large: 445 million weights, 1.8 GB, of which none is made."""
    before = torch.random.get_rng_state()
    found = said(capsys, "--preset", "lbs")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert found["parts"]["video_backbone"]["parameters"] == 24 * (
        4 * (1024**2 + 1024) + 2 * 1024 * 4096 + 4096 + 1024 + 4 * 1024
    ) + 2 * 1024  # fmt: skip
    assert found["modalities"]["video"]["tokens"] == 8 * 14 * 14 + 1
    assert found["modalities"]["audio"]["tokens"] == 1200 + 1
    for modality in found["modalities"].values():  # torch's own count is of the products alone
        assert 0.95 * modality["gflops"] < modality["gflops_by_torch"] < modality["gflops"]
    memory = found["memory"]
    assert memory["total_gb"] == pytest.approx(
        16e-9 * found["parts"]["total"]["parameters"] + 8 * memory["activations_of_a_clip_gb"]
    )


def test_people_see_rounded_numbers_and_programs_exact_ones(capsys):
    assert main(["info", "--preset", "tiny", "--batch_size", "3"]) == 0
    shown = capsys.readouterr().out
    exact = said(capsys, "--preset", "tiny")["parts"]["total"]["parameters"]
    assert f"{exact:,}" in shown
    assert "batch size" in shown


def test_tables_of_the_paper_show_its_digits_and_the_difference():
    row = PaperRow(14, "32 × 320 × 320", "0%", paper=1252.3, ours=1250.0, ours_full=1500.04)
    (table,) = PaperTables(rows=[row]).shown().values()
    assert list(table[0].values())[2:] == ["1252.3", "1250.0", "1500.0", "-0.18%"]


@pytest.mark.slow
def test_tables_of_the_paper_are_rows_for_programs(capsys):
    rows = said(capsys, "--paper-tables")["rows"]
    assert len(rows) == 17
    assert all(
        list(row) == ["table", "row", "column", "paper", "ours", "ours_full"] for row in rows
    )


def test_what_contradicts_itself_is_refused(tiny):
    with pytest.raises(ConfigError, match="more than one of a folder"):
        InfoConfig(run=tiny.run, paper_tables=True)
    with pytest.raises(ConfigError, match="batch_size: found 0"):
        InfoConfig(batch_size=0)
    assert main(["info", str(tiny.run), "--preset", "tiny"]) == 2


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no model here"):
        run(InfoConfig(run=Path(tmp_path)))


def test_steps_in_micro_batches_are_counted(tiny):
    found = run(InfoConfig(run=tiny.run, batch_size=64, micro_batches=(8, 16, 64)))
    assert isinstance(found, InfoResult)
    small, larger, undivided = found.steps.values()
    assert larger["activations_gb"] == pytest.approx(2 * small["activations_gb"])
    for row, parts in ((small, 8), (larger, 4)):  # all but the last run forward twice
        assert row["pflop"] == pytest.approx(undivided["pflop"] * (1 + (parts - 1) / (3 * parts)))
    assert undivided["total_gb"] - undivided["loss_gb"] == pytest.approx(found.memory["total_gb"])
