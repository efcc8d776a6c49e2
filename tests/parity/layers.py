"""What our models compute on the way, under the names of the recordings."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from vatt.models.tokens import PatchTokens, WordTokens
from vatt.models.transformer import Transformer
from vatt.models.vatt import Vatt

Taps = dict[str, Tensor]


def signal_taps(
    values: Tensor, tokens: PatchTokens, backbone: Transformer, post_projection: nn.Module | None
) -> Taps:
    """Every depth of a video, waveform or spectrogram branch, from frames or sounds to the end."""
    signal = values if values.ndim == 5 else values[..., None]
    with tapped(tokens, backbone) as taps:
        before = tokens(signal, draw=None, rate=0.0, stream=0, scope="batch")
        taps["final_norm"] = backbone(before)
    taps["tokens_pos"] = before[:, 1:]
    if tokens.pre_projection is None:
        taps["tokens"] = taps["tokens_pos"] - taps["pos_only"]
    return taps | projected(taps["final_norm"], post_projection)


def text_taps(words: Tensor, model: Vatt) -> Taps:
    """Every depth of the text branch, from word ids [R, L] to the end."""
    tokens, backbone = model.text_tokens, model.backbone("text")
    assert isinstance(tokens, WordTokens)
    with tapped(tokens, backbone) as taps:
        before, real = tokens(words)
        bias = None if model.relative_bias is None else model.relative_bias(before.shape[1])
        taps["final_norm"] = backbone(before, key_mask=real, bias=bias, bias_layers="all")
    vectors = tokens.words(words)
    if bias is None:
        taps |= {"tokens": vectors, "tokens_pos": before[:, 1:]}
    else:
        taps |= {"embedding": vectors, "pre_proj": before, "mask": real.int()}
        taps["relative_bias"] = bias[None]
    return taps | projected(
        taps["final_norm"], model.post_projections["text"] if bias is None else None
    )


def projected(out: Tensor, post_projection: nn.Module | None) -> Taps:
    return {} if post_projection is None else {"final": F.gelu(post_projection(out))}


@contextmanager
def tapped(tokens: PatchTokens | WordTokens, backbone: Transformer) -> Iterator[Taps]:
    """Notes what goes by: layers, positions, and tokens before and after the layer before them."""
    taps: Taps = {}
    hooks: list[Any] = []

    def note(module: nn.Module | None, key: str, change: Callable[[Tensor], Tensor]) -> None:
        if module is not None:
            hooks.append(
                module.register_forward_hook(lambda _, __, out: taps.update({key: change(out)}))
            )

    note(tokens.positions, "pos_only", lambda out: out[None])
    for number, layer in enumerate(backbone.layers):
        note(layer, f"layer_{number}", lambda out: out)
    if isinstance(tokens, PatchTokens):
        note(tokens.pre_projection, "tokens_pre_proj", F.gelu)
        if tokens.pre_projection is not None:
            hooks.append(
                tokens.pre_projection.register_forward_pre_hook(
                    lambda _, args: taps.update(tokens=args[0])
                )
            )
    elif not tokens.agg_projected:
        note(tokens.projection, "tokens_pre_proj", F.gelu)
    yield taps
    for hook in hooks:
        hook.remove()


def spline_tolerance(rows: int) -> float:
    """How far the official spline, solved in float32, is from an exact one, by rows of the table.

    As the recordings' page says: "about 1e-6 for tables up to 5 entries, 5e-5 up to 9, 1e-3 up to
    24, and several 1e-3 (21 → 30)"; entries here are up to 4 times as large as there.
    """
    return 1e-5 if rows <= 5 else 5e-5 if rows <= 9 else 1e-2


def in_units_of_tables(difference: Tensor, model_positions: nn.Module, grid: list[int]) -> Tensor:
    """A difference of normalised positions [1, N, D] as one of the rows before the layer norm."""
    norm = model_positions.norm
    assert isinstance(norm, nn.LayerNorm)
    summed: list[Tensor] = []
    hook = norm.register_forward_pre_hook(lambda _, args: summed.append(args[0]))
    model_positions(grid)
    hook.remove()
    deviation = (summed[0].var(-1, correction=0, keepdim=True) + norm.eps).sqrt()
    return difference * deviation / norm.weight.abs().clamp(min=1e-3)
