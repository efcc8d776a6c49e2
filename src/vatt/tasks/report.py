"""`vatt report`: one self-contained HTML file about a run: what was trained, how well it does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from vatt.encoder import model_folder
from vatt.errors import ConfigError
from vatt.evaluation.features import split_features
from vatt.evaluation.trained_run import open_run
from vatt.models.classifier import ClassifierConfig
from vatt.models.weights import read_settings
from vatt.report.classifier_page import classifier_page
from vatt.report.run_page import RunPageConfig, run_page
from vatt.storage import write_atomically


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportConfig(RunPageConfig):
    """Write report.html about a run: numbers, curves, figures of its spaces, examples."""

    run: Positional[Path]
    """Run folder; report.html is written into it."""
    shards: tuple[Path, ...] = ()
    """Prepared folders for the examples; those of the run's config.toml when left out."""
    compare: Path | None = None
    """Of a classifier: the run folder of another one, such as of `--scratch`, evaluated on the same
    examples; its features are shown beside these."""
    device: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportResult:
    """Where the report is."""

    path: Path
    megabytes: float


def run(config: ReportConfig) -> ReportResult:
    """Write `<run>/report.html` from what is in the run folder; parts that are missing are named.

    Raises:
        CheckpointError: there is no model in the run, or a result is damaged.
        DataError: the split has no clips, or `compare` was not evaluated on the same examples.
        ConfigError: `compare` is given of a model that is no classifier.
    """
    path, model = config.run / "report.html", model_folder(config.run)
    if isinstance(read_settings(model)[0], ClassifierConfig):
        page = classifier_page(
            config.run, model, config.title, compare=config.compare, seed=config.seed
        )
        write_atomically(path, page)
        return ReportResult(path=path, megabytes=path.stat().st_size / 1e6)
    if config.compare is not None:
        raise ConfigError(f"compare: {config.run} is no classifier; only classifiers are compared")
    trained = open_run(config.run, shards=config.shards, device=config.device)
    clips = split_features(trained, config.split, seed=config.seed)
    write_atomically(path, run_page(config, trained, clips))
    return ReportResult(path=path, megabytes=path.stat().st_size / 1e6)
