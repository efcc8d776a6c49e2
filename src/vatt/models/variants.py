"""The two sides of every option in which the official code differs from the paper.

docs/paper-vs-code.md has a row for each. Sizes stay as they are.
"""

from __future__ import annotations

from dataclasses import replace

from vatt.models.model_config import ModelConfig

WORD_WIDTH, POST_PROJECTION = 300, 1024  # where a model does not say its own


def as_paper(config: ModelConfig) -> ModelConfig:
    """A model of the same sizes in the form of the paper."""
    text, audio = config.text, config.audio
    return replace(
        config,
        audio=replace(
            audio, transformer=replace(audio.transformer, bias=True), transposed_positions=False
        ),
        text=replace(
            text,
            transformer=replace(text.transformer, style="bert", bias=True),
            word_width=None,
            frozen_words=False,
            positions="relative",
            relative_layers="first",
        ),
        heads=replace(config.heads, form="paper"),
        drop_token_scope="sample",
        drop_token_count="tokens",
        edges="pad",
        patch_bias=False,
        position_form="sum",
        position_resampling="bicubic",
        pre_projection=False,
        post_projection=None,
    )


def as_official(config: ModelConfig) -> ModelConfig:
    """A model of the same sizes in the form of the official code.

    Position tables keep their number of rows; the official spectrogram tables have 9 × 16, because
    the code leaves out what is not a whole patch of its 150 frames. The width of words and of the
    post projection, and a pre projection, are kept where the model has them.
    """
    audio = config.audio
    if audio.kind == "spectrogram" and not config.shared:
        audio = replace(
            audio, transformer=replace(audio.transformer, bias=False), transposed_positions=True
        )
    text = replace(config.text, word_width=config.text.word_width or WORD_WIDTH, frozen_words=True)
    if config.shared:
        text = replace(text, positions="absolute")
    else:
        of_t5 = replace(text.transformer, style="t5", bias=False)
        text = replace(text, transformer=of_t5, relative_layers="all")
    return replace(
        config,
        audio=audio,
        text=text,
        heads=replace(config.heads, form="official"),
        drop_token_scope="batch",
        drop_token_count="buckets",
        edges="cut",
        patch_bias=True,
        position_form="normed",
        position_resampling="polyharmonic",
        pre_projection=config.shared or config.pre_projection,
        post_projection=config.post_projection or (POST_PROJECTION if config.shared else None),
    )
