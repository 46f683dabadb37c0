"""The page's door: who holds a connection, and for how long, whatever is sent over it.

A connection is a stranger's until one of its requests has passed every check (`welcome`). Strangers have few places,
and fewer from one network; a new one takes the place of the oldest, so a crowd that says nothing keeps nobody out.
Those who passed have places of their own. The door sees a socket as it is accepted, before TLS and HTTP.
"""

from __future__ import annotations

import ipaddress
import resource
import socket
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

MAX_STRANGERS, PER_NETWORK = 96, 24  # connections of strangers: of all, and of one network
RUSH, SPEAK = 4, 1.0  # times as many, while they are so new (s) that what they send may still be on its way
MAX_KNOWN = 48  # connections that passed the checks, besides the clients
ASK = 10.0  # s that a stranger's first request may take, TLS included
STAY = 60.0  # s after which a stranger's connection is closed, whatever it does
UNREAD = 30_000  # ms that sent data may stay unacknowledged before the kernel drops the connection
BACKLOG = 512  # connections that wait to be accepted
AT_ONCE = (
    4  # are accepted before what the last ones sent is read: a new one may say something before a crowd replaces it
)

Peer = tuple[str, int]  # host and port, as uvicorn names a client


def network_of(host: str) -> str:
    """What counts as one sender: an IPv4 address, or the /64 of an IPv6 address, of which a host has them all."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((address, 64), strict=False))
        address = address.ipv4_mapped
    return str(address)


@dataclass(eq=False)
class _Visitor:
    connection: socket.socket
    network: str
    since: float
    asked: bool = False  # a whole request arrived
    known: bool = False
    streaming: bool = False  # one of the page's clients, which are limited where they log in
    leaving: bool = False  # closed by us; gone when its owner has noticed

    @property
    def gone(self) -> bool:
        return self.connection.fileno() < 0


class Door:
    """The open connections. Used by the page's thread; `came` is called for each accepted socket."""

    def __init__(self) -> None:
        self._visitors: dict[Peer, _Visitor] = {}
        self.max_strangers = min(
            MAX_STRANGERS, max(8, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 256) // (2 * RUSH))
        )
        self.closed = 0  # connections of strangers that were closed for others or for time

    def __len__(self) -> int:
        return len(self._here())

    def came(self, connection: socket.socket, peer: Peer) -> None:
        """A connection was accepted. In a rush that leaves no place for it, the one that matters least is closed."""
        network = network_of(peer[0])
        strangers = self._strangers()
        crowd = Counter(visitor.network for visitor in strangers)
        if crowd[network] >= RUSH * PER_NETWORK:
            self._close_oldest([visitor for visitor in strangers if visitor.network == network])
        elif len(strangers) >= RUSH * self.max_strangers:
            largest = crowd.most_common(1)[0][0]
            self._close_oldest([visitor for visitor in strangers if visitor.network == largest])
        self._visitors[peer] = _Visitor(connection, network, time.monotonic())

    def asked(self, peer: Peer | None) -> None:
        """A whole request arrived from `peer`."""
        if peer is not None and (visitor := self._visitors.get(peer)):
            visitor.asked = True

    def welcome(self, peer: Peer | None, *, streaming: bool = False) -> None:
        """A request of `peer` passed every check. streaming: its connection is never closed for another one."""
        visitor = self._visitors.get(peer) if peer is not None else None
        if visitor is None or visitor.known:
            return
        known = [other for other in self._here() if other.known and not other.streaming]
        if len(known) >= MAX_KNOWN and not streaming:
            self._close_oldest(known)
        visitor.known, visitor.streaming = True, streaming

    def shut(self, peer: Peer | None) -> None:
        """Close the connection of `peer`, also while it does not read what it is sent."""
        if peer is not None and (visitor := self._visitors.get(peer)):
            self._close(visitor)

    def sweep(self, now: float) -> None:
        """Close the strangers whose time is over, and those that are too many; `now` is `time.monotonic()`."""
        for visitor in self._strangers():
            if now - visitor.since > (STAY if visitor.asked else ASK):
                self.closed += 1
                self._close(visitor)
        settled: dict[str, list[_Visitor]] = {}
        for visitor in sorted(self._strangers(), key=_worth):
            if now - visitor.since > SPEAK:
                settled.setdefault(visitor.network, []).append(visitor)
        most = PER_NETWORK
        while most > 1 and sum(min(most, len(some)) for some in settled.values()) > self.max_strangers:
            most -= 1  # the largest networks lose places until the others' suffice
        for some in settled.values():
            for visitor in some[: max(0, len(some) - most)]:
                self.closed += 1
                self._close(visitor)

    def _strangers(self) -> list[_Visitor]:
        return [visitor for visitor in self._here() if not visitor.known]

    def _here(self) -> list[_Visitor]:
        for peer in [peer for peer, visitor in self._visitors.items() if visitor.gone]:
            del self._visitors[peer]
        return [visitor for visitor in self._visitors.values() if not visitor.leaving]

    def _close_oldest(self, some: list[_Visitor]) -> None:
        self.closed += 1
        self._close(min(some, key=_worth))

    @staticmethod
    def _close(visitor: _Visitor) -> None:
        visitor.leaving = True
        with suppress(OSError):
            visitor.connection.shutdown(socket.SHUT_RDWR)  # its owner reads the end, or fails to write


def _worth(visitor: _Visitor) -> tuple[bool, float]:
    """Those that have not asked anything are closed first, then the oldest."""
    return visitor.asked, visitor.since


class Listener(socket.socket):
    """A listening socket that shows every connection to `door` as it is accepted."""

    door: Door

    def listen(self, backlog: int = BACKLOG) -> None:
        """Keep the queue long: asyncio passes the number that it accepts at once, `AT_ONCE`."""
        super().listen(BACKLOG)

    def again(self) -> Listener:
        """The same listening socket once more, for a server that closes what it is given."""
        other = self.dup()
        other.door = self.door
        return other

    def accept(self) -> tuple[socket.socket, Any]:
        connection, address = super().accept()
        self.door.came(connection, (str(address[0]), int(address[1])))
        return connection, address


def listen(host: str, port: int, door: Door) -> Listener:
    """Raises OSError."""
    family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = Listener(family, kind)
    listener.door = door
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD)  # accepted sockets inherit it
    try:
        listener.bind(where)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener
