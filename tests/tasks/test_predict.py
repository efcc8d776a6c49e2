"""Predictions of files by a fine-tuned tiny model: names, probabilities, failures."""

import csv
import json

import pytest

import vatt
from tests.tasks.test_finetune import config as finetune_config
from vatt.errors import ConfigError
from vatt.tasks import finetune, predict
from vatt.tasks.predict import PredictConfig


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("classifier")
    finetune.run(finetune_config(tiny, out, train={"steps": 2}, optim={"warmup_steps": 1}))
    return out


def test_names_and_probabilities_are_the_softmax_of_the_mean_logits(model, tiny):
    classifier = vatt.load_classifier(model, "cpu")
    files = sorted(tiny.clips.glob("test/*.mp4"))[:2]
    found = classifier.predict(files, topk=9)
    shares = classifier.classify(files).logits.softmax(-1)
    for row, one in zip(shares, found, strict=True):
        assert list(one.values()) == sorted(one.values(), reverse=True)
        assert one == pytest.approx(dict(zip(("left", "right"), row.tolist(), strict=True)))
    assert [len(one) for one in classifier.predict(files, topk=1)] == [1, 1]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_files_that_cannot_be_read_are_named_beside_the_others(model, tiny, tmp_path, suffix):
    videos = sorted(tiny.clips.glob("test/*.mp4"))
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    out = tmp_path / "new" / f"found{suffix}"  # a folder that is not there yet
    twice = tiny.clips / "test"
    result = predict.run(
        PredictConfig(files=(twice, twice, tmp_path), model=model, out=out, workers=2)
    )
    assert (result.predicted, list(result.failed)) == (3, [str(tmp_path / "broken.mp4")])
    if suffix == ".csv":
        with out.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["file"] for row in rows[::2]][:3] == [str(path) for path in videos]
        assert "cannot be opened" in rows[-1]["error"]
        shares = {row["class"]: float(row["probability"]) for row in rows[:2]}
    else:
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        assert "cannot be opened" in lines[-1]["error"]
        shares = lines[0]["classes"]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
    assert shares == pytest.approx(result.predictions[0]["classes"], abs=1e-6)


def test_no_file_that_can_be_read_is_a_problem_and_no_file_at_all_is_wrong(model, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    result = predict.run(PredictConfig(files=(tmp_path,), model=model))
    assert "none of 1 files could be read; first: " in (result.problem or "")
    (tmp_path / "broken.mp4").unlink()
    with pytest.raises(ConfigError, match="files: found none"):
        predict.run(PredictConfig(files=(tmp_path,), model=model))
