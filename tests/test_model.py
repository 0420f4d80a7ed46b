"""Anything a device, its link, the disk and the operator can do, in any order: nothing lost, nothing twice, no lie.

A rule is one thing that happens; after each the data folder is looked at, and at the end the device behaves and the
disk works until everything is stored. The short form takes the same runs every time; the long one goes where it likes.
"""

from __future__ import annotations

import errno
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from model import IMEI, Device, DeviceFile, Line, World, body, metadata
from model_disk import ModelDisk
from soak import SOAK, times
from store_faults import in_memory

from dsmgateway import commands as c
from dsmgateway.crc import crc16
from dsmgateway.families import IDENTIFIERS
from dsmgateway.lanes import Pace
from dsmgateway.packets import PACKET_BYTES
from dsmgateway.settings import Settings
from dsmgateway.store import resuming
from dsmgateway.store.landing import Ground

MOST_FILES = 4
OTHER_IMEI = 356917000000039
STATS: Counter[str] = Counter()
NUMBERS = st.integers(0, 1000)
ERRORS = st.sampled_from([errno.EIO, errno.ENOSPC])
#: Which call from now on: most faults shall hit.
CALLS = st.integers(1, 25)
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


def _content(chance: random.Random, seed: int, packets: int = 0, dark: Sequence[int] | None = None) -> bytes:
    """The bytes of a file: some packets, the last one of any length."""
    lead = chance.choice([0, 0, 1, 2])
    dark = _darkness(chance) if dark is None else dark
    return body(seed, packets or chance.randint(1, 12), chance.choice([0, 0, 1, 500, 1000]), lead, dark)


def _darkness(chance: random.Random) -> list[int]:
    """Packets of a file in which nothing is to be seen."""
    return chance.sample(range(12), chance.choice([0, 0, 1, 3, 6]))


def device_of(seed: int, imei: int = IMEI, first: int = 0) -> Device:
    """A device of one of the families, with some files, which are numbered from ``first`` on."""
    chance = random.Random(seed)
    family = chance.choice(["bytes", "packets", "identifiers", "identifiers", "unified"])
    count = chance.randint(1, MOST_FILES)
    if family == "identifiers":
        return _dualcam(chance, count, imei, first)
    files = []
    for number in range(first, first + count):
        content = _content(chance, number)
        path = b"%b/%06d.jpg" % (chance.choice([b"dsm/picture", b"mdas9", b"dualcam_front"]), number)
        crc = chance.choice([0, crc16(content)])
        files.append(DeviceFile(c.Offer.FILE, path, content, b"", family == "packets", crc))
    return Device(7 if family == "unified" else 5, files, imei)


def _dualcam(chance: random.Random, count: int, imei: int, first: int) -> Device:
    """Files that only their content tells apart; twins have the same number of packets and the same metadata, too."""
    are_twins = chance.random() < 0.5
    packets, dark = chance.randint(1, 12), _darkness(chance)
    files = []
    for number in range(first, first + count + are_twins):
        offer = c.Offer.FRONT_PHOTO if are_twins else chance.choice([c.Offer.FRONT_PHOTO, c.Offer.REAR_VIDEO])
        same, own = metadata(1571840452123, 4), metadata(1571840452123 + number, 4)
        about = same if are_twins else chance.choice([same, own, b"", bytes(9)])
        content = _content(chance, number, packets, dark) if are_twins else _content(chance, number)
        files.append(DeviceFile(offer, IDENTIFIERS[offer], content, about, in_packets=True))
    return Device(5, files, imei)


def other_device_of(seed: int) -> Device:
    """A device that has none of the other one's files."""
    return device_of(seed, OTHER_IMEI, 100)


class AnythingGoes(RuleBasedStateMachine):
    """The rules; ``which`` of the lines a rule is about is the newest for 0."""

    def __init__(self) -> None:
        super().__init__()
        self._scratch = in_memory()
        self.world: World | None = None
        self.steps_since_end = 0
        self.folder = self._scratch.__enter__()

    @initialize(
        device=st.integers(0, 0xFFFF_FFFF).map(device_of),
        after_file=st.sampled_from(["repeat", "repeat", "complete"]),
        asks_metadata=st.booleans(),
        hold_bytes=st.sampled_from([1, 4096, 16384]),
        checkpoint_bytes=st.sampled_from([1024, 4096, 262144]),
        interval_s=st.sampled_from([0.0, 5.0]),
        gap_s=st.sampled_from([0.0, 0.02]),
        others=st.lists(st.integers(0, 0xFFFF_FFFF).map(other_device_of), max_size=1),
    )
    def begin(
        self,
        device: Device,
        after_file: str,
        asks_metadata: bool,
        hold_bytes: int,
        checkpoint_bytes: int,
        interval_s: float,
        gap_s: float,
        others: Sequence[Device],
    ) -> None:
        """With 0 for the interval each write is followed by a checkpoint; with a gap finishes wait for each other."""
        chosen = Settings(after_file=after_file, metadata=asks_metadata)
        pace = Pace(
            hold_bytes=hold_bytes,
            checkpoint_bytes=checkpoint_bytes,
            checkpoint_interval_s=interval_s,
            finish_gap_s=gap_s,
        )
        self.is_one_a_connection = after_file == "complete"
        self.world = World(self.folder, device, chosen, pace, *others)
        self.world.connect()

    def teardown(self) -> None:
        try:
            if self.world is not None:
                STATS["acknowledged amid faults"] += self.world.stats["acknowledged"]
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

    @rule(after=PACKETS, keeps_old=st.booleans(), by=SWAPS, says_init=st.booleans(), which=NUMBERS)
    def come_again(self, after: int, keeps_old: bool, by: int, says_init: bool, which: int) -> None:
        """A new connection, on which another file may be next; the old one is gone, or goes on delivering.

        It is of any of the devices.
        """
        self._send_up_to(after)
        if not keeps_old:
            self._line(0).lose()
        device = self._world.devices[which % len(self._world.devices)]
        device.swap(by)
        line = self._world.connect(device)
        if says_init:
            line.deliver(1 << 20)
        self._step_done()

    @rule(
        rounds=st.sampled_from([1, 4, 8, 12, 40]), frames=st.integers(1, 3), enhanced=st.sampled_from([0, 0xFF, 0x5A])
    )
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

    # -- the device and the link do not

    @rule(
        after=PACKETS,
        which=LINES,
        how=st.sampled_from(["cut", "cut", "flip", "twice", "rewind", "sync", "mute", "begin again", "offer again"]),
        place=NUMBERS,
    )
    def misbehave(self, after: int, which: int, how: str, place: int) -> None:
        """A frame is damaged, SYNC is lower than asked for or comes unasked, METADATA does not come, INIT does.

        Or a file that was acknowledged is offered once more: it is known, and makes no second copy.
        """
        self._send_up_to(after)
        line = self._line(which)
        match how:
            case "rewind":
                line.rewind = 1 + place % 9
            case "sync":
                line.sync_unasked(place)
            case "mute":
                line.mute = True
            case "begin again":
                line.device.swap(place % 3)
                line.begin_again()
            case "offer again":
                line.device.offer_again(place)
            case _:
                line.damaged(how, place)
        self._step_done()

    @rule(
        which=LINES,
        how=st.sampled_from(["lost", "closed", "silent", "nonsense"]),
        seconds=st.sampled_from([1, 2, 6, 16, 21, 46, 121]),
        nonsense=st.integers(0, len(NONSENSE) - 1),
    )
    def trouble(self, which: int, how: str, seconds: float, nonsense: int) -> None:
        """A line is lost, closed by the device, silent for so long, or brings what no device says."""
        line = self._line(which)
        match how:
            case "lost":
                line.lose()
            case "closed":
                line.half_close()
            case "silent":
                self._world.wait(seconds)
            case _:
                line.say(NONSENSE[nonsense](line))
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
        only=st.sampled_from(["", "", "sync ", "move ", "link ", "commit ", ".sidecar", ".journal", ".part"]),
        calls=CALLS,
        more=st.sampled_from([0, 0, 1, 3, 8]),
        number=ERRORS,
    )
    def fault(self, after: int, kind: str, only: str, calls: int, more: int, number: int) -> None:
        """Calls of the disk fail before long, the gateway is killed before one, or the next writes are short.

        Any calls, or those that have ``only`` in what they do and where.
        """
        self._send_up_to(after)
        self._arm(kind, only, calls, more, number)
        self._step_done()

    def _arm(self, kind: str, only: str, calls: int, more: int, number: int) -> None:
        disk = self._world.disk
        disk.only, calls = only, 1 + calls % 4 if only else calls
        if kind == "fail":
            disk.fail_at, disk.fail_for, disk.errno = len(disk.calls) + calls, more, number
        elif kind == "die":
            disk.kill_at = len(disk.calls) + calls
        elif kind == "write short":
            disk.short_writes = calls

    @rule(
        kind=st.sampled_from(["", "fail", "fail", "die"]),
        only=st.sampled_from(["", "", "sync ", "move ", "link ", "commit ", ".sidecar", ".part"]),
        calls=CALLS,
        more=st.sampled_from([0, 0, 1, 3]),
        number=ERRORS,
    )
    def finish_together(self, kind: str, only: str, calls: int, more: int, number: int) -> None:
        """The last bytes of a file of each device come at once, so that these are finished as a group.

        What fails then is often about one of them only.
        """
        lines = self._world.send_all_but_the_last()
        self._arm(kind, only, calls, more, number)
        for line in lines:
            line.deliver(1 << 20)
        self._world.run_worker()
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


# -- stories that the machine shall be able to tell, and lies that it shall see


@pytest.fixture
def twins() -> Iterator[World]:
    """Two photos of one identifier, alike but for their content, the first one parked after five packets."""
    photos = [
        DeviceFile(c.Offer.FRONT_PHOTO, b"%photof", body(number, 8, 500, dark=[4, 5]), metadata(1571840452123, 4), True)
        for number in (1, 2)
    ]
    with in_memory() as folder:
        world = World(folder, Device(5, photos), Settings(), Pace(finish_gap_s=0.0))
        line = world.connect()
        for _ in range(20):
            if (line.position or 0) < 6 * PACKET_BYTES:  # the last one is on its way
                world.converse(line, 1, 1)
        line.lose()
        world.run_worker()
        yield world
        world.close()


def test_the_other_twin_comes_and_both_are_stored(twins: World) -> None:
    """After a power cut that loses the index, too: parked is durable, and darkness proves nothing."""
    (held,) = (twins.folder / "spool").glob("*.part")
    assert held.stat().st_size == 5 * PACKET_BYTES
    twins.cut_power(keep_index=False)
    twins.device.swap()
    twins.assert_ends_well(1)
    assert twins.stats["acknowledged"] == 2 and twins.stats["file.another"] == 1


def test_an_acknowledgement_of_what_is_not_durable_is_seen(twins: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelDisk, "synced", lambda disk, descriptor: None)
    with pytest.raises(AssertionError, match="acknowledged and not durable"):
        twins.assert_ends_well(1)


def test_two_files_in_one_are_seen(twins: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a store that goes on in the dark: what comes agrees with what is held, and is of the other file."""
    monkeypatch.setattr(resuming, "_telling_offset", lambda room, path, descriptor, offset_bytes: offset_bytes)
    twins.device.swap()
    with pytest.raises(AssertionError, match=r"acknowledged and not durable|no device ever had it"):
        twins.assert_ends_well(1)


def test_a_second_copy_is_seen(twins: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ground, "is_copy", lambda ground, record, offered: False)
    twins.assert_ends_well(1)
    twins.device.offer_again(0)
    with pytest.raises(AssertionError, match="stored twice"):
        twins.assert_ends_well(1)


# -- the hunt


def _walk(seed: int, most_others: int = 1) -> None:
    """Take rules at random: evenly, where hypothesis stays near what it has seen."""
    chance, machine = random.Random(seed), AnythingGoes()
    # What only a second device needs is drawn elsewhere, so that the seeds of kept walks mean the same without one.
    more = random.Random(~seed)
    several = bool(most_others)
    after, which, number = (0, 0, 1, 2, 3, 4, 7), (0, 0, 0, 1, 2), (errno.EIO, errno.ENOSPC)
    damage = ("cut", "cut", "flip", "twice", "rewind", "sync", "mute", "begin again", "offer again")
    only = ("", "", "sync ", "move ", "link ", "commit ", ".sidecar", ".journal", ".part")
    pick = chance.choice
    steps: list[Callable[[], object]] = [
        lambda: machine.send_some(chance.randint(1, 9), pick((0, 0x5A))),
        lambda: machine.converse(pick((1, 4, 8, 12, 40)), chance.randint(1, 3), pick((0, 0xFF, 0x5A))),
        lambda: machine.come_again(
            pick(after), pick((True, False)), pick((0, 0, 1, 2)), pick((True, False)), more.randrange(2)
        ),
        lambda: machine.trickle(pick(which), pick((1, 16, 1030, 1400, 5000, 1 << 20)), pick((True, False))),
        lambda: machine.data(pick(which), chance.randint(1, 6), chance.randrange(256)),
        lambda: machine.misbehave(pick(after), pick(which), pick(damage), chance.randrange(1000)),
        lambda: machine.trouble(
            pick(which),
            pick(("lost", "closed", "silent", "nonsense")),
            pick((1, 2, 6, 16, 21, 46)),
            chance.randrange(len(NONSENSE)),
        ),
        lambda: machine.work(pick((1, 2, 1000)), pick((True, False))),
        lambda: machine.fault(
            pick(after),
            pick(("fail", "fail", "die", "write short")),
            pick(only),
            chance.randint(1, 25),
            pick((0, 0, 1, 3, 8)),
            pick(number),
        ),
        lambda: machine.end(
            pick(after),
            pick(("kill", "power cut", "power cut, index lost", "stop")),
            pick(("", "", "killed", "fails")),
            chance.randint(1, 60),
            pick(number),
        ),
    ]
    weights = [4, 4, 4, 2, 1, 2, 1, 1, 3, 1]
    if several:
        weights.append(3)
        steps.append(
            lambda: machine.finish_together(
                pick(("", "fail", "fail", "die")),
                pick(only[:-2] + only[-1:]),
                chance.randint(1, 25),
                pick((0, 0, 1, 3)),
                pick(number),
            )
        )
    machine.begin(
        device_of(chance.randrange(1 << 32)),
        pick(("repeat", "repeat", "complete")),
        pick((True, False)),
        pick((1, 4096, 16384)),
        pick((1024, 4096, 262144)),
        more.choice((0.0, 5.0)) if several else 5.0,
        more.choice((0.0, 0.02)) if several else 0.0,
        [other_device_of(more.randrange(1 << 32))][:most_others],
    )
    try:
        for _ in range(chance.randint(5, 60)):
            chance.choices(steps, weights)[0]()
    finally:
        machine.teardown()


def _tell() -> None:
    names = ("steps", "connections", "kills", "power cuts", "restarts", "file.another", "store.failed")
    told = ", ".join(f"{STATS[name]} {name}" for name in names)
    amid = STATS["acknowledged amid faults"]
    print(f"\n{STATS['runs']} runs: {told}; {STATS['acknowledged']} acknowledged ({amid} amid faults), 0 lost, 0 twice")
    STATS.clear()


#: Walks that failed once. 1430616587: a DATA of zeros sent twice, whose CRC cannot tell; no device is known to do it.
#: 1963737147: a failed sync, after which neither journal nor part could be deleted, and a restart, which goes on at the
#: last checkpoint; the model held nothing of such a part for durable again, though all beyond was written anew.
#: 3515252289: ROLLBACK and the closing of its connection failed, and the model left that open, with its lock; in truth
#: it is closed all the same.
FAILED_ONCE = [(1430616587, 0), (1963737147, 0), (3515252289, 1)]


@pytest.mark.parametrize(("seed", "most_others"), FAILED_ONCE)
def test_a_walk_that_failed_once(seed: int, most_others: int) -> None:
    _walk(seed, most_others)


@pytest.mark.soak
def test_walks() -> None:
    """A seed is a walk; one that fails is named, and is the same when it is taken again."""
    first = random.SystemRandom().randrange(1 << 32) if SOAK else 0
    for seed in range(first, first + times(60, 5000)):
        try:
            _walk(seed)
        except BaseException as error:
            error.add_note(f"walk {seed}")
            raise
    _tell()


@pytest.mark.soak
def test_anything_goes() -> None:
    """The machine, as often as there is time for."""
    chosen = settings(
        max_examples=times(30, 1000),
        stateful_step_count=60,
        derandomize=not SOAK,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(AnythingGoes, settings=chosen)
    _tell()
