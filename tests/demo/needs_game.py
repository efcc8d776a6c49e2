"""Skips tests that play, where the game or its sound library is not installed."""

import ctypes.util
import importlib.util

import pytest

needs_game = pytest.mark.skipif(
    importlib.util.find_spec("vizdoom") is None or ctypes.util.find_library("openal") is None,
    reason='needs pip install "vatt[demo]" and the OpenAL library (Debian: libopenal1)',
)
