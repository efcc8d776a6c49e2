"""Losses: contrast in the two common spaces (§3.4, eq. 4–6); cross-entropies of classifiers.

Pure functions of tensors. They know no ranks: a caller with several ranks gathers the rows, says
which of them are its own, and gets its share; the shares of all ranks add up to the batch's loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product, repeat
from typing import Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vatt.contracts import Embeddings, draw_bits
from vatt.errors import ConfigError

LossForm = Literal["paper", "official", "symmetric", "sigmoid"]
Normaliser = Literal["global", "local"]

SAME_CLIP = 500  # thousandths of a clip: what starts nearer than this shares more than half
SCORES_AT_ONCE = 2**28  # 1 GiB
MASKED = -1e9  # masks a score: exp(-1e9) is 0, softplus too, and unlike -inf it makes no NaN


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """The training objective (§3.4, §4.3)."""

    temperature: float = 0.07
    """Of both losses; where they are learned (`model.heads.learned`), what they begin with."""
    bias: float = -10.0  # SigLIP
    """Added to the scores of form "sigmoid": most pairs are wrong ones, which it says already."""
    text_weight: float = 1.0
    """λ of eq. 6, the weight of the video-text loss."""
    form: LossForm = "paper"
    """paper: eq. 4 and 5, videos choose among audio and texts. official: one logarithm over both
    directions, minimum ln 2. symmetric: the sum of the two directions (the code's alternative).
    sigmoid: of each pair of a clip and an audio or a text by itself, whether they belong together
    (SigLIP)."""
    total: Literal["sum", "mean"] = "sum"
    """sum: eq. 6. mean: the weighted mean of the two losses (official)."""
    mask_normaliser: Normaliser = "global"
    """Mean over the valid clips of all ranks, or of each rank and then of ranks (official)."""
    duplicates: Literal["left_out", "negatives"] = "left_out"
    """What else the batch holds of a clip itself. left_out: clips that share more than half of
    their time, and texts of the same words as one of its own, are not its negatives. negatives:
    they are (eq. 4 and 5 to the letter)."""
    chunk: int | None = None
    """Columns of the similarity matrix held at once; left out: as many as make 1 GiB of scores.
    Fewer save memory and cost time."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"loss.temperature: found {self.temperature}, expected > 0")
        if self.text_weight < 0:
            raise ConfigError(f"loss.text_weight: found {self.text_weight}, expected >= 0")
        if self.chunk is not None and self.chunk < 1:
            raise ConfigError(f"loss.chunk: found {self.chunk}, expected >= 1 (or leave it out)")


class Scale(NamedTuple):
    """Makes scores of cosines, cosine / temperature + bias: numbers, or learned scalars."""

    temperature: Tensor | float
    bias: Tensor | float


@dataclass(frozen=True, slots=True)
class VideoAudio:
    """Unit rows of the va space: video [B, E], audio [B, E], has_audio bool [B]."""

    video: Tensor
    audio: Tensor
    has_audio: Tensor


@dataclass(frozen=True, slots=True)
class VideoTexts:
    """Unit rows of the vt space: video [B, E], texts [B, K, E], text_mask bool [B, K]."""

    video: Tensor
    texts: Tensor
    text_mask: Tensor


class Identity(NamedTuple):
    """Which clips and texts these are, to know one that comes twice in a batch.

    video: int64 [B], equal for clips of one video; start: int64 [B], in thousandths of a clip's
    duration; texts: int64 [B, K], equal for texts of the same words.
    """

    video: Tensor
    start: Tensor
    texts: Tensor

    def masked(self, text_mask: Tensor, number: int) -> Identity:
        """The same with `number` for the texts that bool [B, K] says are none."""
        return self._replace(texts=self.texts.masked_fill(~text_mask, number))

    def without_texts(self, number: int) -> Identity:
        """The same with `number` for the one thing that each clip is contrasted with."""
        return self._replace(texts=torch.full_like(self.video, number)[:, None])

    def flat(self) -> Identity:
        """Of each text by itself: [B × K] texts, [B × K, 1]."""
        video, start = (of.repeat_interleave(self.texts.shape[1]) for of in self[:2])
        return Identity(video, start, self.texts.flatten()[:, None])

    def split(self, chunk: int) -> list[Identity]:
        """Pieces of `chunk` rows; the last may have fewer."""
        pieces = (torch.split(of, chunk) for of in self)
        return [Identity(*rows) for rows in zip(*pieces, strict=True)]

    def repeats(self, columns: Identity) -> Tensor:
        """Where a column is of the same clip as a row, or has a text in common: [rows, columns]."""
        apart = (self.start[:, None] - columns.start).abs()
        same = (self.video[:, None] == columns.video) & (apart < SAME_CLIP)
        for mine, other in product(self.texts.unbind(1), columns.texts.unbind(1)):
            same |= mine[:, None] == other
        return same


Known = tuple[Identity, Identity]  # of the rows, and of the columns that they are compared with


def text_ids(word_ids: Tensor) -> Tensor:
    """A number for each text, int64 [B, K], equal for equal rows of the int64 [B, K, L] words."""
    factors = torch.tensor([draw_bits(position) | 1 for position in range(word_ids.shape[-1])])
    return (word_ids * factors.to(word_ids.device, non_blocking=True)).sum(-1)  # modulo 2^64


@dataclass(frozen=True, slots=True)
class Losses:
    """This rank's shares: scalars that add up over the ranks."""

    total: Tensor
    video_audio: Tensor
    video_text: Tensor


def contrast(
    mine: Embeddings, all_ranks: Embeddings, config: LossConfig, identities: Known | None = None
) -> Losses:
    """The objective of one batch (eq. 6).

    Args:
        mine: this rank's B clips.
        all_ranks: the G clips of all ranks, `mine` among them, gathered with gradient; `mine`
            itself when alone.
        config: temperature, weights and form.
        identities: of `mine` and of `all_ranks`, to know duplicates by.
    """
    va, vt = learned_scales(mine, config)
    video_audio = nce(_video_audio(mine), _video_audio(all_ranks), config, identities, va)
    video_text = mil_nce(_video_texts(mine), _video_texts(all_ranks), config, identities, vt)
    return Losses(combine(video_audio, video_text, config), video_audio, video_text)


def learned_scales(z: Embeddings, config: LossConfig) -> tuple[Scale | None, Scale | None]:
    """Of the va and vt spaces; None where the settings say it."""
    if z.log_scales is None:
        return None, None
    biases = (config.bias, config.bias) if z.biases is None else z.biases.unbind()
    va, vt = map(Scale, (-z.log_scales).exp().unbind(), biases)
    return va, vt


def combine(video_audio: Tensor, video_text: Tensor, config: LossConfig) -> Tensor:
    """NCE + λ MIL-NCE (eq. 6), or their weighted mean (official)."""
    total = video_audio + config.text_weight * video_text
    return total if config.total == "sum" else total / (1 + config.text_weight)


def nce(
    mine: VideoAudio,
    all_ranks: VideoAudio,
    config: LossConfig,
    identities: Known | None = None,
    scale: Scale | None = None,
) -> Tensor:
    """Contrast video with audio (eq. 4): MIL-NCE with one candidate a clip, its own audio."""
    if identities is not None:  # audio comes twice where its clip does, by nothing else
        identities = identities[0].without_texts(-1), identities[1].without_texts(-2)
    return mil_nce(_as_bags(mine), _as_bags(all_ranks), config, identities, scale)


def mil_nce(
    mine: VideoTexts,
    all_ranks: VideoTexts,
    config: LossConfig,
    identities: Known | None = None,
    scale: Scale | None = None,
) -> Tensor:
    """Contrast clips with texts when a clip has several positive texts (eq. 5).

    Args:
        mine: this rank's unit rows; a masked text (§4.1) is neither positive nor negative.
        all_ranks: the same of all ranks, [G, …], `mine` among them; the paper's form uses only
            its texts, and so does sigmoid; the others contrast with its videos too.
        config: temperature τ, form, normaliser, chunk, and what becomes of duplicates.
        identities: of `mine` and of `all_ranks`, to know duplicates by.
        scale: learned, in place of the temperature and bias in `config`.

    Returns:
        Scalar, this rank's share of the mean over clips with text: the shares of all ranks add up
        to the loss of the whole batch. Zero, still differentiable, when no clip has text.
    """
    if config.duplicates == "negatives":
        identities = None
    with torch.autocast(mine.video.device.type, enabled=False):
        scale = scale or Scale(config.temperature, config.bias)
        of_clips = _sigmoid_losses if config.form == "sigmoid" else _clip_losses
        losses = of_clips(mine, all_ranks, config, identities, scale)
    valid = mine.text_mask.any(-1)
    summed = torch.where(valid, losses, 0.0).sum()
    if config.mask_normaliser == "local":
        share = len(mine.video) / len(all_ranks.video)
        return summed / valid.sum().clamp(min=1) * share
    return summed / all_ranks.text_mask.any(-1).sum().clamp(min=1)


def _sigmoid_losses(
    mine: VideoTexts,
    all_ranks: VideoTexts,
    config: LossConfig,
    identities: Known | None,
    scale: Scale,
) -> Tensor:
    """As `_clip_losses`: -log σ(score) of each text of a clip, -log σ(-score) of all others."""
    own = torch.einsum("be,bke->bk", mine.video, mine.texts) / scale.temperature + scale.bias
    known = None
    if identities is not None:  # own texts are known, too: they are left out
        others = identities[1].masked(all_ranks.text_mask, -2).flat()
        known = identities[0].masked(mine.text_mask, -1), others
    columns, mask = all_ranks.texts.flatten(0, 1), all_ranks.text_mask.flatten()
    negatives = _over_columns(_softplus_sum, mine.video, columns, mask, scale, config.chunk, known)
    # -log σ(s) is softplus(-s) = softplus(s) - s, and softplus(s) stands among the negatives.
    positives = -own if identities is None else F.softplus(-own)
    return negatives + positives.masked_fill(~mine.text_mask, 0.0).sum(-1)


def _clip_losses(
    mine: VideoTexts,
    all_ranks: VideoTexts,
    config: LossConfig,
    identities: Known | None,
    scale: Scale,
) -> Tensor:
    """Loss of each of this rank's clips, [B]; any finite number for a clip without valid text."""
    B, K, _ = mine.texts.shape
    own = torch.einsum("be,bke->bk", mine.video, mine.texts) / scale.temperature
    positives = own.masked_fill(~mine.text_mask, MASKED).logsumexp(-1)
    to_texts = to_videos = None
    if identities is not None:  # masked texts have words in common with none
        ours = identities[0].masked(mine.text_mask, -1)
        others = identities[1].masked(all_ranks.text_mask, -2)
        to_texts, to_videos = (ours, others.flat()), (ours.flat(), others)

    def scores(rows: Tensor, columns: Tensor, mask: Tensor | None, known: Known | None) -> Tensor:
        return _over_columns(torch.logsumexp, rows, columns, mask, scale, config.chunk, known)

    def all_of(log_sums: Tensor) -> Tensor:
        """With duplicates left out a clip's own positives were left out, too."""
        return log_sums if identities is None else torch.logaddexp(log_sums, positives)

    columns, column_mask = all_ranks.texts.flatten(0, 1), all_ranks.text_mask.flatten()
    videos_choose = all_of(scores(mine.video, columns, column_mask, to_texts))
    if config.form == "paper":
        return videos_choose - positives
    from_each = scores(mine.texts.flatten(0, 1), all_ranks.video, None, to_videos).view(B, K)
    texts_choose = all_of(from_each.masked_fill(~mine.text_mask, MASKED).logsumexp(-1))
    if config.form == "official":
        return torch.logaddexp(videos_choose, texts_choose) - positives
    return videos_choose + texts_choose - 2 * positives


Reduction: TypeAlias = Callable[[Tensor, int], Tensor]  # (tensor, axis): of chunks and of them all


def _over_columns(
    reduce: Reduction,
    rows: Tensor,
    columns: Tensor,
    column_mask: Tensor | None,
    scale: Scale,
    chunk: int | None,
    known: Known | None,
) -> Tensor:
    """What the scores of each row with the unmasked columns come to, [rows].

    `torch.logsumexp` gives the logarithm log Σ_c exp(row · column_c / τ), `_softplus_sum` the sum
    Σ_c log(1 + exp(row · column_c / τ + bias)).

    Columns that are known to repeat a row are left out for that row. In chunks, the scores of a
    chunk are dropped and computed again in the backward pass, so that memory is rows × chunk.
    """
    chunk = chunk or max(1, SCORES_AT_ONCE // len(rows))
    if chunk >= len(columns):
        return _of_chunk(reduce, rows, columns, column_mask, scale, known)
    if column_mask is None:
        column_mask = torch.ones(len(columns), dtype=torch.bool, device=columns.device)
    pieces = torch.split(columns, chunk), torch.split(column_mask, chunk)
    pairs = repeat(None) if known is None else ((known[0], of) for of in known[1].split(chunk))
    parts = [
        checkpoint(_of_chunk, reduce, rows, part, mask, scale, pair, use_reentrant=False)
        for part, mask, pair in zip(*pieces, pairs, strict=False)
    ]
    together = torch.stack(parts)
    return together.sum(0) if reduce is _softplus_sum else reduce(together, 0)


def _of_chunk(
    reduce: Reduction,
    rows: Tensor,
    columns: Tensor,
    mask: Tensor | None,
    scale: Scale,
    known: Known | None,
) -> Tensor:
    scores = rows @ columns.T / scale.temperature
    if reduce is _softplus_sum:
        scores = scores + scale.bias
    if mask is not None:
        scores = scores.masked_fill(~mask, MASKED)
    if known is not None:
        scores = scores.masked_fill(known[0].repeats(known[1]), MASKED)
    return reduce(scores, -1)


def _softplus_sum(scores: Tensor, axis: int) -> Tensor:
    return F.softplus(scores).sum(axis)


def unit(rows: Tensor) -> Tensor:
    """Rows scaled to length 1 along the last axis, in float32 (§4.3)."""
    return F.normalize(rows.float(), dim=-1, eps=1e-6)


def _video_audio(z: Embeddings) -> VideoAudio:
    return VideoAudio(unit(z.video_va), unit(z.audio_va), z.has_audio)


def _video_texts(z: Embeddings) -> VideoTexts:
    return VideoTexts(unit(z.video_vt), unit(z.text_vt), z.text_mask)


def _as_bags(rows: VideoAudio) -> VideoTexts:
    return VideoTexts(rows.video, rows.audio[:, None], rows.has_audio[:, None])


def softmax_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each clip [B] where one class is true.

    Args:
        logits: [B, classes].
        targets: float [B, classes], one-hot rows, smoothed or mixed.
    """
    with torch.autocast(logits.device.type, enabled=False):
        return -(targets.float() * logits.float().log_softmax(-1)).sum(-1)


def balanced_sigmoid_cross_entropy(logits: Tensor, targets: Tensor, all_targets: Tensor) -> Tensor:
    """Cross-entropy of each clip [B] where several classes can be true, summed over the classes.

    A clip weighs the mean, over its labels, of 1 / how often the label occurs in the batch: "the
    inverse of the per-batch number of repetitive labels it carries". Of mixed clips all of this is
    of shares of labels, as in the official code. A clip without a label weighs nothing.

    Args:
        logits: [B, classes].
        targets: float [B, classes] in [0, 1]; rows may be mixed.
        all_targets: [G, classes], those of all ranks, `targets` among them; the same when alone.
    """
    with torch.autocast(logits.device.type, enabled=False):
        targets = targets.float()
        losses = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
        return label_balance(targets, all_targets.float()) * losses.sum(-1)


def label_balance(targets: Tensor, all_targets: Tensor) -> Tensor:
    """Weight of each clip [B]: the mean of 1 / occurrences over its labels (shares count as such).

    Args:
        targets: float [B, classes].
        all_targets: float [G, classes], in which labels are counted.
    """
    counts = all_targets.sum(0)
    shares = torch.where(counts > 0, targets / counts, 0.0).sum(-1)
    labels = targets.sum(-1)
    return torch.where(labels > 0, shares / labels, 0.0)
