"""Video classifiers of Hugging Face of the same depth, width and tokens as ours, random weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vatt.contracts import ClipSpec
from vatt.errors import ConfigError, MissingExtraError
from vatt.models.classifier import Classifier, ClassifierConfig
from vatt.models.model_config import ModelConfig, VideoConfig

Peer = Literal["vivit", "videomae"]
Computing = Callable[[], AbstractContextManager[object]]  # such as autocast
CLASSES = 400


def ours(video: VideoConfig, device: torch.device, *, drop_token: float = 0.0) -> Classifier:
    """Our classifier in training mode, without dropout."""
    video = replace(video, transformer=replace(video.transformer, dropout=0.0))
    sizes = ModelConfig(video=video, drop_token=drop_token)
    return Classifier(ClassifierConfig(classes=CLASSES, model=sizes)).train().to(device)


def theirs(peer: Peer, video: VideoConfig, clip: ClipSpec, device: torch.device) -> nn.Module:
    """A peer of the same sizes in training mode, without dropout, with its fused attention.

    Raises:
        MissingExtraError: transformers is not installed.
        ConfigError: its patches or frames cannot have these sizes.
    """
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtraError("transformers", "bench", f"--against {peer}") from error
    (t, h, w), backbone = video.patch, video.transformer
    if clip.height != clip.width or h != w:
        raise ConfigError(
            f"--against {peer}: found clips of {clip.height} × {clip.width} in patches of "
            f"{h} × {w}, expected squares, as with --clip.width {clip.height}"
            + (f" --model.video.patch {t} {h} {h}" if h != w else "")
        )
    sizes: dict[str, Any] = {
        "image_size": clip.height,
        "num_frames": clip.frames,
        "num_hidden_layers": backbone.layers,
        "hidden_size": backbone.width,
        "num_attention_heads": backbone.heads,
        "intermediate_size": backbone.mlp_width,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "num_labels": CLASSES,
    }
    config: Any
    kind: Any
    if peer == "vivit":
        config = transformers.VivitConfig(tubelet_size=[t, h, w], **sizes)
        kind = transformers.VivitForVideoClassification
    else:
        config = transformers.VideoMAEConfig(tubelet_size=t, patch_size=h, **sizes)
        kind = transformers.VideoMAEForVideoClassification
    config._attn_implementation = "sdpa"
    model: nn.Module = kind(config).train().to(device)
    return model


def noise(clip: ClipSpec, clips: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Frames as we take them, the same as they do, and a class of each clip."""
    frames = torch.rand(clips, clip.frames, clip.height, clip.width, 3, device=device) * 2 - 1
    labels = torch.randint(CLASSES, (clips,), device=device)
    return frames, frames.permute(0, 1, 4, 2, 3).contiguous(), labels


def forward(model: nn.Module, signal: Tensor, computing: Computing) -> Callable[[], None]:
    """A forward pass without gradients."""

    def run() -> None:
        with torch.inference_mode(), computing():
            model(signal)

    return run


def step(
    model: nn.Module, logits: Callable[[], Tensor], labels: Tensor, computing: Computing
) -> Callable[[], None]:
    """A training step with the same update of all weights for ours and theirs: fused AdamW."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def run() -> None:
        with computing():
            loss = nn.functional.cross_entropy(logits().float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()

    return run


def beside(
    peer: Peer,
    video: VideoConfig,
    clip: ClipSpec,
    clips: int,
    *,
    device: torch.device,
    computing: Computing,
) -> dict[str, Callable[[], None]]:
    """Forward passes and steps of ours and theirs on noise, by name, to be timed in turn."""
    frames, pixels, labels = noise(clip, clips, device)
    mine, other = ours(video, device), theirs(peer, video, clip, device)
    return {
        "our forward": forward(mine, frames, computing),
        "their forward": forward(other, pixels, computing),
        "our step": step(mine, lambda: mine(frames), labels, computing),
        "their step": step(other, lambda: other(pixels).logits, labels, computing),
    }
