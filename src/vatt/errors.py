"""What can go wrong because of users, files and networks; our own mistakes are `assert`s."""

from __future__ import annotations


class VattError(Exception):
    """Base of all errors shown to a user: where, what was found, what was expected, what to do.

    exit_code: of the command line.
    """

    exit_code = 1


class ConfigError(VattError):
    """A setting is unknown, out of range, or contradicts another."""

    exit_code = 2


class MediaError(VattError):
    """A video, audio or caption file cannot be read as asked."""


class DataError(VattError):
    """A dataset, shard, index or manifest is missing, damaged or unsuitable."""


class CheckpointError(VattError):
    """A run folder, checkpoint or model folder is missing, damaged or of another format."""


class ConversionError(VattError):
    """A foreign checkpoint cannot be converted."""


class TrainingError(VattError):
    """Training cannot go on: a loss that is not finite, or too many bad items."""


class MissingExtraError(VattError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(package, extra, purpose)  # so that it can be sent from a worker process
        self._message = (
            f"{purpose} needs the package {package!r}, which is not installed; "
            f'install it with: pip install "vatt[{extra}]"'
        )

    def __str__(self) -> str:
        return self._message
