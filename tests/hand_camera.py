"""A camera played by hand on a real socket: says exactly what a test wants, and hears every byte."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from conftest import IMEI, METADATA, data_frames, init

from dsmgateway import commands as c
from dsmgateway.framing import GatewayDecoder
from dsmgateway.store import Offered

Command = TypeVar("Command", bound=c.GatewayCommand)

REPEAT_INIT = b"\0\x09"


@dataclass(frozen=True)
class Picture:
    """One file of a device."""

    content: bytes = field(repr=False)
    imei: int = IMEI
    path: bytes = b"dsm/picture/251102/081601.jpg"
    start_crc: int = 0

    @property
    def key(self) -> str:
        """The name of its part in the spool."""
        return Offered(str(self.imei), self.path, len(self.content), self.start_crc).key

    def frames(self, offset_bytes: int = 0) -> list[bytes]:
        """Its DATA frames from a SYNC at this offset on."""
        return data_frames(self.content, offset_bytes)


class HandCamera:
    """One connection; a context manager that closes it.

    It comes from the address ``source``, any of this machine's. ``before`` is sent first, as a balancer does; then TLS
    begins, with a ``tls`` context.
    """

    def __init__(
        self,
        port: int,
        picture: Picture,
        tls: ssl.SSLContext | None = None,
        before: Sequence[bytes] = (),
        source: str = "127.0.0.1",
    ) -> None:
        self.picture = picture
        self.heard = bytearray()
        self._decoder = GatewayDecoder()
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.say(*before)
        if tls is not None:
            try:
                self.socket = tls.wrap_socket(self.socket)
            except BaseException:
                self.socket.close()
                raise

    def __enter__(self) -> HandCamera:
        return self

    def __exit__(self, *failure: object) -> None:
        self.socket.close()

    def say(self, *pieces: c.DeviceCommand | bytes) -> None:
        """Send commands or bytes, each with a call of its own."""
        for piece in pieces:
            self.socket.sendall(piece if isinstance(piece, bytes) else piece.encode())

    def try_to_say(self, *pieces: c.DeviceCommand | bytes) -> None:
        """Send as much as the gateway lets, which may close the connection meanwhile."""
        with suppress(ConnectionError):
            self.say(*pieces)

    def hear(self, kind: type[Command]) -> Command:
        """Wait for the gateway's next command, which must be of this kind."""
        while (command := self._decoder.next_command()) is None:
            data = self.socket.recv(65536)
            assert data, f"closed instead of {kind.__name__}"
            self.heard += data
            self._decoder.feed(data)
        assert isinstance(command, kind), f"{command} instead of {kind.__name__}"
        return command

    def hear_the_end(self) -> bytes:
        """Wait until the gateway closes the connection; return what it still said."""
        begin = len(self.heard)
        with suppress(ConnectionError):
            while data := self.socket.recv(65536):
                self.heard += data
        return bytes(self.heard[begin:])

    def offer(self) -> int:
        """Say everything up to START; return the offset that the gateway asks for."""
        picture = self.picture
        self.say(init(imei=picture.imei))
        self.hear(c.PathRequest)
        self.say(c.Path(picture.path + b"\0"))
        self.hear(c.MetadataRequest)
        self.say(c.MetadataResponse(METADATA))
        assert self.hear(c.FileRequest).path == picture.path + b"\0"
        self.say(c.Start(len(picture.content), picture.start_crc))
        return self.hear(c.Resume).offset

    def begin(self) -> int:
        """Say everything up to SYNC, which is where the gateway wants it; return that offset."""
        offset_bytes = self.offer()
        self.say(c.Sync(offset_bytes))
        return offset_bytes

    def deliver(self) -> int:
        """Deliver the file to its acknowledgement and take leave; return the offset it went on from."""
        offset_bytes = self.begin()
        self.say(*self.picture.frames(offset_bytes))
        self.hear(c.RepeatInit)
        self.say(init(0x40000400, imei=self.picture.imei))
        self.hear(c.Close)
        self.hear_the_end()
        return offset_bytes


def assert_not_acknowledged(heard: bytes) -> None:
    """Nothing that the gateway said on this connection ends a file: REPEAT_INIT, STATUS or CLOSE."""
    decoder = GatewayDecoder()
    decoder.feed(heard)
    said = list(iter(decoder.next_command, None))
    assert not [command for command in said if isinstance(command, c.RepeatInit | c.Status | c.Close)], said
