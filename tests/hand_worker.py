"""The store worker without threads: a test says when the disk answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from dsmgateway.interfaces import IFileWorker
from dsmgateway.lanes import Append, Call, Expire, Finish, Job, Lane, Open, Pace, Park, Probe
from dsmgateway.store import Disk, FileStore, Offered, Recovery, Upload


@implementer(IFileWorker)
class HandWorker:
    """A lane over a real store in ``folder``; while ``automatic``, every call is done at once, else by `run`."""

    def __init__(self, folder: Path, automatic: bool = True, disk: Disk | None = None, min_free_bytes: int = 0) -> None:
        self.store = FileStore(folder, disk=disk, min_free_bytes=min_free_bytes)
        self.automatic = automatic
        self.waiting: list[Job] = []
        self.backlog_bytes = 0
        self._running = False
        self._lane = Lane(self.store, Pace(hold_bytes=1, at_once_bytes=1, finish_gap_s=0.0), lambda: 0.0)

    def start(self) -> Recovery:
        return self.store.start(3600.0)

    def open(self, offered: Offered, peer: str, compare: bool = True) -> Deferred[Upload]:
        return self._put(Open(Deferred(), offered, peer, compare))

    def append(self, upload: Upload, offset_bytes: int, data: bytes, done: Callable[[Failure | None], object]) -> None:
        self._add(Append(upload, offset_bytes, data, done))

    def finish(self, upload: Upload, about: Mapping[str, object]) -> Deferred[Any]:
        return self._put(Finish(Deferred(), upload, about))

    def park(self, upload: Upload) -> Deferred[None]:
        return self._put(Park(Deferred(), upload))

    def expire(self) -> Deferred[Any]:
        return self._put(Expire(Deferred(), 3600.0))

    def probe(self) -> Deferred[Any]:
        return self._put(Probe(Deferred()))

    def stop(self) -> Deferred[None]:
        self.run()
        self.store.stop()
        return succeed(None)

    def _put(self, job: Call) -> Deferred[Any]:
        self._add(job)
        return job.deferred

    def _add(self, job: Job) -> None:
        self.waiting.append(job)
        if self.automatic and not self._running:
            self.run()

    def run(self) -> None:
        """Do all that was asked for, also what the answers lead to."""
        self._running = True
        try:
            while self.waiting:
                jobs, self.waiting = self.waiting, []
                for job, outcome in self._lane.perform(jobs):
                    job.answer(outcome)
        finally:
            self._running = False
