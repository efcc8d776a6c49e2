"""Retrieval by several windows of each video: the windows, both directions, ties, the refusals."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vatt.contracts import ClipSpec
from vatt.errors import ConfigError, DataError
from vatt.evaluation.examples import LabelledSpan, find_captioned
from vatt.evaluation.protocols.zero_shot_windows import MILNCE, VATT, judge_windows
from vatt.evaluation.results import read_result
from vatt.shards.read import ShardFolder
from vatt.tasks import zero_shot
from vatt.tasks.zero_shot import ZeroShotConfig

TEN_LINES = '''
import torch
from types import SimpleNamespace
from torch.nn.functional import normalize
from vatt.contracts import ClipSpec

class Colours:
    """The mean colour of the frames; a text is the colour that it names."""
    spec = ClipSpec(frames=2, fps=2.0, height=8, width=8)
    encode_audio = None
    def encode_video(self, frames):
        return SimpleNamespace(vt=normalize(frames.mean((1, 2, 3)), dim=1))
    def encode_text(self, texts):
        rows = [[float(f" {name}" in text) for name in ("red", "green", "blue")] for text in texts]
        return SimpleNamespace(vt=normalize(torch.tensor(rows) - 0.5, dim=1))
'''


def spans(*texts: tuple[str, ...]) -> list[LabelledSpan]:
    return [LabelledSpan(n, f"k{n}", 0.0, 9.0, said, (0.0, 9.0)) for n, said in enumerate(texts)]


def test_the_windows_of_a_protocol_last_as_long_as_they_should_and_are_spread_evenly():
    clip = VATT.clip(ClipSpec(fps=10.0, height=48, width=64))
    assert (clip.frames, clip.height, clip.width, clip.duration_s) == (32, 224, 224, 2.56)
    assert MILNCE.clip(clip).duration_s == 3.2
    (whole,) = spans(("a",))
    starts, _ = replace(whole, end_s=10.0, cuts_s=(0.0, 10.0)).clips(clip, VATT.windows)
    assert np.allclose(starts, [0, 2.48, 4.96, 7.44])
    assert VATT.differences(replace(clip, frames=16)) == ["clip: frames 16, by the protocol 32"]


def test_windows_are_averaged_before_they_are_made_unit_and_both_ways_are_ranked():
    """Video 0 is right for texts 0 and 1; of three windows a long one outweighs two short ones."""
    vectors = np.zeros((2, 3, 2), np.float32)
    vectors[0], vectors[1] = [[0, 9], [1, 0], [1, 0]], [[1, 0]] * 3
    texts = np.array([[0, 1], [1, 0], [1, 0]], np.float32)
    found = judge_windows(spans(("up", "across"), ("across",)), vectors, texts)
    forth, back = found["text_to_video"], found["video_to_text"]
    assert forth["R@1"] == pytest.approx(100 * 2 / 3)  # "across" is nearer to video 1
    assert (forth["n"], forth["videos"], forth["captions"], back["n"]) == (3, 2, 3, 2)
    assert back["R@1"] == pytest.approx(75)  # two texts tie for video 1: half of it counts
    assert forth["captions_that_several_have"] == 2
    same = judge_windows(spans(("a",), ("b",), ("c",)), np.ones((3, 1, 2), np.float32),
                         np.ones((3, 2), np.float32))["text_to_video"]  # fmt: skip
    assert (same["R@1"], same["MedR"]) == (pytest.approx(100 / 3), 2.0)
    assert (same["chance_R@1"], same["chance_MedR"]) == (same["R@1"], same["MedR"])
    with pytest.raises(DataError, match="found 1 captioned stretches"):
        judge_windows(spans(("a",)), vectors[:1], texts[:1])


def test_all_captions_of_a_stretch_are_queries_for_it(tiny):
    found = find_captioned(ShardFolder.open(tiny.shards), "test")
    assert len(found) == 9  # three videos of three stretches
    assert {len(one.labels) for one in found} == {1}


@pytest.mark.parametrize("protocol", ["vatt", "milnce"])
def test_a_model_of_ours_is_measured_and_the_result_says_how(tiny, tmp_path, protocol):
    config = ZeroShotConfig(run=tiny.run, out=tmp_path, protocol=protocol, own_clip=True)
    result = zero_shot.run(config)
    kept = read_result(tmp_path, f"zero-shot-{protocol}")
    assert kept is not None
    assert kept["windows"] == {"vatt": 4, "milnce": 10}[protocol]
    assert kept["pool"] == "all 9 captions of split test and their videos"
    assert "clip: height 24, by the protocol 224" in kept["differs"]
    numbers = kept["text_to_video"]
    assert (numbers["captions"], numbers["captions_expected"], numbers["videos"]) == (9, 9, 9)
    assert {"R@1", "R@5", "R@10", "MedR"} <= set(kept["video_to_text"])
    assert result.measures == {name: kept[name] for name in ("text_to_video", "video_to_text")}


def test_an_encoder_of_ten_lines_is_measured_by_the_same_protocol(tiny, tmp_path, monkeypatch):
    (tmp_path / "ten_lines.py").write_text(TEN_LINES)
    monkeypatch.chdir(tmp_path)
    config = ZeroShotConfig(
        encoder="ten_lines:Colours", shards=(tiny.shards,), out=Path("results"), protocol="vatt"
    )
    found = zero_shot.run(config).measures["text_to_video"]
    assert found["R@5"] > 2 * found["chance_R@1"]
    assert found["MedR"] <= 3.5  # nine stretches of three colours: their captions name them
    for wrong in ({"out": None}, {"run": tiny.run}):
        with pytest.raises(ConfigError):
            replace(config, **wrong)


def test_shards_below_the_protocol_are_refused(tiny, tmp_path):
    shards = tmp_path / "low"
    shutil.copytree(tiny.shards, shards)
    info = json.loads((shards / "dataset.json").read_text())
    config = ZeroShotConfig(run=tiny.run, shards=(shards,), out=tmp_path, protocol="vatt")
    info["made"]["settings"] |= {"fps": 10.0}
    (shards / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match=r"found 10.0 fps .* expected 25 fps and 224 or more"):
        zero_shot.run(config)
    del info["made"]["settings"]["short_side"]  # shards by others: their videos are looked at
    (shards / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match="a short side of 48"):
        zero_shot.run(config)
    with pytest.raises(ConfigError, match="prompts: found with protocol vatt"):
        replace(config, prompts=tmp_path)
