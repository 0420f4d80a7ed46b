"""The commands of the DSM camera protocol, both directions, as frozen values that encode and parse.

Sections in the docstrings are those of the vendor's "DSM Communication Protocol", chapter 4. Integers are big-endian.
Field ranges are checked on construction (`CommandError`). Knows nothing of streams: how commands are found in a flow of
bytes is `dsmgateway.framing`.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, field
from typing import ClassVar, Self

from dsmgateway.errors import CommandError
from dsmgateway.packets import PACKET_BYTES

#: Size of an INIT, which has no length field.
INIT_BYTES = 16
#: Command id and length, which begin every other command.
HEADER_BYTES = 4
#: Largest METADATA: the binary layouts are 32 bytes at most, the JSON of protocol 6 a few KiB.
MAX_METADATA_BYTES = 4096

HEADER = struct.Struct(">HH")
_INIT = struct.Struct(">HHQI")
_U32 = struct.Struct(">I")
_START = struct.Struct(">IH")
_U16 = struct.Struct(">H")


class CommandId(enum.IntEnum):
    """The first two bytes of a command."""

    #: From the device: on connection, what is running there and what is available for download (no length field).
    INIT = 0x0000
    #: From the device: the size and CRC of the requested file.
    START = 0x0001
    #: From the gateway: send the file from this offset on.
    RESUME = 0x0002
    #: From the device: the next data command will contain file data starting from this offset.
    SYNC = 0x0003
    #: From the device: up to 1024 bytes of file data with their CRC.
    DATA = 0x0004
    #: Both ways: the transfer is completed (gateway), or one of the error codes (device).
    STATUS = 0x0005
    #: From the gateway: initiate the transfer of this file.
    FILE_REQUEST = 0x0008
    #: From the gateway: repeat the initialization packet, there may be more files (two bytes, no length field).
    REPEAT_INIT = 0x0009
    #: From the gateway: extra information about the file, please.
    METADATA_REQUEST = 0x000A
    #: From the device: time, type, trigger, position, events, driver.
    METADATA = 0x000B
    #: From the gateway: which file is ready?
    PATH_REQUEST = 0x000C
    #: From the device: the path of the file that is ready, or a lone NUL.
    PATH = 0x000D
    #: From the device (protocol 6 and above): DATA that says where it belongs.
    ENHANCED_DATA = 0x000E


class Offer(enum.IntFlag):
    """What the first transmitted settings byte of INIT says is ready (4.1); all other bits mean nothing to us."""

    #: A file whose path can be requested (DSM, ADAS; every camera from protocol 6 on).
    FILE = 0x02
    #: DualCam up to protocol 5.
    FRONT_PHOTO = 0x04
    REAR_PHOTO = 0x08
    FRONT_VIDEO = 0x10
    REAR_VIDEO = 0x20


ALL_OFFERS = Offer.FILE | Offer.FRONT_PHOTO | Offer.REAR_PHOTO | Offer.FRONT_VIDEO | Offer.REAR_VIDEO

#: What a STATUS code means (4.12); the published table has only a few of them.
STATUS_NAMES: dict[int, str] = {
    0: "done",
    1: "reconnect limit reached",
    2: "cannot close GPRS",
    3: "cannot close socket",
    4: "device aborted",
    5: "bad answer to INIT",
    6: "bad answer to RESUME",
    7: "cannot create file on SD card",
    8: "cannot open file on SD card",
    9: "cannot write file on SD card",
    10: "cannot flush file on SD card",
    11: "undefined event",
    12: "cannot create FOTA file",
    13: "CRC recalculation failed",
    14: "cannot load configuration",
    15: "file validation failed",
    16: "cannot roll file pointer",
    17: "cannot read the file: the camera no longer has it",
    18: "file header null",
    19: "platform mismatch",
    20: "update not allowed",
    21: "bad query argument",
    22: "requested job failed",
    23: "forbidden by specification",
    24: "unsupported hardware",
    25: "incompatible firmware",
    26: "wrong bootloader",
}


def _check(name: str, value: int, lowest: int, highest: int) -> None:
    if not lowest <= value <= highest:
        raise CommandError(f"{name} must be {lowest} to {highest}, not {value}")


def _check_length(name: str, value: bytes, shortest: int, longest: int) -> None:
    if not shortest <= len(value) <= longest:
        raise CommandError(f"{name} must have {shortest} to {longest} bytes, not {len(value)}")


@dataclass(frozen=True, slots=True)
class Init:
    """Initialization packet (4.1): ``imei`` is the IMEI as an integer, ``settings`` the four settings bytes as one."""

    id: ClassVar[CommandId] = CommandId.INIT
    protocol_id: int
    imei: int
    settings: int

    def __post_init__(self) -> None:
        _check("INIT protocol id", self.protocol_id, 0, 0xFFFF)
        _check("INIT IMEI", self.imei, 1, 999_999_999_999_999)
        _check("INIT settings", self.settings, 0, 0xFFFFFFFF)

    @property
    def imei_digits(self) -> str:
        """The IMEI as its 15 decimal digits."""
        return f"{self.imei:015d}"

    @property
    def offers(self) -> Offer:
        """What is ready for download."""
        return Offer(self.settings >> 24) & ALL_OFFERS

    @property
    def unknown_settings(self) -> int:
        """The settings bits that mean nothing to us (a real idle tracker sends 0x40000400)."""
        return self.settings & ~(int(ALL_OFFERS) << 24)

    def encode(self) -> bytes:
        """Return the 16 bytes on the wire."""
        return _INIT.pack(self.id, self.protocol_id, self.imei, self.settings)

    @classmethod
    def parse_whole(cls, packet: bytes | memoryview) -> Self:
        """Read the 16 bytes of an INIT, id included; raises `CommandError`."""
        _, protocol_id, imei, settings = _INIT.unpack(packet)
        return cls(protocol_id, imei, settings)


class _Framed:
    """A command with the common structure ``id u16 | length u16 | payload`` (chapter 3)."""

    __slots__ = ()
    id: ClassVar[CommandId]
    #: The least and the greatest payload length in bytes.
    lengths: ClassVar[tuple[int, int]]

    def payload(self) -> bytes:
        """Return what follows the length field."""
        return b""

    def encode(self) -> bytes:
        """Return the bytes on the wire."""
        payload = self.payload()
        return HEADER.pack(self.id, len(payload)) + payload

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Read the payload, whose length is within ``lengths``; raises `CommandError`."""
        return cls()


@dataclass(frozen=True, slots=True)
class Start(_Framed):
    """Start file transfer (4.8): ``size`` in bytes (DSM, ADAS) and the file's CRC-16, or 0 where it is not known."""

    id: ClassVar[CommandId] = CommandId.START
    lengths: ClassVar[tuple[int, int]] = (6, 6)
    size: int
    crc: int

    def __post_init__(self) -> None:
        _check("START size", self.size, 0, 0xFFFFFFFF)
        _check("START CRC", self.crc, 0, 0xFFFF)

    def payload(self) -> bytes:
        """Return size u32, CRC u16."""
        return _START.pack(self.size, self.crc)

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Read size u32, CRC u16."""
        return cls(*_START.unpack(payload))


@dataclass(frozen=True, slots=True)
class _Offset(_Framed):
    lengths: ClassVar[tuple[int, int]] = (4, 4)
    offset: int

    def __post_init__(self) -> None:
        _check(f"{self.id.name} offset", self.offset, 0, 0xFFFFFFFF)

    def payload(self) -> bytes:
        """Return offset u32."""
        return _U32.pack(self.offset)

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Read offset u32."""
        return cls(*_U32.unpack(payload))


@dataclass(frozen=True, slots=True)
class Resume(_Offset):
    """Resume file transfer (4.9): send from ``offset`` (bytes for DSM and ADAS) on."""

    id: ClassVar[CommandId] = CommandId.RESUME


@dataclass(frozen=True, slots=True)
class Sync(_Offset):
    """Synchronize file transfer (4.10): the next DATA begins at ``offset``; the device's word, not an echo."""

    id: ClassVar[CommandId] = CommandId.SYNC


@dataclass(frozen=True, slots=True)
class Data(_Framed):
    """File data transfer (4.11): up to 1024 bytes and their CRC, chained from the DATA before (0 after SYNC)."""

    id: ClassVar[CommandId] = CommandId.DATA
    lengths: ClassVar[tuple[int, int]] = (3, PACKET_BYTES + 2)
    data: bytes = field(repr=False)
    crc: int

    def __post_init__(self) -> None:
        _check_length("DATA", self.data, 1, PACKET_BYTES)
        _check("DATA CRC", self.crc, 0, 0xFFFF)

    def payload(self) -> bytes:
        """Return data, CRC u16."""
        return self.data + _U16.pack(self.crc)

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Read data, CRC u16."""
        return cls(payload[:-2], *_U16.unpack(payload[-2:]))


@dataclass(frozen=True, slots=True)
class EnhancedData(_Framed):
    """DATA of protocol 6 and above, which says its own ``offset`` in bytes; CRC over the data only, chained alike."""

    id: ClassVar[CommandId] = CommandId.ENHANCED_DATA
    lengths: ClassVar[tuple[int, int]] = (7, PACKET_BYTES + 6)
    offset: int
    data: bytes = field(repr=False)
    crc: int

    def __post_init__(self) -> None:
        _check("ENHANCED_DATA offset", self.offset, 0, 0xFFFFFFFF)
        _check_length("ENHANCED_DATA", self.data, 1, PACKET_BYTES)
        _check("ENHANCED_DATA CRC", self.crc, 0, 0xFFFF)

    def payload(self) -> bytes:
        """Return offset u32, data, CRC u16."""
        return _U32.pack(self.offset) + self.data + _U16.pack(self.crc)

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Read offset u32, data, CRC u16."""
        (offset,), (crc,) = _U32.unpack(payload[:4]), _U16.unpack(payload[-2:])
        return cls(offset, payload[4:-2], crc)


@dataclass(frozen=True, slots=True)
class Status(_Framed):
    """File transfer status (4.12): 0 from the gateway, completed; from the device why it gave up."""

    id: ClassVar[CommandId] = CommandId.STATUS
    lengths: ClassVar[tuple[int, int]] = (4, 4)
    code: int

    def __post_init__(self) -> None:
        _check("STATUS code", self.code, 0, 0xFFFFFFFF)

    @property
    def meaning(self) -> str:
        """What the code means, in words."""
        return STATUS_NAMES.get(self.code, "unknown code")

    def payload(self) -> bytes:
        """Return code u32."""
        return _U32.pack(self.code)

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Read code u32."""
        return cls(*_U32.unpack(payload))


@dataclass(frozen=True, slots=True)
class _PathCommand(_Framed):
    lengths: ClassVar[tuple[int, int]] = (0, 512)
    path: bytes

    def __post_init__(self) -> None:
        _check_length(self.id.name, self.path, *self.lengths)

    def payload(self) -> bytes:
        """Return the path with its NUL."""
        return self.path

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Take the path with its NUL."""
        return cls(payload)


@dataclass(frozen=True, slots=True)
class Path(_PathCommand):
    """File path response (4.4): ``path`` as sent, its closing NUL included; empty or a lone NUL means no file."""

    id: ClassVar[CommandId] = CommandId.PATH


@dataclass(frozen=True, slots=True)
class FileRequest(_PathCommand):
    """File request (4.7): ``path`` is the PATH echoed byte for byte."""

    id: ClassVar[CommandId] = CommandId.FILE_REQUEST


@dataclass(frozen=True, slots=True)
class PathRequest(_Framed):
    """Request file path (4.3); its payload is a blank field."""

    id: ClassVar[CommandId] = CommandId.PATH_REQUEST
    lengths: ClassVar[tuple[int, int]] = (2, 2)

    def payload(self) -> bytes:
        """Return the blank field."""
        return b"\0\0"


@dataclass(frozen=True, slots=True)
class MetadataRequest(_Framed):
    """File metadata request (4.5); ``identifier`` is empty but for DualCam up to protocol 5."""

    id: ClassVar[CommandId] = CommandId.METADATA_REQUEST
    lengths: ClassVar[tuple[int, int]] = (0, 7)
    identifier: bytes = b""

    def __post_init__(self) -> None:
        _check_length("METADATA_REQUEST identifier", self.identifier, *self.lengths)

    def payload(self) -> bytes:
        """Return the identifier."""
        return self.identifier

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Take the identifier."""
        return cls(payload)


@dataclass(frozen=True, slots=True)
class MetadataResponse(_Framed):
    """File metadata response (4.6); ``body`` is read by `dsmgateway.metadata`."""

    id: ClassVar[CommandId] = CommandId.METADATA
    lengths: ClassVar[tuple[int, int]] = (0, MAX_METADATA_BYTES)
    body: bytes

    def __post_init__(self) -> None:
        _check_length("METADATA", self.body, *self.lengths)

    def payload(self) -> bytes:
        """Return the body."""
        return self.body

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Take the body."""
        return cls(payload)


@dataclass(frozen=True, slots=True)
class Close(_Framed):
    """Close session (4.2): ``0000 0000``; the connection ends."""

    id: ClassVar[CommandId] = CommandId.INIT
    lengths: ClassVar[tuple[int, int]] = (0, 0)


@dataclass(frozen=True, slots=True)
class RepeatInit:
    """Initialization packet repeat (4.13): two bytes with no length, as real devices understand it."""

    id: ClassVar[CommandId] = CommandId.REPEAT_INIT

    def encode(self) -> bytes:
        """Return the two bytes on the wire."""
        return _U16.pack(self.id)


#: What a device sends, but for INIT, which is framed in its own way.
FROM_DEVICE: dict[int, type[_Framed]] = {
    command.id: command for command in (Start, Sync, Data, Status, MetadataResponse, Path, EnhancedData)
}
#: What the gateway sends, but for REPEAT_INIT, which is framed in its own way.
FROM_GATEWAY: dict[int, type[_Framed]] = {
    command.id: command for command in (Close, Resume, Status, FileRequest, MetadataRequest, PathRequest)
}

DeviceCommand = Init | Start | Sync | Data | Status | MetadataResponse | Path | EnhancedData
GatewayCommand = Close | Resume | Status | FileRequest | MetadataRequest | PathRequest | RepeatInit
