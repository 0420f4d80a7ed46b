"""What the page on the protocol says of each command: its fields, its meaning, and examples made by the gateway's code.

Direction, id and limits of the length are not written down here: they are those of `dsmgateway.commands`.
"""

from __future__ import annotations

from dataclasses import dataclass

from metadata_words import EXAMPLES
from protocol_talks import DSM_PATH, DUALCAM_METADATA, IDENTIFIER, IDLE, IMEI

from dsmgateway.commands import (
    FROM_DEVICE,
    FROM_GATEWAY,
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
from dsmgateway.crc import crc16
from dsmgateway.decode import Direction
from dsmgateway.explain import explain
from dsmgateway.families import row_of, unit_of
from dsmgateway.metadata_layouts import Layout


@dataclass(frozen=True, slots=True)
class Cell:
    """One field: its length in bytes (None: what is left), its type and what it says."""

    size_bytes: int | None
    form: str
    says: str


@dataclass(frozen=True, slots=True)
class Example:
    """A command on the wire; protocol and file are those of the conversation that it comes from."""

    command: DeviceCommand | GatewayCommand
    direction: Direction
    protocol_id: int = 5
    device_path: bytes = DSM_PATH[:-1]

    def words(self) -> str:
        """What `dsmgateway decode` says of it."""
        unit = unit_of(row_of(self.device_path).offer, self.protocol_id)
        said = explain(self.command, self.protocol_id, self.device_path, unit)
        return f"{said.name} {said.words}".rstrip()

    def grouped(self, cells: tuple[Cell, ...]) -> str:
        """The bytes in hex, a group a field."""
        data = self.command.encode()
        left_bytes = len(data) - sum(cell.size_bytes or 0 for cell in cells)
        groups, at = [], 0
        for cell in cells:
            size_bytes = left_bytes if cell.size_bytes is None else cell.size_bytes
            groups.append(data[at : at + size_bytes].hex())
            at += size_bytes
        assert at == len(data), f"the fields of {self.command} are not all there"
        return " ".join(group for group in groups if group)


@dataclass(frozen=True, slots=True)
class Section:
    """All that is said of one command; ``payload`` is what follows the length, ``about`` is Markdown."""

    kind: type[DeviceCommand] | type[GatewayCommand]
    brief: str
    payload: tuple[Cell, ...]
    about: str
    examples: tuple[Example, ...]

    @property
    def name(self) -> str:
        """The command's name as the protocol spells it."""
        return "CLOSE" if self.kind is Close else self.kind.id.name

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Who sends it."""
        from_device = self.kind is Init or self.kind in FROM_DEVICE.values()
        from_gateway = self.kind is RepeatInit or self.kind in FROM_GATEWAY.values()
        return (*[Direction.DEVICE] * from_device, *[Direction.GATEWAY] * from_gateway)

    @property
    def lengths(self) -> tuple[int, int] | None:
        """The least and the greatest length; None where there is no length field."""
        return None if self.kind in (Init, RepeatInit) else self.kind.lengths  # type: ignore[union-attr]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All fields, from the first byte on."""
        head = Cell(2, "u16", f"command id {self.kind.id:04x}")
        return (head, *self.payload) if self.lengths is None else (head, Cell(2, "u16", "length"), *self.payload)


D, G = Direction.DEVICE, Direction.GATEWAY
_CRC_TEXT = b"123456789"

SECTIONS: tuple[Section, ...] = (
    Section(
        Init,
        "who the device is, and what is ready",
        (
            Cell(
                2, "u16", "protocol id: 5 in what was seen of all cameras so far, 6 and above is the unified protocol"
            ),
            Cell(8, "u64", "IMEI as a number; its 15 digits end in a Luhn check digit"),
            Cell(4, "u32", "settings: what is ready, see below"),
        ),
        """The first command on every connection, and the answer to REPEAT_INIT. It has no length field; where other
commands have their length it has the protocol id. It says who the device is and which files are ready:

{offers}

All bits are in the first settings byte that is sent. The other bits mean nothing to the gateway and must not disturb
anybody: a real tracker that has nothing to send says `40000400` (seen). Of several offers the gateway takes FILE first,
then the photos, then the videos; a setting (`families`) can exclude some. When nothing is left to ask for, it answers
with CLOSE.

The IMEI must be 1 to 999999999999999 and must stay the same for the whole connection. The gateway does not refuse a
wrong check digit. A device must not have protocol id 0: its INIT would begin as CLOSE does, and the
gateway does not look for one in damaged data.""",
        (Example(Init(5, IMEI, IDLE | 0x02000000), D), Example(Init(5, IMEI, IDLE), D)),
    ),
    Section(
        Close,
        "nothing more; the connection ends",
        (),
        """There is nothing to be sent: the last INIT offered nothing, PATH came without a path, or what is offered is
not accepted. The gateway closes the connection after it. It is never said while a file is not whole: a device may
take it for an acknowledgement, and forget its file.""",
        (Example(Close(), G),),
    ),
    Section(
        PathRequest,
        "which file is ready?",
        (Cell(2, "u16", "0"),),
        "Which file is ready? Sent when INIT offers FILE; the device answers with PATH.",
        (Example(PathRequest(), G),),
    ),
    Section(
        Path,
        "the path of the file",
        (Cell(None, "bytes", "the file's path on the device, with one NUL at its end"),),
        """The NUL is part of the length (seen). Nothing, or a lone NUL, means that there is no file after all. The path
tells the family of the camera, see [families](#families). It is also the file's name for as long as it exists: a file
with the same path, size and CRC is the same file. The gateway never uses it as a name on its own disk. A path without a
NUL is taken, too.""",
        (Example(Path(DSM_PATH), D), Example(Path(b"\0"), D)),
    ),
    Section(
        MetadataRequest,
        "what is known about the file?",
        (Cell(None, "bytes", "nothing for a file that has a path, else its identifier"),),
        """What is known about the file? An identifier has 7 bytes. The request can be left out (setting `metadata`); a
file is taken without it, too.""",
        (
            Example(MetadataRequest(), G),
            Example(MetadataRequest(IDENTIFIER), G, device_path=IDENTIFIER),
        ),
    ),
    Section(
        MetadataResponse,
        "time, type, trigger, position and so on",
        (Cell(None, "bytes", "one of the layouts on the page on [metadata](metadata.md), or JSON"),),
        """It can take a device some seconds to answer (up to 5.6 s were seen). The gateway waits for a while and then
goes on without it; one that comes late is kept if it is still of use. A body that cannot be read is kept as it is and
is no reason not to take the file. The published length of DSM's answer, 15, is that of ADAS; the fields that are
published for DSM take 26 bytes.""",
        (
            Example(MetadataResponse(EXAMPLES[Layout.DSM].body), D),
            Example(MetadataResponse(DUALCAM_METADATA), D, device_path=IDENTIFIER),
        ),
    ),
    Section(
        FileRequest,
        "this file, please",
        (Cell(None, "bytes", "the path of PATH with its NUL, byte for byte, or the identifier without one"),),
        "Begin with this file, please. The device answers with START, and once more if it is asked again.",
        (
            Example(FileRequest(DSM_PATH), G),
            Example(FileRequest(IDENTIFIER), G, device_path=IDENTIFIER),
        ),
    ),
    Section(
        Start,
        "size and CRC of the file",
        (
            Cell(4, "u32", "size of the file, in bytes or in packets, see [units](#units)"),
            Cell(2, "u16", "CRC-16 of the whole file, 0 where it is not known"),
        ),
        """A device that gets no RESUME says START again (seen); every START is answered. One with another size or CRC
than before begins another file. Size 0, and one beyond the gateway's `max-file-size`, end the connection without a
word. A CRC of 0 is all that was seen; any other is believed to be the file's CRC-16. It is advice: it tells whether a
file is the one that is stored already, and is no reason to refuse one.""",
        (
            Example(Start(1124, 0), D),
            Example(Start(2, 0), D, device_path=IDENTIFIER),
        ),
    ),
    Section(
        Resume,
        "send from here on",
        (Cell(4, "u32", "where to go on: a byte from 0, or a packet from 1; 0 is the beginning in both units"),),
        """Sent after START, and whenever the gateway has to go back: after damage, and after a silence. In bytes it is
always a multiple of 1024, and at least one byte is left to be sent. The device answers with SYNC; file data that it had
sent before is dropped. Two RESUMEs in a row are two questions and have two SYNCs as their answers.""",
        (
            Example(Resume(1024), G),
            Example(Resume(2), G, device_path=IDENTIFIER),
        ),
    ),
    Section(
        Sync,
        "what follows begins here",
        (Cell(4, "u32", "where the next DATA begins, in the unit of RESUME"),),
        """The answer to RESUME, but no echo of it: what counts is what SYNC says, not what was asked for (seen). Lower
than asked: the gateway takes the data a second time and writes over what it has. Higher than what the gateway holds:
it asks again, and if that happens twice in a row, from the beginning. In mid-file a SYNC that nobody asked for is
followed, too. With every
SYNC the chain of CRCs begins at 0 again.""",
        (
            Example(Sync(1024), D),
            Example(Sync(2), D, device_path=IDENTIFIER),
        ),
    ),
    Section(
        Data,
        "up to 1024 bytes of the file",
        (
            Cell(None, "bytes", "file data: 1024 bytes, in the last packet of a file what is left"),
            Cell(2, "u16", "[CRC](#crc) of the file data, chained"),
        ),
        """Only legal after SYNC. It does not say its place: it goes on where the one before ended. Data beyond the size
is not taken; the gateway answers with RESUME. In a transfer in bytes the gateway also takes packets of 1 to 1023
bytes in mid-file; one in packets cannot have them. The example is the first packet after a SYNC.""",
        (Example(Data(_CRC_TEXT, crc16(_CRC_TEXT)), D),),
    ),
    Section(
        EnhancedData,
        "the same with its place in the file, from protocol 6 on",
        (
            Cell(4, "u32", "where this packet begins, in bytes"),
            Cell(None, "bytes", "file data as in DATA"),
            Cell(2, "u16", "[CRC](#crc) of the file data alone, chained"),
        ),
        """DATA that says its place, from protocol 6 on (vendor; not seen yet). Both can be mixed in one file and share
one chain of CRCs. A place that is not where the file goes on is answered with RESUME.""",
        (Example(EnhancedData(0, _CRC_TEXT, crc16(_CRC_TEXT)), D, 6),),
    ),
    Section(
        Status,
        "all is done (gateway); why it gives up (device)",
        (Cell(4, "u32", "code"),),
        """From the gateway: only with code 0, in place of REPEAT_INIT where the setting `after-file` is `complete`. The
file is stored and no other is wanted on this connection; the device disconnects. It never follows a REPEAT_INIT.

From the device: why it gives up. Before the last byte of a file it ends the connection; what is there of the file is
kept. After the last byte it changes nothing: a real tracker ended a good transfer with code 1 (seen).

{codes}

Codes 0, 2, 3, 5 and 17 are published, 1 was seen, the others are the vendor's test server's.""",
        (Example(Status(0), G), Example(Status(17), D)),
    ),
    Section(
        RepeatInit,
        "the file is stored; what else is there?",
        (),
        """The file is stored; say INIT again, there may be more. Exactly two bytes, no length: real devices answer to
these (seen). Two more zeros would be the beginning of a CLOSE. The device removes the file from its queue by itself and
answers with INIT in less than half a second (seen).""",
        (Example(RepeatInit(), G),),
    ),
)
