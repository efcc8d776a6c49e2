"""`vatt convert`: an official TensorFlow checkpoint → a model folder, without TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from vatt.convert.bundle import Bundle
from vatt.convert.folder import write_folder
from vatt.convert.official import Plan, plan
from vatt.data.words import WordTokenizer
from vatt.errors import ConfigError, ConversionError
from vatt.training.checkpoint import written_whole

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
    dry_run: bool = False
    """Show what would become of every variable; read no data and write nothing."""

    def __post_init__(self) -> None:
        if self.out is None and not self.dry_run:
            raise ConfigError("out: say where to write, --out DIR, or give --dry-run")
        head_widths(self.head_width)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertResult:
    """What was found, and the fate of every variable."""

    kind: str
    out: Path | None
    vocabulary: bool
    weights: int
    index_sha256: str
    backbones: Mapping[str, Mapping[str, int]]
    variables: list[dict[str, Any]]


def run(config: ConvertConfig) -> ConvertResult:
    """Convert a checkpoint; the folder is written whole or not at all.

    Raises:
        ConversionError: the checkpoint is damaged, unknown, or `out` exists.
        CheckpointError: the word list does not fit, or `out` cannot be written.
    """
    if config.out is not None and config.out.exists():
        raise ConversionError(f"{config.out}: is there already; give --out a new folder")
    bundle = Bundle(config.prefix)
    found = plan(bundle, head_widths(config.head_width))
    tokenizer = None if config.vocabulary is None else _tokenizer(config.vocabulary, found)
    if config.out is not None and not config.dry_run:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(config.out) as folder:
            write_folder(folder, bundle, found, has_vocabulary=tokenizer is not None)
            if tokenizer is not None:
                tokenizer.save(folder / "tokenizer.json")
    return ConvertResult(
        kind=found.kind,
        out=None if config.dry_run else config.out,
        vocabulary=tokenizer is not None,
        weights=sum(math.prod(shape) for shape in found.shapes.values()),
        index_sha256=bundle.index_hash(),
        backbones=_backbones(found),
        variables=_variables(bundle, found),
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


def _tokenizer(path: Path, found: Plan) -> WordTokenizer:
    tokenizer = WordTokenizer.read_list(path)
    size = found.model.text.vocabulary
    if tokenizer.vocabulary_size > size:
        raise ConversionError(
            f"{path}: has {tokenizer.vocabulary_size} words, but the model's word table has {size} "
            "rows; give the word list that it was trained with"
        )
    return tokenizer


def _backbones(found: Plan) -> dict[str, dict[str, int]]:
    configs = {
        "video": found.model.video.transformer,
        "audio": found.model.audio.transformer,
        "text": found.model.text.transformer,
    }
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


def _variables(bundle: Bundle, found: Plan) -> list[dict[str, Any]]:
    places = {source: ours for ours, sources in found.names.items() for source in sources}
    return [
        {
            "variable": name,
            "shape": "×".join(map(str, entry.shape)) or "scalar",
            "status": "mapped" if name in places else "skipped",
            "becomes": places.get(name),
        }
        for name, entry in bundle.entries.items()
    ]
