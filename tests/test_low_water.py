"""Reads and writes of real sockets: file data comes by the low-water mark, nothing waits too long, and is kept."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from dsmgateway import commands as c
from dsmgateway.addresses import shown_address
from dsmgateway.factory import CameraFactory
from dsmgateway.protocol import CameraProtocol
from dsmgateway.settings import Settings
from dsmgateway.states import State
from tests import conftest as build
from tests.hand_worker import HandWorker

FILE = build.content(40_000)
FRAMES = build.data_frames(FILE)
MARK_BYTES = 16 << 10


class Reading(CameraProtocol):
    """Remembers what the system gave at once."""

    reads: list[int]

    def dataReceived(self, data: bytes) -> None:
        self.reads.append(len(data))
        super().dataReceived(data)


class ReadingFactory(CameraFactory):
    """Remembers the connections."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.made: list[Reading] = []

    def buildProtocol(self, addr: Any) -> Reading:
        protocol = Reading(self, shown_address(addr), "")
        protocol.reads = []
        self.made.append(protocol)
        return protocol


class LowWaterTests(TestCase):
    """A camera on a socket of its own, of which the gateway is woken for what is worth it."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.worker = HandWorker(self.folder, True, None)
        self.worker.start()
        self.addCleanup(self.worker.stop)
        self.listen()

    def listen(self, **changes: Any) -> None:
        settings = replace(Settings(), data=self.folder, **changes)
        self.factory = ReadingFactory(settings, self.worker, reactor)
        self.port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(self.port.stopListening)

    def camera(self) -> socket.socket:
        """A connection with the file data to come; what the gateway says before that has been heard."""
        camera = socket.create_connection(("127.0.0.1", self.port.getHost().port))
        camera.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.addCleanup(camera.close)
        camera.sendall(b"".join(build.opening(FILE)))
        return camera

    def until(self, what: str, ask: Any, tries: int = 400) -> Deferred[Any]:
        """Fires when the answer is true."""
        if ask():
            return deferLater(reactor, 0)  # type: ignore[arg-type]
        self.assertTrue(tries, f"waited in vain: {what}")
        return deferLater(reactor, 0.005, self.until, what, ask, tries - 1)  # type: ignore[arg-type]

    @property
    def connection(self) -> Reading:
        return self.factory.made[0]

    def receives(self) -> bool:
        return bool(self.factory.made) and self.connection.session.state is State.RECEIVING

    async def begun(self) -> socket.socket:
        camera = self.camera()
        await self.until("the session receives", self.receives)
        self.connection.reads.clear()
        return camera

    async def test_packets_are_read_by_the_dozen_and_the_last_at_once(self) -> None:
        """Each frame in a segment of its own: the reads are of the mark, but the last is of what the file needs."""
        camera = await self.begun()
        for frame in FRAMES:
            camera.sendall(frame)
            await deferLater(reactor, 0.001)  # type: ignore[arg-type]
        await self.until("the file is stored", lambda: self.connection.session.files_stored)
        *first, last = self.connection.reads
        self.assertTrue(first)
        self.assertTrue(all(read >= MARK_BYTES for read in first), self.connection.reads)
        self.assertLess(len(self.connection.reads), 5)
        self.assertEqual(sum(first) + last, sum(map(len, FRAMES)))

    async def test_a_command_after_the_file_is_read_at_once(self) -> None:
        """What follows a whole file is not gathered."""
        camera = await self.begun()
        camera.sendall(b"".join(FRAMES))
        await self.until("the file is stored", lambda: self.connection.session.files_stored)
        camera.sendall(build.init(build.IDLE).encode())
        await self.until("the session ends", lambda: self.connection.session.state is State.ENDED)

    async def test_what_a_silent_camera_left_is_fetched(self) -> None:
        """Some packets and then silence: they are read well before their time, and so is all that follows them."""
        self.listen(data_timeout=0.2)
        camera = await self.begun()
        camera.sendall(b"".join(FRAMES[:3]))
        await deferLater(reactor, 0.15)  # type: ignore[arg-type]
        self.assertEqual(self.connection.reads, [])
        self.factory.sweep()
        await self.until("they are read", lambda: self.connection.reads)
        self.assertEqual(self.connection.session.transfer.held_bytes, 3 * c.PACKET_BYTES)  # type: ignore[union-attr]
        self.assertIs(self.connection.session.state, State.RECEIVING)

    async def test_what_waits_is_kept_when_the_connection_is_taken_over(self) -> None:
        """The newer connection goes on behind what the older one had sent, read or not."""
        old = await self.begun()
        old.sendall(b"".join(FRAMES[:7]))
        new = self.camera()
        new.settimeout(0)
        heard = bytearray()

        def asked() -> bool:
            with contextlib.suppress(BlockingIOError):
                heard.extend(new.recv(4096))
            return c.Resume(7 * c.PACKET_BYTES).encode() in heard

        await self.until("it is asked for the eighth packet", asked)

    async def test_what_waits_is_kept_at_the_stop(self) -> None:
        """A stop parks what had come, read or not."""
        camera = await self.begun()
        camera.sendall(b"".join(FRAMES[:9]))
        transfer = self.connection.session.transfer
        await self.factory.stop()
        self.assertEqual(transfer.held_bytes, 9 * c.PACKET_BYTES)  # type: ignore[union-attr]

    async def test_the_end_of_a_connection_is_no_reason_to_lose_what_waits(self) -> None:
        """Closed and reset connections: what had come before is read."""
        for reset in (False, True):
            self.listen()
            camera = await self.begun()
            transfer = self.connection.session.transfer
            camera.sendall(b"".join(FRAMES[:5]))
            if reset:
                camera.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            camera.close()
            await self.until("it is over", lambda: not self.factory.connections)
            self.assertEqual(transfer.held_bytes, 5 * c.PACKET_BYTES)  # type: ignore[union-attr]

    async def test_each_segment_at_once_where_that_is_wanted(self) -> None:
        """With receive-low-water=1 nothing is gathered."""
        self.listen(receive_low_water=1)
        camera = await self.begun()
        camera.sendall(FRAMES[0])
        await self.until("it is read", lambda: self.connection.reads)
        self.assertEqual(self.connection.reads, [len(FRAMES[0])])

    async def test_answers_that_the_system_does_not_take_at_once_come_in_order(self) -> None:
        """A peer that does not read: what could not be sent follows when it does, and nothing overtakes it."""
        camera = socket.create_connection(("127.0.0.1", self.port.getHost().port))
        self.addCleanup(camera.close)
        await self.until("it is there", lambda: self.factory.made)
        said = [bytes([number]) * 1_000_000 for number in range(8)]
        for one in said:
            self.connection._send(one, renews=False)
        camera.settimeout(0)
        heard = bytearray()

        def all_heard() -> bool:
            with contextlib.suppress(BlockingIOError):
                heard.extend(camera.recv(1 << 20))
            return len(heard) == sum(map(len, said))

        await self.until("all is heard", all_heard, 5000)
        self.assertEqual(bytes(heard), b"".join(said))
