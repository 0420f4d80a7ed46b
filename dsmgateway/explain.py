"""One command in words for people and in facts for programs.

Facts are what JSON has: numbers, texts, lists; everything a device chose (paths, driver names) is escaped in the words.
Knows one command at a time: nothing of streams, positions in a file or CRC chains, see `dsmgateway.decode`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from dsmgateway.commands import (
    Close,
    Data,
    DeviceCommand,
    EnhancedData,
    FileRequest,
    GatewayCommand,
    Init,
    MetadataRequest,
    MetadataResponse,
    Path,
    PathRequest,
    RepeatInit,
    Resume,
    Start,
    Status,
    Sync,
)
from dsmgateway.escape import one_line, one_line_of
from dsmgateway.families import family_of
from dsmgateway.imei import luhn_digit
from dsmgateway.metadata import Metadata

Facts = dict[str, object]
#: The shortest binary METADATA layout.
_BASE_METADATA_BYTES = 14


@dataclass(frozen=True, slots=True)
class Explained:
    """A command's name as the protocol spells it, its fields ``words`` and ``facts``."""

    name: str
    words: str
    facts: Facts


def explain(command: DeviceCommand | GatewayCommand) -> Explained:
    """Say what ``command`` says; never raises, whatever is in its fields."""
    if isinstance(command, Close):
        return Explained("CLOSE", "the connection ends", {})
    words, facts = _fields(command)
    return Explained(command.id.name, words, facts)


def _fields(command: DeviceCommand | GatewayCommand) -> tuple[str, Facts]:
    match command:
        case Init():
            return _init(command)
        case Path(path) | FileRequest(path):
            return _path(path)
        case MetadataResponse(body):
            return _metadata(body)
        case Start(size, crc):
            known = f"CRC-16 of the file {crc:04x}" if crc else "CRC-16 of the file not known (0000)"
            return f"size {size} bytes, {known}", {"size": size, "crc": crc}
        case Resume(offset):
            return f"send from offset {offset} on", {"file_offset": offset}
        case Sync(offset):
            return f"DATA follows from offset {offset} on", {"file_offset": offset}
        case Data(data, crc):
            return f"{len(data)} bytes, CRC {crc:04x}", {"length": len(data), "crc": crc}
        case EnhancedData(offset, data, crc):
            facts: Facts = {"file_offset": offset, "length": len(data), "crc": crc}
            return f"{len(data)} bytes for offset {offset}, CRC {crc:04x}", facts
        case Status(code):
            return f"{code}: {command.meaning}", {"code": code, "meaning": command.meaning}
        case MetadataRequest(identifier):
            return (f"identifier {identifier.hex()}", {"identifier": identifier.hex()}) if identifier else ("", {})
        case PathRequest() | RepeatInit() | Close():
            return "", {}


def _init(init: Init) -> tuple[str, Facts]:
    offers = [offer.name for offer in init.offers]
    right = init.imei_digits[-1] == str(luhn_digit(init.imei_digits[:-1]))
    words = [
        f"protocol {init.protocol_id}",
        f"IMEI {init.imei_digits}" + ("" if right else " (its check digit is wrong)"),
        f"offers {' '.join(name or '' for name in offers)}" if offers else "offers nothing",
    ]
    if init.unknown_settings:
        words.append(f"other settings bits {init.unknown_settings:08x}")
    facts: Facts = {
        "protocol_id": init.protocol_id,
        "imei": init.imei_digits,
        "imei_check_digit_right": right,
        "settings": init.settings,
        "offers": offers,
        "unknown_settings": init.unknown_settings,
    }
    return ", ".join(words), facts


def _path(path: bytes) -> tuple[str, Facts]:
    text = path.rstrip(b"\0")
    facts: Facts = {
        "path": text.decode("utf-8", "backslashreplace"),
        "path_hex": path.hex(),
        "family": family_of(text).value,
    }
    if not text:
        return "no file", facts
    closing = "" if path.endswith(b"\0") else " (without a closing NUL)"
    return f"{one_line_of(text)}{closing}", facts


def _metadata(body: bytes) -> tuple[str, Facts]:
    if body[:1] == b"{" or len(body) < _BASE_METADATA_BYTES:
        text = body.decode("utf-8", "backslashreplace")
        shown = one_line(text) if body[:1] == b"{" else f"{len(body)} bytes that no layout has: {body.hex() or 'none'}"
        return shown, {"raw": body.hex()}
    metadata = Metadata.parse(body)
    facts = metadata.to_json()
    words = [
        datetime.fromtimestamp(metadata.time or 0, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        f"type {facts['file_type']} {facts['file_type_name']}",
        f"trigger {facts['trigger']} {facts['trigger_name']}",
        f"at {metadata.latitude:.6f} {metadata.longitude:.6f}",
    ]
    if metadata.video_length is not None:
        words.append(f"video of {metadata.video_length} s")
    if metadata.events is not None:
        words.append(f"events {' '.join(metadata.events)}" if metadata.events else "no events")
    if metadata.driver is not None:
        words.append(f"driver {one_line(metadata.driver)}")
    return ", ".join(words), facts
