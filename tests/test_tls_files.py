"""The files of TLS: every mistake in them is one line that names the file, before the gateway starts."""

from __future__ import annotations

import gc
import os
import socket
import ssl
import subprocess
import sys
import weakref
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from certificate import Authority, key_pem
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from OpenSSL.crypto import FILETYPE_ASN1, X509, load_certificate
from OpenSSL.SSL import TLS_METHOD, Connection, Context, WantReadError
from running import environment
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from dsmgateway.door import RefusedProtocol
from dsmgateway.errors import ConfigError
from dsmgateway.settings import Settings
from dsmgateway.tls import ServerTLS, TLSFactory
from dsmgateway.tls import _certificates as certificates
from dsmgateway.tls_peer import MAX_HANDSHAKE_BYTES, certificate_names, names_in, openssl_reason, why_lost


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    authority = Authority()
    authority.issue(tmp_path / "own.pem", "gateway")
    authority.write(tmp_path / "ca.pem")
    (tmp_path / "own.key").touch(mode=0o600)
    (tmp_path / "own.key").write_bytes((tmp_path / "own.pem").read_bytes())
    return Settings(
        tls_ports=("1",),
        tls_cert=tmp_path / "own.pem",
        tls_key=tmp_path / "own.key",
        tls_client_ca=tmp_path / "ca.pem",
    )


def problem(settings: Settings) -> tuple[str, str | None]:
    """What is wrong, in one line, and with which setting."""
    with pytest.raises(ConfigError) as caught:
        ServerTLS(settings)
    assert "\n" not in str(caught.value)
    return str(caught.value), caught.value.setting


def test_good_files_are_read(settings: Settings) -> None:
    ServerTLS(settings)
    ServerTLS(replace(settings, tls_key=None, tls_client_ca=None))


@pytest.mark.parametrize("setting", ["tls-cert", "tls-key", "tls-client-ca"])
def test_a_file_that_cannot_be_read_is_named(settings: Settings, setting: str, tmp_path: Path) -> None:
    name = setting.replace("-", "_")
    (tmp_path / "long.pem").write_bytes(b"#" * (1 << 24) + b"\n")
    (tmp_path / "long.pem").chmod(0o600)
    os.mkfifo(tmp_path / "pipe", 0o600)  # nobody will ever write to it
    reasons = {"none": "No such file", ".": "Is a dir", "long.pem": "too lar", "pipe": "not a regular file"}
    for path, why in ((tmp_path / name, why) for name, why in reasons.items()):
        said, about = problem(replace(settings, **{name: path}))
        assert said.startswith(f"file {path}: {why}") and about == setting


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", b"\xff" * 50, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"],
)
@pytest.mark.parametrize("setting", ["tls-cert", "tls-key", "tls-client-ca"])
def test_what_is_no_pem_is_named(settings: Settings, setting: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad").touch(mode=0o600)
    (tmp_path / "bad").write_bytes(content)
    what = "private key" if setting == "tls-key" else "certificate"
    bad = replace(settings, **{setting.replace("-", "_"): tmp_path / "bad"})
    assert problem(bad) == (f"file {tmp_path}/bad: no {what} in PEM form in it", setting)


@pytest.mark.parametrize("mode", [0o604, 0o606, 0o644, 0o602])
def test_a_key_that_others_can_read_is_refused(settings: Settings, mode: int) -> None:
    assert settings.tls_key is not None and settings.tls_cert is not None
    settings.tls_key.chmod(0o640)
    ServerTLS(settings)
    settings.tls_key.chmod(mode)
    said = f"file {settings.tls_key}: the key in it is world-readable (chmod o= {settings.tls_key})"
    assert problem(settings) == (said, "tls-key")
    settings.tls_cert.chmod(mode)
    assert problem(replace(settings, tls_key=None))[1] == "tls-cert"


def test_the_key_of_another_certificate_is_refused(settings: Settings) -> None:
    assert settings.tls_key is not None
    for key in (ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())):
        settings.tls_key.write_bytes(key_pem(key))
        said, about = problem(settings)
        assert said.startswith(f"file {settings.tls_key}: its private key is not that of the certificate in ")
        assert about == "tls-key"


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_a_password(settings: Settings) -> None:
    assert settings.tls_key is not None
    settings.tls_key.write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1()), b"secret"))
    said, _ = problem(settings)
    assert said.endswith("its private key is encrypted; the gateway has nobody to ask for a password")


@pytest.mark.parametrize("ciphers", ["NONSENSE", "ALL:!ALL", "eNULL", "TLS_AES_128_GCM_SHA256", "ä"])
def test_ciphers_that_openssl_does_not_know_are_refused(settings: Settings, ciphers: str) -> None:
    with pytest.raises(ConfigError, match=r"^tls-ciphers: [^\n]+$"):
        ServerTLS(replace(settings, tls_ciphers=ciphers))


def test_all_connections_share_one_context(settings: Settings) -> None:
    tls = ServerTLS(settings)
    factory = TLSFactory(tls, Factory.forProtocol(Protocol), Clock())

    def context() -> Context:
        connection = factory.buildProtocol(IPv4Address("TCP", "::1", 1))
        assert connection is not None
        connection.makeConnection(StringTransport())
        return connection.getHandle().get_context()

    first = context()
    assert context() is first
    tls.reload()
    assert context() is not first


def test_a_connection_that_is_one_too_many_ends_before_its_handshake(settings: Settings) -> None:
    transport = StringTransport()
    connection = TLSFactory(ServerTLS(settings), Factory.forProtocol(RefusedProtocol), Clock()).buildProtocol(
        IPv4Address("TCP", "192.0.2.1", 1)
    )
    assert connection is not None
    connection.makeConnection(transport)
    connection.dataReceived(b"\x16\x03\x01")
    assert (transport.disconnected, transport.value()) == (True, b"")
    connection.connectionLost(Failure(ConnectionDone()))


def test_names_that_cannot_be_read_are_none() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "356917000000013")])
    broken = x509.UnrecognizedExtension(x509.ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\xff\xff")
    made = Authority().certificate
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(made.not_valid_before_utc)
        .not_valid_after(made.not_valid_after_utc)
    )
    good = builder.sign(key, hashes.SHA256())
    assert names_in(good) == ("356917000000013",)
    bad = x509.load_der_x509_certificate(
        builder.add_extension(broken, False).sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    )
    assert names_in(bad) == ()

    class Anonymous:
        def getPeerCertificate(self) -> None:
            return None

    assert certificate_names(Anonymous()) == ()


def test_a_peer_that_reads_nothing_has_no_heap_of_answers_kept_for_it(settings: Settings) -> None:
    """The connection below calls for a pause at 64 KiB: allowed in the handshake, the end after it."""
    reasons: list[str] = []

    class Camera(Protocol):
        def connectionLost(self, reason: Failure = connectionDone) -> None:
            reasons.append(why_lost(self.transport, reason, during_handshake=False))

    factory = TLSFactory(ServerTLS(replace(settings, tls_client_ca=None)), Factory.forProtocol(Camera), Clock())
    connection = factory.buildProtocol(IPv4Address("TCP", "::1", 1))
    assert connection is not None
    below = StringTransport()
    connection.makeConnection(below)
    assert below.producer is not None and below.streaming
    peer = Connection(Context(TLS_METHOD), None)
    peer.set_connect_state()
    for step in range(2):
        below.producer.pauseProducing()
        assert not below.disconnected, f"in step {step} of the handshake"
        with suppress(WantReadError):
            peer.do_handshake()
        with suppress(WantReadError):
            connection.dataReceived(peer.bio_read(1 << 15))
        if below.value():
            peer.bio_write(below.value())
            below.clear()
        below.producer.resumeProducing()
    below.producer.pauseProducing()
    below.producer.pauseProducing()
    assert below.disconnected
    below.producer.stopProducing()
    connection.connectionLost(Failure(ConnectionAborted()))
    assert reasons == ["it does not read what it is sent"]


def test_a_handshake_is_not_taken_beyond_its_bound(settings: Settings) -> None:
    """OpenSSL would gather 128 KiB of a first message, and says nothing before it is whole."""
    reasons: list[str] = []

    class Camera(Protocol):
        def connectionLost(self, reason: Failure = connectionDone) -> None:
            reasons.append(why_lost(self.transport, reason, during_handshake=True))

    connection = TLSFactory(ServerTLS(settings), Factory.forProtocol(Camera), Clock()).buildProtocol(
        IPv4Address("TCP", "::1", 1)
    )
    assert connection is not None
    below = StringTransport()
    connection.makeConnection(below)
    hello = b"\x01" + (131_000).to_bytes(3, "big") + b"\x03\x03" + bytes(200_000)
    records = b"".join(b"\x16\x03\x01\x10\x00" + hello[at : at + 4096] for at in range(0, 131_072, 4096))
    for at in range(MAX_HANDSHAKE_BYTES):
        connection.dataReceived(records[at : at + 1])
    assert not below.disconnected
    connection.dataReceived(records[MAX_HANDSHAKE_BYTES : MAX_HANDSHAKE_BYTES + 1])
    assert below.disconnected and below.value() == b""
    connection.connectionLost(Failure(ConnectionAborted()))
    assert reasons == ["its handshake takes more than 32768 bytes"]


@pytest.mark.parametrize("garbage", [b"", b"GET / HTTP/1.1\r\n\r\n"])
def test_nothing_of_a_connection_outlives_it_until_the_collector_comes(settings: Settings, garbage: bytes) -> None:
    """Neither of one that ends without TLS's leave, as most do, nor of one that was never TLS."""
    factory = TLSFactory(ServerTLS(replace(settings, tls_client_ca=None)), Factory.forProtocol(Protocol), Clock())
    connection = factory.buildProtocol(IPv4Address("TCP", "::1", 1))
    assert connection is not None
    below = StringTransport()
    connection.makeConnection(below)
    peer = Connection(Context(TLS_METHOD), None)
    peer.set_connect_state()
    for _ in range(2):
        with suppress(WantReadError):
            peer.do_handshake()
        connection.dataReceived(garbage or peer.bio_read(1 << 15))
        if below.value():
            peer.bio_write(below.value())
            below.clear()
    gone = weakref.ref(connection)
    gc.disable()
    try:
        below.unregisterProducer()  # as Twisted's own does
        connection.connectionLost(Failure(ConnectionLost()))
        del connection, below
        assert gone() is None
    finally:
        gc.enable()


#: Object identifiers in DER: subject alternative names, and one of the same length that means nothing.
SAN, NOTHING = bytes.fromhex("0603551d11"), bytes.fromhex("0603551d63")


@pytest.mark.parametrize(
    ("value", "written", "instead"),
    [
        (b"\x30\x03\x82\x01a", NOTHING, SAN),
        (b"\x30\x02\xa3\x00", NOTHING, SAN),
        (b"", b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05"),
        (b"", b"356917000000013", b"35691700000001\xff"),
    ],
    ids=["an extension twice", "a kind of name that nobody uses", "a version to come", "a name that is no UTF-8"],
)
def test_names_in_what_only_openssl_reads_are_none(
    value: bytes, written: bytes, instead: bytes, tmp_path: Path
) -> None:
    """Such a certificate can be signed by the fleet's authority; it names nobody, and is no bug of ours."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "356917000000013")])
    made = Authority().certificate
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(made.not_valid_before_utc)
        .not_valid_after(made.not_valid_after_utc)
        .add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.99"), value), False)
    )
    if value[1:2] == b"\x03":
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("a")]), False)
    raw = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER).replace(written, instead)

    class Showing:
        def getPeerCertificate(self) -> X509:
            return load_certificate(FILETYPE_ASN1, raw)

    assert certificate_names(Showing()) == ()
    path = tmp_path / "odd.pem"
    path.write_text(ssl.DER_cert_to_PEM_cert(raw))
    try:
        assert names_in(certificates(path.read_bytes(), path, "tls-cert")[0]) == ()
    except ConfigError as error:
        assert str(error) == f"file {tmp_path}/odd.pem: no certificate in PEM form in it"


def test_openssls_errors_are_said_in_words() -> None:
    assert openssl_reason(Exception([("SSL routines", "", "http request"), ("x", "y", "z")])) == "http request; z"
    assert openssl_reason(Exception([])) == openssl_reason(Exception()) == "no reason given"
    assert openssl_reason(Exception("words")) == "words"


# -- as the operator sees it


def twistd(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run twistd, which would become a daemon."""
    command = [
        sys.executable,
        "-c",
        "from twisted.scripts.twistd import run; run()",
        "dsmgateway",
        "--port=0",
        *options,
    ]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=60)


def test_each_mistake_is_one_line_and_exit_code_1_before_the_daemon(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "other.pem").write_text("")
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = f"tcp:{busy.getsockname()[1]}:interface=127.0.0.1"
        for options, line in {
            ("--tls-port=0",): "a TLS port needs tls-cert",
            ("--tls-port=0", "--tls-cert=none.pem"): f"file {tmp_path}/none.pem: No such file or directory "
            "(option --tls-cert)",
            ("--tls-port=0", "--tls-cert=other.pem"): f"file {tmp_path}/other.pem: no certificate in PEM form in it "
            "(option --tls-cert)",
            (f"--tls-port={port}", "--tls-cert=own.pem"): f"endpoint 'tls:{port.removeprefix('tcp:')}': "
            "Address already in use (option --tls-port)",
            ("--tls-port=pigeon:1", "--tls-cert=own.pem"): "endpoint 'pigeon:1': Unknown endpoint type: 'pigeon' "
            "(option --tls-port)",
        }.items():
            ended = twistd(tmp_path, *options)
            assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"twistd dsmgateway: {line}\n")
    assert not (tmp_path / "dsm-data").exists()
