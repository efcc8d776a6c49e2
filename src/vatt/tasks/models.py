"""`vatt models`: the official checkpoints; list them, or download and convert one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from vatt.convert.model_folder import model_tensors, write_settings, write_tensors
from vatt.convert.official import (
    BASE_URL,
    CHECKPOINTS,
    PARTS,
    VOCABULARY,
    WORDS,
    OfficialCheckpoint,
    download,
    take_words,
)
from vatt.convert.plan import plan
from vatt.convert.tensor_bundle import Bundle
from vatt.data.tokenizer import WordTokenizer
from vatt.errors import ConfigError, ConversionError
from vatt.models.weights import WEIGHTS
from vatt.storage import atomic_folder
from vatt.workers.progress import ProgressBar


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsConfig:
    """List the official checkpoints, or get one: downloaded, checked, converted."""

    action: Positional[Literal["list", "get"]] = "list"
    """list: all names, without a network. get: download and convert one."""
    name: Positional[str | None] = None
    """Of the checkpoint to get."""
    out: Path | None = None
    """Model folder to write; models/NAME if not given. Downloads lie beside it until then."""
    vocabulary: Path | None = None
    """The official word list, if it is here already; else it is downloaded too."""
    base_url: str = BASE_URL
    """Where the checkpoints are."""

    def __post_init__(self) -> None:
        if self.action == "get" and self.name not in CHECKPOINTS:
            raise ConfigError(
                f"name: found {self.name!r}, expected one of {', '.join(CHECKPOINTS)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsResult:
    """The checkpoints, or where the converted one is."""

    out: Path | None = None
    checkpoints: Sequence[dict[str, Any]] = ()

    def shown(self) -> dict[str, Any]:
        """For people: without what was not asked for."""
        if self.out is not None:
            return {"out": self.out}
        return {"official checkpoints": list(self.checkpoints)}


def run(config: ModelsConfig) -> ModelsResult:
    """List, or get; the model folder appears complete, or not at all.

    Raises:
        ConversionError: the download fails or differs from what the server says, or the folder
            exists.
    """
    if config.action == "list":
        rows = [
            {
                "name": one.name,
                "what": one.kind,
                "size": one.size,
                "parameters, millions": one.parameters_m,
                "paper": one.paper,
            }
            for one in CHECKPOINTS.values()
        ]
        return ModelsResult(checkpoints=rows)
    assert config.name is not None
    checkpoint = CHECKPOINTS[config.name]
    out = config.out or Path("models") / checkpoint.name
    if out.exists():
        raise ConversionError(f"{out}: is there already; give --out a new folder")
    downloads = out.with_name(f"{out.name}.download")
    downloads.mkdir(parents=True, exist_ok=True)
    prefix = downloads / Path(checkpoint.path).name
    for part in PARTS:
        _fetch(f"{config.base_url}/{checkpoint.path}{part}", prefix.with_name(prefix.name + part))
    words = _words(config, checkpoint, downloads)
    _convert(prefix, words, out)
    shutil.rmtree(downloads)
    return ModelsResult(out=out)


def _fetch(url: str, path: Path) -> None:
    with ProgressBar(f"downloading {path.name}, per cent", 100) as bar:

        def progress(done: int, total: int) -> None:
            bar.update(100 * done // total, f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB")

        download(url, path, progress)


def _words(config: ModelsConfig, checkpoint: OfficialCheckpoint, downloads: Path) -> Path | None:
    if not checkpoint.pretrained or config.vocabulary is not None:
        return config.vocabulary
    words = downloads / WORDS
    if not words.is_file():
        archive = downloads / VOCABULARY
        _fetch(f"{config.base_url}/{VOCABULARY}", archive)
        take_words(archive, words)
    return words


def _convert(prefix: Path, words: Path | None, out: Path) -> None:
    """As `vatt convert`, without the optimiser."""
    bundle = Bundle(prefix)
    found = plan(bundle)
    if found.problem:
        raise ConversionError(f"{bundle.index}: {found.problem}")
    tokenizer = None if words is None else WordTokenizer.read_list(words)
    with atomic_folder(out) as folder:
        for _ in write_tensors(folder / WEIGHTS, model_tensors(bundle, found)):
            pass
        write_settings(folder, bundle, found, has_vocabulary=tokenizer is not None)
        if tokenizer is not None:
            tokenizer.save(folder / "tokenizer.json")
