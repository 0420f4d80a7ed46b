"""The other processes as one of them sees them: whose device it is, and how a connection gets there.

A plain connection is handed over itself: its socket goes to the other process, and is forgotten here without a word to
the peer. Nothing of Twisted's own ends may be used for that: they shut the connection down, which is shared by all who
have its socket. With TLS, whose keys stay where the handshake was, it is relayed (`dsmgateway.workers.relay`).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

import txaio
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import ISSLTransport
from zope.interface import implementer

from dsmgateway.events import Event, log_event
from dsmgateway.factory import CameraFactory
from dsmgateway.interfaces import IOtherProcesses
from dsmgateway.quiet import Quiet
from dsmgateway.workers.handover import Handover
from dsmgateway.workers.inbox import Inbox, Outbox
from dsmgateway.workers.owners import owner_of
from dsmgateway.workers.relay import Relay
from dsmgateway.workers.transports import Accepted, OwnersEnd

txaio.use_twisted()


@implementer(IOtherProcesses)
class OtherProcesses:
    """All processes but this one, which has ``number``; ``outboxes`` are all inboxes' writing ends, by number."""

    log = txaio.make_logger()

    def __init__(self, number: int, outboxes: Sequence[socket.socket], reactor: Any) -> None:
        self._number, self._reactor = number, reactor
        self._outboxes = [Outbox(one, reactor) for one in outboxes]
        self._quiet = Quiet(reactor.seconds())
        #: Connections whose TLS ends here, and whose devices belong to others.
        self.relays: set[Relay] = set()

    def own(self, imei: str) -> bool:
        """Say whether this device belongs to one of them."""
        return owner_of(imei, len(self._outboxes)) != self._number

    def hand_over(
        self, imei: str, connection: Any, peer: str, source: str, said: bytes, left: Callable[[], object]
    ) -> None:
        """Give a connection, on which nothing was answered yet, to the process that this device belongs to."""
        owner = owner_of(imei, len(self._outboxes))
        if ISSLTransport.providedBy(connection):
            self._relay(owner, Handover(peer, source, b""), connection, said, left)
        else:
            self._give(owner, Handover(peer, source, said), connection, left)

    def stop(self) -> Deferred[Any]:
        """End what waits to be handed over; fires when nothing of what was handed over goes through this process."""
        for outbox in self._outboxes:
            outbox.close()
        return DeferredList([relay.gone for relay in self.relays])

    def _give(self, owner: int, handover: Handover, connection: Any, left: Callable[[], object]) -> None:
        """Hand the socket over. Where that fails, the connection's own protocol is told of its end, as of any other."""
        connection.pauseProducing()
        handle = connection.getHandle()

        def settled(problem: str) -> None:
            if problem:
                self._failed(owner, handover.peer, problem)
                connection.abortConnection()
                return
            left()
            # Not now: this may be in the middle of reading from it. It is in no list of the reactor's any more.
            self._reactor.callLater(0, handle.close)

        self._outboxes[owner].put(handover, handle, settled)

    def _relay(self, owner: int, handover: Handover, connection: Any, said: bytes, left: Callable[[], object]) -> None:
        try:
            relay = Relay(connection, self._reactor)
        except OSError as error:
            self._failed(owner, handover.peer, str(error.strerror))
            connection.abortConnection()
            return
        relay.from_device(said)
        self.relays.add(relay)
        relay.gone.addCallback(lambda _: self.relays.discard(relay))

        def settled(problem: str) -> None:
            left()
            relay.other_end.close()
            if problem:
                self._failed(owner, handover.peer, problem)
                relay.abort()

        self._outboxes[owner].put(handover, relay.other_end, settled)

    def _failed(self, owner: int, peer: str, reason: str) -> None:
        suppressed = self._quiet.ask(self._reactor.seconds(), f"worker {owner}")
        if suppressed is not None:
            log_event(
                self.log, Event.HANDOVER_FAILED, owner=owner, peer=peer, reason=reason, suppressed=suppressed or None
            )


class Adopter:
    """Takes connections from the inbox as if they had been accepted here."""

    log = txaio.make_logger()

    def __init__(self, number: int, reading: socket.socket, factory: CameraFactory, reactor: Any) -> None:
        self._number, self._factory, self._reactor = number, factory, reactor
        self._inbox = Inbox(reading, self._took, self._failed)
        self._quiet = Quiet(reactor.seconds())

    def start(self) -> None:
        """Begin to take them."""
        self._reactor.addReader(self._inbox)

    def stop(self) -> None:
        """Take no more: what is in the inbox ends when all processes have."""
        self._reactor.removeReader(self._inbox)
        self._inbox.close()

    def _took(self, handover: Handover, connection: socket.socket) -> None:
        protocol = self._factory.adopted(handover.peer, handover.source)
        if protocol is None:
            connection.close()
            return
        kind = OwnersEnd if connection.family == socket.AF_UNIX else Accepted
        protocol.makeConnection(kind(connection, protocol, self._reactor))
        protocol.dataReceived(handover.said)

    def _failed(self, reason: str) -> None:
        suppressed = self._quiet.ask(self._reactor.seconds(), "inbox")
        if suppressed is not None:
            log_event(self.log, Event.HANDOVER_FAILED, owner=self._number, reason=reason, suppressed=suppressed or None)
