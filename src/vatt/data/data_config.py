"""Where clips come from and how they are read: the `data` part of every task's settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vatt.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Where clips come from and how they are read."""

    shards: tuple[Path, ...] = ()  # folders made by `vatt prepare`
    weights: tuple[float, ...] = ()
    """Share of each folder among the clips; in proportion to their clips when empty."""
    split: str = "train"
    decode: Literal["planes", "rgb"] = "planes"
    """planes: luma and chroma go to the device at the stored size, which does the rest. rgb: frames
    are converted and scaled to `decode_size` where they are decoded."""
    decode_size: tuple[int, int] = (256, 320)
    """Height and width that frames decoded as RGB cover before the crop, at their own aspect."""
    frame_step: Literal["time", "stride"] = "time"
    """time: frames 1 / clip.fps apart. stride: every n-th stored frame, where n is the stored rate
    over clip.fps, rounded down, as the official code takes them; the audio starts with them."""
    short_clip: Literal["repeat", "skip"] = "repeat"
    """What to do where a video, or a part between cuts, is shorter than a clip."""
    positives: Literal["segment", "nearest"] = "segment"
    """Which captions are texts of a clip. segment: the nearest ones between the cuts around it; one
    that is on in the middle of the clip is nearest. nearest: those with the nearest middles,
    wherever the cuts are."""
    max_caption_gap_s: float | None = 10.0
    """Captions whose middle is further than this from the clip's are no texts of it."""
    few_captions: Literal["mask", "repeat"] = "mask"
    """What to do where there are fewer than clip.texts captions: mask the rest, or repeat them."""
    unknown_words: float = 0.02
    """Share of the vocabulary that is taken as unknown in each batch of training, other words each
    time: so the unknown word is learned as a word that could be any."""
    silent_below: float = 0.0
    """Clips whose peak, in [0, 1], is below this count as clips without audio."""
    batch_size: int = 2048  # clips of one step, over all ranks (§4.3)
    workers: int | None = None
    """Processes that read clips, per rank: 0 is the training process itself, none one per
    core of the machine, shared among its ranks."""
    cache: Literal["none", "memory", "disk"] = "none"
    """Decode every video once and keep frames and audio; for small data sets."""
    cache_dir: Path | None = None  # of cache = "disk"; `cache` inside each shard folder if not set
    max_bad_fraction: float = 0.05
    """Training stops when clips of more than this share of its videos cannot be read; an
    evaluation, when more than this share of its clips cannot."""

    def __post_init__(self) -> None:
        self._check("weights", len(self.weights) in (0, len(self.shards)), "one per shard folder")
        self._check("weights", all(weight > 0 for weight in self.weights), "> 0")
        self._check("decode_size", min(self.decode_size) > 0, "height and width > 0")
        self._check("batch_size", self.batch_size > 0, "> 0")
        self._check("workers", self.workers is None or self.workers >= 0, "0 or more, or none")
        self._check("unknown_words", 0.0 <= self.unknown_words < 1.0, "0 or more, below 1")
        self._check("silent_below", 0.0 <= self.silent_below <= 1.0, "0 to 1")
        self._check("max_bad_fraction", 0.0 <= self.max_bad_fraction <= 1.0, "0 to 1")
        gap_s = self.max_caption_gap_s
        self._check("max_caption_gap_s", gap_s is None or gap_s > 0, "> 0, or none")

    @property
    def rgb_size(self) -> tuple[int, int] | None:
        """Height and width of decoded frames; None for planes, which keep their stored size."""
        return self.decode_size if self.decode == "rgb" else None

    def _check(self, name: str, good: bool, expected: str) -> None:
        if not good:
            raise ConfigError(f"data.{name}: found {getattr(self, name)}, expected {expected}")
