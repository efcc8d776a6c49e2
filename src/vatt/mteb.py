"""`vatt.mteb`: a model as an encoder of MTEB, for its benchmarks of video and audio (MVEB, MAEB).

    import mteb
    from vatt.mteb import VattMteb
    mteb.evaluate(VattMteb("runs/demo"), mteb.get_tasks(tasks=["ESC50"]))

Frames and audio are those of four clips spread over the whole item, as `encode_video` takes them of
a file; not its first frames. See docs/mteb.md for what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from vatt.contracts import Clip, ClipSpec
from vatt.data.clip_timing import clip_samples, frame_times, spread_places
from vatt.data.file_clips import CLIPS_OF_FILE
from vatt.data.resize import centre_crop
from vatt.encoder import load
from vatt.errors import ConfigError, MissingExtraError
from vatt.export.plain_inputs import frames_of
from vatt.hub import local_folder
from vatt.media.audio import resample

try:
    from mteb.models import ModelMeta
    from mteb.similarity_functions import cos_sim, pairwise_cos_sim
except ModuleNotFoundError as error:
    raise MissingExtraError("mteb", "mteb", "vatt.mteb") from error

MODALITIES = ("video", "audio", "text")


class VattMteb:
    """A pre-trained model; MTEB calls `encode`.

    An embedding has the numbers of both common spaces side by side, va then vt: a video has both,
    audio only va, a text only vt, and zeros in the other. So a cosine compares what two items have
    in common. Audio and text have nothing: the paper has no such space.
    """

    def __init__(
        self, model_name: str, revision: str | None = None, *, device: str | None = None, **_: Any
    ) -> None:
        """Load a model; the arguments are those that MTEB gives.

        Args:
            model_name: what `vatt.load` takes.
            revision: of a model on a hub.
            device: where to compute.
            _: what MTEB may add.
        """
        name = f"{model_name}@{revision}" if revision and "hf:" in model_name else model_name
        self.encoder = load(local_folder(name), device)
        heads, folder = self.encoder.module.config.heads, self.encoder.folder
        self.widths = heads.va, heads.vt
        self.mteb_model_meta = ModelMeta(
            loader=None,
            name=f"vatt/{Path(folder.parent if folder.name == 'model' else folder).resolve().name}",
            revision=revision or "local",
            release_date=None,
            languages=None,
            n_parameters=sum(p.numel() for p in self.encoder.module.parameters()),
            memory_usage_mb=None,
            max_tokens=self.encoder.spec.words,
            embed_dim=sum(self.widths),
            license=None,
            open_weights=True,
            public_training_code=None,
            public_training_data=None,
            framework=["PyTorch"],
            similarity_fn_name="cosine",
            use_instructions=False,
            training_datasets=None,
            modalities=list(MODALITIES),
        )

    def encode(self, inputs: Any, **_: Any) -> NDArray[np.float32]:
        """Unit rows [N, E_va + E_vt] of a DataLoader's items.

        Args:
            inputs: batches with some of the keys video, audio and text; of an item that has several
                the embeddings are added up.
            _: the task and the like: there are no instructions, so nothing depends on it.

        Raises:
            ConfigError: none of the keys is there.
        """
        inputs.collate_fn = _as_lists  # MTEB's own would take the first frames, or all of them
        parts = [self._rows(batch) for batch in inputs]
        return np.concatenate(parts)

    def _rows(self, batch: Mapping[str, Any]) -> NDArray[np.float32]:
        found = [self._of(name, batch[name]) for name in MODALITIES if name in batch]
        if not found:
            raise ConfigError(f"MTEB gave {sorted(batch)}, expected video, audio or text")
        rows: NDArray[np.float32] = normalize(torch.stack(found).sum(0), dim=1).numpy()
        return rows

    def _of(self, modality: str, items: Any) -> Tensor:
        """Rows of one modality, zeros where an item has none."""
        rows = torch.zeros(len(items), sum(self.widths))
        width = self.widths[0]
        if modality == "text":
            rows[:, width:] = self.encoder.encode_text(list(items)).vt.cpu()
            return rows
        for row, item in zip(rows, items, strict=True):
            if item is None:
                continue
            if modality == "video":
                row[:] = self._video(item)
            else:
                row[:width] = self._audio(item)
        return rows

    @torch.inference_mode()
    def _video(self, video: Any) -> Tensor:
        module, spec = self.encoder.module, self.encoder.spec
        frames = torch.from_numpy(four_clips(video, spec, self.encoder.frame_path.antialias))
        va, vt = module.heads.video(module.video_features(frames.to(self.encoder.device)))
        both = torch.cat([normalize(one.mean(0), dim=0) for one in (va, vt)])
        return both.cpu()

    @torch.inference_mode()
    def _audio(self, audio: Mapping[str, Any]) -> Tensor:
        module, spec = self.encoder.module, self.encoder.spec
        array = np.asarray(audio["array"], np.float32)
        array = array.mean(0) if array.ndim > 1 else array
        rate = int(audio["sampling_rate"])
        if rate != spec.sample_rate_hz:
            array = resample(array, from_hz=rate, to_hz=spec.sample_rate_hz)
        track = np.clip(np.rint(array * 2**15), -(2**15), 2**15 - 1).astype(np.int16)
        places = spread_places([(0.0, len(track) / spec.sample_rate_hz)], spec, CLIPS_OF_FILE)
        clips = np.stack([clip_samples(track, spec, *place) for place in places])
        waveforms = torch.from_numpy(clips.astype(np.float32) / 2**15).to(self.encoder.device)
        features = module.audio_features(waveforms)
        va = module.heads.audio(features, torch.ones(len(features), dtype=torch.bool))
        return normalize(va.mean(0), dim=0).cpu()

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosines of all pairs."""
        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosines of items in the same place."""
        return pairwise_cos_sim(embeddings1, embeddings2)


def four_clips(video: Any, spec: ClipSpec, antialias: bool) -> NDArray[np.float32]:
    """Frames [4, T, H, W, 3] in [-1, 1] of clips spread over a video that torchcodec decodes."""
    about = video.metadata
    fps, end_s = float(about.average_fps or spec.fps), float(about.end_stream_seconds or 0)
    places = spread_places([(0.0, end_s)], spec, CLIPS_OF_FILE)
    times_s = np.concatenate(
        [frame_times(spec, *place, frame_step="time", fps=fps)[1] for place in places]
    )
    times_s = np.clip(times_s, 0.0, max(0.0, end_s - 0.5 / fps))  # the last frame is still on
    frames = video.get_frames_played_at(seconds=times_s.tolist()).data.permute(0, 2, 3, 1).numpy()
    one = replace(spec, frames=len(frames))
    clip = Clip(
        key="",
        start_s=0.0,
        frames=np.ascontiguousarray(frames),
        waveform=np.zeros(0, np.int16),
        has_audio=False,
        word_ids=np.zeros((1, 1), np.int64),
        text_mask=np.zeros(1, np.bool_),
        augmentation=centre_crop(frames.shape[2] / frames.shape[1], spec),
        draw=0,
    )
    made = frames_of(clip, one, antialias=antialias)
    return made.reshape(CLIPS_OF_FILE, spec.frames, *made.shape[1:])


def _as_lists(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """A batch: each key with the items of all rows."""
    listed = list(rows)
    return {key: [row[key] for row in listed] for key in listed[0]}
