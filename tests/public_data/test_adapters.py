"""Each data set in its official format, with the traps of its files, names and class orders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.public_data import official
from tests.public_data.official import write
from vatt.errors import DataError
from vatt.public_data.catalogue import (
    DATASETS,
    DatasetFolder,
    official_classes,
    problems_of_lists,
    read_folder,
)
from vatt.public_data.choice import found_files
from vatt.public_data.listing import CAPTION, LABEL, ListedFile, leaks_of, split_counts


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def read(name: str, folder: Path) -> DatasetFolder:
    return read_folder(DATASETS[name], folder)


def by_name(found: DatasetFolder) -> dict[str, ListedFile]:
    return {one.names[0]: one for one in found.listing.files}


def places(found: DatasetFolder) -> dict[str, tuple[str, bool] | None]:
    """Official name → where it is, and whether under another name."""
    return {
        one.names[0]: (match.path, match.renamed) if match is not None else None
        for one, match in zip(found.listing.files, found.matches, strict=True)
    }


def labels(file: ListedFile, column: str = LABEL) -> list[Any]:
    return [row[column] for row in file.rows if column in row]


def test_there_are_sixteen_data_sets_of_these_names():
    names = (
        "kinetics400 kinetics600 kinetics700 moments-in-time ucf101 hmdb51 esc50 audioset imagenet "
        "youcook2 msrvtt audiocaps clotho vatex didemo charades"
    )
    assert list(DATASETS) == names.split()


# ── Kinetics ─────────────────────────────────────────────────────────────────────────────────────


def test_kinetics_clips_are_named_by_id_and_times_padded_to_six_digits(tmp_path):
    write(tmp_path, {"lists/train.csv": official.KINETICS})
    touch(
        tmp_path, "skiing_crosscountry/-KbXM0WRkYA_000049_000059.mp4", "a_bcdefghij.mkv",
        "x/bbbbbbbbbbb_0_10.mp4", "other.mp4",
    )  # fmt: skip
    found = read("kinetics400", tmp_path)
    assert places(found) == {
        "-KbXM0WRkYA_000049_000059.mp4":
            ("skiing_crosscountry/-KbXM0WRkYA_000049_000059.mp4", False),
        "a_bcdefghij_000007_000017.mp4": ("a_bcdefghij.mkv", True),
        "bbbbbbbbbbb_000000_000010.mp4": ("x/bbbbbbbbbbb_0_10.mp4", True),
        "ccccccccccc_000100_000110.mp4": None,
    }  # fmt: skip
    assert found.extra == ["other.mp4"]
    assert split_counts(found.listing.files) == {"train": 2, "val": 2}


@pytest.mark.parametrize(
    "names",
    [
        # Without ' ( ) these sort otherwise: 2 classes of K400 move so, 4 of K600, 5 of K700.
        ["skiing (not slalom or crosscountry)", "skiing crosscountry", "skiing slalom"],
        ["massaging person's head", "massaging persons", "passing American football (in game)",
         "passing American football (not in game)", "passing american football (not in game)"],
    ],
)  # fmt: skip
def test_kinetics_classes_are_sorted_as_they_are_written(tmp_path, names):
    rows = "".join(f'"{name}",{n:011d},0,10,train\n' for n, name in enumerate(reversed(names)))
    write(tmp_path, {"a.csv": "label,youtube_id,time_start,time_end,split\n" + rows})
    assert read("kinetics600", tmp_path).listing.classes == tuple(names) == tuple(sorted(names))
    stripped = sorted(names, key=lambda one: one.translate(str.maketrans("", "", "'()")))
    assert stripped != names
    assert [one.replace(" ", "_") for one in names] == sorted(
        one.replace(" ", "_") for one in names
    )


def test_kinetics_lists_may_be_old_ones_and_those_of_test_clips_have_no_labels(tmp_path):
    write(tmp_path, {
        "train.csv": "label,youtube_id,time_start,time_end,split,is_cc\n"
        "x,aaaaaaaaaaa,1,11,train,0\n",
        "test.csv": "youtube_id,time_start,time_end,split\nbbbbbbbbbbb,1,11,test\n",
    })  # fmt: skip
    files = by_name(read("kinetics700", tmp_path))
    test = files["bbbbbbbbbbb_000001_000011.mp4"]
    assert (test.splits, test.rows) == (["test"], [])
    assert labels(files["aaaaaaaaaaa_000001_000011.mp4"]) == ["x"]


def test_a_replacement_of_a_corrupt_clip_is_taken_in_its_place(tmp_path):
    write(tmp_path, {"train.csv": official.KINETICS})
    name = "-KbXM0WRkYA_000049_000059.mp4"
    touch(tmp_path, f"k400/train/{name}", f"k400/replacement/replacement_for_corrupted/{name}")
    found = read("kinetics400", tmp_path)
    assert places(found)[name] == (f"k400/replacement/replacement_for_corrupted/{name}", False)
    assert found.extra == []


def test_counts_of_the_published_lists_are_compared(tmp_path):
    found = read("kinetics400", write(tmp_path, {"train.csv": official.KINETICS}))
    said = " ".join(problems_of_lists(found))
    assert "val: files in the lists here 2, in the published ones 19,907 or 19,796" in said
    assert "classes in the lists here 4, in the published ones 400" in said


def test_of_a_whole_video_the_clip_is_labelled_where_it_lies(tmp_path):
    text = "label,youtube_id,time_start,time_end,split\n"
    write(tmp_path, {"t.csv": text + "x,aaaaaaaaaaa,1,2,train\ny,bbbbbbbbbbb,1,2,train\n"})
    (tmp_path / "aaaaaaaaaaa.mp4").write_bytes(official.video(5.0))
    (tmp_path / "bbbbbbbbbbb.mp4").write_bytes(official.video(1.0))
    found = found_files(read("kinetics400", tmp_path), 1)
    spans = [
        (one["start_s"], one["end_s"]) for item in found.items if item.entry
        for one in item.entry.labels
    ]  # fmt: skip
    assert spans == [(1.0, 2.0), (0.0, 86_400.0)]


# ── Moments, UCF101, HMDB51, ESC-50 ──────────────────────────────────────────────────────────────


def test_moments_classes_come_from_their_ids_and_folders_may_have_plus_signs(tmp_path):
    write(tmp_path, {
        "moments_categories.txt": "yawning,0\nadult+female+singing,2\nclapping,1\n",
        "trainingSet.csv": "yawning/a.mp4,yawning,3,0\nadult+female+singing/a.mp4,"
        "adult+female+singing,4,1\n",
        "validationSet.csv": "clapping/vine-1_2.mp4,clapping,3,0\n",
    })  # fmt: skip
    touch(tmp_path, "training/yawning/a.mp4", "training/adult female singing/a.mp4")
    found = read("moments-in-time", tmp_path)
    assert found.listing.classes == ("yawning", "clapping", "adult+female+singing")
    assert places(found) == {
        "yawning/a.mp4": ("training/yawning/a.mp4", False),
        "adult+female+singing/a.mp4": ("training/adult female singing/a.mp4", False),
        "clapping/vine-1_2.mp4": None,
    }


def test_ucf101_lists_and_class_file_write_a_name_differently(tmp_path):
    write(tmp_path, official.UCF, official.UCF_MEDIA)
    found = read("ucf101", tmp_path)
    assert found.listing.classes == ("ApplyEyeMakeup", "HandstandPushups", "YoYo")
    name = "HandStandPushups/v_HandStandPushups_g08_c01.avi"
    assert labels(by_name(found)[name]) == ["HandstandPushups"]
    assert None not in places(found).values()
    assert split_counts(found.listing.files) == {"train1": 2, "test1": 2, "train2": 1, "test2": 1}
    assert found.extra == []


def test_a_video_of_ucf101_is_for_training_or_test_by_the_number_of_the_split(tmp_path):
    write(tmp_path, official.UCF, official.UCF_MEDIA)
    found = read("ucf101", tmp_path)

    def splits(number: int) -> dict[str, str]:
        return {Path(one.name).stem: one.split for one in found_files(found, number).items}

    first, second = splits(1), splits(2)
    assert first["v_ApplyEyeMakeup_g08_c01"] == second["v_ApplyEyeMakeup_g01_c01"] == "train"
    assert first["v_ApplyEyeMakeup_g01_c01"] == second["v_ApplyEyeMakeup_g08_c01"] == "test"
    assert second["v_YoYo_g01_c01"] == "other"  # one prepared folder serves every split
    entry = found_files(found, 1).items[0].entry
    assert entry is not None
    assert entry.labels[0] | {"split1": "test", "split2": "train"} == entry.labels[0]


def test_hmdb51_has_no_class_file_flags_and_names_with_odd_characters(tmp_path):
    odd = "#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi"
    unpacked = "Rhythm & 20; (clap).avi"
    write(tmp_path, {
        "splits/wave_test_split1.txt": "a.avi 1 \nb.avi 2 \nc.avi 0 \n",
        "splits/wave_test_split2.txt": "a.avi 2 \nb.avi 0 \nc.avi 1 \n",
        "splits/clap_test_split1.txt": f"{odd} 1 \n{unpacked} 2 \n",
    })  # fmt: skip
    touch(tmp_path, "clap/_20_Rhythm_clap_u_nm_np1_fr_goo_0.avi", "clap/Rhythm _ 20_ _clap_.avi",
          "wave/a.avi", "wave/b.avi", "wave/c.avi", "rest.rar")  # fmt: skip
    found = read("hmdb51", tmp_path)
    assert found.listing.classes == ("clap", "wave")
    files = by_name(found)
    assert files["wave/a.avi"].splits == ["train1", "test2"]
    assert files["wave/b.avi"].splits == ["test1"]
    assert files["wave/c.avi"].splits == ["train2"]
    where = places(found)
    assert where[f"clap/{odd}"] == ("clap/_20_Rhythm_clap_u_nm_np1_fr_goo_0.avi", True)
    assert where[f"clap/{unpacked}"] == ("clap/Rhythm _ 20_ _clap_.avi", True)
    assert found.files.archives == ["rest.rar"]


def test_esc50_has_its_five_folds_and_its_order_of_targets(tmp_path):
    found = read("esc50", write(tmp_path, {"meta/esc50.csv": official.ESC50}))
    assert found.listing.classes == ("dog", "rooster", "chirping_birds")
    assert split_counts(found.listing.files) == {f"fold{n}": 3 for n in range(1, 6)}
    touch(tmp_path, *(f"audio/{one.names[0]}" for one in found.listing.files))
    items = found_files(read("esc50", tmp_path), 2).items
    assert {Path(one.name).name[0] for one in items if one.split == "test"} == {"2"}
    assert {one.split for one in items} == {"train", "test"}


def test_classes_have_their_official_order_also_where_no_file_of_one_is_there(tmp_path):
    found = read("esc50", write(tmp_path, {"meta/esc50.csv": official.ESC50}))
    assert official_classes(found, ["chirping_birds", "dog"]) == (
        "dog", "rooster", "chirping_birds",
    )  # fmt: skip
    with pytest.raises(DataError, match="labelled with 'cat', which is no class of esc50"):
        official_classes(found, ["cat", "dog"])


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("1-100-A-0.wav,1,", "1-100-A-0.wav,2,", "drawn anew"),
        ("2-200-A-0.wav,2,0,dog,True,200", "b.wav,2,0,dog,True,100",
         "clips of one recording are in several folds"),
    ],
)  # fmt: skip
def test_folds_of_esc50_that_were_shuffled_leak(tmp_path, before, after, said):
    text = official.ESC50.replace(before, after)
    if "b.wav" in text:  # names that say nothing of folds
        text = text.replace("1-100-A-0.wav", "a.wav")
    write(tmp_path, {"esc50.csv": text})
    assert said in leaks_of(read("esc50", tmp_path).listing, 1)[0]
    prefixed = official.ESC50.replace("1-100-A-0", "dog_1-100-A-0")
    assert not leaks_of(read("esc50", write(tmp_path, {"esc50.csv": prefixed})).listing, 1)
    assert leaks_of(read("esc50", write(tmp_path, {"esc50.csv": official.ESC50})).listing, 1) == []


# ── AudioSet, ImageNet ───────────────────────────────────────────────────────────────────────────


def test_audioset_lists_have_comments_blanks_and_names_with_commas(tmp_path):
    write(tmp_path, official.AUDIOSET)
    touch(tmp_path, "Y--PJHxphWEs.wav", "-0RWZT-miFs_420_430.flac", "eval/zzzzzzzzzzz.wav")
    found = read("audioset", tmp_path)
    assert found.listing.classes == ("Speech", "Male speech, man speaking", "Gunshot, gunfire")
    files = by_name(found)
    assert labels(files["--PJHxphWEs"]) == ["Speech", "Gunshot, gunfire"]
    assert files["--PJHxphWEs"].cut_from == (30.0, 40.0)
    assert places(found) == {
        "--PJHxphWEs": ("Y--PJHxphWEs.wav", True),
        "-0RWZT-miFs": ("-0RWZT-miFs_420_430.flac", True),
        "zzzzzzzzzzz": ("eval/zzzzzzzzzzz.wav", False),
    }
    assert split_counts(found.listing.files) == {"train": 2, "test": 1}


def test_ids_that_differ_in_case_alone_are_different_videos(tmp_path):
    write(tmp_path, official.AUDIOSET)
    touch(tmp_path, "--pjhxphwes.wav")
    found = read("audioset", tmp_path)
    assert set(places(found).values()) == {None}
    assert found.extra == ["--pjhxphwes.wav"]


def test_imagenet_classes_are_sorted_wordnet_ids(tmp_path):
    touch(tmp_path, "train/n02012849/a.JPEG", "train/n01440764/b.JPEG", "train/n03126707/c.JPEG",
          "val/n01440764/ILSVRC2012_val_1.JPEG", "val/flat.JPEG")  # fmt: skip
    found = read("imagenet", tmp_path)
    assert found.listing.classes == ("n01440764", "n02012849", "n03126707")  # two are "crane"
    assert split_counts(found.listing.files) == {"train": 3, "val": 1}
    assert "1 images lie in no folder of a class" in found.listing.problems[0]


def test_validation_images_in_one_folder_are_placed_by_their_list(tmp_path):
    rows = "ImageId,PredictionString\nILSVRC2012_val_00000001,n01751748 111 108 249 287 \n"
    rows += "ILSVRC2012_val_00000002,n01440764 1 1 2 2\n"
    write(tmp_path, {"LOC_val_solution.csv": rows})
    touch(tmp_path, "train/n01440764/a.JPEG", "val/ILSVRC2012_val_00000001.JPEG")
    files = by_name(read("imagenet", tmp_path))
    flat = files["val/ILSVRC2012_val_00000001.JPEG"]
    assert (flat.splits, labels(flat)) == (["val"], ["n01751748"])
    assert "ILSVRC2012_val_00000002.JPEG" in files  # and is missing


def test_names_of_imagenet_classes_are_refused_because_two_share_one(tmp_path):
    with pytest.raises(DataError, match=r"'crane': names of classes are not unique"):
        read("imagenet", touch(tmp_path, "train/crane/a.JPEG"))


def test_folders_of_imagenetv2_are_numbers_and_count_the_sorted_ids(tmp_path):
    touch(tmp_path, *(f"v2/{number}/a.jpeg" for number in (0, 2, 10, 9)))
    assert read("imagenet", tmp_path).listing.classes == ("0", "2", "9", "10")
    wnids = [f"n{n:08d}" for n in range(1000)]
    write(tmp_path, {"LOC_synset_mapping.txt": "".join(f"{one} a, b\n" for one in wnids)})
    found = read("imagenet", tmp_path)
    assert found.listing.classes == tuple(wnids)
    assert labels(by_name(found)["v2/10/a.jpeg"]) == ["n00000010"]
    (tmp_path / "LOC_synset_mapping.txt").unlink()
    with pytest.raises(DataError, match="1 WordNet ids, expected all 1000"):
        read("imagenet", touch(tmp_path, "val/n00000000/b.JPEG"))


# ── captions ─────────────────────────────────────────────────────────────────────────────────────


def test_youcook2_has_segments_and_no_captions_for_test(tmp_path):
    write(tmp_path, {"youcookii_annotations_trainval.json": official.YOUCOOK2})
    files = by_name(read("youcook2", tmp_path))
    assert files["xHr8X2Wpmno"].splits == ["val"]
    assert [(one["start_s"], one["end_s"], one[CAPTION]) for one in files["xHr8X2Wpmno"].rows] == [
        (47.0, 60.0, "pick the ends off the verdalago"),
        (67.0, 89.0, "combine lemon juice and sumac"),
    ]
    assert (files["zzzzzzzzzzz"].splits, files["zzzzzzzzzzz"].rows) == (["test"], [])


def test_the_other_pool_of_youcook2_replaces_the_captions_of_validation(tmp_path):
    write(tmp_path, {
        "a/youcookii_annotations_trainval.json": official.YOUCOOK2,
        "validation_youcook.csv": "end,start,task,text,video_id\n"
        "60,47,226,pick the ends off the verdalago,xHr8X2Wpmno\n",
    })  # fmt: skip
    files = by_name(read("youcook2", tmp_path))
    assert labels(files["xHr8X2Wpmno"], CAPTION) == ["pick the ends off the verdalago"]
    assert labels(files["-tCQ4tCQdWE"], CAPTION) == ["cut the avocado"]


@pytest.mark.parametrize("separator", [",", ";"])
def test_the_1k_list_of_msrvtt_is_the_test_split_with_one_sentence_each(tmp_path, separator):
    write(tmp_path, {"MSRVTT_data.json": official.MSRVTT})
    files = by_name(read("msrvtt", tmp_path))
    assert [files[f"video{n}.mp4"].splits for n in range(4)] == [
        ["train"], ["val"], ["test"], ["test"],
    ]  # fmt: skip
    assert labels(files["video2.mp4"], CAPTION) == ["a man does 2", "a man sings"]
    rows = [["key", "vid_key", "video_id", "sentence"], ["ret0", "msr2", "video2", "a man sings"]]
    write(tmp_path, {"1kA.csv": "".join(separator.join(row) + "\n" for row in rows)})
    files = by_name(read("msrvtt", tmp_path))
    assert [files[f"video{n}.mp4"].splits for n in range(4)] == [["train"], ["val"], ["test"], []]
    assert labels(files["video2.mp4"], CAPTION) == ["a man sings"]
    write(tmp_path, {"MSRVTT_train.9k.csv": "video_id\nvideo0\nvideo1\nvideo3\n"})
    listing = read("msrvtt", tmp_path).listing
    assert {one.names[0]: one.splits for one in listing.files}["video3.mp4"] == ["train"]


def test_training_on_videos_of_the_test_list_leaks(tmp_path):
    write(tmp_path, {
        "MSRVTT_data.json": official.MSRVTT,
        "1kA.csv": "key,vid_key,video_id,sentence\nret0,msr2,video2,a man sings\n",
        "MSRVTT_train.9k.csv": "video_id\nvideo2\n",
    })  # fmt: skip
    assert "files in train and in test: 1" in leaks_of(read("msrvtt", tmp_path).listing, 1)[0]


def test_audiocaps_clips_last_ten_seconds_and_have_several_captions(tmp_path):
    head = "audiocap_id,youtube_id,start_time,caption\n"
    write(tmp_path, {
        "train.csv": head + "1,aaaaaaaaaaa,130,A cat\n",
        "test.csv": head + '2,-bbbbbbbbbb,20,"A man, talking"\n3,-bbbbbbbbbb,20,Speech\n',
    })  # fmt: skip
    touch(tmp_path, "aaaaaaaaaaa_130.wav", "Y-bbbbbbbbbb.wav")
    found = read("audiocaps", tmp_path)
    files = by_name(found)
    assert files["aaaaaaaaaaa"].cut_from == (130.0, 140.0)
    assert labels(files["-bbbbbbbbbb"], CAPTION) == ["A man, talking", "Speech"]
    assert split_counts(found.listing.files) == {"train": 1, "test": 1}
    assert all(where and where[1] for where in places(found).values())


def test_clotho_has_five_captions_and_names_with_odd_punctuation(tmp_path):
    head = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
    write(tmp_path, {
        "clotho_captions_development.csv": head + '"Rain: on ""roof"", 01.wav",a,b,c,d,e\n',
        "clotho_captions_evaluation.csv": head + "Santa Motor.wav,f,g,h,i,j\n",
    })  # fmt: skip
    touch(tmp_path, "development/Rain_ on _roof__ 01.wav", "evaluation/Santa Motor.wav")
    found = read("clotho", tmp_path)
    assert split_counts(found.listing.files) == {"train": 1, "test": 1}
    assert labels(found.listing.files[0], CAPTION) == list("abcde")
    assert places(found)['Rain: on "roof", 01.wav'] == ("development/Rain_ on _roof__ 01.wav", True)


def test_vatex_ids_end_in_times(tmp_path):
    def entry(name: str) -> dict[str, object]:
        return {"videoID": name, "enCap": ["a man", "he runs"], "chCap": ["他"]}

    write(tmp_path, {
        "vatex_training_v1.0.json": [entry("-a_b-c_dEfg_000050_000060")],
        "vatex_public_test_english_v1.1.json": [entry("bbbbbbbbbbb_000001_000011")],
    })  # fmt: skip
    touch(tmp_path, "-a_b-c_dEfg_000050_000060.mp4", "bbbbbbbbbbb.mp4")
    found = read("vatex", tmp_path)
    assert found.listing.files[0].cut_from == (50.0, 60.0) or found.listing.files[1].cut_from
    files = by_name(found)
    assert labels(files["-a_b-c_dEfg_000050_000060.mp4"], CAPTION) == ["a man", "he runs"]
    assert places(found) == {
        "-a_b-c_dEfg_000050_000060.mp4": ("-a_b-c_dEfg_000050_000060.mp4", False),
        "bbbbbbbbbbb_000001_000011.mp4": ("bbbbbbbbbbb.mp4", True),
    }


def test_the_1500_clips_of_vatex_are_the_test_split_where_their_list_is_there(tmp_path):
    def entries(*ids: str) -> list[object]:
        return [{"videoID": f"{one * 11}_000001_000011", "enCap": ["a man"]} for one in ids]

    write(tmp_path, {
        "vatex_training_v1.0.json": entries("a"),
        "vatex_validation_v1.0.json": entries("b", "c", "d"),
        "vatex_public_test_english_v1.1.json": entries("e"),
        "test_list.txt": "bbbbbbbbbbb_000001_000011\n\n",
        "val_list.txt": "ccccccccccc_000001_000011\r\n",
    })  # fmt: skip
    splits = {one.names[0][0]: one.splits for one in read("vatex", tmp_path).listing.files}
    assert splits == {"a": ["train"], "b": ["test"], "c": ["val"], "d": [], "e": []}
    write(tmp_path, {"test1k5_sec_list.txt": "eeeeeeeeeee_000001_000011\n"})
    with pytest.raises(DataError, match="found 'zzzz', expected a videoID"):
        read("vatex", write(tmp_path, {"test1k5_sec_list.txt": "zzzz\n"}))
    write(tmp_path, {"test1k5_sec_list.txt": "", "train_list.txt": "bbbbbbbbbbb_000001_000011\n"})
    with pytest.raises(DataError, match=r"line 1: found .* expected ids that are not in test, too"):
        read("vatex", tmp_path)


def test_didemo_times_are_pieces_of_five_seconds_and_sentences_make_a_paragraph(tmp_path):
    name = "12090392@N02_13482799053_87ef417396.mov"
    write(tmp_path, {"test_data.json": [
        {"video": name, "description": "a dog runs", "times": [[1, 4], [0, 0], [1, 4]]},
        {"video": name, "description": "it stops", "times": [[3, 3]]},
    ]})  # fmt: skip
    (file,) = read("didemo", tmp_path).listing.files
    assert file.splits == ["test"]
    assert [(one["start_s"], one["end_s"]) for one in file.rows if CAPTION in one] == [
        (5.0, 25.0), (15.0, 20.0),
    ]  # fmt: skip
    assert labels(file, "paragraph") == ["a dog runs it stops"]


def test_charades_actions_are_spans_and_may_be_none(tmp_path):
    head = (
        "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
    )
    rest = 'x,Home,6,7,Yes,"A person, at home",a;b,c'
    write(tmp_path, {
        "Charades_v1_train.csv": f"{head}46GP8,{rest},c092 11.90 21.20;c147 0.00 12.60,24.83\n"
        f"AAAAA,{rest},,30.1\n",
        "Charades_v1_classes.txt": "c092 Looking at a window\n",
    })  # fmt: skip
    found = read("charades", tmp_path)
    assert len(found.listing.classes or ()) == 157
    assert (found.listing.classes or ())[92] == "Looking at a window"
    assert by_name(found)["46GP8.mp4"].rows == [
        {"start_s": 11.9, "end_s": 21.2, LABEL: "Looking at a window"},
        {"start_s": 0.0, "end_s": 12.6, LABEL: "c147"},
    ]
    assert by_name(found)["AAAAA.mp4"].rows == []
    assert problems_of_lists(found)[0].startswith("156 of 157 classes have no name")


# ── hostile lists ────────────────────────────────────────────────────────────────────────────────

HEAD = "label,youtube_id,time_start,time_end,split\n"


@pytest.mark.parametrize(
    ("name", "file", "content", "said"),
    [
        ("kinetics400", "t.csv", HEAD + "x,aaaaaaaaaaa,1,11\n", r"t\.csv: line 2: found 4 values"),
        ("kinetics400", "t.csv", HEAD + "\nx,aaaaaaaaaaa,11,1,train\n", "line 3: found '11 to"),
        ("kinetics400", "t.csv", HEAD + "x,aaaaaaaaaaa,1,1e300,train\n", "line 2: found '1e300'"),
        ("kinetics400", "t.csv", HEAD + "x,aaaaaaaaaaa,nan,1,train\n", "line 2: found 'nan'"),
        ("kinetics400", "t.csv", HEAD + "x,../../etc,1,2,train\n", "found '../../etc', expec"),
        ("kinetics400", "t.csv", HEAD + "x,aaaaaaaaaaa,1,2,all\n", "expected train, val or test"),
        ("kinetics400", "t.csv", HEAD + '"x,aaaaaaaaaaa,1,2,train\n', "line 2: not a row"),
        ("kinetics400", "t.csv", HEAD + "x" * 200_000 + ",a,1,2,train\n", "line 2: not a row"),
        ("kinetics400", "t.csv", HEAD + "x" * 2_000_000, "line 2: longer than 1,048,576 bytes"),
        ("kinetics400", "t.csv", HEAD.encode() + b"\xe9,a,1,2,train\n", "line 2: found byt"),
        ("ucf101", "classInd.txt", "1 a\n3 b\n", r"classInd\.txt: line 2: found '3 b', expected 2"),
        ("ucf101", "trainlist01.txt", "/etc/passwd 1\n", "line 1: found '/etc/passwd'"),
        ("ucf101", "trainlist01.txt", "a/../../b.avi 1\n", "line 1: found 'a/../../b.avi'"),
        ("ucf101", "trainlist01.txt", "b/v.avi 1\n", "path that begins with a class"),
        ("youcook2", "youcookii_x.json", "[" * 100_000, "not a JSON file"),
        ("youcook2", "youcookii_x.json", "{\"database\": NaN}", "NaN is no number"),
        ("youcook2", "youcookii_x.json", "{\"database\": []}", "database: found .*expected dict"),
        ("youcook2", "youcookii_x.json", json.dumps({"database": {"a": {"subset": "training",
         "annotations": [{"segment": [1, 10**400], "sentence": "x"}]}}}), "expected seconds"),
        ("audiocaps", "train.csv", "audiocap_id,youtube_id,start_time,caption\n"  # of 2.0
         "7994,2Cnv0FADwfo,30,a animal is gurgling in water.\na dog is whimpering\n",
         r"train\.csv: line 3: found 1 values, expected 4 .*get it again"),
        ("esc50", "esc50.csv", "filename,fold\na.wav,1\n", "expected filename, fold, target"),
        ("esc50", "esc50.csv", "", "expected|name no file"),
    ],
)  # fmt: skip
def test_a_broken_list_is_refused_with_its_line(tmp_path, name, file, content, said):
    lists: dict[str, object] = {"classInd.txt": "1 a\n", "trainlist01.txt": "a/v.avi 1\n"}
    write(tmp_path, lists if name == "ucf101" else {})
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=said):
        read(name, tmp_path)


def test_a_list_may_be_in_utf_16_or_begin_with_a_mark(tmp_path):
    for encoding in ("utf-16", "utf-8-sig"):
        (tmp_path / "t.csv").write_text(official.KINETICS, encoding)
        assert split_counts(read("kinetics400", tmp_path).listing.files) == {"train": 2, "val": 2}


@pytest.mark.parametrize("name", DATASETS)
def test_a_folder_without_lists_says_which_are_expected(tmp_path, name):
    for folder in (touch(tmp_path, "readme.md"), touch(tmp_path, "a.mp4", "b.jpg")):
        with pytest.raises(DataError, match=r"found no .*nothing is downloaded"):
            read(name, folder)


def test_linked_folders_are_searched_once(tmp_path):
    write(tmp_path / "disk", {}, ("a/1-100-A-0.wav",))
    folder = write(tmp_path / "esc", {"esc50.csv": official.ESC50})
    (folder / "audio").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "again").symlink_to(tmp_path / "disk")
    assert places(read("esc50", folder))["1-100-A-0.wav"] == ("audio/a/1-100-A-0.wav", False)
