"""How much of a file must have come before the reactor is woken for it: SO_RCVLOWAT of a connection's socket.

A camera sends a packet four times a second, each in a segment of its own, and to be woken for each costs more than all
that is then done with it. So while file data comes the kernel is asked to hold it until there is some, and never more
than the file still needs. What a camera that falls silent has left there is fetched by `LowWater.wake`, at the latest
`LOOK_AFTER_S` after it was heard of last. The end of a connection always wakes. Linux's epoll honours all this; where
the system does not, or there is TLS in between, the reactor is woken for each segment.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

#: Silence after which what may be waiting is fetched: longer than the slowest usual camera takes to bring 16 KiB.
LOOK_AFTER_S = 5.0


class LowWater:
    """The mark of one connection; ``most_bytes`` is the highest it may be."""

    __slots__ = ("_mark_bytes", "_most_bytes", "_socket")

    def __init__(self, tcp: Any = None, most_bytes: int = 1) -> None:
        """``tcp`` is the connection (ITCPTransport), None where the reactor shall be woken for each segment."""
        self._socket: socket.socket | None = None if tcp is None else tcp.getHandle()
        self._most_bytes = most_bytes
        self._mark_bytes = 1

    @property
    def holds_back(self) -> bool:
        """Whether bytes may be waiting in the kernel."""
        return self._mark_bytes > 1

    def wait_for(self, wanted_bytes: int) -> None:
        """Be woken when so many bytes are there, or as many as may be waited for."""
        mark_bytes = max(min(wanted_bytes, self._most_bytes), 1)
        if mark_bytes != self._mark_bytes and self._socket is not None:
            self._mark_bytes = mark_bytes
            with suppress(OSError):  # a connection that has just ended
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, mark_bytes)

    def wake(self) -> None:
        """Be woken for what is there, if anything, and for the next byte."""
        self.wait_for(1)

    def release(self) -> None:
        """Let go of the socket: the connection is gone."""
        self._socket = None
