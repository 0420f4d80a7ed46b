"""How long one connection may stay: in each state, with a file that comes too slowly, and in all.

Pure: the time (seconds that never go back) is passed in. Only what the gateway does renews a state's time, never what
the device sends, but for file data that fits; so a trickle of bytes or of useless commands buys nothing. File data is
held to a rate of its own. While the connection is paused, since our disk is at work, no rate is asked of the device.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from dsmgateway.states import State

#: States in which a file's data is due.
_DUE = frozenset({State.AWAIT_SYNC, State.RECEIVING})
#: States with a file under way.
_UNDER_WAY = _DUE | {State.OPENING, State.STORING}


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Seconds that each state may last; bytes a second that a file needs over ``rate_s``; age of a connection."""

    states_s: Mapping[State, float]
    min_rate: float
    rate_s: float
    max_age_s: float


class Overdue(enum.Enum):
    """What has lasted too long."""

    STATE = enum.auto()
    #: We do not read, since the disk lags behind.
    DISK = enum.auto()
    #: Less file data than the least rate.
    RATE = enum.auto()
    AGE = enum.auto()


class Timing:
    """The times of one connection."""

    __slots__ = ("_born", "_counted_bytes", "_counted_s", "_limits", "_ticked", "heard", "since")

    def __init__(self, limits: TimeLimits, now: float) -> None:
        self._limits = limits
        #: Since when the state's time counts, and when the device was heard of last, or could not be.
        self.since = self.heard = self._born = self._ticked = now
        self._counted_s = 0.0
        self._counted_bytes = 0

    def limit_s(self, state: State, lagging: bool) -> float:
        """Return how long this state may last, or a disk that lags behind in it."""
        return self._limits.states_s[State.STORING if lagging else state]

    def not_counted(self, now: float) -> None:
        """What has passed since the last look is not held against the device's rate: it was, or is now, paused."""
        self._ticked = now

    def excuse(self, stall_s: float, now: float) -> None:
        """Count none of the seconds in which the gateway itself has stood still until now."""
        self.since, self.heard = min(self.since + stall_s, now), min(self.heard + stall_s, now)
        self._ticked = now

    def took(self, size_bytes: int) -> None:
        """Count file data that fits."""
        self._counted_bytes += size_bytes

    def finished(self, now: float) -> None:
        """A file is whole: the state's time and the rate begin anew."""
        self.since = now
        self._begin_rate()

    def _begin_rate(self) -> None:
        self._counted_s, self._counted_bytes = 0.0, 0

    @property
    def rate(self) -> float:
        """Bytes of file data a second, since the rate was last looked at."""
        return self._counted_bytes / max(self._counted_s, 1.0)

    def age_s(self, now: float) -> float:
        """Return for how long the connection has been there."""
        return now - self._born

    def overdue(self, now: float, state: State, paused: bool, lagging: bool) -> Overdue | None:
        """Say what has lasted too long; to be called about once a second. Each state's time then begins anew."""
        too_slow = self._is_too_slow(now, state in _DUE and not paused)
        if now - self.since >= self.limit_s(state, lagging):
            self.since = now
            return Overdue.DISK if lagging else Overdue.STATE
        if too_slow:
            return Overdue.RATE
        return Overdue.AGE if self._is_too_old(now, state) else None

    def _is_too_slow(self, now: float, counts: bool) -> bool:
        if counts:
            self._counted_s += now - self._ticked
        self._ticked = now
        if not counts or self._counted_s < self._limits.rate_s:
            return False
        if self._counted_bytes < self._limits.min_rate * self._limits.rate_s:
            return True
        self._begin_rate()
        return False

    def _is_too_old(self, now: float, state: State) -> bool:
        """An old connection ends between two files; at twice the age also within one, unless it is being stored."""
        age_s = now - self._born
        if state in (State.ENDED, State.STORING) or age_s < self._limits.max_age_s:
            return False
        return state not in _UNDER_WAY or age_s >= 2 * self._limits.max_age_s
