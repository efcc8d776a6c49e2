from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close

from vatt.errors import ConfigError
from vatt.models import transformer
from vatt.models.transformer import (
    BASE,
    FUSED_FROM,
    LARGE,
    MEDIUM,
    SMALL,
    Attention,
    Transformer,
    TransformerConfig,
    attend,
    fused_is_faster,
)

CONFIG = TransformerConfig(layers=3, width=24, heads=4, mlp_width=40, dropout=0.0)


def randomised(config: TransformerConfig) -> Transformer:
    """With biases and norms that are not 0 and 1, so that a forgotten one shows."""
    torch.manual_seed(0)
    backbone = Transformer(config)
    for parameter in backbone.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, std=0.5)
    return backbone


def test_weights_transfer_to_the_standard_transformer():
    backbone = randomised(CONFIG)
    layer = nn.TransformerEncoderLayer(
        24, 4, 40, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    final = nn.LayerNorm(24, eps=1e-6)
    standard = nn.TransformerEncoder(layer, 3, final, enable_nested_tensor=False)
    final.load_state_dict(backbone.final_norm.state_dict())
    names = {
        "self_attn.in_proj_": "attention.qkv.",
        "self_attn.out_proj.": "attention.out.",
        "linear1.": "mlp_in.",
        "linear2.": "mlp_out.",
        "norm1.": "attention_norm.",
        "norm2.": "mlp_norm.",
    }
    for theirs, ours in zip(standard.layers, backbone.layers, strict=True):
        weights = ours.state_dict()
        theirs.load_state_dict(
            {a + kind: weights[b + kind] for a, b in names.items() for kind in ("weight", "bias")}
        )
    tokens, key_mask = torch.randn(3, 7, 24), torch.rand(3, 7) > 0.3
    key_mask[:, 0] = True
    assert_close(
        backbone(tokens, key_mask=key_mask),
        standard(tokens, src_key_padding_mask=~key_mask),
        atol=1e-5,  # another order of additions
        rtol=1e-5,
    )


@pytest.mark.parametrize("style", ["bert", "t5"])
@pytest.mark.parametrize("bias", [True, False])
def test_output_for_token_0_alone_is_that_of_the_whole_in_value_and_gradient(style, bias):
    backbone = randomised(replace(CONFIG, style=style, bias=bias))
    tokens = torch.randn(3, 7, 24, requires_grad=True)
    arguments = {
        "key_mask": torch.tensor([[True] * 5 + [False] * 2]).expand(3, -1),
        "bias": torch.randn(4, 7, 7),
        "bias_layers": "all",
    }
    whole = backbone(tokens, **arguments)[:, :1]
    alone = backbone(tokens, **arguments, only_first=True)
    assert_close(alone, whole, atol=1e-5, rtol=1e-5)
    inputs = [tokens, *backbone.parameters()]
    weights = torch.randn_like(whole)
    assert_close(
        torch.autograd.grad((alone * weights).sum(), inputs),
        torch.autograd.grad((whole * weights).sum(), inputs),
        atol=1e-4,
        rtol=1e-4,
    )


def test_masked_tokens_are_not_attended_to():
    backbone = randomised(CONFIG)
    key_mask = torch.tensor([[True, True, False, True, False]])
    tokens = torch.randn(1, 5, 24)
    other = torch.where(key_mask[..., None], tokens, 50.0)
    out, changed = backbone(tokens, key_mask=key_mask), backbone(other, key_mask=key_mask)
    assert_close(changed[key_mask], out[key_mask])
    left_out = backbone(tokens[:, key_mask[0]])
    assert_close(out[key_mask], left_out[0], atol=1e-5, rtol=1e-5)


def test_bias_reaches_the_first_layer_or_all():
    config = replace(CONFIG, layers=2)
    backbone = randomised(config)
    bias, tokens = torch.randn(4, 5, 5), torch.randn(2, 5, 24)

    def by_hand(biases: list[Tensor | None]) -> Tensor:
        z = tokens
        for layer, one in zip(backbone.layers, biases, strict=True):
            z = layer(z, one)
        out: Tensor = backbone.final_norm(z)
        return out

    assert_close(backbone(tokens, bias=bias), by_hand([bias, None]))
    assert_close(backbone(tokens, bias=bias, bias_layers="all"), by_hand([bias, bias]))
    assert (by_hand([bias, None]) - by_hand([bias, bias])).abs().max() > 1e-3


def test_t5_neither_scales_scores_nor_subtracts_the_mean_before_attention():
    backbone = randomised(replace(CONFIG, layers=1, style="t5", bias=False))
    layer: Any = backbone.layers[0]
    final: Any = backbone.final_norm
    tokens = torch.randn(2, 5, 24) + 1.0
    z = tokens
    rms = z * (z.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * layer.attention_norm.weight
    q, k, v = (rms @ layer.attention.qkv.weight.T).view(2, 5, 3, 4, 6).permute(2, 0, 3, 1, 4)
    mixed = (q @ k.transpose(-1, -2)).softmax(-1) @ v
    z = z + mixed.transpose(1, 2).reshape(2, 5, 24) @ layer.attention.out.weight.T
    normed = F.layer_norm(z, (24,), layer.mlp_norm.weight, layer.mlp_norm.bias, 1e-6)
    z = z + F.gelu(normed @ layer.mlp_in.weight.T) @ layer.mlp_out.weight.T
    expected = z * (z.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * final.weight
    assert_close(backbone(tokens), expected, atol=1e-5, rtol=1e-5)


def attended(
    tokens: int, masked: str, fused: bool | None, dtype: torch.dtype = torch.float32
) -> tuple[list[Tensor], Tensor]:
    """Output and gradients of attention on two clips, and which keys are masked."""
    torch.manual_seed(tokens)
    q, k, v = torch.randn(3, 2, 4, tokens, 8).to(dtype).unbind()
    keys = torch.rand(2, tokens) > 0.4
    keys[:, 0] = True
    learned = torch.randn(4, tokens, tokens)
    masking = torch.zeros(2, tokens).masked_fill(~keys, -1e9)[:, None, None, :]
    inputs = [tensor.clone().requires_grad_() for tensor in (q, k, v, learned)]
    bias = {"nothing": None, "keys": masking}.get(masked, inputs[3] + masking)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        out = attend(*inputs[:3], bias=bias, scale=0.3, dropout=0.0, fused=fused)
    used = inputs if masked.endswith("bias") else inputs[:3]
    return [out, *torch.autograd.grad(out.float().square().sum(), used)], ~keys


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("masked", ["nothing", "keys", "keys and a learned bias"])
@pytest.mark.parametrize("tokens", [1, 17, FUSED_FROM - 1, FUSED_FROM, 70, 400])
def test_attention_written_out_is_that_of_the_fused_kernel(tokens, masked, dtype):
    """Outputs and gradients; 400 tokens are cut into pieces."""
    (written_out, mask), (fused, _) = (
        attended(tokens, masked, each, dtype) for each in (False, True)
    )
    # float32: sums are in another order; bfloat16 has 8 bits of mantissa.
    near = 2e-5 if dtype == torch.float32 else 5e-2
    for one, other in zip(written_out, fused, strict=True):
        assert_close(one.float(), other.float(), rtol=near, atol=near)
    for _, of_q, of_k, *_ in (written_out, fused):
        assert of_q.any() or tokens == 1
        assert masked == "nothing" or not of_k[mask[:, None].expand(2, 4, tokens)].any()


def test_the_way_of_attention_is_chosen_by_what_is_asked_and_never_by_the_batch():
    """As the table of benchmarks/attention.py says; the answer is bit by bit that of the way."""
    for dtype, dropout, gradients, tokens, fused in (
        (torch.float32, 0.0, False, 1, True),
        (torch.float32, 0.0, False, 1569, True),
        (torch.float32, 0.0, True, FUSED_FROM - 1, False),
        (torch.float32, 0.0, True, FUSED_FROM, True),
        (torch.float32, 0.1, True, 1569, False),
        (torch.bfloat16, 0.0, False, 1569, False),
        (torch.bfloat16, 0.0, True, 1569, False),
        (torch.bfloat16, 0.0, True, 17, False),
    ):
        for clips in (1, 3):
            q = torch.randn(clips, 1, tokens, 2, dtype=dtype, requires_grad=gradients)
            assert fused_is_faster(q, q, dropout) == fused
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                outs = [
                    attend(q, q, q, bias=None, scale=0.3, dropout=0.0, fused=way)
                    for way in ((None, fused) if not dropout else (False, False))
                ]
            assert torch.equal(*outs)
        with sdpa_kernel(SDPBackend.MATH):
            assert not fused_is_faster(q, q, dropout)


@pytest.mark.parametrize("fused", [None, False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_attention_takes_no_clips_and_needs_no_autocast(fused, dtype):
    for clips in (0, 2):
        q = torch.randn(clips, 4, 40, 8, dtype=dtype)
        mask = torch.zeros(clips, 1, 1, 40)
        out = attend(q, q, q, bias=mask, scale=0.3, dropout=0.0, fused=fused)
        assert out.shape == q.shape
        assert out.dtype == dtype


@pytest.mark.parametrize("scores", [1, 81, 2 * 81, 3 * 81, 4 * 81, 9 * 81, 10**6])
@pytest.mark.parametrize("bias", [None, (4, 9, 9), (5, 1, 1, 9), (5, 4, 9, 9)])
def test_attention_in_pieces_is_attention(monkeypatch, scores, bias):
    """Pieces of any size: some heads of one clip, or some clips; no score table is larger."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 5, 4, 9, 6).unbind()
    q.requires_grad_()
    added = None if bias is None else torch.randn(bias)
    expected = attend(q, k, v, bias=added, scale=0.3, dropout=0.0, fused=False)
    monkeypatch.setattr(transformer, "PIECE_SCORES", scores)
    kept: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x)
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        found = attend(q, k, v, bias=added, scale=0.3, dropout=0.0, fused=False)
    assert_close(found, expected)
    tables = [x.numel() for x in kept if x.shape[-2:] == (9, 9)]
    assert sum(tables) >= 5 * 4 * 81
    assert max(tables) <= max(scores, 81)


def test_dropout_acts_in_training_alone():
    backbone = randomised(replace(CONFIG, dropout=0.3))
    tokens = torch.randn(2, 5, 24)
    assert not torch.equal(backbone(tokens), backbone(tokens))
    backbone.eval()
    assert torch.equal(backbone(tokens), backbone(tokens))
    assert_close(backbone(tokens), randomised(CONFIG)(tokens))


def test_queries_keys_and_values_start_as_three_separate_layers_would():
    torch.manual_seed(0)
    weight = Attention(BASE).qkv.weight
    limit = (6 / (768 + 768)) ** 0.5
    assert weight.abs().max() <= limit
    assert weight.abs().max() > 0.999 * limit  # of some million numbers


@pytest.mark.parametrize(
    ("config", "layers", "width", "mlp", "heads"),
    [
        (SMALL, 6, 512, 2048, 8),
        (BASE, 12, 768, 3072, 12),
        (MEDIUM, 12, 1024, 4096, 16),
        (LARGE, 24, 1024, 4096, 16),
    ],
)
def test_backbones_have_the_weights_of_table_1(config, layers, width, mlp, heads):
    assert config.heads == heads
    with torch.device("meta"):
        backbone = Transformer(config)
    attention, norms = 4 * (width**2 + width), 4 * width
    layer = attention + 2 * width * mlp + mlp + width + norms
    assert sum(p.numel() for p in backbone.parameters()) == layers * layer + 2 * width


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"heads": 5}, "transformer.heads: found 5, which does not divide"),
        ({"layers": 0}, "transformer.layers: found 0"),
        ({"dropout": 1.0}, "transformer.dropout: found 1.0"),
    ],
)
def test_impossible_sizes_are_refused_by_name(changes, named):
    with pytest.raises(ConfigError, match=named):
        replace(CONFIG, **changes)
