"""`vatt serve`: a page to search a library with, and to watch what is found."""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from vatt.errors import ConfigError, MissingExtraError
from vatt.library.search import open_index

logger = logging.getLogger(__name__)

_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,200}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """Serve the page of an index of `vatt embed`, until Ctrl-C.

    It answers this machine alone, unless `--host` says otherwise; then it asks for a token.
    """

    index: Positional[str]
    """Folder of the index, or its URL in an object store."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all of this machine's."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    allow_host: tuple[str, ...] = ()
    """Further names of this machine under which the page may be opened."""
    token: str | None = None
    """What users must know, 16 or more letters, digits, _ and -; needed beyond this machine."""
    cache: Path | None = None
    """Folder for copies of what browsers cannot play; one in ~/.cache/vatt if not given."""
    cache_gb: float = 2.0
    """What these copies may take on the disk."""
    upload_mb: float = 64.0
    """The largest file to search with."""
    workers: int = 2
    """Processes that decode files."""
    model: Path | None = None
    """Where the index's model is now, if it was moved."""
    encoder: str | None = None
    """The same of a peer's encoder: package.module:factory."""
    device: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise ConfigError(f"port: found {self.port}, expected 0 to 65535")
        for name in ("cache_gb", "upload_mb", "workers"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}: found {getattr(self, name)}, expected > 0")
        if self.token is not None and not _TOKEN.fullmatch(self.token):
            raise ConfigError(
                "token: expected 16 to 200 letters, digits, _ and -, for instance of "
                "`python -c 'import secrets; print(secrets.token_urlsafe())'`"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Where the page was."""

    address: str


def run(config: ServeConfig) -> Served:
    """Serve until interrupted.

    Raises:
        ConfigError: the address is beyond this machine and there is no token, or cannot be taken.
        DataError: there is no index.
        MissingExtraError: FastAPI or uvicorn is not installed.
    """
    for package in ("fastapi", "uvicorn"):
        try:
            importlib.import_module(package)
        except ImportError:
            raise MissingExtraError(package, "serve", "vatt serve") from None
    import uvicorn

    from vatt.serve.app import ServerSettings, make_app
    from vatt.serve.safety import is_loopback

    if not is_loopback(config.host) and config.token is None:
        raise ConfigError(
            f"host: {config.host} can be reached from other machines; give --token, which is then "
            "asked for, or leave --host out"
        )
    library = open_index(
        config.index, model=config.model, encoder=config.encoder, device=config.device
    )
    settings = ServerSettings(
        hosts=_hosts(config),
        token=config.token,
        cache=config.cache or _cache_of(config.index),
        copies_bytes=round(config.cache_gb * 1e9),
        upload_bytes=round(config.upload_mb * 2**20),
        workers=config.workers,
    )
    listening = _listen(config)
    shown = config.host if is_loopback(config.host) else socket.gethostname()
    shown = f"[{shown}]" if ":" in shown else shown
    address = f"http://{shown}:{listening.getsockname()[1]}/"
    logger.info("%d files, %d windows", len(library.files()), library.num_windows)
    asked = " (it asks for the token)" if config.token else ""
    logger.info("open %s%s; Ctrl-C ends it", address, asked)
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(library, settings),
            log_level="warning",
            access_log=False,  # an address may hold a token
            server_header=False,
            h11_max_incomplete_event_size=32 * 1024,
            limit_concurrency=200,
            timeout_keep_alive=10,
        )
    )
    server.run(sockets=[listening])
    return Served(address=address)


def _hosts(config: ServeConfig) -> tuple[str, ...]:
    """Names under which the page may be opened: of this machine, and the allowed ones."""
    hosts = ["localhost", "127.0.0.1", "::1", *config.allow_host]
    if config.host not in ("0.0.0.0", "::"):
        return (*hosts, config.host)
    return (*hosts, socket.gethostname(), *_addresses())


def _addresses() -> list[str]:
    """Addresses of this machine by its own name."""
    try:
        found = socket.getaddrinfo(socket.gethostname(), None)
    except OSError:
        return []
    return sorted({str(one[4][0]) for one in found})


def _listen(config: ServeConfig) -> Any:
    """A socket on the address.

    Raises:
        ConfigError: it cannot be taken.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((config.host, config.port))
        listening.listen()  # who asks before the server is ready waits, and is not refused
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"port: {config.host}:{config.port} cannot be taken: {error.strerror}; give another "
            "--port, or 0 for a free one"
        ) from None
    return listening


def _cache_of(index: str) -> Path:
    """A folder of this user for what belongs to an index."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    place = index if "://" in index else str(Path(index).absolute())
    return Path(base) / "vatt" / hashlib.sha256(place.encode()).hexdigest()[:16]
