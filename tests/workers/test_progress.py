import logging
import time

import pytest

from vatt.workers.progress import followed


@pytest.mark.parametrize("shown", [True, False])
def test_items_that_take_long_leave_lines_in_the_log(monkeypatch, caplog, shown):
    clock = iter(range(0, 1000, 25))  # seconds
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO):
        assert list(followed("abcdef", "letters", shown=shown)) == list("abcdef")
    assert caplog.messages == ["letters: 3 of 6", "letters: 6 of 6"] * shown
