"""Keeps what is said again and again from filling the log: a line a minute for each device, address or whatever else.

Pure: the time (seconds that never go back) is passed in. Bounded, however many devices and addresses there are: also
all lines together are.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from dsmgateway.crowd import Bucket

#: Seconds between two lines about the same device or address.
SAY_EVERY_S = 60.0
#: Devices and addresses that are remembered; the one that was heard of least recently is forgotten first.
MAX_KEYS = 10_000
#: Lines a second about all of them together, for a flood that comes from many addresses; it may burst.
LINES_PER_S = 2.0


@dataclass(slots=True)
class _Said:
    #: When it can be said again as if it had never been said; each line puts that off by `SAY_EVERY_S`.
    due: float
    suppressed: int = 0


class Quiet:
    """Remembers what was said of whom, and how often it was not said since."""

    def __init__(self, now: float, at_once: int = 1) -> None:
        """``at_once`` lines about the same may come without a minute between them."""
        self._patience_s = (at_once - 1) * SAY_EVERY_S
        self._said: OrderedDict[str, _Said] = OrderedDict()
        self._lines = Bucket(LINES_PER_S, now)

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._said)

    def ask(self, now: float, *keys: str) -> int | None:
        """Return None when nothing shall be said of these now, else how often that was so since the last time."""
        said = [self._of(key, now) for key in keys if key]
        if any(now < one.due - self._patience_s for one in said) or not self._lines.has(now):
            for one in said:
                one.suppressed += 1
            return None
        self._lines.take()
        suppressed = max((one.suppressed for one in said), default=0)
        for one in said:
            one.due, one.suppressed = max(one.due, now) + SAY_EVERY_S, 0
        return suppressed

    def _of(self, key: str, now: float) -> _Said:
        said = self._said.get(key)
        if said is None:
            said = self._said[key] = _Said(now)
            if len(self._said) > MAX_KEYS:
                self._said.popitem(last=False)
        self._said.move_to_end(key)
        return said
