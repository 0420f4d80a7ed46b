"""The gateway as several processes, from the side of the one that twistd has started.

It binds the ports, recovers the store, starts the worker processes and keeps alive what must outlive each of them: the
listening sockets, the inboxes, the lock of the data folder, the numbers they count together, and the log. It speaks to
no camera. A worker process that ends is started again, and so is one that hangs.

Start: the ports are bound, the store recovers, all processes start and say that they listen; where one does not, none
stays. Until then it blocks, as the gateway does that is one process. Stop: all processes stop at the same time.
"""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import txaio
from twisted.application import service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel

from dsmgateway.addresses import shown_address
from dsmgateway.errors import ConfigError, StoreError
from dsmgateway.events import Event, log_bug, log_event
from dsmgateway.logs import LINE
from dsmgateway.service import GatewayService, file_store, log_recovery, log_started, ports_of, set_in
from dsmgateway.settings import Settings
from dsmgateway.store.tally import Tally
from dsmgateway.tls import ServerTLS
from dsmgateway.workers.backoff import Backoff
from dsmgateway.workers.boot import (
    COUNTED_WHILE_ALIVE,
    HEARTBEATS,
    PARTS,
    RELOAD,
    STOP,
    Boot,
    counts_in,
    memory_of_counts,
)
from dsmgateway.workers.inbox import inbox_pair
from dsmgateway.workers.ports import SharedPort, bind_shared, shared_port
from dsmgateway.workers.process import GOOD_END, Hearing, WorkerProcess

txaio.use_twisted()

#: Seconds beyond ``stop-timeout`` after which a process that has not ended is killed.
_KILL_AFTER_S = 2.0
#: Looks for a heartbeat in ``worker-timeout``: counted, so that a supervisor that stood still itself kills nobody.
_LOOKS = 4


class _Place:
    """The place of one worker process, whichever fills it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: WorkerProcess | None = None
        self.backoff = Backoff()
        self.began_s = 0.0
        self.listens = False
        self.why_ended = ""
        self.restart: IDelayedCall | None = None
        #: What it counts; how many heartbeats there were at the last look, and looks since its last sign of life.
        self.counts: list[Tally] = []
        self.beats = self.silent = 0


class SupervisorService(service.Service):
    """The gateway as ``settings.workers`` processes."""

    log = txaio.make_logger()
    #: For what is in the log already: lines of the worker processes.
    _lines = Logger()

    def __init__(self, settings: Settings, reactor: Any) -> None:
        """ConfigError when a port cannot be shared or a certificate cannot be used. Nothing is opened yet."""
        self._settings, self._reactor = settings, reactor
        self._ports: list[tuple[str, SharedPort]] = []
        for setting, port in ports_of(settings):
            with set_in(setting):
                self._ports.append((setting, shared_port(port, settings.backlog)))
        # What is wrong with the files is said before the start; and a process that is started later gets what is used.
        self._tls = ServerTLS(settings) if settings.has_tls else None
        self._sockets: list[list[socket.socket]] = []
        self._inboxes: list[tuple[socket.socket, socket.socket]] = []
        self._store = file_store(settings)
        self._lock = self._memory = -1
        self._places = [_Place(number) for number in range(settings.workers)]
        self._all_listen = False
        self._stopped: Deferred[None] | None = None
        self._kill: IDelayedCall | None = None
        self._looks = LoopingCall(self._check_heartbeats)
        self._looks.clock = reactor
        self._watch: Callable[[Any], object] = reactor.addReader
        self._unwatch: Callable[[Any], object] = reactor.removeReader

    @property
    def addresses(self) -> list[IAddress]:
        """Where cameras can connect; empty while the gateway does not run."""
        return [_address_of(one[0]) for one in self._sockets]

    def bind(self) -> None:
        """Take the ports ahead of the start; ConfigError when one cannot be had."""
        if self._sockets:
            return
        for setting, port in self._ports:
            try:
                with set_in(setting):
                    self._sockets.append(bind_shared(port, len(self._places)))
            except ConfigError:
                self._close_ports()
                raise
            address = shown_address(_address_of(self._sockets[-1][0]))
            log_event(self.log, Event.PORT_LISTENING, endpoint=port.written, address=address)

    def privilegedStartService(self) -> None:
        """Take the ports, unless `bind` did."""
        self.bind()

    def startService(self) -> None:
        """Recover the store and start all processes; ConfigError or StoreError when that cannot be done."""
        super().startService()
        try:
            self.bind()
            recovery = self._store.start(self._settings.part_max_age)
            self._lock = self._store.lend()
            log_recovery(self._settings, recovery)
            self._share(recovery.parts)
            self._start_all()
        except (ConfigError, StoreError):
            self._close()
            self.running = False
            raise
        looking = self._looks.start(self._settings.worker_timeout / _LOOKS, now=False)
        looking.addErrback(partial(log_bug, self.log))
        self._reactor.callWhenRunning(self._started)

    def reload(self) -> None:
        """Have all processes read anew what can be; they say what came of it."""
        if self._tls is not None:
            with suppress(ConfigError):
                self._tls.read_again()
        for place in self._places:
            if place.process is not None:
                place.process.tell(RELOAD)

    def stopService(self) -> Deferred[Any]:
        """Stop all processes in good order; fires when they have ended."""
        if not self.running:
            return succeed(None)
        super().stopService()
        self._stopped = Deferred()
        if self._looks.running:
            self._looks.stop()
        self._close_ports()
        for place in self._places:
            if place.restart is not None and place.restart.active():
                place.restart.cancel()
            if place.process is not None:
                place.process.tell(STOP)
        self._kill = self._reactor.callLater(self._settings.stop_timeout + _KILL_AFTER_S, self._kill_all)
        stopped = self._stopped
        self._look_whether_stopped()
        return stopped

    # -- what is shared

    def _share(self, parts: int) -> None:
        """Make what the processes share; count the parts that are there for them all."""
        try:
            self._memory = memory_of_counts(len(self._places))
            self._inboxes = [inbox_pair() for _ in self._places]
        except OSError as error:
            raise StoreError(f"memory and sockets for worker processes: {error.strerror}") from error
        counts_in(self._memory, len(self._places), own=len(self._places))[PARTS].set(parts)
        for place in self._places:
            place.counts = counts_in(self._memory, len(self._places), own=place.number)

    def _boot(self, number: int, log: int) -> Boot:
        return Boot(
            number=number,
            settings=self._settings,
            lock=self._lock,
            memory=self._memory,
            inbox=self._inboxes[number][0].fileno(),
            outboxes=tuple(writing.fileno() for _, writing in self._inboxes),
            ports=tuple(one[number].fileno() for one in self._sockets),
            log=log,
            tls_files=None if self._tls is None else self._tls.files,
        )

    def _close_ports(self) -> None:
        for sockets in self._sockets:
            for one in sockets:
                one.close()
        self._sockets = []

    def _close(self) -> None:
        """Let go of everything, the data folder last."""
        self._close_ports()
        for ends in self._inboxes:
            for end in ends:
                end.close()
        self._inboxes = []
        if self._memory >= 0:
            os.close(self._memory)
        self._memory = -1
        self._store.stop()

    # -- the processes

    def _start_all(self) -> None:
        """Start all processes and wait until each of them listens, before the reactor runs."""
        with selectors.DefaultSelector() as selector:
            self._watch = lambda reader: selector.register(reader, selectors.EVENT_READ)
            self._unwatch = lambda reader: selector.unregister(reader) if reader in selector.get_map() else None
            failed = ""
            try:
                for place in self._places:
                    self._start(place)
                while not failed and not all(place.listens for place in self._places):
                    failed = self._wait(selector)
            except OSError as error:
                failed = str(error.strerror)
            if failed:
                self._end_all(selector)
                raise StoreError(f"a worker process cannot start: {failed}")
            waiting = [key.fileobj for key in list(selector.get_map().values())]
            self._watch, self._unwatch = self._reactor.addReader, self._reactor.removeReader
        for reader in waiting:
            self._watch(reader)
        self._all_listen = True

    def _wait(self, selector: selectors.BaseSelector) -> str:
        """Hear what the processes say; return why one of them has ended, empty as long as none has."""
        for key, _ in selector.select():
            reader: Any = key.fileobj
            if reader in selector.get_map() and reader.doRead() is not None:
                self._unwatch(reader)
        return next((place.why_ended for place in self._places if place.why_ended), "")

    def _end_all(self, selector: selectors.BaseSelector) -> None:
        """After a start that failed: end those that did start."""
        for place in self._places:
            if place.process is not None:
                place.process.kill()
        while any(place.process is not None for place in self._places):
            self._wait(selector)

    def _start(self, place: _Place) -> None:
        """Fill a place; raises `OSError`."""
        number = place.number
        hearing = Hearing(
            logged=self._logged,
            printed=partial(self._printed, number),
            ready=partial(self._ready, place),
            ended=partial(self._ended, place),
        )
        place.restart, place.listens, place.silent, place.began_s = None, False, 0, self._reactor.seconds()
        place.process = WorkerProcess(partial(self._boot, number), number, hearing)
        for reader in place.process.readers:
            self._watch(reader)

    def _ready(self, place: _Place) -> None:
        place.listens, place.silent = True, 0
        if place.process is not None:
            log_event(self.log, Event.WORKER_STARTED, worker=place.number, pid=place.process.pid)

    def _ended(self, place: _Place) -> None:
        assert place.process is not None
        for reader in place.process.readers:
            self._unwatch(reader)
        process, place.process = place.process, None
        for number in COUNTED_WHILE_ALIVE:
            place.counts[number].set(0)
        reason = process.finish()
        if self._stopped is not None:
            if reason != GOOD_END:
                log_event(self.log, Event.WORKER_ENDED, worker=place.number, reason=reason)
            self._look_whether_stopped()
        elif not self._all_listen:
            place.why_ended = reason
        else:
            self._start_later(place, reason)

    def _start_later(self, place: _Place, reason: str) -> None:
        ran_s = self._reactor.seconds() - place.began_s
        pause_s = place.backoff.pause_s(ran_s)
        log_event(
            self.log, Event.WORKER_ENDED, worker=place.number, reason=reason, after=round(ran_s, 1), pause=pause_s
        )
        place.restart = self._reactor.callLater(pause_s, self._start_again, place)

    def _start_again(self, place: _Place) -> None:
        try:
            self._start(place)
        except OSError as error:
            self._start_later(place, f"it cannot be started: {error.strerror}")

    def _check_heartbeats(self) -> None:
        """End whoever had none for so long, the second time without asking where it stands.

        One that does not listen yet has none, and may rightly wait, as for a slow disk: it is told of each time.
        """
        for place in self._places:
            if place.process is None:
                continue
            before, place.beats = place.beats, place.counts[HEARTBEATS].count
            place.silent = place.silent + 1 if place.beats == before else 0
            pid = place.process.pid
            if not place.listens:
                if place.silent and place.silent % _LOOKS == 0:
                    after = round(self._reactor.seconds() - place.began_s, 1)
                    log_event(self.log, Event.WORKER_STARTS_LATE, worker=place.number, pid=pid, after=after)
            elif place.silent == _LOOKS:
                after = self._settings.worker_timeout
                log_event(self.log, Event.WORKER_HANGS, worker=place.number, pid=pid, after=after)
                place.process.abort()
            elif place.silent > _LOOKS:
                place.process.kill()

    def _started(self) -> None:
        if self.running:
            log_started(self._settings, self._tls)

    def _kill_all(self) -> None:
        """Wait no longer: what is not parked goes on from its last checkpoint."""
        log_event(GatewayService.log, Event.GATEWAY_STOP_LATE, after=self._settings.stop_timeout + _KILL_AFTER_S)
        for place in self._places:
            if place.process is not None:
                place.process.kill()

    def _look_whether_stopped(self) -> None:
        if self._stopped is None or any(place.process is not None for place in self._places):
            return
        if self._kill is not None and self._kill.active():
            self._kill.cancel()
        self._close()
        log_event(GatewayService.log, Event.GATEWAY_STOPPED)
        stopped, self._stopped = self._stopped, None
        stopped.callback(None)

    # -- the log

    def _logged(self, line: str) -> None:
        """Put an entry of a worker process into the log as it is: its level was looked at there."""
        self._lines.emit(LogLevel.info, "{line}", line=line.rstrip("\n"), **{LINE: line})

    def _printed(self, number: int, text: str) -> None:
        if text.strip():
            log_event(self.log, Event.WORKER_SAID, worker=number, text=text)


def _address_of(listening: socket.socket) -> IAddress:
    kind = IPv6Address if listening.family == socket.AF_INET6 else IPv4Address
    return kind("TCP", *listening.getsockname()[:2])
