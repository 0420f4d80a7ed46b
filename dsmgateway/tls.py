"""TLS ports: the gateway's certificate, key and client authorities, which can be read anew while it runs.

All connections share one context, which is replaced when the files are read again; a connection keeps the one that it
began with. Whatever is wrong with the files is a `ConfigError`. Knows nothing of cameras.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import txaio
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL.crypto import X509
from OpenSSL.SSL import (
    NO_OVERLAPPING_PROTOCOLS,
    VERIFY_CLIENT_ONCE,
    VERIFY_FAIL_IF_NO_PEER_CERT,
    VERIFY_PEER,
    Connection,
)
from OpenSSL.SSL import Error as TLSError
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IProtocolFactory, IReactorTime
from twisted.internet.ssl import (
    AcceptableCiphers,
    Certificate,
    CertificateOptions,
    TLSVersion,
    trustRootFromCertificates,
)
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from dsmgateway.errors import ConfigError
from dsmgateway.events import Event, log_event
from dsmgateway.opening import open_without_waiting
from dsmgateway.tls_peer import UNREADABLE, TLSTransport, names_in, note_verification, openssl_reason

if TYPE_CHECKING:
    from dsmgateway.settings import Settings

txaio.use_twisted()

#: Largest PEM file: thousands of certificates; keeps a slip such as /dev/zero from eating the memory.
_MAX_FILE_BYTES = 16 << 20
_VERSIONS = {"1.2": TLSVersion.TLSv1_2, "1.3": TLSVersion.TLSv1_3}


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """What TLS ports need to know of `Settings`: the one context that all connections share."""

    log = txaio.make_logger()

    def __init__(self, settings: Settings, files: Mapping[Path, bytes] | None = None) -> None:
        """Read the files, unless what is in them is given; ConfigError when they cannot be used."""
        self._settings = settings
        self._options, self._certificate, self._files = _load(settings, files)

    @property
    def files(self) -> Mapping[Path, bytes]:
        """What is in the files as they are used, which may be other than what is there now."""
        return self._files

    def reload(self) -> None:
        """Read the files again and say so; ConfigError as for `read_again`."""
        self.read_again()
        self.log_certificate()

    def read_again(self) -> None:
        """Read the files again, for new connections; ConfigError, and nothing has changed, when they cannot be used."""
        self._options, self._certificate, self._files = _load(self._settings)

    def log_certificate(self) -> None:
        """Say which certificate it is and how long it is good."""
        names, until = names_in(self._certificate), self._certificate.not_valid_after_utc
        path = str(self._settings.tls_cert)
        log_event(self.log, Event.TLS_CERTIFICATE, file=path, names=names, until=f"{until:%Y-%m-%dT%H:%M:%SZ}")

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> Connection:
        """TLS for a new connection."""
        return self._options.serverConnectionForTLS(protocol)


class TLSFactory(TLSMemoryBIOFactory):
    """Puts TLS around the protocols of another factory, which must have one for each address."""

    protocol = TLSTransport

    def __init__(self, tls: ServerTLS, factory: IProtocolFactory, clock: IReactorTime) -> None:
        super().__init__(tls, False, factory, clock)


def _load(
    settings: Settings, known: Mapping[Path, bytes] | None = None
) -> tuple[CertificateOptions, x509.Certificate, Mapping[Path, bytes]]:
    files: dict[Path, bytes] = {}

    def content(path: Path, setting: str, secret: bool = False) -> bytes:
        files[path] = _read(path, setting, secret) if known is None else known[path]
        return files[path]

    assert settings.tls_cert is not None
    chain = _certificates(content(settings.tls_cert, "tls-cert"), settings.tls_cert, "tls-cert")
    key_setting, key_path = ("tls-key", settings.tls_key) if settings.tls_key else ("tls-cert", settings.tls_cert)
    key = _private_key(content(key_path, key_setting, secret=True), key_path, key_setting)
    authorities = None
    if settings.tls_client_ca is not None:
        listed = content(settings.tls_client_ca, "tls-client-ca")
        roots = _certificates(listed, settings.tls_client_ca, "tls-client-ca")
        authorities = trustRootFromCertificates([Certificate(X509.from_cryptography(one)) for one in roots])
    options = CertificateOptions(
        acceptableCiphers=_ciphers(settings.tls_ciphers),
        trustRoot=authorities,
        raiseMinimumTo=_VERSIONS[settings.tls_minimum],
    )
    context = options.getContext()
    # Whatever protocol a device asks for (ALPN), it is not answered: Twisted's own callback fails the handshake.
    context.set_alpn_select_callback(lambda connection, offered: NO_OVERLAPPING_PROTOCOLS)
    try:
        # Here, since Twisted hands these over as what pyOpenSSL calls deprecated.
        context.use_certificate(chain[0])
        context.use_privatekey(key)
        for one in chain[1:]:
            context.add_extra_chain_cert(one)
        context.check_privatekey()
    except (TLSError, TypeError) as error:
        what = f"file {key_path}: its private key is not that of the certificate in {settings.tls_cert}"
        raise ConfigError(f"{what} ({openssl_reason(error)})", key_setting) from None
    if authorities is not None:
        context.set_verify(VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT | VERIFY_CLIENT_ONCE, note_verification)
    return options, chain[0], files


def _read(path: Path, setting: str, secret: bool = False) -> bytes:
    try:
        with open(path, "rb", opener=open_without_waiting) as stream:
            mode = os.fstat(stream.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise ConfigError(f"file {path}: not a regular file", setting)
            if secret and mode & (stat.S_IROTH | stat.S_IWOTH):
                raise ConfigError(f"file {path}: the key in it is world-readable (chmod o= {path})", setting)
            content = stream.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"file {path}: {error.strerror}", setting) from None
    if len(content) > _MAX_FILE_BYTES:
        raise ConfigError(f"file {path}: too large to be a PEM file", setting)
    return content


def _certificates(content: bytes, path: Path, setting: str) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(content)
    except UNREADABLE:
        found = []
    if not found:
        raise ConfigError(f"file {path}: no certificate in PEM form in it", setting)
    return found


def _private_key(content: bytes, path: Path, setting: str) -> Any:
    try:
        return load_pem_private_key(content, None)
    except TypeError:
        problem = "its private key is encrypted; the gateway has nobody to ask for a password"
    except (ValueError, UnsupportedAlgorithm):
        problem = "no private key in PEM form in it"
    raise ConfigError(f"file {path}: {problem}", setting)


def _ciphers(written: str | None) -> AcceptableCiphers | None:
    if written is None:
        return None
    try:
        ciphers: AcceptableCiphers = AcceptableCiphers.fromOpenSSLCipherString(written)
        CertificateOptions(acceptableCiphers=ciphers).getContext()
    except (ValueError, TLSError):
        raise ConfigError(f"tls-ciphers: OpenSSL has no cipher for {written!r}", "tls-ciphers") from None
    return ciphers
