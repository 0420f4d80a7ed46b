"""Anything a device, its link, the disk and the operator can do, in any order: nothing lost, nothing twice, no lie.

A rule is one thing that happens; after each the data folder is looked at, and at the end the device behaves and the
disk works until everything is stored. The short form takes the same runs every time; the long one goes where it likes.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from model import Device, DeviceFile, Line, World, body, metadata
from soak import SOAK, times
from store_faults import in_memory

from dsmgateway import commands as c
from dsmgateway.config import Settings
from dsmgateway.crc import crc16
from dsmgateway.families import IDENTIFIERS
from dsmgateway.lanes import Pace
from dsmgateway.packets import PACKET_BYTES

MOST_FILES = 4
STATS: Counter[str] = Counter()
NUMBERS = st.integers(0, 1000)
ERRORS = st.sampled_from([errno.EIO, errno.ENOSPC])
#: Which call from now on: most faults shall hit.
CALLS = st.integers(1, 25)
#: Packets of a file in which nothing is to be seen.
DARK = st.lists(st.integers(0, 11), max_size=6)
#: Which line, from the newest on.
LINES = st.sampled_from([0, 0, 0, 1, 2])
#: How many packets of a file are sent first, with nothing going wrong that was not on its way already.
PACKETS = st.sampled_from([0, 0, 1, 2, 3, 4, 7])
#: By how many the queue of a device turns.
SWAPS = st.sampled_from([0, 0, 1, 1, 2])
#: What no device says, or not now.
NONSENSE: list[Callable[[Line], c.DeviceCommand | bytes]] = [
    lambda line: b"GET / HTTP/1.1\r\n\r\n",
    lambda line: bytes(40),
    lambda line: b"\xff" * 5,
    lambda line: c.Data(b"never sent" * 100, 0x1234),
    lambda line: c.Status(4),
    lambda line: c.Path(b"dsm/picture/other.jpg\0"),
    lambda line: c.MetadataResponse(b"\x03\x04" + bytes(30)),
    lambda line: c.Init(5, 356917000000021, 0x02000000),
    lambda line: line.device.init,
    lambda line: line.file.start if line.file else c.Start(7777, 0),
    lambda line: c.Start(line.file.start.size + 1 if line.file else 0, 0),
    lambda line: c.Sync(0x7FFF_FFFF),
]


@st.composite
def contents(draw: st.DrawFn, seed: int, packets: int | None = None, dark: Sequence[int] | None = None) -> bytes:
    """The bytes of a file; a few packets, the last one of any length."""
    count = packets or draw(st.integers(1, 12))
    lead = draw(st.sampled_from([0, 0, 1, 2]))
    dark = draw(DARK) if dark is None else dark
    return body(seed, count, draw(st.sampled_from([0, 0, 1, 500, 1000])), lead, dark)


@st.composite
def devices(draw: st.DrawFn) -> Device:
    """A device of one of the families, with some files."""
    family = draw(st.sampled_from(["bytes", "packets", "identifiers", "identifiers", "unified"]))
    count = draw(st.integers(1, MOST_FILES))
    if family == "identifiers":
        return _dualcam(draw, count)
    files = []
    for number in range(count):
        content = draw(contents(number))
        crc = draw(st.sampled_from([0, crc16(content)]))
        path = b"%b/%06d.jpg" % (draw(st.sampled_from([b"dsm/picture", b"mdas9", b"dualcam_front"])), number)
        files.append(DeviceFile(c.Offer.FILE, path, content, b"", family == "packets", crc))
    return Device(7 if family == "unified" else 5, files)


def _dualcam(draw: st.DrawFn, count: int) -> Device:
    """Files that only their content tells apart; twins have the same number of packets and the same metadata, too."""
    are_twins = draw(st.booleans())
    packets, dark = draw(st.integers(1, 12)), draw(DARK)
    files = []
    for number in range(count + are_twins):
        offer = c.Offer.FRONT_PHOTO if are_twins else draw(st.sampled_from([c.Offer.FRONT_PHOTO, c.Offer.REAR_VIDEO]))
        same, own = metadata(1571840452123, 4), metadata(1571840452123 + number, 4)
        about = same if are_twins else draw(st.sampled_from([same, own, b"", bytes(9)]))
        content = draw(contents(number, packets, dark)) if are_twins else draw(contents(number))
        files.append(DeviceFile(offer, IDENTIFIERS[offer], content, about, in_packets=True))
    return Device(5, files)


class AnythingGoes(RuleBasedStateMachine):
    """The rules; ``which`` of the lines a rule is about is the newest for 0."""

    def __init__(self) -> None:
        super().__init__()
        self._scratch = in_memory()
        self.world: World | None = None
        self.steps_since_end = 0
        self.folder = self._scratch.__enter__()

    @initialize(
        device=devices(),
        after_file=st.sampled_from(["repeat", "repeat", "complete"]),
        asks_metadata=st.booleans(),
        hold_bytes=st.sampled_from([1, 4096, 16384]),
        checkpoint_bytes=st.sampled_from([1024, 4096, 262144]),
    )
    def begin(
        self, device: Device, after_file: str, asks_metadata: bool, hold_bytes: int, checkpoint_bytes: int
    ) -> None:
        chosen = Settings(after_file=after_file, metadata=asks_metadata)
        pace = Pace(hold_bytes=hold_bytes, checkpoint_bytes=checkpoint_bytes)
        self.is_one_a_connection = after_file == "complete"
        self.world = World(self.folder, device, chosen, pace)
        self.world.connect()

    def teardown(self) -> None:
        try:
            if self.world is not None:
                self.world.assert_ends_well(MOST_FILES + 3 if self.is_one_a_connection else 2)
                STATS.update(self.world.stats)
                STATS["runs"] += 1
        finally:
            if self.world is not None:
                self.world.close()
            self._scratch.__exit__(None, None, None)

    def _line(self, which: int) -> Line:
        world = self._world
        return world.lines[-1 - which % len(world.lines)] if world.lines else world.connect()

    @property
    def _world(self) -> World:
        assert self.world is not None
        return self.world

    def _step_done(self) -> None:
        STATS["steps"] += 1
        self.steps_since_end += 1
        self._world.assert_sound()

    def _send_up_to(self, packets: int, enhanced: int = 0) -> None:
        """All goes well on the newest line up to so many packets of a file."""
        for _ in range(20 if packets else 0):
            line = self._line(0)
            if (line.position or 0) >= packets * PACKET_BYTES:
                return
            self._world.converse(line, 1, 1, enhanced)
            if line.gone:
                return

    # -- the device behaves

    @rule(packets=st.integers(1, 9), enhanced=st.sampled_from([0, 0x5A]))
    def send_some(self, packets: int, enhanced: int) -> None:
        self._send_up_to(packets, enhanced)
        self._step_done()

    @rule(after=PACKETS, keeps_old=st.booleans(), by=SWAPS, says_init=st.booleans())
    def come_again(self, after: int, keeps_old: bool, by: int, says_init: bool) -> None:
        """A new connection, on which another file may be next; the old one is gone, or goes on delivering."""
        self._send_up_to(after)
        if not keeps_old:
            self._line(0).lose()
        self._world.device.swap(by)
        line = self._world.connect()
        if says_init:
            line.deliver(1 << 20)
        self._step_done()

    @rule(rounds=st.integers(1, 12), frames=st.integers(1, 3), enhanced=st.sampled_from([0, 0xFF, 0x5A]))
    def converse(self, rounds: int, frames: int, enhanced: int) -> None:
        self._world.converse(self._line(0), rounds, frames, enhanced)
        self._step_done()

    @rule(which=LINES, length=st.sampled_from([1, 16, 100, 1030, 1400, 5000, 1 << 20]), works=st.booleans())
    def trickle(self, which: int, length: int, works: bool) -> None:
        """So many bytes arrive, cut anywhere; the disk has time for them, or not."""
        self._line(which).deliver(length)
        if works:
            self._world.run_worker()
        self._line(which).hear()
        self._step_done()

    @rule(which=LINES, frames=st.integers(1, 6), enhanced=st.integers(0, 255))
    def data(self, which: int, frames: int, enhanced: int) -> None:
        """The device sends on without waiting for anything."""
        self._line(which).data(frames, enhanced)
        self._step_done()

    # -- the device does not

    @rule(
        after=PACKETS,
        which=LINES,
        how=st.sampled_from(["cut", "cut", "flip", "twice", "rewind", "sync", "mute"]),
        place=NUMBERS,
    )
    def misbehave(self, after: int, which: int, how: str, place: int) -> None:
        """A frame is damaged, SYNC is lower than asked for or comes unasked, METADATA does not come."""
        self._send_up_to(after)
        line = self._line(which)
        match how:
            case "rewind":
                line.rewind = 1 + place % 9
            case "sync":
                line.sync_unasked(place)
            case "mute":
                line.mute = True
            case _:
                line.damaged(how, place)
        self._step_done()

    @rule(which=LINES, nonsense=st.integers(0, len(NONSENSE) - 1))
    def talk_nonsense(self, which: int, nonsense: int) -> None:
        line = self._line(which)
        line.say(NONSENSE[nonsense](line))
        self._step_done()

    @rule(after=PACKETS, which=LINES, by=SWAPS)
    def begin_again(self, after: int, which: int, by: int) -> None:
        """INIT in the middle of anything; another file may be next."""
        self._send_up_to(after)
        self._world.device.swap(by)
        self._line(which).begin_again()
        self._step_done()

    @rule(which=NUMBERS)
    def offer_again(self, which: int) -> None:
        """A file that was acknowledged is asked for once more: it is known, and makes no second copy."""
        self._world.device.offer_again(which)
        self._step_done()

    # -- the link

    @rule(which=LINES, how=st.sampled_from(["lost", "closed by the device"]))
    def end_of_line(self, which: int, how: str) -> None:
        line = self._line(which)
        if how == "lost":
            line.lose()
        else:
            line.half_close()
        self._step_done()

    @rule(seconds=st.sampled_from([1, 1, 2, 6, 16, 21, 46, 121]))
    def wait(self, seconds: float) -> None:
        self._world.wait(seconds)
        self._step_done()

    # -- the disk, and the operator

    @rule(most=st.sampled_from([1, 2, 1000]), answers=st.booleans())
    def work(self, most: int, answers: bool) -> None:
        """The disk does some of what it was asked for; the answers are late, or not."""
        self._world.work(most)
        if answers:
            self._world.answer()
        self._step_done()

    @rule(
        after=PACKETS,
        kind=st.sampled_from(["fail", "fail", "die", "write short"]),
        calls=CALLS,
        more=st.sampled_from([0, 0, 1, 3, 8]),
        number=ERRORS,
    )
    def fault(self, after: int, kind: str, calls: int, more: int, number: int) -> None:
        """Calls of the disk fail before long, the gateway is killed before one, or the next writes are short."""
        self._send_up_to(after)
        disk = self._world.disk
        if kind == "fail":
            disk.fail_at, disk.fail_for, disk.errno = len(disk.calls) + calls, more, number
        elif kind == "die":
            disk.kill_at = len(disk.calls) + calls
        else:
            disk.short_writes = calls
        self._step_done()

    @precondition(lambda self: self.steps_since_end > 7)
    @rule(
        after=PACKETS,
        how=st.sampled_from(["kill", "power cut", "power cut, index lost", "stop"]),
        again=st.sampled_from(["", "", "killed", "fails"]),
        calls=st.integers(1, 60),
        number=ERRORS,
    )
    def end(self, after: int, how: str, again: str, calls: int, number: int) -> None:
        """The gateway ends, and starts; after a kill the start may be killed, or fail, too."""
        self._send_up_to(after)
        world, self.steps_since_end = self._world, 0
        if how == "stop":
            world.restart()
        elif how == "kill":
            kill_at, fail_at = (calls if again == kind else 0 for kind in ("killed", "fails"))
            world.kill(kill_at=kill_at, fail_at=fail_at, errno=number)
        else:
            world.cut_power(keep_index=how == "power cut")
        self._step_done()


@pytest.mark.soak
def test_anything_goes() -> None:
    """The machine, as often as there is time for."""
    chosen = settings(
        max_examples=times(100, 3000),
        stateful_step_count=60,
        derandomize=not SOAK,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(AnythingGoes, settings=chosen)
    told = ", ".join(f"{STATS[name]} {name}" for name in ("steps", "connections", "kills", "power cuts", "restarts"))
    print(
        f"\n{STATS['runs']} runs: {told}; {STATS['acknowledged']} acknowledged, {STATS['files']} files, 0 lost, 0 twice"
    )
