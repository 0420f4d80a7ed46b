"""The store without a network, and the disk without a store: files a second that are durable, and their CPU time.

    python bench/durable.py FOLDER CAMERAS FILES

Answers with one line of JSON. The store is the gateway's worker with its own threads; the disk's own limit are bare
threads that create a file, write it and sync it.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from footage import File
from measuring import cpu_s
from twisted.internet.defer import Deferred

from dsmgateway.descriptors import raise_descriptor_limit
from dsmgateway.settings import Settings
from dsmgateway.store import FileStore, Offered, Stored, Upload
from dsmgateway.worker import StoreWorker

SIZE = 100_000
#: What a read of a socket brings.
_PIECE_BYTES = 16 * 1024
#: Files under way at a time, as of so many cameras.
_UNDER_WAY = 256
#: Bare threads that sync.
THREADS = (1, 4, 16, 32)


def measured(work: Callable[[], int]) -> dict[str, float]:
    """Return files a second and CPU seconds a file of work that returns how many files it made durable."""
    used_s, begin = sum(cpu_s()), time.monotonic()
    count = work()
    wall_s = time.monotonic() - begin
    return {"files": count, "files_per_s": count / wall_s, "cpu_s_per_file": (sum(cpu_s()) - used_s) / count}


def bare(folder: Path, threads: int, files: int) -> int:
    """Create, write and sync about as many files in as many threads."""
    data, each = os.urandom(SIZE), max(1, files // threads)

    def write(thread: int) -> None:
        for number in range(each):
            descriptor = os.open(folder / f"{threads}-{thread}-{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                os.write(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    running = [threading.Thread(target=write, args=(thread,)) for thread in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return each * threads


class Reactor:
    """As much of a reactor as the worker needs: calls that threads hand over are done in this one."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]] = queue.SimpleQueue()

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have it called by `turn`; from any thread."""
        self._calls.put((function, arguments))

    def turn(self) -> None:
        """Wait for a call and do it."""
        function, arguments = self._calls.get()
        function(*arguments)


class StoreLoad:
    """Files for the worker, so many at a time."""

    def __init__(self, folder: Path) -> None:
        self._reactor = Reactor()
        settings = Settings()
        store = FileStore(folder, min_free_bytes=settings.min_free, max_parts=settings.max_unfinished)
        self._worker = StoreWorker(store, call_in_reactor=self._reactor.call, threads=settings.store_threads)
        self._worker.start()
        self._content = os.urandom(SIZE)
        self._stored = 0
        self._under_way = 0

    def store(self, cameras: int, files: int, run: int, size: int = SIZE) -> int:
        """Store files of all cameras, return how many."""
        waiting = (File(camera, run, number, size) for number in range(files) for camera in range(cameras))
        self._stored = 0
        self._begin(waiting, _UNDER_WAY)
        while self._under_way:
            self._reactor.turn()
            self._begin(waiting, _UNDER_WAY - self._under_way)
        if self._stored != cameras * files:
            raise AssertionError(f"{self._stored} of {cameras * files} files were stored")
        return self._stored

    def stop(self) -> None:
        """Close the store."""
        stopped: list[object] = []
        self._worker.stop().addBoth(stopped.append)
        while not stopped:
            self._reactor.turn()

    def _begin(self, waiting: Iterator[File], count: int) -> None:
        for file in islice(waiting, count):
            self._under_way += 1
            offered = Offered(file.imei, file.path, file.size, 0)
            opened: Deferred[Any] = self._worker.open(offered, "192.0.2.1:40000")
            opened.addCallback(self._opened, file)
            opened.addErrback(self._failed)

    def _opened(self, upload: Upload, file: File) -> Deferred[Any]:
        first, size = file.first, upload.offered.size_bytes
        self._worker.append(upload, 0, first, self._written)
        for begin in range(len(first), size, _PIECE_BYTES):
            piece = self._content[begin : min(begin + _PIECE_BYTES, size)]
            self._worker.append(upload, begin, piece, self._written)
        return self._worker.finish(upload, {"protocol_id": 5, "metadata": None}).addCallback(self._finished)

    def _written(self, failure: Any) -> None:
        if failure is not None:
            self._failed(failure)

    def _finished(self, answer: object) -> None:
        if not isinstance(answer, Stored) or answer.duplicate:
            raise AssertionError(f"stored {answer}")
        self._stored += 1
        self._under_way -= 1

    def _failed(self, failure: Any) -> None:
        self._reactor.call(failure.raiseException)


def main() -> None:
    folder, cameras, files = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    raise_descriptor_limit()
    folder.mkdir()
    load = StoreLoad(folder / "store")
    load.store(cameras, 1, 0, 2000)
    disk: dict[str, dict[str, float]] = {}
    for threads in THREADS:
        os.sync()
        disk[str(threads)] = measured(lambda threads=threads: bare(folder, threads, cameras * files // 2))  # type: ignore[misc]
    os.sync()
    store = measured(lambda: load.store(cameras, files, 1))
    load.stop()
    print(json.dumps({"disk": disk, "store": store}))


if __name__ == "__main__":
    main()
