"""Counts of real modules, against hand-made sums and torch's own counter."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.models.small import SHARED_MODEL, SMALL_MODEL, SPECTROGRAM_MODEL, some_inputs
from vatt.contracts import ClipSpec
from vatt.costs.flops import (
    FlopCounter,
    Flops,
    blueprint,
    count_parameters,
    count_tokens,
    forward_flops,
    parts_of,
)
from vatt.models.transformer import Transformer, TransformerConfig, attend
from vatt.models.variants import as_official
from vatt.models.vatt import Vatt

CLIP = ClipSpec(frames=4, fps=100 / 3, height=12, width=16, sample_rate_hz=800, texts=3, words=6)


def counted(function, *args) -> Flops:
    with torch.no_grad(), FlopCounter() as counter:
        function(*args)
    return counter.total


def test_a_linear_layer_is_two_operations_a_weight_and_row_and_one_a_bias():
    rows = torch.zeros(2, 5, 7)
    assert counted(nn.Linear(7, 3), rows) == Flops(products=2 * 10 * 7 * 3 + 10 * 3)
    assert counted(nn.Linear(7, 3, bias=False), rows) == Flops(products=2 * 10 * 7 * 3)


def test_scores_are_told_from_the_products_with_values():
    """Eleven queries, five keys, values of another width than keys: no two products are equal."""
    q, k, v = torch.zeros(2, 3, 11, 8), torch.zeros(2, 3, 5, 8), torch.zeros(2, 3, 5, 4)
    flops = counted(lambda: attend(q, k, v, bias=None, scale=1.0, dropout=0.0))
    scores = 2 * 3 * 11 * 5
    assert flops == Flops(
        products=2 * scores * 4, scores=2 * scores * 8, softmaxed=scores, queries=528, other=528
    )
    assert flops.full == 2 * scores * (8 + 4) + 5 * scores + q.numel()
    assert flops.as_paper == 2 * scores * 4 + 5 * scores + scores


def test_the_last_layers_shortcut_is_seen():
    """Only token 0 of the last layer is computed: most of that layer's work is gone."""
    config = TransformerConfig(layers=1, width=16, heads=2, mlp_width=64, dropout=0.0)
    backbone, tokens, N, D = Transformer(config), torch.zeros(1, 10, 16), 10, 16
    whole = counted(backbone, tokens)
    assert whole.products == (
        2 * N * (4 * D * D + 2 * D * 64) + N * (4 * D + 64 + D) + 2 * N * N * D
    )
    assert whole.scores == 2 * N * N * D
    first = counted(lambda: backbone(tokens, only_first=True))
    assert first.scores == 2 * N * D
    assert first.products == (
        2 * (2 * N + 2) * D * D + (2 * N + 2) * D + 2 * 2 * D * 64 + 64 + D + 2 * N * D
    )


def test_norms_activations_and_sums_count_by_element():
    x = torch.zeros(3, 10)
    assert counted(nn.LayerNorm(10), x).other == 5 * 30
    assert counted(F.gelu, x).other == 4 * 30
    assert counted(lambda: x + x).other == 30
    assert counted(lambda: x.sum(1)).other == 30
    assert counted(lambda: x.clone().view(10, 3)).other == 0
    assert counted(lambda: torch.arange(9) + 1).other == 0
    assert counted(lambda: F.dropout(x, 0.5)).other == 3 * 30
    assert counted(lambda: torch.fft.rfft(torch.zeros(3, 8))).other == 3 * 2.5 * 8 * 3


@pytest.mark.parametrize("config", [SMALL_MODEL, SHARED_MODEL, SPECTROGRAM_MODEL])
def test_products_agree_with_torchs_own_counter(config):
    """It counts products without their biases, and nothing else."""
    model, inputs = Vatt(config).eval().requires_grad_(False), some_inputs()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_parameter("bias", None)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as torchs:
        model(inputs)
    flops = counted(model, inputs)
    assert flops.products + flops.scores == torchs.get_total_flops()


@pytest.mark.parametrize("config", [SMALL_MODEL, SHARED_MODEL, SPECTROGRAM_MODEL])
@pytest.mark.parametrize("form", ["paper", "official"])
@pytest.mark.parametrize("training", [False, True])
def test_a_blueprint_counts_what_the_real_model_does(config, form, training):
    config = as_official(config) if form == "official" else config
    plan, real = blueprint(config), Vatt(config).train(training)
    planned = forward_flops(plan, replace(CLIP, texts=1), training=training)
    total = sum((flops for parts in planned.values() for flops in parts.values()), Flops())
    inputs = some_inputs(1)
    inputs = replace(
        inputs,
        word_ids=inputs.word_ids[:, :1],
        text_mask=inputs.text_mask[:, :1],
        draw=inputs.draw if training else None,
    )
    counted(real, inputs)  # small tables are computed once and kept
    found = counted(real, inputs)
    assert (total.products, total.scores, total.softmaxed) == (
        found.products,
        found.scores,
        found.softmaxed,
    )
    assert total.other == pytest.approx(found.other, rel=0.02)  # real masks and windows count too


def test_parts_hold_all_parameters_and_a_shared_backbone_counts_once():
    for config in (SMALL_MODEL, SHARED_MODEL, as_official(SHARED_MODEL)):
        model, plan = Vatt(config), blueprint(config)
        assert count_parameters(*parts_of(plan.model).values()) == count_parameters(model)
    assert set(parts_of(blueprint(SHARED_MODEL).model)) & {"shared_backbone"}
    twice = nn.Linear(3, 2)
    assert count_parameters(twice, twice).all == 8


def test_frozen_words_are_not_trainable():
    config = as_official(SMALL_MODEL)
    found = count_parameters(blueprint(config).model)
    assert found.all - found.trainable == config.text.vocabulary * 300


def test_work_is_counted_for_the_part_that_does_it():
    flops = forward_flops(blueprint(SMALL_MODEL), CLIP, training=False)
    patches, voxels = 2 * 3 * 4, 2 * 4 * 4 * 3
    assert flops["video"]["video_tokens"].products == 2 * patches * voxels * 24
    assert flops["audio"]["audio_tokens"].products == 2 * 12 * 8 * 24
    assert set(flops["text"]) <= {"text_tokens", "relative_bias", "text_backbone"}
    heads = 24 * 16 + 16 * 16 + 16 * 8 + 24 * 16 + 3 * 24 * 8
    assert flops["heads"]["heads"].products == 2 * heads
    assert flops["heads"].keys() == {"heads"}


def test_tokens_are_those_that_enter_the_backbones():
    plan = blueprint(SMALL_MODEL)
    assert count_tokens(plan, CLIP, training=False) == {"video": 25, "audio": 13, "text": 7}
    assert count_tokens(plan, CLIP, training=True) == {"video": 13, "audio": 7, "text": 7}


def test_a_blueprint_leaves_no_tensor_without_numbers_behind():
    """Tables of positions are kept between models: those made for a blueprint must be real."""
    config = replace(SMALL_MODEL, position_resampling="polyharmonic")
    longer = replace(CLIP, frames=7)
    forward_flops(blueprint(config), longer, training=False)
    frames = torch.rand(1, 7, 12, 16, 3)
    out = Vatt(config).eval().video_features(frames)
    assert type(out) is torch.Tensor
    assert all(math.isfinite(value) for value in out.flatten().tolist())
