"""A simulated tracker: the queue of files its camera holds, and the book it keeps of what was delivered.

It outlives its connections: a file leaves the queue only by the gateway's acknowledgement, and one that comes before
all of the file was sent is a violation. Knows no sockets, no clock, and nothing of commands but INIT and START.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from dsmgateway.commands import Init, Offer, Start
from dsmgateway.crc import crc16
from dsmgateway.simulator.content import Content, whole
from dsmgateway.simulator.faults import Fate, Faults, FaultSource

#: Settings of INIT while a file is ready: only the file bit, in the first byte sent.
OFFERING = int(Offer.FILE) << 24
#: Settings of INIT of a real tracker that has nothing to send.
IDLE = 0x40000400


@dataclass(frozen=True, slots=True)
class CameraFile:
    """A file that a camera offers: ``path`` on the device without NUL, METADATA bytes, whether START states the CRC.

    ``source`` says where the content comes from: the name of a picture, or nothing.
    """

    path: bytes
    content: Content = field(repr=False)
    metadata: bytes = field(repr=False)
    states_crc: bool = False
    source: str = ""

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self.content.size

    @property
    def start(self) -> Start:
        """What START says of the file."""
        return Start(self.size, crc16(whole(self.content)) if self.states_crc else 0)


class Coverage:
    """Which bytes of a file have gone out: ranges in order that do not touch."""

    __slots__ = ("_ranges",)

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []

    def add(self, start: int, stop: int) -> int:
        """Take in the bytes from ``start`` to ``stop``; return how many of them were new."""
        before = self.total_bytes
        apart = []
        for low, high in self._ranges:
            if high < start or stop < low:
                apart.append((low, high))
            else:
                start, stop = min(start, low), max(stop, high)
        self._ranges = sorted([*apart, (start, stop)])
        return self.total_bytes - before

    @property
    def total_bytes(self) -> int:
        """How many bytes are covered."""
        return sum(stop - start for start, stop in self._ranges)


@dataclass(slots=True)
class Tally:
    """What a whole fleet has done so far; every device adds to it."""

    offered: int = 0
    acknowledged: int = 0
    bytes_offered: int = 0
    bytes_acknowledged: int = 0
    bytes_sent: int = 0
    bytes_sent_again: int = 0
    connections: int = 0
    connections_now: int = 0
    failed_connections: int = 0
    violations: int = 0
    faults: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Delivery:
    """How one file fared: ``connections`` in which it was asked for, file data sent, and again, in bytes.

    ``sent_s`` and ``acknowledged_s`` are when all of it was sent and when that was acknowledged, by `Device.seconds`.
    """

    file: CameraFile
    connections: int = 0
    bytes_sent: int = 0
    bytes_sent_again: int = 0
    acknowledged: bool = False
    sent_s: float | None = None
    acknowledged_s: float | None = None
    _sent: Coverage = field(default_factory=Coverage)
    _sent_clean: Coverage = field(default_factory=Coverage)

    @property
    def bytes_never_sent(self) -> int:
        """Bytes that never went out undamaged: the gateway says it has them from before, or is wrong."""
        return self.file.size - self._sent_clean.total_bytes

    def sent(self, start: int, stop: int, clean: bool) -> int:
        """Enter the bytes from ``start`` to ``stop`` of the file as sent; return how many of them were sent again."""
        again = stop - start - self._sent.add(start, stop)
        if clean:
            self._sent_clean.add(start, stop)
        self.bytes_sent += stop - start
        self.bytes_sent_again += again
        return again


class Device:
    """A tracker with one camera; ``imei`` is 15 digits, ``files`` are offered in their order.

    Whoever has a clock lends it as ``seconds``.
    """

    def __init__(
        self,
        imei: str,
        files: Iterable[CameraFile],
        faults: FaultSource | None = None,
        tally: Tally | None = None,
        *,
        protocol_id: int = 5,
        idle_settings: int = IDLE,
    ) -> None:
        self.imei = imei
        self.faults = faults or FaultSource(Faults(), imei)
        self.tally = tally or Tally()
        self.deliveries = [Delivery(file) for file in files]
        self.queue = deque(self.deliveries)
        self.violations: list[str] = []
        self.seconds: Callable[[], float] = float
        self._protocol_id = protocol_id
        self._idle_settings = idle_settings
        self.tally.offered += len(self.queue)
        self.tally.bytes_offered += sum(delivery.file.size for delivery in self.deliveries)

    @property
    def init(self) -> Init:
        """What the tracker says when it connects, and when INIT is asked for again."""
        return Init(self._protocol_id, int(self.imei), OFFERING if self.queue else self._idle_settings)

    @property
    def progress(self) -> tuple[int, int]:
        """A value that grows whenever a file was acknowledged or went out further than ever before."""
        done = sum(delivery.acknowledged for delivery in self.deliveries)
        return done, sum(delivery.bytes_sent - delivery.bytes_sent_again for delivery in self.queue)

    def sent(self, delivery: Delivery, start: int, stop: int, clean: bool = True) -> None:
        """Enter bytes of a file as sent."""
        self.tally.bytes_sent += stop - start
        self.tally.bytes_sent_again += delivery.sent(start, stop, clean)
        if stop == delivery.file.size:
            delivery.sent_s = self.seconds()

    def suffered(self, fate: Fate | str) -> None:
        """Enter a fault of the link."""
        self.tally.faults[fate.value if isinstance(fate, Fate) else fate] += 1

    def acknowledged(self, delivery: Delivery) -> None:
        """Drop the file from the queue for good."""
        self.queue.remove(delivery)
        delivery.acknowledged, delivery.acknowledged_s = True, self.seconds()
        self.tally.acknowledged += 1
        self.tally.bytes_acknowledged += delivery.file.size

    def wronged(self, sentence: str) -> None:
        """Enter something that the gateway must not do."""
        self.violations.append(sentence)
        self.tally.violations += 1
