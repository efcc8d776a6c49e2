"""What the page of a run is drawn from: its training log, and pairs in its spaces."""

import json

import numpy as np
import pytest

from vatt.errors import CheckpointError
from vatt.report.figures import Points
from vatt.report.run_page import pair_similarities, read_metrics


def test_a_step_logged_twice_counts_as_it_was_logged_last(tmp_path):
    lines = [{"step": 1, "loss": 5.0}, {"step": 2, "loss": 4.0}, {"step": 1, "loss": 3.0}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert [line["loss"] for line in read_metrics(tmp_path)] == [3.0, 4.0]


def test_a_damaged_log_is_named_with_its_line(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st')
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: line 2"):
        read_metrics(tmp_path)


def test_pairs_are_compared_in_the_width_of_the_wider_group():
    first = np.eye(3, 5, dtype=np.float32)
    found = pair_similarities(Points("x", {"video": first, "text": first[:, :3]}))
    np.testing.assert_allclose(found.positive, np.ones(3))
    np.testing.assert_allclose(found.negative, np.zeros(6))
