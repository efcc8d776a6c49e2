"""Examples: where the clips that judge them lie, and the boxes of their crops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.data.small_shards import Video, write_shards
from vatt.contracts import ClipSpec
from vatt.errors import DataError
from vatt.evaluation.examples import (
    LabelledSpan,
    class_names,
    find_examples,
    k_hot_of,
    refuse_other_classes,
)
from vatt.evaluation.views import crop_boxes, three_crops

SPEC = ClipSpec(frames=8, fps=8.0, height=8, width=8)  # a second


def span(start_s=0.0, end_s=10.0, cuts=(), gaps=(), labels=("a",)) -> LabelledSpan:
    return LabelledSpan(0, "v", start_s, end_s, labels, (0.0, *cuts, 10.0), gaps)


def test_clips_are_spread_from_the_start_of_the_span_to_its_end():
    assert span().clips(SPEC, 4) == ([0, 3, 6, 9], 10)
    assert span(2, 6).clips(SPEC, 2) == ([2, 5], 10)
    assert span().clips(SPEC, 1) == ([4.5], 10)


def test_clips_are_moved_out_of_cuts_and_damage():
    starts_s, _ = span(cuts=(4.5,)).clips(SPEC, 3)
    assert starts_s == [0, 4.5, 9]
    starts_s, _ = span(cuts=(2.0, 8.0), gaps=((2.0, 8.0),)).clips(SPEC, 3)
    assert all(s + 1 <= 2 or s >= 8 for s in starts_s)


def test_a_short_span_has_its_clip_around_it_and_a_short_segment_repeats():
    assert span(4.0, 4.2).clips(SPEC, 2)[0] == pytest.approx([3.6, 3.6])
    assert span(4.0, 4.4, cuts=(4.0, 4.4)).clips(SPEC, 2) == ([4.0, 4.0], 4.4)


@given(
    st.floats(0, 9),
    st.floats(0.1, 10),
    st.lists(st.floats(0.1, 9.9), max_size=4),
    st.integers(1, 5),
)
def test_no_clip_crosses_a_cut_or_leaves_the_video(start_s, length_s, cuts, number):
    example = span(start_s, min(10.0, start_s + length_s), tuple(sorted(set(cuts))))
    starts_s, end_s = example.clips(SPEC, number)
    assert len(starts_s) == number
    for start in starts_s:
        assert 0 <= start < end_s <= 10
        last = min(start + 1, end_s)
        assert not any(start + 2e-3 < cut < last - 2e-3 for cut in example.cuts_s)


def label(name: str, start_s=0.0, end_s=4.0) -> dict[str, object]:
    return {"start_s": start_s, "end_s": end_s, "kind": name}


def test_each_labelled_span_is_an_example_with_the_labels_that_hold_in_its_middle(tmp_path):
    videos = [
        Video(labels=(label("a", 0, 2), label("b", 2, 4))),
        Video(labels=(label("a"), label("c"))),
        Video(),
        Video(labels=(label(""),), sound=False),
    ]
    shards = write_shards(tmp_path, videos)
    found = find_examples(shards, "train", "kind")
    assert [(one.row, one.start_s, one.labels) for one in found] == [
        (0, 0, ("a",)), (0, 2, ("b",)), (1, 0, ("a", "c")),
    ]  # fmt: skip
    assert class_names(found, several=True) == ("a", "b", "c")
    assert k_hot_of(found, ("a", "b", "c")).tolist()[2] == [True, False, True]
    with pytest.raises(DataError, match="found the labels a, c at once"):
        class_names(found, several=False)
    with pytest.raises(DataError, match=r"no label 'sort' .*'kind'"):
        find_examples(shards, "train", "sort")


def test_one_class_alone_and_other_classes_are_refused():
    with pytest.raises(DataError, match="found one class, 'a'"):
        class_names([span()], several=False)
    with pytest.raises(DataError, match="found none, expected 2 classes"):
        class_names([], several=False)
    refuse_other_classes(("a", "b", "c"), ("a", "c"), "here")  # one that does not occur is none
    with pytest.raises(DataError, match=r"first 'd'; .*at class 1: the model has 'b'.* have 'd'"):
        refuse_other_classes(("a", "b"), ("a", "d"), "here")


@pytest.mark.parametrize("size", [(8, 20), (20, 8), (9, 9)])
def test_three_boxes_are_those_of_the_official_crops(size):
    height, width = size
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    side = min(size)
    frames = torch.stack([rows, columns], dim=-1).float()[None]
    official = three_crops(frames, side, side)[:, 0, 0, 0]  # [3, 2]: top and left
    boxes = crop_boxes(torch.tensor([width / height]), 1.0, 3)[:, 0]
    ours = boxes[:, :2] * torch.tensor([height, width])
    torch.testing.assert_close(ours, official, atol=0.5, rtol=0)  # the middle: to whole pixels
    assert crop_boxes(torch.tensor([width / height]), 1.0, 1)[0, 0].tolist() == pytest.approx(
        boxes[1].tolist()
    )
