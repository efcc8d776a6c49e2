"""Losses of classifiers: official values and gradients, ranks that add up, edges."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from tests.parity.recordings import arrays, assert_near
from vatt.losses import balanced_sigmoid_cross_entropy, label_balance, softmax_cross_entropy

RECORDED = arrays("misc/eval_and_classification_losses.npz")


def balanced(logits: Tensor, targets: Tensor) -> Tensor:
    return balanced_sigmoid_cross_entropy(logits, targets, targets)


@pytest.mark.parametrize(
    ("name", "losses"),
    [
        ("video_loss", softmax_cross_entropy),
        ("audio_loss_hard", balanced),
        ("audio_loss_mixed", balanced),
    ],
)
def test_losses_and_gradients_are_those_of_the_official_code(name, losses):
    logits = RECORDED[f"{name}/logits"].clone().requires_grad_()
    loss = losses(logits, RECORDED[f"{name}/labels"]).mean()
    assert_near(loss, RECORDED[f"{name}/loss"], f"{name}/loss", atol=1e-5, rtol=1e-5)
    (gradient,) = torch.autograd.grad(loss, logits)
    expected = RECORDED[f"{name}/grad"]
    largest = float(expected.abs().max())
    assert_near(gradient, expected, f"{name}/grad", atol=1e-5 * largest, rtol=1e-5)


def test_cross_entropy_of_one_hot_targets_is_that_of_their_classes():
    logits, classes = torch.randn(5, 4), torch.tensor([0, 3, 1, 1, 2])
    found = softmax_cross_entropy(logits, F.one_hot(classes, 4).float())
    assert_close(found, F.cross_entropy(logits, classes, reduction="none"))


def test_extreme_logits_give_finite_losses_and_gradients():
    targets = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    for losses in (softmax_cross_entropy, balanced):
        logits = torch.tensor([[1e4, -1e4], [1e4, -1e4]], requires_grad=True)
        found = losses(logits, targets)
        assert found[0] > 1e4 / 2
        assert found[1] == 0
        (gradient,) = torch.autograd.grad(found.sum(), logits)
        assert gradient.isfinite().all()


def test_shares_of_two_ranks_have_the_mean_and_gradients_of_the_whole_batch():
    targets = (torch.rand(6, 5) < 0.4).float()
    logits = torch.randn(6, 5, requires_grad=True)
    whole = balanced(logits, targets)
    parts = torch.cat(
        [
            balanced_sigmoid_cross_entropy(logits[rank], targets[rank], targets)
            for rank in (slice(0, 2), slice(2, 6))
        ]
    )
    assert_close(parts, whole)
    (of_parts,) = torch.autograd.grad(parts.sum() / 6, logits)
    (of_whole,) = torch.autograd.grad(whole.mean(), logits)
    assert_close(of_parts, of_whole)


def test_a_label_that_occurs_often_weighs_less():
    targets = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    expected = torch.tensor([1 / 4, 1 / 4, 1 / 4, 1 / 2, (1 / 4 + 1 / 2) / 2])
    assert_close(label_balance(targets, targets), expected)


def test_clips_without_labels_weigh_nothing_and_give_no_gradient():
    targets = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])  # the last two classes never occur
    logits = torch.randn(2, 3, requires_grad=True)
    found = balanced(logits, targets)
    assert found[0] == 0
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert (gradient[0] == 0).all()
    assert (gradient[1] != 0).all()


@pytest.mark.parametrize("losses", [softmax_cross_entropy, balanced])
def test_losses_are_in_float32_under_autocast(losses):
    logits, targets = torch.randn(3, 4), F.one_hot(torch.tensor([0, 1, 1]), 4).float()
    expected = losses(logits, targets)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(losses(logits, targets), expected)
