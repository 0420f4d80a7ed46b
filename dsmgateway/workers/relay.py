"""A connection whose TLS ends in one process and whose device belongs to another: both talk through here.

The other process has one end of a pair of local sockets, and takes it for the connection. What the device sends is read
no faster than that process takes it; what is sent to the device is little, and `dsmgateway.tls_peer` ends a device that
does not read it. The end of either side is the end of the other, and the owner's abort is one for the device, too.
Knows nothing of what is said.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from dsmgateway.limits import LINGER_S
from dsmgateway.workers.transports import RelaysEnd


class Relay:
    """One such connection; ``gone`` fires when it has ended on the device's side."""

    def __init__(self, secure: Any, reactor: Any) -> None:
        """Take the device's side from ``secure``, TLS with the protocol that has it until now.

        Raises `OSError` where this process has no descriptors left; then that protocol has it still.
        """
        self.gone: Deferred[None] = Deferred()
        self._secure, self._reactor, self._inner = secure, reactor, _Inner(self)
        own, self.other_end = socket.socketpair()
        self.other_end.setblocking(False)
        self._inner.makeConnection(RelaysEnd(own, self._inner, reactor))
        self._inner.transport.registerProducer(_Source(secure), True)
        # Where TLS wraps a protocol, that is which one: it is told of what comes, and of the end.
        secure.wrappedProtocol = _Outer(self)

    def from_device(self, data: bytes) -> None:
        """The device says something."""
        self._inner.transport.write(data)

    def from_process(self, data: bytes) -> None:
        """The other process says something."""
        self._secure.write(data)

    def device_gone(self) -> None:
        """The device's side has ended; what it said before that still gets through."""
        self._inner.transport.unregisterProducer()
        self._inner.transport.loseConnection()
        self.gone.callback(None)

    def process_gone(self, torn_off: bool) -> None:
        """The other process has ended its side, or has torn it off: then nothing that it said matters any more.

        In any other case the device may have something to hear that is still on its way to it, whatever the kernel
        says of the pair: a reset is only that not all was read of what the device has said.
        """
        if self.gone.called:
            return
        if torn_off:
            self._secure.abortConnection()
            return
        self._secure.loseConnection()
        # A device that does not take its leave would stay for ever.
        late = self._reactor.callLater(LINGER_S, self._secure.abortConnection)
        self.gone.addBoth(lambda _: late.cancel() if late.active() else None)

    def abort(self) -> None:
        """End both sides."""
        self._secure.abortConnection()


class _Outer(Protocol):
    """The device's side."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def dataReceived(self, data: bytes) -> None:
        self._relay.from_device(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._relay.device_gone()


class _Inner(Protocol):
    """The other process's side."""

    transport: Any

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def dataReceived(self, data: bytes) -> None:
        self._relay.from_process(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._relay.process_gone(self.transport.torn_off)


@implementer(IPushProducer)
class _Source:
    """The device, as what is written to the other process comes from it: paused while that one lags behind."""

    def __init__(self, secure: Any) -> None:
        self._secure = secure

    def pauseProducing(self) -> None:
        self._secure.pauseProducing()

    def resumeProducing(self) -> None:
        self._secure.resumeProducing()

    def stopProducing(self) -> None:
        """The side that is written to has ended: the relay is told so itself."""
