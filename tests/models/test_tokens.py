import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tests.models.small import SMALL_MODEL
from vatt.errors import ConfigError
from vatt.models.model_config import ModelConfig, TextConfig, VideoConfig
from vatt.models.patches import keep_tokens, take_patches
from vatt.models.tokens import LinearText, PatchTokens, WordTokens
from vatt.models.transformer import TransformerConfig

BITS = (1 << 64) - 1


VIDEO: dict[str, Any] = {"mean": (0.1, -0.2, 0.3), "std": (0.5, 0.6, 0.7)}
WIDTH_10 = TransformerConfig(layers=1, width=10, heads=2, mlp_width=4, dropout=0.0)


def video_tokens(video: Mapping[str, Any] = VIDEO, **changes: Any) -> PatchTokens:
    torch.manual_seed(0)
    sizes = VideoConfig(transformer=WIDTH_10, patch=(2, 4, 4), buckets=(2, 3, 4), **video)
    return PatchTokens(ModelConfig(video=sizes, patch_bias=True, **changes), "video")


def splitmix64(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & BITS
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & BITS
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & BITS
    return x ^ (x >> 31)


def test_patches_come_in_the_order_of_the_official_kernel():
    video = torch.rand(2, 4, 8, 12, 3)
    expected = rearrange(video, "b (t p) (h q) (w r) c -> b (t h w) (p q r c)", p=2, q=4, r=4)
    assert torch.equal(take_patches(video, (2, 4, 4), None), expected)


@pytest.mark.parametrize(
    ("shape", "patch"), [((2, 4, 8, 12, 3), (2, 4, 4)), ((2, 96, 1), (8,)), ((2, 12, 9, 1), (4, 3))]
)
def test_gathered_patches_are_the_kept_rows_of_all_patches(shape, patch):
    signal = torch.rand(shape)
    everything = take_patches(signal, patch, None)
    draw = torch.tensor([5, 6])
    kept = keep_tokens(draw, everything.shape[1], 0.5, stream=0, scope="sample")
    expected = torch.stack([rows[k] for rows, k in zip(everything, kept, strict=True)])
    assert torch.equal(take_patches(signal, patch, kept), expected)


@pytest.mark.parametrize("pre_projection", [False, True])
@pytest.mark.parametrize("size", [(4, 12, 16), (3, 10, 13)])
def test_gathering_before_projecting_equals_projecting_before_gathering(size, pre_projection):
    tokens = video_tokens(pre_projection=pre_projection)
    video, draw = torch.rand(2, *size, 3), torch.tensor([1, 2])
    kept = keep_tokens(draw, 24, 0.5, stream=3, scope="sample")
    everything = tokens(video, draw=None, rate=0.5, stream=3, scope="sample")
    dropped = tokens(video, draw=draw, rate=0.5, stream=3, scope="sample")
    expected = torch.stack([rows[1:][k] for rows, k in zip(everything, kept, strict=True)])
    assert_close(dropped[:, 1:], expected)
    assert torch.equal(dropped[:, 0], everything[:, 0])


def test_drop_rate_0_is_the_identity():
    tokens, video = video_tokens(), torch.rand(2, 4, 12, 16, 3)
    draw = torch.tensor([1, 2])
    kept = tokens(video, draw=draw, rate=0.0, stream=0, scope="sample")
    assert torch.equal(kept, tokens(video, draw=None, rate=0.0, stream=0, scope="sample"))


def test_standardisation_inside_equals_standardisation_before():
    video = torch.rand(2, 4, 12, 16, 3)
    inside = video_tokens()(video, draw=None, rate=0, stream=0, scope="sample")
    standard = (video - torch.tensor([0.1, -0.2, 0.3])) / torch.tensor([0.5, 0.6, 0.7])
    plain = video_tokens({})
    assert_close(plain(standard, draw=None, rate=0, stream=0, scope="sample"), inside)


def test_padding_is_zero_after_standardisation_and_cutting_ignores_the_rest():
    video = torch.rand(2, 3, 10, 13, 3)
    standard = (video - torch.tensor([0.1, -0.2, 0.3])) / torch.tensor([0.5, 0.6, 0.7])
    filled = torch.zeros(2, 4, 12, 16, 3)
    filled[:, :3, :10, :13] = standard
    plain = video_tokens({})
    assert_close(
        video_tokens()(video, draw=None, rate=0, stream=0, scope="sample"),
        plain(filled, draw=None, rate=0, stream=0, scope="sample"),
    )
    cut = video_tokens(edges="cut")
    assert_close(
        cut(video, draw=None, rate=0, stream=0, scope="sample"),
        cut(video[:, :2, :8, :12], draw=None, rate=0, stream=0, scope="sample"),
    )


def test_signal_smaller_than_a_patch_is_refused_when_cutting_and_padded_otherwise():
    video = torch.rand(2, 1, 12, 16, 3)
    with pytest.raises(ConfigError, match=r"found size \(1, 12, 16\), expected at least one patch"):
        video_tokens(edges="cut")(video, draw=None, rate=0, stream=0, scope="sample")
    out = video_tokens()(video, draw=None, rate=0, stream=0, scope="sample")
    assert out.shape[1] == 1 + 1 * 3 * 4


def test_aggregation_token_has_no_position():
    tokens = video_tokens()
    out = tokens(torch.rand(2, 4, 12, 16, 3), draw=None, rate=0, stream=0, scope="sample")
    assert torch.equal(out[:, 0], tokens.agg.expand(2, -1))


def test_kept_tokens_are_those_with_the_smallest_splitmix64_numbers():
    draws, stream, num_tokens = [0, 7, 2**63 - 1], 1, 20
    kept = keep_tokens(torch.tensor(draws), num_tokens, 0.75, stream=stream, scope="sample")

    def number(draw: int, token: int) -> int:
        bits = splitmix64((splitmix64(draw) + token + (stream << 32)) & BITS)
        return bits - (1 << 64) if bits >> 63 else bits  # compared as signed integers

    for row, draw in zip(kept.tolist(), draws, strict=True):
        order = sorted(range(num_tokens), key=lambda token: number(draw, token))
        assert row == sorted(order[:5])


@settings(max_examples=50, deadline=None)
@given(
    draws=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5),
    num_tokens=st.integers(1, 60),
    rate=st.floats(0, 0.99),
)
def test_kept_tokens_are_distinct_in_order_and_as_many_as_the_rate_says(draws, num_tokens, rate):
    kept = keep_tokens(torch.tensor(draws), num_tokens, rate, stream=0, scope="sample")
    num_kept = max(1, math.floor((1 - rate) * num_tokens + 1e-9))
    assert kept.shape == (len(draws), num_kept)
    assert (kept.diff(dim=1) > 0).all()
    assert kept.min() >= 0
    assert kept.max() < num_tokens


def test_tokens_are_dropped_alike_however_the_batch_is_cut():
    draws = torch.randint(0, 2**62, (10,))
    whole = keep_tokens(draws, 30, 0.5, stream=0, scope="sample")
    parts = [
        keep_tokens(part, 30, 0.5, stream=0, scope="sample")
        for part in torch.split(draws, [1, 6, 3])
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_every_token_is_kept_equally_often_and_modalities_choose_independently():
    draws = torch.arange(20_000)  # neighbouring numbers: the hash must do all the mixing
    chosen = torch.zeros(2, len(draws), 8)
    for stream in (0, 1):
        kept = keep_tokens(draws, 8, 0.5, stream=stream, scope="sample")
        chosen[stream].scatter_(1, kept, 1.0)
    # Five standard deviations of a mean of 20,000 fair coins.
    assert_close(chosen.mean(1), torch.full((2, 8), 0.5), atol=5 * 0.5 / 20_000**0.5, rtol=0)
    together = (chosen[0] * chosen[1]).mean(0)
    assert_close(together, torch.full((8,), 0.25), atol=5 * 0.44 / 20_000**0.5, rtol=0)


def test_batch_scope_gives_all_clips_the_choice_of_the_first():
    draws = torch.tensor([3, 4, 5])
    per_clip = keep_tokens(draws, 30, 0.5, stream=0, scope="sample")
    per_batch = keep_tokens(draws, 30, 0.5, stream=0, scope="batch")
    assert torch.equal(per_batch, per_clip[:1].expand(3, -1))
    assert not torch.equal(per_clip[0], per_clip[1])


def word_tokens(word_width: int | None, *, pre_projection: bool) -> WordTokens:
    torch.manual_seed(0)
    text = TextConfig(
        transformer=WIDTH_10,
        vocabulary=20,
        word_width=word_width,
        frozen_words=word_width is not None,
    )
    return WordTokens(ModelConfig(text=text, pre_projection=pre_projection))


def test_words_are_rows_of_a_trained_table_behind_the_aggregation_token():
    text = word_tokens(None, pre_projection=False)
    tokens, real = text(torch.tensor([[3, 4, 0]]))
    assert torch.equal(tokens[0], torch.stack([text.agg, *text.words.weight[[3, 4, 0]]]))
    assert real.tolist() == [[True, True, True, False]]
    assert text.words.weight.requires_grad


def test_official_words_are_frozen_and_projected_with_or_without_the_aggregation_token():
    ids = torch.tensor([[3, 4, 0]])
    specific, agnostic = word_tokens(6, pre_projection=False), word_tokens(6, pre_projection=True)
    assert not specific.words.weight.requires_grad
    assert specific.projection is not None
    assert specific.projection.bias is None
    projected = torch.nn.functional.gelu(specific.agg @ specific.projection.weight.T)
    assert_close(specific(ids)[0][0, 0], projected)
    assert torch.equal(agnostic(ids)[0][0, 0], agnostic.agg)
    assert agnostic.projection is not None
    assert agnostic.projection.bias is not None


def test_linear_text_is_the_maximum_over_projected_words():
    text = LinearText(TextConfig(kind="linear", vocabulary=20, linear_width=7, word_width=5))
    words = text.words.weight[[3, 4, 0]] @ text.projection.weight.T + text.projection.bias
    assert_close(text(torch.tensor([[3, 4, 0]]))[0], words.relu().max(0).values)


def test_word_table_of_the_paper_is_as_wide_as_the_backbone():
    assert SMALL_MODEL.text.word_width is None
    assert word_tokens(None, pre_projection=False).words.weight.shape == (20, 10)


def test_count_of_buckets_keeps_as_many_of_any_input():
    """Official: the number of kept tokens follows from the position tables, not from the input."""
    tokens = video_tokens(drop_token_count="buckets")
    buckets = tokens.positions.num_buckets
    for frames in (2, 4, 8):
        signal = torch.zeros(2, frames, 12, 16, 3)
        out = tokens(signal, draw=torch.arange(2), rate=0.75, stream=0, scope="batch")
        assert out.shape[1] == 1 + buckets // 4
    with pytest.raises(ConfigError, match=f"found 1 tokens, expected at least {buckets // 4}"):
        tokens(torch.zeros(2, 1, 4, 4, 3), draw=torch.arange(2), rate=0.75, stream=0, scope="batch")
