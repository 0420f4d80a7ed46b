"""The catalogue of log events: every line the gateway writes of its own is one of these, with its fields.

`docs/logs.md` is made from this catalogue. Knows nothing of how lines look; see `dsmgateway.logs`.
"""

from __future__ import annotations

import enum
from typing import Any

#: Fields of every event of a connection.
OF_CONNECTION = ("imei", "peer", "state")
#: Fields of every warning about a device: also what it could have sent instead.
OF_WARNING = (*OF_CONNECTION, "expected")


class Event(enum.Enum):
    """Name, level and meaning of a log event, and the fields it can have, each explained in `FIELDS`."""

    GATEWAY_STARTED = ("gateway.started", "info", "The store is ready and all ports are open.", ("version", "ports"))
    GATEWAY_NOT_STARTED = ("gateway.not_started", "critical", "The gateway cannot start and ends.", ("reason",))
    GATEWAY_STOP_LATE = (
        "gateway.stop_late",
        "warn",
        "The disk was too slow to park every transfer; each goes on from its last checkpoint.",
        ("after",),
    )
    GATEWAY_STOPPED = ("gateway.stopped", "info", "All connections are ended and the store is closed.", ())
    WORKER_STARTED = (
        "worker.started",
        "info",
        "A worker process listens (setting workers); also after one has ended and another takes its place.",
        ("worker", "pid"),
    )
    WORKER_ENDED = (
        "worker.ended",
        "error",
        "A worker process ended and is started again after a pause; its cameras lose their connections and come again. "
        "Without a pause: it did not end as it should when the gateway stopped.",
        ("worker", "reason", "after", "pause"),
    )
    WORKER_HANGS = (
        "worker.hangs",
        "error",
        "A worker process gave no sign of life for worker-timeout. It is asked where it stands, which worker.said then "
        "tells, and ended; another takes its place.",
        ("worker", "pid", "after"),
    )
    WORKER_STARTS_LATE = (
        "worker.starts_late",
        "warn",
        "A worker process that takes the place of another does not listen yet, after worker-timeout and each time "
        "that passes again. It may wait for the disk, or hang; until it listens its devices are not served.",
        ("worker", "pid", "after"),
    )
    WORKER_SAID = (
        "worker.said",
        "error",
        "A worker process printed this line beside the log, as when it crashes.",
        ("worker", "text"),
    )
    HANDOVER_FAILED = (
        "handover.failed",
        "warn",
        "A connection did not get to the worker process that its device belongs to, and is closed; said once a minute.",
        ("owner", "peer", "reason", "suppressed"),
    )
    GATEWAY_STALLED = (
        "gateway.stalled",
        "warn",
        "For so long the gateway did nothing at all: the machine stood still or has far too much to do. No session is "
        "ended for silence or slowness in that time.",
        ("after",),
    )
    LIMIT_LOW = (
        "limit.low",
        "warn",
        "The system allows so few open files that no more than so many cameras can send at a time.",
        ("limit", "cameras"),
    )
    LIMIT_CONNECTIONS = (
        "limit.connections",
        "warn",
        "A connection was refused at once: there are too many, or they come too fast; said once a minute an address.",
        ("address", "setting", "most", "suppressed"),
    )
    LIMIT_DEVICE_DAY = (
        "limit.device_day",
        "warn",
        "A device has delivered so much today, or would with the file it offers, that it is sent away until tomorrow "
        "(UTC); said once a minute.",
        ("imei", "address", "setting", "most", "suppressed"),
    )
    DEVICE_REFUSED = (
        "device.refused",
        "warn",
        "A device may not come in and was told CLOSE; it keeps its files. Said once a minute a device and an address,"
        " and in all no more than two a second.",
        ("imei", "address", "reason", "suppressed"),
    )
    DEVICE_FLAPPING = (
        "device.flapping",
        "warn",
        "Senders on different addresses take over from each other with the same IMEI; the last one now keeps it.",
        ("imei", "address", "other", "cooldown"),
    )
    DEVICES_KNOWN = ("devices.known", "info", "The list of known devices was read.", ("path", "devices"))
    DEVICES_DECIDED = (
        "devices.decided",
        "info",
        "Which devices are approved and blocked was read from the database.",
        ("approved", "blocked"),
    )
    DEVICES_UNREADABLE = (
        "devices.unreadable",
        "error",
        "The list of known devices or the database of devices cannot be used; what was read before holds.",
        ("reason",),
    )
    PORT_LISTENING = ("port.listening", "info", "Cameras can connect to this endpoint.", ("endpoint", "address"))
    TLS_CERTIFICATE = (
        "tls.certificate",
        "info",
        "TLS connections from now on are shown this certificate.",
        ("file", "names", "until"),
    )
    RELOAD_FAILED = (
        "reload.failed",
        "error",
        "What was to be read anew (SIGHUP) cannot be used; the gateway goes on with what it had.",
        ("reason",),
    )
    PROXY_FAILED = (
        "proxy.failed",
        "warn",
        "A connection from a balancer's network did not begin with a PROXY header; closed. Of one address five lines "
        "at once, then one a minute.",
        ("peer", "reason", "suppressed"),
    )
    STORE_RECOVERED = (
        "store.recovered",
        "info",
        "What was found in the data folder at start.",
        (
            "data",
            "parts",
            "part_bytes",
            "rolled_forward",
            "rolled_back",
            "set_aside",
            "expired",
            "index_rebuilt",
            "indexed",
            "unreadable",
        ),
    )
    PART_EXPIRED = (
        "part.expired",
        "warn",
        "An unfinished file that no device went on with was deleted for its age.",
        ("name", "size_bytes", "age_s"),
    )
    PART_DROPPED = (
        "part.dropped",
        "warn",
        "An unfinished file was deleted because there are too many: short ones above max-unfinished, which begin anew, "
        "or old ones put aside after a failed sync. Said once a minute for each reason.",
        ("name", "size_bytes", "reason", "suppressed"),
    )
    PART_REFUSED = ("part.refused", "warn", "A file that did not match its record was put aside.", ("path",))
    CONNECTED = (
        "device.connected",
        "info",
        "A device said who it is and what it offers.",
        (*OF_CONNECTION, "protocol_id", "offers", "unknown_settings"),
    )
    OFFERS = (
        "device.offers",
        "info",
        "A device that offers something more said so, after a file or because it began again.",
        (*OF_CONNECTION, "protocol_id", "offers", "unknown_settings"),
    )
    DISCONNECTED = (
        "device.disconnected",
        "info",
        "A connection ended; the reason and what it brought.",
        (*OF_CONNECTION, "reason", "received", "files_stored", "suppressed"),
    )
    TLS_FAILED = (
        "tls.failed",
        "info",
        "A connection ended before its TLS handshake was done; scanners do that, and devices with wrong certificates.",
        (*OF_CONNECTION, "reason", "suppressed"),
    )
    TLS_OTHER_DEVICE = (
        "tls.other_device",
        "warn",
        "The device's certificate does not name the IMEI that it says it has (setting tls-match-imei); closed.",
        (*OF_WARNING, "said", "names"),
    )
    TAKEN_OVER = (
        "device.taken_over",
        "info",
        "The device opened a newer connection; this older one is closed.",
        OF_CONNECTION,
    )
    OFFER_REFUSED = (
        "offer.refused",
        "warn",
        "The device offers a file of a family that is not accepted (setting families); it keeps the file.",
        (*OF_WARNING, "device_path", "family"),
    )
    NO_FILE = ("offer.none", "info", "The device said that a file is ready, but has no path for it.", OF_CONNECTION)
    METADATA_MISSING = (
        "metadata.missing",
        "warn",
        "The device did not answer METADATA_REQUEST; going on without.",
        OF_WARNING,
    )
    FILE_OPENED = (
        "file.opened",
        "info",
        "A file is being received from this offset on.",
        (*OF_CONNECTION, "device_path", "qualifier", "size", "packets", "offset", "comparing"),
    )
    FILE_REFUSED = (
        "file.refused",
        "warn",
        "A file cannot be taken as START describes it; it is not acknowledged.",
        (*OF_WARNING, "reason"),
    )
    FILE_STORED = (
        "file.stored",
        "info",
        "A file is stored whole and durable; a device that is still there is told so next.",
        (*OF_CONNECTION, "device_path", "size", "path", "resyncs"),
    )
    FILE_KNOWN = (
        "file.known",
        "info",
        "The same file was stored before; acknowledged without a second copy.",
        (*OF_CONNECTION, "device_path", "size", "path", "resyncs"),
    )
    FILE_CRC_DIFFERS = (
        "file.crc_differs",
        "warn",
        "A file was stored whose CRC-16 is not the one that START said; each frame's own was right, so it is kept.",
        (*OF_WARNING, "device_path", "path"),
    )
    FILE_PARKED = (
        "file.parked",
        "info",
        "An unfinished file is kept; it goes on at about here when offered again: one that is asked for by identifier "
        "a packet earlier, which is compared. What would begin at 0 is not kept.",
        (*OF_CONNECTION, "device_path", "held"),
    )
    COMPARISON_FAILED = (
        "file.differs",
        "info",
        "A file that seemed to be stored already differs; taken whole.",
        (*OF_CONNECTION, "device_path"),
    )
    ANOTHER_FILE = (
        "file.another",
        "info",
        "What was held is of another file than the device sends under the same name: dropped, this one is taken whole.",
        (*OF_CONNECTION, "device_path", "qualifier"),
    )
    IN_PACKETS = (
        "file.in_packets",
        "info",
        "The device counts packets from 1 where bytes were expected; its size and offsets are taken so.",
        (*OF_CONNECTION, "device_path", "packets"),
    )
    STEP_FOUND = (
        "data.step_found",
        "info",
        "A cut frame was passed over; the next good one followed in the buffer.",
        (*OF_CONNECTION, "skipped", "held"),
    )
    DATA_REFUSED = (
        "data.refused",
        "warn",
        "File data was damaged or out of place; asked for again from this offset.",
        (*OF_WARNING, "reason", "offset"),
    )
    DATA_SILENT = (
        "data.silent",
        "warn",
        "No file data or SYNC came in time; asked for again from this offset.",
        (*OF_WARNING, "offset"),
    )
    DATA_BEYOND = (
        "data.beyond",
        "warn",
        "File data or an answer came after the file was whole; ignored, and said once.",
        (*OF_WARNING, "command"),
    )
    SYNC_HOLE = (
        "sync.hole",
        "warn",
        "The device would go on beyond what is held; asked for again.",
        (*OF_WARNING, "asked", "answered", "held"),
    )
    DEVICE_STATUS = (
        "device.status",
        "warn",
        "The device sent STATUS with this code.",
        (*OF_WARNING, "code", "meaning", "suppressed"),
    )
    DEVICE_BEGAN_AGAIN = (
        "device.began_again",
        "warn",
        "INIT in mid-conversation: the device began again.",
        OF_WARNING,
    )
    SESSION_SILENT = (
        "session.silent",
        "warn",
        "The device did not send what was expected in time; closed.",
        (*OF_WARNING, "suppressed"),
    )
    SESSION_TOO_SLOW = (
        "session.too_slow",
        "warn",
        "File data came more slowly than min-rate; the file is kept, closed.",
        (*OF_WARNING, "rate"),
    )
    LIMIT_AGE = (
        "limit.age",
        "info",
        "The connection is older than max-session-age; closed, the device can come again.",
        (*OF_CONNECTION, "age_s"),
    )
    SESSION_GIVEN_UP = (
        "session.given_up",
        "warn",
        "Too many attempts to get the data right; closed.",
        (*OF_WARNING, "reason"),
    )
    PEER_ERROR = (
        "peer.error",
        "warn",
        "The device broke the protocol; closed.",
        (*OF_WARNING, "reason", "suppressed"),
    )
    STORE_FAILED = (
        "store.failed",
        "error",
        "The disk failed: nothing is acknowledged, the camera keeps its copy.",
        (*OF_CONNECTION, "reason"),
    )
    STORE_SLOW = (
        "store.slow",
        "error",
        "The disk did not answer in time: nothing is acknowledged, closed.",
        OF_CONNECTION,
    )
    STORE_FULL = (
        "store.full",
        "error",
        "A file was not taken for lack of room (setting min-free); said at most once a minute.",
        ("reason", "suppressed"),
    )
    STORE_FAILING = (
        "store.failing",
        "error",
        "The disk failed: no new file is taken before it can be written again, which is tried every probe-interval.",
        ("reason",),
    )
    STORE_HEALED = (
        "store.healed",
        "info",
        "The disk can be written again, and files are taken.",
        ("after", "refused"),
    )
    TRACE_FAILED = (
        "trace.failed",
        "warn",
        "The bytes of a connection cannot be written to the trace folder.",
        (*OF_WARNING, "reason", "suppressed"),
    )
    BUG = (
        "gateway.bug",
        "critical",
        "An error of our own; the connection concerned is aborted, its file kept.",
        OF_CONNECTION,
    )

    def __init__(self, label: str, level: str, meaning: str, fields: tuple[str, ...]) -> None:
        self.label = label
        self.level = level
        self.meaning = meaning
        self.fields = fields


#: What each field says. A field that has nothing to say is left out of the line.
FIELDS: dict[str, str] = {
    "address": "where the port listens, as the system says; or where a connection comes from",
    "after": "seconds that were waited, or that it lasted",
    "age_s": "seconds since it was last written, or since the connection was made",
    "approved": "devices that are approved",
    "answered": "the offset in SYNC, as the device counts it",
    "asked": "the offset that RESUME asked for, as the device counts it",
    "blocked": "devices that are blocked",
    "cameras": "cameras that can send at the same time",
    "code": "the code in the device's STATUS",
    "command": "what came",
    "comparing": "true when a stored file seems to be the same, and only its end is taken to compare it",
    "cooldown": "seconds for which no other address can take over",
    "data": "the data folder",
    "device_path": "the file's path on the device, or the identifier by which it is asked for",
    "devices": "how many there are",
    "endpoint": "the port or endpoint as it was configured",
    "expected": "what the state waits for",
    "expired": "unfinished files deleted for their age",
    "family": "the family of the camera",
    "file": "the file as it was configured",
    "files_stored": "files that this connection brought whole",
    "held": "bytes of the file that are held",
    "imei": "the device; missing before INIT",
    "index_rebuilt": "true when the index of stored files was missing, damaged or outdated and was made anew",
    "indexed": "stored files read back into the index",
    "limit": "files and sockets that may be open at the same time",
    "meaning": "the STATUS code in words",
    "most": "what the setting allows",
    "name": "the unfinished file in the spool",
    "names": "the names in the certificate",
    "offers": "what the device says is ready to be fetched",
    "offset": "byte of the file from which it goes on",
    "other": "where the connection comes from that was taken over",
    "owner": "the worker process that the device belongs to",
    "packets": "the size in packets of 1024 bytes, where START counts those",
    "part_bytes": "bytes held of unfinished files",
    "parts": "unfinished files that can go on",
    "pause": "seconds until it is started again",
    "path": "the file; one that was received, relative to the data folder",
    "peer": "the connection's address and port",
    "pid": "its process id",
    "ports": "the ports or endpoints as they were configured",
    "protocol_id": "the protocol version in INIT",
    "qualifier": "capture time in milliseconds and type, which tell a file from others with the same identifier",
    "rate": "bytes of file data a second",
    "reason": "what was wrong, or why it ended",
    "received": "bytes that came on the whole connection",
    "refused": "files that were not taken since this was last said, or since it began",
    "resyncs": "how often the file's data was asked for again or a cut frame passed over, on this connection",
    "rolled_back": "finishes that were cut off and will be done again",
    "rolled_forward": "finishes that were cut off and are now complete",
    "said": "the IMEI that INIT says",
    "set_aside": "files put aside because they did not match their record",
    "setting": "the limit that was hit, by its setting",
    "size": "bytes of the whole file; at most, where packets are counted and the last one has not come",
    "size_bytes": "bytes that were held of it",
    "skipped": "bytes of the cut frame",
    "state": "where in the conversation it happened, see states.md",
    "suppressed": "how often the same happened since without a line of its own",
    "text": "what was printed",
    "unknown_settings": "settings bits in INIT that mean nothing to the gateway, in hex",
    "unreadable": "records beside stored files that cannot be read",
    "until": "when it ceases to be good",
    "version": "the gateway's version",
    "worker": "the worker process, from 0 on (setting workers); with several of them all lines of theirs have it",
}


def log_event(log: Any, event: Event, **fields: object) -> None:
    """Write ``event`` with its fields (None is left out) to a txaio logger."""
    known = {name: value for name, value in fields.items() if value is not None}
    getattr(log, event.level)("{event}: {fields}", event=event.label, fields=known)


def log_bug(log: Any, failure: Any, **fields: object) -> None:
    """Write an error of our own, a `Failure` of Twisted's, with its traceback."""
    log.failure("{event}: {fields}", failure, event=Event.BUG.label, fields=fields)
