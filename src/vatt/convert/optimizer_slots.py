"""The state of the official optimiser (Keras's slots) under the names of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vatt.convert import names
from vatt.convert.model_folder import LazyTensor
from vatt.convert.plan import ConversionPlan, tensor
from vatt.convert.tensor_bundle import Bundle
from vatt.errors import ConversionError

SLOTS: Mapping[str, str] = {"exp_avg": "m", "exp_avg_sq": "v", "momentum_buffer": "momentum"}


def steps_made(bundle: Bundle) -> int:
    """How many updates the checkpoint's training had made.

    Raises:
        ConversionError: the checkpoint does not say.
    """
    return bundle.read_count(names.STEPS)


def places(bundle: Bundle, plan: ConversionPlan) -> dict[str, str]:
    """Slots that the checkpoint has, by their official names, and what they become."""
    named = {
        f"{source}{names.SLOT}{slot}": f"{weight}/{ours}"
        for weight in plan.trained
        for source in plan.names[weight]
        for ours, slot in SLOTS.items()
    }
    return {theirs: ours for theirs, ours in named.items() if theirs in bundle.entries}


def optimiser_tensors(bundle: Bundle, plan: ConversionPlan) -> dict[str, LazyTensor]:
    """Tensors of `training.optim.Optimiser`, by `<weight>/<what>`: of Adam or of momentum.

    Keras's velocity has the opposite sign of ours.

    Raises:
        ConversionError: there are none, or those of a weight are missing.
    """
    found = {
        ours: slot
        for ours, slot in SLOTS.items()
        if any(name.endswith(names.SLOT + slot) for name in bundle.entries)
    }
    if not found:
        raise ConversionError(
            f"{bundle.index}: offset 0: has no optimiser slots: it was saved before the first "
            "step, or without its optimiser; convert it without --optimizer"
        )
    step = np.array(steps_made(bundle), np.float32)
    tensors: dict[str, LazyTensor] = {}
    for weight in plan.trained:
        for ours, slot in found.items():
            for source in plan.names[weight]:
                entry, of = bundle.entries.get(source + names.SLOT + slot), bundle.entries[source]
                if entry is None or entry.shape != of.shape:
                    raise ConversionError(
                        f"{bundle.index}: offset {of.index_offset}: {source}{names.SLOT}{slot}: "
                        f"found {'nothing' if entry is None else list(entry.shape)}, expected "
                        f"{list(of.shape)} as of the variable itself"
                    )
            read = partial(_read_slot, bundle, plan.names[weight], slot)
            tensors[f"{weight}/{ours}"] = LazyTensor(plan.shapes[weight], read)
        if "exp_avg" in found:
            tensors[f"{weight}/step"] = LazyTensor((), lambda: step)
    return tensors


def _read_slot(bundle: Bundle, sources: Sequence[str], slot: str) -> NDArray[np.float32]:
    values = tensor(bundle, sources, slot=slot)
    return -values if slot == "momentum" else values
