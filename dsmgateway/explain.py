"""One command in words for people and in facts for programs.

Facts are what JSON has: numbers, texts, lists; everything a device chose (paths, driver names) is escaped in the words.
Knows one command at a time: nothing of streams, positions in a file or CRC chains, see `dsmgateway.decode`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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
from dsmgateway.families import IDENTIFIERS, Unit, family_of
from dsmgateway.imei import luhn_digit
from dsmgateway.metadata import Metadata
from dsmgateway.metadata_json import begins_like_document
from dsmgateway.packets import PACKET_BYTES, first_byte

Facts = dict[str, object]


@dataclass(frozen=True, slots=True)
class Explained:
    """A command's name as the protocol spells it, its fields ``words`` and ``facts``."""

    name: str
    words: str
    facts: Facts


def explain(
    command: DeviceCommand | GatewayCommand,
    protocol_id: int = 5,
    device_path: bytes = b"",
    unit: Unit | None = None,
) -> Explained:
    """Say what ``command`` says; never raises, whatever is in its fields.

    What METADATA says depends on the protocol and on the file it is about: its path without NUL, or its identifier;
    what START, RESUME and SYNC say on the ``unit`` in which they count, None where that is not known.
    """
    if isinstance(command, Close):
        return Explained("CLOSE", "the connection ends", {})
    words, facts = _fields(command, protocol_id, device_path, unit)
    return Explained(command.id.name, words, facts)


def size_in_words(size: int, unit: Unit | None) -> str:
    """Return a size as START tells it; of packets, also the bytes that it can mean."""
    if unit is not Unit.PACKETS:
        return f"{size} bytes" if unit else f"{size}"
    counted = "1 packet" if size == 1 else f"{size} packets"
    return f"{counted} ({first_byte(size) + 1} to {size * PACKET_BYTES} bytes)" if size else counted


def _fields(
    command: DeviceCommand | GatewayCommand, protocol_id: int, device_path: bytes, unit: Unit | None
) -> tuple[str, Facts]:
    match command:
        case Init():
            return _init(command)
        case Path(path) | FileRequest(path):
            return _path(path)
        case MetadataResponse(body):
            return _metadata(Metadata.parse(body, protocol_id, device_path))
        case Start(size, crc):
            known = f"CRC-16 of the file {crc:04x}" if crc else "CRC-16 of the file not known (0000)"
            return f"size {size_in_words(size, unit)}, {known}", {"size": size, "crc": crc} | _of_unit(unit)
        case Resume(offset):
            return f"send from {_place(offset, unit)} on", {"file_offset": offset} | _of_unit(unit)
        case Sync(offset):
            return f"DATA follows from {_place(offset, unit)} on", {"file_offset": offset} | _of_unit(unit)
        case Data(data, crc):
            return f"{len(data)} bytes, CRC {crc:04x}", {"length": len(data), "crc": crc}
        case EnhancedData(offset, data, crc):
            facts: Facts = {"file_offset": offset, "length": len(data), "crc": crc}
            return f"{len(data)} bytes for offset {offset}, CRC {crc:04x}", facts
        case Status(code):
            return f"{code}: {command.meaning}", {"code": code, "meaning": command.meaning}
        case MetadataRequest(identifier):
            if not identifier:
                return "", {}
            return f"identifier {one_line_of(identifier)}", {"identifier": identifier.hex()}
        case PathRequest() | RepeatInit() | Close():
            return "", {}


def _place(offset: int, unit: Unit | None) -> str:
    if unit is Unit.PACKETS:
        return f"packet {offset} (byte {first_byte(offset)})"
    return f"{'byte' if unit else 'offset'} {offset}"


def _of_unit(unit: Unit | None) -> Facts:
    return {"unit": unit.value} if unit else {}


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
    if path in IDENTIFIERS.values():
        return f"identifier {one_line_of(path)}", facts
    closing = "" if path.endswith(b"\0") else " (without a closing NUL)"
    return f"{one_line_of(text)}{closing}", facts


def _metadata(metadata: Metadata) -> tuple[str, Facts]:
    facts: Facts = metadata.to_json()
    body = metadata.raw
    if metadata.layout is None:
        text = one_line_of(body) if begins_like_document(body) else body.hex()
        return f"{len(body)} bytes that no layout has: {text or 'none'}", facts
    words = [one_line(said) for said in _said(metadata)]
    if metadata.document is not None:
        words.append(f"JSON {one_line_of(body)}")
    return ", ".join(words), facts


def _said(metadata: Metadata) -> Iterator[str]:
    """What is known, in the order of the wire; a device's own texts are still as they came."""
    if metadata.version is not None:
        yield f"version {metadata.version}"
    if metadata.time is not None:
        yield metadata.captured or f"time {metadata.time} s"
    yield from _numbered("type", metadata.file_type, metadata.file_type_name)
    yield from _numbered("trigger", metadata.trigger, metadata.trigger_name)
    if metadata.trigger_time is not None:
        yield f"triggered at {metadata.trigger_time} s"
    if metadata.cam_trigger is not None:
        yield f"camera's trigger {metadata.cam_trigger}"
    if metadata.latitude is not None or metadata.longitude is not None:
        yield f"at {_degrees(metadata.latitude)} {_degrees(metadata.longitude)}"
    if metadata.duration_s is not None:
        yield f"length {metadata.duration_s} s"
    if metadata.frame_rate is not None:
        yield f"{metadata.frame_rate} frames/s"
    if metadata.time_zone_min is not None:
        yield f"time zone {metadata.time_zone_min:+} min"
    if metadata.events is not None:
        yield f"events {' '.join(metadata.events)}" if metadata.events else "no events"
    if metadata.driver is not None:
        yield f"driver {metadata.driver}"


def _numbered(what: str, number: int | None, name: str | None) -> Iterator[str]:
    known = [str(one) for one in (number, name) if one is not None]
    if known:
        yield " ".join((what, *known))


def _degrees(degrees: float | None) -> str:
    return "?" if degrees is None else f"{degrees:.6f}"
