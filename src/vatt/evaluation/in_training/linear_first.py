"""A classifier's linear layer fitted alone, on the features of the backbone as it is."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from vatt.contracts import ClipSpec, FramePath
from vatt.data.data_config import DataConfig
from vatt.evaluation.examples import ExampleClips
from vatt.evaluation.few_labels import Found
from vatt.evaluation.protocols.multi_view import score
from vatt.models.classifier import Classifier


def fit_linear_layer(
    model: Classifier,
    found: Found,
    data: DataConfig,
    spec: ClipSpec,
    path: FramePath,
    *,
    strength: float,
) -> None:
    """Set the linear layer to the logistic regression of the examples' central clips.

    Classes weigh the same, however many examples they have; one without an example keeps its
    weights.

    Args:
        model: left in training mode.
        found: examples with one label each, by shard folder.
        data: how clips are read.
        spec: what a clip holds.
        path: how frames come to the model.
        strength: C, the inverse of the penalty on weights, for features of variance 1.
    """
    features, labels = list[NDArray[np.float32]](), list[int]()
    number = {name: at for at, name in enumerate(model.config.names)}
    model.eval()
    for folder, examples in found:
        source = ExampleClips(folder, examples, spec, data, clips=1)
        scores = score(model, source, path)
        features.append(scores.features)
        labels += [number[examples[at].labels[0]] for at in scores.positions.tolist()]
    model.train()
    if len(set(labels)) < 2:
        return
    rows = np.concatenate(features).astype(np.float64)
    mean, scale = rows.mean(0), np.maximum(rows.std(0), 1e-6)
    fitted = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
    fitted.fit((rows - mean) / scale, labels)
    weight, bias, classes = fitted.coef_ / scale, fitted.intercept_, fitted.classes_
    if len(classes) == 2:  # scikit-learn then has one row: that of the second less the first
        weight, bias = (np.concatenate([-one, one]) / 2 for one in (weight, bias))
    with torch.no_grad():
        model.linear.weight[classes] = torch.from_numpy(weight).to(model.linear.weight)
        model.linear.bias[classes] = torch.from_numpy(bias - weight @ mean).to(model.linear.bias)
