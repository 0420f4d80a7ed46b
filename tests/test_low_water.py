"""Reads and writes of real sockets: file data comes by the low-water mark, nothing waits too long, and is kept."""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dsmgateway import commands as c
from dsmgateway.addresses import shown_address
from dsmgateway.factory import CameraFactory
from dsmgateway.protocol import CameraProtocol
from dsmgateway.settings import Settings
from dsmgateway.states import State
from tests import conftest as build
from tests.hand_worker import HandWorker
from tests.own_reactor import OwnReactor

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


class LowWaterTests(SynchronousTestCase):
    """A camera on a socket of its own, of which the gateway is woken for what is worth it."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.reactor = OwnReactor()
        self.addCleanup(self.reactor.close)
        self.worker = HandWorker(self.folder, True, None)
        self.worker.start()
        self.addCleanup(self.worker.stop)
        self.listen()

    def listen(self, **changes: Any) -> None:
        settings = replace(Settings(), data=self.folder, **changes)
        self.factory = ReadingFactory(settings, self.worker, self.reactor)
        self.port = self.reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.addCleanup(self.close, self.port, self.factory)

    def close(self, port: Any, factory: ReadingFactory) -> None:
        """End what is still there."""
        for connection in list(factory.connections):
            connection.transport.abortConnection()
        self.reactor.spin_until(lambda: not factory.connections)
        port.stopListening()
        for _ in range(3):
            self.reactor.iterate(0)

    def connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port.getHost().port))
        self.addCleanup(made.close)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def camera(self) -> socket.socket:
        """A connection with the file data to come."""
        camera = self.connect()
        camera.sendall(b"".join(build.opening(FILE)))
        return camera

    def turn(self, turns: int = 20) -> None:
        """Let the reactor see what there is."""
        for _ in range(turns):
            self.reactor.iterate(0)

    @property
    def connection(self) -> Reading:
        return self.factory.made[0]

    @property
    def held_bytes(self) -> int:
        transfer = self.connection.session.transfer
        assert transfer is not None
        return transfer.held_bytes

    def begun(self) -> socket.socket:
        camera = self.camera()
        self.reactor.spin_until(
            lambda: self.factory.made and self.connection.session.state is State.RECEIVING,
        )
        self.connection.reads.clear()
        return camera

    def test_packets_are_read_by_the_dozen_and_the_last_at_once(self) -> None:
        """Each frame in a segment of its own: the reads are of the mark, but the last is of what the file needs."""
        camera = self.begun()
        for frame in FRAMES:
            camera.sendall(frame)
            self.turn(3)
        self.reactor.spin_until(lambda: self.connection.session.files_stored)
        *first, last = self.connection.reads
        self.assertTrue(first)
        self.assertTrue(all(read >= MARK_BYTES for read in first), self.connection.reads)
        self.assertLess(len(self.connection.reads), 5)
        self.assertEqual(sum(first) + last, sum(map(len, FRAMES)))

    def test_a_command_after_the_file_is_read_at_once(self) -> None:
        """What follows a whole file is not gathered."""
        camera = self.begun()
        camera.sendall(b"".join(FRAMES))
        self.reactor.spin_until(lambda: self.connection.session.files_stored)
        camera.sendall(build.init(build.IDLE).encode())
        self.reactor.spin_until(lambda: self.connection.session.state is State.ENDED)

    def test_what_a_silent_camera_left_is_fetched(self) -> None:
        """Some packets and then silence: they are read well before their time, and so is all that follows them."""
        self.listen(data_timeout=0.2)
        camera = self.begun()
        camera.sendall(b"".join(FRAMES[:3]))
        begin = self.reactor.seconds()
        self.reactor.spin_until(lambda: self.reactor.seconds() > begin + 0.15)
        self.assertEqual(self.connection.reads, [])
        self.factory.sweep()
        self.reactor.spin_until(lambda: self.connection.reads)
        self.assertEqual(self.held_bytes, 3 * c.PACKET_BYTES)
        self.assertIs(self.connection.session.state, State.RECEIVING)

    def test_what_waits_counts_before_a_camera_is_called_slow(self) -> None:
        """It is the gateway that has not read it yet; but what comes too slowly does, read or not."""
        for frames, is_slow in ((5, False), (1, True)):
            self.listen(min_rate=2000, min_rate_time=10)
            camera = self.begun()
            camera.sendall(b"".join(FRAMES[:17]))
            self.reactor.spin_until(lambda: self.connection.reads)
            camera.sendall(b"".join(FRAMES[17 : 17 + frames]))
            self.turn()
            self.assertEqual(self.held_bytes, 17 * c.PACKET_BYTES)
            transfer = self.connection.session.transfer
            now = self.reactor.seconds() + 10
            self.connection.timing.heard = now - 1
            self.connection.check_time(now)
            self.assertIs(self.connection.session.state is State.ENDED, is_slow)
            self.assertEqual(transfer.held_bytes, (17 + frames) * c.PACKET_BYTES)  # type: ignore[union-attr]

    def test_what_waits_is_kept_when_the_connection_is_taken_over(self) -> None:
        """The newer connection goes on behind what the older one had sent, read or not."""
        old = self.begun()
        old.sendall(b"".join(FRAMES[:7]))
        new = self.camera()
        new.setblocking(False)
        heard = bytearray()

        def asked() -> bool:
            with contextlib.suppress(BlockingIOError):
                heard.extend(new.recv(4096))
            return c.Resume(7 * c.PACKET_BYTES).encode() in heard

        self.reactor.spin_until(asked)

    def test_what_waits_is_kept_at_the_stop(self) -> None:
        """A stop parks what had come, read or not."""
        camera = self.begun()
        transfer = self.connection.session.transfer
        camera.sendall(b"".join(FRAMES[:9]))
        self.successResultOf(self.factory.stop())
        self.assertEqual(transfer.held_bytes, 9 * c.PACKET_BYTES)  # type: ignore[union-attr]

    def test_the_end_of_a_connection_is_no_reason_to_lose_what_waits(self) -> None:
        """Closed and reset connections: what had come before is read."""
        for reset in (False, True):
            self.listen()
            camera = self.begun()
            transfer = self.connection.session.transfer
            camera.sendall(b"".join(FRAMES[:5]))
            if reset:
                camera.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            camera.close()
            self.reactor.spin_until(lambda: not self.factory.connections)
            self.assertEqual(transfer.held_bytes, 5 * c.PACKET_BYTES)  # type: ignore[union-attr]

    def test_each_segment_at_once_where_that_is_wanted(self) -> None:
        """With receive-low-water=1 nothing is gathered."""
        self.listen(receive_low_water=1)
        camera = self.begun()
        camera.sendall(FRAMES[0])
        self.reactor.spin_until(lambda: self.connection.reads)
        self.assertEqual(self.connection.reads, [len(FRAMES[0])])

    def test_answers_that_the_system_does_not_take_at_once_come_in_order(self) -> None:
        """A peer that does not read: what could not be sent follows when it does, and nothing overtakes it."""
        camera = self.connect()
        self.reactor.spin_until(lambda: self.factory.made)
        said = [bytes([number]) * 1_000_000 for number in range(8)]
        for one in said:
            self.connection._send(one, renews=False)
        camera.setblocking(False)
        heard = bytearray()

        def all_heard() -> bool:
            with contextlib.suppress(BlockingIOError):
                heard.extend(camera.recv(1 << 20))
            return len(heard) == sum(map(len, said))

        self.reactor.spin_until(all_heard)
        self.assertEqual(bytes(heard), b"".join(said))
