"""Looks about once a second at what operators decide while the gateway runs: the known devices, and their database.

`Watcher` is what is done, blocking; `Lookout` is the thread it is done in, and the way back to the reactor thread. A
disk that hangs costs the looks, never the gateway: while one look is under way no other is begun. What cannot be read
changes nothing. Of the list that is said each time, since it is read only when an operator has changed it or asks for
it; of the database, which is read at every look, when it begins and once a minute as long as it lasts; and so of a look
that does not end.
"""

from __future__ import annotations

import os
import queue
import stat
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import txaio
from twisted.python.failure import Failure

from dsmgateway.admission import APPROVE, Admission, Roll, Sighting
from dsmgateway.devices import FILE_NAME, Devices
from dsmgateway.errors import ConfigError, StoreError
from dsmgateway.events import Event, log_bug, log_event
from dsmgateway.known_devices import MAX_LIST_BYTES, parse_known_devices
from dsmgateway.lanes import result_of
from dsmgateway.opening import open_without_waiting
from dsmgateway.quiet import Quiet
from dsmgateway.settings import Settings
from dsmgateway.worker import ThreadFactory

txaio.use_twisted()

#: Seconds after which a look is said to hang; one that waits for a database in use gives up after a few.
HUNG_S = 30.0


@dataclass(frozen=True, slots=True)
class Found:
    """What a look brought: None where nothing has changed; why list and database could not be used, if so."""

    known: Mapping[str, str] | None = None
    roll: Roll | None = None
    list_problem: str = ""
    database_problem: str = ""


class KnownFile:
    """The list of known devices on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        #: Time, size and inode of the file that was read last, and of the one that was there at the last look.
        self._read: tuple[int, ...] | None = None
        self._there: tuple[int, ...] | None = None
        #: How many devices were in it.
        self._count = 0

    def read(self) -> dict[str, str]:
        """Return the names by IMEI; ConfigError, with path and line, when that is no list or cannot be read.

        Nor is one without a byte where there were devices before: so ends a copy on a disk that is full.
        """
        try:
            with open(self.path, "rb", opener=open_without_waiting) as stream:
                status = os.fstat(stream.fileno())
                self._read = self._there = _signature(status)
                if not stat.S_ISREG(status.st_mode):
                    raise ConfigError("no regular file, and so cannot be read again")
                content = stream.read(MAX_LIST_BYTES + 1)
            if self._count and not content:
                raise ConfigError(f"empty, with {self._count} in it before; to let in nobody, write a comment into it")
            names = parse_known_devices(content)
        except OSError as error:
            raise ConfigError(f"known devices {self.path}: {error.strerror}") from None
        except ConfigError as error:
            raise ConfigError(f"known devices {self.path}: {error}") from None
        self._count = len(names)
        return names

    def changed(self) -> bool:
        """Whether another file is there than was read, and was so at the last look too: half a list is no list."""
        try:
            there: tuple[int, ...] | None = _signature(os.stat(self.path))
        except OSError:
            there = ()  # to be told when it is read
        settled, self._there = there == self._there, there
        return settled and there != self._read

    def give_up(self) -> None:
        """Look at the file no more until it changes: it cannot be read."""
        self._read = self._there


class Watcher:
    """What is done at a look. Blocking; used by one thread at a time."""

    def __init__(self, settings: Settings) -> None:
        self._known = KnownFile(settings.known_devices) if settings.known_devices else None
        create = settings.admission == APPROVE
        self._devices = Devices(settings.data / FILE_NAME, create, settings.max_unknown_devices)
        self._folder = settings.data if create else None

    def first_look(self) -> Found:
        """Read everything; raises ConfigError or `StoreError`, since nobody can be let in without."""
        if self._folder is not None:
            try:
                self._folder.mkdir(0o750, parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(f"data folder {self._folder}: {error.strerror}") from error
        return Found(self._known.read() if self._known else None, self._devices.roll())

    def look(self, sightings: Mapping[str, Sighting], now_really: bool = False) -> Found:
        """Write down who was refused, and read what has changed; with ``now_really`` the list in any case."""
        known, roll = None, None
        list_problem = database_problem = ""
        try:
            if self._known and (self._known.changed() or now_really):
                known = self._known.read()
        except ConfigError as error:
            assert self._known is not None
            self._known.give_up()
            list_problem = str(error)
        try:
            self._devices.write_down(sightings)
            roll = self._devices.roll()
        except StoreError as error:
            database_problem = str(error)
        return Found(known, roll, list_problem, database_problem)

    def close(self) -> None:
        """Let go of the database."""
        self._devices.close()


class Lookout:
    """Has the looks done in a thread, and tells the admission and the log what they brought."""

    log = txaio.make_logger()

    def __init__(
        self,
        settings: Settings,
        admission: Admission,
        call_in_reactor: Callable[..., object],
        *,
        clock: Callable[[], float] = time.monotonic,
        thread: ThreadFactory = threading.Thread,
    ) -> None:
        """``call_in_reactor`` is the reactor's callFromThread, ``clock`` gives seconds that never go back."""
        self._path = settings.known_devices
        self._admission = admission
        self._call_in_reactor = call_in_reactor
        self._clock = clock
        self._watcher = Watcher(settings)
        self._quiet = Quiet(clock())
        self._jobs: queue.SimpleQueue[tuple[Mapping[str, Sighting], bool] | None] = queue.SimpleQueue()
        self._thread = thread(target=self.run, name="lookout", daemon=True)
        self._running = self._busy = self._now_really = False
        #: When the last look began.
        self._since = 0.0

    def start(self) -> None:
        """Read everything, which may block, and begin to work; raises ConfigError or `StoreError`."""
        found = self._watcher.first_look()
        self._tell(found)
        self._running = True
        self._thread.start()

    def look(self) -> None:
        """Look, unless a look is under way or the lookout does not run; to be called once a second."""
        now = self._clock()
        if self._running and self._busy and now - self._since >= HUNG_S:
            self._say(f"no answer from the disk for {now - self._since:.0f} s", "hung")
        elif self._running and not self._busy:
            self._busy, self._since = True, now
            self._jobs.put((self._admission.take_sightings(), self._now_really))
            self._now_really = False

    def read_again(self) -> None:
        """Read the list of known devices at the next look, whether or not it seems to have changed."""
        self._now_really = True
        self.look()

    def stop(self) -> None:
        """Write down who was refused since the last look, and end; that is not waited for."""
        if self._running:
            self._jobs.put((self._admission.take_sightings(), False))
            self._jobs.put(None)
            self._running = False

    def run(self) -> None:
        """What the thread does until `stop`."""
        while (job := self._jobs.get()) is not None:
            self._call_in_reactor(self._looked, result_of(partial(self._watcher.look, *job)))
        self._watcher.close()

    def _looked(self, outcome: Found | Failure) -> None:
        """Tell what a look brought; one that failed for a bug of ours is not the last."""
        self._busy = False
        if isinstance(outcome, Failure):
            log_bug(self.log, outcome)
        else:
            self._tell(outcome)

    def _tell(self, found: Found) -> None:
        if found.known is not None:
            self._admission.known = found.known
            log_event(self.log, Event.DEVICES_KNOWN, path=str(self._path), devices=len(found.known))
        if found.roll is not None and found.roll != self._admission.roll:
            self._admission.roll = found.roll
            approved, blocked = len(found.roll.approved), len(found.roll.blocked)
            log_event(self.log, Event.DEVICES_DECIDED, approved=approved, blocked=blocked)
        if found.list_problem:
            log_event(self.log, Event.DEVICES_UNREADABLE, reason=found.list_problem)
        if found.database_problem:
            self._say(found.database_problem, found.database_problem)

    def _say(self, problem: str, key: str) -> None:
        """Say what lasts, once a minute."""
        if self._quiet.ask(self._clock(), key) is not None:
            log_event(self.log, Event.DEVICES_UNREADABLE, reason=problem)


def _signature(status: os.stat_result) -> tuple[int, ...]:
    return status.st_mtime_ns, status.st_size, status.st_ino
