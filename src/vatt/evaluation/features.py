"""Features of clips: extracted once by the parallel loader, kept in results/, used by every task.

`split_features` takes one clip of each label or caption; `window_features` several windows of each
example, as protocols ask (§4.3). Both go on where a killed process was.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vatt.any_encoder import PeerEncoder
from vatt.config import config_hash
from vatt.contracts import Batch, ClipSpec, Inputs, draw_bits
from vatt.data.augment import apply
from vatt.data.datasets import EvalDataset
from vatt.data.loader import Loader
from vatt.devices import autocast, seeded
from vatt.encoder import Encoder
from vatt.errors import DataError
from vatt.evaluation.clips import EvalClip, find_clips
from vatt.evaluation.examples import ExampleClips, JoinedClips, LabelledSpan
from vatt.evaluation.results import ids_hash
from vatt.evaluation.score_files import FeatureParts
from vatt.evaluation.trained_run import TrainedRun
from vatt.models.model_config import ModelConfig
from vatt.models.spectrogram import log_mel
from vatt.models.tokens import PatchTokens, WordTokens
from vatt.models.vatt import Vatt
from vatt.shards.read import ShardFolder
from vatt.workers.progress import ProgressBar

logger = logging.getLogger(__name__)

PRETRAINED, RANDOM_INIT, STILL_FRAME = "pretrained", "random_init", "still_frame"
CLIPS_AT_ONCE = 64
PART_S = 30.0  # a killed process loses at most so much of its work
FORMAT_VERSION = "1.0"  # of feature files
_RANDOM_INIT_STREAM = 1  # untrained weights differ from the other draws of a seed
_MODALITIES = ("video", "audio")
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class SplitFeatures:
    """Vectors of all clips of a split, of three kinds of network.

    split: its name.
    clips: [N], those that could be decoded.
    vectors: "<network>/<name>" → float32 [N, …]; network is pretrained, random_init (the same one
        before training) or still_frame (the pretrained one, given the middle frame only); name is
        video_features, audio_features, video_va, audio_va or video_vt (still_frame: the first;
        pretrained: video_input and audio_input too). Of a peer's encoder there is pretrained alone,
        without what it has not; its va and vt are unit rows, ours come as the heads give them.
    peaks: [N], loudest sample of each clip in [0, 1]; 0 without audio.
    unreadable: the clips that could not be decoded.
    """

    split: str
    clips: tuple[EvalClip, ...]
    vectors: Mapping[str, NDArray[Any]]
    peaks: NDArray[np.float32]
    unreadable: tuple[EvalClip, ...]

    def of(self, network: str, name: str) -> NDArray[np.float32]:
        """One kind of vector, [N, …].

        Raises:
            DataError: the encoder gives no such vectors.
        """
        return _of(self.vectors, f"{network}/{name}")

    def networks(self, name: str) -> tuple[str, ...]:
        """Those that have vectors of this name, the trained one first."""
        every = (PRETRAINED, RANDOM_INIT, STILL_FRAME)
        return tuple(one for one in every if f"{one}/{name}" in self.vectors) or every[:1]

    def labels(self, column: str) -> NDArray[np.str_]:
        """One label of each clip, [N]; "" where it is not known."""
        return np.array([clip.labels.get(column, "") for clip in self.clips], dtype=np.str_)

    @property
    def captions(self) -> list[str]:
        """The caption of each clip; "" where there is none."""
        return [clip.caption for clip in self.clips]


@dataclass(frozen=True, slots=True)
class WindowFeatures:
    """Vectors of several windows of each example, of the encoder that is evaluated.

    positions: int [N], ascending: which examples could be decoded, counted over all folders.
    vectors: name → float32 [N, V, …] of V windows; names as in `SplitFeatures`, which also says
        what is a unit row. An example without audio has zeros there.
    peaks: float32 [N], loudest sample of each example's windows in [0, 1]; 0 without audio.
    has_audio: bool [N].
    """

    positions: NDArray[np.int64]
    vectors: Mapping[str, NDArray[Any]]
    peaks: NDArray[np.float32]
    has_audio: NDArray[np.bool_]

    def of(self, name: str) -> NDArray[np.float32]:
        """One kind of vector, [N, V, …].

        Raises:
            DataError: the encoder gives no such vectors.
        """
        return _of(self.vectors, f"{PRETRAINED}/{name}")


def _of(vectors: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.float32]:
    if name not in vectors:
        raise DataError(f"the encoder gives no {name.partition('/')[2]}")
    found: NDArray[np.float32] = vectors[name]
    return found


def split_features(
    run: TrainedRun, split: str, *, at_most: int | None = None, seed: int = 0
) -> SplitFeatures:
    """Features of the clips of a split: from the run's results folder, or extracted now.

    A file is used again only for the same weights, clips, decoding and seed.

    Args:
        run: the encoder and its shards; all folders that have the split are taken.
        split: which videos.
        at_most: about how many clips (see `find_clips`); None for all.
        seed: of the choice of videos, and of the untrained network.

    Raises:
        DataError: the split has no clips, or too many cannot be decoded.
    """
    folders, spec = run.folders_of(split), run.opened.spec
    found = find_clips(folders, split, spec, at_most=at_most, seed=seed)
    contents = {name: shards.column("sha256") for name, shards in folders.items()}
    clips = (f"{contents[clip.folder][clip.row]} {clip.id}" for clip in found.clips)
    identity = ids_hash([FORMAT_VERSION, *_how(run, spec), str(seed), *clips])
    places = {
        name: [(clip.row, clip.start_s) for clip in found.clips if clip.folder == name]
        for name in folders
    }
    arrays = _kept(
        run,
        f"features-{split}-{identity}",
        lambda: [EvalDataset(folders[name], of, spec, run.data) for name, of in places.items()],
        CLIPS_AT_ONCE,
        lambda: _rows_of_clips(run, seed),
        where=f"{', '.join(str(one.folder) for one in folders.values())}: split {split!r}",
    )
    read = set(arrays["positions"].tolist())
    return SplitFeatures(
        split=split,
        clips=tuple(clip for position, clip in enumerate(found.clips) if position in read),
        vectors=arrays,
        peaks=arrays["peaks"],
        unreadable=tuple(clip for position, clip in enumerate(found.clips) if position not in read),
    )


def window_features(
    run: TrainedRun,
    found: Sequence[tuple[ShardFolder, Sequence[LabelledSpan]]],
    *,
    windows: int,
    modalities: Sequence[str] = _MODALITIES,
    spec: ClipSpec | None = None,
) -> WindowFeatures:
    """Features of windows spread evenly over each example (§4.3): kept, or extracted now.

    Each example is decoded once, in a centred box of the clip's aspect; one that is shorter than a
    clip repeats. A file is used again only for the same weights, windows and decoding; what a
    killed process had done is not done again.

    Args:
        run: the encoder.
        found: examples by shard folder.
        windows: of each, V; a single one lies in the middle.
        modalities: of "video" and "audio"; only these are computed.
        spec: of a clip; None: what the encoder was made for.

    Raises:
        DataError: too many examples cannot be decoded.
    """
    spec = spec or run.opened.spec
    spec = spec if "video" in modalities else spec.of_audio()
    data = replace(run.data, short_clip="repeat", cache="none")
    contents = [(shards.column("sha256"), examples) for shards, examples in found]
    spans = (f"{sha256[one.row]} {one.id} {one.end_s:.3f}" for sha256, of in contents for one in of)
    identity = ids_hash([FORMAT_VERSION, *_how(run, spec), *modalities, *spans])
    arrays = _kept(
        run,
        f"windows-{windows}-{identity}",
        lambda: [
            ExampleClips(shards, examples, spec, data, clips=windows, centred=True)
            for shards, examples in found
            if examples
        ],
        max(1, CLIPS_AT_ONCE // windows),
        lambda: partial(_rows_of_windows, run, spec, windows, tuple(modalities)),
        where=", ".join(str(shards.folder) for shards, _ in found),
    )
    return WindowFeatures(arrays["positions"], arrays, arrays["peaks"], arrays["has_audio"])


def _how(run: TrainedRun, spec: ClipSpec) -> tuple[str, ...]:
    """What decides features, next to the clips."""
    how = config_hash(spec), config_hash(run.opened.frame_path)
    return run.model_hash, *how, str(run.data.rgb_size), str(run.data.frame_step)


RowsOf = Callable[[Batch], dict[str, Tensor]]


def _kept(
    run: TrainedRun,
    name: str,
    sources: Callable[[], Sequence[ExampleClips] | Sequence[EvalDataset]],
    size: int,
    rows_of: Callable[[], RowsOf],
    *,
    where: str,
) -> Arrays:
    """What was extracted before under this name, or is now, of batches of so many clips.

    Raises:
        DataError: too many cannot be decoded.
    """
    parts = FeatureParts(run.folder / "results" / f"{name}.safetensors")
    arrays = parts.whole()
    if arrays is None:
        clips = JoinedClips(sources())
        arrays = _extract(run, parts, clips, size, rows_of())
        num_unreadable = len(clips) - len(arrays["positions"])
        if num_unreadable > run.data.max_bad_fraction * len(clips):
            parts.forget()
            raise DataError(
                f"{where}: {num_unreadable} of {len(clips)} clips cannot be decoded, expected at "
                f"most {run.data.max_bad_fraction:.0%}; run `vatt prepare` again"
            )
        parts.finish(arrays)
    return arrays


def _extract(
    run: TrainedRun, parts: FeatureParts, clips: JoinedClips, size: int, rows_of: RowsOf
) -> Arrays:
    """Run the networks over the clips, from where the parts on disk end.

    Returns:
        "positions" int64 [N] among the clips, ascending; "has_audio" bool and "peaks" float32 [N];
        and the vectors.
    """
    started = since = time.perf_counter()
    begun = parts.end
    loader = Loader(
        clips,
        range(begun, len(clips), size),
        size,
        workers=run.data.workers,
        device=run.opened.device,
    )
    rows = list[dict[str, Tensor]]()
    with ProgressBar("features", len(clips), done=begun) as bar:
        for batch in loader:
            part = rows_of(batch) | {"positions": torch.tensor(batch.positions)}
            part["has_audio"] = batch.has_audio
            rows.append(
                {key: (v.float() if v.is_floating_point() else v).cpu() for key, v in part.items()}
            )
            end = batch.positions[-1] // size * size + size
            bar.update(min(end, len(clips)))
            if time.perf_counter() - since > PART_S and end < len(clips):
                parts.add(_stacked(rows), end)
                rows, since = [], time.perf_counter()
    arrays = parts.joined([_stacked(rows)] if rows else [])
    if not arrays:
        raise DataError("evaluation: no clip could be decoded, expected at least one")
    seconds, number = time.perf_counter() - started, len(clips) - begun
    logger.info("%s: %d clips in %.1f s", parts.path.name, number, seconds)
    has_audio = arrays["has_audio"]
    return {name: _spread(values, has_audio) for name, values in arrays.items()}


def _stacked(rows: Sequence[dict[str, Tensor]]) -> Arrays:
    """Rows of several batches; of some names a batch may have none."""
    names = dict.fromkeys(name for part in rows for name in part)
    return {
        name: torch.cat([part[name] for part in rows if name in part]).numpy() for name in names
    }


def _spread(values: NDArray[Any], has_audio: NDArray[np.bool_]) -> NDArray[Any]:
    """Rows of the clips with audio alone become rows of all, zero for the others."""
    if len(values) == len(has_audio):
        return values
    spread = np.zeros((len(has_audio), *values.shape[1:]), values.dtype)
    spread[has_audio] = values
    return spread


def _rows_of_clips(run: TrainedRun, seed: int) -> RowsOf:
    """What is computed of one clip of each: by ours with the networks that it is compared with."""
    encoder, spec, path = run.opened.encoder, run.opened.spec, run.opened.frame_path
    if isinstance(encoder, PeerEncoder):
        return partial(_rows_of_windows, run, spec, None, _MODALITIES)
    random_init = untrained(encoder.module.config, seed=seed).to(encoder.device)

    def rows_of(batch: Batch) -> dict[str, Tensor]:
        inputs = apply(batch, spec, antialias=path.antialias)
        part = {"peaks": _peaks(batch)}
        with torch.inference_mode(), autocast(path.autocast, encoder.device):
            for network, model in ((PRETRAINED, encoder.module), (RANDOM_INIT, random_init)):
                rows = network_rows(model, inputs, _MODALITIES)
                part |= {f"{network}/{name}": values for name, values in rows.items()}
            for name, values in mean_tokens(encoder.module, inputs).items():
                part[f"{PRETRAINED}/{name}"] = values
            frozen = encoder.module.video_features(still(inputs.frames))
            part[f"{STILL_FRAME}/video_features"] = frozen
        return part

    return rows_of


def _rows_of_windows(
    run: TrainedRun,
    spec: ClipSpec,
    windows: int | None,
    modalities: Sequence[str],
    batch: Batch,
) -> dict[str, Tensor]:
    """What the encoder gives of windows, [B, V, …]; of a peer's only of the clips with audio.

    Without a number of windows, a clip is one of its own: [B, …].
    """
    number = windows or 1
    joined = replace(spec, frames=spec.frames * number)
    inputs = apply(batch, joined, antialias=run.opened.frame_path.antialias)
    inputs = replace(
        inputs,
        frames=inputs.frames.view(len(batch) * number, spec.frames, *inputs.frames.shape[2:]),
        audio=inputs.audio.view(len(batch) * number, -1),
        has_audio=inputs.has_audio.repeat_interleave(number),
    )
    encoder, path = run.opened.encoder, run.opened.frame_path
    if isinstance(encoder, PeerEncoder):
        rows = _peer_rows(encoder, inputs, modalities)
    else:
        with torch.inference_mode(), autocast(path.autocast, encoder.device):
            rows = network_rows(encoder.module, inputs, modalities)
    shape = () if windows is None else (windows,)
    found = {f"{PRETRAINED}/{name}": v.view(-1, *shape, *v.shape[1:]) for name, v in rows.items()}
    return found | {"peaks": _peaks(batch)}


def network_rows(model: Vatt, inputs: Inputs, modalities: Sequence[str]) -> dict[str, Tensor]:
    """Features and embeddings of a batch, of "video", "audio" or both."""
    rows = dict[str, Tensor]()
    if "video" in modalities:
        rows["video_features"] = video = model.video_features(inputs.frames)
        rows["video_va"], rows["video_vt"] = model.heads.video(video)
    if "audio" in modalities:
        rows["audio_features"] = audio = model.audio_features(inputs.audio)
        rows["audio_va"] = model.heads.audio(audio, inputs.has_audio)
    return rows


def _peer_rows(
    encoder: PeerEncoder, inputs: Inputs, modalities: Sequence[str]
) -> dict[str, Tensor]:
    rows = dict[str, Tensor | None]()
    if "video" in modalities and "video" in encoder.has:
        video = encoder.encode_video(inputs.frames)
        rows |= {"video_features": video.features, "video_va": video.va, "video_vt": video.vt}
    if "audio" in modalities and "audio" in encoder.has and bool(inputs.has_audio.any()):
        heard = inputs.audio[inputs.has_audio]
        audio = encoder.encode_audio(heard, sample_rate_hz=encoder.spec.sample_rate_hz)
        rows |= {"audio_features": audio.features, "audio_va": audio.va}
    return {name: values for name, values in rows.items() if values is not None}


def _peaks(batch: Batch) -> Tensor:
    return batch.waveform.float().abs().amax(1) / 2**15 * batch.has_audio


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
