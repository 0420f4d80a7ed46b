"""The gateway as a service: order of start and stop, what happens when a part of it fails, embedding."""

from __future__ import annotations

import queue
import re
import socket
import struct
import tempfile
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from certificate import write_certificate
from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.protocol import Factory
from twisted.internet.testing import EventLoggingObserver, MemoryReactorClock, StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from dsmgateway.errors import ConfigError, StoreError
from dsmgateway.factory import CameraFactory
from dsmgateway.interfaces import IFileWorker
from dsmgateway.listeners import RECEIVE_BUFFER_BYTES, EndpointListener, PortListener, listener
from dsmgateway.logs import LineObserver
from dsmgateway.service import GatewayService
from dsmgateway.settings import Settings
from dsmgateway.store import Expired, Offered, Recovery, Upload

DOCS = Path(__file__).parent.parent / "docs"


@implementer(IFileWorker)
class HandWorker:
    """A store worker whose start and stop are in the test's hand."""

    def __init__(self, calls: list[str], recovery: Recovery | StoreError) -> None:
        self.calls, self.recovery = calls, recovery
        self.stopped: Deferred[None] = Deferred()
        #: What each round of expiry is answered with, in turn.
        self.expiries: list[Deferred[tuple[Expired, ...]]] = []
        self.probes = 0

    def start(self) -> Recovery:
        self.calls.append("store started")
        if isinstance(self.recovery, StoreError):
            raise self.recovery
        return self.recovery

    def open(self, offered: Offered, peer: str, compare: bool = True) -> Deferred[Upload]:
        raise AssertionError("no device is there that could want this")

    def append(self, upload: Upload, offset_bytes: int, data: bytes, done: Callable[[Failure | None], object]) -> None:
        raise AssertionError("no device is there that could want this")

    def finish(self, upload: Upload, about: Mapping[str, object]) -> Deferred[Any]:
        raise AssertionError("no device is there that could want this")

    def park(self, upload: Upload) -> Deferred[None]:
        raise AssertionError("no device is there that could want this")

    def expire(self) -> Deferred[tuple[Expired, ...]]:
        self.calls.append("store expires")
        return self.expiries.pop(0)

    def probe(self) -> Deferred[bool]:
        self.probes += 1
        return succeed(True)

    def stop(self) -> Deferred[None]:
        self.calls.append("store stopped")
        return self.stopped


class HandFactory(CameraFactory):
    """A camera factory that notes its calls; its sessions end when the test says so."""

    def __init__(self, settings: Settings, worker: HandWorker, clock: Any) -> None:
        super().__init__(settings, worker, clock)
        self.sweeps = 0
        self.ended: Deferred[Any] = Deferred()

    def sweep(self) -> None:
        self.sweeps += 1
        if self.sweeps == 2:
            raise RuntimeError("a bug in the sweep")

    def stop(self) -> Deferred[Any]:
        self.worker.calls.append("sessions ended")
        return self.ended


class PortReactor(MemoryReactorClock):
    """A reactor in memory that says when it takes over a port, and when that is closed."""

    def __init__(self, calls: list[str]) -> None:
        super().__init__()
        self.noted = calls
        self.from_threads: queue.Queue[Callable[[], object]] = queue.Queue()

    def callFromThread(self, call: Callable[..., Any], *arguments: object) -> None:
        self.from_threads.put(lambda: call(*arguments))

    def adoptStreamPort(self, fileno: int, addressFamily: int, factory: Factory) -> Any:
        self.noted.append("port open")
        port = super().adoptStreamPort(fileno, addressFamily, factory)
        port.stopListening = lambda: self.noted.append("port closed")
        return port


class ServiceTests(SynchronousTestCase):
    """Start and stop, with the store worker and the factory in the test's hand."""

    def setUp(self) -> None:
        self.calls: list[str] = []
        self.reactor = PortReactor(self.calls)
        self.log = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)

    def gateway(self, recovery: Recovery | StoreError | None = None, *ports: str) -> GatewayService:
        settings = Settings(ports=ports or ("0",), stop_timeout=5)
        self.worker = HandWorker(self.calls, recovery or Recovery())
        self.factory = HandFactory(settings, self.worker, self.reactor)
        return GatewayService(settings, self.worker, self.factory, self.reactor)

    def events(self) -> list[str]:
        return [event["event"] for event in self.log if "event" in event]

    def test_the_ports_open_and_the_store_recovers_before_the_gateway_says_it_has_started(self) -> None:
        """Whether or not the parent makes the privileged start first."""
        for privileged in (True, False):
            self.calls.clear()
            self.reactor = PortReactor(self.calls)
            gateway = self.gateway()
            if privileged:
                gateway.privilegedStartService()
            gateway.startService()
            self.assertEqual(self.calls, ["port open", "store started"])
            self.reactor.run()
            self.assertEqual(self.events()[-3:], ["port.listening", "store.recovered", "gateway.started"])

    def test_what_recovery_did_is_logged(self) -> None:
        """A line for each part that expired or was put aside, and one with the counts."""
        expired = (Expired("a.part", 1024, 3e6), Expired("b.part", 2048, 4e6))
        self.gateway(Recovery(expired=expired, set_aside=("media/x",), parts=3, part_bytes=99)).startService()
        self.assertEqual(self.events()[1:4], ["part.expired", "part.expired", "part.refused"])
        (recovered,) = [event["fields"] for event in self.log if event.get("event") == "store.recovered"]
        self.assertEqual((recovered["expired"], recovered["set_aside"], recovered["parts"]), (2, 1, 3))

    def test_a_store_that_cannot_start_closes_the_ports_again(self) -> None:
        """The error goes to whoever starts the service."""
        gateway = self.gateway(StoreError("no room"))
        with self.assertRaises(StoreError):
            gateway.startService()
        self.assertEqual(self.calls, ["port open", "store started", "port closed"])
        self.assertFalse(gateway.running)

    def test_a_port_that_cannot_be_had_closes_the_others_again(self) -> None:
        """Nothing listens, and the store is not touched."""
        with socket.socket() as other:
            other.bind(("", 0))
            other.listen()
            gateway = self.gateway(None, "0", str(other.getsockname()[1]))
            with self.assertRaisesRegex(ConfigError, r"^port \d+: Address already in use$"):
                gateway.startService()
        self.assertEqual(self.calls, ["port open", "port closed"])

    def test_stop_closes_the_ports_then_ends_the_sessions_then_the_store(self) -> None:
        """Each step waits for the one before it, and the whole for the last."""
        gateway = self.gateway()
        gateway.startService()
        self.calls.clear()
        stopped = gateway.stopService()
        self.assertEqual(self.calls, ["port closed", "sessions ended"])
        self.factory.ended.callback(None)
        self.assertEqual(self.calls[2:], ["store stopped"])
        self.assertNoResult(stopped)
        self.worker.stopped.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.events()[-1], "gateway.stopped")
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stop_does_not_wait_longer_than_its_limit(self) -> None:
        """A disk that hangs does not keep the process; what comes of it later is of no harm."""
        gateway = self.gateway()
        gateway.startService()
        stopped = gateway.stopService()
        self.factory.ended.callback(None)
        self.reactor.advance(4.9)
        self.assertNoResult(stopped)
        self.reactor.advance(0.1)
        self.successResultOf(stopped)
        self.assertEqual(self.events()[-1], "gateway.stop_late")
        self.worker.stopped.callback(None)

    def test_an_error_while_sessions_end_does_not_keep_the_store_from_closing(self) -> None:
        """It is logged as a bug."""
        gateway = self.gateway()
        gateway.startService()
        self.factory.ended = fail(RuntimeError("a bug"))
        self.worker.stopped = succeed(None)
        self.successResultOf(gateway.stopService())
        self.assertEqual(self.calls[-1], "store stopped")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_a_gateway_that_does_not_run_is_stopped_at_once(self) -> None:
        """As after a start that failed."""
        self.successResultOf(self.gateway().stopService())
        self.assertEqual(self.calls, [])

    def test_time_limits_are_looked_at_every_second_even_after_a_bug(self) -> None:
        """Until the gateway stops."""
        gateway = self.gateway()
        gateway.startService()
        for _ in range(4):
            self.reactor.advance(1)
        self.assertEqual(self.factory.sweeps, 4)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        gateway.stopService()
        self.reactor.advance(1)
        self.assertEqual(self.factory.sweeps, 4)

    def test_nobody_who_waits_for_a_balancer_is_blamed_while_the_gateway_stalled(self) -> None:
        """Its PROXY header may be there and not read yet; what was before the stall, and comes after it, counts."""
        settings = Settings(ports=("0",), proxy_protocol=(ip_network("10.0.0.0/8"),), init_timeout=10)
        worker = HandWorker(self.calls, Recovery())
        gateway = GatewayService(settings, worker, CameraFactory(settings, worker, self.reactor), self.reactor)
        gateway.startService()
        connection, transport = gateway._proxied[0].buildProtocol(IPv4Address("TCP", "10.0.0.5", 1)), StringTransport()
        connection.makeConnection(transport)
        self.reactor.pump([1] * 6)
        self.reactor.advance(600)
        self.reactor.pump([1] * 3)
        self.assertFalse(transport.disconnected)
        self.reactor.advance(1)
        self.assertTrue(transport.disconnected)
        self.assertEqual(self.events()[-2:], ["gateway.stalled", "proxy.failed"])

    def test_reload_calls_everything_that_can_be_read_anew(self) -> None:
        """One that cannot be used is logged, one that has a bug too, and the others are called all the same."""
        gateway = self.gateway()
        called: list[str] = []

        def unusable() -> None:
            raise ConfigError("file x: no list")

        gateway.reloads += [lambda: called.append("a"), unusable, lambda: 1 // 0, lambda: called.append("b")]
        gateway.reload()
        self.assertEqual(called, ["a", "b"])
        (failed,) = [event["fields"] for event in self.log if event.get("event") == "reload.failed"]
        self.assertEqual(failed, {"reason": "file x: no list"})
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def hours(self, gateway: GatewayService, *answers: Deferred[tuple[Expired, ...]]) -> None:
        """Run the gateway for an hour for each answer of the store, and see that it is asked every time."""
        gateway.startService()
        self.factory.sweeps = 2  # beyond the bug in it
        self.worker.expiries += answers
        self.calls.clear()
        for number in range(1, len(answers) + 1):
            self.reactor.advance(3599)
            self.assertEqual(self.calls, ["store expires"] * (number - 1))
            self.reactor.advance(1)
            self.assertEqual(self.calls, ["store expires"] * number)

    def test_every_hour_files_that_are_too_old_are_deleted_and_logged(self) -> None:
        """Until the gateway stops; nothing is logged when there are none."""
        gateway = self.gateway()
        old = (Expired("a.part", 1024, 3e6), Expired("b.part", 2048, 4e6))
        self.hours(gateway, succeed(()), succeed(old))
        fields = [event["fields"] for event in self.log if event.get("event") == "part.expired"]
        self.assertEqual(fields, [{"name": one.name, "size_bytes": one.size_bytes, "age_s": one.age_s} for one in old])
        gateway.stopService()
        self.reactor.advance(3600)
        self.assertEqual(self.calls.count("store expires"), 2)

    def test_a_failing_disk_is_tried_every_few_seconds_until_the_stop(self) -> None:
        """The worker knows whether there is a need."""
        gateway = self.gateway()
        gateway.startService()
        self.reactor.advance(4.9)
        self.assertEqual(self.worker.probes, 0)
        for number in (1, 2):
            self.reactor.advance(5)
            self.assertEqual(self.worker.probes, number)
        gateway.stopService()
        self.reactor.advance(5)
        self.assertEqual(self.worker.probes, 2)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1, "the sweep's own")

    def test_expiry_goes_on_after_a_disk_that_failed_or_hung_and_after_a_bug(self) -> None:
        """A disk is an event of the catalogue, a bug has its traceback."""
        never: Deferred[tuple[Expired, ...]] = Deferred()
        old = (Expired("a.part", 1024, 3e6),)
        self.hours(self.gateway(), fail(StoreError("no room")), fail(RuntimeError("a bug")), never, succeed(old))
        (failed,) = [event for event in self.log if event.get("event") == "store.failed"]
        self.assertEqual(failed["fields"], {"reason": "no room"})
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.events()[-3:], ["store.failed", "gateway.bug", "part.expired"])

    def test_expiry_goes_on_after_a_bug_that_is_raised_at_once(self) -> None:
        """The round itself fails, and is begun again."""
        gateway = self.gateway()
        gateway.startService()
        self.factory.sweeps = 2  # beyond the bug in it
        self.reactor.advance(3600)
        self.assertEqual(len(self.flushLoggedErrors(IndexError)), 1)
        self.worker.expiries.append(succeed(()))
        self.reactor.advance(3600)
        self.assertEqual(self.calls.count("store expires"), 2)


def kernel_backlog(listening: socket.socket) -> int:
    """How many connections the kernel queues: tcpi_sacked in Linux's struct tcp_info, where a socket listens."""
    size = struct.calcsize("8B6I")
    return int(struct.unpack("8B6I", listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size))[-1])


class ListenerTests(SynchronousTestCase):
    """Ports, on the real reactor, which does not run."""

    def listening(self, port: str, backlog: int = 1024) -> PortListener | EndpointListener:
        one = listener(reactor, port, backlog, Factory())
        one.privilegedStartService()
        one.startService()
        self.addCleanup(one.stopService)
        return one

    def test_a_port_number_caps_what_the_kernel_holds_for_a_paused_connection(self) -> None:
        """Linux doubles what was asked for, or cuts it to its own limit."""
        one = listener(reactor, "0", 1024, Factory())
        one.bind()
        bound = one._socket
        assert bound is not None
        size_bytes = bound.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self.assertLessEqual(size_bytes, 2 * RECEIVE_BUFFER_BYTES)
        bound.close()

    def test_endpoints_have_the_backlog_and_the_receive_buffer_of_a_port_number(self) -> None:
        """As the kernel has them; what an accepted connection may hold comes from the listening socket."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        write_certificate(Path(folder.name) / "own.pem")
        with socket.socket() as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            asked_for = plain.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        local = "interface=127.0.0.1"
        for port, backlog in (
            ("0", 77),
            (f"tcp:0:{local}", 77),
            ("tcp6:0:interface=\\:\\:1", 77),
            (f"ssl:0:{local}:privateKey={folder.name}/own.pem", 77),
            (f"tcp:0:{local}:backlog=33", 33),
            ("tcp:0:127.0.0.1:20", 20),
        ):
            listening = self.listening(port, 77)._port.socket  # type: ignore[union-attr]
            self.assertEqual(kernel_backlog(listening), backlog, port)
            self.assertEqual(listening.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF), asked_for, port)

    def test_port_0_is_any_free_port_and_the_address_says_which(self) -> None:
        """The address is there while it listens."""
        one = self.listening("0")
        assert one.address is not None
        with socket.create_connection(("127.0.0.1", one.address.port)):
            pass
        one.stopService()
        self.assertIsNone(one.address)

    def test_endpoint_strings_of_all_kinds_work(self) -> None:
        """TCP on one interface, IPv6, and a UNIX socket."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = f"{folder.name}/gateway.sock"
        for port in ("tcp:0:interface=127.0.0.1", "tcp6:0:interface=\\:\\:1", f"unix:{path}"):
            self.assertIsNotNone(self.listening(port).address)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)

    def test_a_busy_endpoint_is_an_error_when_it_is_bound_ahead_and_when_it_starts(self) -> None:
        """The message has no more than what and why."""
        port = self.listening("tcp:0").address.port  # type: ignore[union-attr]
        problem = f"^endpoint 'tcp:{port}': Address already in use$"
        with self.assertRaisesRegex(ConfigError, problem):
            listener(reactor, f"tcp:{port}", 1024, Factory()).bind()
        with self.assertRaisesRegex(ConfigError, problem):
            listener(reactor, f"tcp:{port}", 1024, Factory()).startService()

    def test_a_port_that_may_not_be_had_is_an_error(self) -> None:
        """An address that is not this machine's."""
        with self.assertRaisesRegex(
            ConfigError, r"^endpoint 'tcp:0:interface=192.0.2.1': Cannot assign requested addr"
        ):
            listener(reactor, "tcp:0:interface=192.0.2.1", 1024, Factory()).startService()

    def test_an_endpoint_that_is_described_wrongly_is_refused_in_one_line(self) -> None:
        """Unknown kinds, missing parts, files that are not there."""
        for port in (
            "carrier-pigeon:1",
            "tcp:abc",
            "tcp:1:2:3:4:5",
            "unix:x:mode=rw",
            "tcp:1:nonsense=2",
            "systemd:domain=INET:index=7",
            "systemd:domain=NONSENSE:name=x",
            "ssl:0:privateKey=/nowhere/key.pem",
        ):
            with self.assertRaises(ConfigError) as caught:
                listener(reactor, port, 1024, Factory()).startService()
            self.assertRegex(str(caught.exception), f"^endpoint {re.escape(repr(port))}: [^\n]+$")

    def test_an_endpoint_whose_key_everybody_may_read_is_refused(self) -> None:
        """However the endpoint names it: the gateway's own settings are no less strict."""
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        folder = Path(place.name)
        for name in ("own.pem", "a:b=c.pem"):
            write_certificate(folder / name)
            (folder / name).chmod(0o644)
            (folder / "link.pem").unlink(missing_ok=True)
            (folder / "link.pem").symlink_to(name)
            quoted = str(folder / name).replace(":", "\\:").replace("=", "\\=")
            for written in (
                f"ssl:0:privateKey={quoted}",
                f"ssl:0:{quoted}:interface=127.0.0.1",
                f"ssl:0:{folder}/link.pem",
            ):
                with self.assertRaisesRegex(
                    ConfigError, r"^endpoint '[^\n]+': the key in \S+\.pem is world-readable \("
                ):
                    listener(reactor, written, 1024, Factory())
            (folder / name).chmod(0o640)
            listener(reactor, f"ssl:0:privateKey={quoted}", 1024, Factory())


def documented_lines() -> str:
    (code,) = re.findall(r"## Into a `MultiService`.*?```python\n(.*?)```", (DOCS / "embedding.md").read_text(), re.S)
    return str(code)


class EmbeddingTests(SynchronousTestCase):
    """The lines of docs/embedding.md, as they stand there."""

    def test_the_documented_lines_put_a_gateway_into_a_running_service(self) -> None:
        """In five lines, and without a log observer of ours."""
        code = documented_lines()
        self.assertLessEqual(len(code.split("\n")), 6)
        clock = PortReactor([])
        parent = MultiService()
        parent.startService()
        with tempfile.TemporaryDirectory() as folder:
            names = {"parent": parent, "reactor": clock, "folder": Path(folder)}
            exec(code.replace("10014", "0"), names)
            gateway: Any = names["gateway"]
            self.assertEqual([address.port for address in gateway.addresses], [1234])
            self.assertTrue((Path(folder) / "spool").is_dir())
            stopped = parent.stopService()
            while not stopped.called:
                clock.from_threads.get(timeout=10)()
            self.successResultOf(stopped)
        observers = globalLogPublisher._observers
        self.assertFalse([one for one in observers if isinstance(one, LineObserver)])
