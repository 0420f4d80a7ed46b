"""What the gateway asks of Python's garbage collector: not to look at all that was loaded, again and again."""

from __future__ import annotations

import gc


def spare_the_collector() -> None:
    """Take all that is there by now out of the collector's rounds: it stays, and each look at it is a pause for all."""
    gc.collect()
    gc.freeze()
