"""Connections over a real store: replies, time limits, back-pressure, takeover, and what a failing disk leads to."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import struct
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dsmgateway import commands as c
from dsmgateway.crc import crc16
from dsmgateway.factory import SWEEP_AT_ONCE, SWEEP_PAUSE_S, CameraFactory
from dsmgateway.framing import GatewayDecoder
from dsmgateway.limits import LINGER_S
from dsmgateway.protocol import (
    APPEND_COST_BYTES,
    BACKLOG_HIGH_BYTES,
    GIVE_WAY_S,
    UNWRITTEN_HIGH_BYTES,
    CameraProtocol,
)
from dsmgateway.session import Session
from dsmgateway.settings import Settings
from dsmgateway.states import State
from dsmgateway.store import Disk
from tests import conftest as build
from tests.hand_worker import HandWorker
from tests.store_faults import FaultyDisk

FILE = build.content(5000)
ASKED_UP_TO_START = (
    c.PathRequest().encode() + c.MetadataRequest().encode() + c.FileRequest(build.PATH).encode() + c.Resume(0).encode()
)


class FailingDisk(Disk):
    """A disk whose named call fails with an error number while ``broken``."""

    def __init__(self, call: str, number: int) -> None:
        super().__init__()
        self.broken = False
        self._number = number
        real = getattr(self, call)

        def failing(path: Path, *arguments: Any) -> Any:
            if self.broken:
                raise self._failure(path)
            return real(path, *arguments)

        setattr(self, call, failing)

    def _failure(self, path: Path) -> Exception:
        from dsmgateway.errors import StoreError

        return StoreError(f"write {path}: {errno.errorcode[self._number]}")


class BuggySession(Session):
    """A session with an error of our own."""

    __slots__ = ()

    def receive(self, event: Any) -> Any:
        raise ZeroDivisionError("a bug")

    def opened(self, offset_bytes: int, comparing: bool) -> Any:
        raise ZeroDivisionError("a bug")

    def timed_out(self) -> Any:
        raise ZeroDivisionError("a bug")

    def stop(self) -> Any:
        raise ZeroDivisionError("a bug")


class Link:
    """A connection of a device to the factory under test."""

    def __init__(self, factory: CameraFactory, port: int = 40000) -> None:
        self.protocol: CameraProtocol = factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", port))
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)

    def send(self, *commands: c.DeviceCommand | bytes) -> None:
        for command in commands:
            self.protocol.dataReceived(command if isinstance(command, bytes) else command.encode())

    def answers(self) -> bytes:
        answer = self.transport.value()
        self.transport.clear()
        return answer

    def lose(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def state(self) -> State:
        return self.protocol.session.state


class Base(SynchronousTestCase):
    """A factory over a real store, a clock that is set by hand, and all events that were logged."""

    automatic = True
    disk: Disk | None = None

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.worker = HandWorker(self.folder, self.automatic, self.disk)
        self.worker.start()
        self.addCleanup(self.worker.stop)
        self.clock = Clock()
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.make_factory()

    def make_factory(self, **changes: Any) -> None:
        settings = replace(Settings(), data=self.folder, **changes)
        self.pauses: list[float] = []
        self.factory = CameraFactory(settings, self.worker, self.clock, sleep=self.pauses.append)

    def wait(self, seconds: float) -> None:
        """Let time pass as the service does: a sweep a second."""
        for _ in range(round(seconds)):
            self.clock.advance(1)
            self.factory.sweep()

    def logged(self, name: str) -> list[dict[str, Any]]:
        return [event["fields"] for event in self.events if event.get("event") == name]

    def receiving(self, file: bytes = FILE, **more: Any) -> Link:
        """A connection that has just sent SYNC 0."""
        link = Link(self.factory, **more)
        link.send(*build.opening(file))
        self.assertEqual(link.answers(), ASKED_UP_TO_START)
        return link

    def stored(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted((self.folder / "media").rglob("*.jpg"))]


class Conversations(Base):
    """Whole conversations, as a device sees them."""

    def test_a_file_is_acknowledged_when_it_is_stored(self) -> None:
        """A whole file is on disk with its sidecar before REPEAT_INIT goes out, and CLOSE ends the session."""
        link = self.receiving()
        link.send(*build.data_frames(FILE))
        self.assertEqual(link.answers(), c.RepeatInit().encode())
        self.assertEqual(self.stored(), [FILE])
        (sidecar,) = (json.loads(path.read_text()) for path in (self.folder / "media").rglob("*.json"))
        self.assertEqual(sidecar["sha256"], hashlib.sha256(FILE).hexdigest())
        self.assertEqual(sidecar["peer"], "192.0.2.1:40000")
        self.assertEqual(sidecar["metadata"]["driver"], "JONAS K")
        link.send(build.init(build.IDLE))
        self.assertEqual(link.answers(), c.Close().encode())
        self.assertTrue(link.transport.disconnecting)

    def test_after_file_complete_says_status_0(self) -> None:
        """With after_file complete the device is told that all is done, and left to disconnect."""
        self.make_factory(after_file="complete", metadata=False)
        link = Link(self.factory)
        link.send(build.init(), c.Path(build.PATH), c.Start(len(FILE), 0), c.Sync(0), *build.data_frames(FILE))
        self.assertTrue(link.answers().endswith(c.Status(0).encode()))
        self.assertFalse(link.transport.disconnecting)

    def test_an_interrupted_file_goes_on_in_the_next_connection(self) -> None:
        """What a lost connection brought is kept; the next one is asked for the rest only."""
        link = self.receiving()
        link.send(*build.data_frames(FILE)[:3], build.data_frames(FILE)[3][:500])
        link.lose()
        again = Link(self.factory)
        again.send(*build.opening(FILE)[:4])
        self.assertTrue(again.answers().endswith(c.Resume(3072).encode()))
        again.send(c.Sync(3072), *build.data_frames(FILE, 3072))
        self.assertEqual(again.answers(), c.RepeatInit().encode())
        self.assertEqual(self.stored(), [FILE])

    def test_the_newest_connection_takes_over(self) -> None:
        """A second connection of the device ends the first, whose bytes are kept."""
        old = self.receiving()
        old.send(*build.data_frames(FILE)[:2])
        new = Link(self.factory, port=40001)
        new.send(build.init())
        self.assertTrue(old.transport.disconnecting)
        self.assertIs(old.state, State.ENDED)
        old.send(*build.data_frames(FILE)[2:])
        old.lose()
        new.send(*build.opening(FILE)[1:4])
        self.assertTrue(new.answers().endswith(c.Resume(2048).encode()))
        self.assertEqual(len(self.factory.registry), 1)
        new.lose()
        self.assertEqual(len(self.factory.registry), 0)

    def test_the_same_file_again_is_acknowledged_without_a_copy(self) -> None:
        """A file that is offered again with START CRC 0 is taken, compared and not stored twice."""
        for _ in range(2):
            link = self.receiving()
            link.send(*build.data_frames(FILE))
            self.assertEqual(link.answers(), c.RepeatInit().encode())
            link.lose()
        self.assertEqual(self.stored(), [FILE])
        self.assertEqual(len(self.logged("file.known")), 1)

    def test_a_known_crc_needs_only_the_last_packet(self) -> None:
        """With the CRC of a stored file in START only the last packet is asked for, and compared."""
        crc = build.crc16(FILE)
        first, again = Link(self.factory), Link(self.factory)
        first.send(*build.opening(FILE, crc=crc), *build.data_frames(FILE))
        first.lose()
        again.send(*build.opening(FILE, crc=crc)[:4])
        self.assertTrue(again.answers().endswith(c.Resume(4096).encode()))
        again.send(c.Sync(4096), *build.data_frames(FILE, 4096))
        self.assertEqual(again.answers(), c.RepeatInit().encode())
        self.assertEqual(self.stored(), [FILE])

    def test_a_known_crc_and_a_short_last_packet_need_two(self) -> None:
        """What two bytes have in common proves nothing; a cut frame of them is asked for again by itself."""
        file = FILE[:4098]
        crc = build.crc16(file)
        first, again = Link(self.factory), Link(self.factory)
        first.send(*build.opening(file, crc=crc), *build.data_frames(file))
        first.lose()
        again.send(*build.opening(file, crc=crc)[:4])
        self.assertTrue(again.answers().endswith(c.Resume(3072).encode()))
        whole, short = build.data_frames(file, 3072)
        again.send(c.Sync(3072), whole, short[:-1] + b"!")
        self.assertEqual(again.answers(), c.Resume(4096).encode())
        again.send(c.Sync(4096), *build.data_frames(file, 4096))
        self.assertEqual(again.answers(), c.RepeatInit().encode())
        self.assertEqual(self.stored(), [file])
        self.assertEqual(len(self.logged("file.known")), 1)

    def test_a_last_packet_that_differs_has_the_file_taken_whole(self) -> None:
        """Two files with the same path, size and CRC are told apart; both are kept."""
        other = bytearray(FILE)
        other[-3:] = b"abc"
        crc = build.crc16(FILE)
        first, again = Link(self.factory), Link(self.factory)
        first.send(*build.opening(FILE, crc=crc), *build.data_frames(FILE))
        first.lose()
        again.send(*build.opening(bytes(other), crc=crc)[:4], c.Sync(4096), *build.data_frames(bytes(other), 4096))
        self.assertTrue(again.answers().endswith(c.Resume(0).encode()))
        again.send(c.Sync(0), *build.data_frames(bytes(other)))
        self.assertEqual(again.answers(), c.RepeatInit().encode())
        self.assertEqual(sorted(self.stored()), sorted([FILE, bytes(other)]))
        (line,) = self.logged("file.crc_differs")
        self.assertEqual(line["path"], self.logged("file.stored")[1]["path"])

    def test_what_is_no_device_is_aborted_with_a_reason(self) -> None:
        """A web browser is turned away at its first bytes, and costs one line."""
        link = Link(self.factory)
        link.send(b"GET / HTTP/1.1\r\n\r\n")
        self.assertTrue(link.transport.disconnected)
        self.assertEqual(link.answers(), b"")
        (line,) = self.logged("peer.error")
        self.assertIn("expected INIT", line["reason"])
        self.assertEqual((line["state"], line["expected"]), ("await_init", "INIT"))

    def test_vectors_get_the_exact_answers(self) -> None:
        """Every recorded conversation, in its own segments, is answered to the byte and stored."""
        for path in sorted(build.VECTORS.glob("*.json")):
            vector = json.loads(path.read_text())
            with self.subTest(path.stem):
                for connection in vector["connections"]:
                    self.replay(connection["steps"])
                for wanted in vector["stored"]:
                    self.assert_stored(wanted)

    def replay(self, steps: list[dict[str, Any]]) -> None:
        link = Link(self.factory)
        for step in steps:
            if step["from"] == "device" and "hex" in step:
                link.send(bytes.fromhex(step["hex"]))
            elif step["from"] == "gateway" and "hex" in step:
                expected = bytes.fromhex(step["hex"])
                self.assertEqual(link.transport.value()[: len(expected)], expected)
                rest = link.transport.value()[len(expected) :]
                link.transport.clear()
                link.transport.write(rest)
            elif step["from"] == "gateway":
                self.assertTrue(link.transport.disconnecting)
        self.assertEqual(link.transport.value(), b"")
        link.lose()

    def assert_stored(self, wanted: dict[str, Any]) -> None:
        sidecars = [json.loads(path.read_text()) for path in (self.folder / "media" / wanted["imei"]).rglob("*.json")]
        (sidecar,) = (one for one in sidecars if one["device_path"] == wanted["device_path"])
        self.assertEqual((sidecar["size"], sidecar["sha256"]), (wanted["size"], wanted["sha256"]))
        for name, value in wanted.get("metadata", {}).items():
            self.assertEqual(sidecar["metadata"][name], value)


class Time(Base):
    """Silence in every state."""

    def test_no_init(self) -> None:
        """A connection that says nothing is closed after init_timeout."""
        link = Link(self.factory)
        self.wait(9)
        self.assertFalse(link.transport.disconnecting)
        self.wait(1)
        self.assertTrue(link.transport.disconnecting)
        self.assertEqual(self.logged("session.silent")[0]["expected"], "INIT")

    def test_no_metadata(self) -> None:
        """Missing metadata is gone on without."""
        link = Link(self.factory)
        link.send(build.init(), c.Path(build.PATH))
        link.answers()
        self.wait(15)
        self.assertEqual(link.answers(), c.FileRequest(build.PATH).encode())
        self.assertIs(link.state, State.AWAIT_START)

    def test_silence_in_a_file(self) -> None:
        """File data that stops is asked for again, a few times, then the file is parked."""
        self.make_factory(min_rate_time=120)
        link = self.receiving()
        link.send(*build.data_frames(FILE)[:2])
        self.wait(20)
        self.assertEqual(link.answers(), c.Resume(2048).encode())
        self.wait(30)
        self.assertEqual(link.answers(), c.Resume(2048).encode() * 2)
        self.assertFalse(link.transport.disconnecting)
        self.wait(15)
        self.assertTrue(link.transport.disconnecting)
        self.assertEqual(link.answers(), b"")
        self.assertEqual(self.logged("file.parked")[0]["held"], 2048)
        states = [line["state"] for line in self.logged("data.silent")]
        self.assertEqual(states, ["receiving"] + ["await_sync"] * 3)

    def test_init_inside_a_cut_frame_is_seen_when_the_time_is_up(self) -> None:
        """A frame that was cut, and an INIT after it: once no more data comes, the device is answered at once."""
        link = self.receiving()
        link.send(build.data_frames(FILE)[0][:500], build.init())
        self.assertEqual(link.answers(), b"")
        self.wait(20)
        self.assertEqual(link.answers(), c.Resume(0).encode() + c.PathRequest().encode())

    def test_no_device_is_blamed_while_the_gateway_stalled(self) -> None:
        """As long as it did is said, and counts for nobody; what was before it, and comes after it, does."""
        links = [Link(self.factory), self.receiving()]
        self.wait(6)
        self.clock.advance(3600)
        late = Link(self.factory)
        self.factory.sweep()
        self.wait(3)
        self.assertEqual([link.transport.disconnecting for link in links], [False, False])
        self.assertEqual(self.logged("gateway.stalled"), [{"after": 3600.0}])
        self.wait(1)
        self.assertTrue(links[0].transport.disconnecting)
        self.wait(5)
        self.assertFalse(late.transport.disconnecting)
        self.wait(1)
        self.assertTrue(late.transport.disconnecting)
        self.assertEqual(self.logged("data.silent"), [])

    def test_a_stall_in_the_middle_of_a_sweep_is_one_too(self) -> None:
        """Those that were not looked at yet are excused like those that were."""
        links = [Link(self.factory) for _ in range(SWEEP_AT_ONCE + 1)]
        self.wait(6)
        self.clock.pump([0.5, 0.5])
        self.factory.sweep()
        self.clock.advance(60)
        self.assertEqual(self.logged("gateway.stalled"), [{"after": 60.0}])
        self.factory.sweep()
        self.clock.advance(1)
        self.assertEqual([link for link in links if link.transport.disconnecting], [])

    def test_a_sweep_that_is_a_little_late_excuses_nobody(self) -> None:
        """A busy gateway is no reason to let everybody stay."""
        link = Link(self.factory)
        self.wait(6)
        self.clock.advance(4.5)
        self.factory.sweep()
        self.assertTrue(link.transport.disconnecting)
        self.assertEqual(self.logged("gateway.stalled"), [])

    def test_a_peer_that_does_not_read_is_aborted(self) -> None:
        """A connection that has ended but does not go away is aborted."""
        link = Link(self.factory)
        link.send(build.init(build.IDLE))
        self.wait(LINGER_S - 1)
        self.assertFalse(link.transport.disconnected)
        self.wait(1)
        self.assertTrue(link.transport.disconnected)


class SlowDisk(Base):
    """The store answers when the test says so."""

    automatic = False

    def begun(self, file: bytes = FILE) -> Link:
        link = Link(self.factory)
        link.send(*build.opening(file)[:4])
        self.worker.run()
        link.send(c.Sync(0))
        link.answers()
        return link

    def test_nothing_is_read_while_the_store_opens(self) -> None:
        """The transport is paused until the store says where the file stands; what came is taken then."""
        link = Link(self.factory)
        link.send(*build.opening(FILE)[:3], build.opening(FILE)[3] + build.opening(FILE)[3])
        self.assertEqual(link.transport.producerState, "paused")
        self.worker.run()
        self.assertEqual(link.transport.producerState, "producing")
        self.assertIs(link.state, State.AWAIT_SYNC)
        self.assertTrue(link.answers().endswith(c.Resume(0).encode() * 2))

    def test_the_store_is_spared_what_nobody_waits_for(self) -> None:
        """Of all connections of a device that ask where its file stands only the newest costs the disk anything."""
        links = [Link(self.factory, port=40000 + number) for number in range(4)]
        for link in links:
            link.send(*build.opening(FILE)[:4])
        links[3].lose()
        with_file = Link(self.factory, port=40004)
        with_file.send(*build.opening(FILE)[:4])
        opened: list[str] = []
        real_open = self.worker.store.open
        self.patch(self.worker.store, "open", lambda *args, **more: opened.append(args[1]) or real_open(*args, **more))
        self.worker.run()
        self.assertEqual(opened, ["192.0.2.1:40004"])
        self.assertTrue(with_file.answers().endswith(c.Resume(0).encode()))
        self.assertEqual([link.answers() for link in links], [ASKED_UP_TO_START[: -len(c.Resume(0).encode())]] * 4)
        self.assertEqual(self.logged("store.failed"), [])

    def test_no_acknowledgement_before_the_disk_has_answered(self) -> None:
        """All bytes are here, nothing is on disk yet: nothing is said, and STATUS 1 after it changes nothing."""
        link = self.begun()
        link.send(b"".join(build.data_frames(FILE)) + c.Status(1).encode())
        self.assertEqual(link.answers(), b"")
        self.assertEqual(link.transport.producerState, "paused")
        self.worker.run()
        self.assertEqual(link.answers(), c.RepeatInit().encode())
        self.assertEqual(self.logged("device.status")[0]["code"], 1)
        self.assertEqual(self.stored(), [FILE])

    def test_a_slow_disk_pauses_the_sender(self) -> None:
        """What is handed to the store and not written is bounded: the transport is paused, then goes on."""
        file = build.content(2 * UNWRITTEN_HIGH_BYTES)
        link = self.begun(file)
        frames = build.data_frames(file)
        held = UNWRITTEN_HIGH_BYTES // (c.PACKET_BYTES + APPEND_COST_BYTES)
        link.send(*frames[:held])
        self.assertEqual(link.transport.producerState, "producing")
        link.send(frames[held])
        self.assertEqual(link.transport.producerState, "paused")
        self.assertEqual(self.pauses, [], "one slow device slows nobody else down")
        self.worker.run()
        self.assertEqual(link.transport.producerState, "producing")
        link.send(*frames[held + 1 :])
        self.worker.run()
        self.assertEqual(link.answers(), c.RepeatInit().encode())

    def test_all_senders_together_are_bounded(self) -> None:
        """When the disk hangs for everybody, a sender is paused before its own share is used up."""
        link = self.begun()
        link.send(build.data_frames(FILE)[0])
        self.worker.backlog_bytes = BACKLOG_HIGH_BYTES + 1
        self.assertEqual(self.pauses, [])
        link.send(build.data_frames(FILE)[1])
        self.assertEqual(link.transport.producerState, "paused")
        self.assertEqual(self.pauses, [GIVE_WAY_S], "the store has to have the interpreter to write any of it")
        self.worker.backlog_bytes = 0
        self.wait(1)
        self.assertEqual(link.transport.producerState, "producing")
        self.assertEqual(self.pauses, [GIVE_WAY_S])

    def test_what_was_of_another_file_is_not_waited_for(self) -> None:
        """A paused sender goes on once the store has found that its identifier names another file by now."""
        older, newer = (build.content(2 * UNWRITTEN_HIGH_BYTES, seed) for seed in (1, 2))
        link = self.asked_by_identifier(older)
        self.assertTrue(link.answers().endswith(c.Resume(0).encode()))
        link.send(c.Sync(1), *build.data_frames(older)[:5])
        link.lose()
        self.worker.run()
        link = self.asked_by_identifier(newer)
        self.assertTrue(link.answers().endswith(c.Resume(5).encode()))
        link.send(c.Sync(5), *build.data_frames(newer, 4 * c.PACKET_BYTES)[:200])
        self.assertEqual(link.transport.producerState, "paused")
        self.worker.run()
        self.assertEqual(len(self.logged("file.another")), 1)
        self.assertTrue(link.answers().endswith(c.Resume(0).encode()))
        self.assertEqual(link.transport.producerState, "producing")
        link.send(c.Sync(1), *build.data_frames(newer))
        self.worker.run()
        self.assertEqual(link.answers(), c.RepeatInit().encode())

    def asked_by_identifier(self, file: bytes) -> Link:
        """A connection that has just been asked for a front photo of DualCam's, which is counted in packets."""
        link = Link(self.factory)
        metadata = struct.pack(">BBQBHBhdd", 3, 4, 1_763_800_000_123, 9, 0, 25, 120, 54.687157, 25.279652)
        packets = len(file) // c.PACKET_BYTES
        link.send(build.init(0x04000000), c.MetadataResponse(metadata), c.Start(packets, 0))
        self.worker.run()
        return link

    def test_our_slow_disk_is_not_blamed_on_the_device(self) -> None:
        """While we do not read, no silence is held against the device, in whichever state; nor right after."""
        file = build.content(2 * UNWRITTEN_HIGH_BYTES)
        frames = build.data_frames(file)
        link = self.begun(file)
        link.send(b"".join([*frames[:300], b"\0" + frames[300][1:100] + b"\xff" + frames[300][101:], frames[301]]))
        self.assertIs(link.state, State.AWAIT_SYNC)
        self.assertEqual(link.transport.producerState, "paused")
        link.answers()
        self.wait(60)
        self.assertEqual((link.answers(), self.logged("data.silent")), (b"", []))
        self.worker.run()
        self.assertEqual(link.transport.producerState, "producing")
        self.wait(14)
        self.assertEqual(self.logged("data.silent"), [])

    def test_half_close_behind_the_last_byte(self) -> None:
        """A device that has closed its side is still told that its file is stored, then the connection ends."""
        link = self.begun()
        link.send(*build.data_frames(FILE))
        link.protocol.readConnectionLost()
        self.assertFalse(link.transport.disconnecting)
        self.worker.run()
        self.assertEqual(link.answers(), c.RepeatInit().encode())
        self.assertTrue(link.transport.disconnecting)
        self.assertFalse(link.transport.disconnected)

    def test_half_close_in_mid_file(self) -> None:
        """From a device that has closed its side nothing more will come: the file is parked."""
        link = self.begun()
        link.send(*build.data_frames(FILE)[:2])
        link.protocol.writeConnectionLost()
        link.protocol.readConnectionLost()
        self.worker.run()
        self.assertTrue(link.transport.disconnecting)
        self.assertEqual(self.logged("file.parked")[0]["held"], 2048)

    def test_stop_lets_a_file_that_is_being_stored_be_acknowledged(self) -> None:
        """A device whose last byte has come hears of it before the gateway stops; it would send all of it again."""
        link = self.begun()
        link.send(*build.data_frames(FILE))
        stopped = self.factory.stop()
        self.worker.run()
        self.successResultOf(stopped)
        self.assertEqual(link.answers(), c.RepeatInit().encode())
        self.assertTrue(link.transport.disconnecting)

    def test_a_disk_that_lags_behind_for_too_long_ends_the_session(self) -> None:
        """A sender that stays paused is ended without a word, not asked for data that it could not deliver."""
        file = build.content(2 * UNWRITTEN_HIGH_BYTES)
        link = self.begun(file)
        link.send(*build.data_frames(file)[: UNWRITTEN_HIGH_BYTES // c.PACKET_BYTES + 1])
        self.wait(119)
        self.assertFalse(link.transport.disconnecting)
        self.wait(1)
        self.assertTrue(link.transport.disconnecting)
        self.assertEqual(link.answers(), b"")

    def test_a_disk_that_does_not_answer_ends_the_session(self) -> None:
        """A finish that takes too long is not acknowledged; when it is done after all, the log says so."""
        link = self.begun()
        link.send(*build.data_frames(FILE))
        self.wait(120)
        self.assertTrue(link.transport.disconnecting)
        self.assertEqual(len(self.logged("store.slow")), 1)
        self.worker.run()
        self.assertEqual(link.answers(), b"")
        self.assertEqual(len(self.logged("file.stored")), 1)

    def test_a_connection_lost_while_the_store_opens_leaves_nothing_open(self) -> None:
        """An upload that is opened for nobody is parked at once."""
        link = Link(self.factory)
        link.send(*build.opening(FILE)[:4])
        link.lose()
        self.worker.run()
        self.assertEqual(self.factory.under_way, set())
        again = self.begun()
        again.send(*build.data_frames(FILE))
        self.worker.run()
        self.assertEqual(again.answers(), c.RepeatInit().encode())

    def test_a_connection_lost_while_a_comparison_is_under_way(self) -> None:
        """A comparison that comes out different for nobody is forgotten."""
        link = Link(self.factory)
        link.send(*build.opening(FILE, crc=build.crc16(FILE))[:4])
        self.worker.run()
        link.send(c.Sync(0), *build.data_frames(FILE))
        self.worker.run()
        other = FILE[:-3] + b"abc"
        again = Link(self.factory)
        again.send(*build.opening(other, crc=build.crc16(FILE))[:4])
        self.worker.run()
        again.send(c.Sync(4096), *build.data_frames(other, 4096))
        again.lose()
        self.worker.run()
        self.assertEqual(self.factory.under_way, set())
        self.assertEqual(self.stored(), [FILE])

    def test_stop_waits_for_what_is_under_way(self) -> None:
        """The factory's stop parks the files and fires when the store has done so."""
        link = self.begun()
        link.send(*build.data_frames(FILE)[:4])
        stopped = self.factory.stop()
        self.assertNoResult(stopped)
        self.worker.run()
        self.successResultOf(stopped)
        again = Link(self.factory)
        again.send(*build.opening(FILE)[:4])
        self.worker.run()
        self.assertTrue(again.answers().endswith(c.Resume(4096).encode()))


class BrokenDisk(Base):
    """The disk fails: no acknowledgement, one clear line, later success."""

    def setUp(self) -> None:
        self.disk = FailingDisk(self.call, errno.EIO)
        super().setUp()

    call = "write"

    def fails_then_succeeds(self) -> None:
        link = self.receiving()
        self.disk.broken = True
        link.send(*build.data_frames(FILE))
        self.assertTrue(link.transport.disconnecting)
        self.assertEqual(link.answers(), b"")
        link.lose()
        (line,) = self.logged("store.failed")
        self.assertIn("EIO", line["reason"])
        self.assertIn(line["state"], ("receiving", "storing"))
        self.disk.broken = False
        again = Link(self.factory)
        again.send(*build.opening(FILE)[:4])
        offset_bytes = int.from_bytes(again.answers()[-4:], "big")
        again.send(c.Sync(offset_bytes), *build.data_frames(FILE, offset_bytes))
        self.assertEqual(again.answers(), c.RepeatInit().encode())
        self.assertEqual(self.stored(), [FILE])

    def test_write(self) -> None:
        """A write fails."""
        self.fails_then_succeeds()


class BrokenFsync(BrokenDisk):
    """As above, when the part is made durable."""

    call = "fsync"


class BrokenRename(BrokenDisk):
    """As above, when the part gets its name."""

    call = "rename"


class NoRoomLeft(Base):
    """The disk has no room, or fails: new files are answered with CLOSE, files under way go on."""

    def setUp(self) -> None:
        self.disk = FaultyDisk(errno=errno.EIO)
        self.free_bytes = 1 << 30
        self.disk.free_bytes = lambda path: self.free_bytes  # type: ignore[method-assign]
        super().setUp()

    def turned_away(self, number: int = 0) -> None:
        """A camera with a file of its own comes, hears CLOSE after START, and the connection ends."""
        link = Link(self.factory, 50000 + number)
        link.send(build.init(imei=350000000000000 + number), *build.opening(FILE)[1:4])
        *_, last = self.said(link)
        self.assertIsInstance(last, c.Close)
        self.assertTrue(link.transport.disconnecting)
        link.lose()

    def said(self, link: Link) -> list[c.GatewayCommand]:
        decoder = GatewayDecoder()
        decoder.feed(link.answers())
        return list(iter(decoder.next_command, None))

    def test_no_room(self) -> None:
        """Twenty cameras are turned away and the log says so once in a minute; the file under way is stored."""
        under_way = self.receiving()
        self.free_bytes = len(FILE)
        for number in range(20):
            self.turned_away(number)
        under_way.send(*build.data_frames(FILE))
        self.assertEqual(under_way.answers(), c.RepeatInit().encode())
        self.assertEqual(self.stored(), [FILE])
        (line,) = self.logged("store.full")
        self.assertEqual(line["suppressed"], 0)
        self.assertIn("of 350000000000000: ", line["reason"])
        self.free_bytes = 0
        self.wait(60)
        self.turned_away(20)
        self.assertEqual(self.logged("store.full")[1]["suppressed"], 19)
        self.assertEqual(self.logged("store.failed"), [])
        self.assertEqual(self.logged("device.disconnected")[0]["reason"], "no room on the disk")

    def test_a_failing_disk(self) -> None:
        """One camera pays for the error, twenty are turned away without a line, and all is well after a probe."""
        link = self.receiving()
        self.disk.only, self.disk.calls, self.disk.fail_at = "fsync", [], 1
        link.send(*build.data_frames(FILE))
        self.assertEqual(link.answers(), b"")
        link.lose()
        self.disk.only, self.disk.calls, self.disk.fail_at = "", [], 0
        for number in range(20):
            self.turned_away(number)
        self.assertEqual(self.disk.calls, [])
        self.assertEqual(len(self.logged("store.failed")), 1)
        self.assertEqual(self.logged("store.full"), [])
        self.assertEqual({line["reason"] for line in self.logged("device.disconnected")[1:]}, {"the disk is failing"})
        self.assertTrue(self.successResultOf(self.worker.probe()))
        again = self.receiving()
        again.send(*build.data_frames(FILE))
        self.assertEqual(again.answers(), c.RepeatInit().encode())

    def test_a_known_file_that_differs_is_not_closed(self) -> None:
        """Its last packet was asked for already, so CLOSE could be taken for an answer to that."""
        crc = crc16(FILE)
        first = Link(self.factory)
        first.send(*build.opening(FILE, crc=crc), *build.data_frames(FILE))
        first.lose()
        other = FILE[:-1] + bytes([FILE[-1] ^ 1])
        link = Link(self.factory, 40001)
        link.send(*build.opening(FILE, crc=crc)[:4])
        offset_bytes = int.from_bytes(link.answers()[-4:], "big")
        self.assertGreater(offset_bytes, 0)
        self.free_bytes = 0
        link.send(c.Sync(offset_bytes), *build.data_frames(other, offset_bytes))
        self.assertEqual(link.answers(), b"")
        self.assertTrue(link.transport.disconnecting)


class Bugs(Base):
    """Errors of our own cost the connection, not the file, and are logged with their traceback."""

    def test_a_bug_while_receiving_aborts_the_connection(self) -> None:
        """The device keeps its copy, the part is kept, the traceback is logged."""
        link = self.receiving()
        link.send(*build.data_frames(FILE)[:2])
        link.protocol.session.__class__ = BuggySession
        link.send(build.data_frames(FILE)[2])
        self.assertTrue(link.transport.disconnected)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        link.lose()
        again = Link(self.factory)
        again.send(*build.opening(FILE)[:4])
        self.assertTrue(again.answers().endswith(c.Resume(2048).encode()))

    def test_a_bug_after_an_answer_of_the_store(self) -> None:
        """What goes wrong when the store answers ends in the log too, not in a Deferred that nobody reads."""
        self.worker.automatic = False
        link = Link(self.factory)
        link.send(*build.opening(FILE)[:4])
        link.protocol.session.__class__ = BuggySession
        self.worker.run()
        self.assertTrue(link.transport.disconnected)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_bug_at_a_time_limit(self) -> None:
        """What goes wrong in the sweep costs that connection; the others are still looked at."""
        links = [Link(self.factory) for _ in range(2)]
        links[0].protocol.session.__class__ = BuggySession
        self.wait(10)
        self.assertEqual([link.transport.disconnecting for link in links], [True, True])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_sweep_over_many_connections_comes_in_pieces(self) -> None:
        """Others are heard between them; each connection is looked at once, unless it has ended meanwhile."""
        links = [Link(self.factory) for _ in range(2 * SWEEP_AT_ONCE + 1)]
        self.clock.advance(10)
        self.factory.sweep()
        ended = sum(link.transport.disconnecting for link in links)
        self.assertEqual(ended, SWEEP_AT_ONCE)
        left = [link for link in links if not link.transport.disconnecting]
        left[0].lose()
        self.factory.sweep()
        self.assertEqual(sum(link.transport.disconnecting for link in links), ended, "the round goes on by itself")
        self.clock.pump([SWEEP_PAUSE_S] * 3)
        self.assertEqual(sum(link.transport.disconnecting for link in links), len(links) - 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_bug_at_the_stop(self) -> None:
        """One connection that cannot be ended does not keep the others from being parked."""
        links = [self.receiving(), Link(self.factory), Link(self.factory)]
        links[1].protocol.session.__class__ = BuggySession
        self.successResultOf(self.factory.stop())
        self.assertEqual([link.transport.disconnecting for link in links], [True, True, True])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)


class Tracing(Base):
    """The bytes of a connection in a file."""

    def test_both_directions(self) -> None:
        """With a trace folder every connection's bytes are written, with times and directions."""
        folder = self.folder / "trace"
        self.make_factory(trace=folder)
        link = Link(self.factory)
        link.send(build.init(build.IDLE))
        link.lose()
        (path,) = folder.iterdir()
        init = build.init(build.IDLE).encode().hex()
        self.assertEqual(path.read_text(), f"0.000 device {init}\n0.000 gateway 00000000\n")

    def test_a_folder_that_cannot_be_written_is_said_once(self) -> None:
        """Tracing that fails does not disturb the connection."""
        self.folder.joinpath("trace").write_text("in the way")
        self.make_factory(trace=self.folder / "trace")
        link = Link(self.factory)
        link.send(build.init(build.IDLE))
        link.lose()
        self.assertEqual(link.answers(), c.Close().encode())
        self.assertEqual(len(self.logged("trace.failed")), 1)


class Peers(Base):
    """Names of peers."""

    def test_an_address_without_a_host(self) -> None:
        """A connection over a UNIX socket has the socket's name, or what is known of it."""
        for address, name in ((UNIXAddress(b"/run/dsm"), "/run/dsm"), (None, "None")):
            self.assertIn(name, self.factory.buildProtocol(address).peer)
