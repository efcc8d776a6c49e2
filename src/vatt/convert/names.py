"""Which official variables make which of our tensors.

A map from our name to the official ones that are put together, row after row, to make it. What
ends in `/kernel` is a layer's weight, stored [in, out] or as a convolution [t, h, w, in, out].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

ROOT = "model/layer_with_weights-0/"
HEADS = ROOT + "_head_layer/_bridge_heads/0"
VIDEO = ROOT + "_base_layer/vid_backbone/_base"
AUDIO = ROOT + "_base_layer/aud_backbone/_base"
TEXT = ROOT + "_base_layer/txt_backbone"
SHARED = ROOT + "_base_layer/unified_backbone/unified_transformer"
FINE_TUNED = ROOT + "_base"
CLASSIFIER = ROOT + "_ops/cls"
WORDS = TEXT + "/embedding/embeddings"
SHARED_WORDS = SHARED + "/raw_to_embeddings/text/embeddings"
RELATIVE_BIAS = "layers/0/self_attention/attention/relative_attention_bias/embeddings"
VIDEO_AXES = ("temporal", "vertical", "horizontal")
WAVEFORM_AXES = ("temporal",)
SPECTROGRAM_AXES = ("temporal", "spectoral")  # the official spelling
SLOT = "/.OPTIMIZER_SLOT/optimizer/"  # between the name of a variable and that of a slot
STEPS = "optimizer/iter"

Names = dict[str, tuple[str, ...]]
SignalKind = Literal["video", "waveform", "spectrogram"]
SIGNALS: Mapping[SignalKind, tuple[str, tuple[str, ...]]] = {  # patch layer, axes of positions
    "video": ("voxel_to_patch", VIDEO_AXES),
    "waveform": ("wave_to_patch", WAVEFORM_AXES),
    "spectrogram": ("spectrum_to_patch", SPECTROGRAM_AXES),
}


def oriented(name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A variable as we store it: weights of layers [out, in], everything else as it is."""
    if not name.endswith("/kernel"):
        return values
    turned = torch.from_numpy(values).flatten(0, -2).T.contiguous()  # 3 times as fast as NumPy's
    oriented: NDArray[np.float32] = turned.numpy()
    return oriented


def oriented_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that `oriented` gives."""
    if name.endswith("/kernel") and shape:
        return shape[-1], math.prod(shape[:-1])
    return shape


def specific(*, layers: Mapping[str, int], spectrogram: bool) -> Names:
    """Three backbones: `tx_fac` with waveform or spectrogram. `layers`: of each backbone."""
    kind: SignalKind = "spectrogram" if spectrogram else "waveform"
    return {
        **_signal("video_tokens", "backbones.video", VIDEO, kind="video", layers=layers["video"]),
        **_signal("audio_tokens", "backbones.audio", AUDIO, kind=kind, layers=layers["audio"]),
        "text_tokens.words.weight": (WORDS,),
        "text_tokens.agg": (f"{TEXT}/agg_embedding",),
        **_dense("text_tokens.projection", f"{TEXT}/pre_proj", bias=False),
        "relative_bias.table": (f"{TEXT}/base_lm/{RELATIVE_BIAS}",),
        **_t5("backbones.text", f"{TEXT}/base_lm", layers["text"]),
        **_heads(),
    }


def classifier(
    *, kind: SignalKind, layers: int, pre_projection: bool, post_projection: bool
) -> Names:
    """One backbone and a linear layer: fine-tuned; with projections, from `ut_fac`."""
    names = _signal("tokens", "backbone", FINE_TUNED, kind=kind, layers=layers)
    if pre_projection:
        names |= _dense("tokens.pre_projection", f"{FINE_TUNED}/pre_proj")
    if post_projection:
        names |= _dense("post_projection", f"{FINE_TUNED}/post_proj")
    return names | _dense("linear", CLASSIFIER)


def _signal(tokens: str, backbone: str, theirs: str, *, kind: SignalKind, layers: int) -> Names:
    """Patches, positions, aggregation token and Transformer of one modality."""
    patches, axes = SIGNALS[kind]
    return {
        **_dense(f"{tokens}.projection", f"{theirs}/{patches}"),
        **_positions(tokens, f"{theirs}/pos_embedding_lookup", axes),
        f"{tokens}.agg": (f"{theirs}/agg_embedding",),
        **_transformer(backbone, f"{theirs}/tx", layers, bias=kind != "spectrogram"),
    }


def agnostic(*, layers: int) -> Names:
    """One backbone for all: `ut_fac`."""
    names: Names = {"text_tokens.words.weight": (SHARED_WORDS,)}
    axes = {"video": VIDEO_AXES, "audio": WAVEFORM_AXES, "text": WAVEFORM_AXES}
    for modality in ("video", "audio", "text"):
        ours, short = f"{modality}_tokens", {"text": "txt"}.get(modality, modality[:3])
        before = f"{SHARED}/pre_proj/{modality}"
        if modality == "text":
            names |= _dense(f"{ours}.projection", before)
        else:
            names |= _dense(f"{ours}.projection", f"{SHARED}/raw_to_embeddings/{modality}")
            names |= _dense(f"{ours}.pre_projection", before)
        names |= _positions(ours, f"{SHARED}/pos_embedding_lookup/{modality}", axes[modality])
        names[f"{ours}.agg"] = (f"{SHARED}/{short}_agg_embedding",)
        names |= _dense(f"post_projections.{modality}", f"{SHARED}/post_proj/{modality}")
    return names | _transformer("backbones.shared", f"{SHARED}/tx", layers, bias=True) | _heads()


def _dense(ours: str, theirs: str, *, bias: bool = True) -> Names:
    names: Names = {f"{ours}.weight": (f"{theirs}/kernel",)}
    return names | ({f"{ours}.bias": (f"{theirs}/bias",)} if bias else {})


def _norm(ours: str, theirs: str) -> Names:
    return {f"{ours}.weight": (f"{theirs}/gamma",), f"{ours}.bias": (f"{theirs}/beta",)}


def _batch_norm(ours: str, theirs: str) -> Names:
    return {
        **_norm(ours, theirs),
        f"{ours}.running_mean": (f"{theirs}/moving_mean",),
        f"{ours}.running_var": (f"{theirs}/moving_variance",),
    }


def _positions(ours: str, theirs: str, axes: tuple[str, ...]) -> Names:
    tables: Names = {
        f"{ours}.positions.tables.{number}": (f"{theirs}/{axis}_position_embeddings/embeddings",)
        for number, axis in enumerate(axes)
    }
    return tables | _norm(f"{ours}.positions.norm", f"{theirs}/layernorm")


def _attention_and_mlp(ours: str, attention: str, mlp: str, *, bias: bool) -> Names:
    """Queries, keys and values are one projection here, three there."""
    names: Names = {}
    for part in ("weight", "bias") if bias else ("weight",):
        theirs = "kernel" if part == "weight" else "bias"
        names[f"{ours}.attention.qkv.{part}"] = tuple(f"{attention}/{x}/{theirs}" for x in "qkv")
    return {
        **names,
        **_dense(f"{ours}.attention.out", f"{attention}/o", bias=bias),
        **_norm(f"{ours}.mlp_norm", f"{mlp}/layer_norm"),
        **_dense(f"{ours}.mlp_in", f"{mlp}/mlp/wi", bias=bias),
        **_dense(f"{ours}.mlp_out", f"{mlp}/mlp/wo", bias=bias),
    }


def _transformer(ours: str, theirs: str, layers: int, *, bias: bool) -> Names:
    names: Names = {}
    for number in range(layers):
        layer, source = f"{ours}.layers.{number}", f"{theirs}/layers/{number}"
        names |= _norm(f"{layer}.attention_norm", f"{source}/layer_norm")
        names |= _attention_and_mlp(layer, f"{source}/mha", f"{source}/feed_forward", bias=bias)
    return names | _norm(f"{ours}.final_norm", f"{theirs}/final_layer_norm")


def _t5(ours: str, theirs: str, layers: int) -> Names:
    names: Names = {}
    for number in range(layers):
        layer, source = f"{ours}.layers.{number}", f"{theirs}/layers/{number}"
        attention = f"{source}/self_attention"
        names[f"{layer}.attention_norm.weight"] = (f"{attention}/layer_norm/weight",)
        names |= _attention_and_mlp(
            layer, f"{attention}/attention", f"{source}/feed_forward", bias=False
        )
    return names | {f"{ours}.final_norm.weight": (f"{theirs}/final_layer_norm/weight",)}


def _heads() -> Names:
    return {
        **_dense("heads.video_hidden.dense", f"{HEADS}/vid_to_hid", bias=False),
        **_batch_norm("heads.video_hidden.norm", f"{HEADS}/hid_to_va/pre_bn"),
        **_dense("heads.video_va.dense", f"{HEADS}/hid_to_va/dense", bias=False),
        **_batch_norm("heads.video_va.norm", f"{HEADS}/hid_to_va/bn"),
        **_dense("heads.video_vt.dense", f"{HEADS}/va_to_vat/dense", bias=False),
        **_batch_norm("heads.video_vt.norm", f"{HEADS}/va_to_vat/bn"),
        **_dense("heads.audio_va.dense", f"{HEADS}/aud_to_va"),
        **_dense("heads.text_vt.dense", f"{HEADS}/txt_to_vat"),
    }
