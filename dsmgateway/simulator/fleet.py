"""Many simulated cameras on real connections: who connects when, again after a lost link, and when one gives up.

The clock and the endpoint are handed in; no reactor is imported.
"""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.abstract import isIPAddress
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, FirstError, gatherResults
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError, DNSLookupError
from twisted.internet.interfaces import IAddress, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall, deferLater

from dsmgateway.simulator.conversation import Conversation
from dsmgateway.simulator.device import Device, Tally
from dsmgateway.simulator.link import CameraLink, Ending, Pace
from dsmgateway.simulator.plan import Plan
from dsmgateway.simulator.report import FleetResult, result_of

#: Connections being opened at the same time: far below the 1024 a gateway's listening socket queues.
_MOST_CONNECTING = 256
#: A real device connects again after so many seconds.
_RECONNECT_S = (0.3, 4.0)
_CONNECT_TIMEOUT_S = 20


def endpoint_for(reactor: Any, host: str, port: int) -> IStreamClientEndpoint:
    """Return the endpoint of a gateway; an address needs no look-up of a name, which would cost a thread each time."""
    if isIPAddress(host):
        return TCP4ClientEndpoint(reactor, host, port, timeout=_CONNECT_TIMEOUT_S)
    return HostnameEndpoint(reactor, host, port, timeout=_CONNECT_TIMEOUT_S)


class Tracker:
    """One device on its way through as many connections as it takes."""

    def __init__(self, device: Device, fleet: Fleet) -> None:
        self.device = device
        self.connections = 0
        self.gave_up = ""
        self._fleet = fleet
        self._chance = random.Random(f"reconnect {fleet.plan.seed} {device.imei}")

    async def run(self, first_after_s: float) -> None:
        """Connect until every file is acknowledged, there was no progress too often, or time is up."""
        try:
            await deferLater(self._fleet.clock, first_after_s)
            await self._deliver()
        except CancelledError:
            self.gave_up = self._fleet.why_stopped

    async def _deliver(self) -> None:
        plan, device = self._fleet.plan, self.device
        failures = 0
        while True:
            before = device.progress
            failure = await self._connection()
            if not device.queue:
                return
            failures = failures + 1 if failure and device.progress <= before else 0
            if failures >= plan.attempts:
                self.gave_up = failure
                return
            await deferLater(self._fleet.clock, self._chance.uniform(*_RECONNECT_S) * plan.reconnect_delay)

    async def _connection(self) -> str:
        """Open one connection and use it to its end; return what was wrong with it, or nothing."""
        try:
            link = await self._fleet.connect(self.device)
        except ConnectingCancelledError:
            raise CancelledError from None
        except (ConnectError, DNSLookupError, OSError) as error:
            self._fleet.tally.failed_connections += 1
            return str(error).rstrip(".")
        self.connections += 1
        try:
            ending = await link.ended
        except CancelledError:
            link.abort()
            raise
        return "" if ending is Ending.CUT else ending.value


class _LinkFactory(Factory):
    """Makes the link of one connection."""

    noisy = False

    def __init__(self, device: Device, fleet: Fleet) -> None:
        self._device = device
        self._fleet = fleet

    def buildProtocol(self, addr: IAddress | None) -> CameraLink:
        return self._fleet.new_link(self._device)


class Fleet:
    """The cameras of a ``plan``, connecting to ``endpoint``; `run` once."""

    def __init__(self, plan: Plan, clock: IReactorTime, endpoint: IStreamClientEndpoint) -> None:
        self.plan = plan
        self.clock = clock
        self.tally = Tally()
        self.trackers = [Tracker(device, self) for device in plan.devices(self.tally)]
        self._endpoint = endpoint
        self._pace = Pace(plan.rate_bytes_s, plan.patience_s, plan.reconnect_delay)
        self._connecting = DeferredSemaphore(_MOST_CONNECTING)
        self._links: set[CameraLink] = set()
        self._runs: list[Deferred[None]] = []
        self._all_closed: Deferred[None] | None = None
        self._began_s = 0.0
        self.why_stopped = ""

    def run(self) -> Deferred[FleetResult]:
        """Deliver all files, or as many as possible; fires with the result when the last connection is closed."""
        self._began_s = self.clock.seconds()
        for tracker in self.trackers:
            tracker.device.seconds = self.seconds
        self._runs = [
            Deferred.fromCoroutine(tracker.run(index / self.plan.connects_per_s))
            for index, tracker in enumerate(self.trackers)
        ]
        return Deferred.fromCoroutine(self._run())

    async def _run(self) -> FleetResult:
        sweep = LoopingCall(self._sweep)
        sweep.clock = self.clock
        sweep.start(1.0, now=False)
        try:
            await gatherResults(self._runs, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()
        finally:
            sweep.stop()
            await self._close()
        return self.result()

    def seconds(self) -> float:
        """Return the seconds since the fleet began."""
        return self.clock.seconds() - self._began_s

    def stop(self, why: str = "the run was stopped") -> None:
        """Give up what is not finished."""
        self.why_stopped = why
        for run in self._runs:
            run.cancel()

    def result(self) -> FleetResult:
        """Return how things stand."""
        return result_of(self.tally, self.seconds(), self.trackers)

    async def connect(self, device: Device) -> CameraLink:
        """Open a connection, in which a new conversation of ``device`` has begun."""
        await self._connecting.acquire()
        try:
            link = await self._endpoint.connect(_LinkFactory(device, self))
        finally:
            self._connecting.release()
        assert isinstance(link, CameraLink)
        return link

    def new_link(self, device: Device) -> CameraLink:
        """Make the link that a connection being opened will be."""
        link = CameraLink(Conversation(device), self.clock, self._pace, self._closed)
        self._links.add(link)
        self.tally.connections += 1
        self.tally.connections_now += 1
        return link

    def _closed(self, link: CameraLink) -> None:
        self._links.discard(link)
        self.tally.connections_now -= 1
        if self._all_closed is not None and not self._links:
            self._all_closed.callback(None)

    def _sweep(self) -> None:
        if 0 < self.plan.timeout_s <= self.seconds():
            self.stop("time was up")
        for link in list(self._links):
            link.check_silence()

    def _close(self) -> Deferred[None]:
        """Close what is still open, such as old sockets of silent cuts."""
        self._all_closed = Deferred()
        if not self._links:
            self._all_closed.callback(None)
        for link in list(self._links):
            link.abort()
        return self._all_closed
