"""How long to wait before a process that has ended is started again. Pure: times are passed in, in seconds."""

from __future__ import annotations

#: The longest pause.
MOST_S = 30.0
#: One that ran for so long did not end because of how it was started: the next one is started at once.
GOOD_RUN_S = 60.0


class Backoff:
    """The pauses of one process: none after the first end, then 1 s, 2 s, 4 s and so on up to `MOST_S`."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def pause_s(self, ran_s: float) -> float:
        """Return how long to wait, now that it has ended after ``ran_s``."""
        if ran_s >= GOOD_RUN_S:
            self._next_s = 0.0
        pause_s, self._next_s = self._next_s, min(max(1.0, 2 * self._next_s), MOST_S)
        return pause_s
