"""No recorded array is left out: each is one that some test of this run looked at.

Runs last (conftest.py), and only after all tests that read recordings.
"""

from pathlib import Path

import numpy as np
import pytest

from tests.parity.recordings import FOLDER, READ

FILES = [path.relative_to(FOLDER).as_posix() for path in sorted(FOLDER.rglob("*.npz"))]
# Keras's approximations over 200 thresholds, of one small batch with mixed labels; the official
# evaluation's exact ones are in misc.
APPROXIMATE = ("step/mAP", "step/AUC")
TESTS = Path(__file__).parents[1]
READERS = [path for path in sorted(TESTS.rglob("test_*.py")) if "tests.parity." in path.read_text()]
EXEMPT = ("slow", "gpu", "network")  # left out by default


def why_incomplete(session: pytest.Session, deselected: list[pytest.Item]) -> str | None:
    """Why READ cannot hold all arrays: some test that reads recordings was not selected."""
    named = [argument for argument in session.config.args if "::" in argument]
    if named:
        return f"only some tests were asked for ({named[0]})"
    collected = {item.path for item in [*session.items, *deselected]}
    if absent := [path for path in READERS if path not in collected]:
        return f"{absent[0].relative_to(TESTS.parent)} was not collected"
    for item in deselected:
        if item.path in READERS and not any(item.get_closest_marker(mark) for mark in EXEMPT):
            return f"{item.nodeid} was deselected"
    return None


def test_every_recorded_array_was_looked_at(request, deselected):
    if reason := why_incomplete(request.session, deselected):
        pytest.skip(f"needs all tests that read recordings: {reason}; run pytest without a choice")
    unread = []
    for name in FILES:
        with np.load(FOLDER / name) as file:
            answers = [key for key in file.files if not key.startswith("in/")]
        unread += [f"{name}: {key}" for key in answers if key not in READ.get(name, set())]
    assert [item for item in unread if not item.endswith(APPROXIMATE)] == []
