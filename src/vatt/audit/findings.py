"""The kinds of findings: how severe each is, what it means, and what to do about it."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]  # error: what is stored is not what was stored


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of finding."""

    severity: Severity
    means: str
    to_do: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something found: of which kind, where, and the detail in words.

    kind: a name in `KINDS`.
    key: the video; empty when it is about a whole shard or folder.
    weight: sorts the findings of a kind, the worst first.
    others: folder and key of videos that belong to the finding, too.
    """

    kind: str
    _: KW_ONLY
    folder: str
    shard: str = ""
    key: str = ""
    detail: str = ""
    weight: float = 0.0
    others: tuple[tuple[str, str], ...] = ()


_AGAIN = "copy the shard again from where it was made, or remove it and make the folder again"
_INDEX = "run `vatt prepare` (or `vatt index-shards`) again: it makes the index anew"
_SPLITS = "decide where they belong: give both one split in the manifest and prepare again"
_LEAVE_OUT = "leave the videos out by a manifest"

KINDS = {
    "unreadable folder": Kind(
        "error", "dataset.json or index.parquet is missing, damaged or of a newer format", _INDEX
    ),
    "missing shard": Kind("error", "the index lists a shard that is not there", _AGAIN),
    "damaged tar": Kind("error", "a shard is cut off, or a header in it is destroyed", _AGAIN),
    "strange member": Kind(
        "error", "a shard holds a link, a device or a file with an unsafe name", _AGAIN
    ),
    "wrong place": Kind("error", "the index points to where the video is not", _INDEX),
    "cut off": Kind("error", "a shard ends before a video that the index lists", _AGAIN),
    "checksum": Kind("error", "the bytes of a video are not those that were stored", _AGAIN),
    "bad record": Kind("error", "captions and facts of a video cannot be read", _AGAIN),
    "index differs": Kind("error", "the index and the video's own record disagree", _INDEX),
    "same key twice": Kind("error", "two videos have the same key", _INDEX),
    "undecodable": Kind(
        "error", "frames or audio cannot be decoded", f"prepare the source again, or {_LEAVE_OUT}"
    ),
    "lost decoder": Kind(
        "error",
        "decoding crashed, took too long or took too much memory",
        f"prepare the source again, or {_LEAVE_OUT}",
    ),
    "not in the index": Kind("warning", "a shard, or a video in one, is not in the index", _INDEX),
    "wrong duration": Kind(
        "warning", "a video is longer or shorter than the index says", "prepare it again"
    ),
    "uneven rate": Kind(
        "warning", "frames are not equally long", "prepare it again without --copy"
    ),
    "stored form": Kind(
        "warning",
        "a prepared video does not have the form that dataset.json promises",
        "prepare it again without --copy",
    ),
    "sound gap": Kind(
        "warning",
        "the audio starts well after the first frame or ends well before the last one",
        f"look at the source: was it cut wrongly? Or {_LEAVE_OUT}",
    ),
    "silent": Kind(
        "warning",
        "there is an audio track, but it is silent",
        "set data.silent_below so that training counts it as a video without audio",
    ),
    "black": Kind("warning", "all frames that were looked at are black", _LEAVE_OUT),
    "frozen": Kind("warning", "all frames that were looked at are equal", _LEAVE_OUT),
    "caption times": Kind(
        "warning", "captions lie outside of their video", "check that the captions belong to it"
    ),
    "damaged source": Kind(
        "warning",
        "the file that a video was made from is damaged or cut off; no clip is of what is damaged",
        "nothing, or get the source again and prepare it again",
    ),
    "same content": Kind(
        "warning",
        "videos are equal byte for byte",
        "keep one of them: the others only give it more weight",
    ),
    "near-duplicate": Kind(
        "warning", "videos look and sound alike", "look at them on the page; keep one of a group"
    ),
    "leak: same content": Kind("warning", "the same file is in two splits", _SPLITS),
    "leak: near-duplicate": Kind("warning", "videos of two splits look and sound alike", _SPLITS),
    "leak: same source": Kind("warning", "parts of one source are in two splits", _SPLITS),
    "refused member": Kind(
        "note",
        "a tar of others holds a link, a device or a file with an unsafe name: it is not read",
        "nothing, unless it should be a video: then rename it where the tar is made",
    ),
    "slow to read": Kind(
        "note",
        "key frames are far apart, or frames reordered: reading at random decodes many frames",
        "if training waits for data, run `vatt prepare` on the originals",
    ),
    "no captions": Kind("note", "a video has no captions", "fine for video and audio alone"),
    "sparse captions": Kind(
        "note", "captions cover little of a video", "check the caption files, or use --asr"
    ),
    "other language": Kind(
        "note",
        "captions are in another language than most of the folder's",
        "train a vocabulary on all languages, or leave the videos out",
    ),
    "not looked at": Kind(
        "note", "something could not be checked", "see the detail for what to install or change"
    ),
}
"""By name; errors first."""
