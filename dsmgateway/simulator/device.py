"""A simulated tracker: the queue of files its cameras hold, and the book it keeps of what was delivered.

It outlives its connections: a file leaves the queue only by the gateway's acknowledgement, and one that comes before
all of the file was sent is a violation. Knows no sockets, no clock, and of commands only INIT.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from dsmgateway.commands import Init, Offer
from dsmgateway.crc import crc16
from dsmgateway.families import Unit, row_of, unit_of
from dsmgateway.simulator.asking import Counting, counting_in, naming_of
from dsmgateway.simulator.content import Content, whole
from dsmgateway.simulator.faults import Fate, Faults, FaultSource
from dsmgateway.simulator.frames import Frames

#: Settings of INIT of a real tracker that has nothing to send.
IDLE = 0x40000400


@dataclass(frozen=True, slots=True)
class CameraFile:
    """A file that a camera offers: ``path`` on the device without NUL, METADATA bytes, whether START states the CRC.

    For DualCam up to protocol 5 ``path`` is the identifier, which files of one kind share. ``source`` says where the
    content comes from: the name of a picture, or nothing.
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
    def offer(self) -> Offer:
        """The settings bit of INIT that says the file is ready."""
        return row_of(self.path).offer

    @property
    def file_request(self) -> bytes:
        """What FILE_REQUEST says to mean this file."""
        return naming_of(self.offer).file_request(self.path)

    @property
    def metadata_request(self) -> bytes:
        """What METADATA_REQUEST says to mean this file."""
        return naming_of(self.offer).metadata_request(self.path)

    @property
    def crc(self) -> int:
        """The CRC-16 that START states, or 0."""
        return crc16(whole(self.content)) if self.states_crc else 0


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


@dataclass(slots=True, eq=False)
class Delivery:
    """How one file fared: ``connections`` in which it was asked for, file data sent, and again, in bytes.

    ``offered_s``, ``sent_s`` and ``acknowledged_s`` are when an INIT first spoke of it, when all of it was sent, and
    when that was acknowledged, by `Device.seconds`.
    """

    file: CameraFile
    connections: int = 0
    bytes_sent: int = 0
    bytes_sent_again: int = 0
    acknowledged: bool = False
    offered_s: float | None = None
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
    """A tracker with its cameras; ``imei`` is 15 digits, ``files`` of one offer are offered in their order.

    ``counts_packets``: an odd firmware, which counts packets where all others count bytes. Whoever has a clock lends it
    as ``seconds``.
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
        counts_packets: bool = False,
        frames: Frames | None = None,
    ) -> None:
        self.imei = imei
        self.protocol_id = protocol_id
        self.faults = faults or FaultSource(Faults(), imei)
        self.frames = frames or Frames()
        self.tally = tally or Tally()
        self.deliveries = [Delivery(file) for file in files]
        self.queue = deque(self.deliveries)
        self.violations: list[str] = []
        self.seconds: Callable[[], float] = float
        self._idle_settings = idle_settings
        self._counts_packets = counts_packets
        self._under_way: Delivery | None = None
        self.tally.offered += len(self.queue)
        self.tally.bytes_offered += sum(delivery.file.size for delivery in self.deliveries)

    @property
    def init(self) -> Init:
        """What the tracker says when it connects, and when INIT is asked for again."""
        offers = sum(self.heads) << 24
        return Init(self.protocol_id, int(self.imei), offers or self._idle_settings)

    @property
    def heads(self) -> dict[Offer, Delivery]:
        """The next file of each offer that has one."""
        heads: dict[Offer, Delivery] = {}
        for delivery in self.queue:
            heads.setdefault(delivery.file.offer, delivery)
        return heads

    def introduce(self) -> Init:
        """Return INIT to be said now: the next file of each offer is offered by it."""
        for delivery in self.heads.values():
            if delivery.offered_s is None:
                delivery.offered_s = self.seconds()
        return self.init

    def counting(self, file: CameraFile) -> Counting:
        """Return what START, RESUME and SYNC count for this file."""
        return counting_in(Unit.PACKETS if self._counts_packets else unit_of(file.offer, self.protocol_id))

    @property
    def progress(self) -> tuple[int, int]:
        """A value that grows whenever a file was acknowledged or went out further than ever before."""
        done = sum(delivery.acknowledged for delivery in self.deliveries)
        return done, sum(delivery.bytes_sent - delivery.bytes_sent_again for delivery in self.queue)

    def connected(self) -> None:
        """Begin a connection; where the one before was lost in mid-file, an identifier may mean another file now."""
        lost, self._under_way = self._under_way, None
        if lost is None or lost.file.offer is Offer.FILE:
            return
        alike = sum(delivery.file.offer is lost.file.offer for delivery in self.queue)
        if alike > 1 and self.faults.swaps():
            self.suffered("swap")
            self.queue.remove(lost)
            self.queue.append(lost)

    def sending(self, delivery: Delivery) -> None:
        """Enter a file as under way."""
        self._under_way = delivery

    def parted(self) -> None:
        """End a connection in good order: nothing is under way any more."""
        self._under_way = None

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
        self._under_way = None
        delivery.acknowledged, delivery.acknowledged_s = True, self.seconds()
        self.tally.acknowledged += 1
        self.tally.bytes_acknowledged += delivery.file.size

    def wronged(self, sentence: str) -> None:
        """Enter something that the gateway must not do."""
        self.violations.append(sentence)
        self.tally.violations += 1
