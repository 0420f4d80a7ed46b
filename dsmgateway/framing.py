"""Bytes in any pieces to commands, for either direction, bounded and in linear time.

The device's direction also checks the CRC chain of DATA, hands runs of good frames out as one event, and finds its step
again: real trackers cut a DATA frame at a segment boundary and then send the same frame whole, so that length framing
alone swallows the good frame's head. What comes out never depends on how the bytes were cut. Knows nothing of sessions.

The three modes of `DeviceDecoder`:

- in commands: every command must be right; anything else is a `FramingError`;
- in data (from a SYNC on): the chained CRC proves each frame. One that fails is searched for the head of a frame that
  is right in its place (`StepFound`); where there is none, `Damaged` is handed out and dropping begins;
- dropping (asked for with every RESUME): file data in flight is thrown away up to the next SYNC. As long as it is in
  step, whole good frames are passed over and every other command is taken; after that only what is known beforehand.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from dsmgateway.commands import (
    FROM_DEVICE,
    FROM_GATEWAY,
    HEADER,
    HEADER_BYTES,
    INIT_BYTES,
    STATUS_NAMES,
    Close,
    CommandId,
    Data,
    DeviceCommand,
    EnhancedData,
    GatewayCommand,
    Init,
    RepeatInit,
    Start,
    Status,
    Sync,
)
from dsmgateway.crc import crc16
from dsmgateway.errors import FramingError
from dsmgateway.frames import FRAME_OVERHEAD_BYTES, FRAMES, DataRun, good_frames
from dsmgateway.packets import PACKET_BYTES

#: Frames whose CRC is tried in one search; how many searches a peer can cause is the session's ``max_resyncs``.
MAX_CANDIDATES = 16
#: Bytes to read at a time before INIT, after which a device says nothing unasked: what came with it may have
#: to be kept.
FIRST_READ_BYTES = 4096
#: The longest frame: ENHANCED_DATA with 1024 bytes of data.
MAX_DATA_FRAME_BYTES = 1034

#: Where the IMEI is in an INIT.
_IMEI_AT, _IMEI_END = 4, 12
#: Commands that can follow file data, after their first zero byte: SYNC, START, STATUS, INIT (protocol id not 0).
_MARKS = rb"\x03\x00\x04|\x01\x00\x06|\x05\x00\x04\x00\x00\x00|\x00(?!\x00\x00)..\x00[\x00-\x03]"
_MARK = re.compile(rb"\x00(?:%b)" % _MARKS, re.DOTALL)
_MARK_OR_DATA = re.compile(rb"\x00(?:[\x04\x0e][\x00-\x04]|%b)" % _MARKS, re.DOTALL)
#: What the longest of these looks at.
_PATTERN_BYTES = 7

#: What comes to an open port instead of INIT, by how it begins.
_STRANGERS = (
    (b"\x16\x03", "TLS"),
    *((method, "HTTP") for method in (b"GET", b"POST", b"HEAD", b"OPTI", b"CONN", b"PRI")),
    (b"\x03\x00", "RDP"),
    (b"SSH-", "SSH"),
    (b"\x00\x09", "REPEAT_INIT"),
)


@dataclass(frozen=True, slots=True)
class StepFound:
    """``skipped_bytes`` of a cut frame were passed over; a good command follows."""

    skipped_bytes: int


@dataclass(frozen=True, slots=True)
class Damaged:
    """File data is broken and no good frame was found in it; all up to the next SYNC will be dropped."""

    reason: str


DeviceEvent = DeviceCommand | DataRun | StepFound | Damaged


class DeviceDecoder:
    """The device's bytes as events; holds at most two DATA frames or one METADATA, and what the last `feed` brought.

    ``run_frames`` limits how many DATA frames make one `DataRun` (0: no limit but the bytes at hand).
    """

    __slots__ = (
        "_budget_bytes",
        "_buffer",
        "_candidates",
        "_crc",
        "_damage",
        "_dropping",
        "_imei",
        "_in_data",
        "_in_step",
        "_run_frames",
        "_seek_from",
        "_size",
        "_whole_packets",
        "_window",
    )

    def __init__(self, run_frames: int = 0) -> None:
        self._buffer = bytearray()
        self._run_frames = run_frames
        self._budget_bytes = 0
        self._whole_packets = False
        self._imei = b""
        self._size = 0xFFFFFFFF
        self._crc = 0
        self._in_data = False
        self._dropping = False
        self._in_step = False
        self._damage = ""
        self._window = 0
        self._seek_from = 0
        self._candidates = 0

    @property
    def buffered_bytes(self) -> int:
        """Bytes that were fed and are not yet part of an event."""
        return len(self._buffer)

    @property
    def buffered(self) -> bytes:
        """Those bytes."""
        return bytes(self._buffer)

    @property
    def awaited_bytes(self) -> int:
        """What must come at the least until all file data expected is there; 0 where no good data is under way."""
        if self._budget_bytes <= 0 or not self._in_data or self._dropping or self._window:
            return 0
        least_bytes = self._budget_bytes - (PACKET_BYTES - 1 if self._whole_packets else 0)
        frames = -(-least_bytes // PACKET_BYTES)
        return max(least_bytes + frames * FRAME_OVERHEAD_BYTES - len(self._buffer), 0)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take what came from the socket."""
        self._buffer += data

    def drop_until_sync(self) -> None:
        """Throw away file data until SYNC comes; to be called with every RESUME."""
        if not self._dropping:
            self._in_step = not self._window
        self._dropping = True
        self._window = 0

    def expect_data(self, remaining_bytes: int, whole_packets: bool = False) -> None:
        """Let no `DataRun` go on past the frame with which ``remaining_bytes`` of file data are reached.

        With ``whole_packets`` a frame that is shorter than a packet comes alone.
        """
        self._budget_bytes, self._whole_packets = remaining_bytes, whole_packets

    def next_event(self) -> DeviceEvent | None:
        """Return the next event, or None where more bytes are needed; raises `CommandError`, `FramingError`."""
        if self._dropping:
            return self._drop()
        if self._window:
            return self._seek()
        if self._in_data:
            run = self._data_run()
            if run is not None:
                return run
        return self._head()

    def _data_run(self) -> DataRun | None:
        """Take the longest run of whole and good frames from the head of the buffer."""
        if not self._has_whole_frame():
            return None
        budget = self._budget_bytes if self._budget_bytes > 0 else len(self._buffer)
        run, self._crc, stop = good_frames(self._buffer, self._crc, self._run_frames, budget, self._whole_packets)
        if run is None:
            return None
        del self._buffer[:stop]
        self._budget_bytes -= len(run.data)
        return run

    def _has_whole_frame(self) -> bool:
        """Say whether more than a part of one frame is there; most reads end with a part, and are asked twice."""
        if len(self._buffer) < FRAME_OVERHEAD_BYTES:
            return False
        length: int
        _, length = HEADER.unpack_from(self._buffer)
        return len(self._buffer) >= HEADER_BYTES + length

    def _head(self) -> DeviceEvent | None:
        """Take the command at the head of the buffer, if it is all there."""
        buffer = self._buffer
        if len(buffer) < HEADER_BYTES:
            return None
        command_id, length = HEADER.unpack_from(buffer)
        if command_id == CommandId.INIT:
            return self._init()
        command = FROM_DEVICE.get(command_id)
        in_place = self._imei or command is Status
        if command is None or not in_place or not command.lengths[0] <= length <= command.lengths[1]:
            return self._lost(_refusal(command_id, length, not self._imei), MAX_DATA_FRAME_BYTES)
        stop = HEADER_BYTES + length
        if len(buffer) < stop:
            return None
        event = command.parse(bytes(buffer[HEADER_BYTES:stop]))
        if isinstance(event, Data | EnhancedData) and self._in_data:  # good ones were taken as a run
            return self._lost(f"{event.id.name} with a wrong CRC", stop)
        del buffer[:stop]
        if isinstance(event, Sync):
            self._crc, self._in_data = 0, True
        elif isinstance(event, Start):
            self._size = event.size
        return event  # type: ignore[return-value]

    def _init(self) -> DeviceEvent | None:
        """Take an INIT; a connection speaks for one device only."""
        if self._in_data and self._is_own_init(0) is False:
            return self._lost("no command of the protocol", MAX_DATA_FRAME_BYTES)
        if len(self._buffer) < INIT_BYTES:
            return None
        event = Init.parse_whole(bytes(self._buffer[:INIT_BYTES]))
        self._imei, self._in_data = bytes(self._buffer[_IMEI_AT:_IMEI_END]), False
        del self._buffer[:INIT_BYTES]
        return event

    def _lost(self, reason: str, window: int) -> DeviceEvent | None:
        """Look for the step again in the next ``window`` bytes, where file data was under way."""
        if not self._in_data:
            raise FramingError(reason)
        self._damage, self._window, self._seek_from, self._candidates = reason, window, 1, 0
        return self._seek()

    def _seek(self) -> DeviceEvent | None:
        """Find a command that is right in its place inside the damaged frame; waits for bytes that decide."""
        while True:
            position = self._next_candidate()
            if position < 0:
                if len(self._buffer) < self._window:
                    self._seek_from = max(self._seek_from, len(self._buffer))
                    return None
                break
            right = self._right_at(position)
            self._seek_from = position
            if right is None:
                return None
            if right:
                del self._buffer[:position]
                self._window = 0
                return StepFound(position)
            self._seek_from += 1
        self.drop_until_sync()
        return Damaged(self._damage)

    def _next_candidate(self) -> int:
        """Return where in the damaged frame a command may begin, also one that is not all there; -1 for nowhere."""
        partial_from = max(self._seek_from, len(self._buffer) - _PATTERN_BYTES + 1)
        partial = self._buffer.find(0, partial_from, self._window)
        found = _MARK_OR_DATA.search(self._buffer, self._seek_from, self._window + _PATTERN_BYTES - 1)
        if found is None or found.start() >= self._window or 0 <= partial < found.start():
            return partial
        return found.start()

    def _right_at(self, position: int) -> bool | None:
        """Tell whether a good command begins at ``position`` (a zero byte), None where more bytes must tell."""
        rest = len(self._buffer) - position
        if rest >= 2 and self._buffer[position + 1] not in _AFTER_DAMAGE:
            return False
        if rest < HEADER_BYTES:
            return None
        command_id, length = HEADER.unpack_from(self._buffer, position)
        kind = FRAMES.get(command_id)
        if kind is None:
            return self._is_mark(position, command_id, length)
        return self._is_good_data(position, kind, length)

    def _is_good_data(self, position: int, kind: type[Data] | type[EnhancedData], length: int) -> bool | None:
        if not kind.lengths[0] <= length <= kind.lengths[1] or self._candidates == MAX_CANDIDATES:
            return False
        stop = position + HEADER_BYTES + length
        if len(self._buffer) < stop:
            return None
        self._candidates += 1
        frame = kind.parse(bytes(self._buffer[position + HEADER_BYTES : stop]))
        return crc16(frame.data, self._crc) == frame.crc

    def _is_mark(self, position: int, command_id: int, length: int) -> bool | None:
        """Tell whether a command that may follow file data begins here: SYNC, START, STATUS or our own INIT."""
        if command_id == CommandId.INIT:  # which has its protocol id where others have their length
            return self._is_own_init(position) if length else False
        if length != (6 if command_id == CommandId.START else 4):
            return False
        field_at = position + HEADER_BYTES
        if len(self._buffer) < field_at + 4:
            return None
        value = int.from_bytes(self._buffer[field_at : field_at + 4], "big")
        if command_id == CommandId.START:
            return value == self._size
        if command_id == CommandId.SYNC:
            return value <= self._size
        return value in STATUS_NAMES

    def _is_own_init(self, position: int) -> bool | None:
        """Tell whether our INIT begins here; one wrong byte is enough, for more may never come after a last frame."""
        if not self._imei.startswith(self._buffer[position + _IMEI_AT : position + _IMEI_END]):
            return False
        return True if len(self._buffer) >= position + INIT_BYTES else None

    def _drop(self) -> DeviceEvent | None:
        """Throw bytes away up to a command that is no file data, and take that."""
        if self._in_step:
            run = self._good_run()
            while run is not None:  # a run ends where a frame says another place than the one before it
                run = self._good_run()
            next_is = self._next_in_step()
            if next_is is _Next.COMMAND:
                return self._take_mark()
            self._in_step = next_is is _Next.UNFINISHED_FRAME
        position, right = self._find_mark()
        if right:
            del self._buffer[:position]
            return self._take_mark()
        if not self._in_step:
            del self._buffer[
                : position if right is None else max(0, len(self._buffer) - (INIT_BYTES - 1), position + 1)
            ]
        return None

    def _good_run(self) -> DataRun | None:
        """Take whole and good frames from the head of the buffer, however much was expected."""
        run, self._crc, stop = good_frames(self._buffer, self._crc, 0, len(self._buffer), False)
        del self._buffer[:stop]
        return run

    def _next_in_step(self) -> _Next:
        """Tell what is at the head of the buffer, where whole and good frames have been passed over."""
        if len(self._buffer) < HEADER_BYTES:
            return _Next.COMMAND
        command_id, length = HEADER.unpack_from(self._buffer)
        command = FROM_DEVICE.get(command_id)
        if command_id == CommandId.INIT:
            right = self._is_own_init(0) if length else False
        elif command is None or not command.lengths[0] <= length <= command.lengths[1]:
            right = False
        elif command_id in FRAMES:
            return _Next.UNFINISHED_FRAME if len(self._buffer) < HEADER_BYTES + length else _Next.NOTHING_GOOD
        else:
            right = self._is_mark(0, command_id, length) if command in (Sync, Status) else True
        return _Next.NOTHING_GOOD if right is False else _Next.COMMAND

    def _find_mark(self) -> tuple[int, bool | None]:
        """Return where a command that may follow file data begins, and True; else the last place that was looked at.

        With None, more bytes must tell whether one begins there, else False.
        """
        position = -1
        while (mark := _MARK.search(self._buffer, position + 1)) is not None:
            position = mark.start()
            right = self._right_at(position)
            if right is not False:
                return position, right
        return position, False

    def _take_mark(self) -> DeviceEvent | None:
        self._in_data = True
        event = self._head()
        if isinstance(event, Sync | Init):
            self._dropping = False
        return event


class _Next(enum.Enum):
    """What follows good frames that are being dropped, as far as can be seen."""

    COMMAND = enum.auto()
    #: Or one that was cut: then something else may begin within it.
    UNFINISHED_FRAME = enum.auto()
    NOTHING_GOOD = enum.auto()


#: Second byte of the ids that may follow a damaged frame; the first is zero.
_AFTER_DAMAGE = frozenset(
    {CommandId.INIT, CommandId.START, CommandId.SYNC, CommandId.DATA, CommandId.STATUS, CommandId.ENHANCED_DATA}
)


def _refusal(command_id: int, length: int, before_init: bool) -> str:
    command = FROM_DEVICE.get(command_id)
    if before_init:
        head = HEADER.pack(command_id, length)
        looks_like = next((f" ({name})" for begin, name in _STRANGERS if head.startswith(begin)), "")
        return f"expected INIT, not bytes that begin with {head.hex()}{looks_like}"
    if command is None:
        return f"no command has the id 0x{command_id:04x}"
    return f"{command.id.name} must have a length of {command.lengths[0]} to {command.lengths[1]}, not {length}"


class GatewayDecoder:
    """The gateway's bytes as commands, as a device reads them."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def buffered_bytes(self) -> int:
        """Bytes that were fed and are not yet part of a command."""
        return len(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take what came from the socket."""
        self._buffer += data

    def next_command(self) -> GatewayCommand | None:
        """Return the next command, or None where more bytes are needed; raises `CommandError`, `FramingError`."""
        buffer = self._buffer
        if buffer[:2] == RepeatInit().encode():
            del buffer[:2]
            return RepeatInit()
        if len(buffer) < HEADER_BYTES:
            return None
        command_id, length = HEADER.unpack_from(buffer)
        command = FROM_GATEWAY.get(command_id)
        if command is None:
            raise FramingError(f"no command of the gateway has the id 0x{command_id:04x}")
        shortest, longest = command.lengths
        if not shortest <= length <= longest:
            name = "CLOSE" if command is Close else command.id.name
            raise FramingError(f"{name} must have a length of {shortest} to {longest}, not {length}")
        stop = HEADER_BYTES + length
        if len(buffer) < stop:
            return None
        body = bytes(buffer[HEADER_BYTES:stop])
        del buffer[:stop]
        return command.parse(body)  # type: ignore[return-value]
