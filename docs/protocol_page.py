"""The page on the protocol, from the code's own tables and from examples that its commands encode."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from protocol_commands import SECTIONS, Cell, Example, Section
from protocol_talks import IMEI, TALKS, Talk, decoded, trace

from dsmgateway.commands import ALL_OFFERS, MAX_METADATA_BYTES, STATUS_NAMES
from dsmgateway.crc import crc16
from dsmgateway.families import IDENTIFIERS, ROWS, Row, Unit, format_of, row_of, stem_of, unit_of
from dsmgateway.framing import MAX_CANDIDATES, MAX_DATA_FRAME_BYTES
from dsmgateway.metadata import Metadata
from dsmgateway.packets import PACKET_BYTES
from dsmgateway.session import MAX_FRUITLESS_INITS
from dsmgateway.settings import OPTIONS
from dsmgateway.store.naming import final_path

#: The last protocol id before the unified protocol, and the first of it.
_OLD, _UNIFIED = 5, 6
_OFFERS = {
    "FILE": "a file whose path can be asked for: DSM, ADAS, DashCam; from protocol 6 on every camera",
    "FRONT_PHOTO": "DualCam up to protocol 5",
    "REAR_PHOTO": "DualCam up to protocol 5",
    "FRONT_VIDEO": "DualCam up to protocol 5",
    "REAR_VIDEO": "DualCam up to protocol 5",
}
_LIMITS = ("init-timeout", "answer-timeout", "metadata-timeout", "sync-timeout", "data-timeout", "store-timeout")
_TRIES = ("resume-tries", "max-resyncs", "max-file-size", "part-max-age")
_NAME = "picture/251122/082640.jpg"


def page(made: str) -> str:
    """Return the page; ``made`` is the line that says who wrote it."""
    return f"""# The camera protocol

{made}

How Teltonika's cameras deliver their files, as this gateway speaks it: for who builds a device or looks for the fault
of one. "Device" is the tracker that the camera hangs on, "gateway" the server. The vendor publishes a description of
DSM that is incomplete and contradicts itself in places; where that matters, this page says what a statement rests on:
*seen* in the bytes of real trackers (most of them with DualCam cameras), the *vendor*'s test server or text, or only
*believed*.

Every example on this page is made by the gateway's own code, and a test reads it back from here.

## Connection and framing

- The device connects over TCP (TLS, if the gateway's port has it) and speaks first. A connection belongs to one device
  and carries any number of files, one after the other. The gateway asks, the device answers.
- All integers are unsigned and big-endian, where nothing else is said.
- A command is `id u16`, `length u16`, and as many bytes of payload as the length says. There are two exceptions: INIT
  has no length and always 16 bytes, and REPEAT_INIT is two bytes and nothing else.
- Id 0000 is INIT from the device and CLOSE from the gateway.
- TCP keeps no borders: a read can end in the middle of a header, and bring many commands. Only lengths and the CRC tell
  where a command ends.
- An unknown id, a length beyond the limits below, a value out of its range or a command that is not legal at this
  moment ends the connection. After SYNC the gateway first looks for the next good command, see
  [damage](#a-frame-is-cut-or-damaged).

## One file, step by step

1. INIT offers a file.
2. With a path: PATH_REQUEST, PATH. With an identifier there is no path to ask for.
3. METADATA_REQUEST, METADATA (optional).
4. FILE_REQUEST, START: the device tells the file's size.
5. RESUME, SYNC: the gateway says from where on, the device says from where it really begins.
6. DATA or ENHANCED_DATA up to the last byte, without any answer.
7. The gateway makes the file durable, then says REPEAT_INIT.
8. INIT again: with the next file, or without one, and then the gateway says CLOSE.

## Commands

{_table(("id", "command", "from", "length", "says"), [_overview(section) for section in SECTIONS])}

In the layouts below `at` counts from the first byte of the command, `n` is what is left by the other fields. Under the
bytes of each example is what it says, as `dsmgateway decode` puts it.

{"".join(_section(section) for section in SECTIONS)}## Families

What follows from where a file comes from. A file with an identifier is named by it; of a path, the first row whose name
is in it counts, in small letters or capitals.

{_table(_FAMILY_HEADS, [_family(row) for row in ROWS])}

From protocol {_UNIFIED} on the metadata of every family is JSON. An identifier means "the next file of this kind": two
photos in a row have the same one. DashCam was not seen before protocol {_UNIFIED}; what the table says of it there is
what the gateway would make of it.

What a file is and its extension follow from the identifier, else from the path; the first that is in it counts:

{_table(("in the path or identifier", "kind", "extension", "media type"), [_format(name) for name in _FORMAT_NAMES])}

The stored file's name is the time of receipt, the name from the table above and the beginning of its SHA-256; the
device's own path is in the `.json` beside it:

    {final_path(str(IMEI), b"dsm/" + _NAME.encode(), 1_763_800_060_123, "3de5db91")}

## Units

START, RESUME and SYNC count the same unit:

- **Bytes**, from 0: every file that is asked for by path, and everything from protocol {_UNIFIED} on (vendor).
- **Packets** of {PACKET_BYTES} bytes, from 1: files that are asked for by identifier below protocol {_UNIFIED} (seen).
  RESUME 0 means the first packet and is answered with SYNC 1. SYNC n begins at byte (n - 1) * {PACKET_BYTES}.
  START tells the size only to a packet; the last packet ends the file, however short it is, and no other one can be
  short.

One rule is above these: **a first SYNC of 1 after RESUME 0 means packets**, whatever was expected, since a transfer in
bytes that is asked for at 0 cannot begin at 1. START's size was a number of packets, then. The gateway says RESUME once
more, because only now it knows what it holds of the file.

Never conclude anything from how large a size is.

## CRC

CRC-16 over the file data of one packet, nothing else: polynomial 0x8408 (reflected), no final XOR. The start value is 0
for the first packet after each SYNC, and the CRC of the packet before for all others. So the last CRC of a transfer
with one SYNC at the beginning is the CRC-16 of the file. All frames of real cameras fit this (seen).

{_table(("data", "start value", "CRC"), _crc_rows())}

## When a file is acknowledged

The device forgets a file after the last packet and the next REPEAT_INIT (seen), STATUS 0 or CLOSE (believed). So the
gateway says REPEAT_INIT or STATUS 0 only when all of this is true, and no CLOSE before that:

- every byte from 0 to the end has come with a right CRC;
- the file and its `.json` are on the disk, both and their folders are fsynced, and the index is committed.

Where there is no room for a file, or the disk is failing, START is answered with CLOSE: before it hears a RESUME the
device has sent nothing that it could take for delivered, so it keeps its file and comes again (believed). After a
RESUME the connection ends without a word instead.

If something fails before that, the connection ends without a word and the device offers the file again. If the
acknowledgement itself is lost, it is offered again too, and is not stored twice.

DATA is not acknowledged. What slows a device down is TCP: the gateway stops reading while its disk lags behind.

## When something goes wrong

### A frame is cut or damaged

Real trackers cut a DATA frame at a border of TCP segments and then send the same frame whole (seen). Its length then
swallows the head of the good frame, and the CRC is wrong. So before it asks for anything, the gateway looks inside the
damaged frame (where the header itself is broken, in {MAX_DATA_FRAME_BYTES} bytes) for a command that is right in its
place: DATA or ENHANCED_DATA with the right chained CRC (at most {MAX_CANDIDATES} are tried), SYNC, START with the
same size, a STATUS with a known code, or an INIT of the same device. If there is one, it goes on there, and no RESUME
is needed.

If there is none, it says RESUME with the last packet border that it holds, and drops everything up to the next SYNC.
Up to four packets were seen in flight at that time.

### Silence

{_table(("setting", "default", "limits"), [_option(name) for name in _LIMITS])}

In the middle of a file a silence is answered with RESUME, in place of METADATA with FILE_REQUEST; all others end the
connection. While the gateway itself does not read, a device's silence is not held against it.

### Limits

{_table(("setting", "default", "limits"), [_option(name) for name in _TRIES])}

A METADATA has {MAX_METADATA_BYTES} bytes at most. After {MAX_FRUITLESS_INITS} INITs on one connection with no file
data between them the connection ends.

### Rewind

A SYNC below what is held is followed, in mid-file too: the data is taken again and counts instead of what was there.

### The connection is lost

What has come is kept, and a journal beside it says how much of it is proven to be on the disk. When the file is offered
again, on whatever connection, the gateway says RESUME with the last packet border of that. A file is the same if
device, path, START's size and START's CRC are the same; with another size or CRC it is another file and begins at 0.

**By identifier** that is not enough, since the next photo has the same identifier and may have the same number of
packets. Time and file type of the metadata must be the same, too. Even then one packet that is held already is asked
for again; the gateway compares it and everything else that it has. If a byte differs, it is another file: the old part
is dropped, and RESUME 0 asks for all of the new one. Without metadata (or with a time of 0) nothing tells such files
apart, and each connection begins at 0.

### A newer connection

A tracker whose link stalls opens a new connection while the old one still delivers (seen). The newest connection that
said INIT with this IMEI wins: the gateway keeps what the old one brought, closes it without CLOSE, and goes on with the
new one. It never refuses a second connection: a device that is refused five times waits for half an hour (vendor).

### INIT in mid-conversation

A device may begin again at any time. What is there of the file is kept, and what INIT offers now is asked for.

### A file that is stored already

If its acknowledgement was lost, a device offers a file again. With a path and a START whose size and CRC (not 0) are
those of a stored file of the same device and path, only the last packet is asked for and compared, and the one before
it where that has less than 64 bytes. All others come again as far as they have to and are compared when they are whole.
In both cases the device gets its REPEAT_INIT and no second copy is made.

### STATUS from the device

See [STATUS](#status). What is there of the file is kept.

## States

What is legal when, from the gateway's side; [states.md](states.md) has it as tables.

![The states of a session](states.svg)

## Whole conversations

Each line is seconds, who sent it, and bytes in hex: what the gateway's `--trace` writes and `dsmgateway decode` reads.
Below it is what `decode` prints. Long frames go over several lines, as they do over several reads. What is in the files
is made up; a decoder of pictures would not like it.

{"".join(_talk(talk) for talk in TALKS).rstrip()}
"""


def _filled(paragraph: str) -> str:
    return textwrap.fill(paragraph, 120, break_on_hyphens=False)


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _overview(section: Section) -> tuple[str, ...]:
    link = f"[{section.name}](#{section.name.lower()})"
    return f"`{section.kind.id:04x}`", link, " and ".join(section.directions), _length(section), section.brief


def _length(section: Section) -> str:
    if section.lengths is None:
        return "no such field"
    shortest, longest = section.lengths
    return str(shortest) if shortest == longest else f"{shortest} to {longest}"


def _section(section: Section) -> str:
    paragraphs = [_filled(one) for one in section.about.split("\n\n")]
    about = "\n\n".join(paragraphs).replace("{offers}", _offers()).replace("{codes}", _codes())
    examples = "\n".join(_example(example, section.cells) for example in section.examples)
    return f"""### {section.name}

From the {" and from the ".join(section.directions)}; length: {_length(section)}.

{_table(("at", "bytes", "type", "says"), _layout(section.cells))}

{about}

{examples}
"""


def _layout(cells: tuple[Cell, ...]) -> list[tuple[str, ...]]:
    rows, at, after_rest = [], 0, ""
    for cell in cells:
        size = "n" if cell.size_bytes is None else str(cell.size_bytes)
        rows.append((f"{at}{after_rest}", size, cell.form, cell.says))
        after_rest = " + n" if cell.size_bytes is None else after_rest
        at += cell.size_bytes or 0
    return rows


def _example(example: Example, cells: tuple[Cell, ...]) -> str:
    head = f"hex {example.direction} {example.protocol_id} {example.device_path.decode()}"
    return f"```{head}\n{example.grouped(cells)}\n{example.words()}\n```\n"


def _offers() -> str:
    return _table(
        ("bit of the first byte", "name", "is set when there is"),
        [(f"`{offer:02x}`", str(offer.name), _OFFERS[str(offer.name)]) for offer in ALL_OFFERS],
    )


def _codes() -> str:
    return _table(("code", "meaning"), [(str(code), meaning) for code, meaning in STATUS_NAMES.items()])


_FAMILY_HEADS = (
    "name in the path, or identifier",
    "family",
    "camera",
    "offered by",
    "asked for by",
    "METADATA_REQUEST",
    f"metadata up to protocol {_OLD}",
    f"unit up to protocol {_OLD}",
    f"unit from protocol {_UNIFIED} on",
    "name of the stored file",
)


def _family(row: Row) -> tuple[str, ...]:
    identified = row.offer in IDENTIFIERS
    path = row.name if identified else (row.name + b"/" + _NAME.encode()).lstrip(b"/")
    assert row_of(path) is row
    # Fourteen bytes fit every layout, so that the file's name decides.
    layout = Metadata.parse(bytes(14), _OLD, path).layout
    return (
        f"`{row.name.decode()}`" if row.name else "any other",
        row.family.value,
        row.camera.value if row.camera else "not told",
        f"{row.offer.name} (`{row.offer:02x}`)",
        "identifier" if identified else "path",
        f"`000a 0007 {row.name.hex()}`" if identified else "`000a 0000`",
        f"`{layout.value}`" if layout else "",
        _unit(unit_of(row.offer, _OLD)),
        _unit(unit_of(row.offer, _UNIFIED)),
        f"`{stem_of(path)}`",
    )


def _unit(unit: Unit) -> str:
    return f"{unit.value} from {1 if unit is Unit.PACKETS else 0}"


#: A path or identifier for each format, most of them bare endings.
_FORMAT_NAMES = (b"%photof", b"%photor", b"%videof", b"%videor", b".mp4", b".h265", b".jpg", b".jpeg", b"picture", b"")


def _format(name: bytes) -> tuple[str, ...]:
    form = format_of(name)
    kind = form.kind.value if form.kind else "not told"
    return f"`{name.decode()}`" if name else "none of these", kind, f"`.{form.extension}`", form.media_type


def _crc_rows() -> list[tuple[str, ...]]:
    first = crc16(b"12345")
    rows = ((b"123456789", 0), (b"12345", 0), (b"6789", first))
    return [(f"`{data.decode()}`", f"`{start:04x}`", f"`{crc16(data, start):04x}`") for data, start in rows]


def _option(name: str) -> tuple[str, ...]:
    (option,) = (option for option in OPTIONS if option.name == name)
    return f"`{name}`", option.shown_default, option.help_text


def _talk(talk: Talk) -> str:
    parts = [f"### {talk.title}\n\n{_filled(talk.about)}\n"]
    for number, connection in enumerate(talk.connections, 1):
        if len(talk.connections) > 1:
            parts.append(f"Connection {number}:\n")
        parts += [f"```trace\n{trace(connection)}```\n", f"```text\n{decoded(connection)}\n```\n"]
    parts.append(f"Stored: {talk.stored}.\n\n")
    return "\n".join(parts)
