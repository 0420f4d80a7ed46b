"""The seams that have, or will have, more than one implementation.

Only signatures and promises; no implementation is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface

from dsmgateway.store import Differs, Expired, Offered, Recovery, Stored, Upload


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
        """Begin or take up the reception of a file; the upload says at which offset."""

    def append(upload: Upload, offset_bytes: int, data: bytes, done: Callable[[Failure | None], object]) -> None:
        """Write bytes at an offset; ``done`` is told when they are written, which is not yet durable, or why not."""

    def finish(upload: Upload, about: Mapping[str, object]) -> Deferred[Stored | Differs]:
        """Store the whole file; fires when it is durable. ``about`` goes into its sidecar."""

    def park(upload: Upload) -> Deferred[None]:
        """Keep what has come, durably, until the file is offered again."""

    def expire() -> Deferred[tuple[Expired, ...]]:
        """Delete unfinished files that are too old, and say which."""

    def probe() -> Deferred[bool]:
        """If the disk is failing, try whether it can be written again; fires with whether new files are taken."""

    def stop() -> Deferred[None]:
        """Finish everything that was asked for, then close the store."""
