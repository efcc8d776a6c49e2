"""Losses and gradients of the official code: masks, several replicas, temperatures, weights."""

import json
from typing import Literal

import pytest
import torch
from torch import Tensor

from tests.parity.recordings import FOLDER, arrays, assert_near
from vatt.contracts import Embeddings
from vatt.losses import LossConfig, contrast

CASES = json.loads((FOLDER / "losses/losses.json").read_text())
RECORDED = arrays("losses/losses.npz")
FORMS: dict[str, Literal["official", "symmetric"]] = {
    "asymmetric": "official",
    "symmetric": "symmetric",
}


def mask(case: str, name: str, clips: int) -> Tensor:
    return RECORDED.get(f"{case}/in/{name}", torch.ones(clips)) > 0


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_those_of_the_official_code(case, name, chunk):
    facts = CASES[case]
    rows = {
        key: RECORDED[f"{case}/in/{key}"].clone().requires_grad_()
        for key in ("video_toaud", "video_totxt", "audio_tovid", "text_tovid")
    }
    video_va, video_vt, audio_va, texts = rows.values()
    B, K = facts["batch"], facts["candidates"]
    text_vt = texts.view(B, K, -1)
    has_audio = mask(case, "audio_mask", B)
    text_mask = mask(case, "text_mask", B)[:, None].expand(B, K)

    def part(clips: slice) -> Embeddings:
        return Embeddings(
            video_va[clips],
            audio_va[clips],
            video_vt[clips],
            text_vt[clips],
            has_audio[clips],
            text_mask[clips],
        )

    config = LossConfig(
        form=FORMS[name],
        total="mean",
        mask_normaliser="local",
        temperature=facts["temperature"],
        text_weight=facts["vid_txt_weight"] / facts["vid_aud_weight"],
        chunk=chunk,
    )
    replicas = facts["replicas"]
    size = B // replicas
    shares = [
        contrast(part(slice(r * size, (r + 1) * size)), part(slice(None)), config)
        for r in range(replicas)
    ]

    def recorded(key: str) -> Tensor:
        return RECORDED[f"{case}/{name}/{key}"]

    def assert_recorded(found: Tensor, key: str) -> None:
        what = f"{case}/{name}/{key}"
        assert_near(found, recorded(key), what, atol=1e-5, rtol=1e-5)  # another order of sums

    totals = torch.stack([share.total for share in shares])
    assert_recorded(totals * replicas, "loss_per_replica")
    assert_recorded(totals.sum(), "loss_mean")
    texts_only = torch.stack([share.video_text for share in shares]) * facts["vid_txt_weight"]
    assert_recorded(texts_only * replicas, "vidtxt_loss_per_replica")
    audio_only = torch.stack([share.video_audio for share in shares]) * facts["vid_aud_weight"]
    assert_recorded(audio_only * replicas, "vidaud_loss_per_replica")
    gradients = torch.autograd.grad(totals.sum(), list(rows.values()))
    for key, gradient in zip(rows, gradients, strict=True):
        expected = recorded(f"grad_{key}")
        atol = 1e-5 * float(expected.abs().max())
        assert_near(gradient, expected, f"{case}/{name}/grad_{key}", atol=atol, rtol=1e-5)
