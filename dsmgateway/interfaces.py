"""The seams that have, or will have, more than one implementation.

Only signatures and promises; no implementation is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface

from dsmgateway.store import Differs, Expired, Offered, Recovery, Stored, Upload


class IOtherProcesses(Interface):
    """Other processes that share the ports, each for devices of its own, as the reactor thread sees them."""

    def own(imei: str) -> bool:
        """Say whether this device belongs to one of them."""

    def hand_over(imei: str, connection: Any, peer: str, source: str, said: bytes, left: Callable[[], object]) -> None:
        """Give a connection, on which nothing was answered yet, to the process that this device belongs to.

        ``connection`` is its transport, which its protocol must not touch any more and hears nothing from; ``said`` is
        all that came on it, from its INIT on. ``left`` is called once the connection is here no longer.
        """

    def stop() -> Deferred[Any]:
        """End what waits to be handed over; fires when nothing of what was handed over goes through this process."""


class IFileWorker(Interface):
    """The file store as the reactor thread sees it: every call returns a Deferred, but for `append`.

    An open fails with `dsmgateway.store.NoRoom` or `VolumeFailing` when no new file is taken, whichever it is.

    Calls for one device keep order, and so do their answers.

    A Deferred fails, or ``done`` is told, with `dsmgateway.errors.StoreError` when the disk did; with anything else it
    is a bug. After a failure every later call for the same upload fails alike, and the upload is closed.
    """

    backlog_bytes: int = Attribute("Bytes that were appended and are not written yet.")

    def start() -> Recovery:
        """Open the store, which may block, and begin to work; raises `StoreError`."""

    def open(offered: Offered, peer: str, compare: bool = True) -> Deferred[Upload]:
        """Begin or take up the reception of a file; the upload says at which offset.

        Cancelled, it is not done, or what it has opened is parked.
        """

    def append(upload: Upload, offset_bytes: int, data: bytes, done: Callable[[Failure | None], object]) -> None:
        """Write bytes at an offset; ``done`` is told when they are written, which is not yet durable, or why not."""

    def finish(upload: Upload, about: Mapping[str, object]) -> Deferred[Stored | Differs]:
        """Store the whole file; fires when it is durable. ``about`` goes into its sidecar."""

    def park(upload: Upload) -> Deferred[None]:
        """Keep what has come, durably, until the file is offered again."""

    def expire() -> Deferred[tuple[Expired, ...]]:
        """Delete unfinished files that are too old, and say which."""

    def probe() -> Deferred[bool]:
        """If the disk is failing, try whether it can be written again; fires with whether it is good."""

    def stop() -> Deferred[None]:
        """Finish everything that was asked for, then close the store."""
