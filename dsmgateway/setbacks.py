"""Which of its offers a device could not deliver the last time, so that it does not stand in the way of the others.

Knows no sessions; bounded, and lost at a restart, since all that it decides is an order.
"""

from __future__ import annotations

from collections import OrderedDict

from dsmgateway.commands import Offer

#: Devices remembered; the one that failed longest ago is forgotten first.
_MOST_DEVICES = 10_000


class Setbacks:
    """The last offer that brought nothing, by IMEI."""

    def __init__(self) -> None:
        self._offers: OrderedDict[str, Offer] = OrderedDict()

    def of(self, imei: str) -> Offer:
        """Return what is to be asked for last."""
        return self._offers.get(imei, Offer(0))

    def note(self, imei: str, offer: Offer) -> None:
        """Remember how a connection of this device ended: with what it was stuck on, or nothing."""
        self._offers.pop(imei, None)
        if offer:
            self._offers[imei] = offer
            if len(self._offers) > _MOST_DEVICES:
                self._offers.popitem(last=False)
