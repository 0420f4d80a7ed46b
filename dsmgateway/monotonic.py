"""The reactor's clock: one that nobody sets.

Twisted has its timers come at a time of day. When that is set back by an hour, none comes for an hour, and no time
limit holds; when it is set forward, as by a machine that hears of the time only after its start, every connection has
been silent for too long at once.
"""

from __future__ import annotations

import time
from typing import Any


def use_monotonic_clock(reactor: Any) -> None:
    """Have ``reactor`` measure time by a clock that never goes back; one whose timers run already stays as it is."""
    if not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic
