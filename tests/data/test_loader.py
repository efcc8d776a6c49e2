import multiprocessing
import pickle
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from tests.data.small_shards import FPS, Video, damage, write_shards
from vatt import distributed
from vatt.contracts import Batch, ClipSpec, UnreadableClip
from vatt.data.augment import AugmentConfig
from vatt.data.data_config import DataConfig
from vatt.data.datasets import ClipDataset, EvalDataset
from vatt.data.loader import Loader, make_eval_loader, make_loader
from vatt.data.tokenizer import WordTokenizer
from vatt.errors import DataError
from vatt.shards.read import ShardFolder

SPEC = ClipSpec(frames=8, fps=FPS, height=24, width=32, sample_rate_hz=8000, texts=2, words=4)
CPU = torch.device("cpu")
CAPTIONS = ((0.5, 1.0, "one"), (1.5, 2.5, "two"), (3.0, 3.5, "three"))
WORDS = WordTokenizer.build([text for *_, text in CAPTIONS])
VIDEOS = [
    Video(flash=12, captions=CAPTIONS),
    Video(sound=False, captions=CAPTIONS[:1]),
    Video(cuts=(1.5,)),
    Video(frames=5),
    Video(),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> ShardFolder:
    return write_shards(tmp_path_factory.mktemp("shards"), VIDEOS)


def dataset_of(data: ShardFolder, **settings) -> ClipDataset:
    values: dict[str, Any] = {
        "shards": (data.folder,),
        "decode": "rgb",
        "decode_size": (24, 32),
        "batch_size": 6,
        "workers": 0,
    }
    config = DataConfig(**(values | settings))
    return ClipDataset(config, SPEC, AugmentConfig(gain=0.5, audio_noise=0.01), WORDS, seed=3)


def same(one: Batch, other: Batch) -> bool:
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(Batch)]
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


@pytest.fixture(scope="module")
def batches(data) -> list[Batch]:
    """Steps 0 to 4 read plainly: no worker, no cache."""
    return list(make_loader(dataset_of(data), steps=5, device=CPU))


def by_step(loader: Iterable[Batch]) -> dict[int, Batch]:
    return {batch.positions[0] // 6: batch for batch in loader}


@pytest.mark.parametrize("workers", [1, 2, None])
def test_batches_are_the_same_with_any_number_of_workers(data, batches, workers):
    loader = make_loader(dataset_of(data, workers=workers), steps=5, device=CPU)
    loaded = list(loader)
    assert [batch.positions for batch in loaded] == [
        tuple(range(6 * step, 6 * step + 6)) for step in range(5)
    ]
    assert all(map(same, loaded, batches))


class NamedByWorker:
    """A data set whose clips are named by the worker that reads them."""

    def __init__(self, dataset: ClipDataset) -> None:
        self._dataset = dataset

    def batch(self, positions: Sequence[int]) -> Batch:
        info = get_worker_info()
        assert info is not None
        return replace(self._dataset.batch(positions), keys=(str(info.id),) * len(positions))


def test_all_workers_share_the_work_of_a_batch(data):
    dataset = dataset_of(data, batch_size=10)
    loader = Loader(NamedByWorker(dataset), range(0, 20, 10), 10, workers=2, device=CPU)
    assert [batch.keys for batch in loader] == [("0",) * 5 + ("1",) * 5] * 2


def test_the_parts_of_a_batch_do_not_stay_in_memory_beside_it(data, batches, monkeypatch):
    """On a GPU they are on the device, too."""
    loader, parts = make_loader(dataset_of(data, workers=2), steps=1, device=CPU), list[Any]()
    monkeypatch.setattr(loader, "_loader", [batches[0], batches[1]])
    monkeypatch.setattr(loader, "_part", 3)

    def there(part: Batch) -> Batch:
        part = replace(part, frames=part.frames.clone())
        parts.append(weakref.ref(part.frames))
        return part

    monkeypatch.setattr(loader, "_there", there)
    assert len(next(iter(loader))) == 12
    assert [part() for part in parts] == [None, None]


@pytest.mark.parametrize("positions", [[0, 1, 2], [2, 0, 1], [0, 1]])
def test_a_batch_of_parts_is_the_batch_also_where_a_part_has_no_clip(data, positions):
    places = [(0, 99.0), (2, 99.0), (4, 2.0)]
    dataset = EvalDataset(data, places, SPEC, DataConfig(shards=(data.folder,)))
    parts = [dataset.batch([position]) for position in positions]
    assert same(Batch.joined(parts), dataset.batch(positions))


def test_a_loader_started_later_gives_the_same_batches(data, batches):
    loaded = by_step(make_loader(dataset_of(data), start_step=3, steps=5, device=CPU))
    assert loaded.keys() == {3, 4}
    assert all(same(batch, batches[step]) for step, batch in loaded.items())


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_batches_are_the_same_with_a_cache(data, batches, cache, tmp_path):
    dataset = dataset_of(data, cache=cache, cache_dir=tmp_path)
    for read in (dataset, pickle.loads(pickle.dumps(dataset))):  # as sent to a worker
        loaded = by_step(make_loader(read, steps=5, device=CPU))
        assert all(same(batch, batches[step]) for step, batch in loaded.items())
    loaded = by_step(make_loader(dataset, workers=2, steps=2, device=CPU))
    assert all(same(batch, batches[step]) for step, batch in loaded.items())


def test_ranks_share_out_the_clips_of_one_process(data, batches):
    parts = [
        by_step(make_loader(dataset_of(data), batch_size=3, first_slot=slot, steps=5, device=CPU))
        for slot in (0, 3)
    ]
    for step, batch in enumerate(batches):
        assert torch.equal(torch.cat([part[step].frames for part in parts]), batch.frames)
        assert torch.equal(torch.cat([part[step].draw for part in parts]), batch.draw)
        assert parts[0][step].keys + parts[1][step].keys == batch.keys
        assert parts[0][step].positions + parts[1][step].positions == batch.positions


def test_batches_of_a_loader_do_not_depend_on_global_randomness(data, batches):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    loaded = by_step(make_loader(dataset_of(data, workers=1), steps=1, device=CPU))
    assert torch.equal(torch.get_rng_state(), before)
    assert same(loaded[0], batches[0])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("cache", ["none", "memory"])
def test_failed_items_are_replaced_counted_and_named(tmp_path, workers, cache, caplog):
    data = write_shards(tmp_path, [Video()] * 4)
    damage(data, 2)
    settings = {"max_bad_fraction": 0.25, "workers": workers, "cache": cache}
    dataset = dataset_of(data, **settings)
    loader = make_loader(dataset, steps=4, device=CPU)
    loaded = list(loader)
    assert [len(batch) for batch in loaded] == [6] * 4
    assert "v2" not in {key for batch in loaded for key in batch.keys}
    assert {clip.key for clip in loader.unreadable} == {f"{tmp_path}: v2"}
    fetched = [dataset.fetch(position) for position in range(4 * 6)]
    assert loader.num_unreadable == sum(len(unreadable) for _, unreadable in fetched) >= 5
    assert all(clip.step == step for step, batch in enumerate(loaded) for clip in batch.unreadable)
    assert "cannot be opened" in loader.unreadable[0].reason
    assert caplog.text.count("skipped: ") == 1
    plain = list(make_loader(dataset_of(data, max_bad_fraction=0.25), steps=4, device=CPU))
    assert all(map(same, loaded, plain))


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_failed_videos_stop_the_run(tmp_path, workers):
    data = write_shards(tmp_path, [Video()] * 4)
    damage(data, 0)
    damage(data, 1)
    dataset = dataset_of(data, max_bad_fraction=0.25, workers=workers)
    with pytest.raises(DataError, match=r"^2 videos cannot be read, more than data.max_bad"):
        list(make_loader(dataset, steps=10, device=CPU))


def test_failures_of_an_earlier_part_of_the_run_count(tmp_path):
    data = write_shards(tmp_path, [Video()] * 4)
    damage(data, 0)
    dataset = dataset_of(data, max_bad_fraction=0.25)
    earlier = [UnreadableClip("elsewhere: v9", "gone", 0)]
    with pytest.raises(DataError, match="2 videos cannot be read"):
        list(make_loader(dataset, steps=10, device=CPU, unreadable=earlier))


def test_a_video_that_several_ranks_could_not_read_counts_once(tmp_path, monkeypatch):
    data = write_shards(tmp_path, [Video()] * 4)
    damage(data, 0)
    dataset = dataset_of(data, max_bad_fraction=0.5)
    loader = make_loader(dataset, steps=4, device=CPU)
    list(loader)
    (found,) = loader.failures()
    others = [found], [found | {"step": found["step"] - 1}], [found | {"key": "elsewhere: v9"}]
    monkeypatch.setattr("vatt.distributed.gather_json", lambda mine: [mine, *others[1:]])
    assert loader.failures() == [others[1][0], others[2][0]]
    # as a checkpoint of an older version has them
    earlier = [UnreadableClip(found["key"], found["cause"], step) for step in range(3)]
    strict = dataset_of(data, max_bad_fraction=0.25)
    list(make_loader(strict, steps=4, device=CPU, unreadable=earlier))


def test_an_error_in_a_worker_is_told_without_its_traceback_and_ends_the_workers(tmp_path):
    data = write_shards(tmp_path, [Video()])
    damage(data, 0)
    dataset = dataset_of(data, max_bad_fraction=1.0, workers=1)
    with pytest.raises(DataError, match="other clips in a row") as error:
        list(make_loader(dataset, steps=1, device=CPU))
    assert "Traceback" not in str(error.value)
    assert multiprocessing.active_children() == []


def test_clips_of_a_list_come_in_order_without_those_that_cannot_be_read(data):
    places = [(0, 0.0), (2, 1.0), (0, 99.0), (4, 2.0), (0, 98.0)]
    config = DataConfig(shards=(data.folder,), decode_size=(24, 32))
    dataset = EvalDataset(data, places, SPEC, config)
    loader = make_eval_loader(dataset, batch_size=2, device=CPU, workers=0)
    loaded = list(loader)
    assert [batch.positions for batch in loaded] == [(0, 1), (3,)]
    assert [batch.keys for batch in loaded] == [("v0", "v2"), ("v4",)]
    assert [(clip.step, clip.key[-4:]) for clip in loader.unreadable] == [(2, ": v0")]
    assert loader.num_unreadable == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_of_which_no_clip_can_be_read_is_left_out_but_counted(data, workers):
    places = [(0, 99.0), (2, 99.0), (4, 2.0), (2, 1.0), (0, 0.0)]
    dataset = EvalDataset(data, places, SPEC, DataConfig(shards=(data.folder,)))
    assert len(dataset.batch([0, 1])) == 0
    loader = make_eval_loader(dataset, batch_size=2, device=CPU, workers=workers)
    assert [batch.positions for batch in loader] == [(2, 3), (4,)]
    assert [clip.step for clip in loader.unreadable] == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
def test_clips_of_a_list_are_the_same_with_a_cache(data, cache, tmp_path):
    places = [(4, 1.0), (0, 0.33), (4, 2.0)]
    config = DataConfig(
        shards=(data.folder,), decode_size=(24, 32), cache=cache, cache_dir=tmp_path
    )
    dataset = EvalDataset(data, places, SPEC, config, WORDS)
    cached = {"none": set(), "memory": {0, 4}, "disk": set(range(len(data)))}
    assert dataset._reader._caches.keys() == cached[cache]
    (batch,) = make_eval_loader(dataset, batch_size=3, device=CPU)
    plain = EvalDataset(data, places, SPEC, replace(config, cache="none"), WORDS)
    (expected,) = make_eval_loader(plain, batch_size=3, device=CPU)
    assert same(batch, expected)


def test_crops_and_colours_reach_the_batch(data, batches):
    dataset = dataset_of(data)
    for step, batch in enumerate(batches):
        for slot in range(len(batch)):
            change = dataset.fetch(6 * step + slot)[0].augmentation
            crop = [change.crop.top, change.crop.left, change.crop.height, change.crop.width]
            colour = [change.brightness, change.saturation, change.contrast, change.hue]
            np.testing.assert_allclose(batch.crop[slot], crop, rtol=1e-6)
            np.testing.assert_allclose(batch.colour[slot], colour, rtol=1e-6)
            assert batch.flip[slot] == change.flip
            assert batch.gain[slot] == pytest.approx(change.gain)


def test_the_tests_of_sameness_can_fail(batches):
    assert not same(batches[0], batches[1])
    assert not same(batches[0], replace(batches[0], draw=batches[0].draw + 1))


def test_unreadable_videos_of_all_ranks_are_counted_together(data, monkeypatch):
    loader = make_loader(
        dataset_of(data, max_bad_fraction=0.4), steps=1, device=CPU,
        unreadable=[UnreadableClip("v0", "cut off", 3)],
    )  # fmt: skip
    of_others = [[{"key": "v0", "cause": "gone", "step": 1}]]  # another rank met the same video
    monkeypatch.setattr(distributed, "gather_json", lambda mine: [mine, *of_others])
    assert loader.failures() == [{"key": "v0", "cause": "gone", "step": 1}]
    of_others.append([{"key": f"v{n}", "cause": "gone", "step": 2} for n in (1, 2)])
    with pytest.raises(DataError, match=r"3 videos cannot be read, more than data\.max_bad_fract"):
        loader.failures()
