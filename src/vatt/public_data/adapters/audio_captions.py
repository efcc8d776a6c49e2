"""AudioCaps and Clotho: audio with captions.

AudioCaps: `train.csv`, `val.csv`, `test.csv`: `audiocap_id,youtube_id,start_time,caption`. No end
is given: a clip lasts 10 s. The 4,875 rows of test are 975 clips with five captions each, the 2,475
of val 495. Version 2.0 (2025, 91,256 rows of train) has the same columns; of its first copies three
rows of train are broken in two (github.com/cdjkim/audiocaps/pull/31), and refused.

Clotho: `clotho_captions_development.csv` (train), `…_validation.csv`, `…_evaluation.csv` (test):
`file_name,caption_1 … caption_5`; clips of 15 to 30 s. Versions share names of files, which have
odd punctuation.
"""

from __future__ import annotations

from vatt.public_data.adapters.audioset import timed_names
from vatt.public_data.listing import CAPTION, Lists, OfficialListing, PublicDataset
from vatt.public_data.official_files import (
    OfficialFiles,
    inside,
    rows,
    seconds,
    split_named_in,
    youtube_id,
)

_AUDIOCAPS = ("youtube_id", "start_time", "caption")
_CLOTHO = ("file_name", *(f"caption_{number}" for number in range(1, 6)))
_CLIP_S = 10.0


def read_audiocaps(files: OfficialFiles) -> OfficialListing:
    """A clip for each id and start, with all its captions."""
    tables, lists = files.tables(*_AUDIOCAPS), Lists()
    if not tables:
        files.missing("list of AudioCaps (.csv: audiocap_id, youtube_id, start_time, caption)")
    for path in tables:
        split = split_named_in(path.stem, str(path))
        for where, row in rows(path, _AUDIOCAPS):
            id_, start_s = youtube_id(row["youtube_id"], where), seconds(row["start_time"], where)
            end_s = start_s + _CLIP_S
            names = (id_, f"Y{id_}", f"{id_}_{int(start_s)}", *timed_names(id_, start_s, end_s))
            lists.add(
                names, split, {CAPTION: row["caption"]},
                key=(id_, start_s), cut_from=(start_s, end_s),
            )  # fmt: skip
    return OfficialListing(files=lists.files())


def read_clotho(files: OfficialFiles) -> OfficialListing:
    """Every file with its five captions."""
    tables, lists = files.tables(*_CLOTHO), Lists()
    if not tables:
        files.missing("list of Clotho (clotho_captions_development.csv …)")
    for path in tables:
        split = split_named_in(path.stem, str(path))
        for where, row in rows(path, _CLOTHO):
            for column in _CLOTHO[1:]:
                name = inside(row["file_name"], where)
                lists.add((name,), split, {CAPTION: row[column]} if row[column] else None)
    return OfficialListing(files=lists.files(), loose=True)


AUDIOCAPS = PublicDataset(
    name="audiocaps", title="audio of 10 s with captions, five each for test", kind="audio",
    lists="train.csv, val.csv, test.csv", read=read_audiocaps,
    published={"train": (49_838,), "val": (495,), "test": (975,)}, fps=1.0, short_side=32,
)  # fmt: skip
CLOTHO = PublicDataset(
    name="clotho", title="audio of 15 to 30 s with five captions each", kind="audio",
    lists="clotho_captions_development.csv, …_validation.csv, …_evaluation.csv", read=read_clotho,
    published={"train": (3839, 2893), "val": (1045,), "test": (1045,)},
    fps=1.0, short_side=32,
)  # fmt: skip
