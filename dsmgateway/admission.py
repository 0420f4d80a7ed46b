"""Which devices may come in: all, those of a list, or those that an operator has approved; never those he blocked.

Pure: what is known of the devices is given in from outside, and so is the time (seconds since 1970). An IMEI is no
secret: this keeps out what is not ours, it does not prove who somebody is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dsmgateway.imei import luhn_digit

OPEN, KNOWN, APPROVE = "open", "known", "approve"
#: Devices that are remembered between two looks of whoever writes them down; a flood of more is not worth it.
MAX_SIGHTINGS = 10_000


@dataclass(frozen=True, slots=True)
class Roll:
    """What an operator has decided: the IMEIs that are approved, and those that are blocked."""

    approved: frozenset[str] = frozenset()
    blocked: frozenset[str] = frozenset()


@dataclass(slots=True)
class Sighting:
    """How often a refused device came since the last look, when (seconds since 1970), and from where last."""

    first_s: float
    last_s: float
    address: str
    count: int = 1


class Admission:
    """Says who may come in; ``roll`` and ``known`` (names by IMEI) are replaced when they change."""

    def __init__(self, mode: str = OPEN, check_digit: bool = False) -> None:
        """``mode`` is one of open, known, approve; ``check_digit`` wants a right one of whom nobody named."""
        self.roll = Roll()
        self.known: Mapping[str, str] = {}
        self._mode = mode
        self._check_digit = check_digit
        self._sightings: dict[str, Sighting] = {}

    def refusal(self, imei: str, address: str, now_s: float) -> str:
        """Return why this device may not come in, empty when it may; one that could be approved is noted."""
        if imei in self.roll.blocked:
            self._see(imei, address, now_s)
            return "blocked"
        if self._is_named(imei):
            return ""
        if self._mode == KNOWN:
            return "not among the known devices"
        if self._check_digit and luhn_digit(imei[:-1]) != int(imei[-1]):
            return "the check digit of the IMEI is wrong"
        if self._mode == OPEN:
            return ""
        self._see(imei, address, now_s)
        return "not approved yet"

    def take_sightings(self) -> dict[str, Sighting]:
        """Return the devices that were noted since the last call, by IMEI."""
        taken, self._sightings = self._sightings, {}
        return taken

    def _is_named(self, imei: str) -> bool:
        if self._mode == APPROVE:
            return imei in self.roll.approved or imei in self.known
        return self._mode == KNOWN and imei in self.known

    def _see(self, imei: str, address: str, now_s: float) -> None:
        seen = self._sightings.get(imei)
        if seen is not None:
            seen.last_s, seen.address, seen.count = now_s, address, seen.count + 1
        elif len(self._sightings) < MAX_SIGHTINGS:
            self._sightings[imei] = Sighting(now_s, now_s, address)
