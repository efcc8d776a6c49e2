"""Folders written by older versions; `format-1.0` was made by the code of its time."""

from pathlib import Path

import numpy as np

from tests.media.clips import numbers
from vatt.media.captions.clean import Caption
from vatt.media.media_file import decode_frames
from vatt.shards.read import ShardFolder

FOLDER = Path(__file__).parent / "format-1.0"


def test_a_folder_of_format_1_0_is_read_whole() -> None:
    data = ShardFolder.open(FOLDER)
    assert data.info["format_version"] == "1.0"
    records = [data.read_record(row) for row in range(len(data))]
    assert [(one.source, one.split) for one in records] == [
        ("a talk.mp4", "train"),
        ("test/b.mp4", "test"),
    ]
    assert records[0].captions == (Caption(0.5, 1.5, "slicing onions"),)
    assert records[0].labels == ({"start_s": 0.0, "end_s": 1.0, "action": "slice"},)
    assert records[0].cuts == (1.0,)
    assert list(records[1].missing) == ["captions", "audio"]
    assert all(one.part is None for one in records)
    for row in range(len(data)):
        data.verify(row)
        frames = decode_frames(data.read_video(row), np.arange(20) / 10, size=(48, 64))
        assert numbers(frames) == list(range(20))
