"""What the stages hand to each other: dtype, shape, range and unit of every field.

PyTorch is imported where it is used: what makes and checks shards starts without it.

Letters (docs/architecture.md): B clips on this rank, G on all ranks, K texts per clip, L words per
text, T H W C frames, S samples, E a common space.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vatt.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

AudioKind = Literal["waveform", "spectrogram"]
Labels = Mapping[str, tuple[str, ...]]  # column → what the labels of a clip say there, each once


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSpec:
    """What one clip holds and how it is sampled (§4.3 Inputs); stored with every trained model."""

    frames: int = 32
    fps: float = 10.0
    height: int = 224
    width: int = 224
    sample_rate_hz: int = 48_000
    texts: int = 5  # K: the captions nearest in time
    words: int = 16  # L: longer texts are cut, shorter ones padded
    short_audio: Literal["repeat", "silence"] = "repeat"
    """What follows audio that is shorter than a clip; frames repeat in both cases."""

    def __post_init__(self) -> None:
        for name in ("frames", "fps", "height", "width", "sample_rate_hz", "texts", "words"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"clip.{name}: found {getattr(self, name)}, expected > 0")

    @property
    def duration_s(self) -> float:
        """Seconds that the frames cover, and so the waveform."""
        return self.frames / self.fps

    @property
    def samples(self) -> int:
        """S, samples of the waveform: as long as the frames last (153,600 at the paper's sizes)."""
        return round(self.duration_s * self.sample_rate_hz)

    def of_audio(self) -> ClipSpec:
        """The same for what looks at no frames: as long, with one of them."""
        return replace(self, frames=1, fps=1.0 / self.duration_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class FramePath:
    """How frames get from a file to the model, and in which numbers it computes.

    Stored with every trained model, so that evaluation and `vatt.load` do what its training did.
    The first four are settings of training: `data.decode`, `data.decode_size`, `data.frame_step`
    and `augment.antialias`.
    """

    decode: Literal["planes", "rgb"] = "planes"
    decode_size: tuple[int, int] = (256, 320)
    frame_step: Literal["time", "stride"] = "time"
    antialias: bool = True
    autocast: Literal["auto", "bfloat16", "off"] = "auto"
    short_side: int | None = None  # at which the shards of training were stored, if that is known
    fps: float | None = None  # the same for their rate; None: the videos' own
    copy: bool = False  # whether files that were in the stored form were kept as they are


@dataclass(frozen=True, slots=True)
class Crop:
    """A box of a frame, in fractions of the frame's height and width."""

    top: float = 0.0
    left: float = 0.0
    height: float = 1.0
    width: float = 1.0


@dataclass(frozen=True, slots=True)
class Augmentation:
    """The random choices for one clip; drawn with the clip, applied on the device (§4.3).

    Brightness is added, saturation and contrast multiply, hue turns by that share of the colour
    circle, all on [0, 1] values; gain multiplies the waveform. The defaults change nothing.
    """

    crop: Crop = Crop()
    flip: bool = False
    brightness: float = 0.0
    saturation: float = 1.0
    contrast: float = 1.0
    hue: float = 0.0
    gain: float = 1.0


class PlaneLayout(NamedTuple):
    """How the bytes of a clip's planes lie and become colours: 4:2:0, 8 bits.

    The luma [T, height, width] comes first, then the chroma [T, 2, ⌈height/2⌉, ⌈width/2⌉], blue
    before red difference. bt709: whether the matrix is that of BT.709, else of BT.601.
    full_range: whether black is 0 and white 255, else 16 and 235.
    """

    height: int
    width: int
    bt709: bool
    full_range: bool


@dataclass(frozen=True, slots=True)
class Clip:
    """Frames, waveform and K texts of one span of time of one video, as decoded.

    frames: uint8; with a `layout` the bytes of planes, of the part that the crop needs; else RGB
        [T, H, W, 3], of its own aspect. The crop is of the frames as they are here.
    waveform: int16 [S], mono; zeros where `has_audio` is False.
    word_ids: int64 [K, L], 0 is padding; a row with `text_mask` False is all 0.
    draw: 63 random bits for this clip at this step; whatever the model draws comes from them.
    video: 63 bits that name the video among those of all shard folders.
    labels: of the stored labels that hold in the middle of the clip.
    """

    key: str
    start_s: float
    frames: NDArray[np.uint8]
    waveform: NDArray[np.int16]
    has_audio: bool
    word_ids: NDArray[np.int64]
    text_mask: NDArray[np.bool_]
    augmentation: Augmentation
    draw: int
    video: int = 0
    layout: PlaneLayout | None = None
    labels: Labels = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UnreadableClip:
    """A clip that could not be read.

    key: names the shard folder and the video.
    reason: a sentence that says why; a checkpoint calls it `cause`.
    step: of training; in evaluation the clip's position in the list.
    """

    key: str
    reason: str
    step: int


@dataclass(frozen=True, slots=True)
class Batch:
    """B clips as the loader delivers them.

    frames: uint8, RGB [B, T, H, W, 3], zeros right of and below the smaller ones; or all bytes of
        the clips' planes, one clip after the other;
    layout: int64 [B, 5]: a clip's first byte there, then its `PlaneLayout`;
        of RGB height and width alone, where they are not those of `frames`;
    waveform: int16 [B, S]; has_audio: bool [B];
    word_ids: int64 [B, K, L]; text_mask: bool [B, K]; draw: int64 [B];
    crop: float32 [B, 4] top, left, height, width in fractions; flip: bool [B];
    colour: float32 [B, 4] brightness, saturation, contrast, hue; gain: float32 [B];
    videos: 63 bits that name each clip's video, equal for clips of one video;
    positions: of each clip, in the order of training (step × batch size + slot) or in the list that
        is evaluated;
    unreadable: clips that were to be in this batch; in training others took their places.
    """

    keys: tuple[str, ...]
    starts_s: tuple[float, ...]
    frames: Tensor
    layout: Tensor
    waveform: Tensor
    has_audio: Tensor
    word_ids: Tensor
    text_mask: Tensor
    draw: Tensor
    crop: Tensor
    flip: Tensor
    colour: Tensor
    gain: Tensor
    labels: tuple[Labels, ...] = ()
    videos: tuple[int, ...] = ()
    positions: tuple[int, ...] = ()
    unreadable: tuple[UnreadableClip, ...] = ()

    @classmethod
    def collate(
        cls,
        clips: Sequence[Clip],
        positions: Sequence[int] = (),
        unreadable: Sequence[UnreadableClip] = (),
    ) -> Batch:
        """Stack clips, all RGB or all planes; of no clips all tensors are empty."""
        import torch

        stack = np.stack if clips else np.array
        of_planes = bool(clips) and clips[0].layout is not None
        firsts = accumulate((len(clip.frames) for clip in clips), initial=0)
        changes = [clip.augmentation for clip in clips]
        return cls(
            keys=tuple(clip.key for clip in clips),
            starts_s=tuple(clip.start_s for clip in clips),
            frames=torch.from_numpy(
                (np.concatenate if of_planes else _side_by_side)([clip.frames for clip in clips])
            ),
            layout=torch.tensor(
                [
                    (first, *map(int, clip.layout))
                    if clip.layout
                    else (0, *clip.frames.shape[1:3], 0, 0)
                    for first, clip in zip(firsts, clips, strict=False)
                ]
            ),
            waveform=torch.from_numpy(stack([clip.waveform for clip in clips])),
            has_audio=torch.tensor([clip.has_audio for clip in clips]),
            word_ids=torch.from_numpy(stack([clip.word_ids for clip in clips])),
            text_mask=torch.from_numpy(stack([clip.text_mask for clip in clips])),
            draw=torch.tensor([clip.draw for clip in clips]),
            crop=torch.tensor([astuple(change.crop) for change in changes]),
            flip=torch.tensor([change.flip for change in changes]),
            colour=torch.tensor(
                [
                    (change.brightness, change.saturation, change.contrast, change.hue)
                    for change in changes
                ]
            ),
            gain=torch.tensor([change.gain for change in changes]),
            labels=tuple(clip.labels for clip in clips),
            videos=tuple(clip.video for clip in clips),
            positions=tuple(positions),
            unreadable=tuple(unreadable),
        )

    @classmethod
    def joined(cls, parts: Sequence[Batch]) -> Batch:
        """One batch of the clips of several, of which some may have none."""
        import torch

        values: dict[str, Any] = {}
        unreadable = tuple(chain(*(part.unreadable for part in parts)))
        parts = [part for part in parts if len(part)] or parts[:1]
        if len(parts) == 1:
            return replace(parts[0], unreadable=unreadable)
        for name in cls.__slots__:
            found = [getattr(part, name) for part in parts]
            tensors = isinstance(found[0], torch.Tensor)
            if name == "frames" and found[0].ndim == 5:
                height, width = (max(one.shape[axis] for one in found) for axis in (2, 3))
                rest = [(0, 0, 0, width - f.shape[3], 0, height - f.shape[2]) for f in found]
                pad = torch.nn.functional.pad
                found = [pad(one, room) for one, room in zip(found, rest, strict=True)]
            values[name] = torch.cat(found) if tensors else tuple(chain(*found))
        if values["frames"].ndim == 1:
            before = torch.tensor([0, *(len(part.frames) for part in parts[:-1])]).cumsum(0)
            clips = torch.tensor([len(part) for part in parts])
            values["layout"][:, 0] += before.repeat_interleave(clips)
        return cls(**values | {"unreadable": unreadable})

    def to(self, device: torch.device) -> Batch:
        """Same batch on `device`; copies are asynchronous from pinned memory.

        What decides which work is done (layout, crop, flip, colour, text_mask) stays on the host,
        where asking for a value does not wait for the device; `data.augment.apply` copies it.
        """
        there = self._each_tensor(lambda tensor: tensor.to(device, non_blocking=True))
        on_host = ("layout", "crop", "flip", "colour", "text_mask")
        return replace(there, **{name: getattr(self, name) for name in on_host})

    def pin_memory(self) -> Batch:
        """Same batch in pinned memory; torch's loader calls this in a thread of its own."""
        return self._each_tensor(lambda tensor: tensor.pin_memory())

    def _each_tensor(self, change: Callable[[Tensor], Tensor]) -> Batch:
        import torch

        values = {name: getattr(self, name) for name in self.__slots__}
        tensors: dict[str, Any] = {
            name: change(value) for name, value in values.items() if isinstance(value, torch.Tensor)
        }
        return replace(self, **tensors)

    def __len__(self) -> int:
        return len(self.keys)


def _side_by_side(frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """RGB frames of clips as one array, as large as the largest, zeros beside the smaller ones."""
    if len({one.shape for one in frames}) <= 1:
        return np.stack(frames) if frames else np.array([], np.uint8)
    height, width = (max(one.shape[axis] for one in frames) for axis in (1, 2))
    whole = np.zeros((len(frames), len(frames[0]), height, width, 3), np.uint8)
    for row, one in zip(whole, frames, strict=True):
        row[:, : one.shape[1], : one.shape[2]] = one
    return whole


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the model takes.

    frames: float [B, T, H, W, 3] in [-1, 1].
    audio: float [B, S] in [-1, 1] (waveform) or [B, F, M] (spectrogram: F frames of M bands).
    has_audio: bool [B]; word_ids: int64 [B, K, L]; text_mask: bool [B, K].
    draw: int64 [B], the source of DropToken's choice; None draws nothing (evaluation).
    text_rows: int64 [R], the rows of the B × K texts that are looked at; None: all.
    """

    frames: Tensor
    audio: Tensor
    has_audio: Tensor
    word_ids: Tensor
    text_mask: Tensor
    draw: Tensor | None = None
    text_rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Both common spaces (eq. 3), rows not yet normalised.

    video_va, audio_va: [B, E_va]; video_vt: [B, E_vt]; text_vt: [B, K, E_vt];
    has_audio: bool [B]; text_mask: bool [B, K]: masked rows hold nothing and count nowhere.
    log_scales, biases: [2], of va and of vt, for scores exp(log_scale) × cosine + bias; None where
        they are not learned.
    """

    video_va: Tensor
    audio_va: Tensor
    video_vt: Tensor
    text_vt: Tensor
    has_audio: Tensor
    text_mask: Tensor
    log_scales: Tensor | None = None
    biases: Tensor | None = None


def draw_bits(*numbers: int) -> int:
    """63 random bits that are a function of `numbers` alone, the same on every machine."""
    return name_bits(",".join(str(number) for number in numbers))


def name_bits(name: str) -> int:
    """63 bits that stand for a name, the same on every machine."""
    content = name.encode("utf-8", "surrogateescape")  # a path may hold bytes that are no UTF-8
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") >> 1
