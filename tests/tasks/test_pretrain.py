import gc
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq
import pytest
import tomli_w
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

import vatt
from tests.data.small_shards import Video, write_shards
from tests.distributed.ranks import run_ranks
from tests.e2e.tiny_clips import sentence, write_clips
from vatt import config as configs
from vatt import distributed
from vatt.checkpoints import checkpoint
from vatt.cli.main import main
from vatt.contracts import Batch
from vatt.data.tokenizer import WordTokenizer
from vatt.errors import ConfigError, DataError, TrainingError, VattError
from vatt.failed_step import load_batch
from vatt.models.vatt import Vatt
from vatt.models.weights import load_model
from vatt.presets import tiny
from vatt.report.training_curve import read_metrics
from vatt.shards.read import ShardFolder
from vatt.storage import locked
from vatt.tasks import checkpoint_merge, pretrain
from vatt.tasks.checkpoint_merge import CheckpointMergeConfig
from vatt.tasks.prepare import PrepareConfig
from vatt.tasks.prepare import run as prepare
from vatt.tasks.pretrain import PretrainConfig, PretrainResult
from vatt.tensor_files import read_tensors

ROOT = Path(__file__).parents[2]
TIMELESS = ("step", "loss", "video_audio", "video_text", "learning_rate", "gradient_norm")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    manifest = write_clips(folder / "clips")
    prepare(
        PrepareConfig(
            src=(folder / "clips",),
            out=folder / "shards",
            manifest=manifest,
            fps="source",
            copy=True,
            workers=1,
        )
    )
    return folder / "shards"


def config(shards: Path, out: Path, **changes) -> PretrainConfig:
    own = {
        "out": str(out),
        "data": {"shards": [str(shards)], "workers": 0},
        "train": {"device": "cpu", "threads": 1, "autocast": "off"},
    }
    values = configs.merge(configs.merge(tiny(), own), changes)
    return configs.from_values(PretrainConfig, values, where="test")


@pytest.fixture(scope="module")
def finished(shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, pretrain.run(config(shards, out, data={"cache": "memory"}))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def losses(run: Path) -> list[dict[str, float]]:
    return [
        {key: record[key] for key in TIMELESS} for record in read_metrics(run / "metrics.jsonl")
    ]


def assert_same_run(run: Path, other: Path) -> None:
    assert losses(run) == losses(other)
    mine, theirs = weights(run), weights(other)
    assert mine.keys() == theirs.keys()
    for name, weight in mine.items():
        assert torch.equal(weight, theirs[name]), name


def test_run_folder_holds_settings_curves_checkpoints_and_a_model_that_loads_alone(
    finished, shards
):
    out, result = finished
    assert result.steps == 12
    assert result.failed_clips == 0
    assert 0 <= result.waiting_share < 1
    again = configs.from_values(
        PretrainConfig, configs.read_toml(out / "config.toml"), where="config.toml"
    )
    assert again == config(shards, out, data={"cache": "memory"})
    assert [record["step"] for record in losses(out)] == list(range(1, 13))
    assert len(list(out.glob("events.out.tfevents.*"))) == 1
    names = [path.name for path in checkpoint.all_saved(out / "checkpoints")]
    assert names == ["step-000004", "step-000008", "step-000012"]
    model, clip = load_model(Vatt, out / "model", "cpu")
    sizes = model.config
    assert (sizes, clip) == (again.model, again.clip)
    assert result.parameters == sum(weight.numel() for weight in model.parameters())
    last = load_file(out / "checkpoints" / "step-000012" / "model.safetensors")
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, last[name])


def test_vocabulary_is_of_the_training_captions_and_lies_with_the_model(finished):
    out, _ = finished
    tokenizer = WordTokenizer.load(out / "model" / "tokenizer.json")
    said = {word for g in ("red", "green", "blue") for word in sentence(("left", "low", g)).split()}
    assert (tokenizer.encode([" ".join(said)], words=20)[0, : len(said)] > 1).all()
    assert tokenizer.vocabulary_size == 2 + len(said | {"right", "high"})


def test_weights_have_learned_something(finished):
    out, _ = finished
    first = load_file(out / "checkpoints" / "step-000004" / "model.safetensors")
    moved = [not torch.equal(first[name], weight) for name, weight in weights(out).items()]
    assert all(moved)


def test_finished_run_given_again_changes_nothing(finished, shards):
    out, result = finished
    before = (out / "metrics.jsonl").read_text()
    again = pretrain.run(config(shards, out))
    assert again.loss is None
    assert again.parameters == result.parameters
    assert (out / "metrics.jsonl").read_text() == before


@pytest.mark.slow
def test_killed_run_continues_to_the_weights_of_a_whole_run_with_other_workers_and_cache(
    finished, shards, tmp_path
):
    out = tmp_path / "killed"
    settings = config(shards, out)
    (tmp_path / "run.toml").write_text(tomli_w.dumps(configs.to_values(settings)))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.tasks.pretrain_rank", str(tmp_path / "run.toml")],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not checkpoint.all_saved(out / "checkpoints"):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.1))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    pretrain.run(replace(settings, data=replace(settings.data, workers=2)))
    assert_same_run(out, finished[0])


def test_other_settings_do_not_continue_a_run(finished, shards):
    out, _ = finished
    with pytest.raises(ConfigError, match=r"optim\.learning_rate: found 0\.5, expected 0\.001 as"):
        pretrain.run(config(shards, out, optim={"learning_rate": 0.5}))


def half_done(run: Path, out: Path) -> Path:
    """A copy of a finished run as if it had stopped after step 4."""
    shutil.copytree(run, out)
    for path in (out / "model", *checkpoint.all_saved(out / "checkpoints")[1:]):
        shutil.rmtree(path)
    return out


def test_a_run_goes_on_with_its_data_at_another_place_and_says_where_it_is(
    finished, shards, tmp_path, monkeypatch
):
    out = half_done(finished[0], tmp_path / "moved")
    shutil.copytree(shards, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    pretrain.run(config(Path("elsewhere"), out))
    assert_same_run(out, finished[0])
    values = configs.read_toml(out / "config.toml")
    assert values["data"]["shards"] == [str(tmp_path / "elsewhere")]


@pytest.mark.parametrize(("column", "value"), [("sha256", "0"), ("cuts", [0.5]), ("key", "x")])
def test_a_run_does_not_go_on_with_other_data(finished, shards, tmp_path, column, value):
    out = half_done(finished[0], tmp_path / "swapped")
    shutil.copytree(shards, tmp_path / "shards")
    path = tmp_path / "shards" / "index.parquet"
    rows = pq.read_table(path)
    first = rows["split"].to_pylist().index("train")
    values = rows[column].to_pylist()
    values[first] = value
    place = rows.schema.get_field_index(column)
    pq.write_table(rows.set_column(place, rows.schema.field(place), [values]), path)
    with pytest.raises(DataError, match="other videos, captions or cuts in split 'train' than"):
        pretrain.run(config(tmp_path / "shards", out))


def test_a_run_of_an_older_version_goes_on_although_its_data_is_not_known(
    finished, shards, tmp_path
):
    out = half_done(finished[0], tmp_path / "old")
    path = out / "checkpoints" / "step-000004" / "state.json"
    state = json.loads(path.read_text())
    del state["facts"]["data"]
    path.write_text(json.dumps(state | {"format_version": "1.0"}))
    (path.parent / "checksums.json").unlink()
    pretrain.run(config(shards, out))
    assert_same_run(out, finished[0])


OF_STEPS: dict[str, Any] = {
    "loss": {"form": "sigmoid", "temperature": 0.1},
    "model": {"heads": {"learned": "temperature_and_bias"}},
    "optim": {"average": 0.9, "weight_decay": 0.1},
}
ALL_ON = OF_STEPS | {
    "eval_every": 2,
    "evaluation": {"split": "train", "label": "action", "measure": "video_neighbours"},
}


def pretrained(settings: PretrainConfig) -> PretrainResult:
    result = pretrain.run(settings)
    assert isinstance(result, PretrainResult)
    return result


def same_tensors(found: Path, expected: Path) -> bool:
    mine, theirs = load_file(found), load_file(expected)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in theirs)


def test_a_run_with_every_option_goes_on_as_if_it_had_never_stopped(shards, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "half"
    expected = pretrained(config(shards, whole, **ALL_ON))
    shutil.copytree(whole, out)
    for path in checkpoint.all_saved(out / "checkpoints")[1:]:
        shutil.rmtree(path)  # the best model of later steps is still there, as after a kill
    result = pretrained(config(shards, out, **ALL_ON))
    assert result.model == expected.model
    assert result.model.startswith("best: moving average after step ")
    log, theirs = (
        [{k: v for k, v in e.items() if k in TIMELESS or k.startswith("eval_")} for e in entries]
        for entries in (read_metrics(run / "metrics.jsonl") for run in (out, whole))
    )
    assert log == theirs
    assert [e["step"] for e in log if "eval_text_to_video_R@10" in e] == [2, 4, 6, 8, 10, 12]
    last = Path("checkpoints") / "step-000012"
    for name in (
        "model/model.safetensors",
        last / "model.safetensors",
        last / "optimiser.safetensors",
    ):
        assert same_tensors(out / name, whole / name), name
    best = max(
        (e for e in log if "eval_video_neighbours" in e), key=lambda e: e["eval_video_neighbours"]
    )
    assert f"after step {best['step']}, video_neighbours" in result.model
    # the model is the average, the checkpoint what is trained; what is learned moved, within bounds
    averages = load_file(whole / last / "optimiser.safetensors")
    trained = load_file(whole / last / "model.safetensors")
    for name in ("heads.log_scales", "heads.biases"):
        assert not torch.equal(averages[f"{name}/average"], trained[name])
    assert (trained["heads.log_scales"] != math.log(10)).all()
    assert "heads.video_va.norm.running_mean/average" in averages
    written = json.loads((whole / "model" / "config.json").read_text())["extra"]
    assert (written["weights"], written["step"]) == ("average", best["step"])


def test_evaluation_changes_no_weight_and_may_begin_when_a_run_goes_on(finished, shards, tmp_path):
    out = half_done(finished[0], tmp_path / "watched")
    settings = config(
        shards, out, eval_every=3, keep="last", evaluation={"split": "train", "clips": 6}
    )
    assert pretrained(settings).model == "weights after the last step"
    assert_same_run(out, finished[0])
    evaluated = [
        e["step"] for e in read_metrics(out / "metrics.jsonl") if "eval_text_to_video_MedR" in e
    ]
    assert evaluated == [6, 9, 12]
    with pytest.raises(
        ConfigError, match=r"evaluation\.measure: found 'accuracy', expected one of"
    ):
        config(shards, out, evaluation={"measure": "accuracy"})


def test_a_setting_that_an_older_version_did_not_know_is_what_it_did(shards, tmp_path):
    out, earlier = tmp_path / "old", configs.merge({"train": {"steps": 6}}, pretrain.EARLIER)
    pretrain.run(config(shards, tmp_path / "whole", **earlier))
    half_done(tmp_path / "whole", out)
    values = configs.read_toml(out / "config.toml")
    for key in configs.flatten(pretrain.EARLIER):
        *parts, name = key.split(".")
        del reduce(lambda table, part: table[part], parts, values)[name]
    (out / "config.toml").write_text(tomli_w.dumps(values))
    pretrain.run(config(shards, out, train={"steps": 6}))
    assert_same_run(out, tmp_path / "whole")


@pytest.mark.parametrize("wrong", ["no shards", "absent shards", "absent start", "long clips"])
def test_a_run_that_cannot_begin_claims_no_folder(shards, tmp_path, wrong):
    out = tmp_path / "run"
    changes: dict[str, dict[str, Any]] = {
        "no shards": {"data": {"shards": []}},
        "absent shards": {"data": {"shards": [str(tmp_path / "absent")]}},
        "absent start": {"start_from": str(tmp_path / "absent")},
        "long clips": {"clip": {"frames": 4000}, "data": {"short_clip": "skip"}},
    }
    with pytest.raises(VattError):
        pretrain.run(config(shards, out, **changes[wrong]))
    assert [path.name for path in out.iterdir()] == [".lock"]


def test_a_second_run_in_a_folder_at_work_is_refused(shards, tmp_path):
    out = tmp_path / "both"
    out.mkdir()
    with locked(out / ".lock"), pytest.raises(TrainingError, match="another `vatt pretrain` is at"):
        pretrain.run(config(shards, out))
    assert [path.name for path in out.iterdir()] == [".lock"]


def test_no_step_left_after_the_model_to_start_from_is_refused(finished, shards, tmp_path):
    start = finished[0] / "checkpoints" / "step-000012"
    with pytest.raises(ConfigError, match=r"train\.steps: found 12, expected more than 12"):
        pretrain.run(config(shards, tmp_path / "beyond", start_from=str(start)))


def test_what_another_run_knew_of_its_data_is_not_known_of_this_one(finished, shards, tmp_path):
    start = tmp_path / "start"
    shutil.copytree(finished[0] / "checkpoints" / "step-000012", start)
    record = json.loads((start / "state.json").read_text())
    failures = [{"key": f"elsewhere: v{n}", "cause": "cut off", "step": 1} for n in range(9)]
    record["facts"] |= {"failures": failures, "best": {"step": 3}, "skipped_steps": 2}
    (start / "state.json").write_text(json.dumps(record))
    (start / "checksums.json").unlink()
    settings = config(shards, tmp_path / "on", start_from=str(start), train={"steps": 14})
    state = pretrain.resumed(settings)
    assert state.step == 12
    assert state.facts.keys() == {"data"}


def test_a_run_that_goes_on_holds_no_second_copy_of_the_optimisers_state(
    finished, shards, tmp_path
):
    """It is the file of a checkpoint that will be deleted, mapped into memory."""
    out = half_done(finished[0], tmp_path / "half")

    def found(*_: object, **__: object) -> None:
        states = [one for one in gc.get_objects() if type(one) is checkpoint.TrainingState]
        assert any(one.of_this_run for one in states)
        assert not any(one.optimiser for one in states)
        raise InterruptedError

    with mock.patch.object(pretrain, "train", found), pytest.raises(InterruptedError):
        pretrain.run(config(shards, out))


def test_a_batch_that_ranks_cannot_share_is_refused_before_captions_are_read(shards, tmp_path):
    with (
        mock.patch.object(pretrain, "vocabulary", side_effect=AssertionError),
        mock.patch.object(distributed, "world_size", return_value=3),
        pytest.raises(
            ConfigError, match=r"data\.batch_size: found 4, expected a multiple of .* \(3\)"
        ),
    ):
        pretrain.run(config(shards, tmp_path / "run"))


def test_labels_that_nothing_could_be_judged_by_are_refused_before_the_first_step(shards, tmp_path):
    by = {"split": "train", "label": "colour", "measure": "video_neighbours"}
    with pytest.raises(DataError, match=r"evaluation\.label: found 'colour', expected .* \(action"):
        pretrain.run(config(shards, tmp_path, eval_every=2, evaluation=by))


def test_a_reading_process_that_is_killed_ends_the_run_with_what_to_do(shards, tmp_path):
    def kill(*_: object, **__: object) -> None:
        (worker,) = multiprocessing.active_children()
        worker.kill()
        time.sleep(30)  # torch tells it in the middle of anything

    with (
        mock.patch.object(pretrain, "objective", kill),
        pytest.raises(
            DataError, match=r"has died, perhaps of a lack of memory \(DataLoader worker"
        ),
    ):
        pretrain.run(config(shards, tmp_path / "run", data={"workers": 1}))


@pytest.mark.parametrize("temperature", [2.0, 0.005])
def test_a_learned_temperature_begins_within_its_bounds(shards, tmp_path, temperature):
    learned = {"heads": {"learned": "temperature"}}
    with pytest.raises(
        ConfigError, match=rf"loss\.temperature: found {temperature}, expected 0\.01"
    ):
        config(shards, tmp_path, model=learned, loss={"temperature": temperature})
    for fine in (0.01, 1.0):
        config(shards, tmp_path, model=learned, loss={"temperature": fine})


def stopped_by(number: int, settings: PretrainConfig, folder: Path, *launcher: str):
    """A run of `vatt pretrain` that got a signal with all its processes, as on a terminal."""
    (folder / "run.toml").write_text(tomli_w.dumps(configs.to_values(settings)))
    process = subprocess.Popen(
        [sys.executable, *launcher, "-m", "vatt", "pretrain", "--config", folder / "run.toml"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(read_metrics(settings.out / "metrics.jsonl")) < 2:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
    os.killpg(process.pid, number)
    _, said = process.communicate()
    stopped = checkpoint.resume(settings.out / "checkpoints")
    assert stopped.step == read_metrics(settings.out / "metrics.jsonl")[-1]["step"] < 3000
    assert stopped.optimiser
    assert not (settings.out / "model").exists()
    assert "DataLoader" not in said
    return process.returncode, said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "workers", "exit_code"),
    [(signal.SIGTERM, 0, 0), (signal.SIGTERM, 2, 0), (signal.SIGINT, 2, 130)],
)
def test_a_signal_finishes_the_step_and_saves_it(shards, tmp_path, number, workers, exit_code):
    settings = config(shards, tmp_path / "stopped", data={"workers": workers})
    settings = replace(settings, train=replace(settings.train, steps=3000, save_every=3000))
    found, said = stopped_by(number, settings, tmp_path)
    assert found == exit_code, said
    assert "which is saved; the same command continues" in said
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_torchrun_finishes_the_step_of_all_ranks_and_saves_it(shards, tmp_path, number):
    settings = config(shards, tmp_path / "stopped", data={"workers": 1})
    settings = replace(settings, train=replace(settings.train, steps=3000, save_every=3000))
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    _, said = stopped_by(number, settings, tmp_path, *launcher)
    assert said.count("which is saved; the same command continues") == 1


def test_damaged_checkpoint_is_named_and_the_one_before_it_continues(
    finished, shards, tmp_path, caplog
):
    out = tmp_path / "damaged"
    settings = config(shards, out)
    pretrain.run(settings)
    newest = out / "checkpoints" / "step-000012"
    model = newest / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-100])
    pretrain.run(settings)
    assert "step-000012: not a whole checkpoint" in caplog.text
    assert_same_run(out, finished[0])


def test_loss_that_is_not_finite_stops_the_run_and_can_be_replayed(shards, tmp_path, capsys):
    out = tmp_path / "diverging"
    settings = config(
        shards,
        out,
        optim={"learning_rate": 1e30, "warmup_steps": 0, "clip_norm": "none"},
        train={"threads": 1, "steps": 12},
    )
    with pytest.raises(TrainingError, match=r"step \d+ \(clips .*found .*(nan|inf).* it began in"):
        pretrain.run(settings)
    (capture,) = (out / "failures").iterdir()
    batch = load_batch(Batch, capture / "rank-0")
    assert len(batch) == settings.data.batch_size
    again = pretrain.replay(capture)
    assert not all(torch.isfinite(torch.tensor(value)) for value in again.losses.values())
    assert main(["debug", "replay", str(capture), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert again.began in shown["finding"]
    first = next(one for one in shown["modules"] if not one["finite"])
    assert first["module"] == again.began


def test_measured_standardisation_is_of_the_training_frames_and_stays_with_the_model(
    shards, tmp_path, monkeypatch
):
    monkeypatch.setattr(pretrain, "STATISTICS_CLIPS", 48)
    out = tmp_path / "measured"
    settings = config(shards, out, standardise="measured", train={"steps": 4, "save_every": 2})
    pretrain.run(settings)
    sizes = load_model(Vatt, out / "model", "cpu")[0].config
    # three dark grounds, one strong in each channel, and a small bright square
    assert all(-0.9 < mean < -0.3 for mean in sizes.video.mean)
    assert all(0.3 < std < 0.6 for std in sizes.video.std)
    saved = load_model(Vatt, out / "checkpoints" / "step-000002", "cpu")[0].config
    assert saved == sizes


def with_an_unreadable_video(shards, copy):
    """A copy of shards in which a video is zeros; returns its row of the index."""
    copy.mkdir()
    for path in shards.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    dataset = ShardFolder.open(copy)
    row = int(dataset.rows("train")[2])
    where = dataset.index.slice(row, 1).to_pylist()[0]
    with (copy / where["shard"]).open("r+b") as file:
        file.seek(where["video_offset"])
        file.write(bytes(where["video_size"]))
    return where


def test_unreadable_video_is_replaced_counted_and_remembered(shards, tmp_path):
    where = with_an_unreadable_video(shards, tmp_path / "shards")
    out = tmp_path / "run"
    settings = config(tmp_path / "shards", out, data={"max_bad_fraction": 0.5})
    result = pretrain.run(settings)
    assert isinstance(result, pretrain.PretrainResult)
    assert result.failed_clips > 0
    state = json.loads((out / "checkpoints" / "step-000012" / "state.json").read_text())
    failures = state["facts"]["failures"]
    assert len(failures) == result.failed_clips
    assert all(where["key"] in failure["key"] for failure in failures)
    again = pretrain.run(settings)
    assert isinstance(again, pretrain.PretrainResult)
    assert again.failed_clips == result.failed_clips


@pytest.mark.slow
@pytest.mark.distributed
def test_clips_that_fail_on_one_rank_and_a_slow_disk_change_no_batch(shards, tmp_path):
    """Two ranks, of which one waits for each of its clips, learn what one process learns."""
    with_an_unreadable_video(shards, tmp_path / "shards")
    still = {"transformer": {"dropout": 0.0}}
    one = config(
        tmp_path / "shards",
        tmp_path / "one",
        data={"max_bad_fraction": 0.5},
        model={"video": still, "audio": still, "text": still},
        train={"steps": 6, "log_every": 1},
    )
    alone = pretrain.run(one)
    assert isinstance(alone, pretrain.PretrainResult)
    settings = tmp_path / "two.toml"
    settings.write_text(tomli_w.dumps(configs.to_values(replace(one, out=tmp_path / "two"))))
    run_ranks("tests.tasks.pretrain_rank", str(settings), "slow", world_size=2)
    for mine, theirs in zip(losses(tmp_path / "two"), losses(tmp_path / "one"), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=5e-3)
    facts = [
        checkpoint.resume(tmp_path / name / "checkpoints").facts["failures"]
        for name in ("one", "two")
    ]
    assert len(facts[0]) == alone.failed_clips > 0
    assert sorted(map(str, facts[1])) == sorted(map(str, facts[0]))


@pytest.mark.slow
@pytest.mark.distributed
def test_a_rank_that_is_killed_alone_and_started_again_by_torchrun_changes_no_bit(shards, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    for name in ("whole", "killed"):
        train = {"micro_batch": 1, "steps": 12, "save_every": 4}
        settings = tmp_path / f"{name}.toml"
        values = configs.to_values(config(shards, tmp_path / name, **ALL_ON, train=train))
        settings.write_text(tomli_w.dumps(values))
        run = ("--max-restarts", "1", "-m", "tests.tasks.pretrain_rank", str(settings))
        fault = ["dies"] if name == "killed" else []
        subprocess.run([sys.executable, *launcher, *run, *fault], cwd=ROOT, check=True)
    assert (tmp_path / "killed.died").exists()
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
    for kind in ("model", "optimiser"):
        mine, theirs = (
            read_tensors(tmp_path / name / "checkpoints" / "step-000012", kind)
            for name in ("killed", "whole")
        )
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize("micro_batch", [None, 3])
def test_a_dry_run_says_what_training_takes_and_writes_nothing(shards, tmp_path, micro_batch):
    out = tmp_path / "run"
    train = {"steps": 1000, "micro_batch": micro_batch or "none"}
    settings = config(shards, out, train=train, data={"batch_size": 96}, dry_run=True)
    found = pretrain.run(settings)
    assert isinstance(found, pretrain.DryRunResult)
    assert found.timed_clips == (micro_batch or pretrain.TIMED_CLIPS)
    assert found.epochs == pytest.approx(1000 * 96 / found.clips)
    assert found.hours == pytest.approx(1000 * 96 / found.clips_per_s / 3600)
    twice = 93 if micro_batch else 0
    passes = found.timed_s * 96 + found.forward_s * twice
    calculated = passes / found.timed_clips + found.update_s + found.loss_s
    assert found.step_s == pytest.approx(calculated)
    assert found.peak_memory_gb > 0.05
    assert not out.exists()


def test_a_dry_run_of_a_slow_model_times_two_clips_once_and_calculates_the_rest(
    shards, tmp_path, monkeypatch
):
    monkeypatch.setattr(pretrain, "PATIENCE_S", 0.0)
    found = pretrain.run(config(shards, tmp_path, data={"batch_size": 512}, dry_run=True))
    assert isinstance(found, pretrain.DryRunResult)
    assert (found.timed_clips, found.clips_of_a_process) == (2, 512)
    calculated = found.timed_s * 256 + found.update_s + found.loss_s
    assert found.step_s == pytest.approx(calculated)


def test_a_dry_run_opens_what_is_evaluated_too(shards, tmp_path):
    wrong = config(shards, tmp_path, dry_run=True, eval_every=2, evaluation={"split": "none"})
    with pytest.raises(DataError, match="none"):
        pretrain.run(wrong)


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("parallel", ["replicate", "fsdp"])
def test_two_ranks_measure_and_keep_what_one_process_does_and_go_on_with_it(
    shards, tmp_path, parallel
):
    """Nothing is learned, so that the measures of both are of the very same weights."""
    still = {"transformer": {"dropout": 0.0}}
    one = config(
        shards,
        tmp_path / "one",
        **ALL_ON
        | {
            "model": ALL_ON["model"] | {"video": still, "audio": still, "text": still},
            "optim": ALL_ON["optim"]
            | {"learning_rate": 1e-12, "final_learning_rate": 0.0, "warmup_steps": 0},
            "train": {"steps": 6, "save_every": 2, "parallel": parallel},
        },
    )
    alone = pretrained(one)
    settings, two = tmp_path / "two.toml", tmp_path / "two"
    settings.write_text(tomli_w.dumps(configs.to_values(replace(one, out=two))))
    run_ranks("tests.tasks.pretrain_rank", str(settings), world_size=2)

    def measured(run: Path) -> list[dict[str, float]]:
        entries = read_metrics(run / "metrics.jsonl")
        return [{k: v for k, v in e.items() if k.startswith("eval_")} for e in entries]

    assert measured(two) == measured(tmp_path / "one")
    assert sum(map(bool, measured(two))) == 3
    kept = [json.loads((run / "model" / "config.json").read_text())["extra"]
            for run in (two, tmp_path / "one")]  # fmt: skip
    assert kept[0] == kept[1]
    assert alone.model.startswith(f"best: moving average after step {kept[0]['step']},")
    before, best = measured(two), load_file(two / "model" / "model.safetensors")
    last = two / "checkpoints" / "step-000006"
    expected = {kind: read_tensors(last, kind) for kind in ("model", "optimiser")}
    for path in checkpoint.all_saved(two / "checkpoints")[1:]:
        shutil.rmtree(path)  # as after a kill
    run_ranks("tests.tasks.pretrain_rank", str(settings), world_size=2)
    assert measured(two) == before
    again = load_file(two / "model" / "model.safetensors")
    assert all(torch.equal(again[name], value) for name, value in best.items())
    for kind, tensors in expected.items():
        found = read_tensors(last, kind)
        assert all(torch.equal(found[name], value) for name, value in tensors.items()), kind


@pytest.mark.parametrize("parallel", ["replicate", "fsdp"])
def test_a_dry_run_checks_the_shares_of_many_processes_in_one(shards, tmp_path, parallel):
    train = {"parallel": parallel, "micro_batch": 3}
    many = config(shards, tmp_path, train=train, data={"batch_size": 512}, dry_run=True, world=64)
    found = pretrain.run(many)
    assert isinstance(found, pretrain.DryRunResult)
    assert (found.processes, found.clips_of_a_process, found.micro_batches) == (64, 8, 3)
    whole = found.parameters * 4 / 1e9
    if parallel == "fsdp":  # each weight is divided by its first dimension
        assert whole / 64 <= found.memory_gb["weights"] < whole / 4
    else:
        assert found.memory_gb["weights"] == pytest.approx(whole)
    assert found.memory_gb["optimiser"] == pytest.approx(2 * found.memory_gb["weights"], rel=0.1)
    with pytest.raises(ConfigError, match=r"found 512, expected a multiple of .* \(60\)"):
        pretrain.run(replace(many, world=60))


@pytest.mark.slow
@pytest.mark.distributed
def test_a_dry_run_of_several_ranks_has_the_words_that_one_of_them_wrote(shards, tmp_path):
    settings = config(shards, tmp_path / "dry", dry_run=True, train={"parallel": "fsdp"})
    (tmp_path / "dry.toml").write_text(tomli_w.dumps(configs.to_values(settings)))
    run_ranks("tests.tasks.pretrain_rank", str(tmp_path / "dry.toml"), world_size=2)
    assert not (tmp_path / "dry").exists()


def test_videos_without_captions_train_pictures_and_sound_alone(tmp_path, caplog):
    manifest = write_clips(tmp_path / "clips")
    for captions in (tmp_path / "clips").rglob("*.srt"):
        captions.unlink()
    made = PrepareConfig(
        src=(tmp_path / "clips",), out=tmp_path / "shards", manifest=manifest, copy=True, workers=1
    )
    prepare(made)
    out = tmp_path / "run"
    pretrain.run(config(tmp_path / "shards", out, train={"steps": 3}))
    assert [record["video_text"] for record in losses(out)] == [0, 0, 0]
    assert losses(out)[0]["video_audio"] > 0.1
    assert "no captions in split 'train'" in caplog.text


def test_a_run_with_nothing_to_learn_is_refused_before_it_starts(shards, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.batch_size: found 1, expected 2 or more"):
        config(shards, tmp_path / "one", data={"batch_size": 1})
    mute = write_shards(tmp_path / "mute", [Video(sound=False), Video(sound=False)])
    with pytest.raises(DataError, match="neither audio nor captions: nothing to learn"):
        pretrain.run(config(mute.folder, tmp_path / "run"))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_unknown_word_is_learned_though_every_word_is_in_the_vocabulary(
    shards, tmp_path, share
):
    settings = config(shards, tmp_path, data={"unknown_words": share}, train={"save_every": 1})
    pretrain.run(settings)
    saved = checkpoint.all_saved(tmp_path / "checkpoints")
    first, last = (load_file(path / "model.safetensors") for path in (saved[0], saved[-1]))
    moved = (last["text_tokens.words.weight"] - first["text_tokens.words.weight"]).norm(dim=1)
    assert (moved[1] > 0) == (share > 0)  # 1 is the unknown word, 2 the most frequent one
    assert moved[2] > 0


def test_clips_that_come_twice_in_a_batch_are_left_out_unless_set_otherwise(shards, tmp_path):
    found = {}
    for duplicates in ("left_out", "negatives"):
        out = tmp_path / duplicates
        settings = config(
            shards,
            out,
            data={"batch_size": 120},  # of fewer clips
            loss={"duplicates": duplicates},
            train={"steps": 1},
            optim={"warmup_steps": 0},
        )
        pretrain.run(settings)
        (found[duplicates],) = losses(out)
    for part in ("video_audio", "video_text"):
        assert found["left_out"][part] < found["negatives"][part] - 0.01


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize(
    ("train", "options"),
    [
        ({}, {}),
        ({"parallel": "fsdp"}, {}),
        ({"parallel": "fsdp", "micro_batch": 1, "recompute": True}, OF_STEPS),
    ],
    ids=["ddp", "fsdp", "fsdp-all-on"],
)
def test_two_ranks_train_as_one_process_does(shards, tmp_path, train, options):
    """Their run also goes on from its second step, with the model spread in the other way."""
    still = {"transformer": {"dropout": 0.0}}
    model = options.get("model", {}) | {"video": still, "audio": still, "text": still}
    one = config(shards, tmp_path / "one", **options | {"model": model, "train": {"steps": 3}})
    pretrain.run(one)
    two = configs.to_values(replace(one, out=tmp_path / "two"))
    two["train"] |= {"save_every": 2, **train}
    (tmp_path / "two.toml").write_text(tomli_w.dumps(two))
    run_ranks("tests.tasks.pretrain_rank", str(tmp_path / "two.toml"), world_size=2)
    last, before = losses(tmp_path / "two")[-1], tmp_path / "two" / "checkpoints" / "step-000002"
    shutil.rmtree(before.with_name("step-000003"))  # and the same command goes on
    shutil.copytree(tmp_path / "two", tmp_path / "alone")
    merged = checkpoint_merge.run(
        CheckpointMergeConfig(checkpoint=tmp_path / "two", out=tmp_path / "merged")
    )
    assert merged.checkpoint == before
    for kind in ("model", "optimiser"):
        divided, joined = read_tensors(before, kind), read_tensors(tmp_path / "merged", kind)
        assert divided.keys() == joined.keys()
        assert all(torch.equal(divided[name], value) for name, value in joined.items())
    assert vatt.load(tmp_path / "merged").spec == one.clip
    pretrain.run(replace(one, out=tmp_path / "alone"))
    assert losses(tmp_path / "alone")[-1]["loss"] == pytest.approx(last["loss"], rel=1e-5)
    two["train"]["parallel"] = "replicate" if train else "fsdp"
    (tmp_path / "two.toml").write_text(tomli_w.dumps(two))
    run_ranks("tests.tasks.pretrain_rank", str(tmp_path / "two.toml"), world_size=2)
    for mine, theirs in zip(losses(tmp_path / "two"), losses(tmp_path / "one"), strict=True):
        assert mine == pytest.approx(theirs, rel=2e-3)
    ours, reference = weights(tmp_path / "two"), weights(tmp_path / "one")
    # Adam divides by the root of squares: gradients near zero, summed in another order, may turn
    # their sign; three steps of at most 1e-3 bound what that does.
    for name, weight in ours.items():
        off = (weight - reference[name]).abs()
        assert_close(off.mean().item(), 0.0, rtol=0, atol=5e-5)


def test_spectrogram_needs_the_clips_sample_rate(shards, tmp_path):
    with pytest.raises(ConfigError, match=r"model\.audio\.sample_rate_hz: found 48000"):
        config(shards, tmp_path, model={"audio": {"kind": "spectrogram"}})
