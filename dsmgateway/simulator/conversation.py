"""One connection of a simulated tracker, from its INIT on: the gateway's bytes in, what to do on the link out.

Frames of file data are made one at a time, when `Conversation.pull` asks for them, so that no file is ever in a
socket's buffer as a whole. Faults happen here, and the clean frame is kept for after RESUME. Knows no Twisted and no
clock.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field

from dsmgateway.commands import (
    Close,
    DeviceCommand,
    FileRequest,
    GatewayCommand,
    MetadataRequest,
    MetadataResponse,
    Offer,
    Path,
    PathRequest,
    RepeatInit,
    Resume,
    Start,
    Status,
    Sync,
)
from dsmgateway.crc import crc16
from dsmgateway.errors import PeerError
from dsmgateway.framing import GatewayDecoder
from dsmgateway.packets import PACKET_BYTES
from dsmgateway.simulator.device import Delivery, Device
from dsmgateway.simulator.faults import Fate

_BAD_ANSWER_TO_RESUME = 6
_CANNOT_READ_FILE = 17


class State(enum.Enum):
    """Where the conversation stands."""

    #: INIT went out; no file was asked for since.
    INTRODUCED = "introduced"
    #: START went out.
    STARTED = "started"
    #: SYNC went out, file data follows.
    SENDING = "sending"
    #: The last DATA of the file went out.
    SENT = "sent"
    #: The device has nothing more to say here.
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Send:
    """Put ``data`` on the wire."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Stall:
    """Send nothing for so many ``seconds``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Cut:
    """The link is lost: send ``lead``, then reset the connection or close it.

    Where there is a ``tail``, the socket stays open and deaf instead and delivers the pieces of it after a while, when
    the device has a new connection already.
    """

    lead: bytes = field(repr=False)
    resets: bool
    tail: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class End:
    """Close the connection: the conversation is over."""


Action = Send | Stall | Cut | End


class Conversation:
    """What ``device`` says on one connection; the first action is its INIT."""

    def __init__(self, device: Device) -> None:
        self.state = State.INTRODUCED
        device.connected()
        self._device = device
        self._decoder = GatewayDecoder()
        self._outbox: deque[Action] = deque([Send(device.introduce().encode())])
        self._delivery: Delivery | None = None
        self._asked: set[int] = set()
        self._position_bytes = 0
        self._crc = 0
        self._damaged_at: int | None = None
        self._began_bytes = 0
        #: Where the sending began that went to the end of the file, undamaged: its acknowledgement may be on its way.
        self._whole_from: int | None = None

    def receive(self, data: bytes) -> None:
        """Take bytes of the gateway and obey the commands that are whole; a wrong one ends the conversation."""
        self._decoder.feed(data)
        while self.state is not State.OVER:
            try:
                command = self._decoder.next_command()
            except PeerError as error:
                self._device.wronged(f"not the protocol: {error}")
                self._end()
                return
            if command is None:
                return
            self._obey(command)

    def pull(self) -> Action | None:
        """Return what to do next on the link, or None as long as it is the gateway's turn."""
        if self._outbox:
            return self._outbox.popleft()
        if self.state is State.SENDING and self._delivery is not None:
            return self._send_frame(self._delivery)
        return None

    def _obey(self, command: GatewayCommand) -> None:
        match command:
            case PathRequest():
                head = self._device.heads.get(Offer.FILE)
                self._say(Path((head.file.path if head else b"") + b"\0"))
            case MetadataRequest(identifier=identifier):
                heads = self._device.heads.values()
                known = (head.file.metadata for head in heads if head.file.metadata_request == identifier)
                self._say(MetadataResponse(next(known, b"")))
            case FileRequest(path=path):
                self._start(path)
            case Resume(offset=offset):
                self._resume(offset)
            case RepeatInit():
                self._repeat_init()
            case Status():
                self._take_status(command)
            case Close():
                if self.state is State.SENT:
                    self._take_acknowledgement("CLOSE")
                self._end()

    def _say(self, command: DeviceCommand) -> None:
        self._outbox.append(Send(command.encode()))

    def _end(self) -> None:
        self.state = State.OVER
        self._device.parted()
        self._outbox.append(End())

    def _refuse(self, code: int, sentence: str) -> None:
        self._device.wronged(sentence)
        self._say(Status(code))
        self._end()

    def _start(self, path: bytes) -> None:
        """Answer FILE_REQUEST, also a repeated one, with START."""
        heads = self._device.heads.values()
        head = next((head for head in heads if head.file.file_request == path), None)
        if head is None:
            self._refuse(_CANNOT_READ_FILE, f"FILE_REQUEST for {path!r}, which is no file that is next in a queue")
            return
        if id(head) not in self._asked:
            self._asked.add(id(head))
            head.connections += 1
        self._delivery, self.state, self._whole_from = head, State.STARTED, None
        self._say(Start(self._device.counting(head.file).total(head.file.size), head.file.crc))

    def _resume(self, offset: int) -> None:
        """Answer RESUME with SYNC; where file data is under way, some frames of it are on the link already."""
        delivery = self._delivery
        if delivery is None or self.state is State.INTRODUCED:
            self._refuse(_BAD_ANSWER_TO_RESUME, f"RESUME at {offset} before START")
            return
        counting, size_bytes = self._device.counting(delivery.file), delivery.file.size
        if offset > counting.total(size_bytes):
            sentence = f"RESUME at {offset} of {counting.total(size_bytes)} {counting.unit.value}"
            self._refuse(_BAD_ANSWER_TO_RESUME, sentence)
            return
        in_flight = self._device.faults.in_flight() if self.state is State.SENDING else 0
        self._outbox.extend(map(Send, self._frames(delivery, in_flight)))
        position_bytes = counting.position_of(offset)
        if self._whole_from is not None and position_bytes < self._whole_from:
            self._whole_from = None
        if packets := self._device.faults.rewound_packets():
            self._device.suffered("rewind")
            position_bytes = max(0, position_bytes - packets * PACKET_BYTES)
        self._device.sending(delivery)
        self._say(Sync(counting.offset_of(position_bytes)))
        self._position_bytes, self._crc, self._damaged_at = position_bytes, 0, None
        self._began_bytes = position_bytes
        self.state = State.SENDING if position_bytes < size_bytes else State.SENT

    def _repeat_init(self) -> None:
        """Take the acknowledgement and say what else there is; leave a gateway that acknowledged too early."""
        if not self._take_acknowledgement("REPEAT_INIT"):
            self._end()
            return
        self.state = State.INTRODUCED
        self._say(self._device.introduce())

    def _take_status(self, status: Status) -> None:
        if status.code:
            self._device.wronged(f"STATUS {status.code} ({status.meaning}) is the device's to send")
        elif self.state is State.INTRODUCED:
            self._device.wronged("STATUS 0 although no file was asked for")
        else:
            self._take_acknowledgement("STATUS 0")
        self._end()

    def _take_acknowledgement(self, word: str) -> bool:
        """Drop the file under way, if there is one, from the queue; return False where it came too early.

        It is in time also after a RESUME that crossed the last frames on a slow link.
        """
        delivery, self._delivery = self._delivery, None
        if delivery is None:
            return True
        size = delivery.file.size
        if self._whole_from is not None:
            self._device.acknowledged(delivery)
            return True
        if self.state is not State.SENT:
            sent = self._position_bytes if self.state is State.SENDING else 0
            self._device.wronged(f"{word} came too early: {sent} of {size} bytes of the file were sent")
        elif self._damaged_at is not None:
            self._device.wronged(f"{word} came too early: the frame at {self._damaged_at} had gone out damaged")
        else:
            self._device.acknowledged(delivery)
            return True
        return False

    def _frame(self, delivery: Delivery, clean: bool = True) -> bytes:
        """Make the next frame of file data; the last one of the file ends the sending."""
        position_bytes = self._position_bytes
        data = delivery.file.content.read(position_bytes, PACKET_BYTES)
        self._crc = crc16(data, self._crc)
        self._position_bytes += len(data)
        if self._position_bytes == delivery.file.size:
            self.state = State.SENT
            if self._damaged_at is None:
                self._whole_from = self._began_bytes
        self._device.sent(delivery, position_bytes, self._position_bytes, clean)
        return self._device.frames.frame(position_bytes, data, self._crc)

    def _frames(self, delivery: Delivery, count: int) -> list[bytes]:
        """Make up to ``count`` frames."""
        frames: list[bytes] = []
        while self.state is State.SENDING and len(frames) < count:
            frames.append(self._frame(delivery))
        return frames

    def _send_frame(self, delivery: Delivery) -> Action:
        """Send the next frame, or what the link makes of it."""
        faults = self._device.faults
        fate = faults.fate()
        if fate is Fate.CLEAN:
            return Send(self._frame(delivery))
        self._device.suffered(fate)
        if fate is Fate.CUT:
            return self._cut(delivery)
        if fate is Fate.CORRUPT:
            if self._damaged_at is None:
                self._damaged_at = self._position_bytes
            return Send(faults.flipped(self._frame(delivery, clean=False)))
        frame = self._frame(delivery)
        if fate is Fate.TRUNCATE:
            return Send(faults.beginning(frame) + frame)
        self._outbox.append(Send(frame))
        return Stall(faults.stall_s)

    def _cut(self, delivery: Delivery) -> Cut:
        """Lose the link in the middle of the next frame."""
        faults = self._device.faults
        frame = self._frame(delivery, clean=faults.silent_cut)
        lead = faults.beginning(frame)
        tail = (frame[len(lead) :], *self._frames(delivery, faults.queued())) if faults.silent_cut else ()
        self.state = State.OVER
        return Cut(lead, faults.resets(), tail)
