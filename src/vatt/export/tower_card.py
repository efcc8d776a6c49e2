"""What an exported file says of itself: which tower it is, what a clip is, words, classes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vatt.config import from_values, to_values
from vatt.contracts import AudioKind, ClipSpec, FramePath
from vatt.errors import CheckpointError
from vatt.storage import refuse_newer

FORMAT_VERSION = "1.0"
KEY = "vatt"  # of the metadata of a file
INPUTS = {"video": "frames", "audio": "waveforms", "text": "word_ids"}
# Rows before and after they are scaled to length one: of the clips of a file the former are
# averaged.
OUTPUTS = {
    "video": ("features", "va_rows", "vt_rows", "va", "vt"),
    "audio": ("features", "va_rows", "va"),
    "text": ("features", "vt_rows", "vt"),
}
CLASSIFIER_OUTPUTS = ("features", "logits")

Tower = Literal["video", "audio", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerCard:
    """All that is needed to use an exported tower, kept inside its file."""

    tower: Tower
    classifier: bool = False
    model_hash: str
    """Of the weights it was made from; the towers of one model have the same."""
    clip: ClipSpec
    frame_path: FramePath
    patch: tuple[int, ...]
    """The input's sizes (for text: words) are multiples of these."""
    edges: Literal["pad", "cut"] = "pad"
    """What to do with an input of other sizes: fill it up with `padding`, or cut it."""
    padding: tuple[float, ...] = (0.0,)
    any_size: bool = True
    """Whether other sizes than the clip's are taken; the batch may always have any."""
    audio_kind: AudioKind = "waveform"
    names: tuple[str, ...] = ()
    """Of a classifier's classes, in the order of the logits."""
    classes: int = 0
    several: bool = False
    """Whether a class's probability is the sigmoid of its logit, and not the softmax."""
    numbers: Literal["float32", "int8"] = "float32"
    tokenizer: str = ""
    """The text of tokenizer.json; empty where there is none."""
    vocabulary: int = 0
    """Rows of the word table."""

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps({"format_version": FORMAT_VERSION, **to_values(self)})

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the tower computes."""
        return CLASSIFIER_OUTPUTS if self.classifier else OUTPUTS[self.tower]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the clip's own input, without batch and channels."""
        spec = self.clip
        if self.tower == "video":
            return spec.frames, spec.height, spec.width
        return (spec.samples if self.tower == "audio" else spec.words,)


def read_card(text: str | None, where: str) -> TowerCard:
    """The card in a file's metadata.

    Raises:
        CheckpointError: it has none, or one of a newer format.
    """
    if text is None:
        raise CheckpointError(
            f"{where}: no metadata {KEY!r} in it; expected a file that `vatt export` has written"
        )
    try:
        values: dict[str, Any] = json.loads(text)
        version = values.pop("format_version")
    except (ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{where}: damaged metadata: {error!r}; export it again") from error
    refuse_newer(Path(where), version, FORMAT_VERSION, CheckpointError)
    return from_values(TowerCard, values, where=where)
