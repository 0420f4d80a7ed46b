"""The processes of a run: servers that measure themselves, and generators, each on a core that it does not share.

With one core only they share it, and the report says so.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
_STOP_S = 120


class BenchError(Exception):
    """A workload did not do what it should; said in one line."""


def raise_hard_limit() -> None:
    """Let processes have as many descriptors as the system allows, where we may."""
    most = int(Path("/proc/sys/fs/nr_open").read_text())
    with suppress(ValueError, OSError):  # not root: what there is must do
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def cores() -> tuple[set[int], set[int]]:
    """Return the core of servers, and those of the rest; the same where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return {usable[-1]}, set(usable[:-1]) or {usable[-1]}


SERVER_CORE, OTHER_CORES = cores()


class Process:
    """A program of the benchmark that speaks lines of JSON."""

    def __init__(self, script: str, *arguments: object, on: set[int], log: Path) -> None:
        """``log`` takes what it says on stderr."""
        self.script, self._log = script, log
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, str(BENCH / script), *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"},
                preexec_fn=lambda: os.sched_setaffinity(0, on),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, what: object) -> None:
        """Send a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Wait for a line; BenchError when the process ends instead."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            said = self._log.read_text(errors="backslashreplace").strip().rpartition("\n")[2]
            raise BenchError(f"{self.script} ended with {code}: {said}")
        heard: dict[str, Any] = json.loads(line)
        return heard

    def ask(self, what: object) -> dict[str, Any]:
        """Send a line and wait for the answer."""
        self.tell(what)
        return self.hear()

    def close(self, at_once: bool = False) -> None:
        """Wait for its end, which the end of its stdin brings about; kill it if that takes too long, or ``at_once``."""
        assert self._process.stdin is not None and self._process.stdout is not None
        if at_once:
            self._process.kill()
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Server(Process):
    """A server of one kind: ``sink`` or ``gateway``; a context manager that ends it."""

    def __init__(self, kind: str, folder: Path, options: Sequence[str] = (), on: set[int] = SERVER_CORE) -> None:
        self.kind, self.data = kind, folder / kind
        arguments = [self.data, *(options if kind == "gateway" else ())]
        super().__init__(f"{kind}.py", *arguments, on=on, log=folder / f"{kind}.err")
        self.about = self.hear()
        self.port: int = self.about["port"]

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def begin(self, tick: bool = False) -> dict[str, Any]:
        """Have it measure itself from now on."""
        return self.ask({"do": "begin", "tick": tick})

    def end(self) -> dict[str, Any]:
        """Return what it has used since."""
        return self.ask({"do": "end"})


class Load:
    """The generator, in as many processes as there are cores for it and cameras to share; a context manager."""

    def __init__(self, job: dict[str, Any], folder: Path, processes: int = 1) -> None:
        self._processes: list[Process] = []
        begin, count = int(job.get("first", 0)), int(job["count"])
        bounds = [begin + count * number // processes for number in range(processes + 1)]
        for first, stop in itertools.pairwise(bounds):
            one = Process("load.py", on=OTHER_CORES, log=folder / "load.err")
            self._processes.append(one)
            one.tell({**job, "first": first, "count": stop - first, "of": count})
        for one in self._processes:
            one.hear()

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *failure: object) -> None:
        for one in self._processes:
            one.close(at_once=failure[0] is not None)

    def go(self) -> None:
        """Let the cameras begin."""
        for one in self._processes:
            one.tell("go")

    def report(self) -> dict[str, Any]:
        """Wait until all is done; return one report for all processes; BenchError when something went wrong."""
        reports = [one.hear() for one in self._processes]
        for report in reports:
            if report["failure"]:
                raise BenchError(report["failure"])
            if report["wrong"]:
                raise BenchError(f"the cameras complain: {report['wrong'][0]}")
        return merged(reports)


def merged(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one report of several processes: counts add up, of percentiles the worst counts."""
    first, *others = reports
    whole = dict(first)
    for report in others:
        for name, value in report.items():
            whole[name] = _merge(name, whole[name], value)
    return whole


def _merge(name: str, one: Any, other: Any) -> Any:
    if isinstance(one, dict):
        return {key: _merge(key, one.get(key, 0), other.get(key, 0)) for key in {**one, **other}}
    if isinstance(one, str):
        return one or other
    worst = name.startswith("p") or name in ("max", "wall_s")
    return max(one, other) if worst else one + other
