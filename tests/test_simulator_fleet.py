"""Fleets of simulated cameras against a small gateway in memory: no sockets, a clock that the test winds."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.test.iosim import FakeTransport, IOPump, connect
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from dsmgateway.commands import (
    Close,
    FileRequest,
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
from dsmgateway.families import IDENTIFIERS, Family, Unit, unit_of
from dsmgateway.frames import DataRun
from dsmgateway.framing import Damaged, DeviceDecoder, DeviceEvent
from dsmgateway.simulator.faults import Faults
from dsmgateway.simulator.fleet import Fleet, endpoint_for
from dsmgateway.simulator.makes import Make
from dsmgateway.simulator.plan import Picture, Plan, StartCrc
from dsmgateway.simulator.report import FleetResult

#: What is held of each file: by IMEI, path or identifier, and what the device says about it.
Parts = dict[tuple[int, bytes, bytes], bytearray]
ALL = Faults(corrupt=0.03, truncate=0.05, cut_every=15, stall_s=1, silent_cut=True, rewind=0.1)


class Peer(Protocol):
    """A gateway just good enough: keeps parts in memory, asks again for what is damaged, and the newest link wins."""

    def __init__(self, parts: Parts, stored: list[str], owners: dict[int, Peer]) -> None:
        self.parts, self.stored, self.owners, self.decoder = parts, stored, owners, DeviceDecoder()
        self.imei, self.name, self.about, self.size, self.offset = 0, b"", b"", 0, 0
        self.unit = Unit.BYTES

    def dataReceived(self, data: bytes) -> None:
        self.decoder.feed(data)
        while self.owners.get(self.imei, self) is self and (event := self.decoder.next_event()) is not None:
            self.take(event)

    def say(self, *commands: Close | FileRequest | MetadataRequest | PathRequest | RepeatInit | Resume) -> None:
        self.transport.write(b"".join(command.encode() for command in commands))

    def ask(self) -> None:
        self.decoder.drop_until_sync()
        if self.unit is Unit.PACKETS:
            self.say(Resume(min(len(self.part) // 1024 + 1, self.size)))
        else:
            self.say(Resume(min(len(self.part), (self.size - 1) // 1024 * 1024)))

    @property
    def part(self) -> bytearray:
        return self.parts.setdefault((self.imei, self.name, self.about), bytearray())

    @property
    def is_whole(self) -> bool:
        return (-(-self.offset // 1024) if self.unit is Unit.PACKETS else self.offset) == self.size

    def offered(self, init: Init) -> None:
        self.imei = init.imei
        if (old := self.owners.get(self.imei, self)) is not self:
            old.transport.loseConnection()
        self.owners[self.imei] = self
        offer = min(init.offers, default=None)
        if offer is None:
            self.say(Close())
            return
        self.unit = unit_of(offer, init.protocol_id)
        self.name = IDENTIFIERS.get(offer, b"")
        self.say(MetadataRequest(self.name) if self.name else PathRequest())

    def take(self, event: DeviceEvent) -> None:
        match event:
            case Init():
                self.offered(event)
            case Path(path=path):
                self.name = path
                self.say(MetadataRequest())
            case MetadataResponse(body=body):
                self.about = body
                self.say(FileRequest(self.name))
            case Start(size=size):
                self.size = size
                self.ask()
            case Sync(offset=offset):
                self.offset = (offset - 1) * 1024 if self.unit is Unit.PACKETS else offset
            case DataRun(data=data, offset_bytes=told):
                if told not in (None, self.offset):
                    self.ask()
                    return
                self.part[self.offset :] = data
                self.offset += len(data)
                if self.is_whole:
                    self.stored.append(hashlib.sha256(self.part).hexdigest())
                    self.say(RepeatInit())
            case Damaged():
                self.ask()


class Hasty(Peer):
    """A gateway that acknowledges what it does not have."""

    def take(self, event: DeviceEvent) -> None:
        super().take(event)
        if isinstance(event, Start):
            self.say(RepeatInit())


class Mute(Peer):
    """A gateway that accepts and says nothing."""

    def take(self, event: DeviceEvent) -> None:
        pass


@implementer(IStreamClientEndpoint)
class InMemory:
    """Connects every camera with a new peer at once; may refuse the first connections."""

    def __init__(self, peer: type[Peer] = Peer, refuse: int = 0) -> None:
        self.parts: Parts = {}
        self.stored: list[str] = []
        self.owners: dict[int, Peer] = {}
        self.pumps: list[IOPump] = []
        self._peer, self._refuse = peer, refuse

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        if self._refuse:
            self._refuse -= 1
            return fail(ConnectionRefusedError())
        link, peer = protocolFactory.buildProtocol(None), self._peer(self.parts, self.stored, self.owners)
        assert link is not None
        self.pumps.append(connect(peer, FakeTransport(peer, True), link, FakeTransport(link, False)))
        return succeed(link)

    def pump(self) -> None:
        random.Random(1).shuffle(self.pumps)
        for pump in self.pumps:
            pump.pump()


class FleetTests(SynchronousTestCase):
    """A fleet runs until its Deferred fires."""

    def run_fleet(
        self, plan: Plan, endpoint: InMemory, at_step: Callable[[int, Fleet], None] | None = None
    ) -> FleetResult:
        self.clock = Clock()
        fleet = Fleet(plan, self.clock, endpoint)
        results: list[FleetResult] = []
        fleet.run().addCallback(results.append)
        for step in range(60_000):
            if results:
                break
            if at_step:
                at_step(step, fleet)
            endpoint.pump()
            self.clock.advance(0.02)
        for _ in range(3):
            endpoint.pump()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(fleet.tally.connections_now, 0)
        return results[0]

    def test_every_file_of_every_camera_arrives(self) -> None:
        """Without faults each file is sent once, over one connection for each camera."""
        endpoint = InMemory()
        result = self.run_fleet(Plan(cameras=7, files=3), endpoint)
        self.assertTrue(result.is_good)
        self.assertEqual(sorted(endpoint.stored), sorted(row.sha256 for row in result.files))
        self.assertEqual((result.tally.acknowledged, result.tally.connections), (21, 7))
        self.assertEqual(result.tally.bytes_sent, sum(row.size for row in result.files))
        self.assertTrue(all(20_000 <= row.size <= 120_000 for row in result.files))
        for row in result.files:
            self.assertTrue(row.offered_s <= row.sent_s <= row.acknowledged_s)
        for row, following in pairwise(result.files):
            self.assertTrue(row.imei != following.imei or row.acknowledged_s <= following.offered_s)

    def test_every_file_arrives_over_bad_links(self) -> None:
        """With all faults at once every file still arrives whole, in more connections and bytes."""
        endpoint = InMemory()
        result = self.run_fleet(Plan(cameras=5, files=3, faults=ALL, rate_bytes_s=100_000, seed=3), endpoint)
        self.assertTrue(result.is_good, result.reasons)
        self.assertLessEqual({row.sha256 for row in result.files}, set(endpoint.stored))
        self.assertEqual(set(result.tally.faults), {"corrupt", "truncate", "cut", "stall", "rewind"})
        self.assertGreater(result.reconnects, 15)
        self.assertGreater(result.tally.bytes_sent_again, 0)
        self.assertEqual({row.bytes_never_sent for row in result.files}, {0})

    def test_same_seed_gives_the_same_run(self) -> None:
        """A run against a gateway that does the same is the same, to the byte."""
        plan = Plan(cameras=3, files=2, faults=ALL, rate_bytes_s=100_000, seed=9)
        first, second = (self.run_fleet(plan, InMemory()).as_json() for _ in range(2))
        self.assertEqual(first, second)
        other = self.run_fleet(Plan(cameras=3, files=2, faults=ALL, rate_bytes_s=100_000, seed=10), InMemory())
        self.assertNotEqual(first["files"], other.as_json()["files"])

    def test_mixed_fleet_delivers_over_bad_links(self) -> None:
        """Every family of both generations delivers each file whole, whatever its way of being asked and counting."""
        endpoint = InMemory()
        faults = replace(ALL, swap=0.5)
        plan = Plan(cameras=20, files=4, mix=True, faults=faults, rate_bytes_s=200_000, seed=5)
        result = self.run_fleet(plan, endpoint)
        self.assertTrue(result.is_good, result.reasons)
        self.assertLessEqual({row.sha256 for row in result.files}, set(endpoint.stored))
        self.assertEqual(set(result.families), {"adas", "dashcam", "dsm", "dualcam"})
        self.assertEqual({row.protocol for row in result.files}, {5, 6, 7})
        self.assertIn("swap", result.tally.faults)
        self.assertEqual({row.bytes_never_sent for row in result.files}, {0})

    def test_dsm_and_dualcam_on_each_tracker(self) -> None:
        """Trackers with two cameras share their files out between them and deliver those of both."""
        endpoint = InMemory()
        result = self.run_fleet(Plan(cameras=3, files=4, make=Make((Family.DSM, Family.DUALCAM))), endpoint)
        self.assertTrue(result.is_good, result.reasons)
        self.assertEqual(sorted(endpoint.stored), sorted(row.sha256 for row in result.files))
        self.assertEqual(result.families, {"dsm": (6, 6), "dualcam": (6, 6)})
        self.assertEqual((result.tally.connections, result.tally.acknowledged), (3, 12))

    def test_hasty_gateway_is_found_out(self) -> None:
        """Acknowledgements before the data are violations; such a run is never good."""
        result = self.run_fleet(Plan(attempts=2), InMemory(Hasty))
        self.assertFalse(result.is_good)
        self.assertIn("came too early", result.reasons[0])

    def test_refused_camera_comes_back(self) -> None:
        """A gateway that is not there yet is tried again."""
        result = self.run_fleet(Plan(attempts=5), InMemory(refuse=4))
        self.assertTrue(result.is_good)
        self.assertEqual(result.tally.failed_connections, 4)

    def test_refused_camera_gives_up(self) -> None:
        """After so many failures in a row a camera says why and ends."""
        result = self.run_fleet(Plan(cameras=2, attempts=3), InMemory(refuse=100))
        self.assertFalse(result.is_good)
        self.assertEqual(result.tally.failed_connections, 6)
        self.assertEqual(len(result.reasons), 1)
        self.assertIn("refused", result.reasons[0])

    def test_mute_gateway_is_given_up(self) -> None:
        """A gateway that never answers costs patience, again and again, and then the camera."""
        result = self.run_fleet(Plan(attempts=2, patience_s=30), InMemory(Mute))
        self.assertEqual(result.reasons, ("the gateway was silent for too long",))
        self.assertGreater(result.seconds, 60)

    def test_time_limit_ends_the_run(self) -> None:
        """When time is up cameras stop where they are."""
        result = self.run_fleet(Plan(cameras=2, timeout_s=5, patience_s=1000), InMemory(Mute))
        self.assertEqual(result.reasons, ("time was up",))
        self.assertTrue(5 <= result.seconds < 6.1)

    def test_time_limit_ends_a_run_that_is_still_connecting(self) -> None:
        """An address that never answers, given as a number or as a name, is no bug of ours."""
        for host in ("192.0.2.1", "gateway.example"):
            clock = MemoryReactorClock()
            over = Fleet(Plan(cameras=2, timeout_s=5), clock, endpoint_for(clock, host, 10014)).run()
            clock.pump([1.0] * 5)
            result = self.successResultOf(over)
            self.assertEqual((result.reasons, result.tally.failed_connections), (("time was up",), 0))

    def test_stopped_run_tells_how_far_it_came(self) -> None:
        """A run that is interrupted closes everything and still has a result."""

        def interrupt(step: int, fleet: Fleet) -> None:
            if step == 60:
                fleet.stop()

        plan = Plan(cameras=3, files=2, sizes=(50_000, 50_000), rate_bytes_s=50_000, first_camera=40)
        result = self.run_fleet(plan, InMemory(), interrupt)
        self.assertFalse(result.is_good)
        self.assertEqual((result.tally.acknowledged, result.reasons), (3, ("the run was stopped",)))

    def test_cameras_come_one_after_the_other(self) -> None:
        """The ramp spreads the first connections."""
        seen: dict[int, int] = {}
        endpoint = InMemory(Mute)

        def look(step: int, fleet: Fleet) -> None:
            seen[step] = fleet.tally.connections

        self.run_fleet(Plan(cameras=50, connects_per_s=10, timeout_s=6, patience_s=1000), endpoint, look)
        self.assertEqual((seen[50 + 1], seen[5 * 50 + 1]), (11, 50))

    def test_pictures_are_shared_out_in_turn(self) -> None:
        """Given pictures go round over all files of all cameras, as they are."""
        pictures = tuple(Picture(f"{name}.jpg", name.encode() * 5000) for name in "abc")
        endpoint = InMemory()
        result = self.run_fleet(Plan(cameras=2, files=2, pictures=pictures, start_crc=StartCrc.ALWAYS), endpoint)
        self.assertEqual([row.source for row in result.files], ["a.jpg", "b.jpg", "c.jpg", "a.jpg"])
        self.assertEqual(sorted(map(bytes, endpoint.parts.values())), [b"a" * 5000] * 2 + [b"b" * 5000, b"c" * 5000])
