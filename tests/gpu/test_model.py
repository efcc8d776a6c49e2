"""Attention by the fused kernel, and the model around it, give on a GPU what a CPU gives."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.models.small import SHARED_MODEL, SMALL_MODEL, SPECTROGRAM_MODEL, some_inputs
from vatt.contracts import ClipSpec, Inputs
from vatt.models.transformer import attend
from vatt.models.vatt import Vatt
from vatt.models.weights import load_model, save_model

pytestmark = pytest.mark.gpu


def inputs_on(device: torch.device, draw: bool) -> Inputs:
    inputs = some_inputs()
    moved: dict[str, Any] = {
        field.name: value.to(device)
        for field in fields(inputs)
        if isinstance(value := getattr(inputs, field.name), Tensor)
    }
    moved["draw"] = torch.arange(len(inputs), device=device) if draw else None
    return replace(inputs, **moved)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masked", ["nothing", "keys", "keys and a learned bias"])
@pytest.mark.parametrize("tokens", [8, 9, 37])  # kernels want sizes that are multiples of 8
def test_fused_attention_is_that_of_the_products_written_out(cuda, dtype, masked, tokens):
    N = tokens
    q, k, v = torch.randn(3, 2, 4, N, 16, device=cuda, dtype=dtype).unbind()
    keys = torch.rand(2, N, device=cuda) > 0.4
    keys[:, 0] = True
    masking = torch.zeros(2, N, device=cuda).masked_fill(~keys, -1e9)[:, None, None, :]
    learned = torch.randn(4, N, N, device=cuda)
    found = []
    for fused in (False, True):
        tensors = [tensor.clone().requires_grad_() for tensor in (q, k, v, learned)]
        bias = {"nothing": None, "keys": masking}.get(masked, tensors[3] + masking)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = attend(*tensors[:3], bias=bias, scale=0.25, dropout=0.0, fused=fused)
        used = tensors if masked.endswith("bias") else tensors[:3]
        found.append([out, *torch.autograd.grad(out.float().square().sum(), used)])
    # float32: sums are in another order; bfloat16 has 8 bits of mantissa.
    near = 1e-4 if dtype == torch.float32 else 5e-2
    for written_out, one in zip(*found, strict=True):
        assert_close(one.float(), written_out.float(), rtol=near, atol=near)


@pytest.mark.parametrize("config", [SMALL_MODEL, SHARED_MODEL, SPECTROGRAM_MODEL])
@pytest.mark.parametrize("draw", [False, True], ids=["all tokens", "DropToken"])
def test_embeddings_and_gradients_are_those_of_the_cpu(cuda, config, draw):
    torch.manual_seed(0)
    model = Vatt(config)
    found = []
    for device in (torch.device("cpu"), cuda):
        model.to(device).zero_grad()
        out = model.train()(inputs_on(device, draw))
        rows = [out.video_va, out.audio_va, out.video_vt, out.text_vt]
        torch.stack([each.square().sum() for each in rows]).sum().backward()
        gradients = [w.grad for w in model.parameters() if w.grad is not None]
        found.append([each.detach().cpu() for each in (*rows, *gradients)])
    for on_cpu, on_gpu in zip(*found, strict=True):
        assert_close(on_gpu, on_cpu, rtol=1e-3, atol=1e-4)  # through two layers of batch norm


def test_bfloat16_autocast_stays_near_float32(cuda):
    torch.manual_seed(0)
    model = Vatt(SMALL_MODEL).to(cuda).eval()
    exact = model(inputs_on(cuda, False))
    with torch.autocast("cuda", dtype=torch.bfloat16):
        found = model(inputs_on(cuda, False))
    for name in ("video_va", "audio_va", "video_vt", "text_vt"):
        one, other = getattr(found, name), getattr(exact, name)
        assert one.dtype == torch.float32  # heads are not computed in bfloat16
        assert torch.cosine_similarity(one.flatten(), other.flatten(), 0) > 0.99


def test_a_model_saved_on_a_gpu_is_the_same_on_a_cpu_and_back(cuda, tmp_path):
    model = Vatt(SMALL_MODEL).to(cuda)
    save_model(tmp_path, model, ClipSpec())
    for device in ("cpu", cuda):
        loaded, _ = load_model(Vatt, tmp_path, device)
        for name, weight in loaded.state_dict().items():
            assert weight.device.type == torch.device(device).type
            assert torch.equal(weight.cpu(), model.state_dict()[name].cpu())
