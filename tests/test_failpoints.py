"""The store with a fault at every call that `test_store_faults` does not make: short writes, a real SIGKILL, a start
that fails after a kill, a failure and then a power cut, two processes on one folder, and files that are counted in
packets or have no name at all.

The short form tries some of the calls, the long one all of them.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from model_disk import write_short
from running import environment
from soak import SOAK, times
from store_faults import (
    MAX_AGE_S,
    Camera,
    FaultyDisk,
    ForgetfulDisk,
    Killed,
    Kind,
    a_day,
    assert_nothing_lost,
    beside_others,
    come_back,
    in_memory,
)

from dsmgateway.errors import StoreError
from dsmgateway.store import FileStore, Stored
from dsmgateway.store.files import StrPath
from dsmgateway.store.tally import SharedSlots, shared_memory

pytestmark = pytest.mark.soak

#: Every so many calls are tried.
STRIDE = 1 if SOAK else 11
KINDS = [pytest.param(kind, id=kind.value) for kind in Kind]
#: What the other module does not try at all.
NEW_KINDS = [pytest.param(kind, id=kind.value) for kind in (Kind.COUNTED, Kind.NAMELESS)]


@pytest.fixture
def scratch() -> Iterator[Path]:
    with in_memory() as folder:
        yield folder


class ShortDisk(FaultyDisk):
    """A disk on which one write, or with 0 every one, is short; ``full``: the next write finds no room at all."""

    def __init__(self, short_at: int, *, full: bool = False) -> None:
        super().__init__()
        self.writes = 0
        self._short_at, self._full = short_at, full

    def run(self, operation: str, path: StrPath, call: Callable[..., Any], /, *arguments: Any, **options: Any) -> Any:
        if call is os.pwritev:
            self.writes += 1
            if self._short_at in (0, self.writes):
                call = write_short
            elif self._full and self.writes == self._short_at + 1:
                call = self._no_room
        return super().run(operation, path, call, *arguments, **options)

    def _no_room(self, *arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _said(name: str, kind: Kind, trials: int) -> None:
    print(f"\n{name}, {kind.value}: {trials} trials, 0 lost, 0 twice")
    assert trials > 3


# -- short writes


@pytest.mark.parametrize("kind", KINDS)
def test_a_day_on_which_every_write_is_short(scratch: Path, kind: Kind) -> None:
    camera, disk = Camera(kind), ShortDisk(0)
    a_day(FileStore(scratch / "data", disk=disk), camera)
    assert disk.writes > 100
    assert_nothing_lost(scratch / "data", camera)


@pytest.mark.parametrize("kind", KINDS)
def test_a_short_write_and_then_no_room(scratch: Path, kind: Kind) -> None:
    """As a disk runs full: the part of a write that fitted stays, and nothing of it is believed."""
    for number in itertools.count(1):
        camera, folder = Camera(kind), scratch / str(number)
        disk = ShortDisk(number, full=True)
        store = FileStore(folder, disk=disk)
        with suppress(StoreError):
            a_day(store, camera)
        if disk.writes <= number:
            break
        come_back(store, folder, disk, camera)
    _said("short, then ENOSPC", kind, number - 1)


# -- kinds of files that the other module does not try


def _numbers(kind: Kind) -> Iterator[int]:
    return itertools.count(1 + list(Kind).index(kind), STRIDE)


@pytest.mark.parametrize("kind", NEW_KINDS)
def test_a_kill_before_a_call(scratch: Path, kind: Kind) -> None:
    trials = 0
    for number in _numbers(kind):
        camera, folder, disk = Camera(kind), scratch / str(number), FaultyDisk(kill_at=number)
        try:
            a_day(FileStore(folder, disk=disk), camera)
            break
        except Killed:
            disk.bury()
        assert_nothing_lost(folder, camera)
        trials += 1
    _said("kill", kind, trials)


@pytest.mark.parametrize("kind", NEW_KINDS)
@pytest.mark.parametrize("reason", [errno.EIO, errno.ENOSPC])
def test_a_call_fails(scratch: Path, kind: Kind, reason: int) -> None:
    trials = 0
    for number in _numbers(kind):
        camera, folder, disk = Camera(kind), scratch / str(number), FaultyDisk(fail_at=number, errno=reason)
        store = FileStore(folder, disk=disk)
        with suppress(StoreError):
            a_day(store, camera)
        if len(disk.calls) < number:
            break
        come_back(store, folder, disk, camera)
        trials += 1
    _said(errno.errorcode[reason], kind, trials)


@pytest.mark.parametrize("kind", NEW_KINDS)
def test_a_power_cut_before_a_call(scratch: Path, kind: Kind) -> None:
    trials = 0
    for number in _numbers(kind):
        camera, folder, found = Camera(kind), scratch / f"{number}", scratch / f"{number}-found"
        disk = ForgetfulDisk(folder, kill_at=number)
        try:
            a_day(FileStore(folder, disk=disk), camera)
            break
        except Killed:
            disk.survivors(found, keep_index=number % 2 == 0)
            disk.bury()
        assert_nothing_lost(found, camera)
        trials += 1
    _said("power cut in memory", kind, trials)


# -- a failure, and then the power


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reason", [errno.EIO, errno.ENOSPC])
def test_a_call_fails_and_then_the_power_is_cut(scratch: Path, kind: Kind, reason: int) -> None:
    """What was acknowledged beside a file that failed is as durable as any other."""
    trials = 0
    for number in _numbers(kind):
        camera, folder, found = Camera(kind), scratch / f"{number}", scratch / f"{number}-found"
        disk = ForgetfulDisk(folder, fail_at=number, errno=reason)
        store = FileStore(folder, disk=disk)
        with suppress(StoreError):
            a_day(store, camera)
        if len(disk.calls) < number:
            disk.bury()
            break
        with suppress(StoreError):
            _go_on(store, camera)
        disk.survivors(found, keep_index=number % 2 == 0)
        disk.bury()
        assert_nothing_lost(found, camera)
        trials += 1
    _said(f"{errno.errorcode[reason]}, then a power cut", kind, trials)


def _go_on(store: FileStore, camera: Camera) -> None:
    """Begin another file, so that the spool is durable as the failure has left it."""
    store.probe()
    path = list(camera.contents)[-2]
    upload = store.open(camera.offer(path), "198.51.100.7")
    camera.send(upload, path, 2048)
    upload.park()


# -- two processes on one folder

#: What may happen to one of them at a call.
FAULTS: dict[str, Callable[[int], FaultyDisk]] = {
    "SIGKILL": lambda number: FaultyDisk(kill_at=number),
    "EIO": lambda number: FaultyDisk(fail_at=number, errno=errno.EIO),
    "ENOSPC": lambda number: FaultyDisk(fail_at=number, errno=errno.ENOSPC),
    "short": lambda number: ShortDisk(number, full=True),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_one_of_two_processes_meets_a_fault(scratch: Path, kind: Kind, fault: str) -> None:
    """The other one goes on, and so does its own device, with it or its successor: no start recovers anything."""
    trials = 0
    for number in itertools.count(1) if fault == "short" else _numbers(kind):
        folder, disk = scratch / str(number), FAULTS[fault](number)
        mine, other = Camera(kind), Camera(kind, imei="352093081429168", seed=8)
        lender = FileStore(folder)
        lender.start(MAX_AGE_S)
        lock, memory = lender.lend(), shared_memory(3, 3)
        neighbour = beside_others(folder, os.dup(lock), memory, 1)
        neighbour.start(MAX_AGE_S)
        first, *rest = other.contents
        other.deliver(neighbour, first)
        own = os.dup(lock)
        store = beside_others(folder, own, memory, 0, disk=disk)
        try:
            a_day(store, mine)
        except (StoreError, Killed):
            if disk.dead:
                disk.bury()
                os.close(own)
            if disk.dead or not store.probe():
                store = beside_others(folder, os.dup(lock), memory, 0)
                store.start(MAX_AGE_S)
            for path in mine.contents:
                mine.deliver(store, path)
            store.stop()
        if store.volume.is_failing:  # it has ended like that: nobody takes a file before its successor is there
            successor = beside_others(folder, os.dup(lock), memory, 0)
            successor.start(MAX_AGE_S)
            successor.stop()
        met = (disk.writes if isinstance(disk, ShortDisk) else len(disk.calls)) >= number
        for path in rest:
            other.deliver(neighbour, path)
        neighbour.stop()
        lender.stop()
        disk.bury()
        needed, _, failing = (SharedSlots(memory, 3, 3).row(row) for row in range(3))
        assert not any(needed), "room is still reserved"
        assert not any(failing)
        os.close(memory)
        assert_nothing_lost(folder, mine, other)
        if not met:
            break
        trials += 1
    _said(f"{fault} in one of two processes", kind, trials)


# -- a start that fails after a kill


def _finishes(kind: Kind, folder: Path) -> tuple[int, int]:
    """From which call to which one a day finishes files."""
    disk = FaultyDisk()
    a_day(FileStore(folder, disk=disk), Camera(kind))
    first = next(number for number, call in enumerate(disk.calls, 1) if call.endswith(".sidecar"))
    last = max(number for number, call in enumerate(disk.calls, 1) if call == "commit to index.sqlite3")
    return first, last


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reason", [errno.EIO, errno.ENOSPC])
def test_a_start_fails_after_a_kill_in_a_finish(scratch: Path, kind: Kind, reason: int) -> None:
    """The start after that completes what this one could not."""
    first, last = _finishes(kind, scratch / "whole")
    trials = 0
    for number in range(first, last, 5 if SOAK else 41):
        for again in itertools.count(1, 3 if SOAK else 17):
            camera, folder, disk = Camera(kind), scratch / f"{number}-{again}", FaultyDisk(kill_at=number)
            with pytest.raises(Killed):
                a_day(FileStore(folder, disk=disk), camera)
            disk.bury()
            disk = FaultyDisk(fail_at=again, errno=reason)
            store = FileStore(folder, disk=disk)
            with suppress(StoreError):
                store.start(MAX_AGE_S)
            if len(disk.calls) < again:
                disk.bury()
                break
            come_back(store, folder, disk, camera)
            trials += 1
    _said(f"kill, then {errno.errorcode[reason]} at the start", kind, trials)


# -- a real SIGKILL


def _dying(folder: Path, kind: Kind, call: int) -> subprocess.Popen[bytes]:
    command: Sequence[str] = [sys.executable, str(Path(__file__).with_name("dying.py")), str(folder), kind.value]
    # Nothing is read ahead: `communicate` would not have it.
    output, environ = subprocess.PIPE, environment(PYTHONPATH=_PATH)
    return subprocess.Popen([*command, str(call)], stdout=output, bufsize=0, env=environ)


_PATH = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])


def _told(camera: Camera, said: bytes) -> None:
    """Let the camera know what it was told by a process that is dead."""
    for line in said.splitlines():
        path, stored = (bytes.fromhex(word) for word in line.decode().split())
        camera.told[path] = Stored(stored.decode(), "", len(camera.contents[path]), duplicate=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_process_is_killed_before_a_call(tmp_path: Path, kind: Kind) -> None:
    """The kernel closes, unlocks and forgets, where the tests in this process only play that it does."""
    trials, stride = 0, 3 if SOAK else 61
    for number in itertools.count(1 + random.Random(kind.value).randrange(stride), stride):
        camera = Camera(kind)
        process = _dying(tmp_path / str(number), kind, number)
        said, _ = process.communicate(timeout=60)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        _told(camera, said.strip())
        assert_nothing_lost(tmp_path / str(number) / "0", camera)
        trials += 1
    print(f"\nSIGKILL before a call, {kind.value}: {trials} trials, 0 lost, 0 twice")
    assert trials > 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_process_is_killed_at_any_moment(tmp_path: Path, kind: Kind) -> None:
    """Also inside SQLite, and between two bytes of a write."""
    chance, trials = random.Random(f"{kind.value} {SOAK}"), times(4, 100)
    for number in range(trials):
        process = _dying(tmp_path / str(number), kind, 0)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.4))
        process.kill()
        said, _ = process.communicate(timeout=60)
        days = said.split(b"\n\n")
        for day, lines in enumerate(days):
            camera, folder = Camera(kind), tmp_path / str(number) / str(day)
            _told(camera, lines.strip())
            assert_nothing_lost(folder, camera)
    print(f"\nSIGKILL at any moment, {kind.value}: {trials} trials, 0 lost, 0 twice")
