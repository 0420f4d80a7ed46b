"""The reactor's clock: seconds that never go back, which everything here that asks it for the time takes for granted.

Twisted's own goes by the time of day. When that is set back by an hour, as by the first answer of a time server, no
timer is called and no time limit holds for an hour; when it is set forward, all of them have passed at once.
"""

from __future__ import annotations

import time
from typing import Any


def keep_steady(reactor: Any) -> None:
    """Have ``reactor`` count the seconds since the system started; to be called before anybody asks it for the time."""
    reactor.seconds = time.monotonic
