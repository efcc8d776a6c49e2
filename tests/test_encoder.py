"""vatt.load on a real tiny run: files, tensors and strings give the same vectors by any way."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import vatt
from vatt.contracts import ClipSpec
from vatt.data.clip_timing import spread_starts
from vatt.encoder import load
from vatt.encoder_inputs import read_video
from vatt.errors import CheckpointError, ConfigError, MediaError
from vatt.media.media_file import decode_audio, decode_frames
from vatt.models.classifier import Classifier, ClassifierConfig
from vatt.models.weights import save_model

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model(tiny):
    return vatt.load(tiny.run, device="cpu", autocast="off")  # or bfloat16 on some machines


@pytest.fixture(scope="module")
def files(tiny) -> list[Path]:
    return sorted((tiny.clips / "test").glob("*.mp4"))


def test_a_run_and_its_model_folder_are_the_same_model(tiny, model):
    other = vatt.load(str(tiny.run / "model"))
    weights = other.module.state_dict()
    assert all(torch.equal(w, weights[name]) for name, w in model.module.state_dict().items())
    assert other.spec == model.spec
    assert not model.module.training


def test_embeddings_are_unit_rows_in_the_spaces_that_apply(model, files):
    videos, sounds = model.encode_video(files), model.encode_audio(files)
    texts = model.encode_text(["it moves left", "it moves right"])
    heads = model.module.config.heads
    assert videos.va.shape == sounds.va.shape == (3, heads.va)
    assert videos.vt.shape == (3, heads.vt)
    assert texts.vt.shape == (2, heads.vt)
    for rows in (videos.va, videos.vt, sounds.va, texts.vt):
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))
    assert videos.features.shape[1] == model.module.config.video.transformer.width


def test_a_path_gives_the_mean_of_four_evenly_spread_clips(model, files):
    spec = model.spec
    starts_s = spread_starts(6.0, spec, 4)
    assert starts_s == pytest.approx(np.linspace(0, 6 - spec.duration_s, 4))
    times_s = (starts_s[:, None] + np.arange(spec.frames) / spec.fps).ravel()
    frames = decode_frames(files[0], times_s, size=(spec.height, spec.width))
    windows = torch.from_numpy(frames).view(4, spec.frames, spec.height, spec.width, 3)
    each = model.module.video_features(windows * (2 / 255) - 1)
    found = model.encode_video(files[0])
    torch.testing.assert_close(found.features, each.mean(0, keepdim=True), atol=1e-5, rtol=1e-4)
    va, vt = model.module.heads.video(each)
    for rows, expected in ((found.va, va), (found.vt, vt)):
        unit = torch.nn.functional.normalize(expected.mean(0, keepdim=True))
        torch.testing.assert_close(rows, unit, atol=1e-5, rtol=1e-4)


def test_the_sound_of_a_path_is_of_the_same_four_moments(model, files):
    spec = model.spec
    track = decode_audio(files[0], sample_rate_hz=spec.sample_rate_hz)
    assert track is not None
    firsts = [round(start * spec.sample_rate_hz) for start in spread_starts(6.0, spec, 4)]
    windows = np.stack([track[first : first + spec.samples] for first in firsts]) / 2**15
    each = model.module.audio_features(torch.from_numpy(windows).float())
    found = model.encode_audio(files[:1])
    torch.testing.assert_close(found.features, each.mean(0, keepdim=True), atol=1e-5, rtol=1e-4)


def test_files_are_encoded_each_on_its_own(model, files):
    together, alone = model.encode_video(files), [model.encode_video(path) for path in files]
    torch.testing.assert_close(together.va, torch.cat([one.va for one in alone]))
    torch.testing.assert_close(model.encode_audio(files).va[2:], model.encode_audio(files[2]).va)


def test_a_batch_larger_than_one_pass_is_the_same_clip_by_clip(model):
    frames = torch.rand(40, 4, 24, 32, 3) * 2 - 1
    whole = model.encode_video(frames)
    torch.testing.assert_close(whole.vt[37:38], model.encode_video(frames[37:38]).vt)


def test_numpy_arrays_are_taken_as_tensors_are(model):
    waveform = np.random.default_rng(0).uniform(-1, 1, (2, 3200)).astype(np.float32)
    rate = model.spec.sample_rate_hz
    torch.testing.assert_close(
        model.encode_audio(waveform, sample_rate_hz=rate).va,
        model.encode_audio(torch.from_numpy(waveform), sample_rate_hz=rate).va,
    )


def test_other_lengths_and_sizes_are_encoded(model):
    rate = model.spec.sample_rate_hz
    assert model.encode_video(torch.zeros(1, 9, 40, 56, 3)).va.isfinite().all()
    assert model.encode_audio(torch.zeros(2, 777), sample_rate_hz=rate).va.isfinite().all()


def test_a_waveform_at_another_rate_sounds_the_same(model):
    """A pure tone; the resampling filter rings at both ends only."""
    rate = model.spec.sample_rate_hz
    seconds = model.spec.duration_s
    tones = [
        torch.sin(2 * torch.pi * 300 * torch.arange(round(seconds * hz)) / hz)[None] * 0.5
        for hz in (rate, 48_000)
    ]
    own = model.encode_audio(tones[0], sample_rate_hz=rate)
    other = model.encode_audio(tones[1], sample_rate_hz=48_000)
    assert float((own.va * other.va).sum()) > 0.99
    noise = torch.rand(1, len(tones[0][0])) * 2 - 1
    assert float((own.va * model.encode_audio(noise, sample_rate_hz=rate).va).sum()) < 0.9


def test_strings_and_their_word_ids_are_the_same_text(model):
    texts = ["it moves left over red", "low tone"]
    ids = torch.from_numpy(model.tokenizer.encode(texts, model.spec.words))
    torch.testing.assert_close(model.encode_text(texts).vt, model.encode_text(ids).vt)
    torch.testing.assert_close(model.encode_text("low tone").vt, model.encode_text(ids[1:]).vt)
    shouted = model.encode_text(["LOW TONE!"])
    torch.testing.assert_close(shouted.vt, model.encode_text("low tone").vt)


def test_a_model_without_vocabulary_takes_word_ids_only(tiny, tmp_path):
    shutil.copytree(tiny.run / "model", tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").unlink()
    model = vatt.load(tmp_path / "model")
    assert model.encode_text(torch.tensor([[2, 3, 0]])).features.isfinite().all()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: missing"):
        model.encode_text(["it moves left"])


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (torch.zeros(4, 24, 32, 3), r"found shape \[4, 24, 32, 3\], expected \[B, T, H, W, 3\]"),
        (torch.zeros(1, 4, 3, 24, 32), "found shape"),
        (torch.zeros(1, 4, 24, 32, 3, dtype=torch.uint8), "found torch.uint8, expected floats"),
        (torch.full((1, 4, 24, 32, 3), 255.0), r"found values from 255 to 255, expected \[-1, 1\]"),
        (torch.full((1, 4, 24, 32, 3), torch.nan), "found values from nan"),
        (torch.zeros(0, 4, 24, 32, 3), "found shape"),
    ],
)
def test_frames_of_another_form_are_refused(model, frames, expected):
    with pytest.raises(ConfigError, match=expected):
        model.encode_video(frames)


def test_a_waveform_without_its_rate_is_refused(model):
    with pytest.raises(ConfigError, match="sample_rate_hz=48_000"):
        model.encode_audio(torch.zeros(1, 3200))


def test_word_ids_beyond_the_vocabulary_are_refused(model):
    with pytest.raises(ConfigError, match="word ids: found 0 to 99999, expected 0 to 255"):
        model.encode_text(torch.tensor([[0, 99999]]))
    with pytest.raises(ConfigError, match="expected integers"):
        model.encode_text(torch.zeros(1, 4))


def test_files_that_cannot_be_read_are_named(model, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    for encode in (model.encode_video, model.encode_audio):
        with pytest.raises(MediaError, match=r"broken\.mp4"):
            encode(tmp_path / "broken.mp4")
    with pytest.raises(ConfigError, match="found no paths"):
        model.encode_video([])


def test_a_wide_video_is_cut_to_the_models_aspect_not_squeezed(model, tmp_path):
    """The same picture with coloured bars left and right of it: the bars must not be seen."""
    import av

    spec = model.spec
    rng = np.random.default_rng(0)
    inner = rng.integers(0, 255, (20, 96, 128, 3)).astype(np.uint8)
    inner = inner.reshape(20, 12, 8, 16, 8, 3).mean((2, 4)).astype(np.uint8)
    inner = inner.repeat(8, 1).repeat(8, 2)
    wide = np.zeros((20, 96, 256, 3), np.uint8)
    wide[:, :, :, 1] = 255
    wide[:, :, 64:192] = inner
    seen = []
    for name, frames in (("inner", inner), ("wide", wide)):
        with av.open(str(tmp_path / f"{name}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
            _, stream.height, stream.width, _ = frames.shape
            stream.pix_fmt = "yuv444p"
            for frame in frames:
                picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
        (clips,) = read_video([tmp_path / f"{name}.mp4"], spec, model.frame_path, model.device)
        seen.append(clips.values)
    assert spec.width / spec.height == pytest.approx(128 / 96)
    difference = (seen[0] - seen[1]).abs()  # they were encoded twice, with loss
    assert difference.mean() < 0.01
    assert difference.max() < 0.2
    with pytest.raises(MediaError, match="has no audio"):
        model.encode_audio(tmp_path / "wide.mp4")


def test_a_folder_of_a_newer_format_is_refused(tiny, tmp_path):
    shutil.copytree(tiny.run / "model", tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"format_version": "2.0"}))
    with pytest.raises(CheckpointError, match=r"2\.0"):
        vatt.load(tmp_path / "model")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no model here"):
        vatt.load(tmp_path)


@pytest.fixture(scope="module")
def classifier_folder(tiny, model, tmp_path_factory) -> Path:
    """A classifier of three kinds of audio, with the sizes of the tiny run."""
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    config = ClassifierConfig(modality="audio", classes=3, model=model.module.config)
    save_model(folder, Classifier(config), model.spec)
    return folder


def test_a_classifier_gives_the_mean_logits_of_four_clips_of_a_file(classifier_folder, files):
    classifier = vatt.load_classifier(classifier_folder, "cpu")
    spec: ClipSpec = classifier.spec
    track = decode_audio(files[0], sample_rate_hz=spec.sample_rate_hz)
    assert track is not None
    firsts = [round(start * spec.sample_rate_hz) for start in spread_starts(6.0, spec, 4)]
    clips = torch.from_numpy(np.stack([track[at : at + spec.samples] for at in firsts])).float()
    each = classifier.classify(clips / 2**15, sample_rate_hz=spec.sample_rate_hz)
    assert each.logits.shape == (4, 3)
    found = classifier.classify(files[:1])
    torch.testing.assert_close(found.logits, each.logits.mean(0, keepdim=True))
    torch.testing.assert_close(found.features, each.features.mean(0, keepdim=True))


def test_models_and_classifiers_are_not_taken_for_each_other(tiny, classifier_folder, files):
    opened = vatt.load(classifier_folder, "cpu")
    assert isinstance(opened, vatt.ClipClassifier)
    assert len(opened.predict(files[:1], topk=2)[0]) == 2
    with pytest.raises(CheckpointError, match=r"classifier of audio.* vatt\.load_classifier"):
        load(classifier_folder)
    with pytest.raises(CheckpointError, match=r"is a pre-trained model.* vatt\.load$"):
        vatt.load_classifier(tiny.run)


def test_features_can_be_trained_on(model):
    features = model.encode_text("low tone").features
    layer = torch.nn.Linear(features.shape[1], 2)
    layer(features).sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.slow  # the type checker reads the types of torch
def test_the_python_code_of_the_readme_passes_a_strict_type_checker(tmp_path):
    from mypy import api

    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    files = [tmp_path / f"readme_{number}.py" for number in range(len(blocks))]
    for file, block in zip(files, blocks, strict=True):
        file.write_text(block)
    config = ["--strict", "--config-file", str(ROOT / "pyproject.toml")]
    out, err, status = api.run(
        [*config, "--cache-dir", str(ROOT / ".mypy_cache"), *map(str, files)]
    )
    assert status == 0, out + err
    assert f"no issues found in {len(files)} source file" in out


def test_inputs_of_any_layout_are_taken_as_their_values_are(model):
    """Negative strides, other byte orders, lists of arrays: the values count alone."""
    spec = model.spec
    rate = spec.sample_rate_hz
    rng = np.random.default_rng(0)
    frames = rng.uniform(-1, 1, (2, spec.frames, spec.height, spec.width, 3)).astype(np.float32)
    waves = rng.uniform(-1, 1, (2, spec.samples)).astype(np.float32)
    ids = np.array([[2, 3, 4], [5, 6, 7]])
    backwards = np.ascontiguousarray(frames[:, ::-1])
    whole = model.encode_video(backwards).va
    for given in (
        frames[:, ::-1],
        list(backwards),
        backwards.astype(">f4"),
        [*map(torch.tensor, backwards)],
    ):
        torch.testing.assert_close(model.encode_video(given).va, whole)
    heard = model.encode_audio(np.ascontiguousarray(waves[:, ::-1]), sample_rate_hz=rate).va
    for given in (waves[:, ::-1], list(waves[:, ::-1])):
        torch.testing.assert_close(model.encode_audio(given, sample_rate_hz=rate).va, heard)
    flipped = model.encode_text(np.ascontiguousarray(ids[:, ::-1])).vt
    torch.testing.assert_close(model.encode_text(ids[:, ::-1]).vt, flipped)
    words = ["it moves left", "low tone"]
    for texts in (np.array(words), np.array(words, object), tuple(words), (w for w in words)):
        torch.testing.assert_close(model.encode_text(texts).vt, model.encode_text(words).vt)


@pytest.mark.parametrize(
    ("encode", "expected"),
    [
        (lambda m: m.encode_text([]), "found no texts, expected at least one"),
        (lambda m: m.encode_text(None), "texts: found NoneType"),
        (lambda m: m.encode_text(["a", 3]), "texts: found int, expected strings"),
        (lambda m: m.encode_text(torch.zeros(0, 4, dtype=torch.long)), "word ids: found"),
        (lambda m: m.encode_text(torch.zeros(2, 0, dtype=torch.long)), "word ids: found"),
        (lambda m: m.encode_video(3), "paths: found int"),
        (lambda m: m.encode_video([np.zeros(3), "a.mp4"]), "found ndarray, expected paths"),
        (lambda m: m.encode_video([np.zeros(3), np.zeros(4)]), "frames: cannot be taken as one"),
        (lambda m: m.encode_video(torch.zeros(2, 0, 8, 8, 3)), r"frames: found shape \[2, 0, "),
        (lambda m: m.encode_audio([], sample_rate_hz=48_000), "found no paths"),
        (lambda m: m.encode_audio(torch.zeros(2, 0), sample_rate_hz=48_000), "waveform: found sh"),
        (lambda m: m.encode_audio(torch.zeros(2, 1), sample_rate_hz=48_000), "too few to resample"),
        *(
            (
                lambda m, r=rate: m.encode_audio(torch.zeros(2, 99), sample_rate_hz=r),
                "sample_rate_hz: found",
            )
            for rate in (0, -1, 44_100.5, float("nan"), float("inf"), "48k")
        ),
    ],
)
def test_nothing_or_something_else_is_refused_by_the_name_of_the_argument(model, encode, expected):
    with pytest.raises(ConfigError, match=expected):
        encode(model)


def test_the_share_of_unknown_words_is_seen(model):
    found = model.encode_text(["it moves left", "it zigzags", "zigzag", "", "it zigzags low tone"])
    torch.testing.assert_close(found.unknown, torch.tensor([0, 0.5, 1, 1, 0.25]))
    ids = torch.tensor([[2, 1, 0, 0]])
    assert model.encode_text(ids).unknown.tolist() == [0.5]
