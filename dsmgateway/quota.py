"""How much a device may deliver in a day (UTC): bytes of file data, and files.

Pure: the time (seconds since 1970) is passed in. Counted only for devices that delivered something, and for so many of
them; it begins anew at midnight, and when the gateway is started.
"""

from __future__ import annotations

from collections import OrderedDict

from dsmgateway.crowd import Hit

#: Devices that are counted; the one that delivered least recently is forgotten first.
MAX_DEVICES = 100_000
_DAY_S = 86400


class Quota:
    """Counts what devices delivered today."""

    def __init__(self, most_bytes: int, most_files: int) -> None:
        self._most_bytes, self._most_files = most_bytes, most_files
        self._day = 0
        #: Bytes and files by device.
        self._delivered: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def __len__(self) -> int:
        """How many devices are counted."""
        return len(self._delivered)

    def delivered(self, imei: str, now_s: float) -> tuple[int, int]:
        """Return the bytes and the files that a device delivered today."""
        self._turn_page(now_s)
        return self._delivered.get(imei, (0, 0))

    def count(self, imei: str, now_s: float, size_bytes: int = 0, files: int = 0) -> None:
        """Count what a device delivered."""
        counted_bytes, counted_files = self.delivered(imei, now_s)
        self._delivered[imei] = counted_bytes + size_bytes, counted_files + files
        self._delivered.move_to_end(imei)
        if len(self._delivered) > MAX_DEVICES:
            self._delivered.popitem(last=False)

    def refusal(self, imei: str, now_s: float, size_bytes: int = 1) -> Hit | None:
        """Return the limit that forbids to take so much more in one more file, if any."""
        counted_bytes, counted_files = self.delivered(imei, now_s)
        if counted_bytes + size_bytes > self._most_bytes:
            return Hit("device-bytes-per-day", self._most_bytes)
        if counted_files >= self._most_files:
            return Hit("device-files-per-day", self._most_files)
        return None

    def _turn_page(self, now_s: float) -> None:
        day = int(now_s // _DAY_S)
        if day != self._day:
            self._day = day
            self._delivered.clear()
