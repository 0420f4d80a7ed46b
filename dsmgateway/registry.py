"""Which connection speaks for which device: the newest one.

After a stall a tracker opens a new connection while the old one still delivers; refusing the new one, or keeping both,
loses the file. Knows nothing of what a connection is.
"""

from __future__ import annotations

from typing import Generic, TypeVar

Owner = TypeVar("Owner")


class Registry(Generic[Owner]):
    """Devices by IMEI, each with the connection that owns it now."""

    def __init__(self) -> None:
        self._owners: dict[str, Owner] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def owner(self, imei: str) -> Owner | None:
        """Return the device's connection, if it has one."""
        return self._owners.get(imei)

    def claim(self, imei: str, owner: Owner) -> Owner | None:
        """Make ``owner`` the device's connection and return the one it takes over from, if any."""
        older = self._owners.get(imei)
        self._owners[imei] = owner
        return older

    def release(self, imei: str, owner: Owner) -> None:
        """Forget ``owner``, unless the device has a newer connection already."""
        if self._owners.get(imei) is owner:
            del self._owners[imei]
