"""A worker process: ``python -m dsmgateway.workers.child NUMBER BOOT``, as the supervisor starts it, and nobody else.

Its standard input is the socket to the supervisor, with whose end it ends in good order, too: nobody else would start
it anew. Its log goes to a pipe, entry by entry; what else it prints goes to another.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
from contextlib import suppress
from types import FrameType
from typing import Any

import txaio
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.logger import globalLogBeginner
from twisted.python.failure import Failure
from zope.interface import implementer

from dsmgateway.collector import spare_the_collector
from dsmgateway.errors import GatewayError
from dsmgateway.escape import one_line
from dsmgateway.logs import LineObserver
from dsmgateway.monotonic import use_monotonic_clock
from dsmgateway.turns import bound_turns
from dsmgateway.workers.boot import FAILED, READY, RELOAD, STOP, Boot, read_boot
from dsmgateway.workers.pieces import ENTRY_END, Pieces
from dsmgateway.workers.service import WorkerService

txaio.use_twisted()


class EntryStream:
    """The pipe that entries of the log go to, each whole and with its end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, text: str) -> None:
        """Write an entry; where nobody reads it any more, the supervisor has been killed, and this process ends."""
        left = memoryview(text.encode() + ENTRY_END)
        with suppress(BrokenPipeError):
            while left:
                left = left[os.write(self._descriptor, left) :]

    def flush(self) -> None:
        """Nothing is held back."""


@implementer(IReadDescriptor)
class Control:
    """Hears what the supervisor says, and says what it has to know."""

    def __init__(self, connection: socket.socket, reactor: Any) -> None:
        self._connection, self._reactor = connection, reactor
        self._words = Pieces(b"\n")
        self.service: WorkerService | None = None
        self._stopping = False

    def say(self, word: str, text: str = "") -> None:
        """Say a word, and a text with it; a supervisor that has gone does not hear it."""
        with suppress(OSError):
            self._connection.sendall(f"{word} {one_line(text)}\n".encode("utf-8", "backslashreplace"))

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._connection.fileno()

    def logPrefix(self) -> str:
        """How the reactor calls it."""
        return "control"

    def doRead(self) -> Failure | None:
        """Do as the supervisor says."""
        try:
            data = self._connection.recv(4096)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        for word in self._words.feed(data):
            said = word.decode()
            if said == RELOAD and self.service is not None:
                self.service.reload()
            elif said == STOP:
                self.stop()
        return None if data else Failure(CONNECTION_DONE)

    def connectionLost(self, reason: Failure) -> None:
        """The supervisor has gone."""
        self.stop()

    def stop(self) -> None:
        """End in good order."""
        if not self._stopping and self.service is not None:
            self._stopping = True
            self.service.stopService().addBoth(lambda _: self._reactor.stop())


def _log_to(boot: Boot) -> LineObserver:
    settings = boot.settings
    txaio.set_global_log_level(settings.log_level)
    observer = LineObserver(EntryStream(boot.log), settings.log_format, settings.log_level, boot.number)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    return observer


def _take_signals(control: Control, reactor: Any) -> None:
    """SIGTERM ends this process alone, and the supervisor starts another; all else is for the supervisor to hear."""

    def stop(number: int, frame: FrameType | None) -> None:
        reactor.callFromThread(control.stop)

    signal.signal(signal.SIGTERM, stop)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def run(connection: socket.socket, boot: Boot) -> int:
    """Live as a worker process until the end, and return its exit code."""
    from twisted.internet import reactor as installed  # not earlier: whoever only imports this module shall have none

    reactor: Any = installed
    use_monotonic_clock(reactor)
    observer = _log_to(boot)
    connection.setblocking(False)
    control = Control(connection, reactor)
    try:
        control.service = WorkerService(boot, reactor, lambda: control.say(READY))
        control.service.startService()
    except GatewayError as error:
        control.say(FAILED, str(error))
        return 1
    _take_signals(control, reactor)
    reactor.addReader(control)
    spare_the_collector()
    bound_turns(reactor)
    observer.gather(reactor)
    reactor.run(installSignalHandlers=False)
    return 0


def main() -> int:
    """Run as a program."""
    faulthandler.enable()
    try:
        connection = socket.socket(fileno=os.dup(0))
        connection.getsockname()
        boot = read_boot(int(sys.argv[2]))
    except (OSError, IndexError, ValueError):
        print("dsmgateway.workers.child: only the gateway itself can start this (setting workers)", file=sys.stderr)
        return 2
    with connection:
        return run(connection, boot)


if __name__ == "__main__":
    sys.exit(main())
