import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from tests.parity.recordings import arrays, assert_near
from vatt.errors import DataError
from vatt.training.targets import Mixup, draw_mixup, k_hot, mix, smooth

RECORDED = arrays("misc/data_ops.npz")


def test_smoothed_labels_are_those_of_the_official_code():
    found = smooth(RECORDED["label_smoothing/in"], 0.1)
    assert_near(found, RECORDED["label_smoothing/out"], "label_smoothing/out", atol=1e-7, rtol=0)


@pytest.mark.parametrize(("rows", "out"), [("in", "out"), ("labels", "out_labels")])
def test_mixed_clips_and_labels_are_those_of_the_official_code(rows, out):
    mixup = Mixup(RECORDED["mixup/perm"], RECORDED["mixup/lambda"][:, 0])
    found = mix(RECORDED[f"mixup/{rows}"], mixup)
    assert_near(found, RECORDED[f"mixup/{out}"], f"mixup/{out}", atol=1e-7, rtol=1e-6)


def test_targets_have_a_one_at_each_class_of_a_clip():
    assert k_hot([[2], [0, 1], []], 3).tolist() == [[0, 0, 1], [1, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_class_that_the_classifier_does_not_have_is_refused(wrong):
    with pytest.raises(DataError, match=f"clip 1 of the batch has class {wrong}, expected 0 to 2"):
        k_hot([[0], [1, wrong]], 3)


@given(st.floats(0.0, 1.0), st.integers(1, 9))
def test_smoothing_keeps_the_sum_and_the_order_of_one_hot_targets(alpha, num_classes):
    targets = smooth(k_hot([[0]], num_classes), alpha)
    assert float(targets.sum()) == pytest.approx(1.0)
    assert int(targets.argmax()) == 0


@given(st.integers(1, 30), st.integers(0, 2**31))
def test_a_draw_is_one_permutation_and_a_function_of_its_seeds(num_clips, seed):
    first, again = draw_mixup(num_clips, 5.0, seed, 7), draw_mixup(num_clips, 5.0, seed, 7)
    assert sorted(first.partner.tolist()) == list(range(num_clips))
    assert torch.equal(first.partner, again.partner)
    assert torch.equal(first.share, again.share)
    assert not torch.equal(first.share, draw_mixup(num_clips, 5.0, seed, 8).share)


@pytest.mark.parametrize("alpha", [0.4, 1.0, 5.0])
def test_shares_are_beta_distributed_one_for_each_clip(alpha):
    share = draw_mixup(4000, alpha, 1).share.numpy()
    assert np.unique(share).size > 3900
    assert share.mean() == pytest.approx(0.5, abs=0.03)
    assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


@pytest.mark.parametrize("shape", [(6,), (6, 3), (6, 2, 4, 4, 3)])
def test_a_share_of_one_keeps_the_clip_and_of_none_takes_its_partner(shape):
    rows, partner = torch.randn(shape), torch.tensor([3, 4, 5, 0, 1, 2])
    assert torch.equal(mix(rows, Mixup(partner, torch.ones(6))), rows)
    assert torch.equal(mix(rows, Mixup(partner, torch.zeros(6))), rows[partner])


def test_mixing_keeps_the_sum_of_each_target():
    targets = k_hot([[0], [1], [2], [1]], 3)
    assert_close(mix(targets, draw_mixup(4, 5.0, 0)).sum(1), torch.ones(4))
