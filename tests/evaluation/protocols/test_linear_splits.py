"""Linear evaluation as published: splits and folds, windows, classifiers; ours and ten lines."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.public_data import official
from vatt.errors import ConfigError, DataError
from vatt.evaluation.classifiers import DenseConfig, LowRankConfig
from vatt.evaluation.examples import LabelledSpan
from vatt.evaluation.protocols.linear_splits import (
    LINEAR_PROTOCOLS,
    MILNCE,
    OFFICIAL,
    PAPER,
    LinearSettings,
    _measure,
    _Set,
    splits_of,
)
from vatt.evaluation.results import read_result
from vatt.tasks import linear_eval
from vatt.tasks.linear_eval import LinearEvalConfig

SHORT = LinearSettings(LowRankConfig(steps=300), DenseConfig(epochs=60), seed=0)
TEN_LINES = '''
import torch
from types import SimpleNamespace
from vatt.contracts import ClipSpec

class Pitch:
    """How often a waveform changes its sign."""
    spec = ClipSpec(frames=2, fps=4.0, height=16, width=16, sample_rate_hz=8000)
    encode_video = encode_text = None
    def encode_audio(self, waveforms, sample_rate_hz):
        changes = (waveforms[:, 1:] * waveforms[:, :-1] < 0).float().mean(1, keepdim=True)
        return SimpleNamespace(features=torch.cat([changes, 1 - changes], 1) * 10)
'''

QUICK_EYES = """
from vatt.contracts import ClipSpec

class Eyes:
    spec = ClipSpec(frames=50, fps=100.0, height=16, width=16)
    encode_audio = encode_text = None
    def encode_video(self, frames):
        raise AssertionError
"""


def windows(*rows: list[list[float]]) -> list[np.ndarray]:
    return [np.array(one, np.float32) for one in rows]


@pytest.mark.parametrize("protocol", LINEAR_PROTOCOLS.values(), ids=LINEAR_PROTOCOLS)
def test_every_classifier_tells_apart_what_lies_apart(protocol):
    rng = np.random.default_rng(0)

    def part(number: int) -> _Set:
        labels = np.array(["a", "b", "c"] * number)
        centres = np.array([[9.0 * (name == one) for one in "abc"] for name in labels])
        rows = [one + rng.normal(size=(2, 3)) for one in centres]
        return _Set([row.astype(np.float32) for row in rows], labels)

    numbers = _measure(protocol, part(10), part(4), SHORT)
    assert set(numbers) == set(protocol.classifiers)
    for found in numbers.values():
        assert (found["top1"], found["balanced"]) == (1.0, 1.0)


def test_scores_of_windows_are_added_up_and_frequent_classes_do_not_hide_rare_ones():
    """Two of three windows lean to the wrong side, the third is far on the right one."""
    train = _Set(windows([[-1.0]], [[-2.0]], [[1.0]], [[2.0]]), np.array(["l", "l", "r", "r"]))
    test = _Set(
        windows([[-0.1], [-0.1], [5.0]], [[1.0]] * 3, [[2.0]] * 3, [[3.0]] * 3),
        np.array(["r", "r", "r", "l"]),
    )
    numbers = _measure(MILNCE, train, test, SHORT)["svm"]
    assert numbers == {"top1": 0.75, "balanced": 0.5, "C": 100.0}


def test_splits_and_folds_are_those_that_the_labels_name():
    def folder(*labels: dict[str, str]) -> tuple[dict, list[LabelledSpan]]:
        records = [
            SimpleNamespace(labels=[{"start_s": 0, "end_s": 9, **one}], split=one["own"])
            for one in labels
        ]
        shards = SimpleNamespace(read_record=records.__getitem__)
        spans = [LabelledSpan(n, f"k{n}", 0.0, 9.0, ("x",), (0.0, 9.0)) for n in range(len(labels))]
        return {"": shards}, spans

    def found(*labels: dict[str, str]) -> list[tuple[str, list[int], list[int]]]:
        splits = splits_of(*folder(*labels), train_split="train", test_split="test")
        return [
            (one.name, np.flatnonzero(one.train).tolist(), np.flatnonzero(one.test).tolist())
            for one in splits
        ]

    one, two = {"own": "train"}, {"own": "test"}
    assert found(one, two) == [("test", [0], [1])]
    assert found(one | {"fold": "1"}, two | {"fold": "2"}, one | {"fold": "2"}) == [
        ("1", [1, 2], [0]),
        ("2", [0], [1, 2]),
    ]
    assert found(
        one | {"split1": "train", "split2": "test"},
        two | {"split1": "test", "split2": "train"},
        {"own": "other", "split2": "test"},
    ) == [("1", [0], [1]), ("2", [1], [0, 2])]
    with pytest.raises(DataError, match="split test has 1 examples to train on and 0 to test"):
        found(one)


def test_five_folds_of_a_data_set_by_an_encoder_of_ten_lines(tmp_path, monkeypatch):
    """Tones of two pitches; one file of the list is not there, and every fold is reported."""
    data, lines = tmp_path / "esc", ["filename,fold,target,category,esc10,src_file,take"]
    data.mkdir()
    for fold in range(1, 6):
        for target, (name, hertz) in enumerate((("low", 200.0), ("high", 2000.0))):
            file = f"{fold}-{fold}{target}-A-{target}.wav"
            lines.append(f"{file},{fold},{target},{name},False,{fold}{target},A")
            if (fold, target) != (2, 0):
                (data / file).write_bytes(official.wave(1.0, hertz + fold))
    (data / "esc50.csv").write_text("\n".join(lines))
    (tmp_path / "ten_lines_heard.py").write_text(TEN_LINES)
    monkeypatch.chdir(tmp_path)
    config = LinearEvalConfig(
        encoder="ten_lines_heard:Pitch", out=tmp_path / "results", dataset="esc50",
        dataset_dir=data, protocol="milnce",
    )  # fmt: skip
    measures = linear_eval.run(config).measures["label"]
    assert list(measures["splits"]) == ["1", "2", "3", "4", "5"]
    assert measures["mean"]["svm"] == {"top1": 1.0, "balanced": 1.0}
    numbers = measures["splits"]["2"]
    assert (numbers["n_test"], numbers["n_test_expected"], numbers["n_train"]) == (1, 2, 8)
    kept = read_result(tmp_path / "results", "linear-eval-milnce-esc50")
    assert kept is not None
    assert (kept["encoder"], len(kept["model_hash"])) == ("ten_lines_heard:Pitch", 12)
    assert kept["label"] == measures
    again = replace(config, shards=(tmp_path / "results" / "shards-esc50-1",), dataset_split=3)
    assert linear_eval.run(again).measures["label"] == measures
    with pytest.raises(ConfigError, match="out: found none"):
        replace(config, out=None)


@pytest.mark.parametrize("protocol", ["paper", "official", "milnce", "averaged"])
def test_a_protocol_refuses_shards_below_the_clips_of_the_encoder(
    protocol, tiny, tmp_path, monkeypatch
):
    (tmp_path / "quick_eyes.py").write_text(QUICK_EYES)
    monkeypatch.chdir(tmp_path)
    shards = tmp_path / "low"
    shutil.copytree(tiny.shards, shards)
    info = json.loads((shards / "dataset.json").read_text())
    info["made"]["settings"] |= {"fps": 10.0}
    (shards / "dataset.json").write_text(json.dumps(info))
    config = LinearEvalConfig(
        encoder="quick_eyes:Eyes", out=tmp_path, protocol=protocol, shards=(shards,)
    )
    with pytest.raises(DataError, match=r"found 10.0 fps .* expected 100 fps"):
        linear_eval.run(config)


def test_frames_of_low_shards_do_not_keep_their_audio_from_being_measured(
    tiny, tmp_path, monkeypatch
):
    (tmp_path / "ten_lines_listen.py").write_text(TEN_LINES.replace("fps=4.0", "fps=400.0"))
    monkeypatch.chdir(tmp_path)
    shards = tmp_path / "low"
    shutil.copytree(tiny.shards, shards)
    info = json.loads((shards / "dataset.json").read_text())
    info["made"]["settings"] |= {"fps": 10.0}
    (shards / "dataset.json").write_text(json.dumps(info))
    config = LinearEvalConfig(
        encoder="ten_lines_listen:Pitch", out=tmp_path, protocol="averaged", shards=(shards,)
    )
    result = linear_eval.run(config)
    assert "found 10.0 fps" in result.left_out["video_action"]
    assert set(result.measures) == {"sound_event"}


def test_a_run_of_ours_is_measured_by_the_papers_protocol(tiny, tmp_path):
    config = LinearEvalConfig(
        run=tiny.run, out=tmp_path, protocol="paper", low_rank=SHORT.low_rank, video=("weather",)
    )
    result = linear_eval.run(config)
    assert "no label 'weather'" in result.left_out["video_weather"]
    numbers = result.measures["sound_event"]
    assert set(numbers["mean"]) == {"lrc", "svm"}
    assert numbers["mean"]["lrc"]["top1"] == 1.0  # tones that any network hears
    assert (numbers["splits"]["test"]["n_train"], numbers["splits"]["test"]["n_test"]) == (18, 9)
    assert (PAPER.train_windows, PAPER.test_windows) == (1, 4)
    assert (OFFICIAL.train_windows, OFFICIAL.test_windows) == (1, 4)
