"""Certificates for tests of TLS: of their own, or of an authority."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)


def write_certificate(path: Path) -> None:
    """A private key and a certificate that it signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    certificate = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    path.touch(mode=0o600)
    path.write_bytes(key_pem(key) + certificate.public_bytes(Encoding.PEM))


def key_pem(key: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    """A private key as PEM."""
    lock = NoEncryption() if password is None else BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)


class Authority:
    """Signs certificates; itself signed by itself, or by another authority."""

    def __init__(self, name: str = "the fleet", above: Authority | None = None) -> None:
        self.above = above
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = (above or self)._sign(name, self.key.public_key(), [], True, 1)

    def write(self, path: Path) -> Path:
        """The authority's certificate."""
        path.write_bytes(self.certificate.public_bytes(Encoding.PEM))
        return path

    def issue(self, path: Path, name: str | None, names: Sequence[x509.GeneralName] = (), days: int = 1) -> Path:
        """A private key and a certificate for it, and for whom it stands; that ends in so many days."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(name, key.public_key(), names, False, days)
        path.touch(mode=0o600)
        path.write_bytes(key_pem(key) + certificate.public_bytes(Encoding.PEM))
        return path

    def _sign(
        self,
        name: str | None,
        key: ec.EllipticCurvePublicKey,
        names: Sequence[x509.GeneralName],
        authority: bool,
        days: int,
    ) -> x509.Certificate:
        subject = x509.Name([] if name is None else [x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        issuer = self.certificate.subject if hasattr(self, "certificate") else subject
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
            .not_valid_before(now - timedelta(days=10))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())
