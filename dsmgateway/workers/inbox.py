"""Connections on their way from one process to another, each a message with the descriptor beside it.

A process has one inbox, to which all others write, and for each of the others an outbox. The inbox outlives the
process: what waits in it is taken by the next one. A full inbox is tried again soon, and after some seconds the
connection is given up. Knows nothing of cameras.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from zope.interface import implementer

from dsmgateway.workers.handover import MAX_BYTES, Handover, parse

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

#: Messages taken in one turn of the reactor: the connections that are here shall have theirs.
_MOST_AT_ONCE = 64
#: Seconds between two attempts to put something into a full inbox, and those after which it is given up.
RETRY_S = 0.02
GIVE_UP_S = 5.0
#: What a full inbox says; the last one when too many descriptors are on their way.
_FULL = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.ETOOMANYREFS})


def inbox_pair() -> tuple[socket.socket, socket.socket]:
    """Make an inbox: the end that is read by one process, and the one that the others write to."""
    reading, writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (reading, writing):
        end.setblocking(False)
    return reading, writing


@implementer(IReadDescriptor)
class Inbox:
    """Takes what others hand over, as the reactor finds that there is something."""

    def __init__(
        self,
        reading: socket.socket,
        took: Callable[[Handover, socket.socket], object],
        failed: Callable[[str], object],
    ) -> None:
        """``took`` is given each connection, and owns it then; ``failed`` is told what cannot be taken, and why."""
        self._reading, self._took, self._failed = reading, took, failed

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._reading.fileno()

    def logPrefix(self) -> str:
        """How the reactor calls it."""
        return "inbox"

    def doRead(self) -> Failure | None:
        """Take some."""
        for _ in range(_MOST_AT_ONCE):
            try:
                message, descriptors, _, _ = socket.recv_fds(self._reading, MAX_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return None
            except OSError as error:
                self._failed(f"the inbox cannot be read: {error.strerror}")
                return Failure(CONNECTION_LOST)
            if not message:  # nobody is left who could write to it
                return Failure(CONNECTION_DONE)
            self._take(message, descriptors)
        return None

    def connectionLost(self, reason: Failure) -> None:
        """The reactor lets go of it."""

    def close(self) -> None:
        """Take nothing more."""
        self._reading.close()

    def _take(self, message: bytes, descriptors: list[int]) -> None:
        if not descriptors:  # as when this process has no more of them to give
            self._failed("its descriptor did not come with it")
            return
        connection = socket.socket(fileno=descriptors[0])
        try:
            handover = parse(message)
        except ValueError as error:
            connection.close()
            self._failed(str(error))
            return
        self._took(handover, connection)


@dataclass(slots=True)
class _Waiting:
    message: bytes
    connection: socket.socket
    settled: Callable[[str], object]
    since_s: float


class Outbox:
    """Puts connections into the inbox of another process, in order."""

    def __init__(self, writing: socket.socket, reactor: Any) -> None:
        self._writing, self._reactor = writing, reactor
        self._waiting: deque[_Waiting] = deque()
        self._retry: IDelayedCall | None = None

    def put(self, handover: Handover, connection: socket.socket, settled: Callable[[str], object]) -> None:
        """Send it; ``settled`` is told once that it was (empty) or why it is given up."""
        self._waiting.append(_Waiting(handover.encode(), connection, settled, self._reactor.seconds()))
        if self._retry is None:
            self._send()

    def close(self) -> None:
        """Give up what waits."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        while self._waiting:
            self._waiting.popleft().settled("the gateway stops")
        self._writing.close()

    def _send(self) -> None:
        self._retry = None
        while self._waiting:
            first = self._waiting[0]
            problem = self._send_one(first)
            if problem is None:
                self._retry = self._reactor.callLater(RETRY_S, self._send)
                return
            self._waiting.popleft()
            first.settled(problem)

    def _send_one(self, one: _Waiting) -> str | None:
        """Send it; return None where it has to be tried again."""
        try:
            socket.send_fds(self._writing, [one.message], [one.connection.fileno()])
        except OSError as error:
            if error.errno not in _FULL:
                return f"it cannot be reached: {error.strerror}"
            waited_s = self._reactor.seconds() - one.since_s
            return f"it took nothing for {waited_s:.0f} s" if waited_s >= GIVE_UP_S else None
        return ""
