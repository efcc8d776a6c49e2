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


def nearest(spans, middle_s, count=12, gap=None, segment=None) -> list[int]:
    spans_s = np.array(spans, float).reshape(-1, 2)
    found = nearest_captions(spans_s, middle_s, count=count, max_gap_s=gap, segment_s=segment)
    return list(found.tolist())


@given(spans, st.integers(0, 40), st.integers(1, 6), st.none() | st.integers(1, 9))
def test_nearest_captions_are_those_of_a_plain_search(spans, middle2, count, gap):
    middle_s = middle2 / 2  # halves: many captions are equally near
    ranked = sorted(
        (abs((start + end) / 2 - middle_s), start, number)
        for number, (start, end) in enumerate(spans)
    )
    expected = [n for distance, _, n in ranked if gap is None or distance <= gap][:count]
    assert nearest(spans, middle_s, count, gap) == expected


@given(spans, st.integers(0, 9), st.integers(1, 9), st.floats(0, 0.99), st.integers(1, 9))
def test_captions_of_a_segment_are_those_that_lie_in_it_or_span_it(spans, first, length, at, gap):
    last, middle_s = first + length, first + at * length
    found = nearest(spans, middle_s, 12, gap, (first, last))
    for number, (start, end) in enumerate(spans):
        middle, inside = (start + end) / 2, min(end, last) - max(start, first)
        belongs = first <= middle < last or start <= (first + last) / 2 < end
        apart = 0.0 if start <= middle_s < end else abs(middle - middle_s)
        assert (number in found) == (belongs and apart <= gap)
        assert not belongs or 2 * inside >= min(end - start, last - first)  # at least half of one


def test_a_caption_from_the_other_side_of_a_cut_is_no_text_however_near():
    spans = [(0.0, 3.9), (4.1, 5.0), (3.0, 4.2)]  # the cut is at 4 s
    assert nearest(spans, 3.5, segment=(0, 4)) == [2, 0]
    assert nearest(spans, 4.5, segment=(4, 9)) == [1]
    assert nearest(spans, 3.5) == [2, 1, 0]


def test_a_caption_that_is_on_during_the_clip_is_near_however_long_it_is():
    spans = [(0.0, 300.0), (14.0, 20.0), (41.0, 43.0), (100.0, 101.0)]
    assert nearest(spans, 16.0, gap=10.0, segment=(0, 300)) == [1, 0]
    assert nearest(spans, 40.0, gap=10.0, segment=(0, 300)) == [0, 2]
    assert nearest(spans, 40.0, gap=10.0, segment=(30, 50)) == [0, 2]  # of all segments it spans
    assert nearest(spans, 40.0, gap=10.0) == [2]


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


def test_texts_are_those_between_the_cuts_around_a_clip_unless_set_otherwise(tmp_path):
    captions = ((0.2, 1.4, "left"), (1.6, 1.8, "right"), (3.0, 3.8, "jump"))
    data = write_shards(tmp_path, [Video(captions=captions, cuts=(2.9, 1.5, 0.0, 7.0))])
    words = WordTokenizer.build([text for *_, text in captions])
    names = {words.encode([text], 1)[0, 0]: text for *_, text in captions}

    def texts(middle_s: float, **settings) -> list[str]:
        reader = AnnotationReader(data, ClipSpec(texts=3, words=1), words, DataConfig(**settings))
        word_ids, mask = reader.texts(0, middle_s)
        return [names[number] for number in word_ids[mask, 0].tolist()]

    assert [texts(middle_s) for middle_s in (1.4, 1.5, 2.8)] == [["left"], ["right"], ["right"]]
    assert [texts(middle_s) for middle_s in (2.9, 4.0)] == [["jump"], ["jump"]]
    assert texts(1.4, few_captions="repeat") == ["left"] * 3
    assert texts(1.4, positives="nearest") == ["right", "left", "jump"]
    assert texts(1.4, positives="nearest", max_caption_gap_s=1.0) == ["right", "left"]
