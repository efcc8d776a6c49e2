"""Timed text: caption files beside a video, read and cleaned."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caption:
    """A text with its start and end, seconds on the video clock (once prepared)."""

    start_s: float
    end_s: float
    text: str
