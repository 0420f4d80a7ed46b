"""Cameras behind a balancer: PROXY headers on real sockets, plain and before TLS; Debian's HAProxy as etc/ has it."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from balancer import CONFIGURATION, balancer, haproxy
from certificate import Authority
from conftest import IMEI, OTHER_IMEI, content, init
from hand_camera import HandCamera, Picture
from running import (
    RunningGateway,
    assert_stored_exactly_once,
    checked,
    eventually,
    free_port,
    one_process,
    running_gateway,
    simulated,
)

from dsmgateway import commands as c
from dsmgateway.proxy import FAILED_AT_ONCE
from dsmgateway.settings import Settings

V1 = b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 10014\r\n"
V2_LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
PICTURE = Picture(content(20_000))
OTHER_PICTURE = Picture(content(20_000, 2), imei=OTHER_IMEI)


def trusting(folder: Path) -> ssl.SSLContext:
    """A camera's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(folder / "ca.pem")
    return context


@contextmanager
def proxied_gateway(
    folder: Path, *options: str, networks: str = "127.0.0.1", prefix: Sequence[str] = ()
) -> Iterator[tuple[RunningGateway, int]]:
    """A gateway behind balancers, with a plain port and a TLS port, and the number of the latter."""
    authority, port = Authority(), free_port()
    authority.write(folder / "ca.pem")
    authority.issue(folder / "own.pem", "gateway")
    tls = (f"--tls-port=tcp:{port}:interface=127.0.0.1", f"--tls-cert={folder}/own.pem")
    with running_gateway(folder, f"--proxy-protocol={networks}", *tls, *options, prefix=prefix) as gateway:
        yield gateway, port


@pytest.mark.parametrize("version", [1, 2])
def test_files_come_through_haproxy_plain_and_by_tls(tmp_path: Path, version: int) -> None:
    with (
        proxied_gateway(tmp_path) as (gateway, tls_port),
        balancer(tmp_path, gateway.port, tls_port, version) as (plain, secret),
        HandCamera(plain, PICTURE) as camera,
        HandCamera(secret, OTHER_PICTURE, trusting(tmp_path)) as other,
    ):
        ours = {f"127.0.0.1:{one.socket.getsockname()[1]}" for one in (camera, other)}
        assert (camera.deliver(), other.deliver()) == (0, 0)
        assert {row["peer"] for row in gateway.sidecars()} == ours
        assert {row["imei"] for row in gateway.sidecars()} == {str(IMEI), str(OTHER_IMEI)}
        assert not gateway.troubles()
        checked(gateway)


def test_a_camera_that_closes_its_side_is_told_through_haproxy_that_its_file_is_stored(tmp_path: Path) -> None:
    with (
        proxied_gateway(tmp_path) as (gateway, tls_port),
        balancer(tmp_path, gateway.port, tls_port) as (plain, _),
        HandCamera(plain, PICTURE) as camera,
    ):
        camera.begin()
        camera.say(*PICTURE.frames())
        camera.socket.shutdown(socket.SHUT_WR)
        camera.hear(c.RepeatInit)
        assert len(gateway.sidecars()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_a_mixed_fleet_on_bad_links_gets_every_file_through_haproxy(tmp_path: Path, tls: bool) -> None:
    faults = ("--mix", "--corrupt", "0.02", "--cut-every", "40", "--seed", "7")
    with (
        proxied_gateway(tmp_path) as (gateway, tls_port),
        balancer(tmp_path, gateway.port, tls_port, encrypts=True) as entries,
    ):
        report = simulated(gateway, "--to", f"127.0.0.1:{entries[tls]}", "--cameras", "12", "--files", "3", *faults)
        assert_stored_exactly_once(gateway, report)
        assert not gateway.troubles()
        # Links are cut in the middle of DATA, which is asked for when the handshake has long been done.
        assert not gateway.events("tls.failed") and not gateway.events("proxy.failed")
        connected = gateway.events("device.connected")
        assert len(connected) == report["summary"]["connections"] > report["summary"]["faults"]["cut"] > 0
        checked(gateway)


def test_haproxys_checks_are_no_lines_in_the_log(tmp_path: Path) -> None:
    def says_down() -> bool:
        return (tmp_path / "haproxy.log").read_text().count(" DOWN") >= 2

    with (
        proxied_gateway(tmp_path) as (gateway, tls_port),
        balancer(tmp_path, gateway.port, tls_port, check_interval="100ms"),
    ):
        since = gateway.log_end
        time.sleep(1)
        assert gateway.rows(since) == []
        assert not says_down()
        gateway.stop()
        eventually("haproxy's checks find out that the gateway is gone", says_down)


def test_the_configuration_in_etc_is_good_as_it_is() -> None:
    done = subprocess.run([haproxy(), "-c", "-f", str(CONFIGURATION)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "WARNING" not in done.stderr + done.stdout


def test_haproxy_waits_longer_than_the_gateway() -> None:
    lines = [line.split() for line in CONFIGURATION.read_text().splitlines()]
    times = {words[1]: words[2] for words in lines if words[:1] == ["timeout"]}
    assert times["client"] == times["server"] == "5m"
    settings = Settings()
    longest_s = settings.store_timeout + settings.data_timeout * settings.resume_tries
    assert longest_s < 300


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("pieces", [[V1], [V1[:1], V1[1:]], [V1[i : i + 1] for i in range(len(V1))]], ids=len)
def test_a_header_may_come_in_pieces(tmp_path: Path, tls: bool, pieces: list[bytes]) -> None:
    with proxied_gateway(tmp_path) as (gateway, tls_port):
        context = trusting(tmp_path) if tls else None
        with HandCamera(tls_port if tls else gateway.port, PICTURE, context, before=pieces) as camera:
            assert camera.deliver() == 0
        (sidecar,) = gateway.sidecars()
        assert sidecar["peer"] == "192.0.2.7:40000"
        assert gateway.events("device.connected")[0]["peer"] == "192.0.2.7:40000"


def test_header_and_init_may_come_in_one_piece(tmp_path: Path) -> None:
    with (
        proxied_gateway(tmp_path) as (gateway, _),
        HandCamera(gateway.port, PICTURE, before=[V1 + init().encode()]) as camera,
    ):
        camera.hear(c.PathRequest)


def test_a_failed_handshake_is_logged_with_the_real_address(tmp_path: Path) -> None:
    with proxied_gateway(tmp_path) as (gateway, tls_port):
        with HandCamera(tls_port, PICTURE, before=[V1 + b"GET / HTTP/1.1\r\n\r\n"]) as peer:
            peer.hear_the_end()
        assert gateway.wait_for("tls.failed")["peer"] == "192.0.2.7:40000"


def test_a_camera_that_half_closes_under_tls_is_parked(tmp_path: Path) -> None:
    with proxied_gateway(tmp_path) as (gateway, tls_port):
        with HandCamera(tls_port, PICTURE, trusting(tmp_path), before=[V1]) as camera:
            camera.begin()
            camera.say(*PICTURE.frames()[:10])
            camera.socket.shutdown(socket.SHUT_WR)
            camera.hear_the_end()
        gateway.wait_for("file.parked", held=10 * c.PACKET_BYTES)
        gateway.wait_for("device.disconnected")
        assert not gateway.troubles()


@one_process
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_limits_by_address_count_the_address_in_the_header(tmp_path: Path, tls: bool) -> None:
    with proxied_gateway(tmp_path, "--max-connections-per-address=1") as (gateway, tls_port):
        port, context = (tls_port, trusting(tmp_path)) if tls else (gateway.port, None)
        with HandCamera(port, PICTURE, context, before=[V1]) as camera:
            camera.begin()
            with HandCamera(port, OTHER_PICTURE, before=[V1.replace(b" 40000 ", b" 40001 ")]) as crowd:
                assert crowd.hear_the_end() == b""
            with HandCamera(port, OTHER_PICTURE, context, before=[V1.replace(b"192.0.2.7", b"192.0.2.8")]) as other:
                assert other.deliver() == 0
            camera.say(*PICTURE.frames())
            camera.hear(c.RepeatInit)
        gateway.wait_for("device.disconnected", peer="192.0.2.7:40000")
        with HandCamera(port, PICTURE, context, before=[V1]) as again:
            again.offer()
        (hit,) = gateway.events("limit.connections")
        assert (hit["address"], hit["setting"]) == ("192.0.2.7", "max-connections-per-address")
        assert not gateway.troubles() and not gateway.events("tls.failed") and not gateway.events("proxy.failed")


def test_without_a_header_nobody_gets_in_from_a_balancers_network(tmp_path: Path) -> None:
    with proxied_gateway(tmp_path, "--init-timeout=1s") as (gateway, tls_port):
        for port, said in ((gateway.port, init().encode()), (gateway.port, b""), (tls_port, b"\x16\x03\x01")):
            since = gateway.log_end
            with HandCamera(port, PICTURE) as peer:
                peer.try_to_say(said)
                assert peer.hear_the_end() == b""
            failed = gateway.wait_for("proxy.failed", since)
            assert failed["peer"].startswith("127.0.0.1:")
            assert [row["event"] for row in gateway.rows(since)] == ["proxy.failed"]


def test_a_balancer_that_never_sends_a_header_is_said_a_few_times(tmp_path: Path) -> None:
    with proxied_gateway(tmp_path, "--workers=1") as (gateway, _):
        since = gateway.log_end
        for _ in range(20):
            with HandCamera(gateway.port, PICTURE) as peer:
                peer.try_to_say(init())
                assert peer.hear_the_end() == b""
        assert [row["event"] for row in gateway.rows(since)] == ["proxy.failed"] * FAILED_AT_ONCE
        with HandCamera(gateway.port, PICTURE, before=[V1]) as camera:
            assert camera.deliver() == 0


def flood(port: int, count: int, stack: ExitStack) -> list[socket.socket]:
    """Connect so many times at once, and say nothing."""
    held = [stack.enter_context(socket.socket()) for _ in range(count)]
    for one in held:
        one.setblocking(False)
        one.connect_ex(("127.0.0.1", port))
    return held


def has_ended(connection: socket.socket) -> bool:
    """Whether the gateway has ended it already."""
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


@one_process
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_those_without_a_header_cannot_take_all_descriptors(tmp_path: Path, tls: bool) -> None:
    """A camera that is there delivers meanwhile, others do after it; nothing is left of the flood."""
    prefix = ("sh", "-c", 'ulimit -Sn 84 && ulimit -Hn 84 && exec "$@"', "sh")
    with proxied_gateway(tmp_path, "--init-timeout=3", prefix=prefix) as (gateway, tls_port), ExitStack() as stack:
        before = gateway.descriptors
        port, context = (tls_port, trusting(tmp_path)) if tls else (gateway.port, None)
        camera = stack.enter_context(HandCamera(port, PICTURE, context, before=[V1]))
        camera.begin()
        # Many more at a time than there are descriptors, as Twisted takes them.
        held = [one for _ in range(3) for one in flood(port, 200, stack)]
        row = gateway.wait_for("limit.connections")
        assert (row["address"], row["setting"], row["most"]) == ("127.0.0.1", "max-connections", 10)
        camera.say(*PICTURE.frames())
        camera.hear(c.RepeatInit)
        eventually("all have ended", lambda: all(map(has_ended, held)))
        with HandCamera(port, OTHER_PICTURE, context, before=[V1]) as other:
            assert other.deliver() == 0
        assert len(gateway.sidecars()) == 2
        assert b"EMFILE" not in gateway.log_path.read_bytes()
        assert not gateway.troubles()
        assert len(gateway.events("limit.connections")) == 1
        camera.socket.close()
        eventually("its descriptors are back", lambda: gateway.descriptors <= before + 2)


@pytest.mark.parametrize("workers", [1, 2])
def test_those_without_a_header_count_in_all_until_they_are_gone(tmp_path: Path, workers: int) -> None:
    options = (f"--workers={workers}", "--max-connections=4", "--init-timeout=60")
    with proxied_gateway(tmp_path, *options) as (gateway, _), ExitStack() as stack:
        before = gateway.descriptors
        for picture in (PICTURE, OTHER_PICTURE):
            with ExitStack() as full:
                held = [full.enter_context(HandCamera(gateway.port, picture)) for _ in range(4)]
                eventually("they are there", lambda: gateway.descriptors >= before + 4)
                refused = flood(gateway.port, 20, stack)
                eventually("more are refused", lambda held=refused: all(map(has_ended, held)))
                # Whose header comes has its place already.
                held[0].say(V1)
                assert held[0].deliver() == 0
            eventually("their places are free", lambda: gateway.descriptors <= before + 2)
        rows = gateway.events("limit.connections")
        assert {(row["address"], row["setting"], row["most"]) for row in rows} == {("127.0.0.1", "max-connections", 4)}
        assert len(gateway.sidecars()) == 2 and not gateway.troubles() and not gateway.events("proxy.failed")


def test_from_elsewhere_a_header_is_no_init(tmp_path: Path) -> None:
    with proxied_gateway(tmp_path, networks="192.0.2.0/24,2001:db8::/32") as (gateway, tls_port):
        with HandCamera(gateway.port, PICTURE, before=[V1]) as liar:
            liar.try_to_say(init())
            assert liar.hear_the_end() == b""
        assert gateway.wait_for("peer.error")["peer"].startswith("127.0.0.1:")
        with HandCamera(tls_port, PICTURE, before=[V1]) as liar:
            liar.hear_the_end()
        assert gateway.wait_for("tls.failed")["peer"].startswith("127.0.0.1:")
        with HandCamera(gateway.port, PICTURE) as camera:
            assert camera.deliver() == 0


def test_a_balancers_look_is_answered_with_nothing_and_said_nowhere(tmp_path: Path) -> None:
    with proxied_gateway(tmp_path) as (gateway, _):
        descriptors, since = gateway.descriptors, gateway.log_end
        for said in ([], [V2_LOCAL]):
            with HandCamera(gateway.port, PICTURE, before=said) as look:
                look.socket.shutdown(socket.SHUT_WR)
                assert look.hear_the_end() == b""
        assert gateway.rows(since) == []
        eventually("its sockets are closed", lambda: gateway.descriptors == descriptors)


def test_the_gateway_stops_with_connections_that_have_no_header_yet(tmp_path: Path) -> None:
    with proxied_gateway(tmp_path) as (gateway, _), HandCamera(gateway.port, PICTURE, before=[V1[:9]]) as waiting:
        gateway.has_read()
        assert gateway.stop() == 0
        assert waiting.hear_the_end() == b""
        assert not gateway.troubles()
