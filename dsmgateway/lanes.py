"""What a lane of the store worker does with its calls: what to write when, and what to commit together.

Policy only: no thread, no queue, no waiting (see `dsmgateway.worker`). Bytes of an upload that come in small pieces are
held back for up to 1 s or 16 KiB, so that a packet a time is not a write a time; a finish, a park or an open writes
them first. Finishes that are waiting together are stored together, and where one group follows the other they wait a
moment to become more. Knows no reactor and nothing of sessions.

Checkpoints that are due by their time come second to everything else: they take a small share of a lane's time at
most, the oldest first, so with thousands of cameras each has its own less often. Those that are due by their bytes are
always made.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from dsmgateway.errors import StoreError
from dsmgateway.store import FileStore, Offered, Upload

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is done in one go; times in seconds."""

    #: Bytes of an upload held back at most: a write of this size costs little more than one of a packet.
    hold_bytes: int = 16 * 1024
    #: A piece of this size is not held back, nor is what came before it: most of what one read of a socket brings. Only
    #: what waits in the same go is written with it, up to so many bytes.
    at_once_bytes: int = 8 * 1024
    join_bytes: int = 256 * 1024
    #: Pieces held back at most: a device may send one byte at a time, and every piece costs memory of its own.
    hold_pieces: int = 64
    hold_s: float = 1.0
    #: What a power cut may cost of an upload, and, as a rule, what the end of the process may: bytes and time between
    #: two checkpoints.
    checkpoint_bytes: int = 1024 * 1024
    checkpoint_interval_s: float = 5.0
    #: Checkpoints that are due by their time: how many are made between two looks at the queue, and what share of the
    #: lane's time they have.
    checkpoints_at_once: int = 8
    checkpoint_share: float = 0.05
    #: Files stored together, at most.
    finish_group: int = 64
    #: How soon after a group the next one begins. The first file after that much quiet does not wait at all.
    finish_gap_s: float = 0.02


class Job(abc.ABC):
    """One call on its way to a lane."""

    __slots__ = ()

    @abc.abstractmethod
    def answer(self, outcome: Any) -> None:
        """Tell whoever asked for it what came of it, a `Failure` among others; called in the reactor thread."""


@dataclass(eq=False, slots=True)
class Call(Job):
    """A call whose result goes to a Deferred."""

    deferred: Deferred[Any]

    def answer(self, outcome: Any) -> None:
        """Fire the Deferred."""
        if isinstance(outcome, Failure):
            self.deferred.errback(outcome)
        else:
            self.deferred.callback(outcome)


@dataclass(eq=False, slots=True)
class Open(Call):
    """Take up an offer."""

    offered: Offered
    peer: str
    compare: bool


@dataclass(eq=False, slots=True)
class Append(Job):
    """Write bytes at an offset. There are many of these, so what they lead to is a plain call."""

    upload: Upload
    offset_bytes: int
    data: bytes = field(repr=False)
    done: Callable[[Failure | None], object]

    def answer(self, outcome: Any) -> None:
        """Say None, or why nothing was written."""
        self.done(outcome)


@dataclass(eq=False, slots=True)
class Finish(Call):
    """Store a whole file."""

    upload: Upload
    about: Mapping[str, object]


@dataclass(eq=False, slots=True)
class Park(Call):
    """Keep a part."""

    upload: Upload


@dataclass(eq=False, slots=True)
class Expire(Call):
    """Delete parts that are older than this."""

    part_max_age_s: float


@dataclass(eq=False, slots=True)
class Probe(Call):
    """Try whether a failing disk can be written again."""


Result = tuple[Job, object]


@dataclass(eq=False, slots=True)
class _Held:
    """Appends of one upload that wait to be written together, one after the other in the file."""

    since_s: float
    jobs: list[Append] = field(default_factory=list)
    bytes_held: int = 0

    @property
    def end_bytes(self) -> int:
        last = self.jobs[-1]
        return last.offset_bytes + len(last.data)


class Lane:
    """What one lane does with its jobs. Has no thread; `perform` blocks on the disk only.

    ``clock`` gives seconds that never go back.
    """

    def __init__(self, store: FileStore, pace: Pace, clock: Callable[[], float]) -> None:
        self._store = store
        self._pace = pace
        self._clock = clock
        self._held: dict[Upload, _Held] = {}
        self._held_of: dict[str, dict[Upload, None]] = {}
        #: Those that are written when the jobs at hand are done.
        self._ready: dict[Upload, None] = {}
        self._dirty_since: dict[Upload, float] = {}
        #: No checkpoint is due by its time before this.
        self._rest_until_s = -math.inf
        self._group: list[Finish] = []
        self._group_due_s = -math.inf
        self._results: list[Result] = []

    def perform(self, jobs: Sequence[Job]) -> list[Result]:
        """Do these jobs and what is due by now; return the results there are, in the order of their jobs.

        A result is what its job is to be answered, a `Failure` among others. Bytes that are held back have theirs in a
        later call.
        """
        for job in jobs:
            match job:
                case Append():
                    self._append(job)
                case Finish():
                    self._finish(job)
                case Open():
                    self._open(job)
                case Park():
                    self._park(job)
                case Expire(part_max_age_s=max_age_s):
                    self._results.append((job, result_of(self._store.expire, max_age_s)))
                case Probe():
                    self._results.append((job, result_of(self._store.probe)))
        for upload in self._ready:
            self._write(upload)
        self._ready.clear()
        if self._group and self._group_due_s <= self._clock():
            self._commit()
        self._tend()
        results, self._results = self._results, []
        return results

    def due_in_s(self) -> float | None:
        """Return in how many seconds `perform` is to be called although no job has come; None for never."""
        times = [held.since_s + self._pace.hold_s for held in islice(self._held.values(), 1)]
        dirty = [since_s + self._pace.checkpoint_interval_s for since_s in islice(self._dirty_since.values(), 1)]
        times += [max(due_s, self._rest_until_s) for due_s in dirty]
        times += [self._group_due_s] if self._group else []
        return max(min(times) - self._clock(), 0.0) if times else None

    def drain(self) -> list[Result]:
        """Write and store everything that waits and return the results."""
        for upload in list(self._held):
            self._write(upload)
        self._commit()
        results, self._results = self._results, []
        return results

    def fail(self, jobs: Sequence[Job], failure: Failure) -> list[Result]:
        """After a bug in `perform` of these jobs: fail all that has no result yet, and close the uploads concerned."""
        results, self._results = self._results, []
        done = {job for job, _ in results}
        held: list[Job] = [job for waiting in self._held.values() for job in waiting.jobs]
        held += self._group
        self._held, self._held_of, self._ready, self._group = {}, {}, {}, []
        for job in dict.fromkeys([*held, *jobs]):
            if job not in done:
                if isinstance(job, Append | Finish | Park):
                    self._give_up(job.upload, failure)
                results.append((job, failure))
        return results

    def _append(self, job: Append) -> None:
        held = self._held.get(job.upload)
        if held is not None and held.end_bytes != job.offset_bytes:
            self._write(job.upload)
            held = None
        if held is None:
            held = self._held[job.upload] = _Held(self._clock())
            self._held_of.setdefault(job.upload.offered.imei, {})[job.upload] = None
        held.jobs.append(job)
        held.bytes_held += len(job.data)
        if len(job.data) >= self._pace.at_once_bytes and held.bytes_held < self._pace.join_bytes:
            self._ready[job.upload] = None
            return
        is_enough = held.bytes_held >= self._pace.hold_bytes or len(held.jobs) >= self._pace.hold_pieces
        if is_enough or not job.upload.is_open:
            self._write(job.upload)

    def _finish(self, job: Finish) -> None:
        self._write(job.upload)
        self._dirty_since.pop(job.upload, None)
        self._group.append(job)
        if len(self._group) >= self._pace.finish_group:
            self._commit()

    def _open(self, job: Open) -> None:
        """Take up an offer, once everything asked for this device before has been done; not if nobody waits for it.

        To prove a long part takes a second, and whoever connects again and again asks for it each time.
        """
        if job.deferred.called:
            self._results.append((job, None))
            return
        if any(waiting.upload.offered.imei == job.offered.imei for waiting in self._group):
            self._commit()
        for upload in list(self._held_of.get(job.offered.imei, ())):
            self._write(upload)
        self._results.append((job, result_of(self._store.open, job.offered, job.peer, compare=job.compare)))

    def _park(self, job: Park) -> None:
        if any(waiting.upload is job.upload for waiting in self._group):
            self._commit()
        self._write(job.upload)
        self._dirty_since.pop(job.upload, None)
        self._results.append((job, result_of(job.upload.park)))

    def _write(self, upload: Upload) -> None:
        """Write what is held back of an upload."""
        held = self._held.pop(upload, None)
        if held is None:
            return
        imei = upload.offered.imei
        del self._held_of[imei][upload]
        if not self._held_of[imei]:
            del self._held_of[imei]
        self._write_jobs(upload, held.jobs)

    def _write_jobs(self, upload: Upload, jobs: Sequence[Append]) -> None:
        """Write what follows each other in an upload, and make a checkpoint where it has become long."""
        outcome = result_of(upload.write, jobs[0].offset_bytes, [job.data for job in jobs])
        self._results.extend((job, outcome) for job in jobs)
        if isinstance(outcome, Failure):
            self._give_up(upload, outcome)
        elif upload.unsynced_bytes >= self._pace.checkpoint_bytes:
            self._checkpoint(upload, durable=True)
        elif upload.dirty_bytes and upload not in self._dirty_since:
            self._dirty_since[upload] = self._clock()

    def _checkpoint(self, upload: Upload, *, durable: bool) -> None:
        self._dirty_since.pop(upload, None)
        if upload.is_open:
            outcome = result_of(upload.checkpoint, durable=durable)
            if isinstance(outcome, Failure):
                self._give_up(upload, outcome)

    def _give_up(self, upload: Upload, failure: Failure) -> None:
        """Close an upload that failed; from now on its calls fail alike."""
        self._dirty_since.pop(upload, None)
        reason = failure.value
        upload.abandon(reason if isinstance(reason, StoreError) else StoreError(f"{upload.offered}: {reason!r}"))

    def _commit(self) -> None:
        group, self._group = self._group, []
        if not group:
            return
        answers = result_of(self._store.finish, [(job.upload, job.about) for job in group])
        if isinstance(answers, Failure):
            for job in group:
                self._give_up(job.upload, answers)
            self._results.extend((job, answers) for job in group)
        else:
            outcomes = [Failure(answer) if isinstance(answer, StoreError) else answer for answer in answers]
            self._results.extend(zip(group, outcomes, strict=True))
        self._group_due_s = self._clock() + self._pace.finish_gap_s

    def _tend(self) -> None:
        """Write what was held back long enough, and make some of the checkpoints that are due.

        Both dicts are in order of time, since an upload only ever enters at the end: the first one is the oldest.
        """
        now_s = self._clock()
        while self._held:
            upload, held = next(iter(self._held.items()))
            if held.since_s + self._pace.hold_s > now_s:
                break
            self._write(upload)
        if now_s < self._rest_until_s:
            return
        latest_s = now_s - self._pace.checkpoint_interval_s
        oldest = list(islice(self._dirty_since.items(), self._pace.checkpoints_at_once))
        due = [upload for upload, since_s in oldest if since_s <= latest_s]
        for upload in due:
            self._checkpoint(upload, durable=False)
        if due:
            end_s = self._clock()
            self._rest_until_s = end_s + (end_s - now_s) * (1 / self._pace.checkpoint_share - 1)


def result_of(call: Callable[_P, _T], *arguments: _P.args, **options: _P.kwargs) -> _T | Failure:
    """Return what a call returns, or its `Failure`: whatever goes wrong in a lane ends at the caller's Deferred."""
    try:
        return call(*arguments, **options)
    except BaseException:
        return Failure()
