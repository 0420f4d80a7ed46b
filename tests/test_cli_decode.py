"""The command ``dsmgateway decode`` as an operator meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import content, conversation, init, load_vectors
from running import DSMGATEWAY, environment

from dsmgateway import commands as c
from dsmgateway.cli import main

FILE = content(2500)
STREAM = conversation(FILE)


def run(*arguments: str, stdin: bytes = b"") -> Result:
    """Run ``dsmgateway decode`` in this process."""
    return CliRunner().invoke(main, ["decode", *arguments], input=stdin)


def trace_of(name: str) -> bytes:
    """A vector as the gateway would have traced it."""
    (vector,) = (vector for vector in load_vectors() if vector["name"] == name)
    steps = [step for step in vector["connections"][0]["steps"] if "hex" in step]
    return b"".join(f"{at / 4:.3f} {step['from']} {step['hex']}\n".encode() for at, step in enumerate(steps))


def test_raw_bytes_are_decoded_and_their_direction_is_told(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_bytes(STREAM)
    result = run(str(path))
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert lines[0] == "# raw bytes, from the device (begins with INIT)"
    assert lines[1] == "device  @0        INIT             protocol 5, IMEI 356917000000013, offers FILE"
    assert lines[-1] == "# 9 commands, everything is decoded"


def test_hex_comes_in_by_standard_input() -> None:
    assert (
        run("-", stdin=STREAM.hex(" ", 2).encode()).stdout.splitlines()[1:-1]
        == (run("-", stdin=STREAM).stdout.splitlines()[1:-1])
    )


def test_what_does_not_begin_with_init_is_the_gateways() -> None:
    result = run("-", stdin=c.PathRequest().encode())
    assert result.stdout == (
        "# raw bytes, from the gateway (does not begin with INIT)\n"
        "gateway @0        PATH_REQUEST\n"
        "# 1 command, everything is decoded\n"
    )


def test_the_direction_can_be_given() -> None:
    result = run("-", "--from", "device", stdin=c.PathRequest().encode())
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "# raw bytes, from the device",
        "device  @0        -- stopped       expected INIT, not bytes that begin with 000c0002",
        "device  @0        -- left          6 bytes from here on are not decoded",
        "# 0 commands, not everything could be decoded",
    ]


def test_a_trace_shows_both_sides_with_times_and_a_cut_frame() -> None:
    result = run("-", stdin=trace_of("dsm_truncated_frame"))
    assert result.exit_code == 0
    assert result.stdout.startswith("# trace, from both sides\n    0.000 device  @0        INIT ")
    assert "\n    0.250 gateway @0        PATH_REQUEST\n" in result.stdout
    assert "-- cut frame     580 bytes of a cut frame passed over; what follows is right\n" in result.stdout


def test_of_a_trace_one_side_can_be_shown_and_the_other_still_counts() -> None:
    result = run("-", "--from", "device", stdin=trace_of("dsm_bad_crc"))
    assert result.exit_code == 0
    assert " gateway @" not in result.stdout
    assert "-- dropped" in result.stdout


def test_json_is_an_object_a_line_with_the_same_facts() -> None:
    text, rows = (
        run("-", stdin=STREAM),
        [json.loads(line) for line in run("-", "--json", stdin=STREAM).stdout.splitlines()],
    )
    assert rows[0] == {"kind": "input", "form": "raw bytes", "from": "device", "detected": True}
    assert rows[-1] == {"kind": "end", "commands": 9, "complete": True, "cut": False}
    assert len(rows) == len(text.stdout.splitlines())
    assert rows[4] == {
        "kind": "command",
        "from": "device",
        "offset": 80,
        "bytes": 10,
        "command": "START",
        "size": 2500,
        "crc": 0,
        "unit": "bytes",
    }


def test_an_incomplete_command_at_the_end_exits_with_1() -> None:
    result = run("-", stdin=STREAM[:-3])
    assert result.exit_code == 1
    assert "@2616     -- left          13 bytes of an incomplete command are left\n" in result.stdout


def test_a_trace_that_is_still_being_written_is_decoded_as_far_as_it_goes() -> None:
    result = run("-", stdin=f"0.000 device {init().encode().hex()}\n0.500 gateway 000c0".encode())
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-2:] == [
        "gateway @0        -- left          2 bytes of an incomplete command are left",
        "# 1 command, not everything could be decoded; the trace ends in the middle of a line",
    ]


def test_nothing_at_all_is_decoded_to_nothing() -> None:
    result = run("-")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "# 0 commands, everything is decoded")


@pytest.mark.parametrize(
    ("arguments", "stdin", "complaint"),
    [
        (["no-such-file"], b"", "Error: no-such-file: No such file or directory\n"),
        (["."], b"", "Error: .: Is a directory\n"),
        (["a\x1b[2Jb"], b"", "Error: a\\x1b[2Jb: No such file or directory\n"),
        (["-"], b"00 0", "Error: -: an odd number of hex digits: half a byte is missing\n"),
        (["-"], b"000x", "Error: -: line 1: 'x' is no hex digit\n"),
        (
            ["-", "--from", "camera"],
            b"",
            "Error: Invalid value for '--from': 'camera' is not one of 'device', 'gateway'.\n",
        ),
        ([], b"", "Error: Missing argument 'FILE|-'.\n"),
    ],
)
def test_a_users_error_is_one_line_and_exit_code_2(arguments: list[str], stdin: bytes, complaint: str) -> None:
    result = run(*arguments, stdin=stdin)
    assert (result.exit_code, result.stderr) == (2, complaint)


def test_a_device_cannot_play_with_the_terminal() -> None:
    hostile = init().encode() + c.Path("dsm/\x1b[2J\u202egpj.exe\r\n\0".encode()).encode()
    for options in ([], ["--json"]):
        shown = run("-", *options, stdin=hostile).stdout
        assert shown.isascii() and not set(shown) & {"\x1b", "\r"}


def test_lines_come_out_while_a_pipe_is_still_open() -> None:
    with subprocess.Popen(
        [*DSMGATEWAY, "decode", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"0.000 device " + init().encode().hex().encode() + b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"# trace, from both sides\n"
        assert b"INIT" in process.stdout.readline()
        process.stdin.close()
        assert process.wait(20) == 0


def test_a_reader_that_goes_away_gives_no_traceback() -> None:
    script = f"{sys.executable} -m dsmgateway.cli decode {{}} | head -1"
    trace = trace_of("dsm_two_files")
    process = subprocess.run(
        ["sh", "-c", script.format("-")], input=trace, capture_output=True, env=environment(), check=False
    )
    assert (process.stdout, process.stderr) == (b"# trace, from both sides\n", b"")
