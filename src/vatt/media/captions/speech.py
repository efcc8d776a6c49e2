"""Captions from speech, by recognisers that work without a network; words come with times."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vatt.errors import ConfigError
from vatt.media.audio import AudioReader
from vatt.media.captions.clean import Caption, Word, caption, tidy, words_of
from vatt.media.captions.files import TimedText
from vatt.media.container import media_errors
from vatt.media.facts import player_zero_s
from vatt.media.media_file import MediaFile

POCKETSPHINX, FASTER_WHISPER = "pocketsphinx", "faster-whisper"
RATE_HZ = 16_000
_LONGEST_S = 20.0  # of an utterance; longer ones are cut
_BLOCK_S, _SEARCH_S = 300, 30  # Whisper hears so much at once, cut where its end is quietest
_QUIET = RATE_HZ // 5


def check_engine(asr: str) -> None:
    """Whether a value of `--asr` can be used, before any work is begun.

    Raises:
        ConfigError: it is unknown, its package is not installed, or its folder holds no model.
    """
    engine, _, folder = asr.partition(":")
    if engine not in (POCKETSPHINX, FASTER_WHISPER) or bool(folder) != (engine == FASTER_WHISPER):
        raise ConfigError(
            f"asr: found {asr!r}, expected {POCKETSPHINX}, or {FASTER_WHISPER}:FOLDER with the "
            "folder of a model"
        )
    if folder and not (Path(folder) / "model.bin").is_file():
        raise ConfigError(
            f"asr: {folder}: no model.bin there; expected the folder of a Whisper model in the "
            "format of faster-whisper (CTranslate2)"
        )
    _package(engine)


def transcribe(media: MediaFile, asr: str) -> TimedText:
    """What is said in a file, in player time; no captions when it has no audio.

    Holds minutes of audio at most, however long the file is.

    Raises:
        ConfigError: as `check_engine`.
        MediaError: the audio cannot be decoded.
    """
    engine, _, folder = asr.partition(":")
    with media_errors(media.source):
        zero_s = player_zero_s(media.container)
        audio = AudioReader(
            media.handle(), zero_s=zero_s, sample_rate_hz=RATE_HZ, damage=media.damage
        )
        if engine == POCKETSPHINX:
            return TimedText(tidy(_by_pocketsphinx(audio)), "en")
        return _by_whisper(audio, folder)


def _package(engine: str) -> Any:
    try:
        if engine == POCKETSPHINX:
            import pocketsphinx

            return pocketsphinx
        import faster_whisper
    except ImportError as error:
        raise ConfigError(
            f'asr: {engine} is not installed; install it with pip install "vatt[asr]"'
        ) from error
    return faster_whisper


@functools.cache
def _pocketsphinx_decoder() -> Any:
    return _package(POCKETSPHINX).Decoder(samprate=RATE_HZ, loglevel="FATAL")


@functools.cache
def _whisper_model(folder: str) -> Any:
    model = _package(FASTER_WHISPER).WhisperModel
    return model(folder, compute_type="auto", cpu_threads=1, local_files_only=True)


def _by_pocketsphinx(audio: AudioReader) -> Iterator[Caption]:
    decoder, ends = _pocketsphinx_decoder(), _package(POCKETSPHINX).Endpointer(sample_rate=RATE_HZ)
    size = ends.frame_bytes // 2
    started_s: float | None = None  # of the utterance
    heard_s = 0.0
    for number in itertools.count():
        frame = audio.read_until((number + 1) * size)
        if len(frame) < size:  # the rest is shorter than a syllable
            break
        speech = ends.process(frame.tobytes())
        if speech is None:
            continue
        if started_s is None:
            started_s, heard_s = ends.speech_start, 0.0
            decoder.start_utt()
        decoder.process_raw(speech, no_search=False, full_utt=False)
        heard_s += len(speech) / 2 / RATE_HZ
        if not ends.in_speech or heard_s > _LONGEST_S:
            yield from _utterance(decoder, started_s)
            started_s = None if not ends.in_speech else started_s + heard_s
            if started_s is not None:
                heard_s = 0.0
                decoder.start_utt()
    if started_s is not None:
        yield from _utterance(decoder, started_s)


def _utterance(decoder: Any, started_s: float) -> Iterator[Caption]:
    decoder.end_utt()
    words = [
        Word(
            started_s + part.start_frame / 100,
            started_s + (part.end_frame + 1) / 100,
            part.word.partition("(")[0],  # "the(2)": another pronunciation
        )
        for part in decoder.seg()
        if part.word[0] not in "<["  # <s>, <sil>, [NOISE]
    ]
    if words:
        text = " ".join(word.text for word in words)
        found = caption(words[0].start_s, words[-1].end_s, text, words)
        if found is not None:
            yield found


def _by_whisper(audio: AudioReader, folder: str) -> TimedText:
    language: str | None = None
    captions: list[Caption] = []
    for start_s, waveform in _blocks(audio):
        segments, info = _whisper_model(folder).transcribe(
            waveform, language=language, word_timestamps=True, vad_filter=True
        )
        for segment in segments:
            pieces = [
                (start_s + float(word.start), start_s + float(word.end), word.word)
                for word in segment.words or ()
            ]
            span_s = (start_s + float(segment.start), start_s + float(segment.end))
            found = caption(*span_s, segment.text, words_of(pieces))
            if found is not None:
                captions.append(found)
                language = language or info.language  # of the first that speaks
    return TimedText(tidy(captions), language)


def _blocks(audio: AudioReader) -> Iterator[tuple[float, NDArray[np.float32]]]:
    """Stretches of audio, cut where it is quiet: (start in seconds, samples in [-1, 1])."""
    start, rest = 0, np.zeros(0, np.int16)
    while not audio.ended:
        block = np.concatenate([rest, audio.read_until(start + _BLOCK_S * RATE_HZ)])
        cut = len(block)
        if not audio.ended:  # in the middle of the quietest fifth of a second of the end
            first = max(len(block) - _SEARCH_S * RATE_HZ, 0)
            windows = block[first:][: (len(block) - first) // _QUIET * _QUIET].reshape(-1, _QUIET)
            loudness = np.abs(windows.astype(np.int32)).mean(axis=1)
            cut = first + int(loudness.argmin()) * _QUIET + _QUIET // 2
        yield start / RATE_HZ, block[:cut].astype(np.float32) / np.float32(2**15)
        start, rest = start + cut, block[cut:]
