"""The bare server that the gateway is compared with: what Twisted and the disk's cache cost without any promise.

It answers with what it has by heart, so that cameras send their files, and appends the file data to a file: no CRC is
looked at, nothing is synced, logged, limited, or taken up again. Written as one would write it at first; the files
that it leaves are whole.

    python bench/sink.py FOLDER
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

from control import serve_control
from twisted.internet.protocol import Factory, Protocol

from dsmgateway.descriptors import raise_descriptor_limit

_HEADER = struct.Struct(">HH")
_INIT = struct.Struct(">HHQI")
_START = struct.Struct(">IH")
_FILE_IS_READY = 0x02000000
_INIT_ID, _START_ID, _DATA_ID, _METADATA_ID, _PATH_ID, _ENHANCED_ID = 0, 1, 4, 0x0B, 0x0D, 0x0E
_PATH_REQUEST = bytes.fromhex("000c00020000")
_METADATA_REQUEST = bytes.fromhex("000a0000")
_FILE_REQUEST = bytes.fromhex("0008")
_RESUME_0 = bytes.fromhex("0002000400000000")
_REPEAT_INIT = bytes.fromhex("0009")
_CLOSE = bytes.fromhex("00000000")
_BACKLOG = 4096


class SinkProtocol(Protocol):
    """One connection."""

    transport: Any

    def __init__(self, factory: SinkFactory) -> None:
        self.factory = factory
        self.buffer = bytearray()
        self.path = b""
        self.imei = 0
        self.file: BinaryIO | None = None
        self.missing = 0

    def dataReceived(self, data: bytes) -> None:
        buffer = self.buffer
        buffer += data
        payloads = []
        begin, end = 0, len(buffer)
        while end - begin >= 4:
            command, length = _HEADER.unpack_from(buffer, begin)
            stop = begin + (16 if command == _INIT_ID else 4 + length)
            if stop > end:
                break
            if command == _DATA_ID:
                payloads.append(buffer[begin + 4 : stop - 2])
            elif command == _ENHANCED_ID:
                payloads.append(buffer[begin + 8 : stop - 2])
            else:
                self.take(command, bytes(buffer[begin:stop]))
            begin = stop
        del buffer[:begin]
        if payloads:
            self.append(b"".join(payloads))

    def take(self, command: int, packet: bytes) -> None:
        if command == _INIT_ID:
            _, _, self.imei, settings = _INIT.unpack(packet)
            if settings & _FILE_IS_READY:
                self.transport.write(_PATH_REQUEST)
            else:
                self.transport.write(_CLOSE)
                self.transport.loseConnection()
        elif command == _PATH_ID:
            self.path = packet[2:]
            self.transport.write(_METADATA_REQUEST)
        elif command == _METADATA_ID:
            self.transport.write(_FILE_REQUEST + self.path)
        elif command == _START_ID:
            self.missing, _ = _START.unpack(packet[4:])
            self.file = open(self.factory.new_path(self.imei), "wb")  # noqa: SIM115
            self.transport.write(_RESUME_0)

    def append(self, data: bytes) -> None:
        assert self.file is not None
        self.file.write(data)
        self.missing -= len(data)
        if self.missing <= 0:
            self.file.close()
            self.file = None
            self.transport.write(_REPEAT_INIT)

    def connectionLost(self, reason: object = None) -> None:
        if self.file is not None:
            self.file.close()
            Path(self.file.name).unlink()


class SinkFactory(Factory):
    """Says where files go."""

    noisy = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = 0

    def buildProtocol(self, addr: object) -> SinkProtocol:
        return SinkProtocol(self)

    def new_path(self, imei: int) -> str:
        self.files += 1
        return f"{self.folder}/{imei:015d}-{self.files}.jpg"


def main() -> None:
    from twisted.internet import reactor as running

    reactor: Any = running
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    raise_descriptor_limit()
    port = reactor.listenTCP(0, SinkFactory(folder), backlog=_BACKLOG, interface="127.0.0.1")
    serve_control(reactor, lambda: {"port": port.getHost().port}, reactor.stop, sweeps=True)
    reactor.run()


if __name__ == "__main__":
    main()
