"""Listening ports as services: a plain port number, or any endpoint that Twisted knows.

``tls:`` is ``tcp:`` under TLS; which factory that takes is told by whoever makes the listener. A plain number's socket
can be bound ahead of the start, so that a busy port is found out before the process becomes a daemon. A port that
cannot be had is a `ConfigError`, never a gateway that runs deaf. Knows nothing of cameras.
"""

from __future__ import annotations

import re
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import txaio
from OpenSSL.SSL import Error as TLSError
from twisted.application import service
from twisted.internet import endpoints
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from dsmgateway.addresses import shown_address
from dsmgateway.errors import ConfigError
from dsmgateway.events import Event, log_event
from dsmgateway.tls_peer import TLSTransport

txaio.use_twisted()
log = txaio.make_logger()

#: A connection that is paused because the disk is slow holds no more than this in the kernel (unlimited, it grew to
#: 2.8 MiB); set on the listener, as what it accepts inherits it. Enough for 60 s of the fastest camera.
RECEIVE_BUFFER_BYTES = 256 << 10
#: Endpoints that may listen before the process becomes a daemon. Not ``unix``: its lock names the process that made it.
_LISTEN_EARLY = frozenset({"tcp", "tcp6", "ssl", "tls"})
#: TCP with the gateway's own TLS; goes before Twisted's endpoint of this name, which takes a folder of certificates.
TLS_PREFIX = "tls:"


class PortListener(service.Service):
    """Listens on a TCP port of all IPv4 addresses."""

    def __init__(self, reactor: Any, number: int, backlog: int, factory: IProtocolFactory) -> None:
        self._reactor, self._number, self._backlog, self._factory = reactor, number, backlog, factory
        self._socket: socket.socket | None = None
        self._port: IListeningPort | None = None

    @property
    def address(self) -> IAddress | None:
        """Where it listens, once it does; with the real port number when 0 was asked for."""
        return None if self._port is None else self._port.getHost()

    def bind(self) -> None:
        """Bind the socket and let connections queue up; they are taken from the start of the service on."""
        if self._socket is not None:
            return
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            bound.setblocking(False)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            bound.bind(("", self._number))
            bound.listen(self._backlog)
        except OSError as error:
            bound.close()
            raise ConfigError(f"port {self._number}: {error.strerror}") from None
        self._socket = bound

    def privilegedStartService(self) -> None:
        """Hand the socket to the reactor."""
        if self._port is not None:
            return
        self.bind()
        assert self._socket is not None
        self._port = self._reactor.adoptStreamPort(self._socket.fileno(), socket.AF_INET, self._factory)
        self._socket.close()
        self._socket = None
        log_event(log, Event.PORT_LISTENING, endpoint=str(self._number), address=shown_address(self.address))

    def startService(self) -> None:
        """Listen, unless `privilegedStartService` did."""
        super().startService()
        self.privilegedStartService()

    def stopService(self) -> Deferred[Any]:
        """Take no more connections; those there are live on."""
        super().stopService()
        port, self._port = self._port, None
        return succeed(None) if port is None else maybeDeferred(port.stopListening)


class EndpointListener(service.Service):
    """Listens on what an endpoint string describes: ``unix:``, ``systemd:``, ``ssl:``, ``tcp6:`` and so on."""

    def __init__(self, reactor: Any, description: str, endpoint: str, factory: IProtocolFactory) -> None:
        """``description`` is what the operator wrote, ``endpoint`` the same with what we add.

        Raises ConfigError when it is no endpoint, or names a file that cannot be read.
        """
        self._description, self._factory = description, factory
        try:
            self._endpoint = endpoints.serverFromString(reactor, endpoint)
            if description.startswith("ssl:"):
                _refuse_world_readable(description)
        except OSError as error:
            raise ConfigError(f"endpoint {description!r}: {error.strerror}: {error.filename}") from None
        except (ValueError, TypeError, LookupError, AttributeError, TLSError) as error:
            raise ConfigError(f"endpoint {description!r}: {error}") from None
        self._listening: Deferred[Any] | None = None
        self._port: IListeningPort | None = None
        self._error: ConfigError | None = None

    @property
    def address(self) -> IAddress | None:
        """Where it listens, once it does."""
        return None if self._port is None else self._port.getHost()

    def bind(self) -> None:
        """Listen already, where that is safe; connections are taken when the reactor runs."""
        if self._description.partition(":")[0] in _LISTEN_EARLY:
            self.privilegedStartService()

    def privilegedStartService(self) -> None:
        """Listen, unless `bind` did; ConfigError when that cannot be had."""
        if self._listening is not None:
            return
        self._listening = maybeDeferred(self._endpoint.listen, self._factory)
        self._listening.addCallbacks(self._listens, self._failed)
        if self._error is not None:
            raise self._error

    def _listens(self, port: IListeningPort) -> None:
        self._port = port
        listening = getattr(port, "socket", None)
        if listening is not None and listening.family != socket.AF_UNIX:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        wrapped = getattr(port, "factory", None)
        if isinstance(wrapped, TLSMemoryBIOFactory):  # ssl: puts its own TLS around ours, which has no bounds
            wrapped.protocol = TLSTransport
        log_event(log, Event.PORT_LISTENING, endpoint=self._description, address=shown_address(self.address))

    def _failed(self, failure: Failure) -> None:
        failure.trap(CannotListenError, OSError)
        cause = getattr(failure.value, "socketError", failure.value)
        self._error = ConfigError(f"endpoint {self._description!r}: {getattr(cause, 'strerror', None) or cause}")

    def startService(self) -> None:
        """Listen, unless `privilegedStartService` did."""
        super().startService()
        self.privilegedStartService()

    def stopService(self) -> Deferred[Any]:
        """Take no more connections; those there are live on."""
        super().stopService()
        port, self._port, self._listening = self._port, None, None
        return succeed(None) if port is None else maybeDeferred(port.stopListening)


def _refuse_world_readable(description: str) -> None:
    """Raise ConfigError when everybody may read the key of an ``ssl:`` endpoint, as for `Settings.tls_key`."""
    words = re.split(r"(?<!\\):", description)
    named = [word.removeprefix("privateKey=") for word in words if word.startswith("privateKey=")]
    by_position = [word for word in words if not re.match(r"\w+=", word)]
    path = Path(re.sub(r"\\(.)", r"\1", (*named, *by_position[2:], "server.pem")[0]))
    if path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise ConfigError(f"endpoint {description!r}: the key in {path} is world-readable (chmod o= {path})")


def listener(reactor: Any, port: str, backlog: int, factory: IProtocolFactory) -> PortListener | EndpointListener:
    """The service that listens on ``port`` as `Settings` has it: a number, or an endpoint string."""
    if port.isdecimal():
        return PortListener(reactor, int(port), backlog, factory)
    endpoint = f"tcp:{port.removeprefix(TLS_PREFIX)}" if port.startswith(TLS_PREFIX) else port
    if port.partition(":")[0] in _LISTEN_EARLY and ":backlog=" not in port:
        with suppress(ConfigError):  # it says its backlog by position, or is wrong, which is found out next
            return EndpointListener(reactor, port, f"{endpoint}:backlog={backlog}", factory)
    return EndpointListener(reactor, port, endpoint, factory)


def spelt_tls(port: str) -> str:
    """A port of setting ``tls-port`` so that it can be told from a plain one, where there is a spelling for that."""
    if port.isdecimal():
        return f"{TLS_PREFIX}{port}"
    return f"{TLS_PREFIX}{port.removeprefix('tcp:')}" if port.startswith("tcp:") else port
