"""The door at work: who is refused at which moment, what it is told, and what cannot be stretched by a peer."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure

from dsmgateway import commands as c
from dsmgateway.admission import Roll
from dsmgateway.door import RefusedProtocol
from dsmgateway.factory import CameraFactory
from dsmgateway.states import State
from tests import conftest as build
from tests.test_protocol import FILE, Base, Link

CLOSE = c.Close().encode()
A, B, C = "192.0.2.1", "198.51.100.1", "203.0.113.1"


class From(Link):
    """A connection from an address."""

    def __init__(self, factory: CameraFactory, host: str = A, port: int = 40000) -> None:
        address = IPv4Address("TCP", host, port)
        self.protocol: Any = factory.buildProtocol(address)
        self.transport = StringTransport(peerAddress=address)
        self.protocol.makeConnection(self.transport)


class Devices(Base):
    """Who may come in."""

    def test_a_refused_device_is_told_close_and_nothing_else(self) -> None:
        """It takes over from nobody, no file is spoken of, and one line says it."""
        inside = self.receiving()
        self.factory.door.admission.roll = Roll(blocked=frozenset({str(build.IMEI)}))
        link = From(self.factory, B)
        link.send(build.init())
        self.assertEqual(link.answers(), CLOSE)
        self.assertTrue(link.transport.disconnecting)
        self.assertFalse(inside.transport.disconnecting)
        link.send(c.Path(build.PATH))
        link.lose()
        self.assertEqual(
            self.logged("device.refused"),
            [{"imei": str(build.IMEI), "address": B, "reason": "blocked", "suppressed": 0}],
        )
        self.assertEqual(len(self.logged("device.connected")), 1)
        self.assertEqual(self.logged("device.disconnected"), [])

    def test_a_refusal_that_is_repeated_is_said_once_a_minute(self) -> None:
        """With how often it happened since."""
        self.make_factory(admission="approve")
        for _ in range(130):
            link = From(self.factory)
            link.send(build.init())
            self.assertEqual(link.answers(), CLOSE)
            link.lose()
            self.clock.advance(1)
        self.assertEqual([line["suppressed"] for line in self.logged("device.refused")], [0, 59, 59])
        (seen,) = self.factory.door.admission.take_sightings().values()
        self.assertEqual((seen.count, seen.address), (130, A))

    def test_of_those_who_never_say_who_they_are_some_lines_are_written_and_then_one_a_minute(self) -> None:
        """For each reason and neighbourhood, whatever garbage comes; lines that name a device are all written."""
        for number in range(130):
            for words in (b"GET / HTTP/1.1", b"\x16\x03\x01\x02\0", bytes([200, number, 1, 2])):
                From(self.factory, A).send(words)
            named = From(self.factory, A)
            named.send(build.init(), b"\0\x09\0\x09")
            named.lose()
            self.clock.advance(1)
        From(self.factory, B).send(b"GET / HTTP/1.1")
        lines = self.logged("peer.error")
        self.assertEqual(len([line for line in lines if line.get("imei")]), 130)
        http = [line for line in lines if line["reason"].endswith("47455420 (HTTP)")]
        self.assertEqual([line.get("suppressed") for line in http], [None] * 5 + [55, 59, None])
        tls = [line for line in lines if line["reason"].endswith("16030102 (TLS)")]
        self.assertEqual(len(tls), 7)
        self.assertEqual(len([line for line in lines if line["reason"][-8:-6] == "c8"]), 7)

    def test_silence_is_said_however_many_others_are_thrown_out(self) -> None:
        """What never speaks is not drowned by what does."""
        for number in range(120):
            silent = From(self.factory, A)
            for _ in range(20):
                From(self.factory, A).send(b"\xc8" + bytes([number, 1, 2]))
            self.wait(1)
            if silent.transport.disconnected:
                silent.lose()
        self.assertGreaterEqual(len(self.logged("session.silent")), 5)
        self.assertLess(len(self.logged("peer.error")), 10)

    def test_a_device_that_is_blocked_while_it_sends_ends_with_its_file(self) -> None:
        """The file is taken and acknowledged; the next INIT is answered with CLOSE."""
        link = self.receiving()
        self.factory.door.admission.roll = Roll(blocked=frozenset({str(build.IMEI)}))
        link.send(*build.data_frames(FILE))
        self.assertEqual(link.answers(), c.RepeatInit().encode())
        link.send(build.init())
        self.assertEqual(link.answers(), CLOSE)
        link.lose()
        self.assertEqual(self.logged("device.disconnected")[0]["reason"], "blocked")
        self.assertEqual(self.stored(), [FILE])

    def test_init_in_the_middle_of_a_file_is_not_judged(self) -> None:
        """CLOSE is never said while a file is under way."""
        link = self.receiving()
        self.factory.door.admission.roll = Roll(blocked=frozenset({str(build.IMEI)}))
        link.send(build.init())
        self.assertEqual(link.answers(), c.PathRequest().encode())

    def test_over_a_unix_socket_no_address_is_said(self) -> None:
        """Nor counted."""
        self.make_factory(admission="approve")
        link = Link.__new__(Link)
        link.protocol, link.transport = self.factory.buildProtocol(UNIXAddress(b"/run/x")), StringTransport()
        link.protocol.makeConnection(link.transport)
        link.send(build.init())
        self.assertEqual(link.answers(), CLOSE)
        self.assertNotIn("address", self.logged("device.refused")[0])


class Connections(Base):
    """How many may come."""

    def test_one_too_many_of_an_address_is_aborted_at_once_and_counted(self) -> None:
        """The line names the address and the setting; the place of one that has gone is free again."""
        self.make_factory(max_connections_per_address=2)
        links = [From(self.factory, A, port) for port in (1, 2)]
        for _ in range(5):
            refused = From(self.factory)
            self.assertIsInstance(refused.protocol, RefusedProtocol)
            self.assertTrue(refused.transport.disconnected)
            refused.protocol.connectionLost()
        self.assertFalse(From(self.factory, B).transport.disconnected)
        self.assertEqual(
            self.logged("limit.connections"),
            [{"address": A, "setting": "max-connections-per-address", "most": 2, "suppressed": 0}],
        )
        links[0].lose()
        self.assertFalse(From(self.factory).transport.disconnected)
        self.clock.advance(60)
        From(self.factory)
        self.assertEqual(self.logged("limit.connections")[1]["suppressed"], 4)

    def test_behind_a_wrapper_as_of_tls_one_too_many_is_aborted_too(self) -> None:
        """And nothing stays counted of it."""
        self.make_factory(max_connections=1)
        wrapper = WrappingFactory(self.factory)
        transports = []
        for port in (1, 2):
            protocol = wrapper.buildProtocol(IPv4Address("TCP", A, port))
            transports.append(StringTransport())
            protocol.makeConnection(transports[-1])
            self.addCleanup(protocol.connectionLost, Failure(ConnectionDone()))
        self.assertEqual([transport.disconnected for transport in transports], [False, True])
        self.assertEqual(self.factory.door.crowd.in_all, 1)

    def test_what_is_built_and_never_connected_is_not_counted(self) -> None:
        """Whoever wraps the factory may change its mind."""
        self.make_factory(max_connections=1)
        for _ in range(10):
            self.factory.buildProtocol(IPv4Address("TCP", A, 1))
        self.assertEqual(self.factory.door.crowd.in_all, 0)
        self.assertFalse(From(self.factory).transport.disconnected)
        self.assertEqual(self.factory.door.crowd.in_all, 1)

    def test_the_system_bounds_connections_unless_the_operator_does(self) -> None:
        """A number in the settings is taken as it is."""
        self.factory.door.bound(1)
        self.assertFalse(From(self.factory).transport.disconnected)
        self.assertTrue(From(self.factory, B).transport.disconnected)
        self.make_factory(max_connections=2)
        self.factory.door.bound(1)
        self.assertEqual([From(self.factory).transport.disconnected for _ in range(3)], [False, False, True])

    def test_connections_that_come_too_fast(self) -> None:
        """The burst is let in, the rest is not."""
        self.make_factory(accept_rate_per_address=1)
        refused = 0
        for _ in range(30):
            link = From(self.factory)
            refused += link.transport.disconnected
            link.protocol.connectionLost()
        self.assertEqual(refused, 10)
        self.assertEqual(self.logged("limit.connections")[0]["setting"], "accept-rate-per-address")


class Day(Base):
    """What a device may deliver in a day."""

    def test_a_file_beyond_the_days_bytes_is_not_begun(self) -> None:
        """Nothing is acknowledged and no CLOSE is said; INIT is still answered as long as anything is left."""
        self.make_factory(device_bytes_per_day=2 * len(FILE) - 1)
        link = self.receiving()
        link.send(*build.data_frames(FILE), *build.opening(FILE)[:4])
        self.assertTrue(link.transport.disconnecting)
        self.assertFalse(link.answers().endswith(CLOSE))
        (line,) = self.logged("limit.device_day")
        self.assertEqual((line["imei"], line["address"], line["setting"]), (str(build.IMEI), A, "device-bytes-per-day"))
        self.assertEqual(self.factory.under_way, set())

    def test_when_the_day_is_full_init_is_answered_with_close(self) -> None:
        """Until midnight."""
        self.make_factory(device_files_per_day=1)
        now = [1000.0]
        self.factory.door._now = lambda: now[0]
        link = self.receiving()
        link.send(*build.data_frames(FILE))
        link.answers()
        link.send(build.init())
        self.assertEqual(link.answers(), CLOSE)
        link.lose()
        now[0] = 86400.0
        again = From(self.factory)
        again.send(build.init())
        self.assertEqual(again.answers(), c.PathRequest().encode())


class Flapping(Base):
    """Two senders with one IMEI."""

    def test_past_the_limit_the_other_address_is_refused_and_the_file_is_finished(self) -> None:
        """The one that was thrown out comes back until it is refused; then a file gets through."""
        self.make_factory(flapping_takeovers=3)
        links, turn = [From(self.factory, A)], 1
        links[0].send(build.init())
        while links[-1].answers() == c.PathRequest().encode():
            links.append(From(self.factory, (A, B)[turn % 2]))
            links[-1].send(build.init())
            turn += 1
            self.clock.advance(1)
        # A, B, then three that came back, then the refused one.
        self.assertEqual(len(links), 6)
        (line,) = self.logged("device.flapping")
        self.assertEqual((line["imei"], line["address"], line["other"]), (str(build.IMEI), A, B))
        (line,) = self.logged("device.refused")
        self.assertEqual((line["address"], line["reason"]), (B, "another address keeps this device for now"))
        keeper = links[-2]
        self.assertFalse(keeper.transport.disconnecting)
        keeper.send(*build.opening(FILE)[1:], *build.data_frames(FILE))
        self.assertTrue(keeper.answers().endswith(c.RepeatInit().encode()))

    def test_one_device_that_reconnects_on_one_address_always_wins(self) -> None:
        """However often it does."""
        for port in range(100):
            link = From(self.factory, A, port)
            link.send(build.init())
            self.assertEqual(link.answers(), c.PathRequest().encode())
        self.assertEqual((self.logged("device.flapping"), len(self.logged("device.taken_over"))), ([], 99))


class Pace(Base):
    """What a peer cannot stretch."""

    def test_a_trickle_of_bytes_does_not_make_the_wait_for_init_longer(self) -> None:
        """A byte a second, and the 10 s are over all the same."""
        link = From(self.factory)
        for byte in build.init().encode()[:9]:
            link.send(bytes([byte]))
            self.wait(1)
        self.assertFalse(link.transport.disconnecting)
        link.send(build.init().encode()[9:10])
        self.wait(1)
        self.assertTrue(link.transport.disconnecting)
        self.assertEqual(len(self.logged("session.silent")), 1)

    def useless(self, link: Link, command: c.DeviceCommand, seconds: int) -> float:
        """Send a legal command that changes nothing each second; say when the state ended."""
        state = link.state
        for second in range(seconds):
            link.send(command)
            self.wait(1)
            if link.state is not state:
                return second + 1
        raise AssertionError(f"{state} went on for {seconds} s")

    def test_legal_commands_that_change_nothing_buy_no_time(self) -> None:
        """METADATA and PATH again and again, and what comes after a file."""
        link = From(self.factory)
        link.send(build.init(), c.Path(build.PATH))
        self.assertEqual(self.useless(link, c.Path(build.PATH), 60), 15)
        self.assertIs(link.state, State.AWAIT_START)
        self.assertEqual(self.useless(link, c.MetadataResponse(build.METADATA), 60), 45)
        self.assertTrue(link.transport.disconnecting)

        link = self.receiving()
        link.send(*build.data_frames(FILE))
        self.assertEqual(self.useless(link, c.Status(1), 60), 45)
        link = From(self.factory)
        link.send(build.init(), *build.opening(FILE)[1:4])
        self.assertEqual(self.useless(link, c.Start(len(FILE), 0), 60), 15 * 3)

    def test_metadata_and_a_frame_of_one_byte_a_piece_in_a_file_buy_no_time(self) -> None:
        """Only file data that is whole and fits does."""
        link = self.receiving()
        self.assertEqual(self.useless(link, c.MetadataResponse(build.METADATA), 60), 20)
        self.assertEqual(link.answers(), c.Resume(0).encode())
        link = self.receiving(port=2)
        for byte in build.data_frames(FILE)[0][:20]:
            link.send(bytes([byte]))
            self.wait(1)
        self.assertIs(link.state, State.AWAIT_SYNC)

    def test_syncs_that_are_due_do_not_keep_a_connection_for_ever(self) -> None:
        """Each START that crossed a RESUME has a SYNC of its own; a file needs data all the same."""
        link = From(self.factory)
        link.send(*build.opening(FILE)[:4], *[c.Start(len(FILE), 0)] * 5000)
        for _ in range(59):
            link.send(c.Sync(0))
            self.wait(1)
        self.assertFalse(link.transport.disconnecting)
        self.wait(1)
        self.assertTrue(link.transport.disconnecting)
        self.assertEqual(len(self.logged("session.too_slow")), 1)

    def test_a_file_that_comes_too_slowly_is_parked_and_the_line_says_how_slowly(self) -> None:
        """90 bytes a second, in frames that fit."""
        link = self.receiving()
        crc = 0
        for second in range(60):
            packet = FILE[second * 83 : second * 83 + 83]
            crc = build.crc16(packet, crc)
            link.send(c.Data(packet, crc))
            self.assertFalse(link.transport.disconnecting)
            self.wait(1)
        self.assertTrue(link.transport.disconnecting)
        (line,) = self.logged("session.too_slow")
        self.assertEqual((line["rate"], line["imei"], line["expected"]), (83, str(build.IMEI), "DATA"))
        self.assertEqual(self.logged("file.parked")[0]["held"], 60 * 83)
        self.assertEqual(link.answers(), b"")

    def test_an_old_connection_ends_when_no_file_is_under_way(self) -> None:
        """The line says how old it is; the file before is acknowledged."""
        self.make_factory(max_session_age=30, answer_timeout=20)
        link = self.receiving()
        for frame in build.data_frames(FILE):
            self.wait(7)
            link.send(frame)
        self.assertEqual(link.answers(), c.RepeatInit().encode())
        self.wait(1)
        self.assertTrue(link.transport.disconnecting)
        self.assertEqual(self.logged("limit.age")[0]["age_s"], 36)


class Paused(Base):
    """The store answers when the test says so."""

    automatic = False

    def test_time_in_which_we_do_not_read_is_not_held_against_the_rate(self) -> None:
        """A disk that takes a minute to open a file does not make the device slow."""
        self.make_factory(data_timeout=50)
        link = From(self.factory)
        link.send(*build.opening(FILE)[:4])
        self.wait(100)
        self.worker.run()
        link.send(c.Sync(0))
        self.wait(40)
        self.assertEqual(self.logged("session.too_slow"), [])
        self.assertFalse(link.transport.disconnecting)

    def test_who_waits_for_our_disk_is_not_silent(self) -> None:
        """A holder whose file is being stored keeps the device, however long the disk takes; then it has its time."""
        self.make_factory(flapping_takeovers=1)
        links = [From(self.factory, host) for host in (A, B, A)]
        for link in links:
            link.send(build.init())
        keeper = links[-1]
        keeper.send(*build.opening(FILE)[1:4])
        self.worker.run()
        keeper.send(c.Sync(0), *build.data_frames(FILE))
        self.wait(30)
        self.assertIs(keeper.state, State.STORING)
        newcomer = From(self.factory, B, 2)
        newcomer.send(build.init())
        self.assertEqual(newcomer.answers(), CLOSE)
        self.worker.run()
        self.assertTrue(keeper.answers().endswith(c.RepeatInit().encode()))
        for silent_s, answer in ((19, CLOSE), (1, c.PathRequest().encode())):
            self.wait(silent_s)
            newcomer = From(self.factory, B, 3)
            newcomer.send(build.init())
            self.assertEqual(newcomer.answers(), answer)
