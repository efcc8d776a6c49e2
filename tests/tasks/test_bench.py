"""`vatt bench`: numbers that must hold between each other, whatever the machine is doing."""

import pytest
import torch

from vatt import config as configs
from vatt.presets import tiny
from vatt.speed.matrix_products import Products
from vatt.tasks.bench import BenchConfig, run


def bench(**changes) -> BenchConfig:
    values = {key: value for key, value in tiny().items() if key in ("clip", "model")}
    own = {"train": {"device": "cpu", "threads": 1, "autocast": "off"}, "clips": 4, "repeats": 1}
    return configs.from_values(BenchConfig, configs.merge(values, own | changes), where="test")


def test_products_are_counted_with_those_of_the_backward_pass_and_of_fused_attention():
    x, w = torch.randn(3, 5, requires_grad=True), torch.randn(5, 7, requires_grad=True)
    with Products() as products:
        (x @ w).sum().backward()
    assert products.flops == 3 * 2 * 3 * 5 * 7
    q, k = torch.randn(2, 2, 40, 8), torch.randn(2, 2, 50, 8)
    with Products() as products, torch.no_grad():
        torch.nn.functional.scaled_dot_product_attention(q, k, k)
    assert products.flops == 2 * 2 * (2 * 2) * 40 * 50 * 8


def test_a_step_is_timed_beside_what_the_device_reaches(tiny):
    result = run(bench(data={"shards": [str(tiny.shards)], "workers": 0}))
    assert result.clips_per_s == pytest.approx(4e3 / result.step_ms["median"])
    rate = result.gflops_of_a_step / result.step_ms["median"] * 1e3
    assert result.achieved_gflops_per_s == pytest.approx(rate)
    assert result.share_of_peak == pytest.approx(rate / result.peak_gflops_per_s)
    assert 0 <= result.feeding["waiting_share"] <= 1
    assert result.feeding["cores_to_keep_up"] >= 1
    # what micro-batches compute twice counts once
    parts = run(bench(train={"micro_batch": 2, "device": "cpu", "threads": 1}))
    assert parts.gflops_of_a_step == pytest.approx(result.gflops_of_a_step, rel=0.02)
    again = run(bench(train={"recompute": True, "device": "cpu", "threads": 1, "autocast": "off"}))
    assert again.gflops_of_a_step == result.gflops_of_a_step


@pytest.mark.slow  # imports transformers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("peer", ["vivit", "videomae"])
def test_a_peer_of_the_same_sizes_runs_beside_ours(peer):
    pytest.importorskip("transformers", reason="the extra bench is not installed")
    sizes = {"clip": {**tiny()["clip"], "width": 32, "height": 32}}
    result = run(bench(against=peer, **sizes))
    assert result.against["peer"] == peer
    assert result.against["their_step_over_ours"] > 0
