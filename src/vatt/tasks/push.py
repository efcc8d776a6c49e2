"""`vatt push`: a model folder onto a hub, with a model card made from what the run measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from vatt import hub
from vatt.config import CONFIG_FILE
from vatt.encoder import model_folder
from vatt.export.model_card import OURS, model_card
from vatt.storage import write_atomically


@dataclass(frozen=True, slots=True, kw_only=True)
class PushConfig:
    """Upload config.json, model.safetensors, tokenizer.json and README.md of a model."""

    model: Positional[Path]
    """Run folder or model folder."""
    to: str
    """hf://owner/name, or hf://owner/name@branch."""
    private: bool = True
    """Whether only you can see it; of a model that is there already nothing changes."""
    message: str = "Model pushed by vatt"
    dry_run: bool = False
    """Write the model card and say what would be uploaded; no network."""

    def __post_init__(self) -> None:
        hub.parsed(self.to)


@dataclass(frozen=True, slots=True, kw_only=True)
class PushResult:
    """What was uploaded, and where it is."""

    files: Sequence[str]
    card: Path
    url: str | None


def run(config: PushConfig) -> PushResult:
    """Write the card, unless the folder has one of its own, and upload.

    Raises:
        CheckpointError: there is no model, or the hub refused.
        MissingExtraError: huggingface_hub is not installed.
    """
    folder = model_folder(config.model)
    card, (name, _) = folder / hub.CARD, hub.parsed(config.to)
    if not card.is_file() or OURS in card.read_text(encoding="utf-8"):
        write_atomically(card, model_card(folder, _run_of(folder), name=name))
    files = [name for name in hub.PUSHED if (folder / name).is_file()]
    url = None
    if not config.dry_run:
        url = hub.push(folder, config.to, private=config.private, message=config.message)
    return PushResult(files=files, card=card, url=url)


def _run_of(folder: Path) -> Path | None:
    """The folder that says how a model was made, or what was measured of it."""
    places = [folder, folder.parent] if folder.name == "model" else [folder]
    marks = CONFIG_FILE, "results"
    return next((one for one in places if any((one / mark).exists() for mark in marks)), None)
