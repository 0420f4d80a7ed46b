"""Connections of balancers: the wrapper around the camera's protocol, by hand, in front of real connections."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from dsmgateway import commands as c
from dsmgateway.framing import FIRST_READ_BYTES
from dsmgateway.protocol import CameraProtocol
from dsmgateway.proxy import ProxiedProtocol, ProxyFactory
from dsmgateway.states import State
from tests import conftest as build
from tests.test_protocol import ASKED_UP_TO_START, FILE, Base

BALANCER = IPv4Address("TCP", "10.0.0.5", 33333)
V1 = b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 10014\r\n"
V1_OF_IPV6 = b"PROXY TCP6 2001:db8::7 ::1 40000 10014\r\n"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
NETWORKS = (ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48"))


class Closed(Factory):
    """A factory that is full."""

    def buildProtocol(self, addr: object) -> None:  # type: ignore[override]
        return None


class Broken(Factory):
    """A factory with a bug."""

    def buildProtocol(self, addr: object) -> Protocol:
        raise ZeroDivisionError


class Whole(Protocol):
    """A protocol that cannot be half closed, as TLS."""


class ProxyTests(Base):
    """A factory over a real store behind one for balancers."""

    def make_factory(self, **changes: Any) -> None:
        super().make_factory(**changes)
        self.proxied = self.behind_balancers(self.factory)

    def behind_balancers(self, wrapped: Factory) -> ProxyFactory:
        """A factory whose connections come from balancers."""
        return ProxyFactory(wrapped, self.factory.door, NETWORKS, 10, self.clock)

    def connect(self, address: Any = BALANCER, factory: ProxyFactory | None = None) -> tuple[Any, StringTransport]:
        protocol, transport = (factory or self.proxied).buildProtocol(address), StringTransport()
        protocol.makeConnection(transport)
        return protocol, transport

    def camera(self) -> CameraProtocol:
        """The one camera that the factory knows of."""
        (camera,) = self.factory.connections
        return camera

    def test_a_camera_behind_a_balancer_is_known_by_its_own_address(self) -> None:
        """In the log and beside its file."""
        protocol, transport = self.connect()
        protocol.dataReceived(V1)
        self.assertEqual(self.camera().peer, "192.0.2.7:40000")
        protocol.dataReceived(build.conversation(FILE))
        self.assertTrue(transport.value().endswith(c.Close().encode()))
        self.assertEqual(self.stored(), [FILE])
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.logged("device.disconnected")[0]["peer"], "192.0.2.7:40000")
        self.assertEqual(self.factory.connections, set())

    def test_header_and_conversation_may_be_cut_anywhere(self) -> None:
        """Also byte by byte."""
        stream = V1_OF_IPV6 + b"".join(build.opening(FILE))
        for step in (1, 7, len(V1_OF_IPV6) - 1, len(V1_OF_IPV6), len(V1_OF_IPV6) + 1, len(stream)):
            protocol, transport = self.connect()
            for begin in range(0, len(stream), step):
                protocol.dataReceived(stream[begin : begin + step])
            self.assertEqual(transport.value(), ASKED_UP_TO_START)
            self.assertEqual(self.camera().peer, "[2001:db8::7]:40000")
            protocol.connectionLost(Failure(ConnectionDone()))

    def test_little_is_read_before_the_header_is_whole(self) -> None:
        """What comes with it goes to another process, if the device belongs there."""
        protocol, transport = self.connect()
        protocol.dataReceived(V1[:-1])
        self.assertEqual(vars(transport)["bufferSize"], FIRST_READ_BYTES)
        protocol.dataReceived(V1[-1:])
        self.assertNotIn("bufferSize", vars(transport))

    def test_the_factory_is_given_an_address_as_twisted_has_it(self) -> None:
        """IPv4 and IPv6, so that limits can count them."""
        given: list[Any] = []
        self.patch(self.factory, "buildProtocol", lambda addr: given.append(addr) or Whole())
        for header in (V1, V1_OF_IPV6, LOCAL):
            self.connect()[0].dataReceived(header + b"x")
        self.connect(UNIXAddress("x"))
        self.assertEqual(
            given,
            [
                IPv4Address("TCP", "192.0.2.7", 40000),
                IPv6Address("TCP", "2001:db8::7", 40000),
                BALANCER,
                UNIXAddress("x"),
            ],
        )

    def test_a_connection_from_elsewhere_is_handed_on_as_it_is(self) -> None:
        """There a header is what it is: no INIT."""
        for address in (IPv4Address("TCP", "192.0.2.9", 1), IPv6Address("TCP", "2001:db8:2::1", 1), UNIXAddress("x")):
            protocol, transport = self.connect(address)
            self.assertIsInstance(protocol, CameraProtocol)
            protocol.dataReceived(V1 + build.init().encode())
            self.assertTrue(transport.disconnected or transport.disconnecting or protocol.session.state is State.ENDED)
            protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(self.logged("peer.error")), 3)
        self.assertEqual(self.logged("device.connected"), [])

    def test_networks_are_told_from_addresses_however_they_are_written(self) -> None:
        """IPv4 on an IPv6 socket, and an IPv6 address with its interface."""
        for host in ("::ffff:10.0.0.5", "2001:db8:1::5", "2001:db8:1::5%eth0"):
            self.assertIsInstance(self.proxied.buildProtocol(IPv6Address("TCP", host, 1)), ProxiedProtocol)
        self.assertIsInstance(self.proxied.buildProtocol(None), CameraProtocol)

    def test_what_begins_otherwise_is_one_warning_and_the_end(self) -> None:
        """A camera that connects from a balancer's network, garbage, a line that is too long, a broken version 2."""
        for wrong in (build.init().encode(), b"GET /", b"PROXY " + b"x" * 102, LOCAL[:12] + b"\x11\0\0\0"):
            protocol, transport = self.connect()
            protocol.dataReceived(wrong)
            self.assertTrue(transport.disconnected)
            protocol.dataReceived(V1 + build.init().encode())
            protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual([row["peer"] for row in self.logged("proxy.failed")], ["10.0.0.5:33333"] * 4)
        self.assertEqual((self.factory.connections, self.proxied.waiting), (set(), set()))
        self.assertEqual(self.logged("device.disconnected"), [])

    def test_a_balancer_without_headers_is_five_warnings_and_then_one_a_minute(self) -> None:
        """Each balancer by itself, however its connections are wrong."""
        other = IPv4Address("TCP", "10.0.0.6", 33333)
        for number in range(40):
            self.connect()[0].dataReceived(b"PROXY %d\r\n" % number)
        self.connect(other)[0].dataReceived(b"GET /")
        self.pass_time(60)
        self.connect()[0].dataReceived(b"GET /")
        rows = self.logged("proxy.failed")
        self.assertEqual([row["peer"] for row in rows], ["10.0.0.5:33333"] * 5 + ["10.0.0.6:33333", "10.0.0.5:33333"])
        self.assertEqual([row.get("suppressed") for row in rows], [None] * 6 + [35])

    def test_a_header_that_does_not_come_is_not_waited_for_longer_than_init(self) -> None:
        """Not a byte more or less makes it longer."""
        silent, begun = self.connect(), self.connect()
        begun[0].dataReceived(V1[:20])
        self.pass_time(9)
        self.assertFalse(silent[1].disconnected or begun[1].disconnected)
        begun[0].dataReceived(V1[20:22])
        self.pass_time(1)
        self.assertTrue(silent[1].disconnected and begun[1].disconnected)
        self.assertEqual([row["reason"] for row in self.logged("proxy.failed")], ["no PROXY header within 10 s"] * 2)
        for protocol, _ in (silent, begun):
            protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(self.logged("proxy.failed")), 2)

    def test_after_the_header_the_camera_has_the_time_that_it_always_has(self) -> None:
        """Counted by its own protocol."""
        protocol, transport = self.connect()
        protocol.dataReceived(V1)
        self.pass_time(10)
        self.assertEqual(len(self.logged("session.silent")), 1)
        self.assertTrue(transport.disconnecting)
        self.assertEqual(self.logged("proxy.failed"), [])

    def pass_time(self, seconds: int) -> None:
        """A sweep a second, as the service does."""
        for _ in range(seconds):
            self.clock.advance(1)
            self.factory.sweep()
            self.proxied.sweep()

    def test_a_balancers_own_look_at_the_port_is_no_event(self) -> None:
        """With nothing said, with LOCAL, with UNKNOWN; half a header is one."""
        for said in (b"", LOCAL, b"PROXY UNKNOWN\r\n"):
            protocol, _ = self.connect()
            if said:
                protocol.dataReceived(said)
            protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual([event["event"] for event in self.events if "event" in event], [])
        protocol, _ = self.connect()
        protocol.dataReceived(LOCAL[:15])
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.logged("proxy.failed")[0]["reason"], "closed before its PROXY header was whole")
        self.assertEqual(self.proxied.waiting, set())

    def test_a_balancer_that_speaks_for_itself_and_goes_on_is_a_camera_at_its_own_address(self) -> None:
        """LOCAL: the connection's own address counts; if it says nothing, it has no more time than others."""
        protocol, transport = self.connect()
        protocol.dataReceived(LOCAL)
        self.assertEqual(self.factory.connections, set())
        protocol.dataReceived(build.init().encode())
        self.assertEqual(self.camera().peer, "10.0.0.5:33333")
        self.assertEqual(transport.value(), c.PathRequest().encode())
        silent, its_transport = self.connect()
        silent.dataReceived(LOCAL)
        self.pass_time(10)
        self.assertTrue(its_transport.disconnected)
        self.assertEqual(self.logged("proxy.failed")[0]["reason"], "nothing after the PROXY header within 10 s")

    def test_half_closing_reaches_a_camera_and_closes_what_cannot_be_half_closed(self) -> None:
        """Whatever part of the conversation it comes in."""
        protocol, transport = self.connect()
        protocol.dataReceived(V1 + build.init().encode())
        protocol.writeConnectionLost()
        protocol.readConnectionLost()
        self.assertIs(self.camera().session.state, State.ENDED)
        self.assertTrue(transport.disconnecting)
        self.patch(self.factory, "buildProtocol", lambda addr: Whole())
        for said in (b"", V1[:5], LOCAL, V1):
            protocol, transport = self.connect()
            if said:
                protocol.dataReceived(said)
            protocol.writeConnectionLost()
            protocol.readConnectionLost()
            self.assertTrue(transport.disconnecting)

    def test_a_connection_counts_for_the_address_in_its_header_and_from_then_on(self) -> None:
        """Not for the balancer's, which may have more than one address may; while it waits it counts in all."""
        self.make_factory(max_connections_per_address=1)
        waiting = [self.connect() for _ in range(3)]
        self.assertEqual((self.factory.door.crowd.in_all, len(self.factory.door.crowd)), (3, 0))
        for protocol, _ in waiting:
            protocol.dataReceived(V1 + build.init().encode())
        self.assertEqual([transport.disconnected for _, transport in waiting], [False, True, True])
        other, its_transport = self.connect()
        other.dataReceived(V1_OF_IPV6)
        self.assertFalse(its_transport.disconnected)
        self.assertEqual(self.factory.door.crowd.in_all, 2)
        self.assertEqual([row["address"] for row in self.logged("limit.connections")], ["192.0.2.7"])
        for protocol, _ in (*waiting, (other, its_transport)):
            protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((self.factory.door.crowd.in_all, self.proxied.waiting), (0, set()))

    def test_those_without_a_header_are_no_more_than_all_connections_may_be(self) -> None:
        """One too many is closed by Twisted at once; the line names the balancer, and what could be set."""
        self.make_factory(max_connections=3)
        camera, _ = self.connect(IPv4Address("TCP", "192.0.2.9", 1))
        waiting = [self.connect()[0] for _ in range(2)]
        for _ in range(4):
            self.assertIsNone(self.proxied.buildProtocol(BALANCER))
        self.assertEqual(
            self.logged("limit.connections"),
            [{"address": "10.0.0.5", "setting": "max-connections", "most": 3, "suppressed": 0}],
        )
        camera.connectionLost(Failure(ConnectionDone()))
        waiting.append(self.connect()[0])
        self.assertIsNone(self.proxied.buildProtocol(BALANCER))
        for protocol in waiting:
            protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.factory.door.crowd.in_all, 0)

    def test_one_whose_header_comes_has_a_place_already(self) -> None:
        """It is not refused for having waited, is counted once, and no other process ever hears of a free place."""
        self.make_factory(max_connections=3)
        crowd, told = self.factory.door.crowd, []
        crowd.tell = told.append
        waiting = [self.connect() for _ in range(3)]
        for number, (protocol, _) in enumerate(waiting):
            protocol.dataReceived(V1.replace(b".7 ", b".%d " % number) + build.init().encode())
        self.assertEqual([transport.disconnected for _, transport in waiting], [False] * 3)
        self.assertEqual((crowd.in_all, set(told[3:]), self.logged("limit.connections")), (3, {3}, []))
        for protocol, _ in waiting:
            protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((crowd.in_all, told[-1], self.factory.connections), (0, 0, set()))

    def test_a_connection_that_waits_comes_once_and_goes_once(self) -> None:
        """Whatever its end is; it counts until Twisted has closed it, as it has its descriptor until then."""
        self.make_factory(max_connections_per_address=1)
        held, _ = self.connect()
        held.dataReceived(V1)
        full = self.behind_balancers(Closed())
        for said, most in ((b"", 2), (V1[:9], 2), (b"GET /", 2), (LOCAL, 2), (LOCAL + b"x", 2), (V1, 1)):
            for factory in (self.proxied, full):
                for end in (lambda: None, lambda: self.pass_time(10), self.proxied.stop):
                    protocol, _ = self.connect(factory=factory)
                    self.assertEqual(self.factory.door.crowd.in_all, 2)
                    if said:
                        protocol.dataReceived(said)
                    end()
                    self.assertLessEqual(self.factory.door.crowd.in_all, most)
                    protocol.connectionLost(Failure(ConnectionDone()))
                    self.assertEqual((self.factory.door.crowd.in_all, self.proxied.waiting), (1, set()))

    def test_an_error_on_the_way_to_the_other_factory_leaves_nothing_counted(self) -> None:
        """Twisted logs it, and ends the connection."""
        protocol, _ = self.connect(factory=self.behind_balancers(Broken()))
        self.assertRaises(ZeroDivisionError, protocol.dataReceived, V1)
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((self.factory.door.crowd.in_all, self.proxied.waiting), (0, set()))

    def test_a_factory_that_takes_no_more_has_the_connection_closed(self) -> None:
        """As Twisted does when there is no protocol for a connection."""
        protocol, transport = self.connect(factory=self.behind_balancers(Closed()))
        protocol.dataReceived(V1 + b"more")
        protocol.dataReceived(b"and more")
        self.assertTrue(transport.disconnecting)
        protocol.connectionLost(Failure(ConnectionDone()))

    def test_the_stop_ends_those_without_a_header(self) -> None:
        """Those with one are ended as cameras."""
        waiting, served = self.connect(), self.connect()
        served[0].dataReceived(V1)
        self.proxied.stop()
        self.assertTrue(waiting[1].disconnected)
        self.assertFalse(served[1].disconnected)
        self.assertEqual(self.proxied.waiting, set())

    def test_starting_and_stopping_reaches_the_other_factory(self) -> None:
        """For whatever it has to do then."""
        self.proxied.doStart()
        self.assertEqual(self.factory.numPorts, 1)
        self.proxied.doStop()
        self.assertEqual(self.factory.numPorts, 0)
