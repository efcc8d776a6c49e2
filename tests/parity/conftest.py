"""The last word of a run: which recordings it was compared with, and whether with all of them."""

import pytest

from tests.parity.recordings import FOLDER, FULL, REDUCED

LAST = "test_every_recorded_array_was_looked_at"
_deselected: list[pytest.Item] = []


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.name == LAST)  # stable: all others keep their order


def pytest_deselected(items):
    _deselected.extend(items)


@pytest.fixture
def deselected() -> list[pytest.Item]:
    """The tests that were collected but not chosen."""
    return _deselected


def pytest_terminal_summary(terminalreporter):
    if FOLDER == REDUCED:
        terminalreporter.write_line(
            f"parity: compared with the reduced recordings in {REDUCED} only; the full ones are "
            f"not at {FULL} (set VATT_PARITY_DIR)",
            yellow=True,
        )
    else:
        terminalreporter.write_line(f"parity: compared with the full recordings in {FULL}")
