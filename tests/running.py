"""A real gateway and real simulated cameras in subprocesses, and what has been stored, for end-to-end tests."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from click.testing import CliRunner

from dsmgateway.check_command import check

T = TypeVar("T")

#: Warnings are errors in subprocesses too; Twisted itself leaves one file open at the end.
PYTHON = (sys.executable, "-W", "error", "-W", "ignore:unclosed file <_io.TextIOWrapper name='/dev/null'")
DSMGATEWAY = (*PYTHON, "-m", "dsmgateway.cli")
#: As a user starts it, but with our interpreter's warnings.
TWISTD = (*PYTHON, "-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile=")

Row = dict[str, Any]

#: With how many worker processes every gateway runs that does not say it itself; empty: one process.
WORKERS = os.environ.get("DSMGATEWAY_TEST_WORKERS", "")
#: Has a gateway read each packet when it comes, for tests that wait for that: else it leaves some of a file in the
#: kernel for `LOOK_AFTER_S`.
AT_ONCE = "--receive-low-water=1"
#: Of a test that looks into the gateway's one process, or counts what each of several does by itself.
one_process = pytest.mark.one_process

#: Below those that the kernel gives to outgoing connections, which would come between asking for one and listening.
#: Each process that runs tests has some of its own, and begins anywhere in them.
_PORTS_EACH = 1000
_FIRST_PORT = 15_000 + _PORTS_EACH * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 16)
_PORTS = itertools.count(random.SystemRandom().randrange(_PORTS_EACH))


def free_port() -> int:
    """Return a TCP port that nobody listens on now."""
    for number in itertools.islice(_PORTS, _PORTS_EACH):
        port = _FIRST_PORT + number % _PORTS_EACH
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("all ports are taken")


def environment(**more: str) -> dict[str, str]:
    """The environment for a subprocess: ours, without settings of the gateway."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DSMGATEWAY_")}
    return kept | more


def eventually(what: str, ask: Callable[[], T | None], within_s: float = 20) -> T:
    """Ask until the answer is true, and return it; fail with ``what`` when that takes too long."""
    deadline = time.monotonic() + within_s
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"waited {within_s:g} s in vain: {what}"
        time.sleep(0.005)
    return answer


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def has_gone(pid: int) -> bool:
    """Whether there is no such process, or nobody has asked yet how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


class RunningGateway:
    """``twistd dsmgateway`` in the foreground, on a port of its own, logging JSON to a file.

    ``start`` may be called again after ``stop`` or ``kill``: same port, same data folder, and the log goes on.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        prefix: Sequence[str] = (),
        twistd: Sequence[str] = TWISTD,
        port: int | None = None,
        data: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self._env = env or environment()
        self.data = data or folder / "data"
        self.log_path = folder / "gateway.log"
        self.port = port or free_port()
        self.command = [
            *prefix,
            *twistd,
            "dsmgateway",
            f"--port=tcp:{self.port}:interface=127.0.0.1:backlog=1024",
            f"--data={self.data}",
            "--log-format=json",
            *([f"--workers={WORKERS}"] if WORKERS and not any(one.startswith("--workers") for one in options) else []),
            *options,
        ]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> RunningGateway:
        """Start it and wait until it says that it has."""
        begin = self.log_end
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(self.command, cwd=self.folder, stdout=log, stderr=log, env=self._env)
        deadline = time.monotonic() + 60
        while b'"gateway.started"' not in self._log_bytes(begin):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"the gateway did not start:\n{self.log_path.read_text()[-4000:]}")
            time.sleep(0.02)
        return self

    def stop(self, within_s: float = 10) -> int:
        """Send SIGTERM and return the exit code."""
        self.terminate()
        return self.wait(within_s)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._signal(signal.SIGTERM)

    def wait(self, within_s: float = 10) -> int:
        """Wait for its end and return the exit code."""
        assert self.process is not None
        return self.process.wait(within_s)

    def kill(self) -> None:
        """Send SIGKILL to all its processes and wait until they are gone."""
        assert self.process is not None
        if self.process.poll() is None:
            workers = children(self.pid) if self.has_workers else []
            self._signal(signal.SIGKILL)
            for worker in workers:
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
            eventually("the workers are gone", lambda: all(map(has_gone, workers)))
        self.process.wait(10)

    @property
    def has_workers(self) -> bool:
        """Whether it runs as several processes."""
        return any(one.startswith("--workers") for one in self.command)

    @property
    def pid(self) -> int:
        """The process of the gateway itself, also where it runs under another program (strace)."""
        assert self.process is not None
        if not self.command[0].endswith("strace"):
            return self.process.pid
        return next(iter(children(self.process.pid)), self.process.pid)

    @property
    def pids(self) -> list[int]:
        """All its processes."""
        return [self.pid, *(children(self.pid) if self.has_workers else [])]

    def _signal(self, number: int) -> None:
        os.kill(self.pid, number)

    # -- what it says

    @property
    def log_end(self) -> int:
        """How long the log is now, to be given to `rows` or `events` later."""
        return self.log_path.stat().st_size if self.log_path.exists() else 0

    def _log_bytes(self, since: int = 0) -> bytes:
        with self.log_path.open("rb") as log:
            log.seek(since)
            return log.read()

    def rows(self, since: int = 0) -> list[Row]:
        """Every whole line of the log after this place; a line that is no event of the log is a failure."""
        whole = self._log_bytes(since).rpartition(b"\n")[0]
        strange = [line for line in whole.split(b"\n") if line and not line.startswith(b"{")]
        assert not strange, b"\n".join(strange).decode("utf-8", "backslashreplace")
        return [json.loads(line) for line in whole.split(b"\n") if line]

    def events(self, name: str, since: int = 0) -> list[Row]:
        """The log events of this name after this place, as far as they are there."""
        return [row for row in self.rows(since) if row["event"] == name]

    def wait_for(self, name: str, since: int = 0, within_s: float = 20, **fields: object) -> Row:
        """Wait for the first log event of this name with these fields, and return it."""

        def found() -> Row | None:
            return next((row for row in self.events(name, since) if fields.items() <= row.items()), None)

        return eventually(f"the log says {name} {fields or ''}", found, within_s)

    def troubles(self, since: int = 0) -> list[Row]:
        """The log lines that tell of an error, or that carry a traceback."""
        return [row for row in self.rows(since) if row["level"] in ("error", "critical") or "traceback" in row]

    # -- what it holds

    def sidecars(self) -> list[Row]:
        """Return the sidecar of every finished file, its content checked against it."""
        rows = []
        for path in sorted((self.data / "media").rglob("*.json")):
            sidecar = json.loads(path.read_text())
            (media,) = (other for other in path.parent.glob(f"{path.stem}.*") if other != path)
            assert hashlib.sha256(media.read_bytes()).hexdigest() == sidecar["sha256"], media
            assert media.stat().st_size == sidecar["size"], media
            rows.append(sidecar)
        return rows

    def media(self) -> list[Path]:
        """Every file in the tree of finished files that is no sidecar."""
        return sorted(path for path in (self.data / "media").rglob("*") if path.is_file() and path.suffix != ".json")

    def spool(self, suffix: str) -> list[Path]:
        """The files in the spool with this suffix."""
        return sorted((self.data / "spool").glob(f"*{suffix}"))

    # -- what it uses

    @property
    def descriptors(self) -> int:
        """How many files and sockets it has open, in all its processes."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.pids)

    def memory_kib(self, name: str = "VmRSS") -> int:
        """Its memory now (VmRSS) or at most so far (VmHWM), in KiB; that of all its processes together."""
        lines = [line for pid in self.pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

    @property
    def connections(self) -> list[int]:
        """For each connection that is open, how many bytes the gateway has not read yet."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        established, ours = "01", f":{self.port:04X}"
        return [int(row[4].split(":")[1], 16) for row in rows if row[1].endswith(ours) and row[3] == established]

    def has_read(self) -> None:
        """Wait until the gateway has taken every byte that was sent to it; in the middle of a file see `AT_ONCE`."""
        eventually("the gateway reads what it was sent", lambda: not any(self.connections))


@contextmanager
def running_gateway(folder: Path, *options: str, **more: object) -> Iterator[RunningGateway]:
    """A gateway that runs for the block and is killed after it if it is still there."""
    gateway = RunningGateway(folder, *options, **more).start()  # type: ignore[arg-type]
    try:
        yield gateway
    finally:
        gateway.kill()


class Simulation:
    """``dsmgateway simulate`` in the background; a context manager."""

    def __init__(self, gateway: RunningGateway, *options: str) -> None:
        self.report_path = gateway.folder / f"simulation-{time.monotonic_ns()}.json"
        address = f"127.0.0.1:{gateway.port}"
        self._command = [*DSMGATEWAY, "simulate", "--to", address, "--json", str(self.report_path), *options]
        self._folder = gateway.folder

    def __enter__(self) -> Simulation:
        self._process = subprocess.Popen(
            self._command,
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
        )
        return self

    def __exit__(self, *failure: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    @property
    def runs(self) -> bool:
        """Whether cameras are still at work."""
        return self._process.poll() is None

    def report(self, within_s: float = 120) -> Row:
        """Wait for its end, which must be a good one, and return what it says it did."""
        output, _ = self._process.communicate(timeout=within_s)
        assert self._process.returncode == 0, output[-4000:]
        report: Row = json.loads(self.report_path.read_text())
        assert report["summary"]["violations"] == 0, output[-4000:]
        return report


def simulated(gateway: RunningGateway, *options: str, within_s: float = 120) -> Row:
    """Run simulated cameras to their end, which must be a good one, and return what they say they did."""
    with Simulation(gateway, *options) as simulation:
        return simulation.report(within_s)


def assert_stored_exactly_once(gateway: RunningGateway, report: Row) -> None:
    """Every file that cameras say they sent is stored, once, whole, and nothing else is."""
    keys = ("imei", "sha256", "device_path", "size")
    sent, sidecars = report["files"], gateway.sidecars()
    # Files that are asked for by identifier share their device_path: only the content tells them apart.
    held = sorted(tuple(row[key] for key in keys) for row in sidecars)
    due = sorted(tuple(row[key] for key in keys) for row in sent)
    assert held == due, "a file is missing, is there twice, differs, or was never sent"
    assert len(gateway.media()) == len(sidecars), "files without a sidecar"


def checked(gateway: RunningGateway) -> None:
    """``dsmgateway check`` finds everything in order."""
    done = CliRunner().invoke(check, [str(gateway.data)])
    assert done.exit_code == 0, done.output
