from dataclasses import fields, replace
from itertools import count
from typing import Any

import av
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.data.small_shards import FPS, Video, damage, write_shards
from tests.media.clips import Recipe, click_s, flashes, numbers, write
from vatt.contracts import Augmentation, Clip, ClipSpec, Crop
from vatt.data.augment import AugmentConfig
from vatt.data.clip_reader import ClipReader
from vatt.data.data_config import DataConfig
from vatt.data.datasets import ClipDataset, EvalDataset
from vatt.data.tokenizer import WordTokenizer
from vatt.errors import ConfigError, DataError, MediaError
from vatt.media.media_file import decode_audio
from vatt.shards.read import ShardFolder

SPEC = ClipSpec(
    frames=8, fps=FPS, height=24, width=32, sample_rate_hz=8000, texts=2, words=4
)  # 0.8 s
TEXTS = ((0.0, 0.4, "one"), (1.0, 1.4, "two two"), (3.0, 3.6, "three"), (3.0, 3.4, "..."))
VIDEOS = [
    Video(flash=12, captions=TEXTS),  # 4 s
    Video(sound=False, captions=TEXTS[:1]),
    Video(cuts=(1.5,)),
    Video(frames=5),  # shorter than a clip
    Video(split="test", size=(32, 96)),
]
WORDS = WordTokenizer.build([text for _, _, text in TEXTS])
QUIET = AugmentConfig(audio_noise=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> ShardFolder:
    return write_shards(tmp_path_factory.mktemp("shards"), VIDEOS)


def config_of(data: ShardFolder, **settings) -> DataConfig:
    values: dict[str, Any] = {
        "shards": (data.folder,),
        "decode": "rgb",
        "decode_size": (24, 32),
        "batch_size": 4,
        "workers": 0,
    }
    return DataConfig(**(values | settings))


def reader_of(data: ShardFolder, words: WordTokenizer | None = WORDS, **settings) -> ClipReader:
    return ClipReader(data, config_of(data, **settings), SPEC, words, ())


def test_frames_and_waveform_are_of_the_same_moment(data):
    reader = reader_of(data)
    for start_s in (0.4, 0.7, 1.15):
        clip = reader.read(0, start_s, 4.0, Augmentation())
        assert numbers(clip.frames) == [int(start_s * FPS + 1e-6) + i for i in range(8)]
        heard_s = start_s + click_s(clip.waveform, SPEC.sample_rate_hz)
        assert heard_s == pytest.approx(1.2, abs=0.01)  # frame 12 flashes at 1.2 s
        assert flashes(clip.frames).tolist() == [n == 12 for n in numbers(clip.frames)]


@pytest.mark.parametrize("uneven", ["jitter", "bursts", "drift"])
def test_audio_of_a_clip_goes_on_where_packet_times_are_uneven(uneven, tmp_path):
    path = write(tmp_path / "even.mp4", Recipe(frames=40, noise=True))
    jitter = np.random.default_rng(0).integers(-380, 380, 500)
    times = {
        "jitter": lambda n: n * 1024 + int(jitter[n]),  # up to 8 ms
        "bursts": lambda n: n // 5 * 5 * 1024 + n % 5,
        "drift": lambda n: round(n * 1024 * 1.003),
    }
    with av.open(str(path)) as given, av.open(str(tmp_path / "a.mp4"), "w") as output:
        copies = {one.index: output.add_stream_from_template(one) for one in given.streams}
        place = count()
        for packet in given.demux():
            if packet.size:
                if packet.stream.type == "audio":
                    packet.pts = packet.dts = times[uneven](next(place)) + 500
                    packet.duration = 0
                packet.stream = copies[packet.stream.index]
                output.mux(packet)
    data = write_shards(tmp_path / "shards", [Video(file=tmp_path / "a.mp4")])
    whole = decode_audio(tmp_path / "a.mp4", sample_rate_hz=8000)
    assert whole is not None
    clip = reader_of(data).read(0, 2.0, 4.0, Augmentation())
    assert_array_equal(clip.waveform, whole[16_000:22_400])
    assert np.flatnonzero(clip.waveform == 0).size < 20  # noise; a hole has hundreds
    # At 48 kHz, where the packets could be read alone, it is as even.
    spec = replace(SPEC, sample_rate_hz=48_000)
    clip = ClipReader(data, config_of(data), spec, WORDS, ()).read(0, 2.0, 4.0, Augmentation())
    assert np.flatnonzero(clip.waveform == 0).size < 60


def test_a_short_video_repeats_in_picture_and_sound(data):
    clip = reader_of(data).read(3, 0.0, 0.5, Augmentation())
    assert numbers(clip.frames) == [0, 1, 2, 3, 4, 0, 1, 2]
    assert_array_equal(clip.waveform[4000:], clip.waveform[:2400])


def test_a_short_video_is_an_error_when_clips_may_not_repeat(data):
    message = r"v3: needs 0.80 s from 0.10 s \(8 frames at 10 fps\), but the video ends at 0.50 s"
    with pytest.raises(MediaError, match=message):
        reader_of(data, short_clip="skip").read(3, 0.1, 0.5, Augmentation())


def test_texts_are_the_nearest_and_fewer_are_masked(data):
    reader = reader_of(data)
    one, two, three = WORDS.encode(["one", "two two", "three"], SPEC.words)
    clip = reader.read(0, 1.0, 4.0, Augmentation())
    assert_array_equal(clip.word_ids, [two, one])
    assert clip.text_mask.all()
    clip = reader.read(0, 3.0, 4.0, Augmentation())  # "..." has no words and is no text
    assert_array_equal(clip.word_ids, [three, two])
    clip = reader.read(1, 3.0, 4.0, Augmentation())
    assert_array_equal(clip.word_ids, [one, np.zeros_like(one)])
    assert clip.text_mask.tolist() == [True, False]


def test_few_texts_are_repeated_only_when_asked(data):
    (one,) = WORDS.encode(["one"], SPEC.words)
    clip = reader_of(data, few_captions="repeat").read(1, 3.0, 4.0, Augmentation())
    assert_array_equal(clip.word_ids, [one, one])
    assert clip.text_mask.all()
    clip = reader_of(data, few_captions="repeat").read(2, 1.0, 1.5, Augmentation())  # has none
    assert not clip.text_mask.any()


def test_by_stride_every_nth_stored_frame_is_taken_and_the_sound_begins_with_them(data):
    spec = replace(SPEC, fps=4.0)  # of 10: every second, 0.2 s apart and not 0.25 s
    config = config_of(data, frame_step="stride")
    clip = ClipReader(data, config, spec, WORDS, ()).read(0, 0.47, 4.0, Augmentation())
    assert clip.start_s == pytest.approx(0.4)
    assert numbers(clip.frames) == list(range(4, 20, 2))
    heard_s = clip.start_s + click_s(clip.waveform, spec.sample_rate_hz)
    assert heard_s == pytest.approx(1.2, abs=0.01)
    by_time = ClipReader(data, config_of(data), spec, WORDS, ()).read(0, 0.47, 4.0, Augmentation())
    assert numbers(by_time.frames) == [4, 7, 9, 12, 14, 17, 19, 22]


def test_captions_too_far_away_are_masked(data):
    clip = reader_of(data, max_caption_gap_s=1.0).read(0, 3.0, 4.0, Augmentation())
    assert clip.text_mask.tolist() == [True, False]
    assert not clip.word_ids[1].any()


def test_no_text_of_a_training_clip_is_from_the_other_side_of_a_cut(tmp_path):
    captions = ((0.0, 1.5, "one"), (1.5, 1.9, "two two"), (2.0, 4.0, "three"))
    data = write_shards(tmp_path, [Video(captions=captions, cuts=(1.5, 2.0))])  # 0.5 s: repeats
    one, two, three = WORDS.encode(["one", "two two", "three"], SPEC.words)
    dataset = ClipDataset(config_of(data, unknown_words=0.0), SPEC, QUIET, WORDS, seed=1)
    clips = [dataset.fetch(position)[0] for position in range(12)]
    for clip in clips:
        expected = one if clip.start_s < 1.5 else two if clip.start_s < 2.0 else three
        assert_array_equal(clip.word_ids, [expected, np.zeros_like(one)])
    assert len({clip.start_s < 1.5 for clip in clips}) == 2


def test_labels_in_the_middle_of_a_clip_reach_its_batch(tmp_path):
    labels = ({"start_s": 0.0, "end_s": 2.0, "action": "left"},)
    data = write_shards(tmp_path, [Video(labels=labels), Video(frames=5, labels=labels)])
    reader = reader_of(data, None)
    assert reader.read(0, 1.5, 4.0, Augmentation()).labels == {"action": ("left",)}
    assert reader.read(0, 1.7, 4.0, Augmentation()).labels == {}
    # Its label ends with the video, at 0.5 s; the clip of 0.8 s repeats what is before.
    assert reader.read(1, 0.2, 0.5, Augmentation()).labels == {"action": ("left",)}
    batch = EvalDataset(data, [(0, 0.5), (0, 2.5)], SPEC, config_of(data)).batch([0, 1])
    assert batch.labels == ({"action": ("left",)}, {})


def test_without_a_vocabulary_clips_have_no_texts(data):
    clip = reader_of(data, None).read(0, 1.0, 4.0, Augmentation())
    assert not clip.text_mask.any()
    assert not clip.word_ids.any()


def test_a_missing_sound_is_masked_and_zero(data):
    clip = reader_of(data).read(1, 0.0, 4.0, Augmentation())
    assert not clip.has_audio
    assert clip.waveform.shape == (SPEC.samples,)
    assert not clip.waveform.any()


def test_silence_is_missing_sound_only_when_asked(data):
    quiet, loud = (2.0, 0.8)  # the click is at 1.2 s
    assert reader_of(data).read(0, quiet, 4.0, Augmentation()).has_audio
    strict = reader_of(data, silent_below=0.1)
    assert not strict.read(0, quiet, 4.0, Augmentation()).has_audio
    assert strict.read(0, loud, 4.0, Augmentation()).has_audio


def test_clips_of_training_never_cross_a_cut_and_come_once_per_epoch(data):
    dataset = ClipDataset(config_of(data), SPEC, QUIET, WORDS, seed=1)
    assert dataset.num_clips == 5 + 5 + (1 + 3) + 1
    clips = [dataset.fetch(position)[0] for position in range(15)]
    assert sorted(clip.key for clip in clips) == sorted(
        ["v0"] * 5 + ["v1"] * 5 + ["v2"] * 4 + ["v3"]
    )
    shown = [numbers(clip.frames) for clip in clips if clip.key == "v2"]
    assert all(max(n) < 15 or min(n) >= 15 for n in shown)  # the cut at 1.5 s
    assert sum(max(n) < 15 for n in shown) == 1


def test_a_clip_is_a_function_of_seed_and_position(data):
    noisy = AugmentConfig(audio_noise=0.05, gain=1.0)
    dataset = ClipDataset(config_of(data), SPEC, noisy, WORDS, seed=1)
    again = ClipDataset(config_of(data), SPEC, noisy, WORDS, seed=1)
    for position in (31, 0, 31):
        (clip, _), (same, _) = dataset.fetch(position), again.fetch(position)
        for field in fields(Clip):
            assert_array_equal(getattr(clip, field.name), getattr(same, field.name))
    other = ClipDataset(config_of(data), SPEC, noisy, WORDS, seed=2)
    draws = [one.fetch(n)[0].draw for one, n in ((dataset, 31), (other, 31), (other, 30))]
    assert len(set(draws)) == 3


def test_the_same_clip_differs_from_epoch_to_epoch(data):
    dataset = ClipDataset(config_of(data), SPEC, QUIET, WORDS, seed=1)
    first, second = (
        {(clip.key, clip.start_s): clip for clip, _ in map(dataset.fetch, epoch)}
        for epoch in (range(15), range(15, 30))
    )
    shared = first.keys() & second.keys()
    assert {key for key, _ in shared} == {"v3"}  # the short one can only start at 0
    assert len({clip.draw for clip in [*first.values(), *second.values()]}) == 30


def test_skipped_short_videos_leave_the_others(data, caplog):
    dataset = ClipDataset(config_of(data, short_clip="skip"), SPEC, QUIET, WORDS, seed=1)
    assert dataset.num_clips == 14
    assert dataset.num_videos == 3
    assert "1 of 4 videos have no part of 0.80 s" in caplog.text


def test_a_dataset_without_long_enough_videos_says_so(data):
    spec = replace(SPEC, frames=64)
    with pytest.raises(DataError, match=r"has a part of 6.40 s .* data.short_clip"):
        ClipDataset(config_of(data, short_clip="skip"), spec, QUIET, WORDS, seed=1)


def test_in_each_batch_other_words_are_unknown_the_same_in_all_its_clips(data):
    config = config_of(data, unknown_words=0.4, batch_size=15)
    dataset = ClipDataset(config, SPEC, QUIET, WORDS, seed=1)
    plain = ClipDataset(replace(config, unknown_words=0.0), SPEC, QUIET, WORDS, seed=1)
    dropped = []
    for step in range(12):
        positions = range(step * 15, step * 15 + 15)
        found, words = dataset.batch(positions).word_ids, plain.batch(positions).word_ids
        known = {word: set(found[words == word].tolist()) for word in words.unique().tolist()}
        assert known.pop(0) == {0}
        assert all(of in ({word}, {WORDS.unknown_id}) for word, of in known.items())
        dropped += [of == {WORDS.unknown_id} for of in known.values()]
    assert 0.2 < np.mean(dropped) < 0.6
    assert EvalDataset(data, [(0, 1.0)], SPEC, config, WORDS)[0].word_ids.max() > 1


MUTE = Video(sound=False)


@pytest.mark.parametrize(
    ("videos", "words", "texts", "message"),
    [
        ([MUTE, MUTE], WORDS, True, "split 'train' has neither audio nor captions"),
        ([MUTE, Video(split="test"), VIDEOS[1]], None, True, "neither audio nor captions"),
        ([MUTE, VIDEOS[1]], WORDS, False, r"no audio \(loss.text_weight is 0\)"),
        ([Video(frames=15)], WORDS, True, "one clip of 0.80 s alone, expected 2 or more"),
    ],
)
def test_data_from_which_contrast_learns_nothing_is_refused(
    tmp_path, videos, words, texts, message
):
    config = config_of(write_shards(tmp_path, videos))
    with pytest.raises(DataError, match=message):
        ClipDataset(config, SPEC, QUIET, words, seed=0).check_contrast(texts=texts)


def test_a_batch_larger_than_the_data_is_said(tmp_path, caplog):
    data = write_shards(tmp_path, [MUTE, VIDEOS[1], Video(frames=5)])
    for batch_size in (11, 12):
        ClipDataset(config_of(data, batch_size=batch_size), SPEC, QUIET, WORDS, 0).check_contrast()
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}: split 'train' has 11 clips of 0.80 s, fewer than data.batch_size (12): every "
        "batch holds some of them several times; prepare more videos, or set data.batch_size lower"
    ]


def test_clips_carry_what_names_their_video_among_all_folders(data, tmp_path):
    other = write_shards(tmp_path, [Video(), Video()])  # keys v0 and v1 again
    config = config_of(data, shards=(data.folder, other.folder), split="train")
    dataset = ClipDataset(config, SPEC, QUIET, WORDS, seed=0)
    batch = dataset.batch(range(dataset.num_clips))
    folders = [dataset.place(position).folder for position in batch.positions]
    named = set(zip(folders, batch.keys, batch.videos, strict=True))
    assert len(named) == len({video for *_, video in named}) == 6


def test_every_batch_has_the_folders_in_their_proportions(data, tmp_path):
    other = write_shards(tmp_path, [Video(frames=20)] * 2)  # 2 clips each
    config = config_of(data, shards=(data.folder, other.folder), weights=(1.0, 3.0), batch_size=8)
    dataset = ClipDataset(config, SPEC, QUIET, WORDS, seed=0)
    for step in range(4):
        places = [dataset.place(8 * step + slot) for slot in range(8)]
        assert sum(place.folder == 1 for place in places) == 6


def test_a_damaged_clip_is_replaced_and_named(tmp_path):
    data = write_shards(tmp_path, [Video(), Video(), Video()])
    sound = ClipDataset(config_of(data, batch_size=15), SPEC, QUIET, None, seed=0)
    whole = [sound.fetch(position)[0] for position in range(15)]
    damage(data, 1)
    dataset = ClipDataset(config_of(data, batch_size=15), SPEC, QUIET, None, seed=0)
    fetched = [dataset.fetch(position) for position in range(15)]
    for before, (after, failures) in zip(whole, fetched, strict=True):
        assert after.key != "v1"
        assert bool(failures) == (before.key == "v1")
        assert all(f.key.endswith(": v1") and "opened" in f.reason for f in failures)
        if not failures:
            assert_array_equal(after.frames, before.frames)
    assert sum(bool(failures) for _, failures in fetched) == 5


def test_a_shard_cut_short_after_opening_is_a_counted_failure(tmp_path):
    data = write_shards(tmp_path, [Video(), Video(), Video()])
    dataset = ClipDataset(config_of(data, batch_size=15), SPEC, QUIET, None, seed=0)
    end = data.index["video_offset"][2].as_py() + 100
    with (tmp_path / "shard-000000.tar").open("r+b") as file:
        file.truncate(end)
    fetched = [dataset.fetch(position) for position in range(15)]
    assert {clip.key for clip, _ in fetched} == {"v0", "v1"}
    assert {f.key for _, failures in fetched for f in failures} == {f"{tmp_path}: v2"}


def test_when_nothing_can_be_read_training_stops(tmp_path):
    data = write_shards(tmp_path, [Video()])
    damage(data, 0)
    dataset = ClipDataset(config_of(data), SPEC, QUIET, None, seed=0)
    with pytest.raises(DataError, match=r"(?s)v0: .*other clips in a row"):
        dataset.fetch(0)


def test_clips_of_a_list_are_read_as_asked_and_cropped_to_the_models_aspect(data):
    places = [(0, 1.0), (4, 2.0)]
    dataset = EvalDataset(data, places, SPEC, config_of(data, split="train"), WORDS)
    clips = [dataset[0], dataset[1]]
    assert numbers(clips[0].frames)[0] == 10
    assert numbers(clips[1].frames)[0] == 20
    assert clips[0].augmentation == Augmentation()
    wide = clips[1].augmentation.crop  # 32x96 shown to a 24x32 model
    assert (wide.top, wide.height) == (0.0, 1.0)
    assert wide.width == pytest.approx((32 / 24) / (96 / 32))
    assert wide.left == pytest.approx((1 - wide.width) / 2)
    assert wide != Crop()


def test_a_clip_past_the_end_is_unreadable_and_told_with_its_position(data):
    dataset = EvalDataset(data, [(0, 1.0), (0, 4.5)], SPEC, config_of(data))
    batch = dataset.batch([0, 1])
    assert (batch.keys, batch.positions) == (("v0",), (0,))
    (unreadable,) = batch.unreadable
    assert unreadable.step == 1
    assert "the video ends at 4.00 s" in unreadable.reason


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": (1.0,)}, "data.weights: .*one per shard folder"),
        ({"decode_size": (0, 4)}, "data.decode_size"),
        ({"batch_size": 0}, "data.batch_size: found 0"),
        ({"workers": -1}, "data.workers"),
        ({"max_bad_fraction": 1.5}, "data.max_bad_fraction"),
        ({"max_caption_gap_s": 0.0}, "data.max_caption_gap_s"),
        ({"unknown_words": 1.0}, "data.unknown_words"),
        ({"silent_below": 2.0}, "data.silent_below"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        DataConfig(**settings)


def test_training_without_shards_says_how_to_make_them():
    with pytest.raises(ConfigError, match="vatt prepare"):
        ClipDataset(DataConfig(), SPEC, QUIET, None, seed=0)
