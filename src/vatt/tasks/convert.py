"""`vatt convert`: an official TensorFlow checkpoint → a model folder, without TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from vatt.checkpoints.checkpoint import (
    OPTIMISER,
    STATE,
    TrainingState,
    checkpoint_folder,
    write_state,
)
from vatt.convert import names
from vatt.convert import optimizer_slots as slots
from vatt.convert.model_folder import (
    model_tensors,
    num_bytes,
    write_settings,
    write_tensors,
)
from vatt.convert.optimizer_slots import optimiser_tensors, steps_made
from vatt.convert.plan import ConversionPlan, plan
from vatt.convert.tensor_bundle import Bundle
from vatt.data.tokenizer import WordTokenizer
from vatt.errors import ConfigError, ConversionError
from vatt.models.classifier import ClassifierConfig
from vatt.models.weights import WEIGHTS, Settings
from vatt.workers.progress import ProgressBar

MODALITIES = ("video", "audio", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertConfig:
    """Make a model folder of an official TensorFlow checkpoint; TensorFlow is not needed."""

    prefix: Positional[Path]
    """The checkpoint: path of its two files without .index and .data-00000-of-00001."""
    out: Path | None = None
    """Folder to write; must not exist yet. Not needed with --dry-run."""
    head_width: str | None = None
    """Width of an attention head where it is not 64: a number, or e.g. video=32,audio=64. That of
    the text backbone is read from the checkpoint."""
    vocabulary: Path | None = None
    """The official word list, e.g. howto100m_en.txt, so that strings can be encoded."""
    optimizer: bool = False
    """Keep the optimiser's slots too, so that training can go on (docs/convert.md)."""
    dry_run: bool = False
    """Show what would become of every variable; read no data and write nothing."""

    def __post_init__(self) -> None:
        if self.out is None and not self.dry_run:
            raise ConfigError("out: say where to write, --out DIR, or give --dry-run")
        head_widths(self.head_width)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertResult:
    """What was found, and what became of every variable.

    step: updates that its training had made, where the slots were kept.
    problem: why no model can be made of it (only after --dry-run; otherwise an error).
    """

    kind: str
    out: Path | None
    vocabulary: bool
    weights: int
    step: int | None
    index_sha256: str
    backbones: Mapping[str, Mapping[str, int]]
    variables: list[dict[str, Any]]
    problem: str | None


def run(config: ConvertConfig) -> ConvertResult:
    """Convert a checkpoint; the folder appears complete, or not at all.

    Raises:
        ConversionError: the checkpoint is damaged, unknown, or `out` exists.
        CheckpointError: the word list does not fit, or `out` cannot be written.
    """
    if config.out is not None and config.out.exists():
        raise ConversionError(f"{config.out}: is there already; give --out a new folder")
    bundle = Bundle(config.prefix)
    found = plan(bundle, head_widths(config.head_width))
    if found.problem and not config.dry_run:
        raise ConversionError(
            f"{bundle.index}: offset 0: {found.problem}; --dry-run shows what becomes of each"
        )
    tokenizer = None if config.vocabulary is None else _tokenizer(config.vocabulary, found)
    files = {WEIGHTS: model_tensors(bundle, found)}
    step = None
    if config.optimizer:
        files[OPTIMISER] = optimiser_tensors(bundle, found)
        step = steps_made(bundle)
    if config.out is not None and not config.dry_run:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        with checkpoint_folder(config.out) as folder:
            total, done = sum(map(num_bytes, files.values())), 0
            with ProgressBar("converting, MB", round(total / 1e6)) as bar:
                for name, tensors in files.items():
                    for count in write_tensors(folder / name, tensors):
                        done += count
                        bar.update(round(done / 1e6))
            write_settings(folder, bundle, found, has_vocabulary=tokenizer is not None)
            if step is not None:
                write_state(folder, TrainingState(step=step, facts={"failures": []}))
            if tokenizer is not None:
                tokenizer.save(folder / "tokenizer.json")
    return ConvertResult(
        kind=found.kind,
        out=None if config.dry_run else config.out,
        vocabulary=tokenizer is not None,
        weights=sum(math.prod(shape) for shape in found.shapes.values()),
        step=step,
        index_sha256=bundle.index_hash(),
        backbones=_backbones(found.settings),
        variables=_variables(bundle, found, optimiser=config.optimizer),
        problem=found.problem,
    )


def head_widths(text: str | None) -> dict[str, int]:
    """Head widths by modality: "32" is that of video and audio, or "video=12,audio=10,text=8".

    Raises:
        ConfigError: it is neither.
    """
    if text is None:
        return {}
    pairs = [part.partition("=") for part in text.split(",")]
    if len(pairs) == 1 and not pairs[0][1]:
        pairs = [(modality, "=", text) for modality in ("video", "audio")]
    widths = {name.strip(): int(value) for name, _, value in pairs if value.strip().isdecimal()}
    if len(widths) < len(pairs) or not widths.keys() <= set(MODALITIES) or 0 in widths.values():
        raise ConfigError(
            f"head_width: found {text!r}, expected a number such as 32, or video=12,audio=10,text=8"
        )
    return widths


def _tokenizer(path: Path, found: ConversionPlan) -> WordTokenizer:
    if isinstance(found.settings, ClassifierConfig):
        raise ConversionError(f"{path}: is no use for a {found.kind}; leave --vocabulary out")
    tokenizer = WordTokenizer.read_list(path)
    size = found.settings.text.vocabulary
    if tokenizer.vocabulary_size > size:
        raise ConversionError(
            f"{path}: has {tokenizer.vocabulary_size} words, but the model's word table has {size} "
            "rows; give the word list that it was trained with"
        )
    return tokenizer


def _backbones(settings: Settings) -> dict[str, dict[str, int]]:
    model = settings.model if isinstance(settings, ClassifierConfig) else settings
    configs = {
        "video": model.video.transformer,
        "audio": model.audio.transformer,
        "text": model.text.transformer,
    }
    if isinstance(settings, ClassifierConfig):
        configs = {settings.modality: configs[settings.modality]}
    return {
        modality: {
            "layers": size.layers,
            "width": size.width,
            "heads": size.heads,
            "head_width": size.attention_width // size.heads,
            "mlp_width": size.mlp_width,
        }
        for modality, size in configs.items()
    }


def _variables(bundle: Bundle, found: ConversionPlan, *, optimiser: bool) -> list[dict[str, Any]]:
    places = {source: ours for ours, sources in found.names.items() for source in sources}
    kept = slots.places(bundle, found) | {names.STEPS: STATE} if optimiser else {}
    status = dict.fromkeys(set(found.skipped) - kept.keys(), "skipped")
    status |= dict.fromkeys(found.unknown, "unknown")
    places |= kept
    rows: list[dict[str, Any]] = [
        {
            "variable": name,
            "shape": "×".join(map(str, entry.shape)) or "scalar",
            "status": status.get(name, "mapped"),
            "becomes": places.get(name),
        }
        for name, entry in bundle.entries.items()
    ]
    return rows + [
        {"variable": name, "shape": None, "status": "missing", "becomes": places[name]}
        for name in found.missing
    ]
