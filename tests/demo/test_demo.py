"""The demo's stages that need no game, on a tiny run."""

import json
import shutil
from dataclasses import replace

import pytest

import vatt
from vatt.cli.main import main
from vatt.evaluation.results import write_result
from vatt.presets import FINETUNE_PRESETS
from vatt.tasks import evaluate, finetune
from vatt_demo.demo import DemoConfig, headlines, shortened, stages, summarise


def test_a_shorter_preset_warms_up_for_the_same_share_of_its_steps():
    usual = FINETUNE_PRESETS["finetune-demo"]()
    half = shortened(usual, 0.5)
    assert half["train"]["steps"] == usual["train"]["steps"] / 2
    assert half["optim"]["warmup_steps"] == usual["optim"]["warmup_steps"] / 2
    assert shortened(usual, 1.0, steps=12)["optim"]["warmup_steps"] == 1


def test_the_finetuned_number_stands_beside_the_probe(tiny, tmp_path):
    out = tmp_path / "demo"
    shutil.copytree(tiny.run, out, ignore=shutil.ignore_patterns("results"))
    shutil.copytree(tiny.shards, out / "shards")
    probe = {"pretrained": {"svm": 0.625}, "random_init": {"svm": 0.5}, "chance": 0.5}
    write_result(out, "linear-eval", {"video_action": probe})
    config = DemoConfig(out=out, length="quick", preset="tiny")
    todo = {stage.name: stage for stage in stages(config)}
    tuning = todo["finetune"].config
    small = replace(tuning.data, cache="none", batch_size=4)  # starts no processes to decode
    finetune.run(replace(tuning, data=small, train=replace(tuning.train, threads=1)))
    evaluate.run(todo["evaluate"].config)
    summary = summarise(config, {})
    found = summary["finetune"]["video_action"]
    assert (found["probe"], found["chance"], found["classes"]) == (0.625, 0.5, 2)
    assert (found["n"], found["n_expected"]) == (9, 9)
    judged = json.loads((out / "finetuned" / "results" / "evaluate.json").read_text())
    per_class = judged["measures"]["per_class"]
    assert found["pretrained"] == pytest.approx((per_class["left"] + per_class["right"]) / 2)
    rows = {row.measure: row for row in headlines(summary)}
    assert rows["action, all of the video backbone fine-tuned"].this_run == found["pretrained"]
    assert rows["action, linear on frozen video features"].this_run == 0.625


def test_a_finished_demo_of_before_gets_an_index_of_its_test_recordings(
    tiny, tmp_path, monkeypatch, capsys, caplog
):
    """Without LanceDB that stage is left out with a sentence; with it, it runs alone and once."""
    pytest.importorskip("lancedb", reason='needs the extra "search"')
    out = tmp_path / "demo"
    shutil.copytree(tiny.run / "model", out / "model")
    (out / "clips" / "test").mkdir(parents=True)
    shutil.copy(min(tiny.clips.rglob("*.mp4")), out / "clips" / "test")
    settings = {"length": "quick", "preset": "tiny", "seed": 0}
    settings |= dict.fromkeys(("clips", "hours", "steps"), "none")
    config = DemoConfig(out=out, length="quick", preset="tiny")
    done = {stage.name: 1.0 for stage in stages(config) if stage.name != "embed"}
    (out / "stages.json").write_text(json.dumps({"settings": settings, "done": done}))
    command = ["demo", "--out", str(out), "--length", "quick", "--preset", "tiny", "--workers", "1"]

    def demo() -> tuple[dict, list[str]]:
        caplog.clear()
        assert main([*command, "--json"]) == 0
        return json.loads(capsys.readouterr().out), [one.getMessage() for one in caplog.records]

    caplog.set_level("INFO", "vatt_demo.demo")
    with monkeypatch.context() as patch:
        patch.setattr("vatt_demo.demo.find_spec", lambda name: None)
        result, said = demo()
        assert result["search_page"] is None
        assert 'pip install "vatt[search,serve]"' in said[-1]
        assert "embed" not in result["seconds"]
    result, said = demo()
    assert result["search_page"].endswith(f"vatt serve {out / 'library.index'}")
    assert said[7:9] == ["8/9 report: done before", "9/9 embed"]
    library = json.loads((out / "result.json").read_text())["library"]
    assert (library["files"], library["seconds"]) == (1, result["seconds"]["embed"])
    assert library["windows"] == vatt.open_index(out / "library.index").num_windows
    result, said = demo()
    assert said[8] == "9/9 embed: done before"
    assert result["seconds"]["embed"] == library["seconds"]
