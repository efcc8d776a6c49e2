"""Ranks end together: one that fails or dies ends all of them within seconds, and is named once.

Without this, the others wait in a collective until its time-out. Rank 0 has a connection to each
of the others. A rank that fails says so on it before it leaves; when a process is killed the system
closes its connection; a machine that is lost is noticed within half a minute. Rank 0 decides which
failure was the first, and tells all. A thread of each rank hears it, and ends the process if its
main thread, which may wait for a rank that is no more, has not ended by itself.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

from vatt.errors import VattError

logger = logging.getLogger(__name__)

CONNECT_S = 60.0
GRACE_S = 3.0  # in which a rank that has heard of a failure may end by itself
CONSEQUENCE_S = 1.0  # in which the cause of an error of a collective becomes known
_GOODBYE = b"{}\n"
_HELLO = 40  # bytes: a token of 32, the rank


@dataclass(frozen=True, slots=True)
class Failure:
    """How the first rank failed.

    code: which all ranks exit with; reason: for people; told: whether that rank shows it itself.
    """

    rank: int
    code: int
    reason: str
    told: bool


@contextmanager
def ending_together(
    rank: int, ranks: int, gather: Callable[[dict[str, Any]], list[dict[str, Any]]]
) -> Iterator[None]:
    """Let no rank outlive the failure of another one by more than a few seconds.

    Args:
        rank: of this process.
        ranks: how many there are.
        gather: gives a JSON value of every rank to all of them.

    An error after that of another rank ends the process, with the exit code of the first.
    """
    watch = _Watch(rank, *_connected(rank, ranks, gather))
    try:
        yield
    except BaseException as error:
        first = watch.first_failure(error)
        if first.rank == rank or isinstance(error, KeyboardInterrupt):
            raise
        watch.end_by(first)
    finally:
        watch.leave()


class _Watch:
    """What a rank knows of the others.

    hosts: the machine of each rank; links: to all others on rank 0, elsewhere to rank 0.
    """

    def __init__(self, rank: int, hosts: Sequence[str], links: Mapping[int, socket.socket]) -> None:
        self._rank, self._hosts, self._links = rank, hosts, links
        self._first: Failure | None = None
        self._deciding = threading.Lock()
        self._decided, self._left = threading.Event(), threading.Event()
        # A copy of a connection in a child, such as a loader's worker, would keep it open.
        for link in links.values():
            os.register_at_fork(after_in_child=link.close)
        for other, link in links.items():
            threading.Thread(target=self._listen, args=(other, link), daemon=True).start()

    def first_failure(self, error: BaseException) -> Failure:
        """The failure of any rank that came first; this rank's own is `error`."""
        if isinstance(error, RuntimeError):  # as collectives raise when another rank is gone
            self._decided.wait(CONSEQUENCE_S)
        code, told = getattr(error, "exit_code", 1), True
        if isinstance(error, KeyboardInterrupt):
            code, told = 130, False
        reason = str(error) if isinstance(error, VattError) else repr(error)
        mine = Failure(self._rank, code, reason, told)
        if self._rank == 0:
            self._decide(mine)
        elif not self._decided.is_set() and self._links:
            self._send(mine)
            self._decided.wait(GRACE_S)
        return self._first or mine

    def leave(self) -> None:
        """From now on the end of another rank is none of ours."""
        self._left.set()
        for link in self._links.values():
            with suppress(OSError):
                link.sendall(_GOODBYE)
                link.shutdown(socket.SHUT_WR)

    def end_by(self, failure: Failure) -> NoReturn:
        """End this process; one of each machine says why, unless it can be read there already."""
        here = self._hosts[self._rank]
        others = [r for r, host in enumerate(self._hosts) if host == here and r != failure.rank]
        where = self._hosts[failure.rank]
        if others[0] == self._rank and not (failure.told and where == here):
            logger.error("error: rank %d (on %s): %s", failure.rank, where, failure.reason)
        logging.shutdown()
        os._exit(failure.code)  # an orderly end might wait for ranks that are no more

    def _listen(self, other: int, link: socket.socket) -> None:
        said = b""
        with suppress(OSError):
            while received := link.recv(4096):
                said += received
                if said == _GOODBYE:
                    return
                if said.endswith(b"\n"):
                    self._hear(Failure(**json.loads(said.splitlines()[0])))
        died = (
            "its process has died: it was killed, perhaps because memory ran out, or its machine "
            "was lost; the same command continues from the newest checkpoint"
        )
        self._hear(Failure(other, 1, died, told=False))

    def _hear(self, failure: Failure) -> None:
        if self._left.is_set() or not self._decide(failure) or self._left.wait(GRACE_S):
            return
        self.end_by(failure)

    def _decide(self, failure: Failure) -> bool:
        """Whether it is the first; then rank 0 tells all others."""
        with self._deciding:
            if self._first is not None:
                return False
            self._first = failure
        self._decided.set()
        if self._rank == 0:
            self._send(failure)
        return True

    def _send(self, failure: Failure) -> None:
        for link in self._links.values():
            with suppress(OSError):
                link.sendall(json.dumps(asdict(failure)).encode() + b"\n")


def _connected(
    rank: int, ranks: int, gather: Callable[[dict[str, Any]], list[dict[str, Any]]]
) -> tuple[list[str], dict[int, socket.socket]]:
    """The machine of each rank, and connections with rank 0: all of them there, one elsewhere."""
    mine: dict[str, Any] = {"host": socket.gethostname()}
    if rank:
        all_ranks = gather(mine)
        link = _connect(rank, **all_ranks[0])
        links = {} if link is None else {0: link}
    else:
        two_stacks = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if two_stacks else socket.AF_INET
        with socket.create_server(
            ("", 0), family=family, dualstack_ipv6=two_stacks, backlog=ranks
        ) as server:
            port, token = server.getsockname()[1], secrets.token_hex(16)
            all_ranks = gather(mine | {"port": port, "token": token, "address": _own_address()})
            links = dict(_accepted(server, token, ranks))
    for link in links.values():
        link.settimeout(None)
        for option, value in (
            (socket.TCP_KEEPIDLE, 10),
            (socket.TCP_KEEPINTVL, 5),
            (socket.TCP_KEEPCNT, 4),
        ):
            link.setsockopt(socket.IPPROTO_TCP, option, value)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return [one["host"] for one in all_ranks], links


def _own_address() -> str:
    """Of this machine, as seen from the machine where the ranks meet."""
    meet = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    family, _, _, _, address = socket.getaddrinfo(*meet, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as sends_nothing:
        sends_nothing.connect(address)
        return str(sends_nothing.getsockname()[0])


def _accepted(server: socket.socket, token: str, ranks: int) -> Iterator[tuple[int, socket.socket]]:
    missing = set(range(1, ranks))
    server.settimeout(CONNECT_S)
    try:
        while missing:
            link, _ = server.accept()
            link.settimeout(CONNECT_S)
            hello = link.recv(_HELLO, socket.MSG_WAITALL).decode(errors="replace")
            if hello[:32] == token and int(hello[32:]) in missing:
                missing.remove(int(hello[32:]))
                yield int(hello[32:]), link
    except OSError as error:
        logger.warning(
            "ranks %s do not reach rank 0 (%s): when one of them dies, the others wait until the "
            "time-out of their collectives",
            sorted(missing),
            error,
        )


def _connect(rank: int, *, port: int, token: str, address: str, **_: Any) -> socket.socket | None:
    # MASTER_ADDR: rank 0 may know its own machine by a name that only that machine understands.
    for one in (address, os.environ["MASTER_ADDR"]):
        with suppress(OSError):
            link = socket.create_connection((one, port), timeout=CONNECT_S / 2)
            link.sendall(f"{token}{rank:08d}".encode())
            return link
    return None
