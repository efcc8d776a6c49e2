"""The commands a user would type, one after the other, on a tiny set of real files."""

import csv
import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from vatt.cli.main import main


def vatt_json(capsys, *args: str) -> dict:
    """Run a command with --json and read what it printed."""
    capsys.readouterr()
    assert main([*args, "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1, "--json prints one line and nothing else"
    return json.loads(lines[0])


def test_a_prepared_folder_holds_every_video_with_its_captions_labels_and_splits(tiny, capsys):
    args = [
        str(tiny.clips),
        "--out",
        str(tiny.shards),
        "--manifest",
        str(tiny.clips / "labels.csv"),
    ]
    again = vatt_json(capsys, "prepare", *args, "--fps", "source", "--copy", "--workers", "1")
    assert again["videos"] == 11
    assert {name: split["videos"] for name, split in again["splits"].items()} == {
        "train": 6,
        "val": 2,
        "test": 3,
    }
    assert sum(split["captions"] for split in again["splits"].values()) == 33
    assert sum(split["labels"] for split in again["splits"].values()) == 33


@pytest.mark.slow
def test_an_interrupted_training_continues_to_the_same_weights(tiny, tmp_path):
    args = ["pretrain", "--preset", "tiny", "--data.shards", str(tiny.shards)]
    args += ["--data.workers", "0", "--train.threads", "1", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        [sys.executable, "-m", "vatt", *args], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "run/checkpoints/step-000004").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=60)
    assert process.returncode in (0, 130)  # 0: it was done before the signal came
    if process.returncode == 130:
        assert "the same command continues" in words
        assert "Traceback" not in words
    assert main(args) == 0
    assert_same_model(tmp_path / "run", tiny.run)


def assert_same_model(run, other) -> None:
    weights, expected = (
        load_file(folder / "model" / "model.safetensors") for folder in (run, other)
    )
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)


def test_a_run_repeats_from_its_own_settings_file(tiny, tmp_path):
    args = ["pretrain", "--config", str(tiny.run / "config.toml"), "--out", str(tmp_path / "again")]
    assert main(args) == 0
    assert_same_model(tmp_path / "again", tiny.run)


def test_a_finished_run_refuses_other_settings(tiny, capsys):
    args = ["pretrain", "--preset", "tiny", "--data.shards", str(tiny.shards)]
    assert main([*args, "--out", str(tiny.run), "--optim.learning_rate", "0.5"]) == 2
    error = capsys.readouterr().err
    assert "optim.learning_rate: found 0.5" in " ".join(error.split())


def test_evaluation_writes_results_and_a_report_that_stands_alone(tiny, capsys):
    run = str(tiny.run)
    prompts = str(tiny.clips / "prompts.json")
    zero_shot = vatt_json(capsys, "zero-shot", run, "--prompts", prompts)["measures"]
    assert zero_shot["text_to_video"]["n"] == len(set(captions(tiny)))
    assert zero_shot["audio_to_video"]["n"] == 9
    assert 0 <= zero_shot["action_from_text"]["pretrained"] <= 1
    args = ["--low_rank.steps", "20", "--few_labels", "2"]
    linear = vatt_json(capsys, "linear-eval", run, *args)["measures"]
    assert linear["sound_event"]["chance"] == 0.5
    assert linear["sound_event"]["pretrained"]["svm"] > 0.9  # a low and a high tone
    vatt_json(capsys, "report", run)
    page = (tiny.run / "report.html").read_text()
    assert page.count("<img") + page.count("<svg") > 0
    assert 'src="http' not in page
    assert 'href="http' not in page


def captions(tiny) -> list[str]:
    with (tiny.clips / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    return [row["caption"] for row in rows if row["kind"] == "label"]


@pytest.mark.slow
def test_the_demo_runs_from_nothing_to_a_table_and_continues_when_done(tmp_path, capsys):
    pytest.importorskip("vizdoom")
    out = tmp_path / "demo"
    args = ["demo", "--length", "quick", "--out", str(out), "--hours", "0.05", "--steps", "4"]
    started = time.monotonic()
    first = vatt_json(capsys, *args)
    took = time.monotonic() - started
    summary = json.loads((out / "result.json").read_text())
    assert {"text_to_video", "audio_to_video", "video_to_audio"} <= set(summary["zero_shot"])
    assert "video_action" in summary["linear_eval"]
    assert summary["seconds"]["total"] == pytest.approx(took, rel=0.2)
    assert (out / "report.html").stat().st_size > 10_000
    started = time.monotonic()
    assert vatt_json(capsys, *args) == first
    assert time.monotonic() - started < 0.2 * took
    assert main([*args, "--seed", "1"]) == 2
    assert "seed = 0" in capsys.readouterr().err
