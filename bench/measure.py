"""How each workload is measured: fresh servers, a warm-up with the same cameras, runs of each kind in turn.

Everything that was sent is looked for afterwards, in every run; what is missing or differs is a `BenchError`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import fields, replace
from math import ceil
from pathlib import Path
from typing import Any

from footage import frames_bytes
from processes import OTHER_CORES, SERVER_CORE, BenchError, Load, Process, Server
from verify import Verifier, sent_files
from workloads import WARM_UP, Way, Workload

from dsmgateway.descriptors import OTHER_DESCRIPTORS, descriptor_limit, most_connections
from dsmgateway.settings import Settings

Row = dict[str, Any]
#: Frames a second that one generator may have to send; beyond it there are more, where there are cores for them.
_FRAMES_EACH = 40_000
#: Seconds of a steady load before it is looked at.
_SETTLE_S = 6.0
#: Connections of the idle workload's warm-up.
_IDLE_WARM_UP = 200
#: Seconds in which the connections of the warm-up end.
_PARTING_S = 1.0
#: Seconds that a server may take to accept what has connected.
_ACCEPT_S = 60.0
#: What has to be free on the disk for files to be left there until the end.
_ROOM_BYTES = 20 << 30
#: Up to so many cameras a point of the curve is measured three times: its costs are small.
_FEW_CAMERAS, _RUNS_OF_FEW = 1000, 3


def _delete(folder: Path) -> None:
    """Delete a folder now if room is short, else leave it to the end of all.

    For each file that is made, an ext4 without journal looks one by one at those that were deleted in the last minute:
    what is measured next would pay for it.
    """
    if shutil.disk_usage(folder).free < _ROOM_BYTES:
        shutil.rmtree(folder)


class Measurer:
    """Measures workloads in folders of its own below ``folder``; ``say`` is told how it goes.

    ``watch`` is entered with the server around each run of a workload whose cost is measured.
    """

    def __init__(
        self,
        folder: Path,
        runs: int,
        say: Callable[[str], object],
        watch: Callable[[Server], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._folder, self._runs, self._say, self._watch = folder, runs, say, watch
        self._numbers = itertools.count()
        #: What could not be done as planned, in words.
        self.remarks: list[str] = []

    def measure(self, workload: Workload) -> Row | None:
        """Return what came of it, None where this version of the gateway has no such thing."""
        self._numbers = itertools.count()
        ways: dict[Way, Callable[[Workload], Row | None]] = {
            Way.COST: self._cost,
            Way.CURVE: self._curve,
            Way.LIVE: self._live,
            Way.IDLE: self._idle,
            Way.DURABLE: self._durable,
            Way.WORKERS: self._workers,
        }
        workload = self._within_limits(workload)
        measured = ways[workload.way](workload)
        return measured and {"title": workload.title, **measured}

    def _within_limits(self, workload: Workload) -> Workload:
        """Have no more cameras than there are descriptors for: each has a socket, and when it sends also a file."""
        idle = workload.way is Way.IDLE
        most = descriptor_limit() - OTHER_DESCRIPTORS if idle else most_connections(descriptor_limit())
        wanted = max(workload.job.get("count", 0), *workload.steps, 0)
        if wanted <= most:
            return workload
        self._remark(f"{workload.name}: {most:,} cameras at most instead of {wanted:,}, by the limit of open files.")
        job = {**workload.job, "count": min(workload.job["count"], most)} if "count" in workload.job else workload.job
        return replace(workload, job=job, steps=tuple(dict.fromkeys(min(step, most) for step in workload.steps)))

    def _remark(self, words: str) -> None:
        self.remarks.append(words)
        self._say(words)

    # -- the parts

    @contextmanager
    def _servers(self, workload: Workload, on: set[int] = SERVER_CORE) -> Iterator[dict[str, tuple[Server, Verifier]]]:
        """Fresh servers of the workload's kinds, their files below a folder that nobody needs afterwards."""
        folder = Path(tempfile.mkdtemp(dir=self._folder, prefix=f"{workload.name}-"))
        try:
            with ExitStack() as stack:
                servers = {}
                for kind in workload.kinds:
                    server = stack.enter_context(Server(kind, folder, workload.options, on))
                    servers[kind] = server, Verifier(kind, server.data)
                yield servers
        finally:
            _delete(folder)

    def _load(self, server: Server, job: Row) -> Load:
        frames = job["count"] * job.get("rate", 0)
        processes = max(1, min(len(OTHER_CORES), ceil(frames / _FRAMES_EACH)))
        return Load({**job, "port": server.port}, server.data.parent, processes)

    def _run(self, server: Server, verifier: Verifier, job: Row, ticks: bool = False) -> Row:
        """Have files delivered, look for all of them, and return what it cost."""
        job = {"first": 0, **job, "run": next(self._numbers)}
        os.sync()  # what others wrote shall not be this run's disk time
        with self._load(server, job) as load:
            server.begin(ticks)
            load.go()
            report = load.report()
            used = server.end()
        return self._row(verifier, job, report, used)

    def _row(self, verifier: Verifier, job: Row, report: Row, used: Row) -> Row:
        sent = sent_files(job["run"], job["sizes"], report.pop("files"), job["first"])
        verifier.verify(sent, damaged=bool(job.get("damage")))
        stored = sum(file.size for file in sent)
        load_s, wall_s = report.pop("cpu_s"), report.pop("wall_s")
        return {
            **used,
            **report,
            "load_s": wall_s,
            "load_share": load_s / wall_s,
            "after_cut_s": wall_s - job["cut_at_s"] if job.get("cut_at_s") else None,
            "files": len(sent),
            "flagged": len(verifier.flagged),
            "bytes": stored,
            "cpu_s_per_gb": used["cpu_s"] / stored * 1e9,
            "sent_twice": report["data_bytes"] - sum(frames_bytes(file.size, job.get("protocol", 5)) for file in sent),
        }

    def _said(self, what: str, kind: str, row: Row) -> Row:
        memory = f"{row['peak_rss'] / 1e6:.0f} MB"
        late = f", frames late p99 {row['late_s']['p99'] * 1000:.0f} ms" if row["late_s"].get("p99") is not None else ""
        self._say(
            f"{what:18} {kind:8} {row['cpu_s_per_gb']:8.2f} CPU-s/GB in {row['load_s']:5.1f} s, {memory:>7}; "
            f"generator {row['load_share']:4.0%}{late}"
        )
        return row

    def _warm_up(self, servers: dict[str, tuple[Server, Verifier]], job: Row) -> dict[str, Row]:
        """Have each camera deliver a small file, so that its folders are there."""
        small = {**job, "files": 1, "sizes": WARM_UP, "rate": 0, "damage": 0, "cut_at_s": 0, "duration_s": 0}
        small["spread_s"] = job["count"] / 5000
        return {kind: self._run(*servers[kind], small) for kind in servers}

    # -- the ways

    def _cost(self, workload: Workload) -> Row:
        runs: dict[str, list[Row]] = {kind: [] for kind in workload.kinds}
        with self._servers(workload) as servers:
            first = self._warm_up(servers, workload.job)
            # A second file of the day tells what was the first one's own.
            second = self._warm_up(servers, workload.job) if workload.tells_first_of_day else {}
            for number in range(workload.runs or self._runs):
                for kind, (server, verifier) in servers.items():
                    with self._watch(server):
                        row = self._run(server, verifier, workload.job, workload.ticks)
                    runs[kind].append(self._said(f"{workload.name} run {number + 1}", kind, row))
        extra = {kind: (first[kind]["cpu_s"] - second[kind]["cpu_s"]) / first[kind]["files"] for kind in second}
        return {"kinds": runs, "first_of_day_cpu_s": extra}

    def _curve(self, workload: Workload) -> Row:
        points: list[Row] = []
        with self._servers(workload) as servers:
            warm = 0
            for count in workload.steps:
                self._warm_up(servers, {**workload.job, "first": warm, "count": count - warm})
                warm = count
                few = count <= _FEW_CAMERAS and (workload.runs or self._runs) > 1
                runs: dict[str, list[Row]] = {kind: [] for kind in workload.kinds}
                for _ in range(_RUNS_OF_FEW if few else 1):
                    for kind, (server, verifier) in servers.items():
                        row = self._run(server, verifier, {**workload.job, "count": count})
                        runs[kind].append(self._said(f"curve {count}", kind, row))
                points.append({"cameras": count, "kinds": runs})
        return {"points": points}

    def _live(self, workload: Workload) -> Row:
        runs: dict[str, list[Row]] = {kind: [] for kind in workload.kinds}
        (window_s,) = workload.steps
        with self._servers(workload) as servers:
            self._warm_up(servers, workload.job)
            for kind, (server, verifier) in servers.items():
                number = next(self._numbers)
                job = {"first": 0, **workload.job, "run": number, "duration_s": _SETTLE_S + window_s}
                os.sync()
                with self._load(server, job) as load:
                    load.go()
                    time.sleep(_SETTLE_S)
                    server.begin(tick=True)
                    time.sleep(window_s)
                    used = server.end()
                    report = load.report()
                row = self._row(verifier, job, report, used)
                del row["cpu_s_per_gb"]  # of a window, and the bytes are those of the whole
                runs[kind].append(row)
                self._say(
                    f"live {kind:8} {used['cpu_s'] / used['wall_s']:.0%} of a core, reactor late p99 "
                    f"{used['delay_s']['p99'] * 1000:.1f} ms, max {used['delay_s']['max'] * 1000:.0f} ms, "
                    f"sweeps at most {used['sweep_interval_s']['max']:.2f} s apart; frames late p99 "
                    f"{row['late_s']['p99'] * 1000:.0f} ms"
                )
        return {"kinds": runs}

    def _idle(self, workload: Workload) -> Row:
        held: dict[str, dict[str, Row]] = {}
        for hold in ("silent", "answered"):
            held[hold] = {}
            with self._servers(workload) as servers:
                for kind, (server, _) in servers.items():
                    held[hold][kind] = self._held(server, {**workload.job, "hold": hold})
                    per_connection = held[hold][kind]["bytes_per_connection"]
                    self._say(f"idle {hold:9} {kind:8} {per_connection:.0f} bytes of RSS a connection")
        return {"holds": held}

    def _held(self, server: Server, job: Row) -> Row:
        few = {**job, "count": max(10, min(_IDLE_WARM_UP, job["count"] // 10))}
        with self._load(server, {**few, "run": next(self._numbers)}) as load:
            load.go()
            load.report()
        time.sleep(_PARTING_S)
        with self._load(server, {**job, "run": next(self._numbers)}) as load:
            before, open_before = server.begin()["rss"], _descriptors(server)
            load.go()
            load.report()
            deadline = time.monotonic() + _ACCEPT_S
            while (held := _descriptors(server) - open_before) < job["count"]:
                if time.monotonic() > deadline:
                    raise BenchError(f"the {server.kind} holds {held} of {job['count']} connections")
                time.sleep(0.1)
            after = server.end()["rss"]
        return {"before": before, "rss": after, "bytes_per_connection": (after - before) / job["count"]}

    def _durable(self, workload: Workload) -> Row:
        runs = []
        for number in range(workload.runs or self._runs):
            folder = Path(tempfile.mkdtemp(dir=self._folder, prefix="durable-"))
            try:
                arguments = (folder / "data", workload.job["count"], workload.job["files"])
                process = Process("durable.py", *arguments, on=SERVER_CORE, log=folder / "durable.err")
                try:
                    runs.append(process.hear())
                finally:
                    process.close()
            finally:
                _delete(folder)
            store, best = runs[-1]["store"], max(one["files_per_s"] for one in runs[-1]["disk"].values())
            self._say(
                f"durable run {number + 1}  {store['files_per_s']:.0f} files/s, {store['cpu_s_per_file'] * 1e3:.2f} "
                f"CPU-ms each; bare threads at best {best:.0f} files/s"
            )
        return {"runs": runs}

    def _workers(self, workload: Workload) -> Row | None:
        if "workers" not in {one.name for one in fields(Settings)}:
            return None
        everywhere = SERVER_CORE | OTHER_CORES
        runs: dict[str, list[Row]] = {}
        for workers in (1, 2):
            option = (f"--workers={workers}",)
            with self._servers(replace(workload, options=option), everywhere) as servers:
                self._warm_up(servers, workload.job)
                runs[str(workers)] = [self._run(*servers["gateway"], workload.job) for _ in range(workload.runs or 1)]
            for row in runs[str(workers)]:
                self._say(f"workers {workers}: {row['files'] / row['load_s']:.0f} files/s")
        return {"workers": runs}


def _descriptors(server: Server) -> int:
    """Return how many descriptors a server has open: its connections tell themselves by them."""
    return len(os.listdir(f"/proc/{server.pid}/fd"))


def require_disk(folder: Path) -> str:
    """Return the file system of a folder; BenchError where it is in memory, where nothing is durable."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    holders = [(len(point), kind) for point, kind in mounts if folder.is_relative_to(point)]
    _, kind = max(holders)
    if kind in ("tmpfs", "ramfs"):
        raise BenchError(f"{folder} is in memory ({kind}): give a folder on a disk with --folder")
    return kind
