"""What a connection that was handed over is for Twisted: the socket itself, and the two ends of a relayed one.

`IReactorSocket.adoptStreamConnection` would do for the first, if it did not ask who the peer is: where that one has
just gone, it leaves a socket open. As it is here, such a peer's end is found by who reads, as with any connection.

A pair of local sockets has no reset: its other end only hears that there is no more, whether that was said with all due
form or everything was thrown away. So an end that is aborted is given a name first, which pairs have none, and for
which the other one can still ask. Where the kernel grants it none, the abort is an end like any other.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure


class Accepted(tcp.Server):
    """A connection as if it had been accepted here."""

    def __init__(self, connection: socket.socket, protocol: Protocol, reactor: Any) -> None:
        """Own ``connection``, and begin to read it."""
        server: Any = None
        super().__init__(connection, protocol, ("", 0), server, 0, reactor)
        self.repstr = f"<{type(self).__name__} {connection.fileno()}>"


class _PairsEnd(unix.Server):
    """One end of a pair."""

    def __init__(self, connection: socket.socket, protocol: Protocol, reactor: Any) -> None:
        """Own ``connection``, and begin to read it."""
        super().__init__(connection, protocol, "", None, 0, reactor)
        self.repstr = f"<{type(self).__name__} {connection.fileno()}>"


class OwnersEnd(_PairsEnd):
    """The one that the owner of a device takes for its connection."""

    def abortConnection(self) -> None:
        """End, and let the other end know that this is no usual end."""
        if self.connected:
            with suppress(OSError):  # it has a name already, or gets none
                self.socket.bind("")  # any that is free; none of these are files
        super().abortConnection()


class RelaysEnd(_PairsEnd):
    """The other one."""

    #: Whether it has ended because the owner's was aborted.
    torn_off = False

    def connectionLost(self, reason: Failure) -> None:
        """Take what was said before the end: where a write has found it, nobody has read that."""
        if self.connected:
            self.doRead()
            self.torn_off = self.socket.getpeername() != ""
        super().connectionLost(reason)
