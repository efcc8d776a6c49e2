"""Log-mel spectrogram of a waveform, the alternative audio input (§4.5.1; official code)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from vatt.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectrogramConfig:
    """What a spectrogram looks like and how it is cut into patches."""

    window_s: float = 0.04267
    """Length of one transform; §4.5.1 says 42 ms, the official code 2,048 samples at 48 kHz."""
    step_s: float = 0.02134
    bands: int = 80
    lowest_hz: float = 80.0
    highest_hz: float = 7600.0
    patch: tuple[int, int] = (16, 5)
    """Frames × bands."""
    buckets: tuple[int, int] = (10, 16)
    """Rows of the position tables of time and frequency (§3.1); others are resampled."""

    def __post_init__(self) -> None:
        for name in ("window_s", "step_s", "bands"):
            if (found := getattr(self, name)) <= 0:
                raise ConfigError(f"model.audio.spectrogram.{name}: found {found}, expected > 0")
        if not 0 <= self.lowest_hz < self.highest_hz:
            raise ConfigError(
                f"model.audio.spectrogram.lowest_hz: found {self.lowest_hz}, expected between 0 "
                f"and highest_hz ({self.highest_hz})"
            )


def log_mel(waveform: Tensor, sample_rate_hz: int, config: SpectrogramConfig) -> Tensor:
    """Log-mel spectrogram, each clip scaled to [0, 1].

    Args:
        waveform: [B, S] in [-1, 1].
        sample_rate_hz: of the waveform.
        config: window, step and bands.

    Returns:
        float32 [B, F, M], F = ⌈S / step⌉ frames of M bands.
    """
    length, step = int(sample_rate_hz * config.window_s), int(sample_rate_hz * config.step_s)
    size = 1 << (length - 1).bit_length()
    with torch.autocast(waveform.device.type, enabled=False):
        waveform = waveform.float()
        num_frames = math.ceil(waveform.shape[1] / step)
        missing = (num_frames - 1) * step + length - waveform.shape[1]
        frames = F.pad(waveform, (0, max(0, missing))).unfold(1, length, step)[:, :num_frames]
        window = torch.hann_window(length, periodic=True, device=waveform.device)
        magnitude = torch.fft.rfft(frames * window, n=size).abs()
        matrix = mel_matrix(
            size // 2 + 1,
            sample_rate_hz,
            config.bands,
            config.lowest_hz,
            config.highest_hz,
            magnitude.device,
        )
        mel = torch.log1p(10_000.0 * (magnitude @ matrix))
        low, high = mel.amin((1, 2), keepdim=True), mel.amax((1, 2), keepdim=True)
        return (mel - low) / (high - low).clamp(min=1e-8)


@lru_cache(maxsize=8)  # also of the copy: copying at every step would make a GPU wait
@torch.inference_mode(False)  # cached: what an evaluation makes, training may use
def mel_matrix(
    num_bins: int,
    sample_rate_hz: int,
    bands: int,
    lowest_hz: float,
    highest_hz: float,
    device: torch.device | None = None,
) -> Tensor:
    """Triangles equally wide on the HTK mel scale, float32 [bins, bands]; the zero bin is empty."""

    def to_mel(hertz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hertz / 700.0)

    low, high = to_mel(torch.tensor([lowest_hz, highest_hz], dtype=torch.float64))
    edges = torch.linspace(low.item(), high.item(), bands + 2, dtype=torch.float64)
    bins = torch.linspace(0.0, sample_rate_hz / 2, num_bins, dtype=torch.float64)
    mel = to_mel(bins)[:, None]
    rising = (mel - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mel) / (edges[2:] - edges[1:-1])
    matrix = torch.minimum(rising, falling).clamp(min=0.0)
    matrix[0] = 0.0
    return matrix.float().to(device)
