from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from tests.models.small import BACKBONE, SHARED_MODEL, SMALL_MODEL, SPECTROGRAM_MODEL, cut
from tests.models.small import some_inputs as inputs_of
from vatt.devices import cpu_threads
from vatt.errors import ConfigError
from vatt.losses import LossConfig, contrast
from vatt.models.model_config import AudioConfig, ModelConfig, TextConfig, VideoConfig
from vatt.models.positions import resample
from vatt.models.spectrogram import log_mel
from vatt.models.transformer import BASE, LARGE, MEDIUM, TransformerConfig
from vatt.models.variants import as_official
from vatt.models.vatt import Vatt
from vatt.models.weights import build_empty

MODELS = {
    "specific": SMALL_MODEL,
    "shared": SHARED_MODEL,
    "spectrogram": SPECTROGRAM_MODEL,
    "official": as_official(SMALL_MODEL),
    "official shared": as_official(SHARED_MODEL),
    "official spectrogram": as_official(SPECTROGRAM_MODEL),
    "linear text": replace(SMALL_MODEL, text=replace(SMALL_MODEL.text, kind="linear")),
}
each_model = pytest.mark.parametrize("config", MODELS.values(), ids=MODELS.keys())


def built(config: ModelConfig) -> Vatt:
    torch.manual_seed(0)
    return Vatt(config)


def num_weights(*modules: torch.nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@each_model
def test_gradient_of_the_loss_reaches_every_trained_weight(config):
    model = built(config)
    z = model(inputs_of())
    torch.autograd.backward(contrast(z, z, LossConfig()).total)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            if not name.endswith("final_norm.bias"):  # batch norm takes out what all rows share
                assert parameter.grad.abs().max() > 0, name


@each_model
def test_few_steps_on_six_clips_lower_the_loss_by_half(config):
    model, inputs = built(config), inputs_of()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        z = model(inputs)
        loss = contrast(z, z, LossConfig()).total
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


@each_model
def test_batch_cut_anywhere_gives_the_same_features(config):
    if config.drop_token_scope == "batch":
        config = replace(config, drop_token=0.0)  # one choice per batch depends on the batch
    model, inputs = built(config), inputs_of()
    whole = model.features(inputs)
    parts = [model.features(cut(inputs, rows)) for rows in (slice(0, 1), slice(1, 4), slice(4, 6))]
    for name in ("video", "audio", "text"):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert_close(joined, getattr(whole, name), atol=1e-5, rtol=1e-5)  # other matmul blocking


def test_words_of_masked_texts_and_sound_of_silent_clips_get_no_gradient():
    model, inputs = built(SMALL_MODEL), inputs_of()
    words = inputs.word_ids.clone()
    words[~inputs.text_mask] = 49  # a word that is in masked texts alone
    words[inputs.text_mask] = words[inputs.text_mask].clamp(max=48)
    audio = inputs.audio.clone().requires_grad_()
    z = model(replace(inputs, word_ids=words, audio=audio))
    torch.autograd.backward(contrast(z, z, LossConfig()).total)
    table = model.text_tokens.words.weight.grad
    assert table is not None
    assert (table[49] == 0).all()
    read = torch.unique(words[inputs.text_mask])
    assert (table[read[read != 0]] != 0).any(1).all()  # 0 is padding, nobody attends to it
    assert audio.grad is not None
    assert (audio.grad[~inputs.has_audio] == 0).all()
    assert (audio.grad[inputs.has_audio] != 0).any(1).all()


@pytest.mark.parametrize(
    "config", [SMALL_MODEL, as_official(SMALL_MODEL)], ids=["paper", "official"]
)
def test_padding_of_texts_changes_nothing(config):
    model, words = built(config), inputs_of().word_ids[0]
    longer = torch.nn.functional.pad(words, (0, 5))
    assert_close(model.text_features(longer), model.text_features(words), atol=1e-5, rtol=1e-5)


def test_order_of_words_matters():
    words = torch.tensor([[5, 6, 7, 8, 0, 0], [8, 7, 6, 5, 0, 0]])
    for config in (SMALL_MODEL, as_official(SMALL_MODEL), as_official(SHARED_MODEL)):
        first, second = built(config).text_features(words)
        assert (first - second).abs().max() > 1e-4


@pytest.mark.parametrize("resampling", ["bicubic", "polyharmonic"])
def test_other_lengths_and_resolutions_use_resampled_positions(resampling):
    config = replace(SMALL_MODEL, position_resampling=resampling)
    larger = replace(config, video=replace(config.video, buckets=(3, 5, 6)))
    model, other = built(config), built(larger)
    weights = model.state_dict()
    for axis, size in enumerate(larger.video.buckets):
        name = f"video_tokens.positions.tables.{axis}"
        weights[name] = resample(weights[name], size, resampling)
    other.load_state_dict(weights)
    frames = torch.rand(2, 6, 20, 24, 3) * 2 - 1
    assert_close(model.video_features(frames), other.video_features(frames))


def test_shared_backbone_is_one_object_given_three_times():
    model = built(SHARED_MODEL)
    assert model.backbone("video") is model.backbone("audio") is model.backbone("text")
    assert num_weights(model) == num_weights(built(SMALL_MODEL)) - 2 * num_weights(
        built(SMALL_MODEL).backbone("video")
    )
    storages = [tensor.data_ptr() for tensor in model.state_dict().values()]
    assert len(storages) == len(set(storages))  # each weight is saved once


def test_specific_backbones_are_three_objects():
    model = built(SMALL_MODEL)
    assert len({id(model.backbone(modality)) for modality in ("video", "audio", "text")}) == 3


def test_without_draws_nothing_is_dropped_even_in_training():
    model, inputs = built(SMALL_MODEL), inputs_of()
    undropped = Vatt(replace(SMALL_MODEL, drop_token=0.0))
    undropped.load_state_dict(model.state_dict())
    features = model.features(replace(inputs, draw=None))
    assert torch.equal(features.video, undropped.features(inputs).video)
    assert not torch.equal(features.video, model.features(inputs).video)
    assert not torch.equal(features.audio, model.features(inputs).audio)
    assert torch.equal(features.text, model.features(inputs).text)  # text is never dropped


def test_spectrogram_model_takes_waveforms_or_their_spectrograms():
    model, audio = built(SPECTROGRAM_MODEL), inputs_of().audio
    mel = log_mel(audio, 800, SPECTROGRAM_MODEL.audio.spectrogram)
    assert torch.equal(model.audio_features(audio), model.audio_features(mel))


def test_bfloat16_autocast_stays_near_float32():
    model, inputs = built(SMALL_MODEL).eval(), inputs_of()
    exact = model(inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(inputs)
    for name in ("video_va", "audio_va", "video_vt", "text_vt"):
        cosine = torch.cosine_similarity(
            getattr(exact, name), getattr(rounded, name).float(), dim=-1
        )
        assert cosine.min() > 0.999  # bfloat16 keeps 8 bits


def paper_model(video: TransformerConfig) -> ModelConfig:
    return ModelConfig(video=VideoConfig(transformer=video))


@pytest.mark.parametrize(("size", "table_1"), [(BASE, "87.9"), (MEDIUM, "155.0"), (LARGE, "306.1")])
def test_video_backbone_with_600_classes_has_the_size_of_table_1(size, table_1):
    # Table 1 counts a Kinetics-600 classifier; paper and code differ by less than the last digit.
    for config in (paper_model(size), as_official(paper_model(size))):
        model = build_empty(config)
        assert isinstance(model, Vatt)
        total = num_weights(model.video_tokens, model.backbone("video")) + 600 * (size.width + 1)
        assert f"{total / 1e6:.1f}" == table_1


def test_paper_model_has_the_weights_its_equations_name():
    model = build_empty(ModelConfig())
    assert isinstance(model, Vatt)
    video, audio, text = 1024, 768, 512
    expected = num_weights(*model.backbones.children())
    expected += 4 * 16 * 16 * 3 * video + (8 + 14 + 14) * video + video  # W_vp, eq. 1, AGG
    expected += 128 * audio + 1200 * audio + audio  # W_ap, positions, AGG
    expected += 2**16 * text + text + 32 * 8  # W_tp, AGG, relative bias of 8 heads
    linear = video * 512 + 512 * 512 + 512 * 256 + audio * 512 + text * 256
    expected += linear + 2 * (3 * 512 + 2 * 256)  # eq. 3: five layers, each with batch norm
    assert num_weights(model) == expected


def test_backbones_of_different_sizes_cannot_be_shared():
    other = replace(BACKBONE, layers=3)
    with pytest.raises(ConfigError, match=r"model\.shared: found backbones of different sizes"):
        replace(SHARED_MODEL, audio=replace(SHARED_MODEL.audio, transformer=other))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: ModelConfig(drop_token=1.0), "model.drop_token: found 1.0"),
        (lambda: ModelConfig(post_projection=0), "model.post_projection: found 0"),
        (lambda: VideoConfig(patch=(4, 0, 16)), "model.video.patch: found"),
        (lambda: VideoConfig(std=(1.0, 0.0, 1.0)), "model.video.std: found"),
        (lambda: AudioConfig(buckets=0), "model.audio.buckets: found 0"),
        (lambda: TextConfig(vocabulary=0), "model.text.vocabulary: found 0"),
        (lambda: TextConfig(relative_max_distance=8), "model.text.relative_buckets: found 32"),
    ],
)
def test_impossible_settings_are_refused_by_name(make, named):
    with pytest.raises(ConfigError, match=named):
        make()


@pytest.mark.parametrize("config", [MODELS["specific"], MODELS["spectrogram"]])
def test_gradients_are_the_same_each_time_with_several_threads(config):
    model, inputs = built(config).train(), inputs_of(512)

    def gradients() -> dict[str, torch.Tensor]:
        z = model(inputs)
        model.zero_grad()
        torch.autograd.backward(contrast(z, z, LossConfig()).total)
        return {
            name: weight.grad.clone()
            for name, weight in model.named_parameters()
            if weight.grad is not None
        }

    with cpu_threads(4):
        first, *others = (gradients() for _ in range(4))
    for other in others:
        assert [name for name in first if not torch.equal(first[name], other[name])] == []


@pytest.mark.parametrize("pre_projection", [False, True])
@pytest.mark.parametrize("word_width", [None, 7])
@pytest.mark.parametrize("positions", ["relative", "absolute"])
@pytest.mark.parametrize("kind", ["t5", "linear"])
def test_every_weight_has_a_gradient_also_where_nothing_is_heard_or_said(
    kind, positions, word_width, pre_projection
):
    """A weight without one ends the second step of several ranks."""
    text = replace(SMALL_MODEL.text, kind=kind, positions=positions, word_width=word_width)
    model = built(replace(SMALL_MODEL, text=text, pre_projection=pre_projection)).train()
    inputs = inputs_of()
    silent = torch.zeros_like(inputs.has_audio), torch.zeros_like(inputs.text_mask)
    for has_audio, text_mask in ((inputs.has_audio, inputs.text_mask), silent):
        z = model(replace(inputs, has_audio=has_audio, text_mask=text_mask))
        contrast(z, z, LossConfig()).total.backward()
        assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
        model.zero_grad(set_to_none=True)
