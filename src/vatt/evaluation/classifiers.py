"""Classifiers on frozen features: the paper's low-rank one (§4.3), linear SVM, nearest neighbours.

Each is fitted on training rows and its one setting chosen on validation rows; test rows are used
once, with the chosen setting. Rare classes weigh as much as frequent ones, as in the accuracy we
report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC
from torch import Tensor, nn
from torch.nn import functional

from vatt.contracts import draw_bits
from vatt.devices import cpu_threads
from vatt.errors import ConfigError, DataError
from vatt.evaluation.metrics import balanced_accuracy, refuse_nan
from vatt.training.optim import OptimConfig, Optimiser
from vatt.workers.progress import followed

Predict = Callable[[NDArray[np.float32]], NDArray[Any]]
SVM_COSTS = (0.001, 0.004, 0.016, 0.064)
NEIGHBOURS = (1, 5, 10, 20, 40)


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRankConfig:
    """Training of the low-rank classifier; the defaults are the paper's (§4.3)."""

    components: int = 128  # n
    sampled_fraction: float = 0.1  # of the components, drawn anew at each step
    learning_rate: float = 5e-4
    batch_size: int = 64
    steps: int = 50_000

    def __post_init__(self) -> None:
        for name in ("components", "sampled_fraction", "learning_rate", "batch_size", "steps"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"low_rank.{name}: found {getattr(self, name)}, expected > 0")
        if self.sampled_fraction > 1:
            raise ConfigError(
                f"low_rank.sampled_fraction: found {self.sampled_fraction}, expected at most 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseConfig:
    """Training of the official code's classifier; the defaults are its own."""

    units: int = 128
    dropout: float = 0.9
    weight_penalty: float = 0.1  # × the sum of the squared weights of the last layer
    learning_rate: float = 5e-4
    batch_size: int = 64
    epochs: int = 1000

    def __post_init__(self) -> None:
        for name in ("units", "learning_rate", "batch_size", "epochs"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"dense.{name}: found {getattr(self, name)}, expected > 0")
        if not 0 <= self.dropout < 1 or self.weight_penalty < 0:
            raise ConfigError(
                f"dense: found dropout {self.dropout}, weight_penalty {self.weight_penalty}, "
                "expected in [0, 1), and >= 0"
            )


@dataclass(frozen=True, slots=True)
class Labelled:
    """Features with their labels: features float32 [N, D], labels str [N]."""

    features: NDArray[np.float32]
    labels: NDArray[np.str_]

    def __post_init__(self) -> None:
        assert len(self.features) == len(self.labels)
        refuse_nan(self.features, "features")

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Labelled:
        """The given rows, by number or by mask."""
        return Labelled(self.features[rows], self.labels[rows])


@dataclass(frozen=True, slots=True)
class Splits:
    """Rows to fit on, to choose settings on, and to report."""

    train: Labelled
    val: Labelled
    test: Labelled

    def standardised(self) -> Splits:
        """Each feature less its training mean, over its training deviation.

        Raises:
            DataError: fewer than two classes among the training labels.
        """
        found = sorted(set(self.train.labels.tolist()))
        if len(found) < 2:
            raise DataError(f"linear evaluation: found the labels {found}, expected 2 or more")
        mean = self.train.features.mean(axis=0)
        scale = np.maximum(self.train.features.std(axis=0), 1e-6)

        def scaled(part: Labelled) -> Labelled:
            return replace(part, features=(part.features - mean) / scale)

        return Splits(scaled(self.train), scaled(self.val), scaled(self.test))


@dataclass(frozen=True, slots=True)
class Verdict:
    """Balanced accuracies in [0, 1] of the chosen classifier, and the setting chosen."""

    test: float
    val: float
    setting: float | int


def choose(splits: Splits, fits: Iterable[tuple[float | int, Predict]]) -> Verdict:
    """Test the classifier that does best on validation rows; the first one among equals."""
    best: tuple[float, float | int, Predict] | None = None
    for setting, predict in fits:
        val = balanced_accuracy(predict(splits.val.features), splits.val.labels)
        if best is None or val > best[0]:
            best = (val, setting, predict)
    assert best is not None
    val, setting, predict = best
    test = balanced_accuracy(predict(splits.test.features), splits.test.labels)
    return Verdict(test, val, setting)


def linear_svm(splits: Splits, costs: tuple[float, ...] = SVM_COSTS) -> Verdict:
    """One-against-rest linear SVM on standardised features; C chosen on validation rows."""

    def fit(cost: float) -> Predict:
        svm = LinearSVC(C=cost, class_weight="balanced", tol=1e-3, max_iter=10_000, random_state=0)
        predict: Predict = svm.fit(splits.train.features, splits.train.labels).predict
        return predict

    with ThreadPoolExecutor() as pool:  # the solver releases Python's lock
        return choose(splits, zip(costs, pool.map(fit, costs), strict=True))


def nearest_neighbours(splits: Splits, neighbours: tuple[int, ...] = NEIGHBOURS) -> Verdict:
    """Vote of the k most similar training rows by cosine; k chosen on validation rows.

    Each vote counts by the rarity of its class, so that frequent classes do not win by number.
    """
    train = splits.train
    _, counts = np.unique(train.labels, return_counts=True)

    def fit(k: int) -> Predict:
        search = KNeighborsClassifier(k, metric="cosine", algorithm="brute")
        search.fit(train.features, train.labels)

        def predict(features: NDArray[np.float32]) -> NDArray[Any]:
            votes = search.predict_proba(features) / counts
            named: NDArray[Any] = search.classes_[votes.argmax(axis=1)]
            return named

        return predict

    return choose(splits, ((k, fit(k)) for k in neighbours if k <= len(train.labels)))


def low_rank(splits: Splits, config: LowRankConfig, *, seed: int) -> Verdict:
    """The paper's classifier C = U V (§4.3); it has no setting to choose."""
    names, targets = np.unique(splits.train.labels, return_inverse=True)
    features = torch.from_numpy(splits.train.features).float()
    labels = torch.from_numpy(targets)
    weights = len(labels) / (len(names) * torch.bincount(labels).float())
    classifier = train_low_rank(features, labels, weights, config, seed=seed)

    def predict(rows: NDArray[np.float32]) -> NDArray[Any]:
        logits = torch.from_numpy(rows).float() @ classifier
        named: NDArray[Any] = names[logits.argmax(dim=1).numpy()]
        return named

    return choose(splits, [(config.components, predict)])


def train_low_rank(
    features: Tensor, labels: Tensor, class_weights: Tensor, config: LowRankConfig, *, seed: int
) -> Tensor:
    """Learn C = U V with a random tenth of the components at each step (§4.3).

    The sampled product is divided by the sampled share, so that its expectation is the full
    product, which is what the returned classifier uses.

    Args:
        features: float [N, D].
        labels: int64 [N], the class of each row.
        class_weights: float [classes], what an error on each class costs.
        config: sizes and optimiser.
        seed: fixes the initial weights, the batches and the drawn components.

    Returns:
        C, [D, classes].
    """
    rng = torch.Generator().manual_seed(draw_bits(seed))
    width, n, num_classes = features.shape[1], config.components, len(class_weights)
    U = nn.Parameter(torch.randn(width, n, generator=rng) * width**-0.5)
    V = nn.Parameter(torch.randn(n, num_classes, generator=rng) * n**-0.5)
    constant = OptimConfig(
        learning_rate=config.learning_rate,
        final_learning_rate=config.learning_rate,
        warmup_steps=0,
        epsilon=1e-8,
        epsilon_form="plain",
    )
    optimiser = Optimiser(constant, [("U", U), ("V", V)], steps=config.steps)
    kept = max(1, round(config.sampled_fraction * n))
    with cpu_threads(1):  # products this small take longer on several threads
        for step in followed(range(config.steps), "low-rank classifier: steps"):
            rows = torch.randint(len(features), (config.batch_size,), generator=rng)
            drawn = torch.randperm(n, generator=rng)[:kept]
            logits = features[rows] @ U[:, drawn] @ V[drawn] * (n / kept)
            loss = functional.cross_entropy(logits, labels[rows], class_weights)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step(step)
    classifier: Tensor = (U @ V).detach()
    return classifier


def train_dense(
    features: Tensor, labels: Tensor, num_classes: int, config: DenseConfig, *, seed: int
) -> tuple[nn.Linear, nn.Linear]:
    """Learn the official code's classifier: a linear layer, dropout, another linear layer.

    Args:
        features: float [N, D].
        labels: int64 [N], the class of each row.
        num_classes: of all.
        config: sizes and optimiser.
        seed: fixes the initial weights, the batches and the dropout.

    Returns:
        The layers, [D] → [units] → logits [classes]; nothing is dropped after training.
    """
    rng = torch.Generator().manual_seed(draw_bits(seed))
    first, last = nn.Linear(features.shape[1], config.units), nn.Linear(config.units, num_classes)
    for layer in (first, last):  # as Keras begins
        nn.init.xavier_uniform_(layer.weight, generator=rng)
        nn.init.zeros_(layer.bias)
    steps = config.epochs * -(-len(features) // config.batch_size)
    constant = OptimConfig(
        learning_rate=config.learning_rate,
        final_learning_rate=config.learning_rate,
        warmup_steps=0,
    )
    named = {f"{at}.{name}": w for at, one in enumerate((first, last))
             for name, w in one.named_parameters()}  # fmt: skip
    optimiser = Optimiser(constant, named.items(), steps=steps)
    kept = 1 - config.dropout
    step = 0
    with cpu_threads(1):  # products this small take longer on several threads
        for _ in followed(range(config.epochs), "dense classifier: epochs"):
            order = torch.randperm(len(features), generator=rng)
            for rows in torch.split(order, config.batch_size):
                hidden = first(features[rows])
                mask = torch.rand(hidden.shape, generator=rng) < kept
                loss = functional.cross_entropy(last(hidden * mask / kept), labels[rows])
                loss = loss + config.weight_penalty * last.weight.square().sum()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step(step)
                step += 1
    return first, last


def majority(splits: Splits) -> float:
    """Balanced accuracy in [0, 1] of always answering the most frequent training label."""
    names, counts = np.unique(splits.train.labels, return_counts=True)
    constant = np.full(len(splits.test.labels), names[counts.argmax()])
    return balanced_accuracy(constant, splits.test.labels)


def draw_per_class(labels: NDArray[np.str_], count: int, *, seed: int) -> NDArray[np.int64]:
    """`count` row numbers of each class (fewer where it has fewer), a function of the seed."""
    rng = np.random.default_rng(draw_bits(seed, count))
    rows = [rng.permutation(np.flatnonzero(labels == name))[:count] for name in np.unique(labels)]
    return np.sort(np.concatenate(rows))
