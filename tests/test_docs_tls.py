"""docs/tls.md: its commands run, and the options, events and figures in it are those of the gateway."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from certificate import Authority
from faults import cannot
from OpenSSL.SSL import TLS_METHOD, Connection, Context, OP_NO_TLSv1_3, WantReadError
from OpenSSL.SSL import Error as TLSError
from running import environment, eventually, free_port

from dsmgateway.events import Event
from dsmgateway.settings import OPTIONS, Settings
from dsmgateway.tls_peer import openssl_reason

PAGE = (Path(__file__).parent.parent / "docs" / "tls.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = [line.removeprefix("$ ") for text in BLOCK.findall(PAGE) for line in text.splitlines()]


def test_the_options_exist() -> None:
    known = {f"--{option.name}" for option in OPTIONS} | {"--pidfile", "--logfile"}
    assert set(re.findall(r"(?<![\w-])--[a-z]+[a-z0-9-]*", PAGE)) <= known


def test_the_events_exist() -> None:
    labels = {event.label for event in Event}
    named = {
        name for name in re.findall(r"`([a-z]+\.[a-z_]+)`", PAGE) if name.split(".")[0] in ("tls", "proxy", "reload")
    }
    assert named == {label for label in labels if label.split(".")[0] in ("tls", "proxy", "reload")}


def test_the_ports_are_those_of_the_gateway() -> None:
    assert Settings().ports == ("10014",)


@pytest.mark.parametrize("alert", [42, 45, 46, 48])
def test_the_alerts_of_a_device_are_called_what_openssl_calls_them(alert: int) -> None:
    """OpenSSL has other words for them from version to version."""
    context = Context(TLS_METHOD)
    context.set_options(OP_NO_TLSv1_3)
    device, gateway = Connection(context, None), Connection(_with_certificate(Context(TLS_METHOD)), None)
    device.set_connect_state()
    gateway.set_accept_state()
    with pytest.raises(WantReadError):
        device.do_handshake()
    gateway.bio_write(device.bio_read(1 << 15))
    with pytest.raises(WantReadError):
        gateway.do_handshake()
    gateway.bio_write(bytes([21, 3, 3, 0, 2, 2, alert]))
    with pytest.raises(TLSError) as caught:
        gateway.do_handshake()
    reason = openssl_reason(caught.value)
    assert f"`{reason}`" in PAGE or f"`{reason.replace('sslv3', 'tls')}`" in PAGE


def _with_certificate(context: Context) -> Context:
    authority = Authority()
    context.use_certificate(authority.certificate)
    context.use_privatekey(authority.key)
    return context


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with commands of ours first on the path."""
    commands = tmp_path / "bin"
    commands.mkdir()
    call = "from twisted.scripts.twistd import run; run()"
    (commands / "twistd").write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{call}" "$@"\n')
    (commands / "twistd").chmod(0o755)
    # nc is not on every machine.
    netcat = (
        "import socket, sys; peer = socket.create_connection((sys.argv[2], int(sys.argv[3]))); "
        "peer.sendall(sys.stdin.buffer.read()); peer.shutdown(socket.SHUT_WR); peer.recv(100)"
    )
    (commands / "nc").write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{netcat}" "$@"\n')
    (commands / "nc").chmod(0o755)
    return tmp_path


def test_every_command_runs(place: Path) -> None:
    if not shutil.which("openssl"):
        cannot("openssl is not installed (apt-get install openssl)")
    ports = {number: str(free_port()) for number in ("10014", "10015", "10016")}
    settings = environment(DSMGATEWAY_PORT=ports["10014"], PATH=f"{place / 'bin'}:{os.environ['PATH']}")
    said = {}
    try:
        for command in COMMANDS:
            given = command
            for known, ours in ports.items():
                given = given.replace(known, ours)
            if command.startswith("grep"):
                log = place / command.split()[-1]
                wanted = next(word for word in command.split()[1:] if word != "-e")
                eventually("the line is there", lambda log=log, wanted=wanted: wanted in log.read_text())  # type: ignore[misc]
            done = subprocess.run(
                ["sh", "-c", given], cwd=place, env=settings, capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            said[command] = done.stdout + done.stderr
            for name in re.findall(r"--logfile (\S+)", command):
                log = place / name
                eventually("it starts", lambda log=log: log.exists() and "gateway.started" in log.read_text())  # type: ignore[misc]
    finally:
        for path in place.glob("*.pid"):
            os.kill(int(path.read_text()), signal.SIGTERM)
    assert "Verification: OK" in next(text for command, text in said.items() if "s_client" in command)
    assert "device.disconnected" in said[COMMANDS[-1]]
    eventually("they have stopped", lambda: not list(place.glob("*.pid")))
