"""The command ``dsmgateway simulate``: its options in this process, whole runs against a real gateway in another."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from running import DSMGATEWAY, environment, free_port, running_gateway

from dsmgateway.cli import main


def simulate(*options: str) -> Result:
    return CliRunner().invoke(main, ["simulate", *options])


def simulate_apart(folder: Path, port: int, *options: str) -> tuple[int, dict[str, object], str]:
    """Run the command in a process of its own; return its exit code, its JSON, and what it printed."""
    result = folder / "result.json"
    command = [*DSMGATEWAY, "simulate", "--to", f"127.0.0.1:{port}", "--json", str(result), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment(), check=False)
    return done.returncode, json.loads(result.read_text("utf-8")), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "Missing option '--to'"),
        (["--to", "gateway"], "'gateway' is not HOST:PORT"),
        (["--to", ":10014"], "':10014' is not HOST:PORT"),
        (["--to", "gateway:0"], "'gateway:0' is not HOST:PORT"),
        (["--to", "gateway:70000"], "'gateway:70000' is not HOST:PORT"),
        (["--to", "gateway:port"], "'gateway:port' is not HOST:PORT"),
        (["--to", "h:1", "--corrupt", "1.5"], "1.5 is not in the range 0<=x<=1"),
        (["--to", "h:1", "--truncate", "much"], "'much' is not a valid float"),
        (["--to", "h:1", "--corrupt", "0.7", "--truncate", "0.7"], "1 or less together"),
        (["--to", "h:1", "--cameras", "0"], "0 is not in the range x>=1"),
        (["--to", "h:1", "--cameras", "2000000"], "cameras have the numbers"),
        (["--to", "h:1", "--files", "0"], "0 is not in the range x>=1"),
        (["--to", "h:1", "--size", "9k-1k"], "sizes must go from 1 or more bytes upwards"),
        (["--to", "h:1", "--size", "1k-"], "'' is not a number of bytes"),
        (["--to", "h:1", "--rate", "fast"], "'fast' is not a number of bytes"),
        (["--to", "h:1", "--start-crc", "maybe"], "'maybe' is not one of"),
        (["--to", "h:1", "--video-size", "2M-1M"], "sizes must go from 1 or more bytes upwards"),
        (["--to", "h:1", "--video-size", "big"], "'big' is not a number of bytes"),
        (["--to", "h:1", "--patience", "-1"], "-1.0 is not in the range x>=0"),
        (["--to", "h:1", "--swap", "2"], "2.0 is not in the range 0<=x<=1"),
        (["--to", "h:1", "--family", "unknown"], "'unknown' is not one of"),
        (["--to", "h:1", "--family", "dsm", "--family", "dsm"], "each of them once"),
        (["--to", "h:1", "--protocol", "70000"], "the protocol id must be 0 to 65535"),
        (["--to", "h:1", "--protocol", "5", "--enhanced"], "ENHANCED_DATA is sent from protocol 6 on"),
        (["--to", "h:1", "--enhanced", "mix"], "ENHANCED_DATA is sent from protocol 6 on"),
        (["--to", "h:1", "--enhanced", "--count-packets", "--protocol", "6"], "does not go with counting packets"),
        (["--to", "h:1", "--mix", "--family", "adas"], "a mixed fleet draws its trackers"),
        (["--to", "h:1", "--mix", "--count-packets"], "a mixed fleet draws its trackers"),
        (["--to", "h:1", "--mix", "--protocol", "6"], "a mixed fleet draws its trackers"),
        (["--to", "h:1", "--mix", "--protocol", "5"], "a mixed fleet draws its trackers"),
        (["--to", "h:1", "--mix", "--family", "dsm"], "a mixed fleet draws its trackers"),
        (["--to", "h:1", "--mix", "--enhanced", "never"], "a mixed fleet draws its trackers"),
    ],
)
def test_wrong_options_are_told_in_one_line(options, complaint):
    """Whatever is wrong with an option, the command says so in one line and ends with 2."""
    result = simulate(*options)
    assert result.exit_code == 2
    assert complaint in result.output
    assert len(result.output.splitlines()) == 1


def test_pictures_that_cannot_be_used_are_told_in_one_line(tmp_path):
    """A picture must be a file that can be read and has something in it."""
    (tmp_path / "empty.jpg").touch()
    for name, complaint in (("none.jpg", "No such file"), (".", "Is a directory"), ("empty.jpg", "is empty")):
        result = simulate("--to", "h:1", "--picture", str(tmp_path / name))
        assert (result.exit_code, len(result.output.splitlines())) == (2, 1)
        assert complaint in result.output


def test_pictures_that_no_camera_of_the_fleet_takes_are_told_in_one_line(tmp_path):
    """A DSM camera takes no videos, and a DualCam's are no MP4."""
    (tmp_path / "clip.mp4").write_bytes(b"x")
    for family in ("dsm", "dualcam"):
        result = simulate("--to", "h:1", "--family", family, "--picture", str(tmp_path / "clip.mp4"))
        assert (result.exit_code, result.output) == (
            2,
            "Error: the picture clip.mp4: these cameras take no such files\n",
        )


def test_the_help_says_defaults_as_one_would_write_them():
    """No default looks like a tuple of Python."""
    assert "default: (" not in " ".join(simulate("--help").output.split())


def test_result_that_cannot_be_written_is_told_before_the_run():
    """A run whose result would be lost does not begin."""
    result = simulate("--to", "h:1", "--json", "/nowhere/result.json")
    assert (result.exit_code, len(result.output.splitlines())) == (2, 1)
    assert "cannot write the result to /nowhere/result.json" in result.output


def test_unknown_command_is_told_in_one_line():
    """A command that does not exist is named."""
    result = CliRunner().invoke(main, ["simulates"])
    assert (result.exit_code, len(result.output.splitlines())) == (2, 1)


def test_gateway_that_is_not_there_is_told_in_one_line(tmp_path):
    """Cameras that can never connect give up, say why once, and end with 1."""
    code, result, output = simulate_apart(
        tmp_path, free_port(), "--cameras", "3", "--attempts", "2", "--reconnect-delay", "0.05"
    )
    assert code == 1
    assert len(output.splitlines()) == 1
    assert "Connection refused" in output
    assert result["summary"]["acknowledged"] == 0
    assert len(result["files"]) == 3


def test_a_camera_leaves_a_gateway_that_says_nothing(tmp_path):
    """Its patience can be chosen; with the default nobody would wait for the end of this."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        options = ("--patience", "0.1", "--attempts", "2", "--reconnect-delay", "0")
        code, result, output = simulate_apart(tmp_path, mute.getsockname()[1], *options)
    assert code == 1
    assert "the gateway was silent for too long" in output
    assert result["cameras"][0]["connections"] == 2


def identity(row: dict[str, object]) -> tuple[object, ...]:
    return row["imei"], row["device_path"], row["size"], row["sha256"]


def test_cameras_with_all_faults_deliver_everything_once(tmp_path):
    """Twenty cameras whose links cut, stall, corrupt and truncate: each file is stored whole, and only once."""
    faults = "--corrupt 0.01 --truncate 0.02 --cut-every 60 --silent-cut --rewind 0.05 --stall 0.3 --rate 200k"
    with running_gateway(tmp_path) as gateway:
        options = ["--cameras", "20", "--files", "2", "--seed", "11", "--reconnect-delay", "0.2", "--timeout", "200"]
        code, result, output = simulate_apart(tmp_path, gateway.port, *options, *faults.split())
        assert code == 0, output
        assert gateway.stop() == 0
        stored = gateway.sidecars()
    assert sorted(map(identity, stored)) == sorted(map(identity, result["files"]))
    assert set(result["summary"]["faults"]) >= {"corrupt", "truncate", "cut", "stall"}
    assert result["summary"]["reconnects"] >= 10
    assert {row["bytes_never_sent"] for row in result["files"]} == {0}


def test_trackers_are_what_the_options_say(tmp_path):
    """Family, protocol, frames and sizes reach the cameras, and the result tells of them file by file."""
    options = "--family adas --family dashcam --protocol 7 --enhanced mix --size 2k --video-size 9k"
    with running_gateway(tmp_path) as gateway:
        code, result, output = simulate_apart(tmp_path, gateway.port, "--cameras=2", "--files=4", *options.split())
        assert code == 0, output
        stored = gateway.sidecars()
    assert sorted(map(identity, stored)) == sorted(map(identity, result["files"]))
    assert {(row["family"], row["protocol"]) for row in result["files"]} == {("adas", 7), ("dashcam", 7)}
    assert {(row["size"], "video" in row["device_path"]) for row in result["files"]} == {(2000, False), (9000, True)}
    assert "adas" in output and "4 of 4" in output


def test_files_offered_again_are_not_sent_again(tmp_path):
    """The same cameras a second time: everything is acknowledged, nothing is stored twice, JSON goes to the output."""
    options = ["--cameras", "3", "--files", "2", "--start-crc", "always", "--seed", "5"]
    with running_gateway(tmp_path) as gateway:
        assert simulate_apart(tmp_path, gateway.port, *options)[0] == 0
        command = [*DSMGATEWAY, "simulate", "--to", f"localhost:{gateway.port}", "--json", "-", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(), check=False)
        assert done.returncode == 0, done.stderr
        stored = gateway.sidecars()
    result = json.loads(done.stdout)
    assert result["summary"]["good"]
    assert result["summary"]["bytes_sent"] <= 6 * 1024
    assert sorted(map(identity, stored)) == sorted(map(identity, result["files"]))


def test_demo_shows_fifteen_pictures(tmp_path):
    """The demo draws, sends, compares and decodes its pictures and leaves them where it was told to."""
    keep = tmp_path / "demo"
    command = [*DSMGATEWAY[:-1], "dsmgateway.simulator.demo", "--keep", str(keep)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment(), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "15 of 15 pictures are stored" in done.stdout
    assert len(list((keep / "data" / "media").rglob("*.jpg"))) == 15
    again = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(), check=False)
    assert again.returncode == 1
    assert "is there already" in again.stderr
