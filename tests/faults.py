"""Faults from outside for end-to-end tests: strace that watches or injects errors, and a small disk.

Where the machine cannot do it a test is skipped and says why; with CI=true in the environment that is a failure.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest
from hand_camera import Picture
from running import eventually


def cannot(reason: str) -> NoReturn:
    """Skip this test, or fail it where nothing may be skipped."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"must not be skipped with CI=true: {reason}", pytrace=False)
    pytest.skip(reason)


@cache
def _strace() -> str | None:
    found = shutil.which("strace")
    if found is None and os.environ.get("CI") == "true" and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-qy", "strace"]):
            subprocess.run(command, check=False, stdout=subprocess.DEVNULL, timeout=300)
        found = shutil.which("strace")
    return found


def strace() -> str:
    """The path of strace."""
    found = _strace()
    if found is None:
        cannot("strace is not installed (apt-get install strace)")
    return found


@contextmanager
def traced(pid: int, output: Path, *options: str) -> Iterator[None]:
    """Attach strace with these options to a running process and all its threads for the block."""
    with (output.with_suffix(".messages")).open("w+b") as messages:
        command = [strace(), "-f", "-p", str(pid), "-o", str(output), *options]
        process = subprocess.Popen(command, stderr=messages)

        def attached() -> bool:
            said = Path(messages.name).read_text()
            if process.poll() is not None:
                cannot(f"strace cannot attach to a process here: {said.strip()}")
            return "attached" in said

        try:
            eventually("strace is attached", attached)
            yield
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End strace; one whose process was killed under it may wait for a thread that is gone already."""
    process.terminate()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


@dataclass(frozen=True)
class Call:
    """One system call: its arguments and result as strace shows them, and the lines on which it began and ended."""

    name: str
    text: str
    begin: int
    end: int

    def __lt__(self, other: Call) -> bool:
        """Whether this call had returned before the other one began."""
        return self.end < other.begin


_LINE = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(?: resumed>|\()(.*)$")
_UNFINISHED = "<unfinished ...>"


def calls(trace: Path) -> list[Call]:
    """Read what ``strace -f -o`` wrote, in the order in which the calls ended; interrupted lines are joined."""
    found: list[Call] = []
    under_way: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(trace.read_text("utf-8", "backslashreplace").splitlines()):
        match = _LINE.match(line)
        if match is None:
            continue
        thread, name, rest = match.groups()
        head, begin = under_way.pop(thread, ("", number)) if " resumed>" in line else ("", number)
        if rest.endswith(_UNFINISHED):
            under_way[thread] = (head + rest.removesuffix(_UNFINISHED), begin)
        else:
            found.append(Call(name, head + rest, begin, number))
    return found


def quoted(text: str) -> bytes:
    """The bytes of the first string in a call's arguments."""
    match = re.search(r'"((?:[^"\\]|\\.)*)"', text)
    assert match is not None, text
    return match[1].encode("latin-1").decode("unicode_escape").encode("latin-1")


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """A folder on a file system of its own that is as large as this (``600k``)."""
    if os.geteuid() != 0:
        cannot("only root can mount a small tmpfs")
    folder = Path(tempfile.mkdtemp(prefix="small-disk-"))
    options = f"size={size},mode=0755"
    command: Sequence[str] = ["mount", "-t", "tmpfs", "-o", options, "small-disk", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        if done.returncode:
            cannot(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
        yield folder
        # A process that was killed has its files until the last of its threads has ended.
        eventually("nobody uses the disk", lambda: not subprocess.run(["umount", str(folder)], check=False).returncode)
    finally:
        if os.path.ismount(folder):
            subprocess.run(["umount", "--lazy", str(folder)], check=False)
        folder.rmdir()


def fill(path: Path, leave_bytes: int = 0) -> None:
    """Write into a file until only so much is free on its disk."""
    with path.open("wb", buffering=0) as filler:
        while True:
            status = os.statvfs(path.parent)
            room = status.f_bavail * status.f_frsize - leave_bytes
            if room <= 0:
                return
            try:
                filler.write(b"x" * min(room, 65536))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                return


def in_spool(suffix: str) -> Callable[[Path, Picture], Path]:
    """How a file in the spool is found, as `day_of` and `log_of_index` find what else a finish writes to."""
    return lambda data, picture: data / "spool" / f"{picture.key}{suffix}"


def day_of(data: Path, picture: Picture) -> Path:
    """The folder of today."""
    return data / "media" / str(picture.imei) / f"{datetime.now(UTC):%Y/%m/%d}"


def log_of_index(data: Path, picture: Picture) -> Path:
    """SQLite's log, which all pictures have in common."""
    return data / "index.sqlite3-wal"
