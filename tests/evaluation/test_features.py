"""Features are of the clips they are said to be of, extracted once, and made again when stale."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.e2e.tiny_clips import SEGMENT_S
from vatt.contracts import Batch
from vatt.data.datasets import EvalDataset
from vatt.errors import CheckpointError, ConfigError, DataError
from vatt.evaluation import features
from vatt.evaluation.clips import find_clips
from vatt.evaluation.examples import find_examples
from vatt.evaluation.features import (
    PRETRAINED,
    RANDOM_INIT,
    STILL_FRAME,
    split_features,
    still,
    window_features,
)
from vatt.evaluation.protocols.zero_shot_pool import model_texts
from vatt.evaluation.trained_run import TrainedRun, open_run
from vatt.media.media_file import MediaFile


@pytest.fixture
def subject(tiny, tmp_path) -> TrainedRun:
    run = tmp_path / "run"
    shutil.copytree(tiny.run, run, ignore=shutil.ignore_patterns("results"))
    return open_run(run, autocast="off")


def test_a_clip_lies_in_the_middle_of_each_label(subject):
    spec = subject.encoder.spec
    found = find_clips(subject.folders_of("test"), "test", spec)
    assert (len(found), found.num_left_out) == (9, 0)
    starts = sorted({clip.start_s for clip in found.clips})
    middles = [start_s + spec.duration_s / 2 for start_s in starts]
    assert middles == pytest.approx([SEGMENT_S * (at + 0.5) for at in range(3)], abs=1e-3)
    for clip in found.clips:
        assert f"moves {clip.labels['action']}" in clip.caption


def test_no_more_videos_are_taken_than_the_asked_clips_need(subject):
    spec, dataset = subject.encoder.spec, subject.folders_of("train")
    some = find_clips(dataset, "train", spec, at_most=4, seed=1)
    assert len(some) == 6
    assert len({clip.key for clip in some.clips}) == 2
    drawn = {
        frozenset(m.key for m in find_clips(dataset, "train", spec, at_most=4, seed=s).clips)
        for s in range(8)
    }
    assert len(drawn) > 1


def test_features_are_those_of_the_network_on_the_clip_itself(subject):
    clips = split_features(subject, "test")
    clip = clips.clips[4]
    dataset = EvalDataset(
        subject.folders_of("test")[""],
        [(clip.row, clip.start_s)],
        subject.encoder.spec,
        subject.data,
    )
    batch = Batch.collate([dataset[0]])
    frames = batch.frames.float() * 2 / 255 - 1
    sound = batch.waveform.float() / 2**15
    assert clips.peaks[4] == pytest.approx(float(sound.abs().max()))
    seen, heard = (
        subject.encoder.encode_video(frames),
        subject.encoder.encode_audio(sound, sample_rate_hz=subject.encoder.spec.sample_rate_hz),
    )
    for name, expected in (("video_features", seen), ("audio_features", heard)):
        np.testing.assert_allclose(
            clips.of(PRETRAINED, name)[4], expected.features[0].numpy(), atol=1e-5
        )
    frozen = subject.encoder.encode_video(still(frames)).features[0].numpy()
    np.testing.assert_allclose(clips.of(STILL_FRAME, "video_features")[4], frozen, atol=1e-5)
    untrained_features = clips.of(RANDOM_INIT, "video_features")[4]
    assert not np.allclose(untrained_features, clips.of(PRETRAINED, "video_features")[4], atol=0.1)


def test_a_still_clip_has_no_motion_left():
    frames = torch.rand(2, 5, 4, 4, 3)
    frozen = still(frames)
    assert torch.equal(frozen, frames[:, 2:3].expand_as(frames))


def test_features_are_extracted_once_and_again_for_other_weights(subject):
    first = split_features(subject, "test")
    (file,) = (subject.folder / "results").glob("features-test-*")
    written = file.stat().st_mtime_ns
    again = split_features(subject, "test")
    assert file.stat().st_mtime_ns == written
    np.testing.assert_array_equal(
        first.of(PRETRAINED, "video_va"), again.of(PRETRAINED, "video_va")
    )
    other = replace(subject, opened=replace(subject.opened, hash="0" * 12))
    split_features(other, "test")
    assert len(list((subject.folder / "results").glob("features-test-*"))) == 2


def test_other_videos_under_the_same_names_are_not_taken_for_the_old_ones(subject, tmp_path):
    table = pq.read_table(subject.data.shards[0] / "index.parquet")
    first = split_features(subject, "test")
    shards = tmp_path / "shards"
    shutil.copytree(subject.data.shards[0], shards)
    other = pa.array(["0" * 64] * len(table))
    table = table.set_column(table.schema.get_field_index("sha256"), "sha256", other)
    pq.write_table(table, shards / "index.parquet")
    again = split_features(open_run(subject.folder, autocast="off", shards=[shards]), "test")
    assert again.clips == first.clips
    assert len(list((subject.folder / "results").glob("features-test-*"))) == 2


def test_a_damaged_feature_file_is_made_again(subject):
    whole = split_features(subject, "test").of(PRETRAINED, "audio_va")
    (file,) = (subject.folder / "results").glob("features-test-*")
    os.truncate(file, file.stat().st_size // 2)
    np.testing.assert_array_equal(split_features(subject, "test").of(PRETRAINED, "audio_va"), whole)


def test_texts_that_the_model_cannot_tell_apart_are_one_text(subject):
    clips = split_features(subject, "test")
    texts = model_texts(subject.encoder, clips.captions)
    assert len(set(texts)) == len(set(clips.captions))
    ids = subject.encoder.tokenizer.encode(["It MOVES, left!", "it moves left"], 8)
    assert (ids[0] == ids[1]).all()


def test_too_many_undecodable_clips_stop_the_evaluation(subject, tmp_path):
    shards = tmp_path / "shards"
    shutil.copytree(subject.data.shards[0], shards)
    dataset = open_run(subject.folder, autocast="off", shards=[shards]).folders_of("test")[""]
    row = dataset.rows("test")[0]
    tar = shards / str(dataset.index["shard"][row])
    offset, size = dataset.column("video_offset")[row], dataset.column("video_size")[row]
    with tar.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(int(size)))
    broken = open_run(subject.folder, autocast="off", shards=[shards])
    with pytest.raises(DataError, match="split 'test': 3 of 9 clips cannot be decoded"):
        split_features(broken, "test")


def test_a_model_folder_alone_needs_shards(tiny):
    with pytest.raises(ConfigError, match="give --shards"):
        open_run(tiny.run / "model", autocast="off")
    given = open_run(tiny.run / "model", autocast="off", shards=[tiny.shards])
    assert len(find_clips(given.folders_of("val"), "val", given.encoder.spec)) == 6


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no model here"):
        open_run(tmp_path, autocast="off")


def examples_of(run: TrainedRun, split: str) -> list:
    return [
        (shards, find_examples(shards, split, "action", folder=name))
        for name, shards in run.folders_of(split).items()
    ]


def test_windows_are_the_clips_that_spread_over_each_example(subject):
    found, spec = examples_of(subject, "test"), subject.encoder.spec
    windows = window_features(subject, found, windows=3, modalities=("video",))
    assert windows.of("video_vt").shape[:2] == (9, 3)
    with pytest.raises(DataError, match="the encoder gives no audio_va"):
        windows.of("audio_va")
    (shards, examples) = found[0]
    starts_s, _ = examples[4].clips(spec, 3)
    assert len(set(starts_s)) == 3
    dataset = EvalDataset(shards, [(examples[4].row, one) for one in starts_s], spec, subject.data)
    frames = Batch.collate([dataset[at] for at in range(3)]).frames.float() * 2 / 255 - 1
    expected = subject.encoder.encode_video(frames).features.numpy()
    np.testing.assert_allclose(windows.of("video_features")[4], expected, atol=1e-5)
    middle = window_features(subject, found, windows=1)
    single = split_features(subject, "test")
    for name in ("video_features", "audio_va"):
        np.testing.assert_allclose(
            middle.of(name)[:, 0], single.of(PRETRAINED, name), rtol=1e-4, atol=1e-4
        )


def test_one_frame_is_decoded_for_what_only_listens_and_it_hears_the_same(subject, monkeypatch):
    found, read, decode = examples_of(subject, "test"), list[int](), MediaFile.frames
    both = window_features(subject, found, windows=3)

    def counted(media, times_s, size):
        read.append(len(times_s))
        return decode(media, times_s, size=size)

    monkeypatch.setattr(MediaFile, "frames", counted)
    heard = window_features(subject, found, windows=3, modalities=("audio",))
    assert read == [3] * 9  # a frame for each window
    for name in ("audio_features", "audio_va"):
        np.testing.assert_allclose(heard.of(name), both.of(name), rtol=1e-4, atol=1e-4)


def test_every_folder_that_has_the_split_is_evaluated_and_ids_stay_apart(subject, tmp_path):
    shards = [tmp_path / "a" / "shards", tmp_path / "b" / "shards"]
    for folder in shards:
        shutil.copytree(subject.data.shards[0], folder)
    both = open_run(subject.folder, autocast="off", shards=shards)
    one, two = split_features(subject, "test"), split_features(both, "test")
    assert [clip.id for clip in two.clips] == [
        f"{name}/shards/{clip.id}" for name in "ab" for clip in one.clips
    ]
    for half in np.split(two.of(PRETRAINED, "video_va"), 2):
        np.testing.assert_allclose(half, one.of(PRETRAINED, "video_va"), rtol=1e-4, atol=1e-4)
    windows = window_features(both, examples_of(both, "test"), windows=1, modalities=("audio",))
    assert windows.positions.tolist() == list(range(18))
    some = find_clips(both.folders_of("test"), "test", both.encoder.spec, at_most=18)
    assert {clip.folder for clip in some.clips} == {"a/shards/", "b/shards/"}
    with pytest.raises(DataError, match="is given twice"):
        split_features(open_run(subject.folder, autocast="off", shards=shards[:1] * 2), "test")


def test_what_a_killed_extraction_had_done_is_not_done_again(subject, monkeypatch):
    found = examples_of(subject, "test")
    whole = window_features(subject, found, windows=2)
    for file in (subject.folder / "results").glob("windows-*"):
        file.unlink()
    monkeypatch.setattr(features, "PART_S", 0.0)
    monkeypatch.setattr(features, "CLIPS_AT_ONCE", 4)  # two examples
    seen, rows_of = list[int](), features._rows_of_windows

    def killed_at_the_third(run, spec, windows, modalities, batch):
        seen.extend(batch.positions)
        if len(seen) == 6:
            raise KeyboardInterrupt
        return rows_of(run, spec, windows, modalities, batch)

    monkeypatch.setattr(features, "_rows_of_windows", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        window_features(subject, found, windows=2)
    again = window_features(subject, found, windows=2)
    assert seen == [0, 1, 2, 3, 4, 5, 4, 5, 6, 7, 8]
    assert again.positions.tolist() == list(range(9))
    for name in ("video_va", "audio_features"):
        np.testing.assert_allclose(again.of(name), whole.of(name), rtol=1e-4, atol=1e-4)
    (left,) = (subject.folder / "results").glob("windows-*")
    assert left.suffix == ".safetensors"
