"""What training keeps for its backward pass, against hand-made sums."""

from dataclasses import replace

import torch
from torch import nn

from tests.costs.test_flops import CLIP
from tests.models.small import BACKBONE, SMALL_MODEL
from vatt.costs.flops import blueprint, count_parameters
from vatt.costs.memory import saved_bytes, training_memory
from vatt.models.transformer import Transformer


def test_inputs_of_layers_are_kept_once_and_weights_are_not_counted():
    net = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4))
    rows = torch.zeros(5, 8)
    kept, attention = saved_bytes(lambda: net(rows), net)
    assert (kept, attention) == (4 * 5 * (8 + 16 + 16), 0)  # inputs of each of the three


def test_attention_weights_grow_with_the_square_of_the_tokens_and_the_rest_does_not():
    backbone = Transformer(BACKBONE)

    def of(tokens: int) -> tuple[int, int]:
        kept, attention = saved_bytes(lambda: backbone(torch.zeros(1, tokens, 24)), backbone)
        return kept - attention, attention

    (rest, weights), (rest_2, weights_2) = of(30), of(60)
    layers, heads = 2, 2
    assert weights == 4 * layers * heads * 30 * 30
    assert weights_2 == 4 * weights
    assert rest_2 == 2 * rest


def test_dropout_of_attention_weights_belongs_to_them():
    backbone = Transformer(replace(BACKBONE, dropout=0.1))
    _, attention = saved_bytes(lambda: backbone(torch.zeros(1, 30, 24)), backbone)
    assert attention == 3 * 4 * 2 * 2 * 30 * 30  # softmax, mask, and their product


def test_training_memory_adds_up():
    plan = blueprint(SMALL_MODEL)
    memory = training_memory(plan, CLIP)
    weights = count_parameters(plan.model).all
    assert (memory.weights, memory.gradients, memory.optimiser) == (
        4 * weights,
        4 * weights,
        8 * weights,
    )
    assert memory.total(3) - memory.total(2) == memory.activations > 0
    assert memory.total(0) == 16 * weights


def test_dropping_tokens_saves_memory():
    few = training_memory(blueprint(replace(SMALL_MODEL, drop_token=0.75)), CLIP)
    all_tokens = training_memory(blueprint(replace(SMALL_MODEL, drop_token=0.0)), CLIP)
    assert few.activations < all_tokens.activations
    assert few.attention < all_tokens.attention
