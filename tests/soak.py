"""How long the tests that hunt go on: a short form in every run, a long one where DSMGATEWAY_SOAK is set.

``DSMGATEWAY_SOAK=1`` is the long form (`make soak`); 0.2 or 5 are a fifth of it and five times as much.
"""

from __future__ import annotations

import os

#: How much of the long form to run; 0: the short one.
SOAK = float(os.environ.get("DSMGATEWAY_SOAK") or 0)


def times(short: int, long: int) -> int:
    """How often to try: ``short`` in every run, ``long`` where the tests hunt."""
    return max(round(long * SOAK), 1) if SOAK else short
