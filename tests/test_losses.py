"""Eq. 4 to 6: values against loops written from the paper, and facts that must hold."""

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from vatt.contracts import Embeddings
from vatt.errors import ConfigError
from vatt.losses import (
    Identity,
    LossConfig,
    LossForm,
    Scale,
    VideoAudio,
    VideoTexts,
    combine,
    contrast,
    mil_nce,
    nce,
    text_ids,
    unit,
)

FORMS = ["paper", "official", "symmetric", "sigmoid"]
each_form = pytest.mark.parametrize("form", FORMS)


def some_embeddings(clips: int = 7, texts: int = 3, *, seed: int = 0) -> Embeddings:
    """Random rows, not of unit length; one clip has no sound, one no text, some fewer texts."""
    rng = torch.Generator().manual_seed(seed)

    def rows(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng).requires_grad_()

    has_audio = torch.ones(clips, dtype=torch.bool)
    has_audio[2] = False
    text_mask = torch.rand(clips, texts, generator=rng) > 0.4
    text_mask[0], text_mask[1] = True, False
    return Embeddings(
        rows(clips, 6), rows(clips, 6), rows(clips, 5), rows(clips, texts, 5), has_audio, text_mask
    )


def take(z: Embeddings, index: Tensor | slice) -> Embeddings:
    rows = {field.name: getattr(z, field.name) for field in fields(z)}
    return replace(z, **{name: of[index] for name, of in rows.items() if of is not None})


def gradients(z: Embeddings, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [z.video_va, z.audio_va, z.video_vt, z.text_vt]))


def unit_pairs(z: Embeddings) -> tuple[VideoAudio, VideoTexts]:
    return (
        VideoAudio(unit(z.video_va), unit(z.audio_va), z.has_audio),
        VideoTexts(unit(z.video_vt), unit(z.text_vt), z.text_mask),
    )


def test_nce_is_equation_4_over_the_clips_with_sound():
    pairs, _ = unit_pairs(some_embeddings())
    real = [b for b in range(7) if pairs.has_audio[b]]
    expected = []
    for b in real:
        scores = [math.exp((pairs.video[b] @ pairs.audio[i]).item() / 0.07) for i in real]
        expected.append(-math.log(scores[real.index(b)] / sum(scores)))
    loss = nce(pairs, pairs, LossConfig())
    assert loss.item() == pytest.approx(sum(expected) / len(real), rel=1e-5)  # float32


def test_mil_nce_is_equation_5_over_the_clips_with_text():
    _, bags = unit_pairs(some_embeddings())
    real = [(c, k) for c in range(7) for k in range(3) if bags.text_mask[c, k]]
    expected = []
    for b in sorted({c for c, _ in real}):
        scores = {
            (c, k): math.exp((bags.video[b] @ bags.texts[c, k]).item() / 0.5) for c, k in real
        }
        positives = sum(score for (c, _), score in scores.items() if c == b)
        expected.append(-math.log(positives / sum(scores.values())))
    loss = mil_nce(bags, bags, LossConfig(temperature=0.5))
    assert loss.item() == pytest.approx(sum(expected) / len(expected), rel=1e-5)  # float32


def test_sigmoid_asks_of_each_pair_whether_it_belongs_together():
    va, vt = unit_pairs(some_embeddings())
    scale = Scale(temperature=0.1, bias=-2.0)
    config = LossConfig(form="sigmoid", temperature=0.1, bias=-2.0)
    real = [(c, k) for c in range(7) for k in range(3) if vt.text_mask[c, k]]
    clips = sorted({c for c, _ in real})
    expected = 0.0
    for b in clips:
        for c, k in real:
            score = (vt.video[b] @ vt.texts[c, k]).item() / 0.1 - 2.0
            expected += math.log1p(math.exp(-score if c == b else score))
    assert mil_nce(vt, vt, config).item() == pytest.approx(expected / len(clips), rel=1e-5)
    # one text a clip: as SigLIP's code has it, of the clips that have audio
    video, audio = va.video[va.has_audio], va.audio[va.has_audio]
    scores = video @ audio.T / 0.1 - 2.0
    signs = 2 * torch.eye(len(scores)) - 1
    siglip = -torch.nn.functional.logsigmoid(signs * scores).sum() / len(scores)
    assert_close(nce(va, va, config), siglip)
    assert_close(nce(va, va, LossConfig(form="sigmoid"), scale=scale), siglip)


@each_form
def test_what_is_learned_of_the_scores_replaces_the_settings_and_gets_gradients(form):
    z, config = some_embeddings(), LossConfig(form=form, temperature=0.2, bias=-3.0)
    scales = torch.full((2,), -math.log(0.2)).requires_grad_()
    biases = torch.full((2,), -3.0).requires_grad_() if form == "sigmoid" else None
    learned = replace(z, log_scales=scales, biases=biases)
    found = contrast(learned, learned, replace(config, temperature=0.9, bias=1.0)).total
    assert_close(found, contrast(z, z, config).total)
    for weight in (scales, *([] if biases is None else [biases])):
        (gradient,) = torch.autograd.grad(found, weight, retain_graph=True)
        step = torch.zeros(2)
        step[0] = 1e-3
        with torch.no_grad():
            values = []
            for moved in (weight + step, weight - step):
                name = "log_scales" if weight is scales else "biases"
                z_moved = replace(learned, **{name: moved})
                values.append(contrast(z_moved, z_moved, config).total)
        assert gradient[0] == pytest.approx((values[0] - values[1]).item() / 2e-3, rel=1e-2)
        assert gradient.ne(0).all()


def test_total_is_equation_6_or_the_weighted_mean():
    one, two = torch.tensor(1.0), torch.tensor(2.0)
    assert combine(one, two, LossConfig(text_weight=0.5)).item() == 2.0
    assert combine(one, two, LossConfig(text_weight=0.5, total="mean")).item() == pytest.approx(
        4 / 3
    )


def test_perfect_match_costs_nothing_in_the_paper_and_ln_2_in_the_official_form():
    rows = torch.eye(4)
    pairs = VideoAudio(rows, rows, torch.ones(4, dtype=torch.bool))
    # exp(-1/0.07) ≈ 6e-7 of the other clips remains in the denominators.
    least_of: dict[LossForm, float] = {"paper": 0, "symmetric": 0, "official": math.log(2)}
    for form, least in least_of.items():
        loss = nce(pairs, pairs, LossConfig(form=form))
        assert loss.item() == pytest.approx(least, abs=1e-5)


@each_form
def test_shuffled_clips_keep_the_loss(form):
    z, config = some_embeddings(), LossConfig(form=form)
    shuffled = take(z, torch.tensor([3, 6, 1, 0, 5, 2, 4]))
    assert_close(contrast(shuffled, shuffled, config).total, contrast(z, z, config).total)


@each_form
def test_permuted_captions_keep_the_loss(form):
    z, config = some_embeddings(), LossConfig(form=form)
    order = torch.tensor([2, 0, 1])
    other = replace(z, text_vt=z.text_vt[:, order], text_mask=z.text_mask[:, order])
    assert_close(contrast(other, other, config).total, contrast(z, z, config).total)


@each_form
def test_masked_texts_and_sounds_change_nothing_and_get_no_gradient(form):
    z, config = some_embeddings(), LossConfig(form=form)
    loss = contrast(z, z, config).total
    _, audio, _, text = gradients(z, loss)
    assert (audio[~z.has_audio] == 0).all()
    assert (text[~z.text_mask] == 0).all()
    assert (audio[z.has_audio] != 0).any(1).all()
    assert (text[z.text_mask] != 0).any(1).all()
    other = replace(
        z,
        audio_va=torch.where(z.has_audio[:, None], z.audio_va, 100.0),
        text_vt=torch.where(z.text_mask[..., None], z.text_vt, -3.0),
    )
    assert_close(contrast(other, other, config).total, loss)


@each_form
@pytest.mark.parametrize("normaliser", ["global", "local"])
def test_batch_without_any_text_or_sound_costs_nothing(form, normaliser):
    z = some_embeddings()
    z = replace(z, text_mask=torch.zeros_like(z.text_mask), has_audio=torch.zeros_like(z.has_audio))
    loss = contrast(z, z, LossConfig(form=form, mask_normaliser=normaliser)).total
    assert loss.item() == 0
    assert all((gradient == 0).all() for gradient in gradients(z, loss))


@each_form
@pytest.mark.parametrize("known", [False, True])
def test_shares_of_ranks_add_up_to_the_loss_and_gradients_of_the_whole_batch(form, known):
    z, config, is_ = some_embeddings(), LossConfig(form=form), some_identity()
    whole = contrast(z, z, config, (is_, is_) if known else None)
    ranks = [slice(0, 2), slice(2, 3), slice(3, 7)]  # uneven; the second has no sound at all
    shares = [
        contrast(
            take(z, rows),
            z,
            config,
            (Identity(is_.video[rows], is_.start[rows], is_.texts[rows]), is_) if known else None,
        )
        for rows in ranks
    ]
    for part in ("total", "video_audio", "video_text"):
        assert_close(sum(getattr(share, part) for share in shares), getattr(whole, part))
    total = torch.stack([share.total for share in shares]).sum()
    assert_close(gradients(z, total), gradients(z, whole.total))


def test_local_normaliser_is_the_mean_of_the_ranks_means():
    z, config = some_embeddings(clips=8), LossConfig(mask_normaliser="local")
    _, bags = unit_pairs(z)
    ranks = [slice(0, 4), slice(4, 8)]
    shares = [contrast(take(z, rows), z, config).video_text for rows in ranks]
    means = []
    for rows in ranks:
        mine = VideoTexts(bags.video[rows], bags.texts[rows], bags.text_mask[rows])
        alone = [
            mil_nce(VideoTexts(video[None], texts[None], mask[None]), bags, LossConfig())
            for video, texts, mask in zip(mine.video, mine.texts, mine.text_mask, strict=True)
            if mask.any()
        ]
        of_one_clip = int(bags.text_mask.any(1).sum())  # the share of one clip is 1 / this
        means.append(torch.stack(alone).mean() * of_one_clip)
    assert_close(sum(shares), torch.stack(means).mean())


def some_identity(clips: int = 7, texts: int = 3) -> Identity:
    """Clips 3 and 5 share most of their time, 4 and 6 only their video; 0 and 4 have one text."""
    ids = torch.arange(clips * texts).view(clips, texts)
    ids[4, 1], ids[6, 0] = ids[0, 2], ids[6, 1]
    video, start = torch.arange(clips), torch.zeros(clips, dtype=torch.int64)
    video[5], start[5] = video[3], 499
    video[6], start[6] = video[4], -500
    return Identity(video, start, ids)


def test_duplicates_are_no_negatives_of_the_clip_that_they_repeat():
    z, is_, config = some_embeddings(), some_identity(), LossConfig(temperature=0.5)
    z = replace(z, has_audio=torch.ones(7, dtype=torch.bool), text_mask=torch.ones(7, 3) > 0)
    z.text_mask[4, 1] = False
    pairs, bags = unit_pairs(z)

    def text(clip: int, number: int) -> int:  # -1: none
        return int(is_.texts[clip, number]) if z.text_mask[clip, number] else -1

    audio, texts, both = [], [], []
    for b in range(7):
        others = [c for c in range(7) if c != b and {b, c} != {3, 5}]
        scores = torch.exp(pairs.video[b] @ pairs.audio.T / 0.5)
        audio.append(-torch.log(scores[b] / (scores[b] + scores[others].sum())))
        own = {text(b, k) for k in range(3)}
        to_text = torch.exp(torch.einsum("e,cke->ck", bags.video[b], bags.texts) / 0.5)
        to_video = torch.exp(torch.einsum("ke,ce->ck", bags.texts[b], bags.video) / 0.5)
        none = torch.zeros(())
        positive = sum((to_text[b, k] for k in range(3) if text(b, k) >= 0), none)
        negative = sum(
            (to_text[c, k] for c in others for k in range(3) if text(c, k) not in {-1, *own}), none
        )
        of_others = {c: {text(c, k) for k in range(3)} for c in others}
        backward = sum(
            to_video[c, k]
            for c in others
            for k in range(3)
            if text(b, k) >= 0 and text(b, k) not in of_others[c]
        )
        texts.append(-torch.log(positive / (positive + negative)))
        both.append(-torch.log(positive / (2 * positive + negative + backward)))
    found = contrast(z, z, config, (is_, is_))
    assert_close(found.video_audio, torch.stack(audio).mean())
    assert_close(found.video_text, torch.stack(texts).mean())
    official = replace(config, form="official")
    assert_close(contrast(z, z, official, (is_, is_)).video_text, torch.stack(both).mean())


def test_a_clip_that_comes_twice_is_as_if_it_came_once():
    z, is_ = some_embeddings(), some_identity()
    z = replace(z, text_mask=torch.ones(7, 3) > 0, has_audio=torch.ones(7) > 0)
    is_ = is_._replace(video=torch.arange(7), texts=torch.arange(21).view(7, 3))
    once = contrast(take(z, slice(1)), z, LossConfig(), (is_.split(1)[0], is_))
    twice = torch.tensor([0, 1, 2, 3, 4, 5, 6, 0, 0])
    again = Identity(is_.video[twice], is_.start[twice], is_.texts[twice])
    found = contrast(take(z, slice(1)), take(z, twice), LossConfig(), (is_.split(1)[0], again))
    assert_close(found.total * 9, once.total * 7)  # each is a share of the mean over the clips


def test_duplicates_stay_negatives_where_the_paper_has_them():
    z, is_, config = some_embeddings(), some_identity(), LossConfig(duplicates="negatives")
    assert contrast(z, z, config, (is_, is_)).total == contrast(z, z, config).total
    different = is_._replace(video=torch.arange(7), texts=torch.arange(21).view(7, 3))
    for form in FORMS:
        config = LossConfig(form=form)  # type: ignore[arg-type]
        assert_close(
            contrast(z, z, config, (different, different)).total, contrast(z, z, config).total
        )
        changed = contrast(z, z, config, (is_, is_)).total
        assert abs(changed - contrast(z, z, config).total) > 1e-3


@pytest.mark.parametrize("form", FORMS[:3])
def test_a_batch_of_one_clip_again_and_again_costs_what_its_positives_cost(form):
    z = take(some_embeddings(), torch.zeros(4, dtype=torch.int64))
    is_ = Identity(torch.zeros(4), torch.zeros(4), torch.arange(12).view(4, 3))
    loss = contrast(z, z, LossConfig(form=form), (is_, is_)).total
    expected = 2 * math.log(2) if form == "official" else 0.0
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_texts_of_the_same_words_have_the_same_number():
    words = torch.tensor([[[3, 1, 0], [1, 3, 0]], [[3, 1, 0], [0, 0, 0]], [[3, 0, 1], [1, 3, 1]]])
    numbers = text_ids(words)
    assert numbers[0, 0] == numbers[1, 0]
    assert len(set(numbers.flatten().tolist())) == 5
    many = torch.randint(0, 2**16, (1, 100_000, 16), generator=torch.Generator().manual_seed(0))
    assert len(text_ids(many).unique()) == 100_000


@each_form
@pytest.mark.parametrize("known", [None, some_identity()])
@pytest.mark.parametrize("chunk", [1, 4, 7, 1000])
def test_chunks_change_neither_loss_nor_gradients(form, chunk, known):
    z, both = some_embeddings(), known and (known, known)
    whole = contrast(z, z, LossConfig(form=form), both).total
    chunked = contrast(z, z, LossConfig(form=form, chunk=chunk), both).total
    assert_close(chunked, whole)
    assert_close(gradients(z, chunked), gradients(z, whole))


def test_chunks_keep_no_block_of_scores_for_the_backward_pass():
    z = some_embeddings(clips=40)
    _, bags = unit_pairs(z)
    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        mil_nce(bags, bags, LossConfig())
    assert max(kept) == 40 * 40 * 3  # all scores
    kept.clear()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        mil_nce(bags, bags, LossConfig(chunk=10))
    assert max(kept) == 40 * 3 * 5  # the texts themselves; a chunk's scores are made again


def test_loss_is_in_float32_under_autocast():
    z = some_embeddings()
    expected = contrast(z, z, LossConfig()).total
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = contrast(z, z, LossConfig()).total
    assert loss.dtype == torch.float32
    assert loss.item() == expected.item()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"temperature": 0.0}, "loss.temperature: found 0.0"),
        ({"text_weight": -1.0}, "loss.text_weight: found -1.0"),
        ({"chunk": 0}, "loss.chunk: found 0"),
    ],
)
def test_impossible_settings_are_refused_by_name(settings, named):
    with pytest.raises(ConfigError, match=named):
        LossConfig(**settings)
