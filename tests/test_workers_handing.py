"""Connections handed over from one process to another: real sockets, real descriptors, a reactor of the test's own.

Both processes are in this one, each with a factory and an inbox of its own: what goes from one to the other goes
through the kernel, as it does between two.
"""

from __future__ import annotations

import gc
import select
import shutil
import socket
import struct
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from dsmgateway import commands as c
from dsmgateway.factory import CameraFactory
from dsmgateway.framing import FIRST_READ_BYTES
from dsmgateway.limits import LINGER_S
from dsmgateway.protocol import CameraProtocol
from dsmgateway.settings import Settings
from dsmgateway.workers.handing import Adopter, OtherProcesses
from dsmgateway.workers.handover import Handover, parse
from dsmgateway.workers.inbox import GIVE_UP_S, RETRY_S, Inbox, Outbox, inbox_pair
from dsmgateway.workers.owners import owner_of
from dsmgateway.workers.transports import OwnersEnd
from tests import conftest as build
from tests.hand_worker import HandWorker
from tests.own_reactor import OwnReactor


def imei_of_owner(owner: int) -> int:
    """A device that belongs to one of two processes."""
    return next(imei for imei in range(build.IMEI, build.IMEI + 100) if owner_of(str(imei), 2) == owner)


def reset(client: socket.socket) -> None:
    """Leave without taking leave, if that is still to be done."""
    if client.fileno() >= 0:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()


class Handing(SynchronousTestCase):
    """Two factories, 0 and 1, with a real store each; the first has a port."""

    def setUp(self) -> None:
        self.log: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.log.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.log.append)
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        self.reactor = OwnReactor()
        self.addCleanup(self.reactor.close)
        self.inboxes = [inbox_pair() for _ in range(2)]
        self.factories = [self.make_factory(folder, number) for number in range(2)]
        self.port = self.reactor.listenTCP(0, self.factories[0], interface="127.0.0.1")
        self.adopter = Adopter(1, self.inboxes[1][0], self.factories[1], self.reactor)
        self.addCleanup(self.close)

    def make_factory(self, folder: Path, number: int) -> CameraFactory:
        worker = HandWorker(folder / str(number))
        worker.start()
        self.addCleanup(worker.stop)
        settings = Settings(trace=folder / "traces", max_connections_per_address=3)
        factory = CameraFactory(settings, worker, self.reactor)
        outboxes = [writing.dup() for _, writing in self.inboxes]
        factory.others = OtherProcesses(number, outboxes, self.reactor)
        return factory

    def close(self) -> None:
        self.adopter.stop()
        for factory in self.factories:
            for connection in list(factory.connections):
                connection.transport.abortConnection()
            assert factory.others is not None
            factory.others.stop()
        self.reactor.spin_until(lambda: not any(factory.connections for factory in self.factories))
        self.port.stopListening()
        for _ in range(3):
            self.reactor.iterate(0)
        for ends in self.inboxes:
            for end in ends:
                end.close()

    def logged(self, name: str) -> list[dict[str, Any]]:
        return [event["fields"] for event in self.log if event.get("event") == name]

    def connect(self) -> socket.socket:
        client = socket.create_connection(self.port.socket.getsockname(), timeout=5)
        client.setblocking(False)
        self.addCleanup(client.close)
        return client

    def heard(self, client: socket.socket, size: int) -> bytes:
        """Wait for so many bytes."""
        found = bytearray()

        def complete() -> bool:
            try:
                found.extend(client.recv(size - len(found)))
            except BlockingIOError:
                return False
            return len(found) == size

        self.reactor.spin_until(complete)
        return bytes(found)

    def fill_inbox(self) -> None:
        """Leave no room in the inbox of process 1."""
        with self.assertRaises(BlockingIOError):
            for _ in range(100_000):
                self.inboxes[1][1].send(b"x")

    def is_over(self, client: socket.socket) -> bool:
        try:
            return client.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    def test_a_connection_lives_on_in_the_other_process(self) -> None:
        """With all that was said, also what followed INIT; this one keeps nothing of it, and the peer hears no end."""
        self.adopter.start()
        client, imei = self.connect(), imei_of_owner(1)
        client.send(build.init(imei=imei).encode() + c.Path(build.PATH).encode()[:7])
        request = c.PathRequest().encode()
        self.assertEqual(self.heard(client, len(request)), request)
        here, there = self.factories
        self.assertEqual((here.connections, here.door.crowd.in_all), (set(), 0))
        (connection,) = there.connections
        peer = f"127.0.0.1:{client.getsockname()[1]}"
        self.assertEqual((connection.peer, connection.source, connection.session.imei), (peer, "127.0.0.1", str(imei)))
        self.assertEqual(there.door.crowd.in_all, 1)
        for _ in range(10):
            self.reactor.iterate(0)  # the first has let go of it by now
        client.send(c.Path(build.PATH).encode()[7:])
        metadata = c.MetadataRequest().encode()
        self.assertEqual(self.heard(client, len(metadata)), metadata)
        self.assertFalse(self.is_over(client))
        self.assertEqual([row["peer"] for row in self.logged("device.connected")], [peer])
        client.close()
        self.reactor.spin_until(lambda: not there.connections)
        (row,) = self.logged("device.disconnected")
        self.assertEqual(row["received"], len(build.init().encode() + c.Path(build.PATH).encode()))
        # One trace, which has everything.
        (trace,) = (here.settings.trace or Path()).iterdir()
        self.assertIn(build.init(imei=imei).encode().hex(), trace.read_text())

    def test_little_goes_along_however_much_a_peer_has_sent(self) -> None:
        """What there is more of is read where the connection goes; who stays is read by as much as ever."""
        said = [build.init(imei=imei_of_owner(owner)).encode() + c.Path(build.PATH).encode() * 3000 for owner in (0, 1)]
        clients = [self.connect(), self.connect()]
        for client, all_of_it in zip(clients, said, strict=True):
            client.setblocking(True)
            client.sendall(all_of_it)
            client.setblocking(False)
        self.reactor.spin_until(lambda: self.factories[0].connections and self.logged("device.connected"))
        (stayed,) = self.factories[0].connections
        self.assertEqual(stayed.transport.bufferSize, Connection.bufferSize)
        inbox = self.inboxes[1][0]
        self.reactor.spin_until(lambda: select.select([inbox], [], [], 0)[0])
        self.assertLess(len(inbox.recv(2 * len(said[1]), socket.MSG_PEEK)), FIRST_READ_BYTES + 100)
        self.adopter.start()
        for client in clients:
            client.shutdown(socket.SHUT_WR)
        self.reactor.spin_until(lambda: len(self.logged("device.disconnected")) == 2)
        received = {row["imei"]: row["received"] for row in self.logged("device.disconnected")}
        self.assertEqual(received, {str(imei_of_owner(owner)): len(said[owner]) for owner in (0, 1)})

    def test_the_end_comes_from_the_other_process_alone(self) -> None:
        """What it says last gets through, and only then does the peer hear the end."""
        self.adopter.start()
        client = self.connect()
        client.send(build.init(0x40000400, imei=imei_of_owner(1)).encode())
        close = c.Close().encode()
        self.assertEqual(self.heard(client, len(close)), close)
        self.reactor.spin_until(lambda: self.is_over(client))
        self.assertEqual([row["reason"] for row in self.logged("device.disconnected")], ["nothing to send"])

    def test_a_device_of_its_own_stays(self) -> None:
        """Nothing is sent to anybody."""
        client = self.connect()
        client.send(build.init(imei=imei_of_owner(0)).encode())
        self.reactor.spin_until(lambda: self.logged("device.connected"))
        self.assertEqual(len(self.factories[0].connections), 1)
        self.assertRaises(BlockingIOError, self.inboxes[1][0].recv, 1)

    def test_a_full_inbox_is_tried_again(self) -> None:
        """The connection waits, counts as long as it does, and is served when there is room."""
        self.fill_inbox()
        client = self.connect()
        client.send(build.init(imei=imei_of_owner(1)).encode())
        here, there = self.factories
        self.reactor.spin_until(lambda: here.door.crowd.in_all and not here.connections)
        for _ in range(20):
            self.reactor.iterate(0.01)
        self.assertEqual((here.door.crowd.in_all, self.is_over(client)), (1, False))
        self.adopter.start()
        request = c.PathRequest().encode()
        self.assertEqual(self.heard(client, len(request)), request)
        self.assertEqual((here.door.crowd.in_all, len(there.connections)), (0, 1))
        # What had filled it was no connection: said once.
        (row,) = self.logged("handover.failed")
        self.assertEqual((row["owner"], row["reason"]), (1, "its descriptor did not come with it"))

    def test_one_that_waits_ends_with_the_gateway(self) -> None:
        """Its peer is told nothing, and keeps its file."""
        self.fill_inbox()
        client = self.connect()
        client.send(build.init(imei=imei_of_owner(1)).encode())
        here = self.factories[0]
        self.reactor.spin_until(lambda: here.door.crowd.in_all and not here.connections)
        here.stop()
        self.reactor.spin_until(lambda: self.is_over(client))
        self.reactor.spin_until(lambda: here.door.crowd.in_all == 0)
        self.assertEqual(self.logged("handover.failed")[0]["reason"], "the gateway stops")
        self.assertEqual(len(self.logged("device.disconnected")), 1)

    def test_limits_of_an_address_hold_at_the_owner(self) -> None:
        """As many as may be there at a time; how fast they come was looked at where they came in."""
        self.adopter.start()
        there = self.factories[1]
        for _ in range(3):
            there.door.crowd.entered("127.0.0.1")
        client = self.connect()
        client.send(build.init(imei=imei_of_owner(1)).encode())
        self.reactor.spin_until(lambda: self.is_over(client))
        self.assertEqual(there.connections, set())
        self.assertEqual(self.logged("limit.connections")[0]["setting"], "max-connections-per-address")

    def test_no_more_come_to_the_owner_than_it_has_descriptors_for(self) -> None:
        """However many others have let in: without, it could not open their files."""
        self.adopter.start()
        there = self.factories[1]
        there.door.bound(2)
        for host in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
            there.door.crowd.entered(host)
        client = self.connect()
        client.send(build.init(imei=imei_of_owner(1)).encode())
        self.reactor.spin_until(lambda: self.is_over(client))
        self.assertEqual(there.connections, set())
        self.assertEqual(self.logged("limit.connections")[0]["setting"], "max-connections")

    def test_a_peer_that_has_gone_is_no_trouble(self) -> None:
        """By the time that the other process takes it: to that one it is any connection that was reset."""
        client = self.connect()
        client.send(build.init(imei=imei_of_owner(1)).encode())
        here, there = self.factories
        self.reactor.spin_until(lambda: here.door.crowd.in_all)
        self.reactor.spin_until(lambda: here.door.crowd.in_all == 0)
        reset(client)
        self.adopter.start()
        self.reactor.spin_until(lambda: self.logged("device.disconnected"))
        self.assert_was_reset(there)

    def test_a_peer_that_goes_while_it_is_taken_is_no_trouble(self) -> None:
        """Not even where it goes as soon as somebody has asked who it is: a socket left open would be a warning."""
        client, there = self.connect(), self.factories[1]
        adopted, peer_of = there.adopted, socket.socket.getpeername

        def told_as_it_goes(connection: socket.socket) -> Any:
            name = peer_of(connection)
            reset(client)
            return name

        def adopted_as_it_goes(peer: str, source: str) -> CameraProtocol | None:
            protocol = adopted(peer, source)
            assert protocol is not None
            connected = protocol.makeConnection
            self.patch(protocol, "makeConnection", lambda transport: (reset(client), connected(transport)))
            self.patch(socket.socket, "getpeername", told_as_it_goes)
            return protocol

        self.patch(there, "adopted", adopted_as_it_goes)
        self.adopter.start()
        client.send(build.init(imei=imei_of_owner(1)).encode())
        self.reactor.spin_until(lambda: self.logged("device.disconnected"))
        self.assert_was_reset(there)

    def assert_was_reset(self, factory: CameraFactory) -> None:
        """Its only connection was, and the log says no more than that."""
        gc.collect()
        self.assertEqual((factory.connections, factory.door.crowd.in_all), (set(), 0))
        (begun,), (ended,) = self.logged("device.connected"), self.logged("device.disconnected")
        self.assertEqual((begun["peer"], begun["imei"]), (ended["peer"], str(imei_of_owner(1))))
        self.assertEqual(self.logged("handover.failed"), [])


class Boxes(SynchronousTestCase):
    """One inbox and one outbox, and a clock that is set by hand."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.reading, writing = inbox_pair()
        self.addCleanup(self.reading.close)
        self.outbox = Outbox(writing, self.clock)
        self.pair = socket.socketpair()
        for end in self.pair:
            self.addCleanup(end.close)
        self.settled: list[str] = []
        self.took: list[tuple[Handover, socket.socket]] = []
        self.failed: list[str] = []
        self.inbox = Inbox(self.reading, lambda *it: self.took.append(it), self.failed.append)

    def put(self, number: int = 1) -> None:
        self.outbox.put(Handover(f"peer {number}", "source", bytes(1000)), self.pair[0], self.settled.append)

    def fill(self) -> int:
        """Put so many in that the last one waits; return how many that were."""
        number = 0
        while len(self.settled) == number:
            number += 1
            self.put(number)
        return number

    def test_what_is_taken_is_the_connection_itself(self) -> None:
        """Not a copy of what it says."""
        self.put()
        self.assertIsNone(self.inbox.doRead())
        ((handover, connection),) = self.took
        with connection:
            connection.send(b"hello")
        self.assertEqual((self.pair[1].recv(10), handover.peer, self.settled), (b"hello", "peer 1", [""]))
        self.outbox.close()

    def test_order_is_kept_and_what_waits_goes_when_there_is_room(self) -> None:
        """Nobody overtakes."""
        went = self.fill()
        self.put(went + 1)
        self.clock.advance(RETRY_S)
        self.assertEqual(len(self.settled), went - 1)
        while len(self.took) < went + 1:
            self.inbox.doRead()
            self.clock.advance(RETRY_S)
        self.assertEqual([handover.peer for handover, _ in self.took], [f"peer {one + 1}" for one in range(went + 1)])
        self.assertEqual(set(self.settled), {""})
        for _, connection in self.took:
            connection.close()
        self.outbox.close()

    def test_what_waits_too_long_is_given_up(self) -> None:
        """Each after its own time."""
        went = self.fill()
        self.clock.pump([RETRY_S] * int(GIVE_UP_S / RETRY_S + 2))
        self.assertEqual(self.settled[went - 1 :], ["it took nothing for 5 s"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.outbox.close()

    def test_an_inbox_that_is_gone_is_no_inbox(self) -> None:
        """As when all processes but this one have ended."""
        self.reading.close()
        self.put()
        self.assertEqual(self.settled, ["it cannot be reached: Broken pipe"])
        self.outbox.close()

    def test_an_inbox_whose_writers_have_all_gone_is_read_no_more(self) -> None:
        """It says so, instead of turning for ever."""
        self.outbox.close()
        self.assertIsInstance(self.inbox.doRead(), Failure)
        self.inbox.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((self.took, self.failed), ([], []))

    def test_a_message_that_is_none_costs_its_connection_only(self) -> None:
        """The next one is taken."""
        socket.send_fds(self.outbox._writing, [b"\xff\xff"], [self.pair[0].fileno()])
        self.put()
        self.inbox.doRead()
        self.assertEqual(self.failed, ["a hand-over without a head"])
        ((_, connection),) = self.took
        connection.close()
        self.outbox.close()

    def test_stopping_gives_up_what_waits(self) -> None:
        """And leaves no timer behind."""
        self.fill()
        self.outbox.close()
        self.assertEqual((self.settled[-1], self.clock.getDelayedCalls()), ("the gateway stops", []))


@implementer(ISSLTransport)
class Secure:
    """Stands in for TLS: what it was asked to do, in order."""

    def __init__(self) -> None:
        self.wrappedProtocol: Any = Protocol()
        self.did: list[Any] = []

    def write(self, data: bytes) -> None:
        self.did.append(data)

    def pauseProducing(self) -> None:
        self.did.append("pause")

    def resumeProducing(self) -> None:
        self.did.append("resume")

    def loseConnection(self) -> None:
        self.did.append("lose")

    def abortConnection(self) -> None:
        self.did.append("abort")
        self.wrappedProtocol.connectionLost(Failure(ConnectionDone()))


class Relays(SynchronousTestCase):
    """A connection with TLS on its way through this process."""

    def setUp(self) -> None:
        self.reactor = OwnReactor()
        self.addCleanup(self.reactor.close)
        self.secure = Secure()
        pairs = [inbox_pair() for _ in range(2)]
        for ends in pairs:
            for end in ends:
                self.addCleanup(end.close)
        self.others = OtherProcesses(0, [writing.dup() for _, writing in pairs], self.reactor)
        self.left: list[None] = []
        imei = str(imei_of_owner(1))
        self.others.hand_over(imei, self.secure, "peer", "source", b"INIT", lambda: self.left.append(None))
        message, (descriptor,), _, _ = socket.recv_fds(pairs[1][0], 1000, 1)
        self.owner = socket.socket(fileno=descriptor)
        self.owner.setblocking(False)
        self.addCleanup(self.owner.close)
        self.assertEqual(parse(message), Handover("peer", "source", b""))
        self.addCleanup(self.end)
        self.assertEqual(self.reactor.spin_until(self.owner_has), b"INIT")

    def end(self) -> None:
        for relay in list(self.others.relays):
            relay.abort()
        self.assertEqual(self.others.relays, set())
        self.others.stop()
        for _ in range(3):
            self.reactor.iterate(0)

    def device_says(self, data: bytes) -> None:
        self.secure.wrappedProtocol.dataReceived(data)

    def owner_has(self) -> bytes:
        try:
            return self.owner.recv(1 << 20)
        except BlockingIOError:
            return b""

    def test_both_sides_hear_each_other(self) -> None:
        """And it counts where the device is."""
        self.assertEqual((len(self.left), len(self.others.relays)), (1, 1))
        self.device_says(b"PATH")
        self.assertEqual(self.reactor.spin_until(self.owner_has), b"PATH")
        self.owner.send(b"RESUME")
        self.reactor.spin_until(lambda: self.secure.did)
        self.assertEqual(self.secure.did, [b"RESUME"])

    def test_a_device_is_read_no_faster_than_its_owner_takes_it(self) -> None:
        """What has come gets there, whole."""
        sent = 0
        while "pause" not in self.secure.did:
            self.device_says(bytes(65536))
            self.reactor.iterate(0)
            sent += 65536
        self.assertLess(sent, 4 << 20)
        took = 0

        def all_taken() -> bool:
            nonlocal took
            took += len(self.owner_has())
            return took == sent and "resume" in self.secure.did

        self.reactor.spin_until(all_taken)

    def test_what_the_device_said_before_its_end_gets_through(self) -> None:
        """Also where its owner lags behind: then comes the end."""
        for _ in range(20):
            self.device_says(bytes(65536))
        self.secure.wrappedProtocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.others.relays, set())
        took = 0

        def is_over() -> bool:
            nonlocal took
            try:
                data = self.owner.recv(1 << 20)
            except BlockingIOError:
                return False
            took += len(data)
            return not data

        self.reactor.spin_until(is_over)
        self.assertEqual(took, 20 * 65536)

    def test_what_its_owner_says_last_gets_through_and_then_the_end(self) -> None:
        """A device that does not take its leave is thrown out."""
        self.owner.send(b"CLOSE")
        self.owner.close()
        self.reactor.spin_until(lambda: "lose" in self.secure.did)
        self.assertEqual(self.secure.did, [b"CLOSE", "lose"])
        (late,) = self.reactor.getDelayedCalls()
        self.assertTrue(0 < late.getTime() - self.reactor.seconds() <= LINGER_S)
        late.func()
        self.assertEqual(self.secure.did[-1], "abort")
        self.assertEqual((self.others.relays, self.reactor.getDelayedCalls()), (set(), []))

    def test_its_owners_abort_is_an_abort(self) -> None:
        """At once, whether something was left unread or not; what was said just before is of no use any more."""
        self.owner.send(b"RESUME")
        OwnersEnd(self.owner, Protocol(), self.reactor).abortConnection()
        self.reactor.spin_until(lambda: "abort" in self.secure.did)
        self.assertNotIn("lose", self.secure.did)
        self.assertEqual((self.others.relays, self.reactor.getDelayedCalls()), (set(), []))

    def test_an_owners_usual_end_is_no_abort_though_it_has_not_read_all(self) -> None:
        """An abort would take back what was said before."""
        self.device_says(b"more")
        self.reactor.spin_until(lambda: select.select([self.owner], [], [], 0)[0])
        transport = OwnersEnd(self.owner, Protocol(), self.reactor)
        transport.pauseProducing()
        transport.write(b"REPEAT_INIT")
        transport.loseConnection()
        self.reactor.spin_until(lambda: "lose" in self.secure.did)
        self.assertEqual(self.secure.did, [b"REPEAT_INIT", "lose"])

    def test_what_its_owner_says_last_gets_through_where_a_write_finds_the_end(self) -> None:
        """Which is before anybody has read it."""
        (relay,) = self.others.relays
        self.owner.send(b"REPEAT_INIT")
        self.owner.close()
        near = relay._inner.transport
        near.stopReading()
        self.device_says(b"more")
        self.reactor.spin_until(lambda: near.disconnected)
        self.assertEqual(self.secure.did, [b"REPEAT_INIT", "lose"])

    def test_a_stop_waits_for_what_is_on_its_way(self) -> None:
        """Its owner may still have an acknowledgement for it."""
        stopped: list[object] = []
        self.others.stop().addCallback(stopped.append)
        self.assertEqual(stopped, [])
        self.owner.send(b"REPEAT_INIT")
        self.owner.close()
        self.reactor.spin_until(lambda: "lose" in self.secure.did)
        self.secure.wrappedProtocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((len(stopped), self.secure.did[0]), (1, b"REPEAT_INIT"))
        self.others._outboxes = []
