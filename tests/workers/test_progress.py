import logging
import time

import pytest

from vatt.workers import progress
from vatt.workers.progress import followed


@pytest.mark.parametrize("shown", [True, False])
def test_items_that_take_long_leave_lines_in_the_log(monkeypatch, caplog, shown):
    clock = iter(range(0, 1000, 25))  # seconds
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO):
        assert list(followed("abcdef", "letters", shown=shown)) == list("abcdef")
    assert caplog.messages == ["letters: 3 of 6", "letters: 6 of 6"] * shown


def test_in_a_log_a_bar_is_a_line_each_minute(monkeypatch, caplog):
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    caplog.set_level("INFO")
    with progress.ProgressBar("embedding", 10) as bar:
        bar.update(1, "0.10 h of video")
        bar.update(4)
    with progress.ProgressBar("quietly", 10, shown=False) as bar:
        bar.update(4)
    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith("embedding: 1 of 10, 0.10 h of video")
    assert "4 of 10, 0.10 h of video, about 0:00:0" in caplog.messages[1]
