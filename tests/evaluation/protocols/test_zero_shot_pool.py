"""The protocol "zero-shot-pool": who is in the pools, and what each measure measures."""

import numpy as np
import pytest
import torch

import vatt
from vatt.errors import DataError
from vatt.evaluation.clips import EvalClip
from vatt.evaluation.features import PRETRAINED, RANDOM_INIT, SplitFeatures, untrained
from vatt.evaluation.metrics import chance_recalls
from vatt.evaluation.protocols.zero_shot_pool import (
    audio_and_video,
    class_vector,
    label_from_text,
    read_prompts,
)

AUDIO_TO_VIDEO, VIDEO_TO_AUDIO = ("audio_va", "video_va"), ("video_va", "audio_va")


def made_up(video: np.ndarray, audio: np.ndarray, peaks: np.ndarray) -> SplitFeatures:
    """Clips with given vectors, for the trained and for the untrained network alike."""
    rows = len(video)
    vectors: dict[str, np.ndarray] = {}
    for network in (PRETRAINED, RANDOM_INIT):
        vectors |= {f"{network}/video_va": video, f"{network}/audio_va": audio}
    clips = tuple(EvalClip(row, f"video{row}", 0.0, "") for row in range(rows))
    return SplitFeatures("test", clips, vectors, peaks, ())


def test_silent_clips_are_left_out_of_sound_retrieval():
    """The silent half has no sound of its own: with it, half of the ranks would be chance."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 16)).astype(np.float32)
    peaks = np.tile([0.0, 0.5], 20).astype(np.float32)
    audio = vectors * (peaks[:, None] > 0)
    clips = made_up(vectors, audio, peaks)
    for way in (AUDIO_TO_VIDEO, VIDEO_TO_AUDIO):
        found = audio_and_video(clips, *way, size=500, min_peak=0.06, seed=0)
        assert found["R@1"] == 100.0
        assert (found["n"], found["n_expected"]) == (20, 500)
        assert found["clips_without_sound"] == 20


def test_sound_retrieval_of_vectors_that_know_nothing_is_chance():
    same = np.ones((30, 8), np.float32)
    clips = made_up(same, same, np.ones(30, np.float32))
    found = audio_and_video(clips, *AUDIO_TO_VIDEO, size=500, min_peak=0.06, seed=0)
    numbers = {name: found[name] for name in chance_recalls(30)}
    assert numbers == pytest.approx(chance_recalls(30))


def test_two_audible_clips_are_the_least():
    one = np.ones((1, 4), np.float32)
    clips = made_up(one, one, np.ones(1, np.float32))
    with pytest.raises(DataError, match="found 1 clips that qualify"):
        audio_and_video(clips, *VIDEO_TO_AUDIO, size=500, min_peak=0.06, seed=0)


def test_a_clip_gets_the_class_whose_sentences_are_nearest(tiny):
    """Videos placed at the embedding of a sentence of their class must all be right."""
    encoder = vatt.load(tiny.run)
    sentences = {"left": ["it moves left"], "right": ["it moves right over green"]}
    labels = ["left", "right", "right"]
    by_class = {name: class_vector(encoder, texts) for name, texts in sentences.items()}
    video = np.stack([by_class[name] for name in labels])
    chosen = tuple(EvalClip(row, "v", 0.0, "", {"action": name}) for row, name in enumerate(labels))
    vectors = {f"{network}/video_vt": 7 * video for network in (PRETRAINED, RANDOM_INIT)}
    clips = SplitFeatures("test", chosen, vectors, np.ones(3, np.float32), ())
    encoders = {PRETRAINED: encoder, RANDOM_INIT: encoder}
    found = label_from_text(encoders, clips, "action", sentences)
    assert (found[PRETRAINED], found["chance"], found["n"]) == (1.0, 0.5, 3)
    swapped = {"left": sentences["right"], "right": sentences["left"]}
    assert label_from_text(encoders, clips, "action", swapped)[PRETRAINED] == 0.0


@pytest.mark.parametrize("text", ["{", "[1]", '{"action": ["left"]}', '{"action": {"left": []}}'])
def test_prompts_of_another_form_are_refused(tmp_path, text):
    (tmp_path / "prompts.json").write_text(text)
    with pytest.raises(DataError, match=r"prompts\.json"):
        read_prompts(tmp_path / "prompts.json")


def test_the_untrained_network_has_the_same_shape_and_its_own_weights(tiny):
    module = vatt.load(tiny.run).module
    fresh, again = (untrained(module.config, seed=3) for _ in range(2))
    other = untrained(module.config, seed=4)
    weights = {name: w for name, w in fresh.named_parameters() if w.ndim > 1}
    assert all(torch.equal(w, dict(again.named_parameters())[n]) for n, w in weights.items())
    assert not any(torch.equal(w, dict(module.named_parameters())[n]) for n, w in weights.items())
    assert any(not torch.equal(w, dict(other.named_parameters())[n]) for n, w in weights.items())
