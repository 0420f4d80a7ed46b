"""Ports that several processes share: a listening socket for each process, among which the kernel spreads connections.

All of them are bound before any process is started, and kept by whoever bound them: what waits in the queue of a
process that ends is served by the next one. Which ports can be shared is told here too. Knows nothing of cameras.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Any

from twisted.internet.interfaces import IProtocolFactory

from dsmgateway.errors import ConfigError
from dsmgateway.listeners import RECEIVE_BUFFER_BYTES, TLS_PREFIX, PortListener


@dataclass(frozen=True, slots=True)
class SharedPort:
    """A port as the operator wrote it, and what that means; an empty ``host`` is every IPv4 address."""

    written: str
    host: str
    number: int
    backlog: int

    @property
    def family(self) -> socket.AddressFamily:
        """The address family of its sockets."""
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    @property
    def name(self) -> str:
        """How it is called in an error."""
        return f"port {self.written}" if self.written.isdecimal() else f"endpoint {self.written!r}"


def shared_port(written: str, backlog: int) -> SharedPort:
    """Read a port as `Settings` has it; ConfigError when it is none that several processes can share."""
    if written.isdecimal():
        return SharedPort(written, "", int(written), backlog)
    kind, *words = re.split(r"(?<!\\):", written)
    [number, *more], *arguments = map(_parts, words or [""])
    is_whole = kind in ("tcp", TLS_PREFIX.rstrip(":")) and not more and all(len(parts) == 2 for parts in arguments)
    named = dict(arguments) if is_whole else {}
    host, own_backlog = named.pop("interface", ""), named.pop("backlog", str(backlog))
    if not (
        is_whole and not named and _is_port(number) and _is_address(host) and re.fullmatch(r"[0-9]{1,9}", own_backlog)
    ):
        raise ConfigError(
            f"endpoint {written!r}: several processes (setting workers) share plain numbers only, and tcp: and tls: "
            "with a number and, if wanted, interface= and backlog="
        )
    return SharedPort(written, host, int(number), int(own_backlog))


def bind_shared(port: SharedPort, processes: int) -> list[socket.socket]:
    """Return a listening socket for each process, all on one port; ConfigError when it cannot be had."""
    made: list[socket.socket] = []
    try:
        # Without SO_REUSEPORT: with it, another gateway of this user would be joined, and take half of the cameras.
        with _socket(port) as alone:
            alone.bind((port.host, port.number))
            number = alone.getsockname()[1]
        for _ in range(processes):
            one = _socket(port)
            made.append(one)
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            one.bind((port.host, number))
        for one in made:
            one.listen(port.backlog)
    except OSError as error:
        for one in made:
            one.close()
        raise ConfigError(f"{port.name}: {error.strerror}") from None
    return made


def _socket(port: SharedPort) -> socket.socket:
    made = socket.socket(port.family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made


def _parts(word: str) -> list[str]:
    """What stands before and after the first = of an endpoint's argument; an escaped one is none, as for Twisted."""
    return [re.sub(r"\\(.)", r"\1", part) for part in re.split(r"(?<!\\)=", word, maxsplit=1)]


def _is_port(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) is not None and int(text) <= 65535


def _is_address(text: str) -> bool:
    try:
        return not text or bool(ipaddress.ip_address(text))
    except ValueError:
        return False


class AdoptedListener(PortListener):
    """Listens on a socket that was bound, and announced, by another process."""

    def __init__(self, reactor: Any, inherited: socket.socket, factory: IProtocolFactory) -> None:
        super().__init__(reactor, inherited.getsockname()[1], 0, factory)
        self._socket = inherited

    def privilegedStartService(self) -> None:
        """Hand the socket to the reactor."""
        inherited, self._socket = self._socket, None
        if inherited is not None:
            self._port = self._reactor.adoptStreamPort(inherited.fileno(), inherited.family, self._factory)
            inherited.close()
