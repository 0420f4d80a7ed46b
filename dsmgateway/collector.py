"""What the gateway asks of Python's garbage collector: not to look at everything again and again.

Nearly all that the gateway makes is freed when the last one lets go of it; the collector is for the rest, and each of
its rounds is a pause for all cameras.
"""

from __future__ import annotations

import gc

#: Objects made and not freed after which the youngest are looked at, and how many such rounds there are to one of the
#: older ones. By default it is 700: a few connections.
_ROUNDS = (20_000, 20, 20)


def spare_the_collector() -> None:
    """Take all that is there by now out of the collector's rounds, since it stays, and have fewer of them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_ROUNDS)
