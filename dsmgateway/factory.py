"""What all connections share: the registry of devices, the door, the sweep over time limits, the stop.

It is asked for a protocol when a device's real address is known, whatever stands between. It decides nothing: who comes
in is the door's, what a connection does is `dsmgateway.protocol`'s.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import txaio
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory, Protocol

from dsmgateway.addresses import shown_address, source_of
from dsmgateway.door import Door, RefusedProtocol
from dsmgateway.events import Event, log_event
from dsmgateway.flapping import Holder
from dsmgateway.limits import session_options, time_limits
from dsmgateway.low_water import LOOK_AFTER_S
from dsmgateway.protocol import CameraProtocol
from dsmgateway.quiet import Quiet
from dsmgateway.registry import Registry
from dsmgateway.setbacks import Setbacks
from dsmgateway.states import State

if TYPE_CHECKING:
    from dsmgateway.interfaces import IFileWorker, IOtherProcesses
    from dsmgateway.settings import Settings

txaio.use_twisted()

#: Connections that a sweep checks at once, which takes some milliseconds, and the pause before it checks more.
SWEEP_AT_ONCE = 250
SWEEP_PAUSE_S = 0.01
#: In how many such pieces it is through with all of them at the latest, however many there are: well within a second.
SWEEP_PIECES = 50
#: Seconds between two sweeps, which are due each second, by which the gateway itself is known to have stood still.
STALL_S = 5.0


class CameraFactory(Factory):
    """What all connections share."""

    noisy = False
    log = txaio.make_logger()

    def __init__(
        self,
        settings: Settings,
        worker: IFileWorker,
        clock: IReactorTime,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """``clock`` measures time limits, ``now`` gives seconds since 1970; ``sleep`` lets threads run."""
        self.now, self.sleep = now, sleep
        self.settings = settings
        self.worker = worker
        self.clock = clock
        self.connections: set[CameraProtocol] = set()
        self._unswept: list[CameraProtocol] = []
        self._swept_s = math.inf
        #: Told of a stall, and of the time after it: whoever else has connections that wait.
        self.excuses: list[Callable[[float, float], object]] = []
        self.registry: Registry[CameraProtocol] = Registry()
        self.setbacks = Setbacks()
        self._quiet = Quiet(clock.seconds())
        self.under_way: set[Deferred[Any]] = set()
        #: Set where the gateway is several processes.
        self.others: IOtherProcesses | None = None
        self.session_options, self.time_limits = session_options(settings), time_limits(settings)
        #: Seconds of silence after which what the system holds back of a connection is fetched, well before its time.
        self.look_after_s = min(LOOK_AFTER_S, settings.data_timeout / 2, settings.min_rate_time / 2)
        self.door = Door(settings, clock.seconds, now)

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """Take a connection, or refuse it; ``addr`` is where it really comes from."""
        source = source_of(addr)
        return CameraProtocol(self, shown_address(addr), source) if self.door.lets_in(source) else RefusedProtocol()

    def adopted(self, peer: str, source: str) -> CameraProtocol | None:
        """Take a connection that another process has let in, or refuse it: None."""
        return CameraProtocol(self, peer, source) if self.door.adopts(source) else None

    def sweep(self) -> None:
        """Check the time limits of all connections, paused ones too; to be called once a second.

        Of many connections it checks some at a time, so that the others need not wait for all of it. No time counts
        in which the gateway itself has stood still, as where its machine was moved: all would be thrown out.
        """
        if self._unswept:
            self._excuse_stall(self.clock.seconds())
        else:
            self._unswept = list(self.connections)
            self._sweep_on(max(SWEEP_AT_ONCE, -(-len(self._unswept) // SWEEP_PIECES)))

    def _sweep_on(self, count: int) -> None:
        now = self.clock.seconds()
        self._excuse_stall(now)
        piece, self._unswept = self._unswept[:count], self._unswept[count:]
        if self._unswept:
            self.clock.callLater(SWEEP_PAUSE_S, self._sweep_on, count)
        for connection in piece:
            if connection in self.connections:
                connection.check_time(now)

    def _excuse_stall(self, now: float) -> None:
        stall_s, self._swept_s = now - self._swept_s, now
        if stall_s >= STALL_S:
            log_event(self.log, Event.GATEWAY_STALLED, after=round(stall_s, 1))
            for connection in self.connections:
                connection.timing.excuse(stall_s, now)
            for excuse in self.excuses:
                excuse(stall_s, now)

    def no_room(self, reason: str) -> None:
        """Have it logged that a file was not taken for lack of room; each camera would say so at each attempt."""
        suppressed = self._quiet.ask(self.clock.seconds(), "no room")
        if suppressed is not None:
            log_event(self.log, Event.STORE_FULL, reason=reason, suppressed=suppressed)

    def welcome(self, connection: CameraProtocol) -> None:
        """Count a connection that is there."""
        self.connections.add(connection)
        self.door.crowd.entered(connection.source)

    def is_of_others(self, imei: str) -> bool:
        """Whether this device belongs to another process."""
        return self.others is not None and self.others.own(imei)

    def hand_over(self, imei: str, connection: CameraProtocol, said: bytes) -> None:
        """Give a connection, on which nothing was answered yet, to the process that this device belongs to."""
        assert self.others is not None
        self.connections.discard(connection)
        source = connection.source
        self.others.hand_over(
            imei, connection.transport, connection.peer, source, said, lambda: self.door.crowd.left(source)
        )

    def refusal(self, imei: str, connection: CameraProtocol) -> str:
        """Return why this device may not begin on this connection, empty when it may."""
        older = self.registry.owner(imei)
        holder = Holder(older.source, older.timing.heard) if older and older is not connection else None
        return self.door.refusal(imei, connection.source, holder)

    def forget(self, connection: CameraProtocol) -> None:
        """Drop a connection that is gone."""
        self.connections.discard(connection)
        self.door.crowd.left(connection.source)
        session = connection.session
        if session.imei is not None:
            self.registry.release(session.imei, connection)
            self.setbacks.note(session.imei, session.stuck_on)

    def stop(self) -> Deferred[Any]:
        """End every session; fires when the store has parked or finished all that was under way.

        A device whose file is being stored is still told so: it would send all of it again.
        """
        self._end_sessions(lambda state: state is not State.STORING)
        stored = DeferredList(list(self.under_way))
        stored.addCallback(lambda _: self._end_sessions(lambda state: True))
        stored.addCallback(lambda _: DeferredList(list(self.under_way)))
        return stored if self.others is None else DeferredList([stored, self.others.stop()])

    def _end_sessions(self, concerns: Callable[[State], bool]) -> None:
        for connection in list(self.connections):
            if concerns(connection.session.state):
                connection.stop()
