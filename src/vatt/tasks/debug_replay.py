"""`vatt debug replay`: compute again a step that was not finite, and say which module began it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from vatt.config import CONFIG_FILE, read_toml
from vatt.errors import DataError
from vatt.failed_step import described


@dataclass(frozen=True, slots=True, kw_only=True)
class DebugReplayConfig:
    """Compute a captured step again, and look at the output of every module and every gradient."""

    capture: Positional[Path]
    """RUN/failures/step-N, in its run folder."""
    device: str = "auto"
    """cpu, cuda, cuda:1 …; auto is a GPU where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DebugReplayResult:
    """What the step gave. modules: in the order in which they ended; gradients: the bad ones."""

    losses: Mapping[str, float]
    finding: str
    modules: Sequence[Mapping[str, Any]]
    gradients_not_finite: Sequence[str]

    def shown(self) -> dict[str, Any]:
        """For people: losses that are no numbers, too, modules in words, few gradients."""
        bad = self.gradients_not_finite[::-1]  # as in the backward pass
        return {
            "finding": self.finding,
            "losses": {name: f"{value:.6g}" for name, value in self.losses.items()},
            "modules": [
                {"module": one["module"], "output": "finite" if one["finite"] else "NOT FINITE"}
                for one in self.modules
            ],
            "gradients not finite": f"{len(bad)}: {', '.join(bad[:3])} …" if bad else "none",
        }


def run(config: DebugReplayConfig) -> DebugReplayResult:
    """Replay with the objective of the task whose run it is.

    Raises:
        DataError: there is no captured step.
    """
    capture = config.capture.absolute()
    settings = capture.parents[1] / CONFIG_FILE
    if not (capture / "rank-0" / "batch.json").is_file() or not settings.is_file():
        raise DataError(
            f"{config.capture}: found no captured step, expected RUN/failures/step-N in the folder "
            "of the run that wrote it"
        )
    # By name, as the command line does it: tasks do not import each other.
    task = "finetune" if "targets" in read_toml(settings) else "pretrain"
    found = importlib.import_module(f"vatt.tasks.{task}").replay(capture, config.device)
    return DebugReplayResult(
        losses=found.losses,
        finding=described(found),
        modules=[{"module": name, "finite": fine} for name, fine in found.outputs.items()],
        gradients_not_finite=[name for name, finite in found.gradients.items() if not finite],
    )
