"""Runs the blocking calls of the file store off the reactor: in order for each device, and many in one go.

Mechanism only: queues, threads and Deferreds; what a lane does with its calls is told in `dsmgateway.lanes`. All calls
of one device go to one lane, lanes run side by side, and the results of a batch go back to the reactor thread in one
call. Imports no reactor and knows nothing of sessions.
"""

from __future__ import annotations

import enum
import queue
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import txaio
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from dsmgateway.errors import StoreError
from dsmgateway.events import Event, log_bug, log_event
from dsmgateway.interfaces import IFileWorker
from dsmgateway.lanes import Append, Call, Expire, Finish, Job, Lane, Open, Pace, Park, Probe, Result, result_of
from dsmgateway.quiet import Quiet
from dsmgateway.store import (
    Differs,
    Dropped,
    Expired,
    Failing,
    FileStore,
    Healed,
    NoRoom,
    Offered,
    Recovery,
    Stored,
    Upload,
    VolumeFailing,
)

txaio.use_twisted()

#: Jobs taken from a queue at once: bounds how long the results of the first have to wait for the last.
_BATCH_JOBS = 1024
#: A lane that was at work takes what comes in this time together: waking a thread costs more than most jobs. Nobody
#: waits for it but who comes within it, and no camera has an answer sooner than its link takes.
_GATHER_S = 0.005
#: So many bytes are not left waiting for that, so that a few fast senders are not slowed down.
_PRESSING_BYTES = 128 * 1024


class _Rest(enum.Enum):
    """What a lane's thread does while it does nothing."""

    NONE = "none"
    #: Something was done just now, and more of it may come.
    GATHERING = "gathering"
    #: It waits for whatever comes.
    IDLE = "idle"


class ThreadLike(Protocol):
    """The part of `threading.Thread` that is used."""

    def start(self) -> None:
        """Begin to run."""

    def join(self) -> None:
        """Wait for the end."""


class ThreadFactory(Protocol):
    """How `threading.Thread` is made; a test gives one that does not run by itself."""

    def __call__(self, *, target: Callable[[], object], name: str, daemon: bool) -> ThreadLike:
        """Make a thread that has not begun."""


class LaneThread:
    """The queue in front of a lane, and the thread that empties it.

    The thread is a daemon: a process that ends without `stop` is cut off anywhere, which the store is made for.
    """

    def __init__(
        self,
        lane: Lane,
        deliver: Callable[[list[Result]], object],
        ended: Callable[[], object],
        bug: Callable[[Failure], object],
    ) -> None:
        self._lane = lane
        self._deliver = deliver
        self._ended = ended
        self._bug = bug
        self._jobs: deque[Job | None] = deque()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._rest = _Rest.NONE
        self._is_ending = False
        #: Rather more than is in the queue, and less only for a moment: it decides about waking alone.
        self._bytes = 0

    def put(self, job: Job | None) -> None:
        """Add a job; None is the last one. Called by one thread only."""
        self._jobs.append(job)
        if isinstance(job, Append):
            self._bytes += len(job.data)
        elif job is None:
            self._is_ending = True
        if self._rest is _Rest.IDLE or (self._rest is _Rest.GATHERING and self._presses()):
            self._rest = _Rest.NONE
            self._bell.put(None)

    def run(self) -> None:
        """Work until the last job is done."""
        while self.step():
            self._gather()

    def step(self) -> bool:
        """Wait until there is something to do, do it and deliver the results; False after the last job."""
        jobs, last = self._take()
        results = self._results_of(lambda: self._lane.perform(jobs), jobs)
        if last:
            results += self._results_of(self._lane.drain, ())
        if results:
            self._deliver(results)
        if last:
            self._ended()
        return not last

    def _results_of(self, work: Callable[[], list[Result]], jobs: Sequence[Job]) -> list[Result]:
        """Do it; a bug fails these jobs and what is held back, and the lane lives on for its other devices."""
        results = result_of(work)
        if isinstance(results, Failure):
            self._bug(results)
            return self._lane.fail(jobs, results)
        return results

    def _take(self) -> tuple[list[Job], bool]:
        """Wait for a job, or until the lane is due; return all jobs there are and whether the last has come."""
        if not self._jobs:
            self._wait(_Rest.IDLE, self._lane.due_in_s(), lambda: bool(self._jobs))
        self._bytes = 0
        jobs: list[Job] = []
        while self._jobs and len(jobs) < _BATCH_JOBS:
            job = self._jobs.popleft()
            if job is None:
                return jobs, True
            jobs.append(job)
        return jobs, False

    def _gather(self) -> None:
        """Let some more jobs come together, for whom the lane then has to be woken once."""
        if not self._presses():
            self._wait(_Rest.GATHERING, _GATHER_S, self._presses)

    def _presses(self) -> bool:
        return self._bytes >= _PRESSING_BYTES or len(self._jobs) >= _BATCH_JOBS or self._is_ending

    def _wait(self, rest: _Rest, timeout_s: float | None, is_over: Callable[[], bool]) -> None:
        """Sleep until the bell rings or the time is over.

        What was put is looked at once more after ``_rest`` was set: whoever puts looks the other way round, so one of
        the two sees the other. A bell too many wakes once for nothing.
        """
        self._rest = rest
        if not is_over():
            with suppress(queue.Empty):
                self._bell.get(timeout=timeout_s)
        self._rest = _Rest.NONE


@implementer(IFileWorker)
class StoreWorker:
    """The file store in threads. All methods but the lanes' own are called in the reactor thread.

    ``backlog_bytes`` is what was appended and is not written yet, in all lanes.
    """

    log = txaio.make_logger()

    def __init__(
        self,
        store: FileStore,
        *,
        call_in_reactor: Callable[..., object],
        threads: int = 4,
        part_max_age_s: float = 30 * 86400.0,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
        thread: ThreadFactory = threading.Thread,
    ) -> None:
        """Touch nothing yet.

        ``call_in_reactor`` is the reactor's callFromThread, ``clock`` gives seconds that never go back; parts older
        than ``part_max_age_s`` are deleted at the start.
        """
        self.backlog_bytes = 0
        self._store = store
        self._call_in_reactor = call_in_reactor
        self._part_max_age_s = part_max_age_s
        lanes = [Lane(store, pace or Pace(), clock) for _ in range(threads)]
        self.lanes = [LaneThread(lane, self._hand_over, self._lane_ended, self._lane_bug) for lane in lanes]
        self._threads = [
            thread(target=lane.run, name=f"store-{number}", daemon=True) for number, lane in enumerate(self.lanes)
        ]
        self._running = False
        self._lock = threading.Lock()
        self._lanes_left = threads
        self._stopped: list[Deferred[None]] = []
        self._is_probing = False
        self._quiet = Quiet(clock())
        self._clock = clock
        store.volume.changed = self._volume_changed
        store.dropped = self._part_dropped

    def start(self) -> Recovery:
        """Open the store, which blocks for as long as recovery takes, and begin to work; raises `StoreError`."""
        recovery = self._store.start(self._part_max_age_s)
        for thread in self._threads:
            thread.start()
        self._running = True
        return recovery

    def open(self, offered: Offered, peer: str, compare: bool = True) -> Deferred[Upload]:
        """Begin or take up the reception of a file; the upload says at which offset."""
        deferred: Deferred[Upload] = Deferred()
        return self._put(offered, Open(deferred, offered, peer, compare))

    def append(self, upload: Upload, offset_bytes: int, data: bytes, done: Callable[[Failure | None], object]) -> None:
        """Write bytes at an offset of the file; ``done`` is told when they are, which is not yet durable, or why not.

        That can take a second on an idle disk: wait for it only to bound what is under way.
        """
        if not self._running:
            done(Failure(StoreError("the store is not running")))
            return
        self.backlog_bytes += len(data)
        self._lane_of(upload.offered).put(Append(upload, offset_bytes, data, done))

    def finish(self, upload: Upload, about: Mapping[str, object]) -> Deferred[Stored | Differs]:
        """Store the whole file; fires when it is durable. ``about`` goes into its sidecar."""
        deferred: Deferred[Stored | Differs] = Deferred()
        return self._put(upload.offered, Finish(deferred, upload, about))

    def park(self, upload: Upload) -> Deferred[None]:
        """Keep what has come, durably, until the file is offered again."""
        deferred: Deferred[None] = Deferred()
        return self._put(upload.offered, Park(deferred, upload))

    def expire(self) -> Deferred[tuple[Expired, ...]]:
        """Delete unfinished files that nobody has gone on with for too long, and say which."""
        deferred: Deferred[tuple[Expired, ...]] = Deferred()
        return self._put_into(self.lanes[0], Expire(deferred, self._part_max_age_s))

    def probe(self) -> Deferred[bool]:
        """If the disk is failing, try whether it can be written again; fires with whether it is good.

        One attempt at a time: on a disk that hangs, they would queue up before what cameras send.
        """
        if not self._running or self._is_probing or not self._store.volume.is_failing:
            return succeed(self._running and not self._store.volume.is_failing)
        deferred: Deferred[bool] = Deferred()
        self._is_probing = True
        self.lanes[0].put(Probe(deferred))
        return deferred.addBoth(self._probed)

    def stop(self) -> Deferred[None]:
        """Do everything that was asked for, park what is open, close the store; fires when the threads have ended."""
        deferred: Deferred[None] = Deferred()
        if not self._running and not self._stopped:
            return succeed(None)
        self._stopped.append(deferred)
        if self._running:
            self._running = False
            for lane in self.lanes:
                lane.put(None)
        return deferred

    def _probed(self, outcome: Any) -> Any:
        self._is_probing = False
        return outcome

    def _put(self, offered: Offered, job: Call) -> Deferred[Any]:
        return self._put_into(self._lane_of(offered), job)

    def _put_into(self, lane: LaneThread, job: Call) -> Deferred[Any]:
        if not self._running:
            return fail(StoreError("the store is not running"))
        lane.put(job)
        return job.deferred

    def _lane_of(self, offered: Offered) -> LaneThread:
        return self.lanes[zlib.crc32(offered.imei.encode()) % len(self.lanes)]

    def _hand_over(self, results: list[Result]) -> None:
        """Give a batch of results to the reactor thread; called by a lane."""
        self._call_in_reactor(self._deliver, results)

    def _deliver(self, results: list[Result]) -> None:
        for job, outcome in results:
            if isinstance(job, Append):
                self.backlog_bytes -= len(job.data)
            elif isinstance(job, Open) and job.deferred.called:
                self._came_too_late(job, outcome)
            job.answer(outcome)

    def _came_too_late(self, job: Open, outcome: Any) -> None:
        """Park what was opened for somebody who has cancelled, or say why it could not be opened."""
        imei = job.offered.imei
        if isinstance(outcome, Failure):
            self._failed_unheard(outcome, imei)
        elif isinstance(outcome, Upload) and self._running:
            self._put(outcome.offered, Park(Deferred(), outcome)).addErrback(self._failed_unheard, imei)

    def _failed_unheard(self, failure: Failure, imei: str) -> None:
        """Say what failed that nobody waits for; not that a file was to be refused."""
        if failure.check(StoreError) is None:
            self._log_bug(failure)
        elif failure.check(NoRoom, VolumeFailing) is None:
            log_event(self.log, Event.STORE_FAILED, imei=imei, reason=failure.getErrorMessage())

    def _lane_bug(self, failure: Failure) -> None:
        """Have a bug logged in the reactor thread; called by a lane."""
        self._call_in_reactor(self._log_bug, failure)

    def _log_bug(self, failure: Failure) -> None:
        log_bug(self.log, failure)

    def _volume_changed(self, change: Failing | Healed) -> None:
        """Have it logged in the reactor thread; called by whichever lane finds out."""
        self._call_in_reactor(self._log_change, change)

    def _log_change(self, change: Failing | Healed) -> None:
        match change:
            case Failing(reason):
                log_event(self.log, Event.STORE_FAILING, reason=reason)
            case Healed(after_s, refused):
                log_event(self.log, Event.STORE_HEALED, after=round(after_s, 1), refused=refused)

    def _part_dropped(self, part: Dropped) -> None:
        """Have it logged in the reactor thread; called by whichever lane does it."""
        self._call_in_reactor(self._log_dropped, part)

    def _log_dropped(self, part: Dropped) -> None:
        name, size_bytes, reason = part.name, part.size_bytes, part.reason
        suppressed = self._quiet.ask(self._clock(), reason)
        if suppressed is not None:
            log_event(
                self.log, Event.PART_DROPPED, name=name, size_bytes=size_bytes, reason=reason, suppressed=suppressed
            )

    def _lane_ended(self) -> None:
        """Close the store after the last lane; called by a lane."""
        with self._lock:
            self._lanes_left -= 1
            if self._lanes_left:
                return
        self._call_in_reactor(self._fire_stopped, result_of(self._store.stop))

    def _fire_stopped(self, outcome: object) -> None:
        for thread in self._threads:
            thread.join()
        stopped, self._stopped = self._stopped, []
        for deferred in stopped:
            if isinstance(outcome, Failure):
                deferred.errback(outcome)
            else:
                deferred.callback(None)
