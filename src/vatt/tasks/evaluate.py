"""`vatt evaluate`: how good a fine-tuned classifier is, over several views of each video (§4.3)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tyro.conf import Positional

from vatt.config import CONFIG_FILE, from_values, read_toml
from vatt.data.data_config import DataConfig
from vatt.encoder import ClipClassifier, load_classifier, model_folder
from vatt.errors import CheckpointError, ConfigError, DataError
from vatt.evaluation.examples import (
    ExampleClips,
    JoinedClips,
    LabelledSpan,
    file_of,
    find_examples,
    k_hot_of,
    refuse_other_classes,
    refuse_several,
)
from vatt.evaluation.protocols import multi_view
from vatt.evaluation.protocols.multi_view import Average, confusions, distinct_starts, judge, score
from vatt.evaluation.results import file_hash, ids_hash, write_result
from vatt.evaluation.score_files import FeatureSample, ScoreFile
from vatt.evaluation.trained_run import folders_with
from vatt.hub import is_hub_name
from vatt.ingest.sources import DUPLICATE
from vatt.models.classifier import ClassifierConfig
from vatt.models.weights import read_settings
from vatt.public_data.catalogue import DatasetFolder
from vatt.public_data.choice import DatasetChoice, chosen_folder
from vatt.public_data.listing import LABEL
from vatt.public_data.preparing import how_much, refuse_trained_on, shards_for, split_with
from vatt.shards.layout import FAILURES_FILE
from vatt.shards.read import ShardFolder
from vatt.workers.progress import ProgressBar

logger = logging.getLogger(__name__)

_SHOWN = 20  # classes in the table
MOST_CONFUSED = 200  # classes of which results/evaluate.json holds how often each is taken for each


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig(DatasetChoice):
    """Evaluate a classifier on labelled videos, audio or images."""

    run: Positional[Path | None] = None
    """Run folder (or model folder) of a classifier; results/evaluate.json is written into it."""
    shards: tuple[Path, ...] = ()
    """Prepared folders with labels; those of the run when left out, and no dataset is given."""
    split: str | None = None
    """When left out: test if the shards have it, else val."""
    label: str | None = None
    """Column of the labels; that of the run when left out."""
    classes: Path | None = None
    """The names of the classes, one a line in the order of the logits: of a model without them,
    such as a converted one."""
    clips: int = 4
    """Of each example, evenly spread (§4.3)."""
    crops: int = 3
    """Of each clip, along the longer side (§4.3); audio has none."""
    average: Average = "logits"
    """What is averaged over the views (§4.3: logits)."""
    save_scores: Path | None = None
    """A file for ids, labels and scores (.npz)."""
    from_scores: Path | None = None
    """Take the measures of such a file, without a model."""
    max_bad_fraction: float = 0.05
    """More examples that cannot be read than this share are an error."""
    workers: int | None = 0
    """Processes that read; none: one per core."""
    device: str | None = None

    def __post_init__(self) -> None:
        if (self.run is None) == (self.from_scores is None):
            raise ConfigError("run: expected a run folder, or --from_scores FILE")
        if self.public is not None and self.from_scores is not None:
            raise ConfigError("dataset: not with from_scores")
        for name in ("clips", "crops"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: found {getattr(self, name)}, expected >= 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateResult:
    """Where the numbers are, and the numbers; of how many examples, of how many expected.

    n_files: that the evaluated examples are of; fewer than these where files have several labelled
        spans, or long files were stored in parts.
    skipped_in_preparation: files of any split that are not in the shards, repeated ones left out.
    dataset: of a public one, how many files of the split its lists name, and how many are there.
    """

    path: Path | None
    split: str
    n_evaluated: int
    n_expected: int
    n_files: int | None
    skipped_in_preparation: int
    views: str
    dataset: Mapping[str, Any] = field(default_factory=dict)
    measures: Mapping[str, Any] = field(default_factory=dict)

    def shown(self) -> dict[str, Any]:
        """For people: of many classes those that are found least."""
        given = {name: getattr(self, name) for name in self.__dataclass_fields__}
        measures = dict(given.pop("measures"))
        if not self.dataset:
            del given["dataset"]
        shares, numbers = measures.pop("per_class", {}), measures.pop("examples", {})
        worst = sorted(shares, key=lambda name: (shares[name], name))
        rows = [
            {"class": name, "share_found": shares[name], "examples": numbers.get(name)}
            for name in worst[:_SHOWN]
        ]
        more = len(worst) - len(rows)
        classes = f"the {_SHOWN} that are found least" if more else "classes"
        return given | {"measures": measures} | ({classes: rows} if rows else {})


def run(config: EvaluateConfig) -> EvaluateResult:
    """Measure, and write results/evaluate.json.

    Raises:
        CheckpointError: there is no classifier.
        ConfigError: the labels' column or the names of the classes are not known.
        DataError: the labels are of other classes, or too many examples cannot be read.
    """
    path = sample = None
    if config.run is not None and is_hub_name(config.run):
        raise ConfigError(
            f"{config.run}: results are written into the run folder; get the model into a folder "
            "first: hf download owner/name --local-dir DIR"
        )
    if config.from_scores is not None:
        found = ScoreFile.load(config.from_scores)
    else:
        found, sample = scores_of_run(config)
        if config.save_scores is not None:
            found.save(config.save_scores)
    several = found.about["labels"] == "several"
    measures = judge(found.scores, found.true, found.names, several=several)
    if config.run is not None and sample is not None:
        result = {**found.about, "measures": measures}
        if not several and len(found.names) <= MOST_CONFUSED:
            result["confusion"] = confusions(found.scores, found.true).tolist()
        path = write_result(config.run, "evaluate", result)
        sample.save(config.run)
    about = found.about
    return EvaluateResult(
        path=path,
        split=about["split"],
        n_evaluated=about["n_evaluated"],
        n_expected=about["n_expected"],
        n_files=about.get("n_files"),
        skipped_in_preparation=about["skipped_in_preparation"],
        views=f"{about['clips']} clips x {about['crops']} crops; {about['fewer_starts']} examples "
        "have fewer different clips",
        dataset=about.get("dataset", {}),
        measures=measures,
    )


def scores_of_run(config: EvaluateConfig) -> tuple[ScoreFile, FeatureSample]:
    """Scores of all labelled examples of the split that can be read, and features of some."""
    assert config.run is not None
    if not isinstance(read_settings(model_folder(config.run))[0], ClassifierConfig):
        raise CheckpointError(
            f"{config.run}: is a pre-trained model without a trained head, expected a classifier; "
            "make one with `vatt finetune`"
        )
    classifier = load_classifier(config.run, config.device)
    public = None if config.dataset is None else chosen_folder(config)
    if public is not None:
        config = on_dataset(config, config.run, public, classifier)
    sizes = classifier.module.config
    folders, split, data = data_of(config, classifier)
    label = config.label or read_settings(classifier.folder)[2].get("label")
    if label is None:
        raise ConfigError(f"{classifier.folder}: does not say what its labels are; give --label")
    examples = examples_of(folders, split, label)
    names = names_of(config, classifier, () if public is None else public.listing.classes or ())
    labelled = sorted({name for one in examples for name in one.labels})
    where = ", ".join(str(shards.folder) for shards in folders.values())
    refuse_other_classes(names, labelled, f"{where}, split {split!r}, label {label!r}")
    if not sizes.several:
        refuse_several(examples)
    expected = len(examples)
    if sizes.modality == "audio":
        examples = examples_of(folders, split, label, with_audio=True)
    crops = 1 if sizes.modality == "audio" else config.crops
    starts = distinct_starts(examples, classifier.spec, config.clips)
    clips = 1 if set(starts) == {1} else config.clips  # of images the others are the same
    source = JoinedClips(
        [
            ExampleClips(
                shards, [one for one in examples if one.folder == name], classifier.spec, data,
                clips=clips,
            )
            for name, shards in folders.items()
        ]
    )  # fmt: skip
    with ProgressBar("evaluate", len(examples)) as bar:
        found = score(
            classifier.module,
            source,
            classifier.frame_path,
            crops=crops,
            average=config.average,
            workers=config.workers,
            scored=bar.update,
        )
    evaluated = [examples[position] for position in found.positions.tolist()]
    missing = expected - len(evaluated)
    if missing:
        logger.warning("%d of %d examples are not evaluated", missing, expected)
    if len(found.unreadable) > config.max_bad_fraction * expected:
        raise DataError(
            f"{where}: {expected - len(evaluated)} of {expected} examples of split "
            f"{split!r} cannot be read, expected at most {config.max_bad_fraction:.0%}; first: "
            f"{found.unreadable[0].reason}"
        )
    starts = distinct_starts(evaluated, classifier.spec, clips)
    ids = tuple(one.id for one in evaluated)
    about = {
        "protocol": multi_view.PROTOCOL,
        "shards": where,
        "split": split,
        "label": label,
        "labels": "several" if sizes.several else "one",
        "clips": clips,
        "crops": crops,
        "average": config.average,
        "n_evaluated": len(evaluated),
        "n_expected": expected,
        "n_files": len(set(map(file_of, ids))),
        "fewer_starts": sum(number < clips for number in starts),
        "mean_starts": float(np.mean(starts)) if starts else 0.0,
        "skipped_in_preparation": sum(map(_skipped, folders.values())),
        "classes": len(names),
        "ids_hash": ids_hash(ids),
        "model_hash": file_hash(classifier.folder / "model.safetensors"),
    }
    if public is not None:
        about["dataset"] = how_much(public, config.dataset_split, split)
    scores = ScoreFile(ids, names, found.values, k_hot_of(evaluated, names), about)
    return scores, FeatureSample.drawn(scores, found.features)


def examples_of(
    folders: Mapping[str, ShardFolder], split: str, label: str, *, with_audio: bool = False
) -> list[LabelledSpan]:
    """The labelled examples of a split, of all folders.

    Raises:
        DataError: one of them has no label; or, with audio, none of them has an example.
    """
    found = list[LabelledSpan]()
    for name, shards in folders.items():
        try:
            found += find_examples(shards, split, label, with_audio=with_audio, folder=name)
        except DataError:
            if not with_audio or (not found and name == list(folders)[-1]):
                raise
    return found


def _skipped(shards: ShardFolder) -> int:
    failures = shards.folder / FAILURES_FILE
    lines = failures.read_text(encoding="utf-8").splitlines() if failures.is_file() else []
    return sum(json.loads(line).get("cause") != DUPLICATE for line in lines)


def on_dataset(
    config: EvaluateConfig, run: Path, public: DatasetFolder, classifier: ClipClassifier
) -> EvaluateConfig:
    """The same settings, on the shards of a data set, which are prepared if need be.

    Raises:
        ConfigError: the model classifies something else.
        DataError: the files were trained on; shards that are given are of something else.
    """
    modality, spec = classifier.module.config.modality, classifier.spec
    public.dataset.refuse_kind("image" if public.dataset.kind == "image" else modality)
    split = config.split or split_with(public, config.dataset_split, LABEL)
    refuse_trained_on(run, config, public, split)
    in_use = modality == "video"
    shards = shards_for(
        run, config, public, config.shards, out=run,
        fps=spec.fps if in_use and public.dataset.kind == "video" else 1.0,
        short_side=max(spec.height, spec.width) if in_use else 16,
    )  # fmt: skip
    return replace(config, shards=shards, split=split, label=config.label or LABEL)


def data_of(
    config: EvaluateConfig, classifier: ClipClassifier
) -> tuple[dict[str, ShardFolder], str, DataConfig]:
    """The shard folders that have the split, by name; the split; and how clips are read."""
    assert config.run is not None
    path, settings = classifier.frame_path, config.run / CONFIG_FILE
    data = DataConfig(decode=path.decode, decode_size=path.decode_size, frame_step=path.frame_step)
    if settings.is_file():
        table = read_toml(settings)
        data = from_values(DataConfig, table.get("data", {}), where=str(settings))
        if not data.shards:
            data = replace(data, shards=(config.run / "shards",))
    shards = config.shards or data.shards
    if not shards:
        raise ConfigError(f"{config.run}: no config.toml that names shards; give --shards FOLDER")
    folders = [ShardFolder.open(folder) for folder in shards]
    for wanted in (config.split,) if config.split else ("test", "val"):
        if any(wanted in folder.info["splits"] for folder in folders):
            return folders_with(shards, wanted), wanted, data
    there = {str(folder.folder): sorted(folder.info["splits"]) for folder in folders}
    raise DataError(
        f"no videos in split {config.split or 'test or val'}; the shards have {there}; "
        "choose one with --split"
    )


def names_of(
    config: EvaluateConfig, classifier: ClipClassifier, official: tuple[str, ...]
) -> tuple[str, ...]:
    """The names of the classes in the order of the logits.

    Args:
        config: may name a file of them.
        classifier: may know them.
        official: those of a public data set, for as many classes that have no names.

    Raises:
        ConfigError: they are not known, or too few or many are given.
    """
    sizes = classifier.module.config
    if config.classes is None:
        if not sizes.names and len(official) == sizes.classes:
            return official
        if not sizes.names:
            raise ConfigError(
                f"{classifier.folder}: has no names of its {sizes.classes} classes; give them in "
                "their order with --classes FILE"
            )
        return sizes.names
    try:
        names = tuple(config.classes.read_text(encoding="utf-8").split("\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{config.classes}: cannot be read: {error}") from error
    names = tuple(name.strip() for name in names if name.strip())
    if len(names) != sizes.classes or (sizes.names and names != sizes.names):
        raise ConfigError(
            f"{config.classes}: found {len(names)} names, expected the {sizes.classes} classes of "
            f"{classifier.folder} in their order"
        )
    return names
