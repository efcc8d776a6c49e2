"""Model folders on a hub: fetched by name into a cache, and pushed; safetensors and JSON only.

The hub's client reads where the hub is (HF_ENDPOINT), where the cache is (HF_HOME) and who asks
(HF_TOKEN, or what `hf auth login` stored). No setting of ours holds a token, so no log can.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vatt.errors import CheckpointError, ConfigError, MissingExtraError
from vatt.models.weights import CONFIG, WEIGHTS

SCHEME = "hf:/"  # a Path takes the second slash away
CARD, TOKENIZER = "README.md", "tokenizer.json"
FETCHED = (CONFIG, WEIGHTS, TOKENIZER)  # nothing that could run code is ever asked for
PUSHED = (*FETCHED, CARD)
_NAME = r"hf:/{1,2}([\w.-]+/[\w.-]+)(?:@([\w./-]+))?"


def is_hub_name(path: str | os.PathLike[str]) -> bool:
    """Whether it is the name of a model on a hub."""
    return str(path).startswith(SCHEME)


def local_folder(path: str | os.PathLike[str]) -> Path:
    """Where a model is on this machine; one that is named as on a hub is fetched.

    Raises:
        CheckpointError: the hub does not have it, or cannot be reached.
    """
    return fetch(str(path)) if is_hub_name(path) else Path(path)


def parsed(name: str) -> tuple[str, str | None]:
    """`hf://owner/name@revision` → "owner/name" and the revision, None if there is none.

    Raises:
        ConfigError: it has another form.
    """
    found = re.fullmatch(_NAME, name)
    if found is None:
        raise ConfigError(f"{name}: expected hf://owner/name or hf://owner/name@revision")
    return found[1], found[2]


def exact_name(name: str | os.PathLike[str], folder: Path) -> str:
    """The name of the revision that was fetched: its folder is called as its commit."""
    return f"hf://{parsed(str(name))[0]}@{folder.name}"


def fetch(name: str) -> Path:
    """The folder of a model in the hub's cache; downloaded if it is not there, or newer.

    Without a network the cache is used as it is; HF_HUB_OFFLINE=1 does not even ask, nor is asked
    for a commit that the cache has: it never changes.

    Raises:
        CheckpointError: there is no such model or revision, or neither hub nor cache has it.
        MissingExtraError: huggingface_hub is not installed.
    """
    repository, revision = parsed(name)
    name = f"hf://{repository}" + (f"@{revision}" if revision else "")
    hub = client(name)
    if (kept := _kept(hub, repository, revision)) is not None:
        return kept
    with _said_better(name):
        folder = hub.snapshot_download(
            repository, revision=revision, allow_patterns=list(FETCHED), endpoint=_endpoint()
        )
    return Path(folder)


def _kept(hub: Any, repository: str, revision: str | None) -> Path | None:
    """Where the cache has a commit, if it has."""
    if revision is None or not re.fullmatch("[0-9a-f]{40}", revision):
        return None
    try:
        folder = Path(hub.snapshot_download(repository, revision=revision, local_files_only=True))
    except OSError:  # as it says that there is none
        return None
    return folder if all((folder / one).is_file() for one in (CONFIG, WEIGHTS)) else None


def push(folder: Path, name: str, *, private: bool, message: str) -> str:
    """Upload a model folder; gives the address of what was uploaded.

    Raises:
        CheckpointError: the hub refused.
        ConfigError: the name has another form, or names a revision that is no branch.
        MissingExtraError: huggingface_hub is not installed.
    """
    repository, revision = parsed(name)
    api = client(name).HfApi(endpoint=_endpoint())
    with _said_better(name):
        api.create_repo(repository, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            revision=revision,
            allow_patterns=list(PUSHED),
            commit_message=message,
        )
    return str(done.commit_url)


def client(purpose: str) -> Any:
    """The hub's client.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise MissingExtraError("huggingface_hub", "hub", purpose) from error
    if logging.getLogger().handlers:  # else each of its lines would be there twice
        logging.getLogger("huggingface_hub").handlers.clear()
    return huggingface_hub


def _endpoint() -> str | None:
    """Asked for each time: the client itself reads it only when it is imported."""
    return os.environ.get("HF_ENDPOINT") or None


@contextmanager
def _said_better(name: str) -> Iterator[None]:
    """The client's errors as ours; they name the address that was asked, never the token."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{name}: the hub has the model, but not this revision") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{name}: the hub has no such model, or does not show it to you; check the name, and "
            "for a private one log in with `hf auth login`"
        ) from error
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{name}: the hub cannot be reached, and the cache does not have it; fetch it once "
            "with a network"
        ) from error
    except (HfHubHTTPError, OSError, ValueError, RuntimeError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        said = f"the hub answered {status}" if status else type(error).__name__
        raise CheckpointError(
            f"{name}: {said}; log in with `hf auth login`, or look at the network"
        ) from error
