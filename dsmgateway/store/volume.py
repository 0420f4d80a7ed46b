"""Whether the volume under the store takes new files: is it sound, and is there room for what is announced?

The essay. After a failed fsync nobody knows what the system dropped, and a volume that has failed one write fails the
next ones too. Asking each camera to find that out costs each of them what it sends. So after the first such error no
new file is taken, without touching the disk, until a probe has written and synced something everywhere; files under way
go on and succeed or fail by themselves. A full disk is no such error: it is sound.

Room is reserved when a file is opened: all that its device announced and has not delivered. So a file that was begun
can be finished, unless others use up the volume. It is given back when the upload ends, however it does: a device has
one file under way, so what it can reserve without sending anything is one file of the greatest size that is taken, for
as long as its session bears with silence. Threads may share all of this.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from dsmgateway.errors import StoreError
from dsmgateway.store.files import Disk
from dsmgateway.store.tally import Tally
from dsmgateway.store.values import Offered

#: What must be left of the files (inodes) that the file system can make: one that is taken needs up to four at a time,
#: and those under way need more when they are finished.
_MIN_FREE_FILES = 1000
#: The system is asked at most once in so many seconds, as long as what it said leaves so much more than is to be left:
#: more bytes, and many more files, than can be written in that time.
_ASKED_AGAIN_S = 1.0
_AMPLE_BYTES = 1 << 30
_AMPLE_FILES = 100_000


class NoRoom(StoreError):
    """A file is not taken for lack of room: nothing of it was asked for, and what is held of it is kept."""


class VolumeFailing(StoreError):
    """A file is not taken because the volume fails: nothing of it was asked for, and what is held of it is kept."""


@dataclass(frozen=True, slots=True)
class Failing:
    """The volume takes no new files from now on; why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Healed:
    """This process takes files again, after so many seconds in which it refused so many offers."""

    after_s: float
    refused: int


class Volume:
    """Whether the volume is sound; ``clock`` gives seconds that never go back.

    ``changed`` is told of each change, in order, by whichever thread finds out, and must not block. Where several
    processes use the volume, the one that has found out that it fails is the one that probes it.
    """

    def __init__(
        self, clock: Callable[[], float], show: Callable[[bool], object], failing: Tally | None = None
    ) -> None:
        """``show`` is told whether the volume is failing, at each change; ``failing`` counts who has found that out."""
        self._failing = failing or Tally()
        self._show = show
        self.changed: Callable[[Failing | Healed], object] = lambda change: None
        self._clock = clock
        self._lock = threading.Lock()
        self._probing = threading.Lock()
        self._reason: str | None = None
        self._since_s = 0.0
        self._failures = 0
        self._refused = 0

    @property
    def is_failing(self) -> bool:
        """Say whether this process has found out that it fails."""
        return self._reason is not None

    def failed(self, error: StoreError) -> None:
        """Take note of an error that puts the whole volume in doubt."""
        with self._lock:
            self._failures += 1
            if self._reason is None:
                self._reason, self._since_s, self._refused = str(error), self._clock(), 0
                self._failing.set(1)
                self._show(True)
                self.changed(Failing(self._reason))

    def require_sound(self, offered: Offered) -> None:
        """Raise `VolumeFailing` while the volume fails; touches no disk."""
        with self._lock:
            if self._reason is not None:
                self._refused += 1
                raise VolumeFailing(f"{offered}: the disk is failing since {self._reason}")
        if self._failing.elsewhere:
            raise VolumeFailing(f"{offered}: the disk is failing, as another process has found out")

    def probe(self, attempt: Callable[[], object]) -> bool:
        """Have a failing volume tried by ``attempt``, which raises `StoreError`; return whether it is sound now.

        An error that somebody else meets meanwhile counts, too. One probe is made at a time.
        """
        with self._probing:
            if not self.is_failing:
                return True
            before = self._failures
            try:
                attempt()
            except StoreError:
                return False
            with self._lock:
                if self._failures != before:
                    return False
                self._reason = None
                self._failing.set(0)
                self._show(False)
                self.changed(Healed(self._clock() - self._since_s, self._refused))
            return True


class Space:
    """What is free on the volume of ``folder``, less what files under way still need.

    A new file must leave ``min_free_bytes`` beyond that, for what a finished file needs besides its bytes.
    """

    def __init__(
        self,
        disk: Disk,
        folder: Path,
        min_free_bytes: int,
        show: Callable[[bool], object],
        clock: Callable[[], float],
        needed: Tally | None = None,
        alone: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """``show`` is told whether the last file that was offered was one too many, at each change.

        ``clock`` gives seconds that never go back; ``needed`` counts what files under way need, where other processes
        have some, too; ``alone`` keeps these out.
        """
        self._needed = needed or Tally()
        self._alone = alone
        self._clock = clock
        self._asked: tuple[float, int, int | None] | None = None
        self._show = show
        self._is_full = False
        self._disk = disk
        self._folder = folder
        self._min_free_bytes = min_free_bytes
        self._lock = threading.Lock()
        #: Two files are not admitted into the same room, nor both refused for the room of one.
        self._admitting = threading.Lock()

    @property
    def needed_bytes(self) -> int:
        """What files under way still need, those of other processes too."""
        return self._needed.total

    def require(self, offered: Offered, missing_bytes: int) -> None:
        """Raise `NoRoom` unless so many bytes fit, or `StoreError` if that cannot be found out; reserve nothing.

        Files (inodes) must be left, too.
        """
        # What is needed is looked at first: what is written in between is then counted twice, not left out.
        needed_bytes = self.needed_bytes
        free_bytes, free_files = self._free(needed_bytes + missing_bytes)
        if free_bytes - needed_bytes - missing_bytes < self._min_free_bytes:
            problem = (
                f"{missing_bytes} bytes are missing, {free_bytes} are free on {self._folder}, of which files under way"
                f" need {needed_bytes} and {self._min_free_bytes} shall remain"
            )
        elif free_files is not None and free_files < _MIN_FREE_FILES:
            problem = f"{free_files} more files (inodes) fit on {self._folder}, and {_MIN_FREE_FILES} shall remain"
        else:
            return
        self._found_full(True)
        raise NoRoom(f"{offered}: {problem}")

    def reserve(self, offered: Offered, missing_bytes: int) -> None:
        """Do as `require` does, and count the bytes as needed if they fit."""
        with self._admitting, self._alone():
            self.require(offered, missing_bytes)
            self.release(-missing_bytes)
            self._found_full(False)

    def release(self, count_bytes: int) -> None:
        """Count so many bytes as needed no longer: they were written, or will not come; below 0 they are again."""
        self._needed.add(-count_bytes)

    def _free(self, taken_bytes: int) -> tuple[int, int | None]:
        """Return how many bytes and files are free; where there is plenty, as it was a moment ago."""
        if self._asked is not None:
            asked_s, free_bytes, free_files = self._asked
            is_ample = free_bytes - taken_bytes >= self._min_free_bytes + _AMPLE_BYTES
            is_ample = is_ample and (free_files is None or free_files >= _MIN_FREE_FILES + _AMPLE_FILES)
            if is_ample and self._clock() - asked_s < _ASKED_AGAIN_S:
                return free_bytes, free_files
        asked_s = self._clock()
        free_bytes, free_files = self._disk.free_bytes(self._folder), self._disk.free_files(self._folder)
        self._asked = asked_s, free_bytes, free_files
        return free_bytes, free_files

    def _found_full(self, is_full: bool) -> None:
        with self._lock:
            if is_full is not self._is_full:
                self._is_full = is_full
                self._show(is_full)
