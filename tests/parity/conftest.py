"""Says at the end of a run which recordings of the official code it was compared with."""

from tests.parity.recordings import FOLDER, FULL, REDUCED


def pytest_terminal_summary(terminalreporter):
    if FOLDER == REDUCED:
        terminalreporter.write_line(
            f"parity: compared with the reduced recordings in {REDUCED} only; the full ones are "
            f"not at {FULL} (set VATT_PARITY_DIR)",
            yellow=True,
        )
    else:
        terminalreporter.write_line(f"parity: compared with the full recordings in {FULL}")
