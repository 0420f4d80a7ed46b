"""One worker process as the supervisor has it: started, heard, told, and found to have ended.

Its socket, its two pipes and its end are descriptors, so that the reactor waits for all of them alike; before the
reactor runs, whoever starts it waits for them (`readers`). Knows nothing of what the process does.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure
from zope.interface import implementer

from dsmgateway.workers.boot import FAILED, READY, Boot
from dsmgateway.workers.pieces import ENTRY_END, Pieces

#: Bytes read of a pipe at a time.
_READ_BYTES = 64 * 1024
#: How a process ends that was asked to.
GOOD_END = "exit code 0"
#: A line that is printed is cut there.
_LINE_BYTES = 4096


@implementer(IReadDescriptor)
class Reader:
    """A descriptor and what to do when there is something to read; ``read`` says whether there may be more later."""

    def __init__(self, descriptor: int, read: Callable[[], bool]) -> None:
        self._descriptor, self._read = descriptor, read

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._descriptor

    def logPrefix(self) -> str:
        """How the reactor calls it."""
        return "worker"

    def doRead(self) -> Failure | None:
        """Read."""
        return None if self._read() else Failure(CONNECTION_DONE)

    def connectionLost(self, reason: Failure) -> None:
        """There is no more; the descriptor is closed by whoever opened it."""


@dataclass
class Hearing:
    """What the supervisor wants to hear of a process. ``ended`` comes last; it has to call `WorkerProcess.finish`."""

    logged: Callable[[str], object]
    printed: Callable[[str], object]
    ready: Callable[[], object]
    ended: Callable[[], object]


class _Pipe:
    """A pipe that is read in pieces."""

    def __init__(self, pieces: Pieces, told: Callable[[str], object], opened: ExitStack) -> None:
        self._pieces, self._told = pieces, told
        self.descriptor, self.writing = os.pipe2(os.O_CLOEXEC)
        opened.callback(os.close, self.descriptor)
        os.set_blocking(self.descriptor, False)

    def read(self) -> bool:
        """Read some; False at the end."""
        try:
            data = os.read(self.descriptor, _READ_BYTES)
        except BlockingIOError:
            return True
        self._tell(data)
        return bool(data)

    def drain(self) -> str:
        """Read all that there is, and return what has no end."""
        with suppress(BlockingIOError):
            while data := os.read(self.descriptor, _READ_BYTES):
                self._tell(data)
        return _text(self._pieces.take_rest())

    def _tell(self, data: bytes) -> None:
        for piece in self._pieces.feed(data):
            self._told(_text(piece))


class WorkerProcess:
    """A process that runs; made anew for each. Raises `OSError` when none can be started."""

    def __init__(self, boot: Callable[[int], Boot], number: int, hearing: Hearing) -> None:
        """``boot`` is what it is told, given the descriptor that its log goes to."""
        self.number, self._hearing = number, hearing
        self._why_failed = ""
        self._words = Pieces(b"\n")
        with ExitStack() as opened:
            self._control, inherited = map(opened.enter_context, socket.socketpair())
            self._log = _Pipe(Pieces(ENTRY_END), hearing.logged, opened)
            self._printed = _Pipe(Pieces(b"\n", _LINE_BYTES), hearing.printed, opened)
            try:
                self._process = self._start(boot(self._log.writing), inherited)
            finally:
                os.close(self._log.writing)
                os.close(self._printed.writing)
                inherited.close()
            end = os.pidfd_open(self.pid)
            opened.callback(os.close, end)
            self._opened = opened.pop_all()
        self._control.setblocking(False)
        #: What to wait for.
        self.readers = [
            Reader(self._control.fileno(), self._hear),
            Reader(self._log.descriptor, self._log.read),
            Reader(self._printed.descriptor, self._printed.read),
            Reader(end, self._has_ended),
        ]

    def _start(self, told: Boot, control: socket.socket) -> subprocess.Popen[bytes]:
        options = [f"-W{option}" for option in sys.warnoptions]
        # -P: the working folder may be one that others write to.
        command = [sys.executable, "-P", *options, "-m", "dsmgateway.workers.child", str(self.number)]
        with told.in_memory() as memory:
            return subprocess.Popen(
                [*command, str(memory.fileno())],
                stdin=control.fileno(),
                stdout=self._printed.writing,
                stderr=self._printed.writing,
                pass_fds=(*told.descriptors, memory.fileno()),
                start_new_session=True,  # a terminal's signals are for the supervisor
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def tell(self, word: str) -> None:
        """Say a word to it; one that has gone does not hear it."""
        with suppress(OSError):
            self._control.sendall(f"{word}\n".encode())

    def abort(self) -> None:
        """Have it print where it stands, and end."""
        self._process.send_signal(signal.SIGABRT)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def finish(self) -> str:
        """Hear the last words of a process that has ended, and return how it did. Nobody may wait for it any more."""
        code = self._process.wait()
        self._hear()
        for pipe in (self._log, self._printed):
            rest = pipe.drain()
            if rest:  # half an entry of the log is none
                self._hearing.printed(rest)
        self._opened.close()
        return self._why_failed or _how(code)

    def _has_ended(self) -> bool:
        self._hearing.ended()
        return True

    def _hear(self) -> bool:
        try:
            data = self._control.recv(_READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        for line in self._words.feed(data):
            word, _, text = _text(line).partition(" ")
            if word == READY:
                self._hearing.ready()
            elif word == FAILED:
                self._why_failed = text
        return bool(data)


def _text(said: bytes) -> str:
    return said.decode("utf-8", "backslashreplace")


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    return f"killed by {signal.Signals(-code).name}" if -code in set(signal.Signals) else f"killed by signal {-code}"
