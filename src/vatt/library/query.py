"""Queries: words, audio, clips and images, as vectors to compare the windows of an index with.

Words are compared with the video of a window (`vt`), as in training, and so are a clip and an
image, by their video: in the space of video and audio (`va`) they find no more (docs/search.md).
Audio is compared with the audio of a window (`audio_va`); in an index without any audio with the
video (`va`). Cosines of words are spread over a narrower range than those of clips, so among
several parts each is divided by how much its cosines vary over the index: a weight of 1 then counts
the same for all.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from vatt.any_encoder import OpenedEncoder
from vatt.contracts import ClipSpec, FramePath
from vatt.data.file_clips import (
    frames_around,
    spread_frames,
    spread_waveforms,
    waveform_around,
)
from vatt.encoder import Encoder
from vatt.errors import ConfigError, MediaError
from vatt.library.vector_index import Column, Index, Term, Vectors, matrix_of
from vatt.media.media_file import open_media

logger = logging.getLogger(__name__)

Kind = Literal["words", "audio", "video", "image", "seen", "heard"]
Signal = NDArray[np.float32]
MAX_TIME_S = 24 * 3600.0
_SHORTEST_S = 0.05  # of a file to search with
_SILENT = 8  # a peak, of 32,768: what codecs leave of silence


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryPart:
    """A part of a query.

    kind: what it is; seen and heard: a window of the index, whose video or audio is meant ("more
        like this").
    value: the words, the file, or the id.
    weight: how much it counts; negative: what is like it comes last.
    at_s: the second of the file that is meant; None: all of it.
    """

    kind: Kind
    value: str
    weight: float = 1.0
    at_s: float | None = None


def parse_part(kind: Kind, given: str, *, sign: float = 1.0) -> QueryPart:
    """A part as users write it: `slicing onions`, `slicing onions^2`, `clip.mp4@12.5^0.5`.

    Raises:
        ConfigError: the weight or the second is no number in its range, or there is nothing else.
    """
    value, weight, at_s = given, 1.0, None
    is_file = kind in ("audio", "video", "image")
    if not (is_file and Path(given).exists()):
        value, mark, number = given.rpartition("^")
        value, weight = (value, _number(given, number, 1e6)) if mark else (given, 1.0)
        if kind in ("audio", "video") and not Path(value).exists():
            name, mark, number = value.rpartition("@")
            if mark and name:
                value, at_s = name, _number(given, number, MAX_TIME_S)
    if not value.strip():
        raise ConfigError(f"found an empty query for {kind}, expected some")
    return QueryPart(kind=kind, value=value, weight=sign * weight, at_s=at_s)


def _number(given: str, number: str, most: float) -> float:
    try:
        found = float(number)
    except ValueError:
        found = -1.0
    if not 0 <= found <= most:
        raise ConfigError(
            f"{given!r}: found {number!r}, expected words^WEIGHT, file^WEIGHT or file@SECONDS"
        )
    return found


# ── files as signals ─────────────────────────────────────────────────────────────────────────────


def read_signal(
    path: Path, kind: str, spec: ClipSpec, frame_path: FramePath, at_s: float | None = None
) -> tuple[str, Signal]:
    """A file to search with: its kind, and its clips as an encoder takes them.

    Args:
        path: the file.
        kind: "audio", "video", "image", or "any": whatever the file is, video before audio.
        spec: of the encoder's clips.
        frame_path: how frames come to it.
        at_s: the second in the middle of the clip that is meant; four clips of the file if None.

    Raises:
        MediaError: the file cannot be decoded, or has nothing of this kind.
    """
    with open_media(path, damaged=at_s is None, sparsely=True) as media:
        if at_s is not None and at_s > media.facts.duration_s:
            raise MediaError(
                f"{path}: found a length of {media.facts.duration_s:.1f} s, expected at least "
                f"the {at_s:g} s that are asked for"
            )
        if kind == "any":
            kind = ("image" if media.is_image else "video") if media.has_video else "audio"
        if kind == "audio":
            found = (
                spread_waveforms(media, spec)
                if at_s is None
                else waveform_around(media, at_s, spec)
            )
            if found is None or found.shape[1] < _SHORTEST_S * spec.sample_rate_hz:
                raise MediaError(f"{path}: has no audio to search with")
            if np.abs(found.astype(np.int32)).max() <= _SILENT:
                raise MediaError(f"{path}: its audio is silent, so nothing can be compared with it")
            return kind, np.asarray(found, np.float32) / np.float32(2**15)
        if not media.has_video:
            raise MediaError(f"{path}: has no video, only audio; search with it as audio")
        device = torch.device("cpu")
        if at_s is None:
            frames = spread_frames(media, spec, frame_path, device)
        else:
            frames = frames_around(media, at_s, spec, frame_path, device)
        return kind, frames.numpy()


# ── terms ────────────────────────────────────────────────────────────────────────────────────────


def terms_of(
    index: Index,
    encoder: OpenedEncoder,
    parts: Sequence[QueryPart],
    signals: Sequence[tuple[QueryPart, str, Signal]] = (),
) -> tuple[list[Term], list[str]]:
    """What the windows of an index are compared with, and what is to be said about the query.

    Args:
        index: the index.
        encoder: with the model that it was made with.
        parts: words, windows, and files that are read here.
        signals: files that were read elsewhere: their part, kind and clips.

    Raises:
        ConfigError: there is nothing to search for, or no word of the query is known.
        MediaError: a file cannot be read.
        DataError: the index has no such window.
    """
    notes: list[str] = []
    terms: list[Term] = []
    for part in parts:
        if part.kind == "words":
            terms.append(_of_words(encoder, part, notes))
        elif part.kind in ("seen", "heard"):
            terms.append(_of_window(index, part))
        else:
            path = Path(part.value)
            read = read_signal(path, part.kind, encoder.spec, encoder.frame_path, part.at_s)
            terms.append(_of_signal(index, encoder, part, *read))
    terms += [_of_signal(index, encoder, *one) for one in signals]
    if not any(term.weight > 0 for term in terms):
        raise ConfigError(
            "found nothing to search for, expected words, audio, a clip or an image (what is to "
            "be avoided alone finds nothing)"
        )
    return _evened(index, terms), notes


def _of_words(encoder: OpenedEncoder, part: QueryPart, notes: list[str]) -> Term:
    text = part.value
    encoded = encoder.encoder.encode_text([text])
    unknown, rows = getattr(encoded, "unknown", None), getattr(encoded, "vt", None)
    share = 0.0 if unknown is None else float(unknown[0])
    words, strange, cut = _words_of(encoder, text)
    if share >= 1.0:
        raise ConfigError(
            f"{text!r}: the model knows none of these words; it knows only words of the captions "
            "that it was trained with: try others"
        )
    if strange:
        notes.append(f"the model does not know: {', '.join(strange)}")
    elif share > 0:
        notes.append(f"the model does not know {share:.0%} of the words of {text!r}")
    if cut:
        notes.append(f"only the first {len(words) - len(cut)} words count; not: {' '.join(cut)}")
    if rows is None:
        raise ConfigError("the encoder has no space of text and video (vt): search by a file")
    return Term(_vector(rows), "vt", part.weight)


def _words_of(encoder: OpenedEncoder, text: str) -> tuple[list[str], list[str], list[str]]:
    """Words of a text, those that are unknown, and those that are cut off; of our models alone."""
    ours = encoder.encoder
    if not isinstance(ours, Encoder) or ours.tokenizer is None:
        return [], [], []
    words, ids = ours.tokenizer.words_of(text), []
    if words:
        ids = ours.tokenizer.encode(words, 1)[:, 0].tolist()
    read = ours.spec.words
    strange = [
        word
        for word, number in zip(words[:read], ids, strict=False)
        if number == ours.tokenizer.unknown_id
    ]
    return words, list(dict.fromkeys(strange)), words[read:]


def _of_window(index: Index, part: QueryPart) -> Term:
    column: Column = "audio_va" if part.kind == "heard" else "vt"
    if column not in index.manifest.dims:
        raise ConfigError(f"the index has no {column} to find what is like a window of it")
    window = index.window(part.value)
    (vector,) = index.vectors([window.window_id], column)
    if vector is None:
        lacks = "audio" if part.kind == "heard" else "video"
        raise ConfigError(f"{part.value}: this window has no {lacks} to compare others with")
    return Term(vector, column, part.weight)


def _of_signal(
    index: Index, encoder: OpenedEncoder, part: QueryPart, kind: str, signal: Signal
) -> Term:
    values = torch.from_numpy(signal)
    if kind == "audio":
        rows = encoder.encoder.encode_audio(values, sample_rate_hz=encoder.spec.sample_rate_hz).va
        column: Column = "audio_va" if _has_any(index, "audio_va") else "va"
    else:
        encoded = encoder.encoder.encode_video(values)
        column = "vt" if encoded.vt is not None else "va"
        rows = encoded.vt if column == "vt" else encoded.va
    if rows is None or column not in index.manifest.dims:
        raise ConfigError(f"the index cannot be searched by {kind}: its encoder has no such space")
    return Term(_vector(rows), column, part.weight)


def _has_any(index: Index, column: Column) -> bool:
    return column in index.manifest.dims and any(one.has_audio for one in index.files())


def _vector(rows: torch.Tensor) -> Vectors:
    """The direction of the mean of unit rows [n, E]."""
    mean = rows.detach().float().mean(0)
    return np.asarray((mean / mean.norm().clamp_min(1e-12)).cpu().numpy(), np.float32)


def _evened(index: Index, terms: list[Term]) -> list[Term]:
    """Among several terms, weights divided by the spread of each term's cosines."""
    if len(terms) < 2:
        return terms
    table = next(index.batches(), None)
    if table is None:
        return terms
    evened = []
    for term in terms:
        matrix, present = matrix_of(table[term.column])
        spread = float((matrix[present] @ term.vector).std()) if present.any() else 0.0
        evened.append(Term(term.vector, term.column, term.weight / max(spread, 1e-6)))
    return evened
