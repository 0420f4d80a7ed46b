"""Connections: bytes in, effects out, time limits, back-pressure.

`CameraProtocol` owns the transport, the decoder and the open upload of one connection and performs what its session
asks for. It is the only place where errors become replies: a `PeerError` ends the connection, a `StoreError` ends it
without an acknowledgement, anything else is a bug of ours that aborts this connection, keeps its file and is logged
with its traceback. Whom the door (`dsmgateway.door`) refuses is told CLOSE, before it takes over from anybody. What is
shared by all connections is `dsmgateway.factory`.

While the store is at work nothing is decoded, and the transport is paused as soon as something comes; while the store
lags behind, it is paused, too.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import txaio
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, ISSLTransport, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from dsmgateway.commands import Close, Init
from dsmgateway.effects import (
    Append,
    Claim,
    DropUntilSync,
    Effect,
    Effects,
    End,
    ExpectData,
    Finish,
    Note,
    Open,
    Park,
    Send,
)
from dsmgateway.errors import PeerError, StoreError
from dsmgateway.events import Event, log_bug, log_event
from dsmgateway.framing import FIRST_READ_BYTES, DeviceDecoder
from dsmgateway.low_water import LowWater
from dsmgateway.session import Session
from dsmgateway.states import EXPECTED, State
from dsmgateway.store import Differs, NoRoom, Offered, OtherFile, Stored, Upload, VolumeFailing
from dsmgateway.timing import Overdue, Timing
from dsmgateway.tls_peer import certificate_names, shown_names, why_lost
from dsmgateway.trace import Trace

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from dsmgateway.door import Door
    from dsmgateway.interfaces import IFileWorker
    from dsmgateway.reception import SessionOptions
    from dsmgateway.registry import Registry
    from dsmgateway.setbacks import Setbacks
    from dsmgateway.settings import Settings
    from dsmgateway.timing import TimeLimits

txaio.use_twisted()

#: Cost of what is handed to the store and not yet written at which the sender is paused: four reads of a socket.
UNWRITTEN_HIGH_BYTES = 256 * 1024
#: Cost at which it goes on.
UNWRITTEN_LOW_BYTES = UNWRITTEN_HIGH_BYTES // 2
#: What handing over a run costs besides its bytes: job, callback; else one-byte frames would cost nothing.
APPEND_COST_BYTES = 1024
#: Bytes handed over by all connections together at which every sender is paused: what a hung disk may cost in memory.
BACKLOG_HIGH_BYTES = 16 * 1024 * 1024
#: How long whoever is paused for that gives way to the store: Python's threads share one interpreter, and the reactor's
#: has it back sooner than one that waits for the disk in between. Thousands may have to be paused.
GIVE_WAY_S = 0.0005


class Shared(typing.Protocol):
    """What a connection needs of what it shares with the others; `dsmgateway.factory` is that."""

    settings: Settings
    worker: IFileWorker
    clock: IReactorTime
    now: Callable[[], float]
    sleep: Callable[[float], object]
    session_options: SessionOptions
    time_limits: TimeLimits
    door: Door
    registry: Registry[CameraProtocol]
    setbacks: Setbacks
    under_way: set[Deferred[Any]]
    look_after_s: float

    def welcome(self, connection: CameraProtocol) -> None:
        """Count a connection that is there."""

    def refusal(self, imei: str, connection: CameraProtocol) -> str:
        """Return why this device may not begin on this connection, empty when it may."""

    def is_of_others(self, imei: str) -> bool:
        """Say whether this device belongs to another process."""

    def hand_over(self, imei: str, connection: CameraProtocol, said: bytes) -> None:
        """Give the connection to that process."""

    def no_room(self, reason: str) -> None:
        """Have it logged that a file was not taken for lack of room."""

    def forget(self, connection: CameraProtocol) -> None:
        """Drop a connection that is gone."""


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class CameraProtocol(Protocol):
    """One connection of a device."""

    factory: Shared
    #: Provides ITCPTransport and IPushProducer.
    transport: Any
    log = txaio.make_logger()

    def __init__(self, factory: Shared, peer: str, source: str) -> None:
        """``source`` is whom the connection is counted for, see `dsmgateway.addresses.source_of`."""
        self.factory, self.peer, self.source = factory, peer, source
        self.timing = Timing(factory.time_limits, factory.clock.seconds())
        self.session = Session(factory.session_options)
        self._decoder = DeviceDecoder()
        self._low_water = LowWater()
        self._sends_at_once = False
        self._upload: Upload | None = None
        self._opening: Deferred[Upload] | None = None
        self._store_error: BaseException | None = None
        self._unwritten_bytes = 0
        self._received_bytes = 0
        self._paused = False
        self._half_closed = False
        self._handshakes = False
        self._reason = ""
        self._turned_away = False
        self._trace: Trace | None = None

    # -- what Twisted calls

    def connectionMade(self) -> None:
        """Begin to wait for INIT; with TLS its handshake comes first, in the same time."""
        self.factory.welcome(self)
        self._handshakes = ISSLTransport.providedBy(self.transport)
        self._sends_at_once = ITCPTransport.providedBy(self.transport) and not self._handshakes
        if self._sends_at_once:
            self.transport.bufferSize = FIRST_READ_BYTES
        settings = self.factory.settings
        if settings.trace is not None:
            self._trace = Trace(settings.trace, self.peer, self.factory.clock.seconds, self._trace_failed)
        elif self._sends_at_once:
            self._low_water = LowWater(self.transport, settings.receive_low_water)

    def handshakeCompleted(self) -> None:
        """TLS is there, and the device's certificate is good if one was asked for."""
        self._handshakes = False

    def dataReceived(self, data: bytes) -> None:
        """Take what the device sent; of any length, cut anywhere."""
        if self.session.state is State.ENDED:
            return
        self._received_bytes += len(data)
        self.timing.heard = self.factory.clock.seconds()
        if self._trace is not None:
            self._trace.write("device", data)
        self._decoder.feed(data)
        self._guard(self._advance)

    def readConnectionLost(self) -> None:
        """The device sends no more, but may still listen: what is on its way to it is sent first."""
        self._half_closed = True
        self._guard(self._end_if_half_closed)

    def writeConnectionLost(self) -> None:
        """Nothing more can be sent; what comes is still taken until the device closes its side too."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Keep what was received and forget the connection."""
        self._reason = self._reason or why_lost(self.transport, reason, self._handshakes)
        state = self.session.state
        self._low_water.release()
        self.factory.forget(self)
        self._perform(self.session.lost())
        self._cancel_open()
        if self._trace is not None:
            self._trace.close()
        if self._turned_away:
            return  # the door has said so, or shall not say it too often
        if self._handshakes:
            self._note(Event.TLS_FAILED, state, reason=self._reason)
            return
        self._note(
            Event.DISCONNECTED,
            state,
            reason=self._reason,
            received=self._received_bytes,
            files_stored=self.session.files_stored,
        )

    # -- what the factory calls

    def taken_over(self) -> None:
        """End: the device has a newer connection."""
        self._take_what_waits()
        self._guard(lambda: self._perform(self.session.taken_over()))

    def stop(self) -> None:
        """End: the gateway stops."""
        self._take_what_waits()
        self._guard(lambda: self._perform(self.session.stop()))

    def _take_what_waits(self) -> None:
        """Read what the system holds back of a file whose connection is about to be ended."""
        if self._low_water.holds_back and not self._paused:
            self.transport.doRead()  # should it tell of the connection's end, so will the reactor

    def check_time(self, now: float) -> None:
        """Tell the session when its state has lasted too long; called once a second for every connection."""
        self._guard(self._check_time, now)

    def _check_time(self, now: float) -> None:
        if self._low_water.holds_back and now - self.timing.heard >= self.factory.look_after_s:
            self._low_water.wake()
            return  # first what is there; time is looked at in the next round
        self._regulate()
        if self._paused or self.session.state in (State.OPENING, State.STORING):
            self.timing.heard = now  # it is we who do not listen, or have not answered
        lagging = self._paused and self.session.reads
        overdue = self.timing.overdue(now, self.session.state, self._paused, lagging)
        if overdue is Overdue.RATE:
            self._take_what_waits()
            overdue = self.timing.overdue(now, self.session.state, self._paused, lagging)
        state = self.session.state
        match overdue:
            case Overdue.STATE if state is State.ENDED:
                self.transport.abortConnection()
            case Overdue.STATE:
                self._perform(self.session.timed_out())
                self._advance()
            case Overdue.DISK:
                limit_s = self.timing.limit_s(state, lagging)
                self._perform(self.session.store_failed(f"file data was not written within {limit_s:g} s"))
            case Overdue.RATE:
                self._note(Event.SESSION_TOO_SLOW, state, rate=round(self.timing.rate))
                self._perform(self.session.stop("file data came too slowly"))
            case Overdue.AGE:
                self._note(Event.LIMIT_AGE, state, age_s=round(self.timing.age_s(now)))
                self._perform(self.session.stop("the connection is too old"))

    def _renew(self) -> None:
        """Let the time of the session's state begin anew."""
        self.timing.since = self.factory.clock.seconds()

    def _guard(self, step: Callable[..., None], *arguments: object) -> None:
        """Let an error of our own cost this connection only."""
        try:
            step(*arguments)
        except Exception:
            self._bug(Failure())

    # -- events to effects

    def _advance(self) -> None:
        """Give the session what is decoded, as long as it reads."""
        session, next_event = self.session, self._decoder.next_event
        try:
            while session.reads and (event := next_event()) is not None:
                self._perform(self._judge(event) if isinstance(event, Init) else session.receive(event))
        except PeerError as error:
            self._perform(self.session.broke_protocol(str(error)))
        self._regulate()
        self._low_water.wait_for(self._decoder.awaited_bytes)
        self._end_if_half_closed()

    def _judge(self, init: Init) -> Effects:
        """What comes of an INIT: it reaches the session when its device is who it says, and may come in."""
        turned_away = self._refuse_certificate(init.imei_digits)
        if turned_away:
            return turned_away
        if self._hands_over(init):
            return []
        turned_away = self._turn_away(init.imei_digits)
        if turned_away:
            return turned_away
        if self._sends_at_once and self.session.imei is None:
            del self.transport.bufferSize  # once, as INIT gives the session its IMEI; and so it is Twisted's again
        self.session.last_resort = self.factory.setbacks.of(init.imei_digits)
        return self.session.receive(init)

    def _refuse_certificate(self, imei: str) -> Effects:
        """End this connection, and nothing else, when its certificate is not for this IMEI."""
        asked = self.factory.settings.tls_match_imei and ISSLTransport.providedBy(self.transport)
        if not asked or self.session.imei is not None:
            return []
        names = certificate_names(self.transport)
        if imei in names:
            return []
        self._note(Event.TLS_OTHER_DEVICE, self.session.state, said=imei, names=shown_names(names))
        return [*self.session.lost(), End("its certificate is another device's", abort=True)]

    def _hands_over(self, init: Init) -> bool:
        """Give the connection away if its device belongs to another process: that one says all there is to say of it.

        Its certificate was looked at before: over there nobody knows it.
        """
        if self.session.imei is not None or not self.factory.is_of_others(init.imei_digits):
            return False
        self.session.lost()
        if self._trace is not None:
            self._trace.discard()
        self.factory.hand_over(init.imei_digits, self, init.encode() + self._decoder.buffered)
        return True

    def _turn_away(self, imei: str) -> Effects:
        """Say CLOSE to a device that may not come in now: nothing was said of a file, so it keeps all."""
        if self.session.state not in (State.AWAIT_INIT, State.AWAIT_NEXT_INIT):
            return []
        reason = self.factory.refusal(imei, self)
        if not reason:
            return []
        self._turned_away = self.session.imei is None
        return [Send(Close()), *self.session.stop(reason)]

    def _end_if_half_closed(self) -> None:
        """End once the store has answered and the device was told; from this device nothing more will come."""
        if self._half_closed and self.session.reads:
            self._reason = "the device closed its side"
            self._perform(self.session.lost())
            self.transport.loseConnection()

    def _regulate(self) -> None:
        """Pause a sender that goes on while the store is at work, or for which it lags behind; resume it after that.

        Most wait for the store's answer, and for them the reactor need not be told twice.
        """
        bound = UNWRITTEN_LOW_BYTES if self._paused else UNWRITTEN_HIGH_BYTES
        backlog = self._unwritten_bytes > 0 and self.factory.worker.backlog_bytes > BACKLOG_HIGH_BYTES
        ahead = not self.session.reads and self._decoder.buffered_bytes > 0
        pause = ahead or self._unwritten_bytes > bound or backlog
        if pause is self._paused or self.session.state is State.ENDED:
            return
        self._paused = pause
        self.timing.not_counted(self.factory.clock.seconds())
        if pause:
            self.transport.pauseProducing()
            if backlog:
                self.factory.sleep(GIVE_WAY_S)
        else:
            self._renew()  # it could not be heard until now
            self.transport.resumeProducing()

    def _perform(self, effects: Effects) -> None:
        for effect in effects:
            self._perform_one(effect)

    def _perform_one(self, effect: Effect) -> None:
        match effect:
            case Append(offset_bytes, data):
                self._append(offset_bytes, data)
            case Send(command, renews):
                self._send(command.encode(), renews)
            case DropUntilSync():
                self._decoder.drop_until_sync()
            case ExpectData(remaining_bytes, whole_packets):
                self._renew()
                self._decoder.expect_data(remaining_bytes, whole_packets)
            case Note(event, fields, state):
                self._note(event, state, **fields)
            case Claim(imei):
                self._claim(imei)
            case Open():
                self._open(effect)
            case Finish():
                self._finish(effect)
            case Park():
                self._park()
            case End(reason, abort):
                self._end(reason, abort)

    def _send(self, data: bytes, renews: bool) -> None:
        if renews:
            self._renew()
        if self._trace is not None:
            self._trace.write("gateway", data)
        if self._sends_at_once:
            sent = self.transport.writeSomeData(data)
            if sent == len(data):
                return  # by way of the reactor it would have cost another turn and two changes of what it waits for
            self._sends_at_once = False  # all that follows has to wait behind the rest
            data = data[sent:] if isinstance(sent, int) else data
        self.transport.write(data)

    def _claim(self, imei: str) -> None:
        older = self.factory.registry.claim(imei, self)
        if older is not None:
            older.taken_over()

    def _end(self, reason: str, abort: bool) -> None:
        self._reason = reason
        self._renew()
        self._cancel_open()
        if abort:
            self.transport.abortConnection()
        else:
            self.transport.loseConnection()

    def _note(self, event: Event, state: State, **fields: object) -> None:
        if self.session.imei is None and "suppressed" in event.fields:
            suppressed = self.factory.door.suppressed_of_nameless(event, self.source, str(fields.get("reason", "")))
            if suppressed is None:
                return
            fields["suppressed"] = suppressed or None
        if event.level == "warn":
            fields["expected"] = EXPECTED[state]
        log_event(self.log, event, imei=self.session.imei, peer=self.peer, state=state.value, **fields)

    def _trace_failed(self, reason: str) -> None:
        self._note(Event.TRACE_FAILED, self.session.state, reason=reason)

    # -- the store

    def _open(self, effect: Open) -> None:
        imei = self.session.imei or ""
        refusal = self.factory.door.file_refusal(imei, self.source, effect.size_bytes)
        if refusal:
            self._perform(self.session.stop(refusal))
            return
        self._renew()
        offered = Offered(
            imei,
            effect.device_path,
            effect.size_bytes,
            effect.start_crc,
            in_packets=effect.in_packets,
            qualifier=effect.qualifier,
        )
        self._opening = self.factory.worker.open(offered, self.peer, effect.compare)
        self._watch(self._opening, self._opened)

    def _cancel_open(self) -> None:
        """Spare the store what nobody waits for any more."""
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()

    def _opened(self, upload: Upload) -> None:
        self._upload, self._opening = upload, None
        self._perform(self.session.opened(upload.offset_bytes, upload.comparing))

    def _append(self, offset_bytes: int, data: bytes) -> None:
        self._renew()
        self.timing.took(len(data))
        self.factory.door.delivered(self.session.imei or "", len(data))
        cost_bytes = len(data) + APPEND_COST_BYTES
        self._unwritten_bytes += cost_bytes
        assert self._upload is not None
        self.factory.worker.append(self._upload, offset_bytes, data, partial(self._appended, cost_bytes))

    def _appended(self, cost_bytes: int, failure: Failure | None) -> None:
        """Go on when the store has written: only a sender that was paused for it has waited."""
        self._guard(self._written, cost_bytes, failure)

    def _written(self, cost_bytes: int, failure: Failure | None) -> None:
        self._unwritten_bytes -= cost_bytes  # of no file any more, if it failed
        if failure is not None:
            self._store_failed(failure)
        if failure is not None or self._paused:
            self._advance()

    def _finish(self, effect: Finish) -> None:
        upload, self._upload = self._upload, None
        assert upload is not None
        metadata = effect.metadata.to_json(self.factory.now()) if effect.metadata else None
        about = {"protocol_id": effect.protocol_id, "metadata": metadata}
        self.timing.finished(self.factory.clock.seconds())
        self._watch(self.factory.worker.finish(upload, about), self._finished)

    def _finished(self, answer: Stored | Differs) -> None:
        if isinstance(answer, Differs):
            self._perform(self.session.differs())
        else:
            self.factory.door.delivered(self.session.imei or "", files=1)
            self._perform(self.session.stored(answer.path, answer.size_bytes, answer.duplicate, answer.crc_differs))

    def _park(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None:
            self._watch(self.factory.worker.park(upload), lambda _: None)

    def _watch(self, answer: Deferred[Any], then: Callable[[Any], None]) -> None:
        """Go on when the store has answered; the factory knows what is under way."""
        self.factory.under_way.add(answer)
        answer.addBoth(self._answered, answer, then)

    def _answered(self, outcome: Any, answer: Deferred[Any], then: Callable[[Any], None]) -> None:
        self._guard(self._go_on, outcome, then)
        self.factory.under_way.discard(answer)

    def _go_on(self, outcome: Any, then: Callable[[Any], None]) -> None:
        if not isinstance(outcome, Failure):
            then(outcome)
        elif outcome.check(CancelledError) is None:
            self._store_failed(outcome)
        self._advance()

    def _store_failed(self, failure: Failure) -> None:
        """Tell the session, once: everything that was under way for a file fails with the same error."""
        failure.trap(StoreError)
        if failure.value is self._store_error:
            return
        self._store_error = failure.value
        match failure.value:
            case OtherFile():
                self._perform(self.session.other_file())
            case NoRoom():
                self.factory.no_room(failure.getErrorMessage())
                self._perform(self.session.turned_away("no room on the disk"))
            case VolumeFailing():
                self._perform(self.session.turned_away("the disk is failing"))
            case _:
                self._perform(self.session.store_failed(failure.getErrorMessage()))

    def _bug(self, failure: Failure) -> None:
        """Log an error of our own and abort this connection; what the file has is kept."""
        log_bug(self.log, failure, imei=self.session.imei, peer=self.peer, state=self.session.state.value)
        self.transport.abortConnection()
