"""How often a thing is said that a whole fleet would have said of itself at the same time: seldom, with a count.

Knows no clock and no log.
"""

from __future__ import annotations


class Seldom:
    """Counts something, and says at most once in ``interval_s`` seconds how often it happened."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._counted = 0
        self._said_s: float | None = None

    def count(self) -> None:
        """It happened once more."""
        self._counted += 1

    def due(self, now_s: float) -> int:
        """Return how often it happened since it was last said, if it is to be said now, else 0; then it is said."""
        if not self._counted or (self._said_s is not None and now_s - self._said_s < self._interval_s):
            return 0
        counted, self._counted, self._said_s = self._counted, 0, now_s
        return counted
