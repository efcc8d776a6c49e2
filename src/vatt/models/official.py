"""The official code's side of every option where it differs from the paper."""

from __future__ import annotations

from dataclasses import replace

from vatt.models.settings import AudioConfig, ModelConfig, TextConfig


def as_official(config: ModelConfig) -> ModelConfig:
    """The same sizes in the form of the official code (docs/paper-vs-code.md has every row).

    Position tables keep their number of rows; the official spectrogram tables have 9 × 16, because
    the code leaves out what is not a whole patch of its 150 frames.
    """
    return replace(
        config,
        audio=config.audio if config.shared else _specific_audio(config.audio),
        text=_agnostic_text(config.text) if config.shared else _specific_text(config.text),
        heads=replace(config.heads, form="official"),
        drop_token_scope="batch",
        drop_token_count="buckets",
        edges="cut",
        patch_bias=True,
        position_form="normed",
        position_resampling="polyharmonic",
        pre_projection=config.shared,
        post_projection=1024 if config.shared else None,
    )


def _specific_audio(audio: AudioConfig) -> AudioConfig:
    if audio.kind == "waveform":
        return audio
    return replace(
        audio,
        transformer=replace(audio.transformer, bias=False),
        transposed_positions=True,
    )


def _specific_text(text: TextConfig) -> TextConfig:
    return replace(
        text,
        transformer=replace(text.transformer, style="t5", bias=False),
        word_width=300,
        frozen_words=True,
        relative_layers="all",
    )


def _agnostic_text(text: TextConfig) -> TextConfig:
    return replace(text, word_width=300, frozen_words=True, positions="absolute")
