"""A gateway in process with devices at its lines, for tests that do anything to them in any order.

Real: session, decoder, protocol, lane and file store. By hand: the clock, when the disk works and when its answers
arrive, what of a device's bytes has arrived, every fault. A broken promise is an `AssertionError` at once.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hand_worker import HandWorker
from model_disk import ModelDisk
from store_faults import MAX_AGE_S, Killed
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from dsmgateway import commands as c
from dsmgateway.crc import crc16
from dsmgateway.errors import StoreError
from dsmgateway.factory import CameraFactory
from dsmgateway.framing import GatewayDecoder
from dsmgateway.lanes import Job, Lane, Pace
from dsmgateway.packets import PACKET_BYTES
from dsmgateway.settings import Settings
from dsmgateway.store import FileStore, Recovery, State, check
from dsmgateway.store.files import Disk
from dsmgateway.store.recovery import under_way

IMEI = 356917000000013
#: Rounds of a conversation between a device and a gateway that both do as they should, before it counts as stuck.
MOST_ROUNDS = 400


@dataclass(eq=False)
class DeviceFile:
    """A file that a device has; ``offer`` and ``path`` say how it is asked for."""

    offer: c.Offer
    path: bytes
    content: bytes = field(repr=False)
    metadata: bytes = b""
    in_packets: bool = False
    start_crc: int = 0

    @property
    def start(self) -> c.Start:
        size = len(self.content)
        return c.Start(-(-size // PACKET_BYTES) if self.in_packets else size, self.start_crc)


@dataclass(eq=False)
class Device:
    """A tracker: what it has to deliver, and what it was told to drop."""

    protocol_id: int
    queue: list[DeviceFile]
    imei: int = IMEI
    dropped: list[DeviceFile] = field(default_factory=list)
    #: Everything that it ever had.
    had: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.had |= {file.content for file in self.queue}

    @property
    def init(self) -> c.Init:
        settings = 0
        for file in self.queue:
            settings |= int(file.offer) << 24
        return c.Init(self.protocol_id, self.imei, settings or 0x40000400)

    def head(self, path: bytes) -> DeviceFile | None:
        """The file that is next under this path or identifier; b"" for the next one that has a path."""
        named = (file for file in self.queue if file.path == path or (not path and file.offer is c.Offer.FILE))
        return next(named, None)

    def swap(self, by: int = 1) -> None:
        """Have other files be next, as after a reconnect."""
        if self.queue:
            by %= len(self.queue)
            self.queue[:] = self.queue[by:] + self.queue[:by]

    def offer_again(self, which: int) -> None:
        """Take one that was dropped into the queue again, to be its last."""
        if self.dropped:
            self.queue.append(self.dropped.pop(which % len(self.dropped)))

    def drop(self, file: DeviceFile) -> None:
        if file in self.queue:
            self.queue.remove(file)
            self.dropped.append(file)


class LineTransport(StringTransport):
    """A socket that the world cuts; a gateway that is dead says nothing."""

    def __init__(self, disk: ModelDisk) -> None:
        super().__init__()
        self.paused = self.over = self.aborted = False
        self._disk = disk

    def write(self, data: bytes) -> None:
        if not self.over and not self._disk.dead:
            super().write(data)

    def loseConnection(self) -> None:
        self.over = True

    def abortConnection(self) -> None:
        self.over = self.aborted = True

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False


class Line:
    """One connection of a device: what it has said and is not delivered yet, and where it stands with a file."""

    def __init__(self, world: World, device: Device) -> None:
        self.world, self.device = world, device
        self.transport = LineTransport(world.disk)
        self.protocol = world.factory.buildProtocol(IPv4Address("TCP", "198.51.100.7", 1))
        self.protocol.makeConnection(self.transport)
        self.out = bytearray()
        self.file: DeviceFile | None = None
        self.position: int | None = None
        self.sent_whole = False
        self.gone = self.half_closed = False
        #: What the device does wrong next.
        self.mute = False
        self.rewind = 0
        self._crc = 0
        self._decoder = GatewayDecoder()
        self.say(device.init)

    # -- bytes

    def say(self, what: c.DeviceCommand | bytes) -> None:
        self.out += what if isinstance(what, bytes) else what.encode()

    def deliver(self, length: int) -> None:
        """Let so many bytes arrive, if the gateway reads."""
        transport = self.transport
        if self.gone or self.half_closed or transport.paused or transport.aborted or not self.out:
            return
        piece = bytes(self.out[:length])
        del self.out[:length]
        self.protocol.dataReceived(piece)

    def hear(self, most: int = 100) -> None:
        """Obey so many commands of the gateway; notice its end."""
        if self.gone:
            return
        if self.transport.aborted:
            self.lose()
            return
        self._decoder.feed(self.transport.value())
        self.transport.clear()
        for _ in range(most):
            command = self._decoder.next_command()
            if command is None:
                if self.transport.over:
                    self.lose()
                return
            self._obey(command)

    def lose(self) -> None:
        """The connection is gone, and both sides know."""
        if not self.gone:
            self.gone = True
            self.protocol.connectionLost(Failure(ConnectionDone()))

    def half_close(self) -> None:
        """The device closes its side and listens on."""
        if not self.gone and not self.half_closed and not self.transport.over:
            self.half_closed = True
            self.protocol.readConnectionLost()

    # -- what the device does

    def _obey(self, command: c.GatewayCommand) -> None:
        match command:
            case c.PathRequest():
                head = self.device.head(b"")
                self.say(c.Path(head.path + b"\0" if head else b"\0"))
            case c.MetadataRequest(identifier=identifier):
                self._describe(identifier)
            case c.FileRequest(path=path):
                self._begin(self.device.head(path.rstrip(b"\0")))
            case c.Resume(offset=offset):
                self._go_on_at(offset)
            case c.RepeatInit() | c.Status():
                self._told(command)
            case c.Close():
                self.lose()

    def _describe(self, identifier: bytes) -> None:
        head = self.device.head(identifier)
        if self.mute:
            self.mute = False
        else:
            self.say(c.MetadataResponse(head.metadata if head else b""))

    def _begin(self, file: DeviceFile | None) -> None:
        self.file, self.position, self.sent_whole = file, None, False
        self.say(file.start if file else c.Status(17))

    def _go_on_at(self, offset: int) -> None:
        if self.file is None:
            return
        at_bytes = max(offset - 1, 0) * PACKET_BYTES if self.file.in_packets else offset
        if at_bytes >= len(self.file.content):
            self.say(c.Status(6))
            return
        self.sync(max(at_bytes - self.rewind * PACKET_BYTES, 0))
        self.rewind = 0

    def sync(self, at_bytes: int) -> None:
        """Say from where the data that follows is."""
        assert self.file is not None
        self.position, self._crc = at_bytes, 0
        self.say(c.Sync(at_bytes // PACKET_BYTES + 1 if self.file.in_packets else at_bytes))

    def sync_unasked(self, packet: int) -> None:
        """Go on at some packet before, and say so."""
        if self.file is not None and self.position is not None:
            most = min(self.position, len(self.file.content) - 1) // PACKET_BYTES
            self.sync(packet % (most + 1) * PACKET_BYTES)

    def _told(self, command: c.RepeatInit | c.Status) -> None:
        """An acknowledgement, if anything was sent since INIT."""
        file, self.file, self.position = self.file, None, None
        if file is not None:
            assert self.sent_whole, f"{command} before the last byte of {file} was sent"
            self.world.acknowledged(file)
            self.device.drop(file)
        if isinstance(command, c.RepeatInit):
            self.say(self.device.init)
        else:
            self.lose()

    def begin_again(self) -> None:
        """INIT in the middle of anything."""
        self.file, self.position = None, None
        self.say(self.device.init)

    def data(self, frames: int, enhanced: int = 0) -> None:
        """Send so many frames; ``enhanced`` has a bit for each that says its offset."""
        for number in range(frames):
            frame = self._frame(bool(enhanced >> (number % 8) & 1))
            if frame is None:
                return
            self.out += frame

    def damaged(self, how: str, place: int) -> None:
        """Send one frame that is cut and repeated, has a wrong bit, or comes twice.

        One of nothing but zeros after a SYNC leaves the CRC at 0: DATA has nothing to tell that it came twice.
        """
        crc, frame = self._crc, self._frame(False)
        if frame is None:
            return
        place %= len(frame)
        match how:
            case "cut":
                self.out += frame[:place] + frame
            case "flip":
                place = max(place, 4)
                self.out += frame[:place] + bytes([frame[place] ^ 0x10]) + frame[place + 1 :]
            case "twice":
                self.out += frame * (2 if crc != self._crc else 1)

    def _frame(self, enhanced: bool) -> bytes | None:
        file, at_bytes = self.file, self.position
        if file is None or at_bytes is None or at_bytes >= len(file.content):
            return None
        packet = file.content[at_bytes : at_bytes + PACKET_BYTES]
        self._crc = crc16(packet, self._crc)
        self.position = at_bytes + PACKET_BYTES
        self.sent_whole = self.sent_whole or self.position >= len(file.content)
        if enhanced and self.device.protocol_id >= 6:
            return c.EnhancedData(at_bytes, packet, self._crc).encode()
        return c.Data(packet, self._crc).encode()


class ModelWorker(HandWorker):
    """A worker whose work and whose answers both wait for the world."""

    def __init__(self, folder: Path, disk: ModelDisk, pace: Pace, clock: Clock) -> None:
        super().__init__(folder, automatic=False, disk=disk)
        self._disk = disk
        # A time long ago: nothing expires, and names are the same in every run.
        self.store = FileStore(folder, disk=disk, now=lambda: 1.7e9 + clock.seconds())
        self._lane = Lane(self.store, pace, clock.seconds)
        self._answers: list[tuple[Job, object]] = []

    def start(self) -> Recovery:
        return self.store.start(MAX_AGE_S)

    def work(self, most: int) -> None:
        """Do so many of the calls that wait, as one batch."""
        jobs, self.waiting = self.waiting[:most], self.waiting[most:]
        self._answers += self._lane.perform(jobs)

    def answer(self) -> None:
        """Let the answers that there are arrive; the dead do not answer, not even for what they did before."""
        answers, self._answers = [] if self._disk.dead else self._answers, []
        for job, outcome in answers:
            job.answer(outcome)

    def run(self) -> None:
        while (self.waiting or self._answers) and not self._disk.dead:
            self.work(len(self.waiting))
            self.answer()

    def drain(self) -> None:
        """Do all that is left, as at the end of the lane."""
        self.run()
        if not self._disk.dead:
            self._answers += self._lane.drain()
            self.run()


class World:
    """One data folder, the gateway on it, and the lines of its devices."""

    def __init__(self, scratch: Path, device: Device, settings: Settings, pace: Pace, *others: Device) -> None:
        self.device, self.devices = device, (device, *others)
        self.lines: list[Line] = []
        self.stats: Counter[str] = Counter()
        self._scratch, self._settings, self._pace = scratch, settings, pace
        self._cuts = 0
        self.folder = scratch / "0"
        self.disk = ModelDisk(self.folder)
        self.clock = Clock()
        self._bugs: list[str] = []
        globalLogPublisher.addObserver(self._observe)
        self.boot()

    def _observe(self, event: dict[str, Any]) -> None:
        self.stats[str(event.get("event"))] += 1
        if "log_failure" in event and not self.disk.dead:
            self._bugs.append(event["log_failure"].getTraceback())

    def close(self) -> None:
        globalLogPublisher.removeObserver(self._observe)
        self.disk.bury()

    # -- the gateway's life

    def boot(self, kill_at: int = 0, fail_at: int = 0, errno: int = 0) -> None:
        """Start a gateway; where this start dies or fails at a call, start another one after it."""
        self.lines.clear()
        self.disk.kill_at, self.disk.fail_at, self.disk.errno = kill_at, fail_at, errno
        self.worker = ModelWorker(self.folder, self.disk, self._pace, self.clock)
        try:
            self.worker.start()
        except (Killed, StoreError):
            assert kill_at or fail_at, "a disk without fault, and the gateway does not start"
            self._die()
            self.boot()
            return
        self.disk.work_well()
        settings = replace(self._settings, data=self.folder)
        self.factory = CameraFactory(settings, self.worker, self.clock, now=lambda: 1.7e9)

    def _die(self) -> None:
        self.disk.dead = True
        self.disk.bury()
        self.assert_folder_is_sound()
        self.disk = self.disk.after_a_kill()

    def kill(self, *, kill_at: int = 0, fail_at: int = 0, errno: int = 0) -> None:
        """SIGKILL; the start after it may be killed or fail, too."""
        self.stats["kills"] += 1
        self._die()
        self.boot(kill_at, fail_at, errno)

    def cut_power(self, *, keep_index: bool) -> None:
        """What was not synced is gone; the index is kept as SQLite leaves it, or lost."""
        self.stats["power cuts"] += 1
        self._cuts += 1
        found = self._scratch / str(self._cuts)
        self.disk.dead = True
        self.disk.survivors(found, keep_index=keep_index)
        self.disk.bury()
        self.folder, self.disk = found, ModelDisk.found(found)
        self.boot()

    def restart(self) -> None:
        """Stop in order, and start again."""
        self.stats["restarts"] += 1
        worker, stopped = self.worker, self.factory.stop()
        self._at_work(worker.drain)
        if self.worker is not worker:
            return  # it died on the way, and another one runs
        assert stopped.called, "the gateway does not come to an end"
        for line in self.lines:
            line.lose()
        self._at_work(worker.drain)
        if self.worker is worker:
            self._at_work(self._end)

    def _end(self) -> None:
        with suppress(StoreError):
            self.worker.store.stop()
        self.disk.bury()
        self.disk = self.disk.after_a_kill()
        self.boot()

    # -- time

    def _at_work(self, work: Any, *arguments: Any) -> None:
        """Let the disk work; it may be the end of the gateway."""
        disk = self.disk
        try:
            work(*arguments)
        except Killed:
            assert disk.dead
        if disk.dead and disk is self.disk:
            self.kill()

    def work(self, most: int = 1000) -> None:
        self._at_work(self.worker.work, most)

    def answer(self) -> None:
        self._at_work(self.worker.answer)

    def run_worker(self) -> None:
        self._at_work(self.worker.run)

    def wait(self, seconds: float) -> None:
        """Let time pass, and the gateway look at its limits."""
        self.clock.advance(seconds)
        self.factory.sweep()
        self.worker.probe()
        self.work()

    # -- lines

    def connect(self, device: Device | None = None) -> Line:
        """A device comes, the first one unless it is named; a disk that failed has been tried since."""
        self.stats["connections"] += 1
        self.worker.probe()
        self.lines = [line for line in self.lines if not line.gone]
        line = Line(self, device or self.device)
        self.lines.append(line)
        return line

    def converse(self, line: Line, rounds: int, frames: int = 3, enhanced: int = 0) -> None:
        """Let a device and the gateway go on as they should; stops when both have nothing to say."""
        for _ in range(rounds):
            before = (len(line.out), self.stats["acknowledged"], line.position, len(line.transport.value()))
            line.deliver(1 << 20)
            self.run_worker()
            if line.gone or line not in self.lines:
                return
            line.hear()
            line.data(frames, enhanced)
            if before == (len(line.out), self.stats["acknowledged"], line.position, len(line.transport.value())):
                return

    def send_all_but_the_last(self) -> list[Line]:
        """Have each device deliver its next file but for what is on its way; return the lines with the end of one."""
        ends = []
        for device in self.devices:
            line = next((line for line in reversed(self.lines) if line.device is device), None) or self.connect(device)
            for _ in range(MOST_ROUNDS):
                if line.gone or (line.sent_whole and line.out):
                    break
                self.converse(line, 1, 1)
            if line.sent_whole and line.out and not line.gone:
                ends.append(line)
        return ends

    # -- what is promised

    def acknowledged(self, file: DeviceFile) -> None:
        """A device was told that it may delete this: it has to be durable by now."""
        self.stats["acknowledged"] += 1
        assert file.content in self._durable(), f"acknowledged and not durable: {file}"

    def _durable(self) -> set[bytes | None]:
        return {self.disk.durable(path) for path in self._media()}

    def _media(self) -> list[Path]:
        return [path for path in (self.folder / "media").rglob("*") if path.is_file() and path.suffix != ".json"]

    def assert_folder_is_sound(self) -> None:
        """Whatever is stored is something the device had, once; all the rest can be gone on with, or was put aside."""
        if not (self.folder / "spool" / "aside").exists():
            return
        rows = list(check(self.folder))
        strange = [row for row in rows if not row.state.is_good and row.state is not State.SET_ASIDE]
        assert not strange, strange
        unfinished = under_way(self.folder, Disk())
        stored = [row.path for row in rows if row.state is State.OK and row.path not in unfinished]
        copies = Counter((self.folder / path).read_bytes() for path in stored)
        had = set().union(*(device.had for device in self.devices))
        assert copies.keys() <= had, "stored, and no device ever had it"
        assert all(count == 1 for count in copies.values()), "stored twice"

    def assert_sound(self) -> None:
        assert not self._bugs, self._bugs[0]
        self.assert_folder_is_sound()

    def assert_ends_well(self, most_connections: int) -> None:
        """With devices that behave and a disk that works, everything is stored, in so many connections of each."""
        self.disk.work_well()
        for line in self.lines:
            line.lose()
        self.run_worker()
        for device in self.devices:
            self._assert_delivers(device, most_connections)
        self.restart()
        self.assert_sound()
        held = Counter(path.read_bytes() for path in self._media())
        dropped = [file for device in self.devices for file in device.dropped]
        assert all(held[file.content] == 1 for file in dropped), "acknowledged, and lost or twice"
        assert not list((self.folder / "spool").glob("*.sidecar"))
        self.stats["files"] += len(dropped)

    def _assert_delivers(self, device: Device, most_connections: int) -> None:
        for _ in range(most_connections):
            self._deliver_all(device)
            if not device.queue:
                break
        assert not device.queue, f"not stored after {most_connections} connections: {device.queue}"

    def _deliver_all(self, device: Device) -> None:
        line = self.connect(device)
        for _ in range(MOST_ROUNDS):
            self.converse(line, MOST_ROUNDS)
            if line.gone:
                return
            self.wait(1)
        raise AssertionError(f"stuck in state {line.protocol.session.state}")


# -- devices


def metadata(milliseconds: int, file_type: int) -> bytes:
    """The 32 bytes of a DualCam's metadata."""
    return bytes([3, file_type]) + milliseconds.to_bytes(8, "big") + bytes(22)


def body(seed: int, packets: int, short: int, lead: int = 0, dark: Sequence[int] = ()) -> bytes:
    """A file's content: the first ``lead`` packets are those of every file, those in ``dark`` are of one value.

    The last packet is always its own, so that no two files are the same.
    """
    noise, common = random.Random(seed), random.Random("common")
    parts = [(common if number < lead else noise).randbytes(PACKET_BYTES) for number in range(packets - 1)]
    parts = [bytes(PACKET_BYTES) if number in dark else part for number, part in enumerate(parts)]
    return b"".join([*parts, noise.randbytes(PACKET_BYTES - short)])
