r"""The journal of a part: how far it was written, in a text file that survives being cut or damaged anywhere.

One record a line, ``<CRC-32 of the JSON, 8 hex> <JSON>\n``: first a header that says whose part it is, then
checkpoints. Whatever follows the first bad line does not count, so losing the tail only lowers the offset. Does no
input or output.
"""

from __future__ import annotations

import json
import re
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dsmgateway.store.values import Offered

#: 2 brought the SHA-256; what the first said in a CRC-32 proves less than it would have to.
_VERSION = 2
#: Longest line that is read: a header with a path of 512 bytes in hex is under 1.3 KiB.
_LONGEST_LINE_BYTES = 4096
#: Checkpoints kept of a journal; older ones only matter when all of these are wrong, and then 0 is the answer.
_KEPT_CHECKPOINTS = 64
#: The year 10000, which no sidecar can say, in seconds since 1970.
_TIME_END_S = 253_402_300_800
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The first ``offset_bytes`` of the part were written and have this SHA-256, in hexadecimal.

    ``connections`` and ``twice_bytes`` are what the file had cost by then. ``end_bytes`` is where the record ends in
    the journal (0 while it is not in one).
    """

    offset_bytes: int
    sha256: str
    connections: int
    twice_bytes: int
    end_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Journal:
    """What can be believed of a journal: its header and the latest checkpoints, oldest first."""

    offered: Offered
    first_seen: float
    end_bytes: int
    checkpoints: tuple[Checkpoint, ...]


def encode_header(offered: Offered, first_seen: float) -> bytes:
    """Return the first record; ``first_seen`` is in seconds since 1970.

    What is as usual is left out: a header without it is that of a plain offer.
    """
    fields: dict[str, object] = {
        "version": _VERSION,
        "imei": offered.imei,
        "device_path": offered.device_path.hex(),
        "size": offered.size_bytes,
        "start_crc": offered.start_crc,
        "first_seen": first_seen,
    }
    if offered.in_packets:
        fields["in_packets"] = True
    if offered.qualifier is not None:
        fields["qualifier"] = offered.qualifier
    return _line(fields)


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """Return the record of a checkpoint."""
    return _line(
        {
            "offset": checkpoint.offset_bytes,
            "sha256": checkpoint.sha256,
            "connections": checkpoint.connections,
            "twice": checkpoint.twice_bytes,
        }
    )


def read_journal(blocks: Iterable[bytes]) -> Journal | None:
    """Return what the journal in these blocks says, or None if not even its header can be believed."""
    lines = _lines(blocks)
    end_bytes, line = next(lines, (0, b""))
    header = _fields(line)
    if header is None:
        return None
    try:
        offered, first_seen = _header(header)
    except (KeyError, TypeError, ValueError):
        return None
    kept: deque[Checkpoint] = deque(maxlen=_KEPT_CHECKPOINTS)
    for checkpoint_end_bytes, line in lines:
        checkpoint = _checkpoint(_fields(line), checkpoint_end_bytes)
        if checkpoint is None or checkpoint.offset_bytes > offered.size_bytes:
            break
        kept.append(checkpoint)
    return Journal(offered, first_seen, end_bytes, tuple(kept))


def _line(fields: dict[str, object]) -> bytes:
    text = json.dumps(fields, separators=(",", ":")).encode("ascii")
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _lines(blocks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield (where it ends, line) for every line that has an end and is not too long to be one of ours."""
    buffer, end_bytes = b"", 0
    for block in blocks:
        *whole, buffer = (buffer + block).split(b"\n")
        for line in whole:
            if len(line) > _LONGEST_LINE_BYTES:
                return
            end_bytes += len(line) + 1
            yield end_bytes, line
        if len(buffer) > _LONGEST_LINE_BYTES:
            return


def _fields(line: bytes) -> dict[str, object] | None:
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _header(fields: dict[str, object]) -> tuple[Offered, float]:
    if fields["version"] != _VERSION:
        raise ValueError("a journal of another version")
    imei, path, first_seen = fields["imei"], fields["device_path"], fields["first_seen"]
    in_packets, qualifier = fields.get("in_packets", False), fields.get("qualifier")
    if not (isinstance(imei, str) and isinstance(path, str) and isinstance(first_seen, int | float)):
        raise TypeError("a header that is not ours")
    if not (isinstance(in_packets, bool) and isinstance(qualifier, str | None)):
        raise TypeError("a header that is not ours")
    if not 0 <= first_seen < _TIME_END_S:
        raise ValueError("a time that cannot be written")
    size_bytes, start_crc = _natural(fields, "size"), _natural(fields, "start_crc")
    return Offered(imei, bytes.fromhex(path), size_bytes, start_crc, in_packets, qualifier), first_seen


def _checkpoint(fields: dict[str, object] | None, end_bytes: int) -> Checkpoint | None:
    if fields is None:
        return None
    try:
        offset_bytes, connections, twice_bytes = (_natural(fields, name) for name in ("offset", "connections", "twice"))
        sha256 = fields["sha256"]
    except (KeyError, TypeError):
        return None
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        return None
    return Checkpoint(offset_bytes, sha256, connections, twice_bytes, end_bytes)


def _natural(fields: dict[str, object], name: str) -> int:
    value = fields[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"{name} is no count")
    return value
