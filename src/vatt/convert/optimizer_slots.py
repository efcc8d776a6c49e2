"""The memory of the official optimiser (Keras's slots) under the names of ours."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vatt.convert import names
from vatt.convert.model_folder import Later
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


def optimiser_tensors(bundle: Bundle, plan: ConversionPlan) -> dict[str, Later]:
    """Tensors of `training.optim.Optimiser`, by `<weight>/<what>`: of Adam or of momentum.

    Keras's velocity points downhill, ours uphill: the sign turns.

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
    tensors: dict[str, Later] = {}
    for weight in plan.trained:
        for ours, slot in found.items():
            tensors[f"{weight}/{ours}"] = _slot(bundle, plan, weight, slot)
        if "exp_avg" in found:
            tensors[f"{weight}/step"] = Later((), lambda: step)
    return tensors


def _slot(bundle: Bundle, plan: ConversionPlan, weight: str, slot: str) -> Later:
    sources = plan.names[weight]
    for source in sources:
        entry, of = bundle.entries.get(source + names.SLOT + slot), bundle.entries[source]
        if entry is None or entry.shape != of.shape:
            found = "nothing" if entry is None else list(entry.shape)
            raise ConversionError(
                f"{bundle.index}: offset {of.index_offset}: {source}{names.SLOT}{slot}: found "
                f"{found}, expected {list(of.shape)} as of the variable itself"
            )

    def read() -> NDArray[np.float32]:
        values = tensor(bundle, sources, slot=slot)
        return -values if slot == "momentum" else values

    return Later(plan.shapes[weight], read)
