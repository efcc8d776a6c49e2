"""The log of a run: metrics.jsonl, TensorBoard, Weights & Biases, a line or bar with the time."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Self

from torch.utils.tensorboard import SummaryWriter

from vatt.config import CONFIG_FILE, flatten, read_toml
from vatt.errors import ConfigError, MissingExtraError, TrainingError
from vatt.run_folder import METRICS_FILE
from vatt.storage import flush, write_atomically
from vatt.workers.progress import ProgressBar

logger = logging.getLogger(__name__)


WandbMode = Literal["off", "offline", "online"]


class RunLog:
    """Writes one entry every so many steps, on the main rank only.

    A continued run first drops the entries past the checkpoint it continues from, so that
    `metrics.jsonl` holds every step once.
    """

    def __init__(
        self,
        folder: Path,
        *,
        start_step: int,
        steps: int,
        active: bool = True,
        wandb: WandbMode = "off",
    ) -> None:
        self._folder, self._steps = folder, steps
        self._active = active
        self._open = ExitStack()
        self._wandb: Any = None
        self._at_wandb = 0  # the last step that its server has
        if not active:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._file = self._open.enter_context((folder / METRICS_FILE).open("a+b"))
        self._file.seek(0)
        kept = list[bytes]()
        for line in self._file:
            if not line.endswith(b"\n") or json.loads(line)["step"] > start_step:
                break
            kept.append(line)
        self._file.truncate(sum(map(len, kept)))
        if wandb != "off":
            self._begin_wandb(wandb, kept)
        # Also from step 0: a run that was killed before its first checkpoint has written, too.
        self._board = SummaryWriter(str(folder), purge_step=start_step + 1)
        self._open.callback(self._board.close)
        self._has_bar = sys.stderr.isatty()
        bar = ProgressBar("train", steps, done=start_step, shown=self._has_bar)
        self._bar = self._open.enter_context(bar)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        with suppress(OSError) if failed else self._told():  # what could not be written still waits
            self._open.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            free_mb = shutil.disk_usage(self._folder).free // 2**20
            raise TrainingError(
                f"{self._folder / METRICS_FILE}: the log cannot be written: {error.strerror} "
                f"({free_mb} MB free on that disk); make room and give the same command: it "
                "continues from the newest checkpoint"
            ) from error

    def advance(self, step: int) -> None:
        """Say that `step` updates are made; cheap, for every step."""
        if self._active:
            self._bar.update(step)

    def write(self, step: int, values: Mapping[str, float], *, steps_per_s: float) -> None:
        """Record the values of the step that made `step` updates."""
        if not self._active:
            return
        entry = {"step": step, **values}
        with self._told():
            self._file.write(json.dumps(entry).encode() + b"\n")
            self._file.flush()
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        self._tell_wandb(entry)
        text = "  ".join(
            f"{name.removesuffix('_share')} {value:.0%}"
            if name.endswith("_share")
            else f"{name} {value:.4g}"
            for name, value in values.items()
        )
        self._bar.update(step, text)
        if not self._has_bar:
            left_s = (self._steps - step) / steps_per_s
            logger.info("step %d of %d, %s left  %s", step, self._steps, duration(left_s), text)

    def flush(self) -> None:
        """Let all entries be on the disk before a checkpoint that follows them is."""
        if self._active:
            with self._told():
                flush(self._file)
                self._board.flush()

    def _begin_wandb(self, mode: WandbMode, before: Sequence[bytes]) -> None:
        """Begin, with the entries so far: W&B does not join what it wrote offline.

        Each of its folders holds a run from its first step on, and only the newest one is kept.
        """
        replaced = set(self._folder.glob("wandb/offline-run-*"))
        self._wandb = _wandb_run(self._folder, mode)
        replaced.discard(Path(self._wandb.dir).parent)
        self._open.callback(self._wandb.finish)
        self._at_wandb = int(self._wandb.summary.get("step") or 0)
        for line in before:
            self._tell_wandb(json.loads(line))
        for old in replaced:
            shutil.rmtree(old, ignore_errors=True)

    def _tell_wandb(self, entry: Mapping[str, float]) -> None:
        """Unless W&B's server has an entry of that step already, from before a kill."""
        if self._wandb is not None and entry["step"] > self._at_wandb:
            self._wandb.log(entry)


def wandb_module() -> ModuleType:
    """The package.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise MissingExtraError("wandb", "wandb", "train.wandb") from error
    found: ModuleType = wandb
    return found


def _wandb_run(folder: Path, mode: WandbMode) -> Any:
    """A run in W&B, the same one each time that the run of a folder goes on.

    Offline it writes below the folder, and speaks to no network.

    Raises:
        ConfigError: W&B does not begin a run, e.g. because nobody has logged in.
    """
    wandb, identity, settings = wandb_module(), folder / "wandb.txt", folder / CONFIG_FILE
    if not identity.exists():
        write_atomically(identity, secrets.token_hex(4).encode())
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "vatt"),
            dir=folder,
            mode=mode,
            id=identity.read_text(encoding="ascii"),
            name=folder.resolve().name,
            resume="allow" if mode == "online" else None,
            config=flatten(read_toml(settings)) if settings.is_file() else None,
            settings=wandb.Settings(console="off", silent=True, disable_git=True, save_code=False),
        )
    except wandb.Error as error:
        raise ConfigError(f"train.wandb: {error}; or set it to offline or off") from error
    run.define_metric("*", step_metric="step")
    return run


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
