"""The command ``dsmgateway decode``: a file's bytes in, one line a command out.

Opens files, prints and exits; what the bytes are is `dsmgateway.captures`, what they mean `dsmgateway.decode`.
"""

from __future__ import annotations

import io
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click

from dsmgateway.captures import Capture, CaptureError, Piece, read_capture
from dsmgateway.commands import INIT_BYTES
from dsmgateway.decode import Decoding, Direction, Line, direction_of
from dsmgateway.escape import one_line

#: Bytes read at once; with what the decoders hold, all the memory that is used.
_BLOCK_BYTES = 64 * 1024


class InputError(click.ClickException):
    """The input cannot be read: one line, exit code 2."""

    exit_code = 2


@click.command()
@click.argument("file", metavar="FILE|-")
@click.option(
    "--from",
    "sender",
    type=click.Choice([direction.value for direction in Direction]),
    help="Who sent the bytes; told by the first ones when not given. Of a trace: show only this side.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def decode(file: str, sender: str | None, as_json: bool) -> None:
    """Show what a device and the gateway said to each other, one line a command.

    FILE (or - for standard input) is a trace written by the gateway's --trace, or the bytes of one direction, raw or in
    hex as xxd, hexdump -C and Wireshark write it. Exits with 1 when not everything could be decoded.
    """
    show = _JSON if as_json else _TEXT
    only = Direction(sender) if sender else None
    decoding = Decoding()
    try:
        with _opened(file) as stream:
            capture = read_capture(_blocks(stream))
            for text in _report(capture, decoding, only, show):
                click.echo(text)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise InputError(f"{one_line(file)}: {error.strerror}") from None
    except CaptureError as error:
        raise InputError(f"{one_line(file)}: {error}") from None
    if not decoding.complete:
        sys.exit(1)


class _Text:
    """Lines for people; what is about the whole input begins with a ``#``."""

    def line(self, line: Line) -> str:
        return line.to_text()

    def head(self, form: str, sender: Direction | None, told: str) -> str:
        return f"# {form}, from {f'the {sender}' if sender else 'both sides'}{f' ({told})' if told else ''}"

    def end(self, decoding: Decoding, cut: bool) -> str:
        counted = "1 command" if decoding.commands == 1 else f"{decoding.commands} commands"
        how = "everything is decoded" if decoding.complete else "not everything could be decoded"
        return f"# {counted}, {how}{'; the trace ends in the middle of a line' if cut else ''}"


class _Json:
    """One object a line; ``kind`` says which."""

    def line(self, line: Line) -> str:
        return line.to_json()

    def head(self, form: str, sender: Direction | None, told: str) -> str:
        return json.dumps({"kind": "input", "form": form, "from": sender, "detected": bool(told)})

    def end(self, decoding: Decoding, cut: bool) -> str:
        return json.dumps({"kind": "end", "commands": decoding.commands, "complete": decoding.complete, "cut": cut})


_TEXT, _JSON = _Text(), _Json()


def _report(capture: Capture, decoding: Decoding, only: Direction | None, show: _Text | _Json) -> Iterator[str]:
    """Yield the lines to print."""
    pieces, sender, told = capture.pieces, only, ""
    if capture.form != "trace" and sender is None:
        head, pieces = _head(pieces)
        sender = direction_of(head)
        told = "begins with INIT" if sender is Direction.DEVICE else "does not begin with INIT"
    yield show.head(capture.form, sender, told)
    cut = False
    for piece in pieces:
        cut = cut or piece.cut
        for line in decoding.feed(piece.direction or sender or Direction.DEVICE, piece.data, piece.time):
            if only in (None, line.direction):
                yield show.line(line)
    for line in decoding.finish():
        if only in (None, line.direction):
            yield show.line(line)
    decoding.complete = decoding.complete and not cut
    yield show.end(decoding, cut)


def _head(pieces: Iterator[Piece]) -> tuple[bytes, Iterator[Piece]]:
    """Return the first bytes, and all pieces."""
    first: list[Piece] = []
    head = b""
    for piece in pieces:
        first.append(piece)
        head += piece.data
        if len(head) >= INIT_BYTES:
            break
    return head[:INIT_BYTES], itertools.chain(first, pieces)


def _opened(file: str) -> BinaryIO:
    return sys.stdin.buffer if file == "-" else Path(file).open("rb")


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    """Yield what there is as soon as it is there, so that a pipe is decoded while it grows."""
    while block := stream.read1(_BLOCK_BYTES) if isinstance(stream, io.BufferedReader) else stream.read(_BLOCK_BYTES):
        yield block
