"""Whole conversations for the page on the protocol: tiny files, every byte made by the gateway's own commands.

A test replays them from the page against a real session, so what is written down here is what the gateway does.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from metadata_words import EXAMPLES

from dsmgateway.commands import (
    Close,
    Data,
    DeviceCommand,
    EnhancedData,
    FileRequest,
    GatewayCommand,
    Init,
    MetadataRequest,
    MetadataResponse,
    Path,
    PathRequest,
    RepeatInit,
    Resume,
    Start,
    Sync,
)
from dsmgateway.crc import crc16
from dsmgateway.decode import Decoding, Direction
from dsmgateway.families import format_of, stem_of
from dsmgateway.metadata_layouts import Layout
from dsmgateway.packets import PACKET_BYTES

IMEI = 356917000000013
#: The settings of an INIT that offers nothing, as real trackers send them.
IDLE = 0x40000400
DSM_PATH = EXAMPLES[Layout.DSM].device_path + b"\0"
DASHCAM_PATH = EXAMPLES[Layout.JSON].device_path + b"\0"
IDENTIFIER = b"%photof"
#: 32 bytes: version 3, front photo, time in ms, trigger 9, no video, time zone, position.
DUALCAM_METADATA = struct.pack(">BBQBHBhdd", 3, 4, 1_763_800_000_123, 9, 0, 0, 120, 54.687157, 25.279652)
#: Bytes of a line of hex.
_LINE_BYTES = 48
_FROM_GATEWAY = Close | FileRequest | MetadataRequest | PathRequest | RepeatInit | Resume


@dataclass(frozen=True, slots=True)
class Talk:
    """A file's way to the gateway: what each side says on each connection; ``content`` is stored in the end."""

    title: str
    about: str
    device_path: bytes
    content: bytes
    connections: tuple[tuple[DeviceCommand | GatewayCommand | bytes, ...], ...]

    @property
    def stored(self) -> str:
        """What is stored, in words."""
        name = f"{stem_of(self.device_path)}.{format_of(self.device_path).extension}"
        return f"{len(self.content)} bytes for `{name}`, SHA-256 `{hashlib.sha256(self.content).hexdigest()}`"


def trace(connection: tuple[DeviceCommand | GatewayCommand | bytes, ...]) -> str:
    """Return a connection as lines ``seconds device|gateway hex``, as the gateway itself writes them."""
    lines, now_ms = [], 0
    for said in connection:
        data = said if isinstance(said, bytes) else said.encode()
        is_gateway = isinstance(said, _FROM_GATEWAY)
        now_ms += 1 if is_gateway else 260
        for begin in range(0, len(data), _LINE_BYTES):
            sender = "gateway" if is_gateway else "device"
            lines.append(f"{now_ms / 1000:.3f} {sender} {data[begin : begin + _LINE_BYTES].hex()}\n")
    return "".join(lines)


def decoded(connection: tuple[DeviceCommand | GatewayCommand | bytes, ...]) -> str:
    """Return what ``dsmgateway decode`` prints of it."""
    decoding, shown = Decoding(), []
    for line in trace(connection).splitlines():
        seconds, sender, digits = line.split()
        fed = decoding.feed(Direction(sender), bytes.fromhex(digits), float(seconds))
        shown += [one.to_text() for one in fed]
    shown += [one.to_text() for one in decoding.finish()]
    return "\n".join(shown)


def _frames(content: bytes, offset_bytes: int = 0, enhanced: frozenset[int] = frozenset()) -> Iterator[bytes]:
    """Yield the file's frames from a SYNC at ``offset_bytes`` on; those with these numbers say their place."""
    crc = 0
    for number, begin in enumerate(range(offset_bytes, len(content), PACKET_BYTES)):
        packet = content[begin : begin + PACKET_BYTES]
        crc = crc16(packet, crc)
        yield (EnhancedData(begin, packet, crc) if number in enhanced else Data(packet, crc)).encode()


def _content(size_bytes: int) -> bytes:
    """Something that begins and ends like a JPEG."""
    middle = bytes(number * 7 & 0x7F for number in range(1, size_bytes - 3))
    return b"\xff\xd8" + middle + b"\xff\xd9"


def _offered(protocol_id: int, settings: int) -> Init:
    return Init(protocol_id, IMEI, settings)


def _by_path(
    protocol_id: int, path: bytes, metadata: bytes, size_bytes: int, offset_bytes: int = 0
) -> tuple[DeviceCommand | GatewayCommand, ...]:
    """Everything up to SYNC, of a file that is asked for by its path."""
    return (
        _offered(protocol_id, IDLE | 0x02000000),
        PathRequest(),
        Path(path),
        MetadataRequest(),
        MetadataResponse(metadata),
        FileRequest(path),
        Start(size_bytes, 0),
        Resume(offset_bytes),
        Sync(offset_bytes),
    )


def _end(protocol_id: int) -> tuple[DeviceCommand | GatewayCommand, ...]:
    return RepeatInit(), _offered(protocol_id, IDLE), Close()


def _snapshot() -> Talk:
    content = _content(24)
    return Talk(
        "A DSM snapshot",
        "Protocol 5, asked for by path, counted in bytes. One DATA has the whole file.",
        DSM_PATH[:-1],
        content,
        ((*_by_path(5, DSM_PATH, EXAMPLES[Layout.DSM].body, 24), *_frames(content), *_end(5)),),
    )


def _photo() -> Talk:
    content = _content(PACKET_BYTES + 6)
    return Talk(
        "A DualCam photo, counted in packets",
        "Protocol 5, asked for by identifier. START says 2 packets; only the last one, of 6 bytes, tells that the file "
        "has 1030 bytes.",
        IDENTIFIER,
        content,
        (
            (
                _offered(5, IDLE | 0x04000000),
                MetadataRequest(IDENTIFIER),
                MetadataResponse(DUALCAM_METADATA),
                FileRequest(IDENTIFIER),
                Start(2, 0),
                Resume(0),
                Sync(1),
                *_frames(content),
                *_end(5),
            ),
        ),
    )


def _unified() -> Talk:
    content = _content(PACKET_BYTES + 40)
    frames = _frames(content, enhanced=frozenset({0}))
    return Talk(
        "Protocol 6: JSON, ENHANCED_DATA and DATA",
        "Asked for by path whatever the camera, counted in bytes. The first frame says its place, the second does not; "
        "the CRC chains from one to the other.",
        DASHCAM_PATH[:-1],
        content,
        ((*_by_path(6, DASHCAM_PATH, EXAMPLES[Layout.JSON].body, len(content)), *frames, *_end(6)),),
    )


def _damaged() -> Talk:
    content = _content(PACKET_BYTES + 100)
    first, second = _frames(content)
    broken = second[:50] + bytes([second[50] ^ 0x10]) + second[51:]
    return Talk(
        "A damaged frame",
        "One bit of the second DATA is wrong, so its CRC is. The gateway asks for the file from the end of the last "
        "good packet on. After SYNC the CRC starts at 0 again, so the same data has another CRC than before.",
        DSM_PATH[:-1],
        content,
        (
            (
                *_by_path(5, DSM_PATH, EXAMPLES[Layout.DSM].body, len(content)),
                first,
                broken,
                Resume(PACKET_BYTES),
                Sync(PACKET_BYTES),
                *_frames(content, PACKET_BYTES),
                *_end(5),
            ),
        ),
    )


def _lost() -> Talk:
    content = _content(PACKET_BYTES + 24)
    opening = (5, DSM_PATH, EXAMPLES[Layout.DSM].body, len(content))
    first, _ = _frames(content)
    return Talk(
        "A lost link",
        "After the first packet the connection is gone. On the next one START has the same size and CRC for the same "
        "path, so it is the same file, and RESUME asks for what is missing.",
        DSM_PATH[:-1],
        content,
        (
            (*_by_path(*opening), first),
            (*_by_path(*opening, offset_bytes=PACKET_BYTES), *_frames(content, PACKET_BYTES), *_end(5)),
        ),
    )


TALKS = (_snapshot(), _photo(), _unified(), _damaged(), _lost())
