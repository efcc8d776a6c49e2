"""`vatt datasets`, and `--dataset NAME --dataset_dir DIR`, as users type them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.public_data import official
from tests.public_data.official import wave, write
from vatt.cli.main import main
from vatt.errors import ConfigError
from vatt.models.classifier import ClassifierConfig
from vatt.models.weights import read_settings
from vatt.shards.read import ShardFolder
from vatt.tasks.evaluate import EvaluateConfig, names_of


def esc50(folder: Path) -> Path:
    """Three classes, five folds, each class a tone of its own."""
    write(folder, {"meta/esc50.csv": official.ESC50})
    for row in official.ESC50.splitlines()[1:]:
        name, fold, target = row.split(",")[:3]
        path = folder / "audio" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(wave(2.0, 200.0 * (1 + int(target)) + int(fold)))
    return folder


def ucf101(folder: Path) -> Path:
    write(folder, official.UCF, official.UCF_MEDIA)
    for number, path in enumerate(sorted(folder.rglob("*.avi"))):
        path.write_bytes(official.video(1.0 + 0.1 * number))
    return folder


def run(capsys: pytest.CaptureFixture[str], *args: object, code: int = 0) -> str:
    capsys.readouterr()
    assert main([str(one) for one in args]) == code, capsys.readouterr()
    return capsys.readouterr().out if code == 0 else capsys.readouterr().err


def check(capsys: pytest.CaptureFixture[str], name: str, folder: Path, *, code: int) -> Any:
    capsys.readouterr()
    assert main(["datasets", "check", name, str(folder), "--json", "--workers", "1"]) == code
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def test_list_names_every_data_set(capsys):
    said = run(capsys, "datasets", "list")
    assert "moments-in-time" in said
    assert "clotho_captions_development.csv" in said


def test_check_prints_one_line_of_what_is_there(tmp_path, capsys):
    folder = ucf101(tmp_path)
    line = check(capsys, "ucf101", folder, code=0)
    assert list(line) == ["dataset", "classes", "splits", "extra", "problems"]
    assert line["classes"] == ["ApplyEyeMakeup", "HandstandPushups", "YoYo"]
    whole = {"expected": 2, "found": 2, "missing": 0, "unreadable": 0, "renamed": 0}
    assert line["splits"]["test1"] == whole
    assert line["splits"]["train1"] == whole | {"renamed": 1}
    assert list(line["splits"]) == ["train1", "test1", "train2", "test2"]

    videos = folder / "UCF-101"
    (videos / "YoYo" / "v_YoYo_g01_c01.avi").write_bytes(official.video()[:200])
    (videos / "ApplyEyeMakeup" / "v_ApplyEyeMakeup_g08_c01.avi").unlink()
    (videos / "mine.mp4").write_bytes(official.video())
    line = check(capsys, "ucf101", folder, code=1)
    assert line["splits"]["train1"] | {"found": 1, "missing": 1} == line["splits"]["train1"]
    assert line["splits"]["test1"] | {"found": 2, "unreadable": 1} == line["splits"]["test1"]
    assert line["extra"] == 1
    said = " ".join(line["problems"])
    for part in ("missing files: 1 (first: ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi)",
                 "unreadable files: 1", "media that no list names: 1"):  # fmt: skip
        assert part in said


def test_check_says_to_people_what_to_do(tmp_path, capsys):
    write(tmp_path, {"train.csv": official.KINETICS}, ("-KbXM0WRkYA_000049_000059.mp4",))
    assert main(["datasets", "check", "kinetics400", str(tmp_path), "--workers", "1"]) == 1
    shown = capsys.readouterr()
    assert "train  " in shown.out
    assert "get them where the data set is published" in shown.out
    assert "val: 2 missing, 0 unreadable of 2" in " ".join(shown.err.split())


def test_images_of_any_form_are_read(tmp_path, capsys):
    names = {"a.JPEG": ("mjpeg", "yuvj420p"), "b.JPEG": ("png", "rgb24")}
    folder = tmp_path / "val" / "n01440764"
    folder.mkdir(parents=True)
    for name, form in names.items():
        (folder / name).write_bytes(official.image(*form))
    (folder / "cmyk.JPEG").write_bytes(official.CMYK)
    (folder / "empty.JPEG").touch()
    counts = check(capsys, "imagenet", tmp_path, code=1)["splits"]["val"]
    assert (counts["found"], counts["unreadable"]) == (4, 1)


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["datasets", "check", "esc-50", "."], 2, "perhaps you meant esc50"),
        (["datasets", "check", "esc50"], 2, "expected the name of a data set and its folder"),
        (["datasets", "check", "esc50", "none-such"], 1, "found no folder"),
        (["prepare", "--dataset", "esc50", "--out", "o"], 2, "dataset_dir: found none"),
        (["prepare", ".", "--dataset_dir", ".", "--out", "o"], 2, "found without dataset"),
        (
            ["prepare", ".", "--dataset", "esc50", "--dataset_dir", ".", "--out", "o"],
            2,
            "beside src",
        ),
    ],
)
def test_wrong_usage_says_what_is_expected(args, code, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(args) == code
    assert said in " ".join(capsys.readouterr().err.split())


def test_prepare_stores_a_data_set_at_the_rate_and_size_of_the_protocol(tmp_path, capsys):
    folder, out = ucf101(tmp_path / "ucf"), tmp_path / "shards"
    own = ["prepare", "--dataset", "ucf101", "--dataset_dir", folder, "--workers", "1"]
    run(capsys, *own, "--out", out)
    shards = ShardFolder.open(out)
    made = shards.info["made"]["settings"]
    assert (made["fps"], made["short_side"], made["dataset"]) == (25.0, 320, "ucf101")
    assert {split: one["videos"] for split, one in shards.info["splits"].items()} == {
        "train": 2, "test": 2,
    }  # fmt: skip
    labels = [one for row in range(4) for one in shards.read_record(row).labels]
    assert {one["label"] for one in labels} == {"ApplyEyeMakeup", "HandstandPushups", "YoYo"}
    assert {one.get("split2") for one in labels} == {"train", "test", None}
    run(capsys, *own, "--out", tmp_path / "dry", "--dry_run")
    assert not (tmp_path / "dry").exists()
    error = run(capsys, *own, "--out", out, "--dataset_split", "2", code=2)
    assert "dataset_split: found 2, expected 1" in error


def test_splits_that_leak_are_refused_unless_allowed(tmp_path, capsys):
    again = official.KINETICS.splitlines()[1].replace("train", "val")
    lists = {"train.csv": f"{official.KINETICS}{again}\n"}
    folder = write(tmp_path / "k", lists, ("-KbXM0WRkYA_000049_000059.mp4",))
    own = ["prepare", "--dataset", "kinetics400", "--dataset_dir", folder, "--workers", "1"]
    more = ["--out", tmp_path / "o", "--max_bad_fraction", "1"]
    error = run(capsys, *own, *more, code=1)
    assert "files in train and in val: 1" in " ".join(error.split())
    run(capsys, *own, *more, "--allow_leak")


def finetune(tiny: Any, name: str, folder: Path, out: Path, *more: object) -> list[object]:
    return [
        "finetune", "--dataset", name, "--dataset_dir", folder, "--start_from", tiny.run,
        "--out", out, "--data.workers", "0", "--train.threads", "1", "--train.steps", "2",
        "--optim.warmup_steps", "0", "--data.batch_size", "4", "--source.workers", "1", *more,
    ]  # fmt: skip


@pytest.mark.slow  # 13 s: it fine-tunes twice
def test_a_data_set_is_checked_trained_on_and_evaluated(tiny, tmp_path, capsys):
    folder, out = esc50(tmp_path / "esc50"), tmp_path / "run"
    assert check(capsys, "esc50", folder, code=0)["splits"]["fold3"]["found"] == 3
    own = finetune(tiny, "esc50", folder, out, "--preset", "finetune-small-audio")
    result = json.loads(run(capsys, *own, "--dataset_split", "3", "--json"))
    assert (result["classes"], result["skipped_files"]) == (3, {})
    settings, clip, _ = read_settings(out / "model")
    assert isinstance(settings, ClassifierConfig)
    assert (settings.model.audio.peak, clip.short_audio) == (0.5, "silence")  # as in the preset
    assert settings.names == ("dog", "rooster", "chirping_birds")  # not by name
    splits = ShardFolder.open(out / "shards").info["splits"]
    assert {split: one["videos"] for split, one in splits.items()} == {"train": 12, "test": 3}
    judged = json.loads(run(capsys, "evaluate", out, "--json"))
    assert (judged["split"], judged["n_evaluated"], judged["n_expected"]) == ("test", 3, 3)
    assert json.loads(run(capsys, *own, "--dataset_split", "3", "--json"))["steps"] == 2
    error = run(capsys, *own, "--dataset_split", "4", code=2)
    assert "dataset_split: found 4, expected 3" in " ".join(error.split())


@pytest.mark.slow  # 20 s: it fine-tunes, evaluates and embeds
def test_what_was_trained_on_is_not_evaluated_and_other_data_sets_are_prepared(
    tiny, tmp_path, capsys
):
    folder, out = ucf101(tmp_path / "ucf"), tmp_path / "run"
    own = finetune(tiny, "ucf101", folder, out, "--preset", "finetune-small-video")
    run(capsys, *own, "--data.max_bad_fraction", "1")
    other = ["evaluate", out, "--dataset", "ucf101", "--dataset_dir", folder, "--clips", "1"]
    error = " ".join(run(capsys, *other, "--dataset_split", "2", code=1).split())
    assert "1 files of test, split 2, were trained on in split 1" in error
    same = json.loads(run(capsys, *other, "--json"))
    assert same["dataset"] == {
        "name": "ucf101", "split_number": 1, "files_listed": 2, "files_found": 2,
    }  # fmt: skip
    assert not list(out.glob("shards-*"))
    leaking = json.loads(run(capsys, *other, "--dataset_split", "2", "--allow_leak", "--json"))
    assert (leaking["n_evaluated"], leaking["split"]) == (1, "test")
    assert (out / "shards-ucf101-2").is_dir()
    shutil.copytree(tiny.run, tmp_path / "pretrained")
    linear = [
        "linear-eval",
        tmp_path / "pretrained",
        "--dataset",
        "ucf101",
        "--dataset_dir",
        folder,
    ]
    result = json.loads(run(capsys, *linear, "--low_rank.steps", "3", "--json"))
    assert result["splits"] == ["train", "train", "test"]


def test_a_converted_classifier_gets_the_names_of_a_data_set_with_as_many_classes(tmp_path):
    config = EvaluateConfig(run=tmp_path)
    nameless: Any = SimpleNamespace(
        folder=tmp_path, module=SimpleNamespace(config=SimpleNamespace(names=(), classes=2))
    )
    assert names_of(config, nameless, ("yoyo", "archery")) == ("yoyo", "archery")
    for other in ((), ("a", "b", "c")):
        with pytest.raises(ConfigError, match="has no names of its 2 classes"):
            names_of(config, nameless, other)


def test_zero_shot_takes_the_captions_of_a_data_set(tiny, tmp_path, capsys):
    run_folder = tmp_path / "run"
    shutil.copytree(tiny.run, run_folder)
    annotations = [{"id": n, "segment": [n, n + 1], "sentence": f"it moves {way}"}
                   for n, way in enumerate(("left", "right", "up"))]  # fmt: skip
    both = {"database": {"xHr8X2Wpmno": {"subset": "validation", "annotations": annotations},
                         "zzzzzzzzzzz": {"subset": "testing"}}}  # fmt: skip
    folder = write(tmp_path / "yc", {"youcookii_annotations_trainval.json": both})
    (folder / "xHr8X2Wpmno.mp4").write_bytes(official.video(4.0))
    args = ["zero-shot", run_folder, "--dataset", "youcook2", "--dataset_dir", folder, "--json"]
    result = json.loads(run(capsys, *args))
    assert result["split"] == "val"  # captions of test are not public
    assert result["measures"]["text_to_video"]["n"] >= 2
    made = ShardFolder.open(run_folder / "shards-youcook2").info["made"]["settings"]
    assert (made["fps"], made["short_side"]) == (25.0, 224)


def test_finetune_refuses_other_media_and_shards_below_its_rate_and_size(tiny, tmp_path, capsys):
    folder = ucf101(tmp_path / "ucf")
    own = finetune(tiny, "ucf101", folder, tmp_path / "run", "--preset", "finetune-small-video")
    error = run(capsys, *own, "--kind", "image", code=2)
    assert "kind: found image, expected video, as ucf101 is" in " ".join(error.split())
    prepare = ["prepare", "--dataset", "ucf101", "--dataset_dir", folder, "--workers", "1"]
    run(capsys, *prepare, "--out", tmp_path / "low", "--fps", "2")
    error = run(capsys, *own, "--data.shards", tmp_path / "low", code=1)
    assert "found 2.0 fps and a short side of 320, expected 5 fps" in " ".join(error.split())
    error = run(capsys, *own, "--data.shards", tiny.shards, code=1)
    assert "found shards of no data set" in " ".join(error.split())
