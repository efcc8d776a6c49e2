import importlib
import json
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from vatt import run_log
from vatt.errors import CheckpointError, MissingExtraError, TrainingError
from vatt.report.training_curve import read_metrics
from vatt.run_log import RunLog, duration, wandb_module


def test_records_reach_the_file_and_tensorboard(tmp_path):
    with RunLog(tmp_path, start_step=0, steps=4) as log:
        log.write(2, {"loss": 0.5, "learning_rate": 1e-4}, steps_per_s=1.0)
        log.write(4, {"loss": 0.25, "learning_rate": 5e-5}, steps_per_s=1.0)
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"step": 2, "loss": 0.5, "learning_rate": 1e-4},
        {"step": 4, "loss": 0.25, "learning_rate": 5e-5},
    ]
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    assert [(e.step, e.value) for e in board.Scalars("loss")] == [(2, 0.5), (4, 0.25)]


def test_a_full_disk_is_told_with_the_file_and_what_to_do(tmp_path):
    with (
        Path("/dev/full").open("wb", buffering=0) as full,
        pytest.raises(TrainingError, match=r"metrics\.jsonl: .* No space left .* same command"),
        RunLog(tmp_path, start_step=0, steps=4) as log,
        mock.patch.object(log, "_file", full),
    ):
        log.write(2, {"loss": 0.5}, steps_per_s=1.0)


def test_line_tells_progress_time_left_and_values(tmp_path, caplog):
    with caplog.at_level("INFO", logger="vatt"), RunLog(tmp_path, start_step=0, steps=10) as log:
        log.write(4, {"loss": 0.5, "waiting_share": 0.125}, steps_per_s=0.1)
    assert caplog.messages == ["step 4 of 10, 0:01:00 left  loss 0.5  waiting 12%"]


def test_continued_run_drops_records_past_its_checkpoint_and_a_cut_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    records = [{"step": step, "loss": 1 / step} for step in (2, 4, 6)]
    text = "".join(json.dumps(record) + "\n" for record in records)
    path.write_text(text + '{"step": 8, "lo')
    RunLog(tmp_path, start_step=4, steps=6).__exit__(None, None, None)
    assert read_metrics(path) == records[:2]
    with RunLog(tmp_path, start_step=4, steps=6) as log:
        log.write(6, {"loss": 0.125}, steps_per_s=1.0)
    assert read_metrics(path) == [*records[:2], {"step": 6, "loss": 0.125}]


@pytest.mark.parametrize("start", [0, 2])
def test_a_step_is_once_on_tensorboard_wherever_a_run_was_killed(tmp_path, start):
    for first, loss in ((0, 0.5), (start, 0.25)):
        with RunLog(tmp_path, start_step=first, steps=6) as log:
            for step in range(first + 1, 5):
                log.write(step, {"loss": loss}, steps_per_s=1.0)
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    expected = [(step, 0.5 if step <= start else 0.25) for step in range(1, 5)]
    assert [(e.step, e.value) for e in board.Scalars("loss")] == expected


def test_a_step_logged_twice_counts_as_it_was_logged_last(tmp_path):
    lines = [{"step": 1, "loss": 5.0}, {"step": 2, "loss": 4.0}, {"step": 1, "loss": 3.0}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert [entry["loss"] for entry in read_metrics(tmp_path / "metrics.jsonl")] == [3.0, 4.0]


@pytest.mark.parametrize("damaged", ['{"st', '{"loss": 1.0}', "7", ""])
def test_a_damaged_log_is_named_with_its_line_but_for_a_last_line_cut_off(tmp_path, damaged):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n' + damaged + "\n" + '{"step": 3}\n')
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: line 2 is no entry"):
        read_metrics(path)
    path.write_text('{"step": 1}\n' + damaged)
    assert read_metrics(path) == [{"step": 1}]


def test_other_ranks_write_nothing(tmp_path):
    with RunLog(tmp_path / "run", start_step=0, steps=2, active=False) as log:
        log.advance(1)
        log.write(1, {"loss": 1.0}, steps_per_s=1.0)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00:00"), (61, "0:01:01"), (3661, "1:01:01")]
)
def test_durations_read_as_hours_minutes_seconds(seconds, text):
    assert duration(seconds) == text


def offline_entries(path: Path) -> list[dict[str, float]]:
    """The entries in W&B's own file: a log in LevelDB's format, shorter here than one block."""
    records: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")

    content, at, found = path.read_bytes(), 7, []
    assert content[:4] == b":W&B"
    assert len(content) < 2**15
    while at < len(content):
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        assert kind == 1  # whole
        record = records.Record()
        record.ParseFromString(content[at + 7 : at + 7 + length])
        at += 7 + length
        if record.HasField("history"):
            items = record.history.item
            found.append({item.nested_key[0]: json.loads(item.value_json) for item in items})
    return found


@pytest.mark.slow  # W&B starts a process of its own
@pytest.mark.filterwarnings("ignore")
def test_wandb_offline_has_the_same_numbers_and_speaks_to_nobody(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        here = f"http://127.0.0.1:{server.getsockname()[1]}"
        for name in ("WANDB_BASE_URL", "HTTPS_PROXY", "HTTP_PROXY"):
            monkeypatch.setenv(name, here)
        for start in (0, 2):  # from a checkpoint before the end of its log: the same run in W&B
            with RunLog(tmp_path, start_step=start, steps=6, wandb="offline") as log:
                for step in range(start + 1, start + 4):
                    log.write(step, {"loss": 1 / step, "eval_audio_R@1": 7.5}, steps_per_s=1.0)
        with pytest.raises(BlockingIOError):
            server.accept()
    deadline = time.monotonic() + 30
    while True:  # W&B's own process writes on after the run has ended here
        (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
        found = offline_entries(file)
        if len(found) >= 5 or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    own = ("_step", "_runtime", "_timestamp")
    found = [{k: v for k, v in entry.items() if k not in own} for entry in found]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert found == [json.loads(line) for line in lines]


def test_wandb_online_is_told_each_step_once_also_after_a_kill(tmp_path, monkeypatch):
    run: Any = mock.MagicMock(dir=str(tmp_path / "wandb" / "run-1" / "files"))
    monkeypatch.setattr(run_log, "_wandb_run", lambda *_: run)
    for start, known in ((0, None), (2, 4)):  # killed after entry 4, saved after step 2
        run.summary = {} if known is None else {"step": known}
        with RunLog(tmp_path, start_step=start, steps=6, wandb="online") as log:
            for step in range(start + 1, start + 5):
                log.write(step, {"loss": 1 / step}, steps_per_s=1.0)
    assert [call.args[0]["step"] for call in run.log.call_args_list] == [1, 2, 3, 4, 5, 6]


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"vatt\[wandb\]"):
        wandb_module()
