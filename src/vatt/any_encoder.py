"""Any encoder, ours or a peer's: what it must have, opened by name, its answers checked.

    vatt zero-shot --encoder package.module:factory --shards clips.shards --out results/peer

The factory is called without arguments, or with `device` if it takes one, and returns an object as
`AnyEncoder` describes it; see docs/evaluation.md.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from vatt.contracts import ClipSpec, FramePath
from vatt.devices import AutocastSetting, pick_device
from vatt.encoder import Encoder, load
from vatt.errors import CheckpointError, ConfigError
from vatt.hub import exact_name, is_hub_name
from vatt.storage import sha256_of

MODALITIES = ("video", "audio", "text")
_UNIT = 1e-3  # by how much the length of a row may differ from 1: float16 has three digits


class Encoded(Protocol):
    """Rows of N inputs; None where the encoder has no such thing.

    features: float [N, D], for classifiers.
    va, vt: float [N, E], unit rows in the space of video and audio, and in that of video and text.
    unknown: float [N], of texts: the share of words that the encoder does not know.

    An object that lacks one of these counts as one that has None there.
    """

    @property
    def features(self) -> Tensor | None:
        """What classifiers are fitted on."""
        ...


class AnyEncoder(Protocol):
    """What evaluation, embedding and search need; `vatt.load` gives one.

    spec: the clips that it wants to see and hear; they are decoded as it says.

    A method that is None says that the encoder cannot take this modality; measures that need it
    are left out.
    """

    @property
    def spec(self) -> ClipSpec:
        """Length, rate and size of clips."""
        ...

    def encode_video(self, videos: Tensor, /) -> Encoded:
        """Frames, float [B, T, H, W, 3] in [-1, 1] → features, va, vt."""
        ...

    def encode_audio(self, audio: Tensor, /, *, sample_rate_hz: int) -> Encoded:
        """Waveforms, float [B, S] in [-1, 1], mono, at the rate of `spec` → features, va."""
        ...

    def encode_text(self, texts: Sequence[str], /) -> Encoded:
        """B strings → vt, unknown."""
        ...


@dataclass(frozen=True, slots=True)
class Rows:
    """What an encoder may answer: see `Encoded`."""

    features: Tensor | None = None
    va: Tensor | None = None
    vt: Tensor | None = None
    unknown: Tensor | None = None


class PeerEncoder:
    """An encoder of somebody else whose answers are checked, each time.

    Attributes:
        spec: of its clips.
        device: where clips are given to it.
        has: the modalities that it takes.
    """

    def __init__(self, peer: Any, name: str, device: torch.device) -> None:
        """Look at the object itself.

        Raises:
            ConfigError: it is no `AnyEncoder`; says what it lacks.
        """
        lacks = [f"encode_{one}" for one in MODALITIES if not hasattr(peer, f"encode_{one}")]
        spec = getattr(peer, "spec", None)
        if not isinstance(spec, ClipSpec):
            lacks.insert(0, "spec (a vatt.contracts.ClipSpec)")
        if lacks:
            raise ConfigError(
                f"{name}: {type(peer).__name__} has no {', no '.join(lacks)}; an encoder that "
                "cannot take a modality says so by encode_audio = None"
            )
        assert isinstance(spec, ClipSpec)
        self._peer, self._name, self.spec, self.device = peer, name, spec, device
        self.has = {one for one in MODALITIES if getattr(peer, f"encode_{one}") is not None}
        self._widths: dict[tuple[str, str], int] = {}

    def encode_video(self, videos: Tensor) -> Rows:
        """Frames as in `AnyEncoder`; rows of the network, on the CPU."""
        return self._encode("video", len(videos), lambda encode: encode(videos.to(self.device)))

    def encode_audio(self, audio: Tensor, *, sample_rate_hz: int) -> Rows:
        """Waveforms as in `AnyEncoder`."""
        return self._encode(
            "audio",
            len(audio),
            lambda encode: encode(audio.to(self.device), sample_rate_hz=sample_rate_hz),
        )

    def encode_text(self, texts: Sequence[str]) -> Rows:
        """Strings as in `AnyEncoder`."""
        return self._encode("text", len(texts), lambda encode: encode(list(texts)))

    def _encode(self, modality: str, number: int, call: Callable[[Any], Any]) -> Rows:
        """The checked answer.

        Raises:
            ConfigError: the encoder does not take the modality, or its answer is no `Encoded`.
        """
        if modality not in self.has:
            raise ConfigError(f"{self._name}: encode_{modality} is None: it takes no {modality}")
        with torch.inference_mode():
            answer = call(getattr(self._peer, f"encode_{modality}"))
        names = ("features", "va", "vt", "unknown")
        if not any(hasattr(answer, name) for name in names):
            raise ConfigError(
                f"{self._name}: encode_{modality} gave {type(answer).__name__}, expected an object "
                "with features, va or vt"
            )
        rows = {name: self._checked(modality, name, answer, number) for name in names}
        return Rows(**rows)

    def _checked(self, modality: str, name: str, answer: Any, number: int) -> Tensor | None:
        values = getattr(answer, name, None)
        if values is None:
            return None
        where = f"{self._name}: {name} of encode_{modality}"
        try:
            rows = torch.as_tensor(values).detach().float().cpu()
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(f"{where}: cannot be taken as a tensor: {error}") from error
        shape = f"[{number}]" if name == "unknown" else f"[{number}, width]"
        if rows.ndim != shape.count(",") + 1 or len(rows) != number or 0 in rows.shape[1:]:
            raise ConfigError(f"{where}: found shape {list(rows.shape)}, expected {shape}")
        if not bool(rows.isfinite().all()):
            bad = int((~rows.isfinite()).flatten(1).any(1).sum()) if rows.ndim > 1 else "some"
            raise ConfigError(f"{where}: NaN or infinite in {bad} of {number} rows")
        if name in ("va", "vt"):
            lengths = rows.norm(dim=1)
            if bool(((lengths - 1).abs() > _UNIT).any()):
                low, high = float(lengths.min()), float(lengths.max())
                raise ConfigError(
                    f"{where}: found rows of length {low:.3g} to {high:.3g}, expected unit rows"
                )
        if name != "unknown":
            space = (name, "" if name in ("va", "vt") else modality)
            width = self._widths.setdefault(space, rows.shape[1])
            if width != rows.shape[1]:
                raise ConfigError(
                    f"{where}: found width {rows.shape[1]}, expected {width}, as it was before"
                )
        return rows


@dataclass(frozen=True, slots=True)
class OpenedEncoder:
    """An encoder with what results say of it.

    encoder: ours (`Encoder`) or a peer's.
    name: the folder of the model, its name on a hub with the commit, or `package.module:factory`.
    hash: twelve hex digits of the weights' file; of a peer's encoder what it states as
        `model_hash`, else of its name and its module's source: new weights are then not noticed.
    frame_path: how frames come to it.
    """

    encoder: Encoder | PeerEncoder
    name: str
    hash: str
    frame_path: FramePath

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.encoder.device

    @property
    def spec(self) -> ClipSpec:
        """The clips that it was made for."""
        return self.encoder.spec


def open_encoder(
    model: Path | None,
    encoder: str | None,
    device: str | None = None,
    *,
    autocast: AutocastSetting | None = None,
) -> OpenedEncoder:
    """Open a model of ours, or a peer's encoder.

    Args:
        model: run folder, model folder, or name on a hub.
        encoder: `package.module:factory`, installed or in the current folder.
        device: as `vatt.load` chooses it when None.
        autocast: the numbers that ours computes in; those of training when None.

    Raises:
        ConfigError: neither is given, or both; the factory cannot be imported, or what it gives is
            no encoder.
        CheckpointError: there is no model in `model`.
    """
    if (model is None) == (encoder is None):
        found = "neither" if model is None else "both"
        raise ConfigError(
            f"found {found}, expected a run folder or --encoder package.module:factory"
        )
    chosen = pick_device(device or "auto")
    if model is not None:
        ours = load(model, chosen, autocast=autocast)
        weights = ours.folder / "model.safetensors"
        try:
            found = sha256_of(weights)[:12]
        except OSError as error:
            raise CheckpointError(f"{weights}: cannot read: {error.strerror}") from error
        name = exact_name(model, ours.folder) if is_hub_name(model) else model
        return OpenedEncoder(ours, str(name), found, ours.frame_path)
    assert encoder is not None
    factory = _imported(encoder)
    takes_device = "device" in inspect.signature(factory).parameters
    made = factory(device=chosen) if takes_device else factory()
    peer = PeerEncoder(made, encoder, chosen)
    return OpenedEncoder(peer, encoder, _hash_of(made, encoder), FramePath(autocast="off"))


def _imported(name: str) -> Callable[..., Any]:
    """The factory of a name; modules of the current folder come first, as with `python -m`.

    Raises:
        ConfigError: there is none.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ConfigError(f"encoder: found {name!r}, expected package.module:factory")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"encoder: cannot import {module}: {error}; expected a module that is installed or in "
            f"{here}"
        ) from error
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ConfigError(f"encoder: {module} has no function {attribute}")
    return found  # type: ignore[no-any-return]  # of a module that nobody knows before


def _hash_of(peer: Any, name: str) -> str:
    stated = getattr(peer, "model_hash", None)
    if stated is not None:
        return str(stated)
    path = sys.modules[name.partition(":")[0]].__file__
    source = Path(path).read_bytes() if path else b""
    return hashlib.sha256(name.encode() + b"\0" + source).hexdigest()[:12]
