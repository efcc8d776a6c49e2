"""Exported models without PyTorch: files, arrays and strings give what they give with it."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import vatt
from tests.export.small_towers import WORDS, card, write_tower
from vatt.data.file_clips import spread_clip, spread_frames, spread_waveforms
from vatt.data.tokenizer import WordTokenizer
from vatt.errors import CheckpointError, ConfigError
from vatt.export.onnx_encoder import open_onnx
from vatt.export.plain_inputs import frames_of
from vatt.export.tower_card import KEY, read_card
from vatt.media.media_file import open_media

pytest.importorskip("onnxruntime", reason='needs the extra "onnx"')
pytest.importorskip("onnx", reason='needs the extra "onnx"')


@pytest.fixture(scope="module")
def model(tiny):
    return vatt.load(tiny.run, device="cpu", autocast="off")


@pytest.fixture(scope="module")
def file(tiny):
    return sorted((tiny.clips / "test").glob("*.mp4"))[0]


@pytest.fixture(scope="module")
def exported(tmp_path_factory, model):
    """A folder of three small towers for the clips of the tiny model."""
    folder = tmp_path_factory.mktemp("exported")
    words = WordTokenizer.build(["it moves left"])
    for tower in ("video", "audio", "text"):
        more = {"tokenizer": words.to_json()} if tower == "text" else {}
        write_tower(folder / f"{tower}.onnx", card(tower, model.spec, model.frame_path, **more))
    return folder


@pytest.mark.parametrize(
    ("decode", "antialias", "side"),
    [("planes", True, 24), ("planes", False, 40), ("rgb", True, 24)],
)
def test_frames_of_a_file_are_those_that_pytorch_makes(model, file, decode, antialias, side):
    spec = replace(model.spec, height=side)
    path = replace(model.frame_path, decode=decode, antialias=antialias)
    with open_media(file) as media:
        expected = spread_frames(media, spec, path, torch.device("cpu")).numpy()
        clip, one = spread_clip(media, spec, path)
    found = frames_of(clip, one, antialias=antialias).reshape(expected.shape)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_it_works_where_pytorch_cannot_be_imported(exported, model, file):
    script = f"""
import sys
sys.modules["torch"] = None
import numpy as np, vatt
model = vatt.load({str(exported)!r})
video, audio = model.encode_video([{str(file)!r}]), model.encode_audio({str(file)!r})
text = model.encode_text(["It moves left!", "it flies", ""])
frames = model.encode_video(np.zeros((40, 5, 9, 8, 3)))
assert len(frames.va) == 40
sound = model.encode_audio(np.ones((2, 777), np.float32), sample_rate_hz=model.spec.sample_rate_hz)
for rows in (video.features, audio.features, text.features, text.unknown[None]):
    print(*rows.ravel().tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    lines = [np.array(line.split(), np.float32) for line in done.stdout.splitlines()]
    with open_media(file) as media:
        frames = spread_frames(media, model.spec, model.frame_path, torch.device("cpu")).numpy()
        waveforms = spread_waveforms(media, model.spec)
    assert waveforms is not None
    np.testing.assert_allclose(lines[0], frames.astype(float).mean((0, 1, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(lines[1], [(waveforms / 2**15).mean()], atol=1e-5)
    np.testing.assert_allclose(lines[3], [0, 0.5, 1])


def test_sizes_that_are_not_whole_patches_are_filled_up_or_cut_as_the_model_does(exported, model):
    frames = np.zeros((1, 3, 8, 8, 3), np.float32)
    found = open_onnx(exported).encode_video(frames).features
    np.testing.assert_allclose(found, [[0.125, 0.0625, 0]], atol=1e-6)  # a quarter is padding


def test_what_cannot_be_done_is_said(exported, model, tmp_path):
    encoder = open_onnx(exported)
    for wrong, said in (
        (np.zeros((1, 4, 8, 8, 3), np.uint8), "expected floats"),
        (np.zeros((1, 4, 8, 8)), "expected .B, T, H, W, 3."),
        ([3], "expected paths"),
    ):
        with pytest.raises(ConfigError, match=said):
            encoder.encode_video(wrong)
    with pytest.raises(ConfigError, match="expected 0 to 39"):
        encoder.encode_text(np.full((1, 4), WORDS))
    with pytest.raises(ConfigError, match="give its rate"):
        encoder.encode_audio(np.zeros((1, 640)))
    only = write_tower(tmp_path / "text.onnx", card("text", model.spec))
    with pytest.raises(CheckpointError, match=r"no video\.onnx here"):
        vatt.load(only).encode_video(np.zeros((1, 4, 8, 8, 3)))
    with pytest.raises(CheckpointError, match="holds no vocabulary"):
        vatt.load(only).encode_text("left")
    fixed = write_tower(tmp_path / "audio.onnx", card("audio", model.spec, any_size=False))
    rate = model.spec.sample_rate_hz
    with pytest.raises(ConfigError, match="of its own size only"):
        vatt.load(fixed).encode_audio(np.zeros((1, 640)), sample_rate_hz=rate)
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x08 not a model")
    with pytest.raises(CheckpointError, match=r"broken\.onnx: cannot be opened"):
        vatt.load(tmp_path / "broken.onnx")
    with pytest.raises(CheckpointError, match="not found"):
        vatt.load(tmp_path / "absent.onnx")
    with pytest.raises(ConfigError, match="leave it out"):
        vatt.load(only, autocast="bfloat16")


def test_a_classifier_names_the_likeliest_classes(model, tmp_path):
    names = ("red", "green", "blue")
    about = card("video", model.spec, classifier=True, classes=3, names=names)
    write_tower(tmp_path / "video.onnx", about)
    with pytest.raises(CheckpointError, match=r"open it with vatt\.load_classifier"):
        vatt.load(tmp_path)
    frames = np.zeros((2, 2, 8, 8, 3), np.float32)
    frames[0, ..., 2], frames[1, ..., 0] = 1, 0.5
    first, second = vatt.load_classifier(tmp_path).predict(frames, topk=2)
    assert list(first) == ["blue", "red"]
    assert first["blue"] == pytest.approx(np.e / (np.e + 2))
    assert next(iter(second)) == "red"


def test_the_card_of_a_newer_format_is_refused(model):
    text = card("text", model.spec).to_json()
    assert read_card(text, "a.onnx") == card("text", model.spec)
    with pytest.raises(CheckpointError, match="newer vatt"):
        read_card(text.replace('"format_version": "1', '"format_version": "2'), "a.onnx")
    with pytest.raises(CheckpointError, match=f"no metadata '{KEY}'"):
        read_card(None, "a.onnx")
