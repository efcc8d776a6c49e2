from collections.abc import Iterable
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from vatt.errors import ConfigError
from vatt.losses import unit
from vatt.models.heads import Heads, HeadsConfig, MaskedBatchNorm, Projection

VALID = torch.tensor([True, False, True, True, False, True, True])


def some_norm(width: int = 5, **arguments) -> MaskedBatchNorm:
    norm = MaskedBatchNorm(width, **arguments)
    torch.manual_seed(0)
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    return norm


def test_batch_norm_counts_valid_rows_alone():
    norm, rows = some_norm(), torch.randn(7, 5)
    plain = nn.BatchNorm1d(5)
    plain.load_state_dict(
        {name: value.clone() for name, value in norm.state_dict().items()}
        | {"num_batches_tracked": torch.tensor(0)}
    )
    assert_close(norm(rows, VALID)[VALID], plain(rows[VALID]))
    assert_close(norm.running_mean, plain.running_mean)


def test_running_variance_is_the_biased_one_of_the_official_code():
    norm, rows = some_norm(), torch.randn(7, 5)
    norm(rows, VALID)
    assert_close(norm.running_var, 0.9 * torch.ones(5) + 0.1 * rows[VALID].var(0, correction=0))


def test_invalid_rows_change_nothing_for_others():
    norm, rows = some_norm(), torch.randn(7, 5, requires_grad=True)
    out = norm(rows, VALID)
    other = norm(torch.where(VALID[:, None], rows, 1000.0), VALID)
    assert_close(other[VALID], out[VALID])
    (gradient,) = torch.autograd.grad((out[VALID] * torch.randn(5, 5)).sum(), rows)
    assert (gradient[~VALID] == 0).all()


@pytest.mark.parametrize("valid", [0, 1, 5])
def test_without_rows_that_differ_the_running_statistics_stay_and_serve(valid):
    norm, rows = some_norm(), torch.randn(1, 5).repeat(7, 1) * torch.tensor([1e-3, 1, 1, 30, 1e3])
    rows[valid:] = torch.randn(7 - valid, 5)
    rows.requires_grad_()
    before = norm.running_mean.clone(), norm.running_var.clone()
    out = norm(rows, torch.arange(7) < valid)
    assert torch.equal(norm.running_mean, before[0])
    assert torch.equal(norm.running_var, before[1])
    norm.eval()
    assert_close(out, norm(rows, VALID))
    out.sum().backward()
    assert rows.grad is not None
    assert rows.grad.isfinite().all()


@pytest.mark.parametrize(("count", "equal"), [(1, False), (2, False), (2, True), (6, True)])
def test_few_or_equal_rows_do_not_explode_when_scaled_to_length_1(count, equal):
    torch.manual_seed(0)
    heads = Heads(HeadsConfig(va=32, vt=16), video_width=24, audio_width=24, text_width=24)
    features = torch.randn(1 if equal else 6, 24).expand(6, 24)
    audio = unit(heads.audio(features, torch.arange(6) < count))[:count]
    texts = unit(heads.text(features[:, None], torch.arange(6)[:, None] < count))[:count, 0]
    video_va, video_vt = map(unit, heads.video(features))
    towards = torch.randn(6, 32)
    loss = sum(
        (rows * towards[: len(rows), : rows.shape[1]]).sum()
        for rows in (audio, texts, video_va, video_vt)
    )
    assert isinstance(loss, Tensor)
    loss.backward()
    for name, weight in heads.named_parameters():
        assert weight.grad is not None
        assert weight.grad.norm() < 1e4, name  # 1e6 and more for rows at their own mean


def test_rank_with_the_sum_over_ranks_normalises_as_the_joined_batch():
    rows, mine = torch.randn(7, 5), slice(0, 3)
    others = rows[3:][VALID[3:]]
    mean = rows[VALID].mean(0)
    # What the other rank adds to the three sums: rows, their total, their squared deviations.
    added = iter([torch.tensor(float(len(others))), others.sum(0), (others - mean).square().sum(0)])

    def sum_over_ranks(total: Tensor) -> Tensor:
        return total + next(added)

    ranked, joined = some_norm(sum_over_ranks=sum_over_ranks), some_norm()
    assert_close(ranked(rows[mine], VALID[mine]), joined(rows, VALID)[mine])
    assert_close(ranked.running_var, joined.running_var)


def test_statistics_are_in_float32_under_autocast():
    rows = torch.randn(7, 5)
    expected = some_norm()(rows, VALID)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(some_norm()(rows, VALID), expected)


def some_heads(form: str) -> Heads:
    torch.manual_seed(0)
    config = HeadsConfig(va=6, vt=4, form=form)  # type: ignore[arg-type]
    heads = Heads(config, video_width=8, audio_width=7, text_width=5)
    for name, parameter in heads.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    return heads.eval()


@pytest.mark.parametrize("form", ["paper", "official"])
def test_video_reaches_the_text_space_through_the_audio_space(form):
    heads, features = some_heads(form), torch.randn(3, 8)
    va, vt = heads.video(features)

    def norm(rows: Tensor, of: Projection) -> Tensor:
        assert of.norm is not None
        scale: float = (1 + 1e-5) ** -0.5
        return rows * scale + of.norm.bias

    hidden = norm(features @ heads.video_hidden.dense.weight.T, heads.video_hidden)
    assert_close(va, norm(hidden.relu() @ heads.video_va.dense.weight.T, heads.video_va))
    before = va.relu() if form == "official" else va
    assert_close(vt, norm(before @ heads.video_vt.dense.weight.T, heads.video_vt))


def test_paper_normalises_after_every_linear_layer_and_the_code_only_for_video():
    def layers(form: str) -> dict[str, tuple[bool, bool]]:
        """Which layers are normalised, which have a bias."""
        children = cast(Iterable[tuple[str, Projection]], some_heads(form).named_children())
        return {
            name: (layer.norm is not None, layer.dense.bias is not None) for name, layer in children
        }

    video = dict.fromkeys(("video_hidden", "video_va", "video_vt"), (True, False))
    assert layers("paper") == video | {"audio_va": (True, False), "text_vt": (True, False)}
    assert layers("official") == video | {"audio_va": (False, True), "text_vt": (False, True)}


def test_texts_keep_their_places():
    heads, features = some_heads("paper"), torch.randn(2, 3, 5)
    rows = heads.text(features, torch.ones(2, 3, dtype=torch.bool))
    assert_close(rows[1, 2], heads.text(features[1:, 2:], torch.ones(1, 1, dtype=torch.bool))[0, 0])


def test_empty_space_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"model\.heads\.vt: found 0"):
        HeadsConfig(vt=0)
