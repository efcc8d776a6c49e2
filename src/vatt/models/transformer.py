"""The backbone that every modality goes through (§3.2, eq. 2), and its sizes (Table 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import cycle
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.backends.cuda import flash_sdp_enabled

from vatt.errors import ConfigError

NORM_EPSILON = 1e-6  # official code, all layer norms
# Attention on a CPU, by the table of benchmarks/attention.py: in float32 the fused kernel is faster
# (with gradients, from a length on); in bfloat16 the products written out, at every length, if cut
# so that a piece's scores stay below 32 MiB, which glibc asks the system for at each use; if
# softmax, which sums in float32, does not copy them to float32 first, as autocast would have it;
# and if a piece that is one table has two axes: `bmm` may take twice the time of `mm`.
FUSED_FROM = 32  # keys
PIECE_SCORES = 2**21  # 8 MiB in float32


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """Size and form of one backbone (Table 1)."""

    layers: int
    width: int
    heads: int
    mlp_width: int
    head_width: int | None = None
    """Width of one attention head; left out: width / heads."""
    dropout: float = 0.1
    """Of attention weights, both residual branches and the tokens (official; not in the paper)."""
    bias: bool = True
    """Biases in the attention and MLP projections (the official spectrogram and T5 have none)."""
    style: Literal["bert", "t5"] = "bert"
    """t5 (official text tower): RMS norm before attention and at the end, scores not scaled."""

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "mlp_width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"transformer.{name}: found {getattr(self, name)}, expected >= 1")
        if self.head_width is None and self.width % self.heads:
            raise ConfigError(
                f"transformer.heads: found {self.heads}, which does not divide transformer.width "
                f"({self.width}); change one of them or set transformer.head_width"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"transformer.dropout: found {self.dropout}, expected 0 <= … < 1")

    @property
    def attention_width(self) -> int:
        """Width of all heads together."""
        return self.heads * (self.head_width or self.width // self.heads)


SMALL = TransformerConfig(layers=6, width=512, heads=8, mlp_width=2048)  # Table 1
BASE = TransformerConfig(layers=12, width=768, heads=12, mlp_width=3072)
MEDIUM = TransformerConfig(layers=12, width=1024, heads=16, mlp_width=4096)
LARGE = TransformerConfig(layers=24, width=1024, heads=16, mlp_width=4096)


def glorot_(weight: Tensor, *, fan_in: int, fan_out: int) -> None:
    """Fill with uniform numbers of the Glorot range, the official initialiser of all kernels."""
    limit = math.sqrt(6.0 / (fan_in + fan_out))
    nn.init.uniform_(weight, -limit, limit)


class RMSNorm(nn.RMSNorm):
    """RMS norm in the precision of its weight, so that autocast does not square bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis; same dtype as `x`."""
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class Dense(nn.Linear):
    """A linear layer initialised as in the official code: Glorot uniform, bias 0."""

    def reset_parameters(self) -> None:
        """Draw the weights; torch's own draws come first, so that a seed keeps its weights."""
        super().reset_parameters()
        glorot_(self.weight, fan_in=self.in_features, fan_out=self.out_features)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Tensor | None,
    scale: float,
    dropout: float,
    fused: bool | None = None,
) -> Tensor:
    """Softmax attention.

    Args:
        q: queries [B, heads, N, head width].
        k: keys, likewise.
        v: values, likewise.
        bias: added to the scores; broadcasts to [B, heads, N, N].
        scale: of the scores, before the bias.
        dropout: share of the attention weights that are dropped.
        fused: whether PyTorch's fused kernel computes it; left out: where that is faster.
    """
    if fused_is_faster(q, k, dropout) if fused is None else fused:
        mask = None if bias is None else bias.to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v, mask, dropout, scale=scale)
    tables = max(1, PIECE_SCORES // (q.shape[2] * k.shape[2]))  # of one head of one clip each
    clips, heads = max(1, tables // q.shape[1]), min(tables, q.shape[1])

    def pieces(x: Tensor) -> list[Tensor]:
        cut = [piece for some in torch.split(x, clips) for piece in torch.split(some, heads, 1)]
        return cut if tables > 1 else [piece.flatten(0, 2) for piece in cut]

    biases = [None] if bias is None else pieces(bias.expand(*q.shape[:2], -1, -1))
    q, k, v = q.contiguous() * scale, k.contiguous(), v.contiguous()
    mixed = []
    with torch.autocast(q.device.type, enabled=False):
        for qs, ks, vs, added in zip(pieces(q), pieces(k), pieces(v), cycle(biases), strict=False):
            scores = qs @ ks.transpose(-2, -1)
            weights = (scores if added is None else scores + added).softmax(-1)
            mixed.append((F.dropout(weights.to(v.dtype), dropout) @ vs).flatten(0, -2))
    return torch.cat(mixed).view(*q.shape[:3], v.shape[-1])


def fused_is_faster(q: Tensor, k: Tensor, dropout: float) -> bool:
    """On a CPU by dtype, length and whether gradients are wanted; never by the batch or machine."""
    if q.device.type != "cpu":
        return True
    if dropout or q.dtype == torch.bfloat16 or not flash_sdp_enabled():  # type: ignore[no-untyped-call]
        return False  # with dropout, torch has no fused kernel for CPUs
    return not q.requires_grad or k.shape[2] >= FUSED_FROM


class Attention(nn.Module):
    """Multi-head self-attention; queries, keys and values come from one projection."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        inner = config.attention_width
        self.heads = config.heads
        self.dropout = config.dropout
        self.scale = 1.0 if config.style == "t5" else (inner // config.heads) ** -0.5
        self.qkv = Dense(config.width, 3 * inner, bias=config.bias)
        glorot_(self.qkv.weight, fan_in=config.width, fan_out=inner)  # as three separate layers
        self.out = Dense(inner, config.width, bias=config.bias)

    def forward(self, tokens: Tensor, bias: Tensor | None) -> Tensor:
        """Attend over [B, N, D]; `bias` broadcasts to [B, heads, N, N]."""
        q, k, v = self._split(self.qkv(tokens), 3)
        return self._mix(q, k, v, bias)

    def first(self, tokens: Tensor, bias: Tensor | None) -> Tensor:
        """What `forward` gives for token 0, [B, 1, D], without the work for the others."""
        inner = self.out.in_features
        weight, biases = self.qkv.weight, self.qkv.bias
        q_bias, kv_bias = (None, None) if biases is None else (biases[:inner], biases[inner:])
        (q,) = self._split(F.linear(tokens[:, :1], weight[:inner], q_bias), 1)
        k, v = self._split(F.linear(tokens, weight[inner:], kv_bias), 2)
        return self._mix(q, k, v, None if bias is None else bias[..., :1, :])

    def _split(self, rows: Tensor, parts: int) -> tuple[Tensor, ...]:
        """[B, N, parts · heads · head width] → parts of [B, heads, N, head width]."""
        return rearrange(rows, "b n (p h d) -> p b h n d", p=parts, h=self.heads).unbind()

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        mixed = attend(q, k, v, bias=bias, scale=self.scale, dropout=dropout)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Layer(nn.Module):
    """z' = MHA(LN(z)) + z, then MLP(LN(z')) + z' (eq. 2)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = norm(config)
        self.attention = Attention(config)
        # The official T5 keeps a standard layer norm here, unlike T5 itself.
        self.mlp_norm = nn.LayerNorm(config.width, eps=NORM_EPSILON)
        self.mlp_in = Dense(config.width, config.mlp_width, bias=config.bias)
        self.mlp_out = Dense(config.mlp_width, config.width, bias=config.bias)
        self.dropout = config.dropout

    def forward(self, z: Tensor, bias: Tensor | None, *, only_first: bool = False) -> Tensor:
        """One layer on [B, N, D]; with `only_first`, its output for token 0 alone, [B, 1, D]."""
        normed = self.attention_norm(z)
        if only_first:
            z = z[:, :1] + self._drop(self.attention.first(normed, bias))
        else:
            z = z + self._drop(self.attention(normed, bias))
        hidden = self._drop(F.gelu(self.mlp_in(self.mlp_norm(z))))
        return z + self._drop(self.mlp_out(hidden))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.training and self.dropout else x


class Transformer(nn.Module):
    """A pre-norm encoder (eq. 2), the backbone of one modality or of all three."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.final_norm = norm(config)

    def forward(
        self,
        tokens: Tensor,
        *,
        key_mask: Tensor | None = None,
        bias: Tensor | None = None,
        bias_layers: Literal["first", "all"] = "first",
        only_first: bool = False,
    ) -> Tensor:
        """Encode tokens.

        Args:
            tokens: [B, N, D].
            key_mask: bool [B, N]; tokens that are False are not attended to.
            bias: [heads, N, N], added to the attention scores of the first layer, or of all.
            bias_layers: which layers `bias` is for.
            only_first: give the output of token 0 alone, and skip what only others need: most of
                the last layer.

        Returns:
            z_out, [B, N, D] (or [B, 1, D]).
        """
        masking: Tensor | None = None
        if key_mask is not None:  # added to a score it leaves nothing of it: exp(-1e9) is 0
            masking = torch.zeros(key_mask.shape, device=key_mask.device)
            masking = masking.masked_fill(~key_mask, -1e9)[:, None, None, :]
        first = masking if bias is None else bias if masking is None else bias + masking
        later = first if bias_layers == "all" else masking
        z = tokens
        for number, layer in enumerate(self.layers):
            last = only_first and number == len(self.layers) - 1
            z = layer(z, first if number == 0 else later, only_first=last)
        out: Tensor = self.final_norm(z)
        return F.dropout(out, self.config.dropout, self.training)


def layers_of(model: nn.Module) -> list[Layer]:
    """The layers of all its Transformers."""
    return [module for module in model.modules() if isinstance(module, Layer)]


def norm(config: TransformerConfig) -> nn.Module:
    """The norm of the residual stream: layer norm, or T5's RMS norm."""
    kind = RMSNorm if config.style == "t5" else nn.LayerNorm
    return kind(config.width, eps=NORM_EPSILON)
