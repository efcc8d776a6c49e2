"""Features of a split's clips: extracted once, kept in the run's results/, used by every task."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from vatt.config import config_hash
from vatt.contracts import Inputs, draw_bits
from vatt.data.augment import apply
from vatt.data.datasets import EvalDataset
from vatt.data.loader import make_eval_loader
from vatt.devices import autocast, seeded
from vatt.encoder import Encoder
from vatt.errors import DataError
from vatt.evaluation.clips import EvalClip, EvalClips, find_clips
from vatt.evaluation.results import ids_hash
from vatt.evaluation.trained_run import TrainedRun
from vatt.models.model_config import ModelConfig
from vatt.models.spectrogram import log_mel
from vatt.models.tokens import PatchTokens, WordTokens
from vatt.models.vatt import Vatt
from vatt.shards.read import ShardFolder
from vatt.storage import atomic_file

logger = logging.getLogger(__name__)

PRETRAINED, RANDOM_INIT, STILL_FRAME = "pretrained", "random_init", "still_frame"
CLIPS_AT_ONCE = 64
FORMAT_VERSION = "1.0"  # of feature files
_RANDOM_INIT_STREAM = 1  # untrained weights differ from the other draws of a seed


@dataclass(frozen=True, slots=True)
class SplitFeatures:
    """Vectors of all clips of a split, of three kinds of network.

    split: its name.
    clips: [N], those that could be decoded.
    vectors: "<network>/<name>" → float32 [N, …]; network is pretrained, random_init (the same one
        before training) or still_frame (the pretrained one, given the middle frame only); name is
        video_features, audio_features, video_va, audio_va or video_vt (still_frame: the first;
        pretrained: video_input and audio_input too).
    peaks: [N], loudest sample of each clip in [0, 1]; 0 without audio.
    unreadable: the clips that could not be decoded.
    """

    split: str
    clips: tuple[EvalClip, ...]
    vectors: Mapping[str, NDArray[Any]]
    peaks: NDArray[np.float32]
    unreadable: tuple[EvalClip, ...]

    def of(self, network: str, name: str) -> NDArray[np.float32]:
        """One kind of vector, [N, …]."""
        found: NDArray[np.float32] = self.vectors[f"{network}/{name}"]
        return found

    def labels(self, column: str) -> NDArray[np.str_]:
        """One label of each clip, [N]; "" where it is not known."""
        return np.array([clip.labels.get(column, "") for clip in self.clips], dtype=np.str_)

    @property
    def captions(self) -> list[str]:
        """The caption of each clip; "" where there is none."""
        return [clip.caption for clip in self.clips]


def split_features(
    run: TrainedRun, split: str, *, at_most: int | None = None, seed: int = 0
) -> SplitFeatures:
    """Features of the clips of a split: from the run's results folder, or extracted now.

    A file is used again only for the same weights, clips, decoding and seed.

    Args:
        run: the model and its shards.
        split: which videos.
        at_most: about how many clips (see `find_clips`); None for all.
        seed: of the choice of videos, and of the untrained network.

    Raises:
        DataError: the split has no clips, or too many cannot be decoded.
    """
    shards, spec = run.shards_of(split), run.encoder.spec
    found = find_clips(shards, split, spec, at_most=at_most, seed=seed)
    contents = shards.column("sha256")
    clips = (f"{contents[clip.row]} {clip.id}" for clip in found.clips)
    how = config_hash(spec), config_hash(run.encoder.frame_path)
    settings = (*how, str(run.data.rgb_size), str(run.data.frame_step), str(seed))
    identity = ids_hash([FORMAT_VERSION, run.model_hash, *settings, *clips])
    path = run.folder / "results" / f"features-{split}-{identity}.safetensors"
    arrays: dict[str, NDArray[Any]] | None = None
    if path.is_file():
        try:
            arrays = load_file(path)
        except (SafetensorError, OSError) as error:
            logger.warning("%s: damaged (%s); extracting the features again", path, error)
    if arrays is None:
        started = time.perf_counter()
        arrays = _extract(run, shards, found, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as aside:
            save_file(arrays, aside)
        seconds = time.perf_counter() - started
        logger.info("%s: %d clips in %.1f s", path.name, len(arrays["positions"]), seconds)
    read = set(arrays["positions"].tolist())
    return SplitFeatures(
        split=split,
        clips=tuple(clip for position, clip in enumerate(found.clips) if position in read),
        vectors=arrays,
        peaks=arrays["peaks"],
        unreadable=tuple(clip for position, clip in enumerate(found.clips) if position not in read),
    )


def _extract(
    run: TrainedRun, shards: ShardFolder, found: EvalClips, seed: int
) -> dict[str, NDArray[Any]]:
    """Run the networks over the clips, without augmentation.

    Returns:
        "positions" int64 [N] in `found.clips`, ascending; "peaks" float32 [N]; and the vectors of
        `SplitFeatures`.
    """
    module, spec, device = run.encoder.module, run.encoder.spec, run.encoder.device
    random_init = untrained(module.config, seed=seed).to(device)
    places = [(clip.row, clip.start_s) for clip in found.clips]
    loader = make_eval_loader(
        EvalDataset(shards, places, spec, run.data),
        batch_size=CLIPS_AT_ONCE,
        workers=run.data.workers,
        device=device,
    )
    parts: list[dict[str, Tensor]] = []
    for batch in loader:
        inputs = apply(batch, spec, antialias=run.encoder.frame_path.antialias)
        peaks = batch.waveform.float().abs().amax(1) / 2**15 * batch.has_audio
        part = {"positions": torch.tensor(batch.positions), "peaks": peaks}
        with torch.inference_mode(), autocast(run.encoder.frame_path.autocast, device):
            for network, model in ((PRETRAINED, module), (RANDOM_INIT, random_init)):
                video = model.video_features(inputs.frames)
                audio = model.audio_features(inputs.audio)
                video_va, video_vt = model.heads.video(video)
                audio_va = model.heads.audio(audio, inputs.has_audio)
                part |= {
                    f"{network}/video_features": video,
                    f"{network}/audio_features": audio,
                    f"{network}/video_va": video_va,
                    f"{network}/video_vt": video_vt,
                    f"{network}/audio_va": audio_va,
                }
            for name, rows in mean_tokens(module, inputs).items():
                part[f"{PRETRAINED}/{name}"] = rows
            part[f"{STILL_FRAME}/video_features"] = module.video_features(still(inputs.frames))
        parts.append(
            {key: (v.float() if v.is_floating_point() else v).cpu() for key, v in part.items()}
        )
    if not parts:
        raise DataError("evaluation: no clip could be decoded, expected at least one")
    joined = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
    order = np.argsort(joined["positions"])
    num_unreadable = len(found) - len(order)
    if num_unreadable > run.data.max_bad_fraction * len(found):
        raise DataError(
            f"{shards.folder}: {num_unreadable} of {len(found)} clips of split {found.split!r} "
            f"cannot be decoded, expected at most {run.data.max_bad_fraction:.0%}; run "
            "`vatt prepare` again"
        )
    return {name: rows[order] for name, rows in joined.items()}


def untrained(config: ModelConfig, *, seed: int) -> Vatt:
    """The same network before training, from a fresh seed."""
    with seeded(draw_bits(seed, _RANDOM_INIT_STREAM)):
        return Vatt(config).eval()


def still(frames: Tensor) -> Tensor:
    """The middle frame in place of all: the same frame T times, [B, T, H, W, 3], without motion."""
    middle = frames.shape[1] // 2
    return frames[:, middle : middle + 1].expand_as(frames)


def mean_tokens(module: Vatt, inputs: Inputs) -> dict[str, Tensor]:
    """Mean token of each clip [B, D] where it enters the backbone (§4.4.6, "input space")."""

    def mean(tokens: PatchTokens, signal: Tensor) -> Tensor:
        every: Tensor = tokens(signal, draw=None, rate=0.0, stream=0, scope="sample")
        return every[:, 1:].mean(1)

    config, audio = module.config.audio, inputs.audio
    if config.kind == "spectrogram":
        audio = log_mel(audio, config.sample_rate_hz, config.spectrogram)
    return {
        "video_input": mean(module.video_tokens, inputs.frames),
        "audio_input": mean(module.audio_tokens, audio[..., None]),
    }


@torch.inference_mode()
def mean_text_tokens(encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float32] | None:
    """Mean token of each text [N, D] where it enters the backbone; None if there is none."""
    text_tokens, tokenizer = encoder.module.text_tokens, encoder.tokenizer
    if tokenizer is None or not isinstance(text_tokens, WordTokens):
        return None
    ids = torch.from_numpy(tokenizer.encode(texts, encoder.spec.words))
    tokens, is_word = text_tokens(ids.to(encoder.device))
    words, kept = tokens[:, 1:], is_word[:, 1:, None]
    mean: Tensor = (words * kept).sum(1) / kept.sum(1).clamp(min=1)
    return mean.float().cpu().numpy()
