"""A folder that a command begins and goes on with: locked, kept to the settings it began with."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tomli_w

from vatt.config import CONFIG_FILE, flatten, merge, read_toml
from vatt.errors import ConfigError, TrainingError
from vatt.storage import locked, write_atomically

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"  # is there once training has begun
_FIRST_FILES = (CONFIG_FILE, "tokenizer.json")  # that a run writes before

# What a continued training may change: none of it changes what is computed, but for rounding, for
# which numbers dropout draws (micro_batch, compile), and for steps that are not finite.
FREE_SETTINGS = (
    "out",
    "data.shards",  # what is in them is compared, not where they are
    "data.workers",
    "data.cache",
    "data.cache_dir",
    "data.max_bad_fraction",
    "train.save_every",
    "train.keep",
    "train.checkpoints",
    "train.log_every",
    "train.wandb",
    "train.device",
    "train.threads",
    "train.skip_nonfinite",
    "train.micro_batch",
    "train.parallel",
    "train.recompute",
    "train.compile",
)


@contextmanager
def alone_in(folder: Path, command: str) -> Iterator[None]:
    """Make a run folder, and keep other runs of a command out of it while the context lasts.

    A run that ends with an error before its first step claims nothing: the corrected command can
    have the folder.

    Raises:
        TrainingError: another run is at work there.
    """
    from vatt import distributed  # brings torch, which `vatt prepare` starts without

    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            if distributed.is_main():
                stack.enter_context(locked(folder / ".lock"))
        except BlockingIOError:
            raise TrainingError(
                f"{folder}: another `vatt {command}` is at work there (.lock is locked); wait "
                "until it has ended, or give another --out"
            ) from None
        new = [path for name in _FIRST_FILES if not (path := folder / name).exists()]
        try:
            yield
        except BaseException:
            if distributed.is_main() and not (folder / METRICS_FILE).exists():
                for path in new:
                    path.unlink(missing_ok=True)
            raise


def claim_folder(
    folder: Path,
    settings: Mapping[str, Any],
    *,
    free: Collection[str],
    advice: str,
    earlier: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Write config.toml into an existing folder, or check that it has these settings.

    When several processes claim a folder at once, the first one's settings hold.

    Args:
        folder: what is begun, or continued, with these settings.
        settings: as `vatt.config.to_values` gives them.
        free: those that may differ, by dotted key: they do not change what is made.
        advice: what the user can do about a difference.
        earlier: what settings that an older version's config.toml does not know were then.

    Returns:
        The settings to go on with: those given, or as they were `earlier`.

    Raises:
        ConfigError: the folder has other settings; names the first that differs.
    """
    path = folder / CONFIG_FILE
    if not path.exists():
        write_atomically(path, _toml(settings), first_wins=True)
    before = read_toml(path)
    not_known = _absent(earlier, before)
    if not_known:
        logger.info("%s is of an older version: the run goes on with %s", path, not_known)
    goes_on = merge(settings, not_known)
    was, now = flatten(merge(before, not_known)), flatten(tomllib.loads(_toml(goes_on).decode()))
    for key in sorted(was.keys() | now.keys()):
        if key not in free and was.get(key) != now.get(key):
            raise ConfigError(
                f"{key}: found {now.get(key)!r}, expected {was.get(key)!r} as in {path}; {advice}"
            )
    return goes_on


def renew_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Let config.toml hold the settings that a run goes on with: free ones may have changed."""
    from vatt import distributed

    if distributed.is_main():
        write_settings(folder, settings)


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write config.toml."""
    write_atomically(folder / CONFIG_FILE, _toml(settings))


def _toml(settings: Mapping[str, Any]) -> bytes:
    """A path may hold bytes that are no UTF-8; TOML must be."""
    return tomli_w.dumps(settings).encode("utf-8", "replace")


def _absent(settings: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """Those of nested `settings` that `table` does not have."""
    absent: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            value = _absent(value, table.get(key, {}))
            absent |= {key: value} if value else {}
        elif key not in table:
            absent[key] = value
    return absent
