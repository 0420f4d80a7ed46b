"""The gateway as one Twisted service: store worker, camera factory, listening ports, lookout, sweep over time limits.

What a connection goes through is put together here: the PROXY header of a balancer, TLS, the camera's protocol.

Start: the ports are bound, the store recovers (blocking; nobody is accepted before), the ports open. Stop: the ports
close, every session is parked, the store drains. Knows nothing of twistd and imports no reactor, so that it can be put
into any Twisted program; see docs/embedding.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import txaio
from twisted.application import service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocolFactory
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from dsmgateway import __version__
from dsmgateway.descriptors import descriptor_limit, most_connections
from dsmgateway.errors import ConfigError, StoreError
from dsmgateway.events import Event, log_bug, log_event
from dsmgateway.factory import CameraFactory
from dsmgateway.interfaces import IFileWorker
from dsmgateway.lanes import Pace
from dsmgateway.listeners import EndpointListener, PortListener, listener, spelt_tls
from dsmgateway.lookout import Lookout
from dsmgateway.proxy import ProxyFactory
from dsmgateway.settings import Settings
from dsmgateway.store import Expired, FileStore, Recovery, Share
from dsmgateway.tls import ServerTLS, TLSFactory
from dsmgateway.worker import StoreWorker

txaio.use_twisted()

#: Seconds between two looks at all time limits.
SWEEP_INTERVAL_S = 1.0
#: Seconds between two looks at what operators have decided.
LOOK_INTERVAL_S = 1.0
#: Seconds between two looks for unfinished files that are too old.
EXPIRE_INTERVAL_S = 3600.0


@contextmanager
def set_in(setting: str) -> Iterator[None]:
    """Have a `ConfigError` name the setting that it comes from."""
    try:
        yield
    except ConfigError as error:
        error.setting = error.setting or setting
        raise


class GatewayService(service.MultiService):
    """One gateway; its children are its listening ports."""

    log = txaio.make_logger()

    def __init__(
        self,
        settings: Settings,
        worker: IFileWorker,
        factory: CameraFactory,
        reactor: Any,
        tls_files: Mapping[Path, bytes] | None = None,
    ) -> None:
        """ConfigError when a port is described wrongly or a certificate cannot be used.

        ``tls_files`` is what is in the files of TLS, where somebody else has read them.
        """
        super().__init__()
        self._settings, self._worker, self._factory, self._reactor = settings, worker, factory, reactor
        #: What `reload` calls, in order; each may raise ConfigError, and then what it had stays in use.
        self.reloads: list[Callable[[], object]] = []
        self._tls = ServerTLS(settings, tls_files) if settings.has_tls else None
        if self._tls is not None:
            self.reloads.append(self._tls.reload)
        self._proxied: list[ProxyFactory] = []
        self._listeners = list(self._make_listeners())
        for _, one in self._listeners:
            one.setServiceParent(self)
        self._lookout = Lookout(settings, factory.door.admission, reactor.callFromThread)
        self.reloads.append(self._lookout.read_again)
        self._rounds = [
            (LoopingCall(self._sweep), SWEEP_INTERVAL_S),
            (LoopingCall(self._lookout.look), LOOK_INTERVAL_S),
            (LoopingCall(self._expire), EXPIRE_INTERVAL_S),
            (LoopingCall(self._probe), settings.probe_interval),
        ]
        for loop, _ in self._rounds:
            loop.clock = reactor

    def _make_listeners(self) -> Iterator[tuple[str, PortListener | EndpointListener]]:
        """Each port's listener, and the setting that it comes from."""
        plain = self._behind_balancers(self._factory)
        secure = None
        if self._tls is not None:
            secure = self._behind_balancers(TLSFactory(self._tls, self._factory, self._reactor))
        by_prefix = {"tls": secure, "ssl": self._factory}
        for setting, port in ports_of(self._settings):
            factory = secure if setting == "tls-port" else by_prefix.get(port.partition(":")[0], plain)
            assert factory is not None
            with set_in(setting):
                yield setting, self._listener(port, factory)

    def _listener(self, port: str, factory: IProtocolFactory) -> PortListener | EndpointListener:
        return listener(self._reactor, port, self._settings.backlog, factory)

    def _behind_balancers(self, factory: IProtocolFactory) -> IProtocolFactory:
        if not self._settings.proxy_protocol:
            return factory
        limit_s = self._settings.init_timeout
        proxied = ProxyFactory(factory, self._factory.door, self._settings.proxy_protocol, limit_s, self._reactor)
        self._proxied.append(proxied)
        self._factory.excuses.append(proxied.excuse)
        return proxied

    def _sweep(self) -> None:
        """Look at the time limits of all connections."""
        self._factory.sweep()
        for one in self._proxied:
            one.sweep()

    def reload(self) -> None:
        """Read anew what can be: certificates, keys, client authorities, the list of known devices.

        What cannot be used is logged, not used, and does not keep the rest from being read.
        """
        for call in self.reloads:
            maybeDeferred(call).addErrback(self._reload_failed).addErrback(self._bug)

    def _reload_failed(self, failure: Failure) -> None:
        failure.trap(ConfigError)
        log_event(self.log, Event.RELOAD_FAILED, reason=failure.getErrorMessage())

    @property
    def addresses(self) -> list[IAddress]:
        """Where cameras can connect; empty while the gateway does not run."""
        return [one.address for _, one in self._listeners if one.address is not None]

    def bind(self) -> None:
        """Take the ports ahead of the start, where that can be done; ConfigError when one cannot be had."""
        for setting, one in self._listeners:
            with set_in(setting):
                one.bind()

    def privilegedStartService(self) -> None:
        """Open the ports (nobody is accepted yet); ConfigError when one cannot be had, and then none is."""
        try:
            super().privilegedStartService()
        except ConfigError:
            super().stopService()
            raise

    def startService(self) -> None:
        """Open the ports, recover the store; ConfigError or StoreError when that cannot be done."""
        self.privilegedStartService()
        try:
            self._lookout.start()
            recovery = self._worker.start()
        except (ConfigError, StoreError):
            self._lookout.stop()
            super().stopService()
            raise
        self._factory.door.bound(most_connections(descriptor_limit(), self._settings.trace is not None))
        self._log_recovery(recovery)
        super().startService()
        for loop, interval_s in self._rounds:
            self._start_round(loop, interval_s)
        # Nobody is accepted before the reactor runs.
        self._reactor.callWhenRunning(self._started)

    def _started(self) -> None:
        if self.running:
            log_started(self._settings, self._tls)

    def _log_recovery(self, recovery: Recovery) -> None:
        log_recovery(self._settings, recovery)

    def stopService(self) -> Deferred[Any]:
        """Close the ports, park every session, drain the store; fires after `Settings.stop_timeout` at the latest."""
        if not self.running:
            return succeed(None)
        for loop, _ in self._rounds:
            if loop.running:
                loop.stop()
        self._lookout.stop()
        stopped: Deferred[Any] = Deferred()
        late = self._reactor.callLater(self._settings.stop_timeout, self._stop_late, stopped)
        work = maybeDeferred(super().stopService)
        work.addCallback(lambda _: self._end_connections())
        work.addErrback(self._bug)
        work.addCallback(lambda _: self._worker.stop())
        work.addErrback(self._bug)
        work.addCallback(lambda _: self._stopped(stopped, late))
        return stopped

    def _end_connections(self) -> Deferred[Any]:
        for one in self._proxied:
            one.stop()
        return self._factory.stop()

    def _stopped(self, stopped: Deferred[Any], late: IDelayedCall) -> None:
        self._log_stopped()
        if late.active():
            late.cancel()
            stopped.callback(None)

    def _log_stopped(self) -> None:
        log_event(self.log, Event.GATEWAY_STOPPED)

    def _stop_late(self, stopped: Deferred[Any]) -> None:
        """Wait for the disk no longer: what is not parked goes on from its last checkpoint."""
        log_event(self.log, Event.GATEWAY_STOP_LATE, after=self._settings.stop_timeout)
        stopped.callback(None)

    def _start_round(self, loop: LoopingCall, interval_s: float) -> None:
        loop.start(interval_s, now=False).addErrback(self._round_failed, loop, interval_s)

    def _round_failed(self, failure: Failure, loop: LoopingCall, interval_s: float) -> None:
        """Go on: without the sweep no time limit holds, and without expiry the spool only grows."""
        self._bug(failure)
        self._start_round(loop, interval_s)

    def _expire(self) -> None:
        """Have the store delete what is too old; not waited for, since a hung disk shall not end the rounds."""
        self._worker.expire().addCallbacks(log_expired, self._expire_failed).addErrback(self._bug)

    def _expire_failed(self, failure: Failure) -> None:
        failure.trap(StoreError)
        log_event(self.log, Event.STORE_FAILED, reason=failure.getErrorMessage())

    def _probe(self) -> None:
        """Have the store try a disk that failed; it says itself what comes of it."""
        self._worker.probe().addErrback(self._bug)

    def _bug(self, failure: Failure) -> None:
        log_bug(self.log, failure)


def ports_of(settings: Settings) -> list[tuple[str, str]]:
    """Return the setting and the spelling of each port."""
    plain = [("port", port) for port in settings.ports]
    return [*plain, *(("tls-port", spelt_tls(port)) for port in settings.tls_ports)]


def log_started(settings: Settings, tls: ServerTLS | None) -> None:
    """Say that cameras can come, and which certificate they are shown."""
    if tls is not None:
        tls.log_certificate()
    ports = tuple(port for _, port in ports_of(settings))
    log_event(GatewayService.log, Event.GATEWAY_STARTED, version=__version__, ports=ports)


def log_recovery(settings: Settings, recovery: Recovery) -> None:
    """Say what was found in the data folder."""
    log_expired(recovery.expired)
    for path in recovery.set_aside:
        log_event(GatewayService.log, Event.PART_REFUSED, path=path)
    found = dataclasses.asdict(recovery)
    counts = {name: len(value) if isinstance(value, tuple) else value for name, value in found.items()}
    log_event(GatewayService.log, Event.STORE_RECOVERED, data=str(settings.data), **counts)


def log_expired(expired: Iterable[Expired]) -> None:
    """Say which unfinished files were deleted for their age."""
    for part in expired:
        log_event(GatewayService.log, Event.PART_EXPIRED, **dataclasses.asdict(part))


def file_store(settings: Settings, share: Share | None = None) -> FileStore:
    """The file store with these settings; ``share`` where several processes use the data folder."""
    return FileStore(settings.data, min_free_bytes=settings.min_free, max_parts=settings.max_unfinished, share=share)


def store_worker(settings: Settings, reactor: Any, share: Share | None = None) -> StoreWorker:
    """The same in threads."""
    return StoreWorker(
        file_store(settings, share),
        call_in_reactor=reactor.callFromThread,
        threads=settings.store_threads,
        part_max_age_s=settings.part_max_age,
        pace=Pace(checkpoint_bytes=settings.checkpoint_bytes, checkpoint_interval_s=settings.checkpoint_interval),
    )


def gateway_service(settings: Settings, reactor: Any) -> GatewayService:
    """A gateway in one process, with these settings; ConfigError when a port or certificate is wrong.

    Nothing is opened yet. To be several processes takes a process of the gateway's own, see `dsmgateway.tap`.
    """
    if settings.workers > 1:
        raise ConfigError("a gateway within another program is one process", "workers")
    worker = store_worker(settings, reactor)
    return GatewayService(settings, worker, CameraFactory(settings, worker, reactor), reactor)
