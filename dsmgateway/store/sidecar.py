"""The sidecar: everything known of a stored file, as JSON beside it.

In the spool it is also the record by which a finish that was cut off is completed: it names the final path. Does no
input or output.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from types import NoneType

from dsmgateway.families import UNKNOWN_FORMAT, format_of, row_of
from dsmgateway.store.naming import is_final_path
from dsmgateway.store.values import Offered, Record

#: Largest sidecar that is read back; the metadata of a device is 4 KiB at most, twice as much in hex.
LIMIT_BYTES = 256 * 1024
#: Levels of nesting kept of what the caller says; hostile metadata has a thousand.
_DEEPEST = 16
#: Largest size that a record may have: that of an integer of SQLite.
_LARGEST_BYTES = (1 << 63) - 1
_SHA256 = re.compile(r"[0-9a-f]{64}")
#: What the module json does in C, unlike anything that it is to indent.
_QUOTED = json.encoder.encode_basestring_ascii
#: Fields that only we may set, also where we leave them out.
_OURS = frozenset({"family", "camera", "kind", "media_type", "qualifier"})


def encode_sidecar(fields: Mapping[str, object], about: Mapping[str, object]) -> bytes:
    """Return the sidecar with our ``fields``, then what the caller says ``about`` the file; ours win."""
    said = {str(name): value for name, value in about.items()}
    extra = {name: value for name, value in said.items() if name not in fields and name not in _OURS}
    return f"{_object({**fields, **extra}, 0)}\n".encode("ascii")


def path_fields(offered: Offered) -> dict[str, object]:
    """Return the device's path twice: to be read by people, and exactly."""
    return {
        "device_path": offered.device_path.decode("utf-8", "backslashreplace"),
        "device_path_hex": offered.device_path.hex(),
    }


def offer_fields(offered: Offered) -> dict[str, object]:
    """Return what the device's path or identifier tells of the file, as far as it is known, and the qualifier."""
    row, form = row_of(offered.device_path), format_of(offered.device_path)
    fields = {
        "qualifier": offered.qualifier,
        "family": row.family.value,
        "camera": row.camera and row.camera.value,
        "kind": form.kind and form.kind.value,
        "media_type": None if form is UNKNOWN_FORMAT else form.media_type,
    }
    return {name: value for name, value in fields.items() if value is not None}


def parse_sidecar(text: bytes) -> Record | None:
    """Return what a sidecar says of its file, or None if it is damaged or not one of ours."""
    try:
        fields = json.loads(text)
        record = Record(
            path=fields["path"],
            imei=fields["imei"],
            device_path=bytes.fromhex(fields["device_path_hex"]),
            size_bytes=fields["size"],
            sha256=fields["sha256"],
            crc16=fields.get("crc16"),
            qualifier=fields.get("qualifier"),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return record if _is_ours(record) else None


def _is_ours(record: Record) -> bool:
    """Say whether every field is what we write: what the index cannot hold would keep the store from starting."""
    texts = (record.path, record.imei, record.sha256)
    if not all(isinstance(value, str) for value in texts) or not isinstance(record.qualifier, str | None):
        return False
    if type(record.size_bytes) is not int or type(record.crc16) not in (int, NoneType):
        return False
    try:
        Offered(record.imei, record.device_path, record.size_bytes, record.crc16 or 0, qualifier=record.qualifier)
    except ValueError:
        return False
    return record.size_bytes <= _LARGEST_BYTES and is_final_path(record.path) and bool(_SHA256.fullmatch(record.sha256))


def _text(value: object, depth: int) -> str:
    """Return anything as JSON, as far as JSON can say it: a file is never lost for an odd value in its metadata.

    ``depth`` is how many arrays and objects it is in, besides the outermost object. The module json indents in Python,
    too, and takes three times as long.
    """
    if value is None or depth > _DEEPEST:
        return "null"
    if isinstance(value, str):
        return _QUOTED(value)
    if type(value) is int:
        return str(value)
    if isinstance(value, int | float):
        return json.dumps(value) if math.isfinite(value) else "null"
    if isinstance(value, bytes):
        return _QUOTED(value.hex())
    if isinstance(value, Mapping):
        return _object({str(name): inner for name, inner in value.items()}, depth + 1)
    if isinstance(value, list | tuple):
        return _indented("[", [_text(inner, depth + 1) for inner in value], "]", depth + 1)
    return _QUOTED(str(value))


def _object(fields: Mapping[str, object], depth: int) -> str:
    """Return an object as JSON; ``depth`` is that of its values."""
    return _indented("{", [f"{_QUOTED(name)}: {_text(value, depth)}" for name, value in fields.items()], "}", depth)


def _indented(begin: str, texts: Sequence[str], end: str, depth: int) -> str:
    """Return what is between two brackets, indented by two for each level, as the module json does it."""
    if not texts:
        return begin + end
    margin = "\n" + "  " * depth
    between = f",{margin}  "
    return f"{begin}{margin}  {between.join(texts)}{margin}{end}"
