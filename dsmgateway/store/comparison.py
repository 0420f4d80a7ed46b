"""A file that is offered again: its end is compared with the stored copy, and nothing is written.

Begun only where device, path, size and CRC-16 agree already. Knows nothing of parts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar

from dsmgateway.errors import StoreError
from dsmgateway.packets import PACKET_BYTES
from dsmgateway.store.files import Disk
from dsmgateway.store.upload import Ended, Upload
from dsmgateway.store.values import Differs, Offered, Record, Stored

#: A last packet of fewer bytes tells nothing: pictures all end in the same two. The one before is compared, too.
_TELLING_BYTES = 64


class Comparison(Upload):
    """An `Upload` that begins at the last packet that tells, and ends as a duplicate, or as `Differs`."""

    __slots__ = ("_descriptor", "_disk", "_equal", "_path", "_record")
    comparing: ClassVar[bool] = True

    def __init__(self, disk: Disk, path: str, offered: Offered, record: Record) -> None:
        """Open the stored file at ``path``; raises `StoreError`."""
        begin_bytes = offered.last_packet_bytes
        if begin_bytes > 0 and offered.size_bytes - begin_bytes < _TELLING_BYTES:
            begin_bytes -= PACKET_BYTES
        super().__init__(offered, begin_bytes)
        self._disk = disk
        self._path = path
        self._record = record
        self._equal = True
        self._descriptor = disk.open(path, os.O_RDONLY)

    def result(self) -> Stored | Differs:
        """Close and say how the comparison ended; raises `StoreError` if the last byte has not come."""
        self.require_whole()
        self.abandon(Ended(f"{self.offered} is compared"))
        if not self._equal:
            return Differs()
        return Stored(self._record.path, self._record.sha256, self._record.size_bytes, duplicate=True)

    def _write(self, offset_bytes: int, data: Sequence[bytes | memoryview]) -> None:
        for piece in data:
            blocks = self._disk.blocks(self._path, self._descriptor, offset_bytes, offset_bytes + len(piece))
            self._equal = self._equal and b"".join(blocks) == piece
            offset_bytes += len(piece)

    def _close(self) -> None:
        with suppress(StoreError):
            self._disk.close(self._path, self._descriptor)
