"""transformers' AutoModel gives bitwise what vatt.load gives, from a folder without code."""

import pytest
import torch

from vatt.models.classifier import Classifier, ClassifierConfig
from vatt.models.weights import save_model

pytest.importorskip("transformers", reason='needs the extra "transformers"')


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # transformers' own, on import
def test_auto_model_is_the_model(tiny, tmp_path):
    from transformers import AutoConfig, AutoModel

    import vatt.hf

    own = vatt.load(tiny.run, "cpu")
    model = AutoModel.from_pretrained(tiny.run / "model")
    assert type(model) is vatt.hf.VattModel
    frames, ids = torch.rand(3, 4, 24, 32, 3) * 2 - 1, torch.randint(0, 5, (3, 16))
    sound = torch.rand(3, 999) * 2 - 1
    with torch.inference_mode():
        out = model(frames=frames, waveforms=sound, input_ids=ids)
    videos, texts = own.encode_video(frames), own.encode_text(ids)
    heard = own.encode_audio(sound, sample_rate_hz=own.spec.sample_rate_hz)
    pairs = [
        (out.video_features, videos.features), (out.video_va, videos.va),
        (out.video_vt, videos.vt), (out.audio_va, heard.va), (out.text_vt, texts.vt),
    ]  # fmt: skip
    assert all(torch.equal(one, other) for one, other in pairs)
    model(input_ids=ids).text_vt.sum().backward()
    half = AutoModel.from_pretrained(tiny.run / "model", dtype="bfloat16", device_map="cpu")
    torch.testing.assert_close(half(frames=frames).video_vt, videos.vt, atol=0.05, rtol=0)
    model.save_pretrained(tmp_path / "saved")
    again = AutoModel.from_pretrained(tmp_path / "saved")
    with torch.inference_mode():
        assert torch.equal(again(input_ids=ids).text_vt, texts.vt)
    assert AutoConfig.from_pretrained(tmp_path / "saved").model_type == "vatt"
    config = ClassifierConfig(modality="video", classes=3, model=own.module.config)
    (tmp_path / "classifier").mkdir()
    save_model(tmp_path / "classifier", Classifier(config), own.spec, frame_path=own.frame_path)
    classes = AutoModel.from_pretrained(tmp_path / "classifier")
    with torch.inference_mode():
        logits = classes(frames).logits
    expected = vatt.load_classifier(tmp_path / "classifier", "cpu").classify(frames).logits
    assert torch.equal(logits, expected)
