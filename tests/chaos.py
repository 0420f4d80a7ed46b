"""A proxy between cameras and a gateway that does to their connections what bad networks do, by a seed.

What befalls a connection is its `Plan`. It is drawn from the seed, the device's IMEI and how many connections the
device has had, and says at which frame each fault comes; so the same seed gives the same plans, however the processes
are scheduled. The first connection of each device gets one of the kinds in turn, so that none is left out; after
`MOST_BAD` connections a device has a good link, so that a run ends.

**Bits are flipped in DATA and ENHANCED_DATA only**, one bit a frame, anywhere in it. The protocol guards nothing else:

- Where START, RESUME and SYNC say a size or an offset, a wrong one is as good as the right one: a SYNC of 0 before the
  data of 4096 makes a file whose every CRC is right. There is nothing but TCP's own checksum to see it by.
- An INIT with another IMEI is another device, for whom the file would be stored. A PATH or METADATA with another name
  or time is another file, so that the same content would be there twice.
- What the gateway says has no CRC either. One bit makes REPEAT_INIT (0009) of FILE_REQUEST (0008), and CLOSE of RESUME:
  a device that hears that may delete what nobody has. No gateway can prevent it, so this is no test of one.

In file data a CRC-16 sees each single bit. One frame in 65,536 can pass only where something else was taken for a
frame: where the bit is in the length, as one in some 500 is, or where the search for the next good frame tries a wrong
one, which random content hardly ever offers. Among a million flips less than one would go unseen, and the longest runs
have some thousands.

Frames are found by their lengths alone, so cameras must not truncate or corrupt any themselves. For what is said again
on a second connection see `Said`.

``python chaos.py PORT GATEWAY_PORT SEED REPORT`` serves until SIGTERM and then writes what was done, as JSON. Tests run
it through `ChaosProxy`.
"""

from __future__ import annotations

import enum
import json
import random
import signal
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from running import PYTHON, Row, environment, free_port
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from dsmgateway.commands import ALL_OFFERS, HEADER, HEADER_BYTES, INIT_BYTES, CommandId

#: Where in an INIT is what it offers.
_OFFERS_AT = 12
FILE_DATA = frozenset({CommandId.DATA, CommandId.ENHANCED_DATA})

#: Connections of a device after which it has a good link.
MOST_BAD = 6
#: Seconds of a stall that outlasts the time limits of the gateway or the patience of the camera, and of a short one.
LONG_STALL_S = 4.0
SHORT_STALL_S = (0.1, 0.6)
DELAY_S = (0.005, 0.15)
RATE_BYTES_S = (20_000, 200_000)
#: Frames after which a fault of a first connection comes: so many has each conversation about a file of 4 packets.
SURE_FRAMES = 8
#: The same for any other connection, and for commands of the gateway.
LIKELY_FRAMES = 24
LIKELY_COMMANDS = 10
#: Seconds that a second connection stays.
TWIN_STAYS_S = (0.0, 2.0)

#: Bounds: bytes held in one direction until the sender is paused; what of a connection can be said again; links; age.
MOST_HELD_BYTES = 64 * 1024
MOST_SAID_BYTES = 256 * 1024
MOST_LINKS = 2000
MOST_AGE_S = 60.0


class Fault(enum.StrEnum):
    """What happens to connections; each is counted when it has happened."""

    DELAY = "delayed"
    RATE = "slowed down"
    SINGLE_BYTES = "frame or command sent byte by byte"
    FLIP = "bit flipped"
    SHORT_STALL = "stalled for a moment"
    STALL_FROM_DEVICE = "long stall from the device"
    STALL_TO_DEVICE = "long stall to the device"
    STALL_BOTH = "long stall both ways"
    CUT = "closed in mid-frame"
    RESET = "reset in mid-frame"
    CUT_COMMAND = "closed in mid-command to the device"
    LOST_ACKNOWLEDGEMENT = "acknowledgement cut off"
    TWIN_CUT = "repeated on a second connection, the first one reset"
    TWIN_STAYS = "repeated on a second connection, the first one kept"
    #: What came of it.
    GATEWAY_LEFT = "gateway left in a long stall"
    DEVICE_LEFT = "device left in a long stall"
    TWIN_TOLD = "acknowledgement said to a second connection"


#: What ends a link, or might: at most one of them comes in a connection; a device's first one has each in turn.
MAIN = (
    Fault.CUT,
    Fault.RESET,
    Fault.CUT_COMMAND,
    Fault.LOST_ACKNOWLEDGEMENT,
    Fault.TWIN_CUT,
    Fault.TWIN_STAYS,
    Fault.STALL_FROM_DEVICE,
    Fault.STALL_TO_DEVICE,
    Fault.STALL_BOTH,
)
_STALLS = frozenset({Fault.STALL_FROM_DEVICE, Fault.STALL_TO_DEVICE, Fault.STALL_BOTH})


@dataclass(frozen=True, slots=True)
class Plan:
    """What befalls one connection; frames and commands are counted from 0, frames of file data apart for ``flips``.

    ``main`` comes at frame ``main_at``, of CUT_COMMAND at that command, of LOST_ACKNOWLEDGEMENT at the next one.
    Pairs are (from the device, to the device).
    """

    main: Fault | None = None
    main_at: int = 0
    delays_s: tuple[float, float] = (0.0, 0.0)
    rates_bytes_s: tuple[int, int] = (0, 0)
    flips: frozenset[int] = frozenset()
    single_frames: frozenset[int] = frozenset()
    single_commands: frozenset[int] = frozenset()
    short_stall_at: int = -1

    @staticmethod
    def drawn(seed: int, imei: int, connection: int) -> Plan:
        """Draw the plan of the device's connection (1, 2, ...)."""
        if connection > MOST_BAD:
            return Plan()
        chance = random.Random(f"chaos {seed} {imei} {connection}")
        is_first = connection == 1
        if is_first:
            main: Fault | None = MAIN[(imei // 10 + seed) % len(MAIN)]
        else:
            main = chance.choice([fault for fault in MAIN if fault not in _STALLS]) if chance.random() < 0.6 else None
        if main is Fault.CUT_COMMAND:
            main_at = chance.randrange(3 if is_first else LIKELY_COMMANDS)
        else:
            main_at = chance.randrange(SURE_FRAMES if is_first else LIKELY_FRAMES)

        def sometimes(probability: float, draw: Callable[[], Any], otherwise: Any) -> Any:
            return draw() if chance.random() < probability else otherwise

        def some(below: int) -> frozenset[int]:
            return frozenset(chance.sample(range(below), chance.randint(1, 3)))

        return Plan(
            main,
            main_at,
            sometimes(0.4, lambda: (chance.uniform(*DELAY_S), chance.uniform(*DELAY_S)), (0.0, 0.0)),
            sometimes(0.3, lambda: (chance.randint(*RATE_BYTES_S), chance.choice((0, 500))), (0, 0)),
            sometimes(0.4, lambda: some(LIKELY_FRAMES), frozenset()),
            sometimes(0.4, lambda: some(LIKELY_FRAMES), frozenset()),
            sometimes(0.4, lambda: some(LIKELY_COMMANDS), frozenset()),
            sometimes(0.2, lambda: chance.randrange(LIKELY_FRAMES), -1),
        )


class Framer:
    """One direction's bytes to whole frames; knows ids and lengths, and nothing of what is in them."""

    def __init__(self, from_device: bool) -> None:
        self._buffer = bytearray()
        self._from_device = from_device

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes, give the frames that are whole now."""
        self._buffer += data
        while len(self._buffer) >= 2:
            size_bytes = self._size_bytes()
            if len(self._buffer) < size_bytes:
                return
            frame = bytes(self._buffer[:size_bytes])
            del self._buffer[:size_bytes]
            yield frame

    def rest(self) -> bytes:
        """Give up what is no whole frame."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _size_bytes(self) -> int:
        command_id = int.from_bytes(self._buffer[:2], "big")
        if self._from_device and command_id == CommandId.INIT:
            return INIT_BYTES
        if not self._from_device and command_id == CommandId.REPEAT_INIT:
            return 2
        if len(self._buffer) < HEADER_BYTES:
            return HEADER_BYTES
        return HEADER_BYTES + int(HEADER.unpack_from(self._buffer)[1])


def id_of(frame: bytes) -> int:
    """Return the command's id."""
    return int.from_bytes(frame[:2], "big")


def flipped(frame: bytes, chance: random.Random) -> bytes:
    """Return the frame with one of its bits the other way round; a frame of file data only, see above."""
    assert id_of(frame) in FILE_DATA
    bit = chance.randrange(len(frame) * 8)
    changed = bytearray(frame)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


class Said:
    """What a device has said on a connection, as far as another one can be told the same.

    That ends with an INIT that offers files of several kinds. Which of them is asked for first is the gateway's choice,
    which can be another one the next time, and neither METADATA nor START tells which one it is about: the answers to
    one question would be taken for those to another.
    """

    def __init__(self) -> None:
        self.data = b""
        self._goes_on = True

    def add(self, frame: bytes) -> None:
        """Take what it says next."""
        if self._goes_on:
            self.data += frame
            offers_several = id_of(frame) == CommandId.INIT and (frame[_OFFERS_AT] & ALL_OFFERS).bit_count() > 1
            self._goes_on = not offers_several and len(self.data) < MOST_SAID_BYTES


@dataclass(frozen=True, slots=True)
class Byte:
    """A byte that is written by itself: none other in the same turn of the reactor."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing more goes out for so many ``seconds``."""

    seconds: float


#: What stands in a pipe's queue; a call is made when all before it has gone out.
Item = bytes | Byte | Pause | Callable[[], None]


@implementer(IPushProducer)
class Pipe:
    """One direction of a link: what is put in goes out in its order, later, more slowly or stalled.

    ``sender`` and ``receiver`` are the transports at its ends; the receiver can come later. The sender is paused while
    much is held or the receiver takes nothing.
    """

    def __init__(self, clock: IReactorTime, sender: Any) -> None:
        self.delay_s = 0.0
        self.rate_bytes_s = 0
        self.held_bytes = 0
        self.most_held_bytes = 0
        self._clock = clock
        self._sender = sender
        self._receiver: Any = None
        self._queue: deque[tuple[float, Item]] = deque()
        self._free_s = 0.0
        self._full = self._sender_paused = self._closed = False
        self._timer: IDelayedCall | None = None

    def attach(self, receiver: Any) -> None:
        """Let it go out to this transport."""
        self._receiver = receiver
        receiver.setTcpNoDelay(True)
        receiver.registerProducer(self, True)
        self._pump()

    def put(self, *items: Item) -> None:
        """Put something in; after `close` it is lost."""
        if self._closed:
            return
        due_s = self._clock.seconds() + self.delay_s
        for item in items:
            self._queue.append((due_s, item))
            self.held_bytes += _size_bytes(item)
        self.most_held_bytes = max(self.most_held_bytes, self.held_bytes)
        self._regulate()
        if self._timer is None:
            self._pump()

    def stall(self, seconds: float) -> None:
        """Let nothing more out for so long, from now on."""
        self._free_s = max(self._free_s, self._clock.seconds() + seconds)

    def close(self) -> None:
        """Forget what has not gone out."""
        self._closed, self._receiver = True, None
        self._queue.clear()
        self.held_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def pauseProducing(self) -> None:
        """Stop: the receiver's socket is full."""
        self._full = True

    def resumeProducing(self) -> None:
        """Go on."""
        self._full = False
        if self._timer is None:
            self._pump()

    def stopProducing(self) -> None:
        """Stop for good: the receiver is going away."""
        self._full = True

    def _pump(self) -> None:
        while self._queue and self._receiver is not None and not self._full:
            due_s, item = self._queue[0]
            now_s = self._clock.seconds()
            wait_s = max(due_s, self._free_s) - now_s
            if wait_s > 0:
                self._later(wait_s)
                break
            self._queue.popleft()
            self.held_bytes -= _size_bytes(item)
            match item:
                case bytes():
                    self._receiver.write(item)
                    if self.rate_bytes_s:
                        self._free_s = now_s + len(item) / self.rate_bytes_s
                case Byte(data=data):
                    self._receiver.write(data)
                    self._later(0)
                    break
                case Pause(seconds=seconds):
                    self._free_s = now_s + seconds
                case call:
                    call()
        self._regulate()

    def _regulate(self) -> None:
        pause = self.held_bytes > MOST_HELD_BYTES or (self._sender_paused and self.held_bytes > MOST_HELD_BYTES // 2)
        if pause is not self._sender_paused:
            self._sender_paused = pause
            (self._sender.pauseProducing if pause else self._sender.resumeProducing)()

    def _later(self, seconds: float) -> None:
        def run() -> None:
            self._timer = None
            self._pump()

        self._timer = self._clock.callLater(seconds, run)


def _size_bytes(item: Item) -> int:
    return len(item) if isinstance(item, bytes) else len(item.data) if isinstance(item, Byte) else 0


@dataclass
class Shared:
    """What all links share."""

    reactor: Any
    gateway: IStreamClientEndpoint
    seed: int
    done: Counter[Fault] = field(default_factory=Counter)
    connections: Counter[int] = field(default_factory=Counter)
    links: set[Link] = field(default_factory=set)
    most_links: int = 0
    most_held_bytes: int = 0
    too_old: int = 0

    def report(self) -> dict[str, object]:
        """Return what was done, as values that JSON has."""
        return {
            "faults": {fault.value: self.done[fault] for fault in Fault},
            "devices": len(self.connections),
            "connections": self.connections.total(),
            "most_connections": self.most_links,
            "most_held_bytes": self.most_held_bytes,
            "too_old": self.too_old,
        }


class End(Protocol):
    """One of the two sockets of a link."""

    transport: Any

    def __init__(self, take: Callable[[bytes], None], gone: Callable[[bool], None]) -> None:
        """``gone`` is told whether the connection was closed in good order."""
        self._take, self._gone = take, gone

    def dataReceived(self, data: bytes) -> None:
        self._take(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone(reason.check(ConnectionDone) is not None)


class Twin(Protocol):
    """A second connection of a device, on which what it has said is said again; answers nothing."""

    transport: Any

    def __init__(self, shared: Shared, said: bytes, stays_s: float) -> None:
        self._shared, self._said, self._stays_s = shared, said, stays_s
        self._framer = Framer(from_device=False)
        self._leaves: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self.transport.write(self._said)
        self._leaves = self._shared.reactor.callLater(self._stays_s, self.transport.abortConnection)

    def dataReceived(self, data: bytes) -> None:
        told = sum(id_of(frame) == CommandId.REPEAT_INIT for frame in self._framer.feed(data))
        self._shared.done[Fault.TWIN_TOLD] += told

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._leaves is not None and self._leaves.active():
            self._leaves.cancel()


class _Only(Factory):
    """Makes the one protocol that it was given."""

    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> Protocol:
        return self._protocol


class Link(End):
    """The device's end of a link, which has the other end and both pipes; at first it has no plan."""

    def __init__(self, shared: Shared) -> None:
        super().__init__(self._from_device, self._device_gone)
        self._shared = shared
        self._plan: Plan | None = None
        self._chance = random.Random()
        self._said = Said()
        self._says, self._hears = Framer(from_device=True), Framer(from_device=False)
        self._frames = self._data_frames = self._commands = 0
        self._stalled_until_s = 0.0
        self._device_is_gone = self._gateway_is_gone = self._over = False
        self._other = End(self._from_gateway, self._gateway_gone)

    def connectionMade(self) -> None:
        """Connect to the gateway; what the device says waits in the pipe until then."""
        shared = self._shared
        shared.links.add(self)
        shared.most_links = max(shared.most_links, len(shared.links))
        self._up = Pipe(shared.reactor, self.transport)
        self._down: Pipe | None = None
        self._age = shared.reactor.callLater(MOST_AGE_S, self._too_old)
        connecting = shared.gateway.connect(_Only(self._other))
        connecting.addCallbacks(self._connected, lambda _: self.end(resets=True))

    def _connected(self, other: End) -> None:
        if self._over:
            other.transport.abortConnection()
            return
        self._down = Pipe(self._shared.reactor, other.transport)
        self._down.attach(self.transport)
        self._weather()
        self._up.attach(other.transport)

    # -- what passes

    def _from_device(self, data: bytes) -> None:
        for frame in self._says.feed(data):
            if self._over:
                return
            if self._plan is None:
                self._begin(frame)
            self._frame(frame)
            self._frames += 1

    def _from_gateway(self, data: bytes) -> None:
        for command in self._hears.feed(data):
            if self._over:
                return
            self._command(command)
            self._commands += 1

    def _begin(self, init: bytes) -> None:
        """The device has said who it is."""
        imei = int.from_bytes(init[4:12], "big")
        shared = self._shared
        shared.connections[imei] += 1
        self._plan = Plan.drawn(shared.seed, imei, shared.connections[imei])
        self._chance = random.Random(f"more {shared.seed} {imei} {shared.connections[imei]}")
        self._weather()

    def _weather(self) -> None:
        """Give both pipes their delays and rates, as soon as both and the plan are there."""
        plan, down = self._plan, self._down
        if plan is None or down is None:
            return
        (self._up.delay_s, down.delay_s), (self._up.rate_bytes_s, down.rate_bytes_s) = plan.delays_s, plan.rates_bytes_s
        self._shared.done[Fault.DELAY] += plan.delays_s != (0.0, 0.0)
        self._shared.done[Fault.RATE] += plan.rates_bytes_s != (0, 0)

    def _frame(self, frame: bytes) -> None:
        """Pass on a frame of the device, or what becomes of it."""
        assert self._plan is not None
        plan, number = self._plan, self._frames
        self._said.add(frame)
        flips = False
        if id_of(frame) in FILE_DATA:
            flips = self._data_frames in plan.flips
            self._data_frames += 1
        if number == plan.short_stall_at:
            self._up.put(Pause(self._chance.uniform(*SHORT_STALL_S)), self._counting(Fault.SHORT_STALL))
        if number == plan.main_at and plan.main is not None:
            self._main(plan.main, frame)
        elif flips:
            self._up.put(flipped(frame, self._chance), self._counting(Fault.FLIP))
        elif number in plan.single_frames:
            self._singly(self._up, frame)
        else:
            self._up.put(frame)

    def _main(self, fault: Fault, frame: bytes) -> None:
        """Pass on the frame in which the main fault comes."""
        place = self._chance.randrange(1, len(frame))
        match fault:
            case Fault.CUT | Fault.RESET:
                self._up.put(frame[:place], self._counting(fault), lambda: self.end(fault is Fault.RESET))
            case Fault.TWIN_CUT | Fault.TWIN_STAYS:
                self._up.put(frame, lambda: self._twin(fault))
            case Fault.STALL_FROM_DEVICE | Fault.STALL_TO_DEVICE | Fault.STALL_BOTH:
                self._up.put(frame[:place], lambda: self._stall(fault), frame[place:])
            case _:
                self._up.put(frame)

    def _command(self, command: bytes) -> None:
        """Pass on a command of the gateway, or what becomes of it."""
        assert self._down is not None
        plan, number = self._plan or Plan(), self._commands
        is_acknowledgement = id_of(command) == CommandId.REPEAT_INIT
        if plan.main is Fault.CUT_COMMAND and number >= plan.main_at:
            self._cut_command(plan.main, command, 1)
        elif plan.main is Fault.LOST_ACKNOWLEDGEMENT and is_acknowledgement:
            self._cut_command(plan.main, command, 0)
        elif number in plan.single_commands:
            self._singly(self._down, command)
        else:
            self._down.put(command)

    def _cut_command(self, fault: Fault, command: bytes, least: int) -> None:
        assert self._down is not None
        begin = command[: self._chance.randrange(least, len(command))]
        self._down.put(begin, self._counting(fault), lambda: self.end(self._chance.random() < 0.5))

    def _singly(self, pipe: Pipe, frame: bytes) -> None:
        pipe.put(*(Byte(frame[at : at + 1]) for at in range(len(frame))), self._counting(Fault.SINGLE_BYTES))

    # -- what happens

    def _counting(self, fault: Fault) -> Callable[[], None]:
        def count() -> None:
            self._shared.done[fault] += 1

        return count

    def _stall(self, fault: Fault) -> None:
        assert self._down is not None
        if fault is not Fault.STALL_TO_DEVICE:
            self._up.stall(LONG_STALL_S)
        if fault is not Fault.STALL_FROM_DEVICE:
            self._down.stall(LONG_STALL_S)
        self._stalled_until_s = self._shared.reactor.seconds() + LONG_STALL_S
        self._shared.done[fault] += 1

    def _twin(self, fault: Fault) -> None:
        """Say it again on a second connection, which takes over from this one as soon as its INIT is there."""
        twin = Twin(self._shared, self._said.data, self._chance.uniform(*TWIN_STAYS_S))
        connecting = self._shared.gateway.connect(_Only(twin))
        connecting.addCallbacks(lambda _: self._counting(fault)(), lambda _: None)
        if fault is Fault.TWIN_CUT:
            self.end(resets=True)

    # -- how it ends

    def _device_gone(self, in_order: bool) -> None:
        """The device has closed: what it said still goes its way, and then the end does."""
        self._device_is_gone = True
        self._left(Fault.DEVICE_LEFT)
        if self._down is None or self._gateway_is_gone:
            self.end(resets=True)
            return
        self._down.close()
        self._up.put(self._says.rest(), lambda: self.end(not in_order))

    def _gateway_gone(self, in_order: bool) -> None:
        """The gateway has closed: the same the other way round."""
        self._gateway_is_gone = True
        self._left(Fault.GATEWAY_LEFT)
        if self._down is None or self._device_is_gone:
            self.end(resets=True)
            return
        self._up.close()
        self._down.put(self._hears.rest(), lambda: self.end(not in_order))

    def _left(self, who: Fault) -> None:
        if not self._over and self._shared.reactor.seconds() < self._stalled_until_s:
            self._shared.done[who] += 1

    def _too_old(self) -> None:
        self._shared.too_old += 1
        self.end(resets=True)

    def end(self, resets: bool) -> None:
        """Close both connections, or reset them."""
        if self._over:
            return
        self._over = True
        shared = self._shared
        shared.links.discard(self)
        if self._age.active():
            self._age.cancel()
        for pipe in filter(None, (self._up, self._down)):
            shared.most_held_bytes = max(shared.most_held_bytes, pipe.most_held_bytes)
            pipe.close()
        for transport in filter(None, (self.transport, self._other.transport)):
            if resets:
                transport.abortConnection()
            else:
                transport.unregisterProducer()
                transport.loseConnection()


class ChaosFactory(Factory):
    """A link for each connection of a camera, up to a bound."""

    noisy = False

    def __init__(self, shared: Shared) -> None:
        self.shared = shared

    def buildProtocol(self, addr: object) -> Link | None:
        return Link(self.shared) if len(self.shared.links) < MOST_LINKS else None


def main(port: int, gateway_port: int, seed: int, report: Path) -> None:
    """Serve until SIGTERM, then write the report."""
    from twisted.internet import reactor as global_reactor
    from twisted.logger import (
        FilteringLogObserver,
        LogLevel,
        LogLevelFilterPredicate,
        globalLogBeginner,
        textFileLogObserver,
    )

    from dsmgateway.descriptors import raise_descriptor_limit

    reactor: Any = global_reactor
    bugs = FilteringLogObserver(textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(LogLevel.error)])
    globalLogBeginner.beginLoggingTo([bugs], discardBuffer=True, redirectStandardIO=False)
    raise_descriptor_limit()
    shared = Shared(reactor, TCP4ClientEndpoint(reactor, "127.0.0.1", gateway_port), seed)
    reactor.listenTCP(port, ChaosFactory(shared), backlog=1024, interface="127.0.0.1")
    reactor.callWhenRunning(lambda: print("listening", flush=True))
    reactor.run()
    for link in list(shared.links):
        link.end(resets=True)
    report.write_text(json.dumps(shared.report()))


class ChaosProxy:
    """The proxy in a process of its own, in front of a gateway's ``port``; a context manager."""

    def __init__(self, folder: Path, gateway_port: int, seed: int) -> None:
        self.port = free_port()
        self._report = folder / "chaos.json"
        arguments = map(str, (Path(__file__), self.port, gateway_port, seed, self._report))
        self._command = [*PYTHON, *arguments]

    def __enter__(self) -> ChaosProxy:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, stdout=pipe, stderr=pipe, text=True, env=environment())
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "listening\n":
            raise AssertionError(f"the proxy did not start: {self._process.communicate()[1]}")
        return self

    def __exit__(self, *failure: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def report(self) -> Row:
        """End it, in good order and without a complaint, and return what it did."""
        self._process.send_signal(signal.SIGTERM)
        _, complaints = self._process.communicate(timeout=20)
        assert (self._process.returncode, complaints) == (0, ""), complaints[-4000:]
        report: Row = json.loads(self._report.read_text())
        return report


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
