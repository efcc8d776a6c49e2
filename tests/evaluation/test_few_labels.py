"""Few labels: which examples a draw takes, and that training reads clips of them alone."""

from collections import Counter
from dataclasses import replace

from tests.data.small_shards import Video, damage, write_shards
from vatt.contracts import ClipSpec
from vatt.data.augment import AugmentConfig
from vatt.data.data_config import DataConfig
from vatt.evaluation.examples import LabelledSpan, find_examples
from vatt.evaluation.few_labels import FewClips, about_few, few_of

SPEC = ClipSpec(frames=4, fps=4.0, height=16, width=16)  # a second


def spans(name: str, number: int, *others: str) -> list[LabelledSpan]:
    return [
        LabelledSpan(row, f"{name}{row}", 0.0, 4.0, (name, *others), (0.0, 4.0))
        for row in range(number)
    ]


def test_so_many_of_each_class_are_drawn_whatever_else_there_is(tmp_path):
    shards = write_shards(tmp_path, [Video()])
    a, b, rare = spans("a", 30), spans("b", 40), spans("rare", 2)
    found = few_of([(shards, a), (shards, b + rare)], 5, draw=1)
    kept = [one for _, part in found for one in part]
    assert Counter(one.labels for one in kept) == {("a",): 5, ("b",): 5, ("rare",): 2}
    assert kept == sorted(kept, key=(a + b + rare).index)  # in their order
    again = few_of([(shards, b[::-1] + a)], 5, draw=1)  # no rare ones, another order
    assert {one for _, part in again for one in part} == {one for one in kept if one not in rare}
    more = few_of([(shards, a + b)], 9, draw=1)
    assert {one for _, part in more for one in part} > set(kept) - set(rare)
    other = few_of([(shards, a), (shards, b + rare)], 5, draw=2)
    assert [one for _, part in other for one in part] != kept
    about = about_few(found, 5, draw=1)
    assert (about["examples"], about["classes_with_fewer"]) == (12, {"rare": 2})
    assert about["ids_hash"] != about_few(other, 5, draw=2)["ids_hash"]


def test_training_reads_clips_inside_these_examples_with_their_labels(tmp_path):
    labels = tuple({"start_s": s, "end_s": s + 2, "kind": "ab"[s // 2]} for s in (0, 2))
    shards = write_shards(tmp_path, [Video(labels=labels), Video(labels=labels), Video()])
    drawn = find_examples(shards, "train", "kind")[:3]
    config = DataConfig(shards=(tmp_path,), batch_size=6, max_bad_fraction=1.0)
    clips = FewClips([(shards, drawn)], config, SPEC, AugmentConfig(), 3, column="kind")
    batch = clips.batch(range(12))
    times = zip(batch.keys, batch.starts_s, batch.labels, strict=True)
    seen = Counter((key, 2.0 * (start >= 2), one["kind"]) for key, start, one in times)
    assert seen == {(one.key, one.start_s, one.labels): 4 for one in drawn}
    assert all(start <= 1 or 2 <= start <= 3 for start in batch.starts_s)  # inside
    assert len(set(batch.starts_s)) > 4
    assert clips.batch(range(5, 7)).starts_s == batch.starts_s[5:7]  # wherever it is read
    damage(shards, 0)
    hurt = replace(clips.batch(range(12)), labels=())
    assert set(hurt.keys) == {"v1"}
    assert {one.key for one in hurt.unreadable} == {f"{tmp_path}: v0"}
