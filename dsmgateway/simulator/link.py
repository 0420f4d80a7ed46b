"""A conversation on a socket: carries its actions out at the camera's pace, and never writes more than TCP takes.

Knows how a link ends, not what comes after it. The clock is handed in; no reactor is imported.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IDelayedCall, IPushProducer, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from dsmgateway.simulator.conversation import Conversation, Cut, End, Send, Stall

#: Seconds until a reset follows the last bytes, so that the kernel has sent them.
_RESET_AFTER_S = 0.05
#: Lateness in seconds that a paced link makes up for by sending faster; more is forgotten.
_CATCH_UP_S = 0.25


class Ending(enum.Enum):
    """Why a link is no longer used."""

    #: The conversation is over.
    FINISHED = "the gateway ended the session"
    #: It was lost by a fault of ours.
    CUT = "the link was cut"
    #: The gateway, or the network, closed it.
    DROPPED = "the gateway closed the connection"
    #: The gateway said nothing for too long.
    SILENT = "the gateway was silent for too long"


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast things go: file bytes a second (0: unlimited), patience, and the scale of an old socket's slowness."""

    rate_bytes_s: int = 0
    patience_s: float = 60.0
    slowness: float = 1.0


class ILinkTransport(ITCPTransport, IConsumer):
    """What a link needs of its transport: a TCP connection that says when its buffer is full."""


@implementer(IPushProducer)
class CameraLink(Protocol):
    """One connection; ``ended`` fires with its `Ending` when the device has done with it, ``closed`` when it is gone.

    After a silent cut it has ended, but the socket goes on delivering for a while.
    """

    transport: ILinkTransport

    def __init__(
        self, conversation: Conversation, clock: IReactorTime, pace: Pace, closed: Callable[[CameraLink], None]
    ) -> None:
        self.ended: Deferred[Ending] = Deferred()
        self._conversation = conversation
        self._clock = clock
        self._pace = pace
        self._closed = closed
        self._ending: Ending | None = None
        self._paused = False
        self._timer: IDelayedCall | None = None
        self._due_s = 0.0
        self._last_s = 0.0

    def connectionMade(self) -> None:
        """Say INIT."""
        self._last_s = self._clock.seconds()
        self.transport.registerProducer(self, True)
        self._pump()

    def dataReceived(self, data: bytes) -> None:
        """Take the gateway's bytes, unless the device is deaf to this link by now."""
        if self._ending is None:
            self._last_s = self._clock.seconds()
            self._conversation.receive(data)
            self._pump()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End, if that has not happened before."""
        self._cancel_timer()
        self._closed(self)
        self._end(Ending.DROPPED)

    def pauseProducing(self) -> None:
        """Stop: the socket's buffer is full."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Go on: there is room in the socket's buffer."""
        self._paused = False
        self._pump()

    def stopProducing(self) -> None:
        """Stop for good: the connection is going away."""
        self._paused = True

    def check_silence(self) -> None:
        """Leave the connection if neither side said anything for longer than the device's patience."""
        silent_s = self._clock.seconds() - self._last_s
        if self._ending is None and self._timer is None and silent_s > self._pace.patience_s:
            self.abort(Ending.SILENT)

    def abort(self, ending: Ending = Ending.CUT) -> None:
        """Close the connection at once, whatever is under way."""
        self._cancel_timer()
        self._end(ending)
        self.transport.abortConnection()

    def _pump(self) -> None:
        """Carry out actions as long as the conversation has some and the link is free."""
        while self._ending is None and not self._paused and self._timer is None:
            match self._conversation.pull():
                case None:
                    return
                case Send(data=data):
                    self._write(data)
                case Stall(seconds=seconds):
                    self._later(seconds, self._pump)
                case Cut() as cut:
                    self._cut(cut)
                case End():
                    self._end(Ending.FINISHED)
                    self._lose()

    def _write(self, data: bytes) -> None:
        self.transport.write(data)
        now = self._last_s = self._clock.seconds()
        if self._pace.rate_bytes_s:
            self._due_s = max(self._due_s, now - _CATCH_UP_S) + len(data) / self._pace.rate_bytes_s
            if self._due_s > now:
                self._later(self._due_s - now, self._pump)

    def _cut(self, cut: Cut) -> None:
        """Lose the link; with a tail only the device thinks so."""
        self.transport.write(cut.lead)
        self._end(Ending.CUT)
        if cut.tail:
            self._deliver(cut.tail)
        elif cut.resets:
            self._later(_RESET_AFTER_S, self.transport.abortConnection)
        else:
            self._lose()

    def _deliver(self, tail: tuple[bytes, ...]) -> None:
        """Go on delivering what an old socket had queued, a piece at a time, and then fall silent and close."""
        if tail:
            self._later(0.25 * self._pace.slowness, lambda: self._deliver_first(tail))
        else:
            self._later(5 * self._pace.slowness, self.transport.abortConnection)

    def _deliver_first(self, tail: tuple[bytes, ...]) -> None:
        self.transport.write(tail[0])
        self._deliver(tail[1:])

    def _lose(self) -> None:
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _end(self, ending: Ending) -> None:
        if self._ending is None:
            self._ending = ending
            self.ended.callback(ending)

    def _later(self, seconds: float, call: Callable[[], object]) -> None:
        def run() -> None:
            self._timer = None
            call()

        self._timer = self._clock.callLater(seconds, run)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
