"""Learning-rate schedules and optimisers of §4.3, in the paper's and the official code's forms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from vatt.distributed import divided, is_divided, own_part, part_of, sum_over_ranks
from vatt.errors import CheckpointError, ConfigError

AVERAGE = "average"
SLOTS = {"adam": ("step", "exp_avg", "exp_avg_sq"), "momentum": ("momentum_buffer",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """How weights follow gradients; the defaults are the paper's pre-training (§4.3)."""

    name: Literal["adam", "momentum"] = "adam"
    learning_rate: float = 1e-4
    final_learning_rate: float = 5e-5
    schedule: Literal["quarter_cosine", "half_cosine"] = "quarter_cosine"
    """From learning_rate to final_learning_rate: quarter_cosine as the paper says, half_cosine as
    the official code does."""
    levels: tuple[tuple[int, float], ...] = ()
    """(step, rate) pairs passed on the way, in the order of steps; from each to the next it goes
    as `schedule` says, and so from the last to final_learning_rate."""
    warmup_steps: int = 10_000
    """Linear from warmup_learning_rate; the first step (number 0) has exactly that rate."""
    warmup_learning_rate: float = 0.0
    beta1: float = 0.9  # official code; the paper gives no value
    beta2: float = 0.999
    epsilon: float = 1e-7
    epsilon_form: Literal["hat", "plain"] = "hat"
    """hat: epsilon beside the uncorrected root (Keras, and end of section 2 of the Adam paper);
    plain: beside the corrected one (torch)."""
    momentum: float = 0.9
    """For name = "momentum"; the rate is inside the velocity, as in Keras."""
    weight_decay: float = 0.0
    decay_form: Literal["scaled", "plain"] = "scaled"
    """scaled: weights shrink by rate × decay a step (AdamW); plain: by decay (official code)."""
    decay_scope: Literal["all", "matrices"] = "all"  # official code
    """matrices: decay leaves norms, biases, positions and the aggregation token alone."""
    clip_norm: float | None = None
    """Gradients longer than this, over all weights together, are scaled down to it."""
    clip_scope: Literal["all", "backbone"] = "all"
    """backbone: what clip_norm measures and scales leaves a classifier's linear layer out."""
    average: float | None = None
    """Decay of a moving average of weights and running statistics (EMA), e.g. 0.9999, which is what
    pre-training writes into model/; it is lower in the first updates. "none": none is kept."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "epsilon"):
            _require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "> 0, finite")
        for name in ("final_learning_rate", "warmup_steps", "warmup_learning_rate"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), ">= 0")
        for name in ("beta1", "beta2", "momentum", "weight_decay"):
            _require(0 <= getattr(self, name) < 1, name, getattr(self, name), "in [0, 1)")
        steps = [self.warmup_steps, *(step for step, _ in self.levels)]
        ascending = all(before < after for before, after in itertools.pairwise(steps))
        _require(ascending, "levels", self.levels, "ascending steps after warmup_steps")
        rates_good = all(rate >= 0 for _, rate in self.levels)
        _require(rates_good, "levels", self.levels, "rates >= 0")
        _require(self.clip_norm is None or self.clip_norm > 0, "clip_norm", self.clip_norm, "> 0")
        good = self.average is None or 0 < self.average < 1
        _require(good, "average", self.average, "in (0, 1)")

    def refuse_fewer(self, steps: int) -> None:
        """Raise a ConfigError if warm-up or levels are longer than a training of so many steps."""
        if self.warmup_steps > steps:
            raise ConfigError(
                f"optim.warmup_steps: found {self.warmup_steps}, expected <= the number of steps "
                f"({steps}); warm up for fewer steps or train for more"
            )
        if self.levels and self.levels[-1][0] >= steps:
            raise ConfigError(
                f"optim.levels: found the last one at step {self.levels[-1][0]}, expected it "
                f"before the last step ({steps}); the rate at the end is final_learning_rate"
            )


def _require(holds: bool, name: str, found: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"optim.{name}: found {found}, expected {expected}")


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """Learning rate of the update number `step`, counted from 0, of a training of `steps`.

    At `step` = `steps`, which no update has, it is final_learning_rate (and stays there); the
    official code gives NaN there when its last level ends with the training.
    """
    if step < config.warmup_steps:
        climbed = step / config.warmup_steps
        start = config.warmup_learning_rate
        return start + (config.learning_rate - start) * climbed
    first, last = (config.warmup_steps, config.learning_rate), (steps, config.final_learning_rate)
    for (left, high), (right, low) in itertools.pairwise((first, *config.levels, last)):
        if step < right:
            progress = (step - left) / (right - left)
            if config.schedule == "quarter_cosine":
                remaining = math.cos(math.pi / 2 * progress)
            else:
                remaining = (1 + math.cos(math.pi * progress)) / 2
            return low + (high - low) * remaining
    return config.final_learning_rate


def is_matrix(name: str, weight: Tensor) -> bool:
    """Whether a weight multiplies features: no norm, bias, table of positions or token."""
    return weight.ndim > 1 and "positions." not in name and not name.startswith("relative_bias.")


class Optimiser:
    """Adam or momentum with schedule, clipping and decay; its state is a table of named tensors.

    One update is `clip()`, which gives the norm to look at, and then `step(number)`. Nothing here
    makes the host wait for an accelerator.
    """

    def __init__(
        self,
        config: OptimConfig,
        parameters: Iterable[tuple[str, nn.Parameter]],
        *,
        steps: int,
        bounds: Mapping[str, tuple[float, float]] = MappingProxyType({}),
        buffers: Iterable[tuple[str, Tensor]] = (),
    ) -> None:
        """Prepare to train the named parameters that need gradients, for `steps` updates.

        Args:
            config: how.
            parameters: of the model, by name.
            steps: of the whole training.
            bounds: of some weights: they are kept within them, and do not decay.
            buffers: running statistics, which `config.average` averages like the weights.

        Raises:
            ConfigError: the warm-up or the levels are longer than the training.
        """
        config.refuse_fewer(steps)
        self.config = config
        self.steps = steps
        self._weights: dict[str, Tensor] = {n: w for n, w in parameters if w.requires_grad}
        # Weight → slot → value, from its first update on.
        self._state: dict[str, dict[str, Tensor]] = {}
        self._bounds = {name: bounds[name] for name in self._weights if name in bounds}
        averaged = self._weights | dict(buffers) if config.average is not None else {}
        self._averaged: dict[str, Tensor] = averaged
        self._averages: dict[str, Tensor] = {}  # likewise

    def clip(self) -> Tensor:
        """Scale gradients down to `clip_norm` if it is set; returns their norm before, a scalar."""
        limit = self.config.clip_norm
        left_out = "linear." if limit and self.config.clip_scope == "backbone" else " "
        used = [
            w for name, w in self._weights.items()
            if w.grad is not None and not name.startswith(left_out)
        ]  # fmt: skip
        gradients = [own_part(w.grad) for w in used if w.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if any(map(is_divided, used)):
            norm = sum_over_ranks(norm.square()).sqrt()
        if limit is not None:
            torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))  # as torch does
        return norm

    @torch.no_grad()
    def step(self, number: int, *, skip: Tensor | None = None) -> float:
        """Make update `number` (from 0) and forget the gradients; returns its learning rate.

        Args:
            number: of the update.
            skip: float32 scalar on the device of the weights; where it is 1, nothing changes.
        """
        config, rate = self.config, learning_rate(self.config, number, self.steps)
        if config.weight_decay:
            decay = config.weight_decay
            keep = 1 - (decay * rate if config.decay_form == "scaled" else decay)
            factor = keep if skip is None else torch.where(skip == 1, 1.0, keep)
            decayed = [
                own_part(w) for name, w in self._weights.items()
                if name not in self._bounds and (config.decay_scope == "all" or is_matrix(name, w))
            ]  # fmt: skip
            torch._foreach_mul_(decayed, factor)
        used = [
            (n, own_part(w), own_part(w.grad))
            for n, w in self._weights.items()
            if w.grad is not None
        ]
        weights, gradients = [w for _, w, _ in used], [gradient for *_, gradient in used]
        for name, weight, _ in used:
            if name not in self._state:
                self._state[name] = {what: torch.zeros_like(weight) for what in SLOTS[config.name]}
                if config.name == "adam":
                    self._state[name]["step"] = torch.zeros((), device=weight.device)
        slots = [[self._state[name][what] for name, *_ in used] for what in SLOTS[config.name]]
        # Functions of torch.optim, not its classes: to make one imports torch's compiler, in 4 s.
        common: dict[str, Any] = {"fused": True, "found_inf": skip, "maximize": False}
        common["weight_decay"] = 0.0  # done above
        if config.name == "adam":
            steps, means, squares = slots
            epsilon = config.epsilon
            if config.epsilon_form == "hat":
                # m̂ / (√v̂ + ε/√(1-β₂ᵗ)) is Keras's step written with torch's corrected moments.
                epsilon /= math.sqrt(1 - config.beta2 ** (number + 1))
            common |= {"lr": rate, "beta1": config.beta1, "beta2": config.beta2, "eps": epsilon}
            adam(weights, gradients, means, squares, [], steps, amsgrad=False, **common)
        else:
            # Keras keeps the rate inside the velocity: rate 1, and gradients scaled by the rate.
            torch._foreach_mul_(gradients, rate)
            common |= {"lr": 1.0, "momentum": config.momentum, "dampening": 0.0, "nesterov": False}
            (velocities,) = slots
            sgd(weights, gradients, list(velocities), **common)
        for name, (low, high) in self._bounds.items():
            own_part(self._weights[name]).clamp_(low, high)
        for weight in self._weights.values():
            weight.grad = None
        self._average(number, skip)
        return rate

    def _average(self, number: int, skip: Tensor | None) -> None:
        """Move the averages towards the weights; they begin with those of the first update."""
        for name, value in self._averaged.items():
            if name not in self._averages:
                self._averages[name] = own_part(value).detach().clone()
        if not self._averaged or self.config.average is None:
            return
        share = 1 - min(self.config.average, (1 + number) / (10 + number))  # as in TensorFlow
        now = [own_part(value) for value in self._averaged.values()]
        averages = [self._averages[name] for name in self._averaged]
        shares = share if skip is None else [torch.where(skip == 1, 0.0, share)] * len(now)
        torch._foreach_lerp_(averages, now, shares)

    def averages(self) -> dict[str, Tensor]:
        """The moving averages by the names of weights and buffers, divided as these are."""
        return {n: part_of(value, self._averaged[n]) for n, value in self._averages.items()}

    def state(self) -> dict[str, Tensor]:
        """Everything it remembers: `<parameter>/<what>` → tensor; empty before the first step.

        Of weights that are divided among ranks it is divided, too.
        """
        averages = {f"{name}/{AVERAGE}": value for name, value in self.averages().items()}
        return averages | {
            f"{name}/{what}": value if what == "step" else part_of(value, weight)
            for name, weight in self._weights.items()
            for what, value in self._state.get(name, {}).items()
        }

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state()` gave.

        Raises:
            CheckpointError: the tensors belong to other parameters.
        """
        by_parameter: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            name, _, what = key.rpartition("/")
            if what == AVERAGE:
                if name in self._averaged:
                    like = self._averaged[name]
                    self._averages[name] = divided(value.to(like.device, copy=True), like)
                continue
            by_parameter.setdefault(name, {})[what] = value
        if strange := sorted(set(by_parameter) - set(self._weights)):
            raise CheckpointError(
                f"optimiser state: found tensors of {len(strange)} weights that this model does "
                f"not train, e.g. {strange[0]!r}; the checkpoint is of another model"
            )
        for name, state in by_parameter.items():
            weight = self._weights[name]
            for what, value in state.items():
                if what != "step" and value.shape != weight.shape:
                    raise CheckpointError(
                        f"optimiser state {name}/{what}: found shape {list(value.shape)}, expected "
                        f"{list(weight.shape)}; the checkpoint is of a model of another size"
                    )
            if state.keys() != set(slots := SLOTS[self.config.name]):
                raise CheckpointError(
                    f"optimiser state {name}: found {', '.join(sorted(state))}, expected "
                    f"{', '.join(slots)} of optim.name {self.config.name}; set it as it was, or "
                    "start from a model/ folder, which has no such state"
                )
            there = {what: value.to(weight.device, copy=True) for what, value in state.items()}
            self._state[name] = {
                what: value if what == "step" else divided(value, weight)
                for what, value in there.items()
            }
