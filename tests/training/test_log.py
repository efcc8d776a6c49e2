import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from vatt.errors import CheckpointError
from vatt.report.training_curve import read_metrics
from vatt.training.log import RunLog, duration


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
