import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.small_shards import Video, write_shards
from vatt.contracts import ClipSpec
from vatt.data.annotations import AnnotationReader, nearest_captions
from vatt.data.data_config import DataConfig
from vatt.data.tokenizer import WordTokenizer
from vatt.shards.read import ShardFolder
from vatt.shards.record import SampleRecord

spans = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 6)).map(lambda s: (s[0], s[0] + s[1])), max_size=12
)


@given(spans, st.integers(0, 40), st.integers(1, 6), st.none() | st.integers(1, 9))
def test_nearest_captions_are_those_of_a_plain_search(spans, middle2, count, gap):
    middle_s = middle2 / 2  # halves: many captions are equally near
    ranked = sorted(
        (abs((start + end) / 2 - middle_s), start, number)
        for number, (start, end) in enumerate(spans)
    )
    expected = [n for distance, _, n in ranked if gap is None or distance <= gap][:count]
    found = nearest_captions(
        np.array(spans, float).reshape(-1, 2), middle_s, count=count, max_gap_s=gap
    )
    assert found.tolist() == expected


SPEC = ClipSpec(texts=1, words=2)
WORDS = WordTokenizer.build(["one"])
LABELS = (
    {"start_s": 0.0, "end_s": 2.0, "action": "left", "room": "hall"},
    {"start_s": 1.0, "end_s": 3.0, "action": "jump", "room": "hall"},
    {"start_s": 3.0, "end_s": 4.0, "action": "left", "room": ""},
)


@pytest.fixture
def data(tmp_path) -> ShardFolder:
    return write_shards(tmp_path, [Video(captions=((0.0, 1.0, "one"),), labels=LABELS), Video()])


@pytest.mark.parametrize("words", [WORDS, None])
def test_labels_are_those_that_hold_at_a_time_by_column(data, words):
    reader = AnnotationReader(data, SPEC, words, DataConfig())
    assert reader.labels(0, 0.5) == {"action": ("left",), "room": ("hall",)}
    assert reader.labels(0, 1.0) == {"action": ("left", "jump"), "room": ("hall",)}
    assert reader.labels(0, 2.0) == {"action": ("jump",), "room": ("hall",)}
    assert reader.labels(0, 3.0) == {"action": ("left",)}  # the room is not known
    assert reader.labels(0, 4.0) == reader.labels(1, 1.0) == {}


def test_a_record_is_read_once_and_by_each_process_anew(data, monkeypatch):
    reader = AnnotationReader(data, SPEC, WORDS, DataConfig())
    read: list[int] = []
    of_row = ShardFolder.read_record

    def counted(folder: ShardFolder, row: int) -> SampleRecord:
        read.append(row)
        return of_row(folder, row)

    monkeypatch.setattr(ShardFolder, "read_record", counted)
    found = [reader.texts(0, time_s)[0] for time_s in (0.5, 0.6)]
    assert reader.labels(0, 0.5)
    assert read == [0]
    sent = pickle.loads(pickle.dumps(reader))
    assert np.array_equal(sent.texts(0, 0.5)[0], found[0])
    assert read == [0, 0]


def test_without_captions_and_labels_to_read_no_record_is_read(data, monkeypatch):
    monkeypatch.setattr(ShardFolder, "read_record", None)
    assert AnnotationReader(data, SPEC, None, DataConfig()).labels(1, 0.0) == {}
