"""The gateway as one Twisted service: store worker, camera factory, listening ports, the sweep over time limits.

Start: the ports are bound, the store recovers (blocking; nobody is accepted before), the ports open. Stop: the ports
close, every session is parked, the store drains. Knows nothing of twistd and imports no reactor, so that it can be put
into any Twisted program; see docs/embedding.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import txaio
from twisted.application import service
from twisted.internet.defer import Deferred, TimeoutError, maybeDeferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from dsmgateway import __version__
from dsmgateway.config import Settings
from dsmgateway.errors import StoreError
from dsmgateway.events import Event, log_event
from dsmgateway.listeners import EndpointListener, PortListener, listener
from dsmgateway.protocol import CameraFactory
from dsmgateway.store import FileStore
from dsmgateway.worker import StoreWorker

txaio.use_twisted()

#: Seconds between two looks at all time limits.
SWEEP_INTERVAL_S = 1.0


class GatewayService(service.MultiService):
    """One gateway; its children are its listening ports."""

    log = txaio.make_logger()

    def __init__(self, settings: Settings, worker: StoreWorker, factory: CameraFactory, reactor: Any) -> None:
        super().__init__()
        self._settings, self._worker, self._factory, self._reactor = settings, worker, factory, reactor
        self._listeners = [listener(reactor, port, settings.backlog, factory) for port in settings.ports]
        for one in self._listeners:
            one.setServiceParent(self)
        self._sweep = LoopingCall(factory.sweep)
        self._sweep.clock = reactor

    @property
    def addresses(self) -> list[IAddress]:
        """Where cameras can connect; empty while the gateway does not run."""
        return [one.address for one in self._listeners if one.address is not None]

    def bind(self) -> None:
        """Take the ports ahead of the start, where that can be done; ConfigError when one cannot be had."""
        for one in self._listeners:
            one.bind()

    def startService(self) -> None:
        """Recover the store, then listen; StoreError or ConfigError when that cannot be done."""
        try:
            recovery = self._worker.start()
            self._log_recovery(recovery)
        except StoreError:
            super().stopService()
            raise
        super().startService()
        self._start_sweep()
        log_event(
            self.log,
            Event.GATEWAY_STARTED,
            version=__version__,
            ports=self._settings.ports,
            data=str(self._settings.data),
        )
