"""What only a GPU does. Deselected by default: `pytest -m gpu` on a machine that has one."""

import pytest
import torch


@pytest.fixture
def cuda() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("torch.cuda is not available")
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture
def no_waiting(cuda):
    """Switches on, and off at the end, errors for whatever makes the host wait for the GPU."""
    try:
        yield lambda: torch.cuda.set_sync_debug_mode("error")
    finally:
        torch.cuda.set_sync_debug_mode("default")
