"""One file on its way in, as the session and the worker see it, whichever way it is received.

Either its bytes go into a part (`dsmgateway.store.part`), or they are only compared with a file that is stored already
(`dsmgateway.store.comparison`). Knows nothing of how a file is finished.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import ClassVar

from dsmgateway.errors import StoreError
from dsmgateway.store.values import Offered


class Ended(StoreError):
    """The upload is over as it should be: finished, parked or given up on purpose; the disk did not fail."""


class OtherFile(StoreError):
    """What comes is not the file that the part was of: the part is discarded, and the same offer begins at 0.

    The disk did not fail, and the device did nothing wrong: its identifier names another file by now.
    """


class Upload(abc.ABC):
    """One file being received; every method may block and is called by one thread at a time.

    ``offset_bytes`` is where the device shall go on, a multiple of 1024 below the size. ``position_bytes`` is where
    the next byte is expected, ``dirty_bytes`` how many were written since the last checkpoint, ``unsynced_bytes`` how
    many a power cut may take: those since the last durable one, ``peer`` who sends it. After the first
    `StoreError` of the disk every further call raises the same one.
    """

    __slots__ = ("_refusal", "dirty_bytes", "offered", "offset_bytes", "peer", "position_bytes", "unsynced_bytes")
    #: True: nothing is kept, what comes is compared with the end of the stored file.
    comparing: ClassVar[bool]

    def __init__(self, offered: Offered, offset_bytes: int) -> None:
        self.offered = offered
        self.offset_bytes = offset_bytes
        self.position_bytes = offset_bytes
        self.dirty_bytes = 0
        self.unsynced_bytes = 0
        self.peer = ""
        self._refusal: StoreError | None = None

    @property
    def is_open(self) -> bool:
        """Say whether calls are still of use."""
        return self._refusal is None

    def write(self, offset_bytes: int, data: Sequence[bytes | memoryview]) -> None:
        """Take the bytes that belong at ``offset_bytes``: before the position is a rewind, beyond it is refused.

        Raises `StoreError`: the disk failed, or the bytes would leave a hole or go beyond the end of the file. Where
        packets are counted, a last packet comes in one call, since what it brings is the end. Raises `OtherFile`
        if the bytes are not those of the part that was taken up.
        """
        self.require_open()
        end_bytes = offset_bytes + sum(map(len, data))
        if not 0 <= offset_bytes <= self.position_bytes:
            raise StoreError(f"{self.offered}: bytes at {offset_bytes} would leave a hole at {self.position_bytes}")
        if end_bytes > self.offered.size_bytes:
            raise StoreError(f"{self.offered}: bytes up to {end_bytes}, but the size is {self.offered.size_bytes}")
        if self.offered.in_packets and self.offered.last_packet_bytes < self.position_bytes == offset_bytes < end_bytes:
            raise StoreError(f"{self.offered}: bytes at {offset_bytes}, where its last packet has ended")
        self._write(offset_bytes, data)
        self.position_bytes = end_bytes

    def require_whole(self) -> None:
        """Raise `StoreError` unless every byte is there: of a file counted in packets, something of its last one."""
        self.require_open()
        if not self.offered.is_whole(self.position_bytes):
            raise StoreError(f"{self.offered}: {self.position_bytes} of {self.offered.size_bytes} bytes are no file")

    def require_open(self) -> None:
        """Raise the `StoreError` that ended this upload, if one did."""
        if self._refusal is not None:
            raise self._refusal.with_traceback(None)

    def checkpoint(self, *, durable: bool = True) -> None:
        """Say in the journal what was written, if anything was since the last time; ``durable``: sync it first.

        What is not durable outlives the process, and may outlive a power cut.
        """
        self.require_open()

    def park(self) -> None:
        """Checkpoint and close; the same offer goes on from here. Nothing happens if the upload is `Ended` already."""
        if self.is_open:
            self.checkpoint()
            self.abandon(Ended(f"{self.offered} is parked"))
        elif not isinstance(self._refusal, Ended):
            self.require_open()

    def abandon(self, reason: StoreError | None = None) -> None:
        """Close without any promise; later calls raise ``reason``. What a checkpoint covers stays resumable."""
        if self.is_open:
            self._refusal = reason or Ended(f"{self.offered} is abandoned")
            self._close()

    @abc.abstractmethod
    def _write(self, offset_bytes: int, data: Sequence[bytes | memoryview]) -> None: ...

    @abc.abstractmethod
    def _close(self) -> None: ...
