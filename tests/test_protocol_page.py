"""docs/protocol.md, read back: every example on it is decoded, and every conversation is had with a real session.

Nothing here comes from what makes the page: what is held to the code is what a reader sees.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import Conversation, MemoryStore, bytewise, init

from dsmgateway import commands as c
from dsmgateway import effects as fx
from dsmgateway.cli import main
from dsmgateway.errors import FramingError
from dsmgateway.explain import explain
from dsmgateway.families import format_of, row_of, stem_of, unit_of
from dsmgateway.framing import DeviceDecoder, GatewayDecoder
from dsmgateway.session import Session, SessionOptions
from dsmgateway.states import State

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "protocol.md").read_text(encoding="utf-8")
NAMES = [one.name for one in c.CommandId] + ["CLOSE"]


def part(title: str) -> str:
    """What stands under a heading, with all that is below it."""
    marks = re.search(rf"^(#+) {re.escape(title)}$", PAGE, re.MULTILINE)
    assert marks, title
    rest = PAGE[marks.end() :]
    end = re.search(rf"^#{{1,{len(marks[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def rows(text: str) -> list[list[str]]:
    """The cells of all tables, without their heads and without the signs of code."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads = [number for number, line in enumerate(lines) if line.startswith("| ---")]
    body = [line for number, line in enumerate(lines) if number not in heads and number + 1 not in heads]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in body]


# -- one command


@dataclass(frozen=True)
class Example:
    """A command of the page: who sends it, in which protocol and about which file, its fields and what it says."""

    section: str
    sender: str
    protocol_id: int
    device_path: bytes
    groups: tuple[bytes, ...]
    words: str


def examples() -> list[Example]:
    """All of them."""
    found = []
    for name in NAMES:
        for block in re.findall(r"^```hex (\w+) (\d+) (\S+)\n(.*)\n(.*)\n```$", part(name), re.MULTILINE):
            sender, protocol_id, device_path, digits, words = block
            groups = tuple(bytes.fromhex(group) for group in digits.split())
            found.append(Example(name, sender, int(protocol_id), device_path.encode(), groups, words))
    return found


EXAMPLES = examples()
each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: f"{one.section}-{one.sender}")


def read(example: Example) -> object:
    """The only command in these bytes."""
    decoder = DeviceDecoder() if example.sender == "device" else GatewayDecoder()
    next_one = decoder.next_event if isinstance(decoder, DeviceDecoder) else decoder.next_command
    if example.sender == "device" and example.section != "INIT":
        decoder.feed(init().encode())
        assert next_one() == init()
    decoder.feed(b"".join(example.groups))
    command = next_one()
    assert decoder.buffered_bytes == 0
    return command


@each_example
def test_an_example_is_the_command_and_says_the_words_beneath_it(example: Example) -> None:
    command = read(example)
    unit = unit_of(row_of(example.device_path).offer, example.protocol_id)
    said = explain(command, example.protocol_id, example.device_path, unit)  # type: ignore[arg-type]
    assert f"{said.name} {said.words}".rstrip() == example.words
    assert said.name == example.section
    assert command.encode() == b"".join(example.groups)  # type: ignore[attr-defined]


@each_example
def test_the_fields_of_an_example_are_those_of_its_layout(example: Example) -> None:
    layout = [row for row in rows(part(example.section)) if len(row) == 4 and re.match(r"\d+( \+ n)?$", row[0])]
    sizes = [row[1] for row in layout]
    if "n" in sizes and len(example.groups) < len(sizes):  # an empty field has no group
        sizes.remove("n")
    assert len(sizes) == len(example.groups)
    for size, group in zip(sizes, example.groups, strict=True):
        assert size in ("n", str(len(group)))
    at, rest = 0, ""
    for row in layout:
        assert row[0] == f"{at}{rest}"
        at, rest = (at, " + n") if row[1] == "n" else (at + int(row[1]), rest)


def test_every_command_has_an_example_of_each_side_that_sends_it() -> None:
    device = {c.Init.id.name} | {command.id.name for command in c.FROM_DEVICE.values()}
    gateway = {c.RepeatInit.id.name, "CLOSE"} | {
        command.id.name for command in c.FROM_GATEWAY.values() if command is not c.Close
    }
    assert {example.section for example in EXAMPLES if example.sender == "device"} == device
    assert {example.section for example in EXAMPLES if example.sender == "gateway"} == gateway
    assert len(EXAMPLES) == PAGE.count("```hex ")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("INIT", "REPEAT_INIT")])
def test_the_decoders_refuse_lengths_beyond_the_limits_on_the_page(name: str) -> None:
    limits = re.search(r"^From the ([a-z ]+); length: (\d+)(?: to (\d+))?\.$", part(name), re.MULTILINE)
    assert limits
    senders, shortest, longest = limits[1], int(limits[2]), int(limits[3] or limits[2])
    command_id = next(example.groups[0] for example in EXAMPLES if example.section == name)
    for sender in ("device", "gateway"):
        for length in (shortest - 1, shortest, longest, longest + 1) if sender in senders else ():
            decoder = DeviceDecoder() if sender == "device" else GatewayDecoder()
            next_one = decoder.next_event if isinstance(decoder, DeviceDecoder) else decoder.next_command
            if sender == "device":
                decoder.feed(init().encode())
                next_one()
            if length < 0:
                continue
            decoder.feed(command_id + length.to_bytes(2, "big"))
            if shortest <= length <= longest:
                assert (next_one() is None) is (length > 0)
            else:
                with pytest.raises(FramingError, match="must have a length"):
                    next_one()


def test_the_bits_of_the_settings_are_what_init_reads() -> None:
    bits = [row for row in rows(part("INIT")) if len(row) == 3]
    assert len(bits) == len(c.ALL_OFFERS)
    for bit, name, _ in bits:
        assert [offer.name for offer in init(int(bit, 16) << 24).offers] == [name]


def test_the_codes_of_status_are_what_the_gateway_says() -> None:
    codes = [row for row in rows(part("STATUS")) if len(row) == 2]
    assert {int(code): meaning for code, meaning in codes} == c.STATUS_NAMES


def crc_by_bits(data: bytes, crc: int) -> int:
    """The CRC as the page describes it, a bit at a time."""
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x8408 if crc & 1 else 0)
    return crc


def test_the_check_values_of_the_crc_are_right() -> None:
    values = rows(part("CRC"))
    assert len(values) == 3
    for data, start, crc in values:
        assert crc_by_bits(data.encode(), int(start, 16)) == int(crc, 16)
    assert values[0][2] == values[2][2] == "2189"


@pytest.mark.parametrize("section", ["DATA", "ENHANCED_DATA"])
def test_the_crc_of_data_in_an_example_is_right(section: str) -> None:
    (example,) = (example for example in EXAMPLES if example.section == section)
    assert crc_by_bits(example.groups[-2], 0) == int.from_bytes(example.groups[-1], "big")


# -- families

FAMILIES = [row for row in rows(part("Families")) if len(row) == 10]


@pytest.mark.parametrize("row", FAMILIES, ids=lambda row: row[0])
@pytest.mark.parametrize("protocol_id", [5, 6])
def test_the_families_are_asked_for_and_counted_as_the_page_says(row: list[str], protocol_id: int) -> None:
    """A session is offered such a file."""
    name, family, camera, offered, by, request, _, old_unit, new_unit, stem = row
    bit = int(offered.split("`")[1], 16)
    path = name.encode() if by == "identifier" else f"{'' if name == 'any other' else name}/picture/082640.jpg".encode()
    session = Session(SessionOptions())
    effects = session.receive(init(bit << 24, protocol_id=protocol_id))
    if by == "path":
        assert effects[-1] == fx.Send(c.PathRequest())
        effects = session.receive(c.Path(path + b"\0"))
    assert [send.command.encode() for send in effects if isinstance(send, fx.Send)] == [bytes.fromhex(request)]
    effects = session.receive(c.MetadataResponse(b""))
    assert effects == [fx.Send(c.FileRequest(path if by == "identifier" else path + b"\0"))]
    (opened,) = session.receive(c.Start(3, 0))
    assert isinstance(opened, fx.Open)
    assert (old_unit, new_unit)[protocol_id == 6] == ("packets from 1" if opened.in_packets else "bytes from 0")
    assert (row_of(path).family.value, stem_of(path)) == (family, stem)
    told = row_of(path).camera
    assert camera == (told.value if told else "not told")


def test_the_extensions_are_those_of_stored_files() -> None:
    formats = [row for row in rows(part("Families")) if len(row) == 4]
    for name, kind, extension, media_type in formats:
        path = name if name.startswith("%") else f"dsm/1{name}"
        form = format_of(b"dsm/1" if name == "none of these" else path.encode())
        assert (f".{form.extension}", form.media_type) == (extension, media_type)
        assert (form.kind.value if form.kind else "not told") == kind


# -- conversations


@dataclass(frozen=True)
class Talk:
    """A whole conversation of the page: the traces of its connections, what decode prints, and what is stored."""

    title: str
    traces: tuple[str, ...]
    printed: tuple[str, ...]
    size_bytes: int
    name: str
    sha256: str


def talks() -> list[Talk]:
    """All of them."""
    found = []
    for text in re.split(r"^### ", part("Whole conversations"), flags=re.MULTILINE)[1:]:
        traces = re.findall(r"^```trace\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        printed = re.findall(r"^```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        stored = re.search(r"^Stored: (\d+) bytes for `(.*)`, SHA-256 `(\w+)`\.$", text, re.MULTILINE)
        assert stored and len(traces) == len(printed)
        title = text.partition("\n")[0]
        found.append(Talk(title, tuple(traces), tuple(printed), int(stored[1]), stored[2], stored[3]))
    return found


TALKS = talks()
each_talk = pytest.mark.parametrize("talk", TALKS, ids=lambda talk: talk.title)


def pieces(trace: str) -> list[tuple[str, bytes]]:
    """Who said what, neighbouring lines of one side joined."""
    lines = [line.split() for line in trace.splitlines()]
    return [
        (sender, b"".join(bytes.fromhex(digits) for _, _, digits in group))
        for sender, group in itertools.groupby(lines, key=lambda line: line[1])
    ]


def replay(trace: str, store: MemoryStore, by_byte: bool) -> Conversation:
    """Give in what the device says; after each of its turns the gateway must have said exactly what the page says."""
    talk, due = Conversation(store), b""
    for sender, data in pieces(trace):
        if sender == "device":
            assert talk.sent == due
            for piece in bytewise(data) if by_byte else [data]:
                talk.feed(piece)
        else:
            due += data
            assert talk.sent == due
    assert talk.sent == due
    return talk


def test_the_conversations_are_those_that_a_reader_needs() -> None:
    """A path and an identifier, both generations, damage, and a file on two connections."""
    assert len(TALKS) >= 4
    whole = "".join(text for talk in TALKS for text in talk.printed)
    for sight in ("ENHANCED_DATA", "-- damaged", "identifier %photof", "packet 1 (byte 0)", "protocol 6"):
        assert sight in whole
    assert any(len(talk.traces) == 2 for talk in TALKS)


@each_talk
@pytest.mark.parametrize("by_byte", [False, True])
def test_a_conversation_is_what_a_session_says_and_stores(talk: Talk, by_byte: bool) -> None:
    store = MemoryStore()
    for number, trace in enumerate(talk.traces, 1):
        conversation = replay(trace, store, by_byte)
        if number == len(talk.traces):
            assert conversation.end is not None and not conversation.end.abort
            assert conversation.commands[-1] == c.Close()
        else:
            assert conversation.session.state is State.RECEIVING
            conversation.perform(conversation.session.lost())
    (stored,) = store.stored
    content, device_path = stored["content"], stored["device_path"]
    assert isinstance(content, bytes) and isinstance(device_path, bytes)
    assert (len(content), hashlib.sha256(content).hexdigest()) == (talk.size_bytes, talk.sha256)
    assert talk.name == f"{stem_of(device_path)}.{format_of(device_path).extension}"


@each_talk
def test_decode_prints_of_a_conversation_what_the_page_shows(talk: Talk) -> None:
    for trace, printed in zip(talk.traces, talk.printed, strict=True):
        result = CliRunner().invoke(main, ["decode", "-"], input=trace)
        head, *lines, end = result.stdout.splitlines()
        assert lines == printed.splitlines()
        assert head == "# trace, from both sides" and end.endswith("everything is decoded")
        assert result.exit_code == 0


@each_talk
def test_no_line_of_a_conversation_is_too_long_to_read(talk: Talk) -> None:
    assert max(len(line) for trace in talk.traces for line in trace.splitlines()) <= 120


# -- the page


def test_every_link_leads_somewhere() -> None:
    anchors = {
        re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    }
    for path, anchor in re.findall(r"\]\(([\w./]*)(?:#([\w-]+))?\)", PAGE):
        assert not path or (DOCS / path).is_file(), path
        assert path or anchor in anchors, anchor
