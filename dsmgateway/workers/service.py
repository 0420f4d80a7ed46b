"""The gateway as one of several worker processes: on ports that it inherits, for the devices that belong to it.

All that it does for them is what a gateway does that is one process (`dsmgateway.service`); here is what differs.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import LoopingCall

from dsmgateway.factory import CameraFactory
from dsmgateway.service import GatewayService, store_worker
from dsmgateway.store import Recovery, Share
from dsmgateway.store.tally import Tally
from dsmgateway.workers.boot import CONNECTIONS, FAILING, HEARTBEATS, NEEDED_BYTES, PARTS, Boot, counts_in
from dsmgateway.workers.handing import Adopter, OtherProcesses
from dsmgateway.workers.ports import AdoptedListener

#: Seconds between two heartbeats.
HEARTBEAT_INTERVAL_S = 1.0


class WorkerService(GatewayService):
    """The gateway of one worker process. ``listens`` is called when its ports are open."""

    def __init__(self, boot: Boot, reactor: Any, listens: Callable[[], object]) -> None:
        """ConfigError when a certificate cannot be used. What is inherited is owned from now on."""
        settings, number = boot.settings, boot.number
        counted = counts_in(boot.memory, len(boot.outboxes), own=number)
        share = Share(number, boot.lock, counted[NEEDED_BYTES], counted[PARTS], counted[FAILING])
        worker = store_worker(settings, reactor, share)
        factory = CameraFactory(settings, worker, reactor)
        factory.others = others = OtherProcesses(number, [_socket(one) for one in boot.outboxes], reactor)
        _count_over_all(factory, others, counted[CONNECTIONS], bool(settings.max_connections))
        self._adopter = Adopter(number, _socket(boot.inbox), factory, reactor)
        # Not one of the rounds: it goes on while a stop lasts.
        self._heart = LoopingCall(counted[HEARTBEATS].add, 1)
        self._heart.clock = reactor
        self._ports = iter([_socket(one) for one in boot.ports])
        self._is_first = number == 0
        self._listens = listens
        super().__init__(settings, worker, factory, reactor, boot.tls_files)

    def _listener(self, port: str, factory: IProtocolFactory) -> AdoptedListener:
        return AdoptedListener(self._reactor, next(self._ports), factory)

    def startService(self) -> None:
        """Join the store, open the ports, take what the others hand over."""
        super().startService()
        self._heart.start(HEARTBEAT_INTERVAL_S)
        self._adopter.start()

    def stopService(self) -> Deferred[Any]:
        """Take nothing more, park every session, drain the store."""
        if self.running:
            self._adopter.stop()
        return super().stopService()

    def _started(self) -> None:
        if self.running:
            self._listens()

    def _log_recovery(self, recovery: Recovery) -> None:
        """The supervisor has said it."""

    def _log_stopped(self) -> None:
        """The supervisor says it, once all have stopped."""

    def _expire(self) -> None:
        """Leave it to one process: what is too old is nobody's any more."""
        if self._is_first:
            super()._expire()


def _count_over_all(factory: CameraFactory, others: OtherProcesses, connections: Tally, is_limited: bool) -> None:
    """Hold all processes together to ``max-connections``; without it each to the descriptors that it has.

    A relayed connection takes two of these here, and is counted where its device is.
    """
    connections.set(0)
    crowd = factory.door.crowd
    crowd.tell = connections.set
    crowd.elsewhere = (lambda: connections.elsewhere) if is_limited else (lambda: len(others.relays))


def _socket(descriptor: int) -> socket.socket:
    return socket.socket(fileno=descriptor)
