"""What the measured servers have in common: a channel by which the runner has them measure themselves.

Lines of JSON on stdin ask, lines on stdout answer. `begin` notes the process's own CPU time and forgets its peak of
memory, `end` says what was used since; with `tick` a timer of 5 ms notes how late the reactor calls it, and one of 1 s
how regularly. Without it nothing of this runs between the two.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import cpu_s, memory_bytes, percentiles
from twisted.internet import stdio
from twisted.internet.task import LoopingCall
from twisted.protocols.basic import LineReceiver

#: Seconds between two ticks, and between two sweeps.
TICK_S, SWEEP_S = 0.005, 1.0
_FORGET_THE_PEAK = "5"


class Ticks:
    """How late the reactor is: delays of a timer of 5 ms, and the greatest interval between sweeps of 1 s."""

    def __init__(self, reactor: Any, seconds: Callable[[], float] = time.monotonic) -> None:
        self._reactor, self._seconds = reactor, seconds
        self._due: float | None = None
        self._call: Any = None
        self._delays: list[float] = []
        self._sweeps: list[float] = []

    def start(self) -> None:
        """Begin to tick."""
        self.stop()
        self._delays.clear()
        self._sweeps.clear()
        self._next()

    def stop(self) -> None:
        """Tick no more."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def swept(self) -> None:
        """Take note of a sweep."""
        self._sweeps.append(self._seconds())

    def report(self) -> dict[str, Any]:
        """Return what was seen since `start`; seconds."""
        intervals = [later - earlier for earlier, later in zip(self._sweeps, self._sweeps[1:], strict=False)]
        return {"delay_s": percentiles(self._delays), "sweep_interval_s": percentiles(intervals)}

    def _next(self) -> None:
        self._due = self._seconds() + TICK_S
        self._call = self._reactor.callLater(TICK_S, self._tick)

    def _tick(self) -> None:
        assert self._due is not None
        self._delays.append(max(0.0, self._seconds() - self._due))
        self._next()


class Control(LineReceiver):
    """The runner's end of the channel, as the server sees it."""

    delimiter = b"\n"
    transport: Any

    def __init__(self, reactor: Any, about: Callable[[], dict[str, object]], stop: Callable[[], object]) -> None:
        """``about`` is said once, when the server is ready; ``stop`` ends it."""
        self._reactor, self._about, self._stop = reactor, about, stop
        self.ticks = Ticks(reactor)
        self._ticking = False
        self._began = (0.0, (0.0, 0.0))

    def connectionMade(self) -> None:
        self._say(self._about())

    def lineReceived(self, line: bytes) -> None:
        asked = json.loads(line)
        match asked["do"]:
            case "begin":
                self._begin(bool(asked.get("tick")))
            case "end":
                self._end()
            case "stop":
                self._stop()
            case other:
                raise ValueError(f"nobody knows how to {other}")

    def connectionLost(self, reason: Any = None) -> None:
        """The runner has gone: there is nobody left to measure for."""
        self._stop()

    def _begin(self, tick: bool) -> None:
        self._ticking = tick
        if tick:
            self.ticks.start()
        Path("/proc/self/clear_refs").write_text(_FORGET_THE_PEAK)
        self._say(memory_bytes())
        self._began = time.monotonic(), cpu_s()

    def _end(self) -> None:
        user_s, system_s = cpu_s()
        wall_s = time.monotonic() - self._began[0]
        user_s, system_s = user_s - self._began[1][0], system_s - self._began[1][1]
        used: dict[str, Any] = {"wall_s": wall_s, "user_s": user_s, "system_s": system_s, "cpu_s": user_s + system_s}
        if self._ticking:
            self.ticks.stop()
            used |= self.ticks.report()
        self._say(used | memory_bytes())

    def _say(self, what: dict[str, Any]) -> None:
        self.transport.write(json.dumps(what).encode() + b"\n")


def serve_control(
    reactor: Any, about: Callable[[], dict[str, object]], stop: Callable[[], object], sweeps: bool
) -> Control:
    """Open the channel; with ``sweeps`` it sweeps itself, as the server has nothing that does."""
    control = Control(reactor, lambda: {"pid": os.getpid(), **about()}, stop)
    stdio.StandardIO(control, reactor=reactor)
    if sweeps:
        LoopingCall(control.ticks.swept).start(SWEEP_S, now=False)
    return control
