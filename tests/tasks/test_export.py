"""`vatt export`: what is written agrees with the model, and what does not is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import vatt
from vatt.errors import CheckpointError, ConfigError, DataError
from vatt.export import faithful
from vatt.models.classifier import Classifier, ClassifierConfig
from vatt.models.weights import save_model
from vatt.tasks import export
from vatt.tasks.export import ExportConfig

pytest.importorskip("onnxscript", reason='needs the extra "onnx"')
pytest.importorskip("onnxruntime", reason='needs the extra "onnx"')


def test_numbers_that_differ_by_more_than_rounding_are_refused():
    good, bad = faithful.Compared({"batch 2": 9e-6}), faithful.Compared({"batch 2": 1.1e-5})
    faithful.refuse_difference({"video": good})
    with pytest.raises(DataError, match=r"audio: .* by 1.1e-05 \(batch 2\)"):
        faithful.refuse_difference({"video": good, "audio": bad})
    with pytest.raises(DataError):
        faithful.refuse_difference({"video": faithful.Compared({"batch 1": float("nan")})})


def test_the_ten_best_are_the_same_also_where_equal_ones_change_places():
    scores = np.linspace(1, -1, 20, dtype=np.float32)[None].repeat(3, 0)
    scores[1, 3] = scores[1, 4] + 1e-6
    other = scores.copy()
    other[1, [3, 4]] = other[1, [4, 3]]  # rounding could do this
    assert faithful.same_top(scores, other) == 3
    other[2, [0, 15]] = other[2, [15, 0]]
    assert faithful.same_top(scores, other) == 2


def test_int8_that_costs_too_much_is_refused_with_the_number():
    check = faithful.RetrievalCheck(100, 90, model=52.0, exported=50.5)
    with pytest.raises(DataError, match=r"R@10 falls from 52\.0 to 50\.5 .* at most 1 points"):
        export._refuse_fall({"text_to_video": check}, 1.0)
    export._refuse_fall({"text_to_video": replace(check, exported=51.0)}, 1.0)
    with pytest.raises(DataError, match="cannot be measured"):
        export._refuse_fall({}, 1.0)


def test_what_cannot_be_exported_is_said_before_any_work(tiny, tmp_path):
    with pytest.raises(ConfigError, match="--shards FOLDER to measure"):
        ExportConfig(model=tiny.run, out=tmp_path / "x", quantize="int8")
    with pytest.raises(CheckpointError, match="is there already"):
        export.run(ExportConfig(model=tiny.run, out=tmp_path))


@pytest.mark.slow
def test_an_exported_model_is_the_model(tiny, tmp_path):
    """Files, arrays of other sizes, strings; checked on the shards; quantised too."""
    out = tmp_path / "onnx"
    result = export.run(ExportConfig(model=tiny.run, out=out, shards=(tiny.shards,), threads=1))
    assert set(result.files) == {"video", "audio", "text"}
    assert all(gap <= 1e-5 for each in result.largest_difference.values() for gap in each.values())
    assert {len(each) >= 2 for each in result.largest_difference.values()} == {True}
    own, other = vatt.load(tiny.run, "cpu", autocast="off"), vatt.load(out / "video.onnx")
    files = sorted((tiny.clips / "test").glob("*.mp4"))
    frames = torch.rand(3, 7, 21, 50, 3) * 2 - 1
    texts = ["it moves left", "it goes nowhere", "left"]
    sound = torch.rand(2, 1234) * 2 - 1
    rate = own.spec.sample_rate_hz
    pairs = [
        (own.encode_video(files).vt, other.encode_video(files).vt),
        (own.encode_video(frames).va, other.encode_video(frames.numpy()).va),
        (own.encode_audio(files).va, other.encode_audio(files).va),
        (
            own.encode_audio(sound, sample_rate_hz=rate).va,
            other.encode_audio(sound, sample_rate_hz=rate).va,
        ),
        (own.encode_text(texts).vt, other.encode_text(texts).vt),
        (own.encode_text(texts).unknown, other.encode_text(texts).unknown),
        (
            own.encode_text(torch.ones(2, 5, dtype=torch.int64)).vt,
            other.encode_text(np.ones((2, 5), int)).vt,
        ),
    ]
    for expected, found in pairs:
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_a_classifier_and_torch_files(tiny, tmp_path):
    own = vatt.load(tiny.run, "cpu", autocast="off")
    config = ClassifierConfig(
        modality="audio", classes=3, model=own.module.config, names=("a", "b", "c")
    )
    (tmp_path / "m").mkdir()
    save_model(tmp_path / "m", Classifier(config), own.spec, frame_path=own.frame_path)
    export.run(ExportConfig(model=tmp_path / "m", out=tmp_path / "o", opset=23, threads=1))
    sound = np.random.default_rng(0).uniform(-1, 1, (2, 900)).astype(np.float32)
    rate = {"sample_rate_hz": own.spec.sample_rate_hz}
    expected = vatt.load_classifier(tmp_path / "m", "cpu", autocast="off").predict(sound, **rate)
    found = vatt.load_classifier(tmp_path / "o" / "audio.onnx").predict(sound, **rate)
    for one, other in zip(expected, found, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    torch_file = ExportConfig(
        model=tiny.run, out=tmp_path / "t", format="torch", towers=("text",), threads=1
    )
    export.run(torch_file)
    program = torch.export.load(tmp_path / "t" / "text.pt2").module()
    ids = torch.randint(0, 5, (4, 9))
    with torch.inference_mode():
        torch.testing.assert_close(program(ids)[2], own.encode_text(ids).vt, atol=1e-5, rtol=0)
