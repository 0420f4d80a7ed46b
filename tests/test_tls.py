"""TLS ports of a real gateway, with cameras that speak real TLS: certificates right, wrong and new; and garbage."""

from __future__ import annotations

import os
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from certificate import Authority
from conftest import IMEI, OTHER_IMEI, content, init
from cryptography import x509
from hand_camera import HandCamera, Picture
from running import RunningGateway, checked, eventually, free_port, running_gateway

from dsmgateway import commands as c
from dsmgateway.tls_peer import MAX_HANDSHAKE_BYTES

PICTURE = Picture(content(20_000))
OTHER_PICTURE = Picture(content(20_000, 2), imei=OTHER_IMEI)


@dataclass
class House:
    """A folder with the gateway's certificate, and the authority that signs those of the cameras."""

    folder: Path
    authority: Authority

    @property
    def options(self) -> list[str]:
        return [f"--tls-cert={self.folder}/own.pem"]

    @property
    def asks_for_certificates(self) -> list[str]:
        return [*self.options, f"--tls-client-ca={self.authority.write(self.folder / 'fleet.pem')}"]

    def renew(self, name: str) -> None:
        """A new certificate for the gateway, put in place in one go."""
        self.authority.issue(self.folder / "new.pem", name).rename(self.folder / "own.pem")

    def context(self, certificate: Path | None = None) -> ssl.SSLContext:
        """A camera's side of TLS, with a certificate of its own or without."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=self.authority.write(self.folder / "fleet.pem").read_text())
        if certificate is not None:
            context.load_cert_chain(certificate)
        return context


@pytest.fixture
def house(tmp_path: Path) -> House:
    authority = Authority()
    authority.issue(tmp_path / "own.pem", "gateway one")
    return House(tmp_path, authority)


@contextmanager
def tls_gateway(house: House, *options: str) -> Iterator[tuple[RunningGateway, int]]:
    """A gateway with a plain port and a TLS port, and the number of the latter."""
    port = free_port()
    with running_gateway(house.folder, f"--tls-port=tcp:{port}:interface=127.0.0.1", *options) as gateway:
        yield gateway, port


def shown_name(camera: HandCamera) -> str:
    """The common name in the certificate that the gateway has shown."""
    assert isinstance(camera.socket, ssl.SSLSocket)
    shown = camera.socket.getpeercert()
    assert shown is not None
    return str(dict(pair for rdn in shown["subject"] for pair in rdn)["commonName"])  # type: ignore[union-attr, misc]


def refused(house: House, port: int, certificate: Path | None) -> None:
    """A camera with this certificate, or none, is told nothing."""
    with pytest.raises(OSError):  # the handshake, or with TLS 1.3 what comes after it  # noqa: SIM117
        with HandCamera(port, PICTURE, house.context(certificate)) as camera:
            camera.say(init())
            assert camera.socket.recv(100) == b""
            raise ConnectionError


# -- plain and TLS


def test_files_come_by_tls_and_plain_side_by_side(house: House) -> None:
    with tls_gateway(house, *house.options) as (gateway, port):
        with (
            HandCamera(gateway.port, OTHER_PICTURE) as plain,
            HandCamera(port, PICTURE, house.context()) as secret,
        ):
            plain.begin()
            assert secret.deliver() == 0
            assert secret.socket.version() == "TLSv1.3"  # type: ignore[attr-defined]
            plain.say(*OTHER_PICTURE.frames())
            plain.hear(c.RepeatInit)
        assert {row["imei"] for row in gateway.sidecars()} == {str(IMEI), str(OTHER_IMEI)}
        (listening,) = (row for row in gateway.events("port.listening") if row["endpoint"].startswith("tls:"))
        assert listening["address"] == f"127.0.0.1:{port}"
        (shown,) = gateway.events("tls.certificate")
        assert (shown["file"], shown["names"]) == (f"{house.folder}/own.pem", ["gateway one"])
        assert not gateway.events("tls.failed") and not gateway.troubles()
        checked(gateway)


def test_tls_is_an_endpoint_like_any_other(house: House) -> None:
    port = free_port()
    options = [f"--port=tls:{port}:interface=127.0.0.1", *house.options]
    with running_gateway(house.folder, *options) as gateway, HandCamera(port, PICTURE, house.context()) as camera:
        assert camera.deliver() == 0
        assert len(gateway.sidecars()) == 1


@contextmanager
def ssl_gateway(house: House, *options: str) -> Iterator[tuple[RunningGateway, int]]:
    """The same with Twisted's own TLS."""
    port = free_port()
    option = f"--port=ssl:{port}:interface=127.0.0.1:privateKey={house.folder}/own.pem"
    gateway = RunningGateway(house.folder, option, *options)
    gateway.command[1:1] = ["-W", "ignore:Passing pyOpenSSL:DeprecationWarning"]
    gateway.command[1:5] = [*gateway.command[3:5], *gateway.command[1:3]]  # the last word counts
    try:
        yield gateway.start(), port
    finally:
        gateway.kill()


def test_twisteds_own_ssl_endpoint_works_too_and_logs_a_failed_handshake(house: House) -> None:
    with ssl_gateway(house, "--max-connections-per-address=1") as (gateway, port):
        with HandCamera(port, PICTURE, house.context()) as camera:
            camera.begin()
            with pytest.raises(OSError), HandCamera(port, OTHER_PICTURE, house.context()):
                pass
            camera.say(*PICTURE.frames())
            camera.hear(c.RepeatInit)
        gateway.wait_for("device.disconnected")
        with HandCamera(port, PICTURE) as plain:
            plain.say(init())
            plain.hear_the_end()
        assert gateway.wait_for("tls.failed")["reason"]
        assert len(gateway.events("limit.connections")) == 1 and not gateway.troubles()


def test_what_a_handshake_takes_has_the_same_bound_on_an_ssl_endpoint(house: House) -> None:
    hello = b"\x01" + (131_000).to_bytes(3, "big") + b"\x03\x03" + bytes(131_000)
    records = b"".join(b"\x16\x03\x01\x10\x00" + hello[at : at + 4096] for at in range(0, 131_072 - 4096, 4096))
    assert len(records) > 2 * MAX_HANDSHAKE_BYTES
    with ssl_gateway(house) as (gateway, port):
        with HandCamera(port, PICTURE) as peer:
            peer.try_to_say(records)
            assert peer.hear_the_end() == b""
        reason = gateway.wait_for("tls.failed")["reason"]
        assert reason == f"its handshake takes more than {MAX_HANDSHAKE_BYTES} bytes"
        with HandCamera(port, PICTURE, house.context()) as camera:
            assert camera.deliver() == 0
        assert not gateway.troubles()


def test_a_connection_that_is_one_too_many_ends_before_its_handshake(house: House) -> None:
    with tls_gateway(house, *house.options, "--max-connections-per-address=1") as (gateway, port):
        with HandCamera(port, PICTURE, house.context()) as camera:
            camera.begin()
            for _ in range(3):
                with suppress(ConnectionResetError), HandCamera(port, OTHER_PICTURE) as refused:
                    assert refused.hear_the_end() == b""
            camera.say(*PICTURE.frames())
            camera.hear(c.RepeatInit)
        gateway.wait_for("device.disconnected")
        with HandCamera(port, OTHER_PICTURE, house.context()) as other:
            assert other.deliver() == 0
        assert len(gateway.events("limit.connections")) == 1
        assert not gateway.events("tls.failed") and not gateway.troubles()


def test_a_chain_is_shown_up_to_the_authority(house: House) -> None:
    between = Authority("between", house.authority)
    leaf = between.issue(house.folder / "leaf.pem", "chained").read_bytes()
    (house.folder / "own.pem").write_bytes(leaf + between.write(house.folder / "between.pem").read_bytes())
    with tls_gateway(house, *house.options) as (_, port), HandCamera(port, PICTURE, house.context()) as camera:
        assert shown_name(camera) == "chained"


def test_a_key_may_be_in_a_file_of_its_own(house: House) -> None:
    text = (house.folder / "own.pem").read_text()
    at = text.index("-----BEGIN CERTIFICATE")
    (house.folder / "own.key").touch(mode=0o640)
    (house.folder / "own.key").write_text(text[:at])
    (house.folder / "own.pem").write_text(text[at:])
    (house.folder / "own.pem").chmod(0o644)
    with tls_gateway(house, *house.options, f"--tls-key={house.folder}/own.key") as (_, port):  # noqa: SIM117
        with HandCamera(port, PICTURE, house.context()) as camera:
            assert camera.deliver() == 0


@pytest.mark.parametrize(
    ("option", "version", "offered", "agreed"),
    [
        ("--tls-minimum=1.2", ssl.TLSVersion.TLSv1_2, "ALL", True),
        ("--tls-minimum=1.3", ssl.TLSVersion.TLSv1_2, "ALL", False),
        ("--tls-minimum=1.3", ssl.TLSVersion.TLSv1_3, "ALL", True),
        ("--tls-ciphers=ECDHE-ECDSA-AES128-GCM-SHA256", ssl.TLSVersion.TLSv1_2, "AES128-GCM-SHA256", True),
        ("--tls-ciphers=ECDHE-ECDSA-AES128-GCM-SHA256", ssl.TLSVersion.TLSv1_2, "AES256-GCM-SHA384", False),
    ],
)
def test_versions_and_ciphers_are_those_that_are_set(
    house: House, option: str, version: ssl.TLSVersion, offered: str, agreed: bool
) -> None:
    context = house.context()
    context.minimum_version = context.maximum_version = version
    context.set_ciphers(offered if offered == "ALL" else f"ECDHE-ECDSA-{offered}")
    with tls_gateway(house, *house.options, option) as (gateway, port):
        if agreed:
            with HandCamera(port, PICTURE, context) as camera:
                assert camera.deliver() == 0
        else:
            with pytest.raises(ssl.SSLError):
                HandCamera(port, PICTURE, context)
            reason = gateway.wait_for("tls.failed")["reason"]
            assert reason in ("unsupported protocol", "no shared cipher")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_device_may_ask_for_an_application_protocol_and_is_not_answered(
    house: House, version: ssl.TLSVersion
) -> None:
    context = house.context()
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["camera/1", "http/1.1"])
    with tls_gateway(house, *house.options) as (gateway, port), HandCamera(port, PICTURE, context) as camera:
        assert camera.socket.selected_alpn_protocol() is None  # type: ignore[attr-defined]
        assert camera.deliver() == 0
        assert not gateway.events("tls.failed") and not gateway.troubles()


# -- certificates of cameras


def test_a_camera_gets_in_only_with_a_certificate_of_the_authority(house: House) -> None:
    good = house.authority.issue(house.folder / "good.pem", "a camera")
    wrong = {
        "peer did not return a certificate": None,
        "its certificate: cert has expired": house.authority.issue(house.folder / "old.pem", "a camera", days=-1),
        "its certificate: unable to get issuer cert locally": Authority("someone").issue(house.folder / "x.pem", "x"),
    }
    with tls_gateway(house, *house.asks_for_certificates) as (gateway, port):
        for certificate in wrong.values():
            refused(house, port, certificate)
        with HandCamera(port, PICTURE, house.context(good)) as camera:
            assert camera.deliver() == 0
        gateway.wait_for("device.disconnected")
        reasons = {row["reason"] for row in gateway.events("tls.failed")}
        assert len(gateway.events("device.connected")) == len(gateway.sidecars()) == 1
        assert len(gateway.events("device.disconnected")) == 1
        assert reasons == set(wrong)
        assert not gateway.troubles()


@pytest.mark.parametrize(
    ("name", "names"),
    [
        (str(IMEI), []),
        ("camera 7", [x509.DNSName(str(IMEI))]),
        (None, [x509.DNSName("vehicle.example"), x509.UniformResourceIdentifier(str(IMEI))]),
    ],
)
def test_a_camera_whose_certificate_names_its_imei_gets_in(
    house: House, name: str | None, names: list[x509.GeneralName]
) -> None:
    certificate = house.authority.issue(house.folder / "camera.pem", name, names)
    with tls_gateway(house, *house.asks_for_certificates, "--tls-match-imei") as (gateway, port):
        with HandCamera(port, PICTURE, house.context(certificate)) as camera:
            assert camera.deliver() == 0
        assert len(gateway.sidecars()) == 1


def test_a_camera_with_the_certificate_of_another_is_refused_and_takes_over_nothing(house: House) -> None:
    own = house.authority.issue(house.folder / "camera.pem", str(IMEI))
    others = house.authority.issue(house.folder / "others.pem", str(OTHER_IMEI), [x509.DNSName("vehicle.example")])
    with tls_gateway(house, *house.asks_for_certificates, "--tls-match-imei") as (gateway, port):
        with HandCamera(port, PICTURE, house.context(own)) as camera:
            camera.begin()
            camera.say(*PICTURE.frames()[:5])
            refused(house, port, others)
            warning = gateway.wait_for("tls.other_device")
            assert (warning["said"], warning["names"]) == (str(IMEI), [str(OTHER_IMEI), "vehicle.example"])
            assert (warning["level"], warning["state"]) == ("warn", "await_init")
            camera.say(*PICTURE.frames()[5:])
            camera.hear(c.RepeatInit)
        assert not gateway.events("device.taken_over") and len(gateway.events("device.connected")) == 1
        gateway.wait_for("device.disconnected", reason="its certificate is another device's")
        assert not gateway.troubles()


def test_of_a_certificate_full_of_names_the_log_has_a_few(house: House) -> None:
    names = [x509.DNSName("x" * 200), *(x509.DNSName(f"{number:015d}") for number in range(1200))]
    full = house.authority.issue(house.folder / "full.pem", "vehicle", [*names, x509.DNSName(str(IMEI))])
    with tls_gateway(house, *house.asks_for_certificates, "--tls-match-imei") as (gateway, port):
        refused(house, port, house.authority.issue(house.folder / "x.pem", "vehicle", names))
        shown = gateway.wait_for("tls.other_device")["names"]
        assert shown[:3] == ["vehicle", "x" * 100 + "...", "000000000000000"]
        assert len(shown) == 11 and shown[10] == "... and 1192 more"
        with HandCamera(port, PICTURE, house.context(full)) as camera:
            assert camera.deliver() == 0  # all of them count
        assert not gateway.troubles()


def test_who_shows_the_certificate_of_another_is_not_put_before_an_operator(house: House) -> None:
    own = house.authority.issue(house.folder / "own-device.pem", str(IMEI))
    options = (*house.asks_for_certificates, "--tls-match-imei", "--admission=approve")
    with tls_gateway(house, *options) as (gateway, port):
        with HandCamera(port, OTHER_PICTURE, house.context(own)) as liar:
            liar.say(init(imei=OTHER_IMEI))
            assert liar.hear_the_end() == b""
        gateway.wait_for("tls.other_device", said=str(OTHER_IMEI))
        with HandCamera(port, PICTURE, house.context(own)) as camera:
            camera.say(init())
            camera.hear(c.Close)
        assert [row["imei"] for row in gateway.events("device.refused")] == [str(IMEI)]
        assert not gateway.troubles()


# -- garbage and silence


RDP = bytes.fromhex("030000130ee000000000000100080003000000")


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        RDP,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        init().encode(),
        b"\x16\x03\x01\x02\x00\x01" + bytes(600),
        bytes(70_000),
    ],
    ids=["nothing", "RDP", "HTTP", "INIT", "half a hello", "zeros"],
)
def test_garbage_on_a_tls_port_is_one_line_and_costs_nothing(house: House, garbage: bytes) -> None:
    with tls_gateway(house, *house.options, "--init-timeout=30s") as (gateway, port):
        descriptors, since = gateway.descriptors, gateway.log_end
        with HandCamera(port, PICTURE) as peer:
            peer.try_to_say(garbage)
            peer.socket.shutdown(socket.SHUT_WR)
            peer.hear_the_end()
        failed = gateway.wait_for("tls.failed", since)
        assert failed["peer"].startswith("127.0.0.1:") and failed["level"] == "info"
        assert not failed["reason"].startswith("["), failed
        eventually("its socket is closed", lambda: gateway.descriptors == descriptors)
        assert [row["event"] for row in gateway.rows(since)] == ["tls.failed"]


def test_a_peer_that_never_shakes_hands_ends_after_init_timeout(house: House) -> None:
    with tls_gateway(house, *house.options, "--init-timeout=1s") as (gateway, port):
        for begun in (b"", b"\x16\x03\x01\x02\x00"):
            since = gateway.log_end
            with HandCamera(port, PICTURE) as peer:
                peer.say(begun)
                peer.hear_the_end()
            gateway.wait_for("tls.failed", since, reason="silence")
            assert [row["event"] for row in gateway.rows(since)] == ["session.silent", "tls.failed"]


def test_a_peer_that_shakes_hands_and_says_nothing_ends_after_init_timeout(house: House) -> None:
    with tls_gateway(house, *house.options, "--init-timeout=1s") as (gateway, port):
        with HandCamera(port, PICTURE, house.context()) as peer:
            peer.hear_the_end()
        gateway.wait_for("device.disconnected", reason="silence")
        assert not gateway.events("tls.failed")


@pytest.mark.parametrize("politely", [True, False], ids=["close_notify", "FIN"])
def test_a_camera_that_closes_while_its_file_is_under_way_goes_on_later(house: House, politely: bool) -> None:
    with tls_gateway(house, *house.options) as (gateway, port):
        with HandCamera(port, PICTURE, house.context()) as camera:
            camera.begin()
            camera.say(*PICTURE.frames()[:10])
            if politely:
                camera.socket.unwrap()  # type: ignore[attr-defined]
            camera.socket.shutdown(socket.SHUT_WR)
            camera.hear_the_end()
        gateway.wait_for("file.parked", held=10 * c.PACKET_BYTES)
        gateway.wait_for("device.disconnected")
        with HandCamera(port, PICTURE, house.context()) as camera:
            assert camera.deliver() == 10 * c.PACKET_BYTES
        assert not gateway.troubles()
        checked(gateway)


def test_a_camera_that_closes_right_after_its_last_byte_has_its_file_stored(house: House) -> None:
    with tls_gateway(house, *house.options) as (gateway, port):
        with HandCamera(port, PICTURE, house.context()) as camera:
            camera.begin()
            camera.say(*PICTURE.frames())
            camera.socket.shutdown(socket.SHUT_WR)
        gateway.wait_for("file.stored")
        assert len(gateway.sidecars()) == 1 and not gateway.troubles()


# -- new certificates


def test_sighup_brings_a_new_certificate_for_new_connections_only(house: House) -> None:
    with tls_gateway(house, *house.options) as (gateway, port):
        with HandCamera(port, PICTURE, house.context()) as camera:
            camera.begin()
            camera.say(*PICTURE.frames()[:10])
            house.renew("gateway two")
            since = gateway.log_end
            os.kill(gateway.pid, signal.SIGHUP)
            assert gateway.wait_for("tls.certificate", since)["names"] == ["gateway two"]
            with HandCamera(port, OTHER_PICTURE, house.context()) as other:
                assert shown_name(other) == "gateway two"
                assert other.deliver() == 0
            camera.say(*PICTURE.frames()[10:])
            camera.hear(c.RepeatInit)
        assert len(gateway.sidecars()) == 2 and not gateway.troubles()


def test_a_broken_new_certificate_is_one_line_and_the_old_one_is_kept(house: House) -> None:
    good = (house.folder / "own.pem").read_text()
    with tls_gateway(house, *house.options) as (gateway, port):
        for broken, problem in (
            ("", "no certificate in PEM form in it"),
            (good[: good.index("-----BEGIN CERT")], "no certificate in PEM form in it"),
            (good[good.index("-----BEGIN CERT") :], "no private key in PEM form in it"),
        ):
            (house.folder / "own.pem").write_text(broken)
            since = gateway.log_end
            os.kill(gateway.pid, signal.SIGHUP)
            failed = gateway.wait_for("reload.failed", since)
            assert (failed["level"], failed["reason"]) == ("error", f"file {house.folder}/own.pem: {problem}")
            assert [row["event"] for row in gateway.rows(since)] == ["reload.failed"]
            with HandCamera(port, PICTURE, house.context()) as camera:
                assert shown_name(camera) == "gateway one"
            gateway.wait_for("device.disconnected", since)
        assert gateway.stop() == 0


def test_sighup_brings_new_authorities_too(house: House) -> None:
    newcomers = Authority("newcomers")
    old = house.authority.issue(house.folder / "old.pem", "an old camera")
    new = newcomers.issue(house.folder / "new.pem", "a new camera")
    with tls_gateway(house, *house.asks_for_certificates) as (gateway, port):
        ours = house.context(old), house.context(new)
        with HandCamera(port, PICTURE, ours[0]) as camera:
            camera.begin()
            newcomers.write(house.folder / "fleet.pem")
            since = gateway.log_end
            os.kill(gateway.pid, signal.SIGHUP)
            gateway.wait_for("tls.certificate", since)
            with HandCamera(port, OTHER_PICTURE, ours[1]) as other:
                assert other.deliver() == 0
            camera.say(*PICTURE.frames())
            camera.hear(c.RepeatInit)
        with pytest.raises(OSError), HandCamera(port, PICTURE, ours[0]) as late:
            assert late.socket.recv(100) == b""
            raise ConnectionError
        assert "cert" in gateway.wait_for("tls.failed")["reason"]
        assert len(gateway.sidecars()) == 2


def test_a_new_certificate_without_its_key_is_not_used(house: House) -> None:
    (house.folder / "own.pem").rename(house.folder / "key.pem")
    (house.folder / "own.pem").write_bytes((house.folder / "key.pem").read_bytes())
    with tls_gateway(house, *house.options, f"--tls-key={house.folder}/key.pem") as (gateway, port):
        house.renew("gateway two")
        os.kill(gateway.pid, signal.SIGHUP)
        assert "its private key is not that of the certificate in" in gateway.wait_for("reload.failed")["reason"]
        with HandCamera(port, PICTURE, house.context()) as camera:
            assert shown_name(camera) == "gateway one"


def test_sighup_brings_certificate_and_list_each_also_when_the_other_is_broken(house: House) -> None:
    known = house.folder / "known.txt"
    known.write_text(f"{IMEI}\n")
    good = (house.folder / "own.pem").read_text()
    options = (*house.options, "--admission=known", f"--known-devices={known}")
    with tls_gateway(house, *options) as (gateway, port):
        # The same to look at, so that it would not be read without being asked for.
        before = known.stat()
        with known.open("r+") as stream:
            stream.write(f"{OTHER_IMEI}\n")
        os.utime(known, ns=(before.st_atime_ns, before.st_mtime_ns))
        (house.folder / "own.pem").write_text("")
        since = gateway.log_end
        os.kill(gateway.pid, signal.SIGHUP)
        gateway.wait_for("reload.failed", since)
        gateway.wait_for("devices.known", since)
        with HandCamera(port, OTHER_PICTURE, house.context()) as camera:
            assert shown_name(camera) == "gateway one"
            assert camera.deliver() == 0
        known.write_text("no list")
        (house.folder / "own.pem").write_text(good)
        house.renew("gateway two")
        since = gateway.log_end
        os.kill(gateway.pid, signal.SIGHUP)
        gateway.wait_for("tls.certificate", since)
        gateway.wait_for("devices.unreadable", since)
        with HandCamera(port, OTHER_PICTURE, house.context()) as camera:
            assert shown_name(camera) == "gateway two"
            camera.say(init(imei=OTHER_IMEI))
            camera.hear(c.PathRequest)
        assert gateway.stop() == 0


def test_sighup_without_tls_is_harmless(tmp_path: Path) -> None:
    with running_gateway(tmp_path) as gateway:
        os.kill(gateway.pid, signal.SIGHUP)
        with HandCamera(gateway.port, PICTURE) as camera:
            assert camera.deliver() == 0
        assert gateway.stop() == 0


def test_tls_costs_few_connections_little(house: House) -> None:
    """What docs/tls.md says of memory: the context is shared by all connections."""
    with tls_gateway(house, *house.options) as (gateway, port):
        context, cameras = house.context(), []
        try:
            before = 0
            for count in range(150):
                if count == 50:
                    before = gateway.memory_kib()
                cameras.append(HandCamera(port, PICTURE, context))
            assert (gateway.memory_kib() - before) / 100 < 100
        finally:
            for camera in cameras:
                camera.socket.close()
