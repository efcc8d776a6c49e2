"""`import vatt.hf`: transformers' AutoConfig and AutoModel open model folders of vatt.

    import vatt.hf
    from transformers import AutoModel
    model = AutoModel.from_pretrained("runs/demo/model")

No code comes from the folder: its `model_type` is known once this module is imported. Numbers are
those of `vatt.load`, computed by the same modules: bit by bit in `torch.inference_mode()`; where
gradients flow, PyTorch may take kernels that round differently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vatt import encoder, hub
from vatt.config import from_values
from vatt.devices import AutocastSetting, autocast, pick_device
from vatt.errors import ConfigError, MissingExtraError
from vatt.models.classifier import Classifier
from vatt.models.vatt import Vatt
from vatt.models.weights import KINDS, build, save_model

try:
    from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
    from transformers.utils import ModelOutput
except ModuleNotFoundError as error:
    raise MissingExtraError("transformers", "transformers", "vatt.hf") from error


class VattHfConfig(PretrainedConfig):  # type: ignore[misc]
    """The config.json of a model folder as transformers reads it; its keys are kept as they are."""

    model_type = "vatt"


class VattClassifierHfConfig(PretrainedConfig):  # type: ignore[misc]
    """The same of a classifier."""

    model_type = "vatt-classifier"


@dataclass
class VattOutput(ModelOutput):  # type: ignore[misc]
    """Features and unit embeddings of what was given; see `EncodedVideo` and the others."""

    video_features: Tensor | None = None
    video_va: Tensor | None = None
    video_vt: Tensor | None = None
    audio_features: Tensor | None = None
    audio_va: Tensor | None = None
    text_features: Tensor | None = None
    text_vt: Tensor | None = None


@dataclass
class VattClassifierOutput(ModelOutput):  # type: ignore[misc]
    """Features and logits."""

    features: Tensor | None = None
    logits: Tensor | None = None


class _FromFolder(PreTrainedModel):  # type: ignore[misc]
    """What both models share: vatt's own loading, saving and numbers.

    Attributes:
        vatt: the network.
        opened: what `vatt.load` or `vatt.load_classifier` gave, for files and strings; None for a
            network made from settings alone.
    """

    base_model_prefix = "vatt"
    _supports_sdpa = True
    _open: Callable[..., Any]
    opened: Any

    def __init__(self, config: Any, opened: Any = None) -> None:
        super().__init__(config)
        if opened is None:
            kind = "classifier" if config.model_type == "vatt-classifier" else "model"
            opened_module = build(
                from_values(KINDS[kind], getattr(config, kind), where=config.model_type)
            )
        else:
            opened_module = opened.module
        self.vatt: Any = opened_module
        object.__setattr__(self, "opened", opened)

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Nothing: vatt's modules have initialised themselves."""

    @classmethod
    def from_pretrained(cls, name: Any, *_: Any, config: Any = None, **given: Any) -> Self:
        """Load a model folder, or a model of a hub by its name.

        Of what `transformers` lets one give, `revision`, `dtype` and `device_map` (one device, or
        "auto") are heeded; without the last it is on the CPU.

        Raises:
            CheckpointError: there is no model, or it is damaged.
            ConfigError: `device_map` divides it.
        """
        folder = Path(name)
        if not folder.is_dir():
            revision = given.get("revision")
            folder = hub.fetch(f"hf://{name}" + (f"@{revision}" if revision else ""))
        device = given.get("device_map") or "cpu"
        if isinstance(device, dict):
            raise ConfigError(f"device_map: found {device}, expected one device, or 'auto'")
        opened = cls._open(folder, pick_device("auto") if device == "auto" else device)
        model = cls(config or AutoConfig.from_pretrained(folder), opened)
        dtype = given.get("dtype") or given.get("torch_dtype")
        if isinstance(dtype, str):
            dtype = getattr(torch, dtype, None)  # "auto": as it is stored
        if isinstance(dtype, torch.dtype):
            model.to(dtype)
        model.vatt.eval()
        return model

    def save_pretrained(self, save_directory: Any, **_: Any) -> None:
        """Write a model folder: what `vatt.load` and `from_pretrained` open."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        opened = self.opened
        assert opened is not None, "made from settings alone: there is no clip to save"
        save_model(folder, self.vatt, opened.spec, frame_path=opened.frame_path)
        if tokenizer := getattr(opened, "tokenizer", None):
            tokenizer.save(folder / hub.TOKENIZER)

    def _computing(self) -> Any:
        setting: AutocastSetting = "off"
        if self.opened is not None:
            setting = self.opened.frame_path.autocast
        return autocast(setting, self.device)


class VattModel(_FromFolder):
    """A pre-trained model."""

    config_class = VattHfConfig
    _open = staticmethod(encoder.load)
    vatt: Vatt

    def forward(
        self,
        frames: Tensor | None = None,
        waveforms: Tensor | None = None,
        input_ids: Tensor | None = None,
        return_dict: bool = True,
    ) -> VattOutput | tuple[Tensor, ...]:
        """Features and unit embeddings of whatever is given.

        Args:
            frames: [B, T, H, W, 3] in [-1, 1].
            waveforms: [B, S] in [-1, 1], at the model's rate.
            input_ids: word ids int64 [B, L].
            return_dict: else a tuple.
        """
        out, heads = VattOutput(), self.vatt.heads
        with self._computing():
            if frames is not None:
                features = self.vatt.video_features(frames.to(self.dtype))
                va, vt = heads.video(features)
                out["video_features"] = features.float()
                out["video_va"] = normalize(va.float(), dim=1)
                out["video_vt"] = normalize(vt.float(), dim=1)
            if waveforms is not None:
                features = self.vatt.audio_features(waveforms.to(self.dtype))
                valid = torch.ones(len(features), dtype=torch.bool, device=features.device)
                out["audio_features"] = features.float()
                out["audio_va"] = normalize(heads.audio(features, valid).float(), dim=1)
            if input_ids is not None:
                features = self.vatt.text_features(input_ids)
                valid = torch.ones(len(features), 1, dtype=torch.bool, device=features.device)
                rows = heads.text(features[:, None], valid)[:, 0]
                out["text_features"] = features.float()
                out["text_vt"] = normalize(rows.float(), dim=1)
        return out if return_dict else out.to_tuple()


class VattClassifierModel(_FromFolder):
    """A classifier of video or of audio."""

    config_class = VattClassifierHfConfig
    _open = staticmethod(encoder.load_classifier)
    vatt: Classifier

    def forward(
        self, clips: Tensor, return_dict: bool = True
    ) -> VattClassifierOutput | tuple[Tensor, ...]:
        """Features and logits of frames [B, T, H, W, 3] or waveforms [B, S]."""
        with self._computing():
            features = self.vatt.features(clips.to(self.dtype))
            out = VattClassifierOutput(features.float(), self.vatt.classify(features).float())
        return out if return_dict else out.to_tuple()


AutoConfig.register(VattHfConfig.model_type, VattHfConfig)
AutoConfig.register(VattClassifierHfConfig.model_type, VattClassifierHfConfig)
AutoModel.register(VattHfConfig, VattModel)
AutoModel.register(VattClassifierHfConfig, VattClassifierModel)
