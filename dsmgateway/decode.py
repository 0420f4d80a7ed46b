"""Bytes of one connection to lines, one a command: what `dsmgateway decode` prints.

Reads with the gateway's own decoders, so that it shows what the gateway saw: cut frames that were passed over, damaged
data, data dropped up to a SYNC. Each direction has its own byte offsets. Holds no more than the decoders do. Knows
nothing of files and terminals; where the bytes come from is `dsmgateway.captures`.
"""

from __future__ import annotations

import abc
import enum
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from dsmgateway.commands import INIT_BYTES, Data, DeviceCommand, EnhancedData, GatewayCommand, Init, Resume, Sync
from dsmgateway.crc import crc16
from dsmgateway.errors import PeerError
from dsmgateway.explain import Facts, explain, size_in_words
from dsmgateway.families import Unit
from dsmgateway.frames import DataRun
from dsmgateway.framing import Damaged, DeviceDecoder, DeviceEvent, GatewayDecoder, StepFound
from dsmgateway.subject import Subject


class Direction(enum.StrEnum):
    """Who sent the bytes."""

    DEVICE = "device"
    GATEWAY = "gateway"


class Kind(enum.StrEnum):
    """What a line is about."""

    COMMAND = "command"
    #: A cut DATA frame was passed over; the next command is right.
    CUT_FRAME = "cut_frame"
    #: File data is broken and nothing right was found in it.
    DAMAGED = "damaged"
    #: File data in flight that was dropped up to a SYNC, as the gateway does after a RESUME.
    DROPPED = "dropped"
    #: No command begins here; this direction is decoded no further.
    STOPPED = "stopped"
    #: The bytes end in the middle of something.
    LEFT = "left"


#: Lines that mean that not everything was decoded.
INCOMPLETE = frozenset({Kind.STOPPED, Kind.LEFT})


@dataclass(frozen=True, slots=True)
class Line:
    """One line: ``length_bytes`` of one direction from ``offset_bytes`` on, ``time`` in seconds where it is known."""

    direction: Direction
    offset_bytes: int
    length_bytes: int
    kind: Kind
    name: str
    words: str
    facts: Facts = field(default_factory=dict)
    time: float | None = None

    def to_text(self) -> str:
        """Return the line for people."""
        time = "" if self.time is None else f"{self.time:9.3f} "
        name = self.name if self.kind is Kind.COMMAND else f"-- {self.name}"
        return f"{time}{self.direction:7} @{self.offset_bytes:<8} {name:16} {self.words}".rstrip()

    def to_json(self) -> str:
        """Return the line as a JSON object."""
        fields: Facts = {} if self.time is None else {"time": self.time}
        fields |= {"kind": self.kind, "from": self.direction, "offset": self.offset_bytes, "bytes": self.length_bytes}
        fields |= {"command": self.name} if self.kind is Kind.COMMAND else {"message": self.words}
        return json.dumps(fields | self.facts)


def direction_of(head: bytes) -> Direction:
    """Tell who sent the bytes that begin with ``head`` (16 or all there are): a device begins with INIT."""
    is_close = len(head) < INIT_BYTES and head[2:4] == b"\0\0"
    return Direction.DEVICE if head[:2] == b"\0\0" and len(head) > 2 and not is_close else Direction.GATEWAY


class _Stream(abc.ABC):
    """What both directions share: offsets, and how decoding ends."""

    def __init__(self, direction: Direction, decoder: DeviceDecoder | GatewayDecoder, subject: Subject) -> None:
        self._direction, self._source, self._subject = direction, decoder, subject
        self._fed_bytes = 0
        #: Where the last command ended.
        self._end_bytes = 0
        self._unread_bytes = 0
        self._stopped = False

    def _line(self, kind: Kind, name: str, length_bytes: int, words: str, facts: Facts | None = None) -> Line:
        """Make the line for the next ``length_bytes``."""
        line = Line(self._direction, self._end_bytes, length_bytes, kind, name, words, facts or {})
        self._end_bytes += length_bytes
        return line

    def feed(self, data: bytes) -> Iterator[Line]:
        """Take bytes; yield the lines that are complete."""
        if self._stopped:
            self._unread_bytes += len(data)
            return
        self._source.feed(data)
        self._fed_bytes += len(data)
        try:
            yield from self._lines()
        except PeerError as error:
            self._stopped = True
            self._unread_bytes = self._fed_bytes - self._end_bytes
            yield Line(self._direction, self._end_bytes, 0, Kind.STOPPED, "stopped", f"{error}", {"error": f"{error}"})

    @abc.abstractmethod
    def _lines(self) -> Iterator[Line]:
        """Yield a line for each command that is complete."""

    def finish(self) -> Iterator[Line]:
        """Yield what is to say of the bytes that are left."""
        if self._stopped:
            words = f"{self._unread_bytes} bytes from here on are not decoded"
            yield self._line(Kind.LEFT, "left", self._unread_bytes, words)
        elif self._fed_bytes > self._end_bytes:
            yield self._left(self._fed_bytes - self._end_bytes)

    def _left(self, length_bytes: int) -> Line:
        return self._line(Kind.LEFT, "left", length_bytes, f"{length_bytes} bytes of an incomplete command are left")


class _GatewayStream(_Stream):
    def __init__(self, subject: Subject) -> None:
        self._decoder = GatewayDecoder()
        super().__init__(Direction.GATEWAY, self._decoder, subject)
        self.resumed = False

    def _lines(self) -> Iterator[Line]:
        while (command := self._decoder.next_command()) is not None:
            self.resumed = self.resumed or isinstance(command, Resume)
            yield self._command(command)

    def _command(self, command: GatewayCommand) -> Line:
        self._subject.hear(command)
        said = self._subject.explain(command)
        return self._line(Kind.COMMAND, said.name, len(command.encode()), said.words, said.facts)


class _DeviceStream(_Stream):
    def __init__(self, subject: Subject) -> None:
        self._decoder = DeviceDecoder(run_frames=1)
        super().__init__(Direction.DEVICE, self._decoder, subject)
        self._dropping = False
        self._crc = 0
        self._file_bytes = 0

    def drop_until_sync(self) -> None:
        """The gateway sent RESUME: what is in flight counts no more."""
        self._decoder.drop_until_sync()
        self._dropping = True

    def _lines(self) -> Iterator[Line]:
        while (event := self._decoder.next_event()) is not None:
            yield from self._event(event)

    def _event(self, event: DeviceEvent) -> Iterator[Line]:
        match event:
            case StepFound(skipped):
                words = f"{skipped} bytes of a cut frame passed over; what follows is right"
                yield self._line(Kind.CUT_FRAME, "cut frame", skipped, words)
            case Damaged(reason):
                self._dropping = True
                words = f"{reason}; nothing right follows, dropping up to the next SYNC"
                yield self._line(Kind.DAMAGED, "damaged", 0, words, {"error": reason})
            case DataRun():
                yield self._good_data(event)
            case Data() | EnhancedData():
                said = explain(event)
                facts = said.facts | {"crc_right": None}
                length = len(event.encode())
                yield self._line(Kind.COMMAND, said.name, length, f"{said.words}; not expected without a SYNC", facts)
            case _:
                yield from self._command(event)

    def _command(self, command: DeviceCommand) -> Iterator[Line]:
        length = len(command.encode())
        dropped = self._fed_bytes - self._decoder.buffered_bytes - length - self._end_bytes
        if dropped:
            yield self._line(Kind.DROPPED, "dropped", dropped, f"{dropped} bytes of file data in flight")
        self._subject.hear(command)
        said = self._subject.explain(command)
        words = said.words
        if isinstance(command, Init | Sync):
            self._dropping = False
        if isinstance(command, Sync):
            self._crc, self._file_bytes = 0, self._subject.place_bytes(command.offset)
            if (size := self._subject.size_in_packets_after_all) is not None:
                words += f"; so the size that START told is {size_in_words(size, Unit.PACKETS)}"
        yield self._line(Kind.COMMAND, said.name, length, words, said.facts)

    def _good_data(self, run: DataRun) -> Line:
        """Explain one DATA frame, whose CRC the decoder found right."""
        size = len(run.data)
        self._crc = crc16(run.data, self._crc)
        frame = (
            Data(run.data, self._crc)
            if run.offset_bytes is None
            else EnhancedData(run.offset_bytes, run.data, self._crc)
        )
        at = run.offset_bytes if run.offset_bytes is not None else self._file_bytes
        self._file_bytes = at + size
        facts: Facts = {"file_offset": at, "length": size, "crc": self._crc, "crc_right": True}
        words = f"{size} bytes at {at}, CRC {self._crc:04x} right"
        return self._line(Kind.COMMAND, frame.id.name, len(frame.encode()), words, facts)

    def _left(self, length_bytes: int) -> Line:
        if not self._dropping:
            return super()._left(length_bytes)
        words = f"{length_bytes} bytes of file data in flight; the bytes end before the SYNC that was due"
        return self._line(Kind.LEFT, "left", length_bytes, words)


class Decoding:
    """Both directions of one connection, in the order in which they were on the wire.

    ``commands`` and ``complete`` (everything was decoded, so far) tell how it went; ask after `finish`.
    """

    def __init__(self) -> None:
        subject = Subject()
        self._device = _DeviceStream(subject)
        self._gateway = _GatewayStream(subject)
        self.commands = 0
        self.complete = True

    def feed(self, direction: Direction, data: bytes, time: float | None = None) -> Iterator[Line]:
        """Yield the lines that ``data``, which was seen at ``time`` (seconds), completes."""
        stream = self._device if direction is Direction.DEVICE else self._gateway
        for line in stream.feed(data):
            yield self._counted(line, time)
        if self._gateway.resumed:
            self._gateway.resumed = False
            self._device.drop_until_sync()

    def finish(self) -> Iterator[Line]:
        """Yield what is to say of the bytes that are left; there will be no more."""
        for stream in (self._device, self._gateway):
            for line in stream.finish():
                yield self._counted(line, None)

    def _counted(self, line: Line, time: float | None) -> Line:
        self.commands += line.kind is Kind.COMMAND
        self.complete = self.complete and line.kind not in INCOMPLETE
        return replace(line, time=time)
