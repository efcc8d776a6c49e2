"""The commands a user would type, one after the other, on a tiny set of real files."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
import wave

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from tests.e2e.tiny_clips import ACTIONS, GROUNDS, TONES, write_video
from vatt.cli.main import main
from vatt.ingest.sources import Item


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
    tuned = summary["finetune"]["video_action"]
    assert (tuned["classes"], tuned["n"]) == (8, tuned["n_expected"])
    assert "trained on labels" in (out / "report.html").read_text()
    assert summary["seconds"]["total"] == pytest.approx(took, rel=0.2)
    assert (out / "report.html").stat().st_size > 10_000
    started = time.monotonic()
    assert vatt_json(capsys, *args) == first
    assert time.monotonic() - started < 0.2 * took
    assert main([*args, "--seed", "1"]) == 2
    assert "seed = 0" in capsys.readouterr().err


@pytest.fixture(scope="module")
def sorted_files(tmp_path_factory):
    """Files sorted into classes, as people have them: odd ones among them, one class of one."""
    folder = tmp_path_factory.mktemp("sorted")
    for action in ACTIONS:
        (folder / action).mkdir()
        for number, ground in enumerate([*GROUNDS, *GROUNDS]):
            tone = list(TONES)[number % 2]
            write_video(folder / action / f"{action} {number}.mp4", [(action, tone, ground)])
    (folder / "alone").mkdir()
    write_video(folder / "alone" / "one.mp4", [("left", "low", "blue")])
    junk = b"\0\0\0\x18ftypmp42" + b"junk" * 200
    (folder / "left" / "broken.mp4").write_bytes(junk)
    # Beside this one the other would be for validation, and the class had nothing to learn from.
    first = Item(path=folder, name="alone/one.mp4", split="").digest
    others = (Item(path=folder, name=f"alone/{n}.mp4", split="") for n in range(99))
    (folder / next(one.name for one in others if one.digest > first)).write_bytes(junk)
    (folder / "left" / "notes.txt").write_text("not a video")
    shutil.copy(folder / "alone" / "one.mp4", folder / "left" / "same.mp4")
    without_audio(folder / "right" / "right 0.mp4", folder / "right" / "silent.mp4")
    return folder


def without_audio(source, path) -> None:
    with av.open(str(source)) as video, av.open(str(path), "w") as output:
        copy = output.add_stream_from_template(video.streams.video[0])
        for packet in video.demux(video.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copy
                output.mux(packet)


def test_a_sorted_folder_becomes_a_classifier_that_is_judged_and_used(
    tiny, sorted_files, tmp_path, capsys, caplog
):
    run = str(tmp_path / "classes")
    args = [str(sorted_files), "--preset", "finetune-small-video", "--start-from", str(tiny.run)]
    args += ["--train.steps", "8", "--train.threads", "1", "--eval-every", "4", "--out", run]
    args += ["--optim.warmup-steps", "2", "--data.batch-size", "8", "--source.workers", "1"]
    made = vatt_json(capsys, "finetune", *args)
    assert (made["classes"], made["steps"], made["failed_clips"]) == (3, 8, 0)
    assert made["skipped_files"] == {"unreadable": 2, "duplicate": 1}
    assert "1 files have the bytes of a file of another class" in caplog.text
    assert "first: left/same.mp4 is alone/one.mp4" in caplog.text
    table = pq.read_table(tmp_path / "classes" / "shards" / "index.parquet")
    splits = dict(zip(table["source"].to_pylist(), table["split"].to_pylist(), strict=True))
    assert splits["alone/one.mp4"] == "train"
    assert "classes without a file in val: ['alone']" in caplog.text
    assert "(2 unreadable, 1 duplicate; first: " in caplog.text
    assert "the best of the validations: top1" in made["model"]
    again = vatt_json(capsys, "finetune", *args)
    assert (again["steps"], again["loss"]) == (8, None)
    judged = vatt_json(capsys, "evaluate", run)
    assert judged["split"] == "test"
    assert judged["n_evaluated"] == judged["n_expected"] >= 2
    assert set(judged["measures"]["per_class"]) <= {"alone", "left", "right"}
    out = tmp_path / "found.csv"
    used = vatt_json(capsys, "predict", str(sorted_files), "--model", run, "--out", str(out))
    assert (used["predicted"], len(used["failed"])) == (15, 2)
    with out.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["rank"] == "1"]
    assert {row["class"] for row in rows} <= {"alone", "left", "right"}


@pytest.mark.parametrize("kind", ["audio", "image"])
def test_audio_files_and_images_become_classifiers(tiny, tmp_path, capsys, kind):
    for name, level in (("low", 40), ("high", 200)):
        (tmp_path / "files" / name).mkdir(parents=True)
        for number in range(4):
            write = write_tone if kind == "audio" else write_image
            write(tmp_path / "files" / name / str(number), level + number)
    if kind == "audio":
        film = next(tiny.clips.glob("train/*.mp4"))
        without_audio(film, tmp_path / "files" / "low" / "silent.mp4")
    run = str(tmp_path / "run")
    args = [str(tmp_path / "files"), "--preset", f"finetune-small-{kind}", "--out", run]
    args += ["--train.steps", "4", "--train.threads", "1", "--eval-every", "4"]
    args += ["--optim.warmup-steps", "2", "--data.batch-size", "4", "--source.workers", "1"]
    made = vatt_json(capsys, "finetune", *args, "--start-from", str(tiny.run))
    assert (made["classes"], made["skipped_files"]) == (
        2,
        {"no audio": 1} if kind == "audio" else {},
    )
    judged = vatt_json(capsys, "evaluate", run)
    assert judged["n_evaluated"] == 2
    assert judged["views"].startswith("1 clips x 3 crops" if kind == "image" else "4 clips x 1")
    used = vatt_json(capsys, "predict", str(tmp_path / "files"), "--model", run, "--topk", "1")
    assert (used["predicted"], len(used["failed"])) == (8, int(kind == "audio"))


def write_tone(path, hz: int) -> None:
    with wave.open(f"{path}.wav", "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        times = np.arange(16_000) / 16_000
        file.writeframes((8000 * np.sin(2 * np.pi * 10 * hz * times)).astype(np.int16).tobytes())


def write_image(path, level: int) -> None:
    frame = av.VideoFrame.from_ndarray(np.full((40, 64, 3), level, np.uint8), format="rgb24")
    with av.open(f"{path}.png", "w", format="image2", options={"update": "1"}) as file:
        stream = file.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 40, "rgb24"
        file.mux([*stream.encode(frame), *stream.encode()])
