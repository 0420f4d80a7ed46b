"""The catalogue of log events: every line the gateway writes of its own is one of these, with its fields.

`docs/logs.md` is made from this catalogue. Knows nothing of how lines look; see `dsmgateway.logs`.
"""

from __future__ import annotations

import enum
from typing import Any


class Event(enum.Enum):
    """Name, level and meaning of a log event."""

    GATEWAY_STARTED = ("gateway.started", "info", "The store is ready and all ports are open.")
    GATEWAY_STOPPED = ("gateway.stopped", "info", "Every transfer under way is parked; the store is closed.")
    PORT_LISTENING = ("port.listening", "info", "Cameras can connect to this endpoint.")
    STORE_RECOVERED = ("store.recovered", "info", "What was found in the data folder at start.")
    PART_EXPIRED = ("part.expired", "warn", "An unfinished file that no device went on with was deleted for its age.")
    PART_REFUSED = ("part.refused", "warn", "An unfinished file could not be trusted and was put aside.")
    CONNECTED = ("device.connected", "info", "A device said who it is and what it offers.")
    DISCONNECTED = ("device.disconnected", "info", "A connection ended; the reason and what it brought.")
    TAKEN_OVER = ("device.taken_over", "info", "The device opened a newer connection; this older one is closed.")
    UNSUPPORTED_OFFER = ("offer.unsupported", "warn", "The device offers files in a way this gateway does not take.")
    NO_FILE = ("offer.none", "info", "The device has no file to send; the session is closed.")
    METADATA_MISSING = ("metadata.missing", "warn", "The device did not answer METADATA_REQUEST; going on without.")
    FILE_OPENED = ("file.opened", "info", "A file is being received from this offset on.")
    FILE_REFUSED = ("file.refused", "warn", "A file cannot be taken as START describes it; it is not acknowledged.")
    FILE_STORED = ("file.stored", "info", "A file is stored whole and durable; the device is told so next.")
    FILE_KNOWN = ("file.known", "info", "The same file was stored before; acknowledged without a second copy.")
    FILE_PARKED = ("file.parked", "info", "An unfinished file is kept; it goes on at this offset when offered again.")
    COMPARISON_FAILED = ("file.differs", "info", "A file that seemed to be stored already differs; taken whole.")
    STEP_FOUND = ("data.step_found", "info", "A cut frame was passed over; the next good one followed in the buffer.")
    DATA_REFUSED = ("data.refused", "warn", "File data was damaged or out of place; asked for again from this offset.")
    DATA_SILENT = ("data.silent", "warn", "No file data or SYNC came in time; asked for again from this offset.")
    DATA_BEYOND = ("data.beyond", "warn", "File data or an answer came after the file was whole; ignored.")
    SYNC_HOLE = ("sync.hole", "warn", "The device would go on beyond what is held; asked for again.")
    DEVICE_STATUS = ("device.status", "warn", "The device sent STATUS with this code.")
    DEVICE_BEGAN_AGAIN = ("device.began_again", "warn", "INIT in mid-conversation: the device began again.")
    SESSION_SILENT = ("session.silent", "warn", "The device did not send what was expected in time; closed.")
    SESSION_GIVEN_UP = ("session.given_up", "warn", "Too many attempts to get the data right; closed.")
    PEER_ERROR = ("peer.error", "warn", "The device broke the protocol; closed.")
    STORE_FAILED = ("store.failed", "error", "The disk failed: nothing is acknowledged, the camera keeps its copy.")
    STORE_SLOW = ("store.slow", "error", "The disk did not answer in time: nothing is acknowledged, closed.")
    TRACE_FAILED = ("trace.failed", "warn", "The bytes of a connection cannot be written to the trace folder.")
    BUG = ("gateway.bug", "critical", "An error of our own; this connection is aborted, its file kept.")

    def __init__(self, label: str, level: str, meaning: str) -> None:
        self.label = label
        self.level = level
        self.meaning = meaning


def log_event(log: Any, event: Event, **fields: object) -> None:
    """Write ``event`` with its fields (None is left out) to a txaio logger."""
    known = {name: value for name, value in fields.items() if value is not None}
    getattr(log, event.level)("{event}: {fields}", event=event.label, fields=known)
