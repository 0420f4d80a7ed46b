"""What TLS says of the other side: the names in its certificate, and why a handshake failed or a connection ended.

Knows nothing of certificates of our own, see `dsmgateway.tls`, nor of what is said over the connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL.crypto import X509
from OpenSSL.crypto import Error as CertificateError
from OpenSSL.SSL import Connection, X509VerificationCodes
from OpenSSL.SSL import Error as TLSError
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer
from twisted.protocols.tls import BufferingTLSTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from dsmgateway.errors import PeerError

#: OpenSSL's numbers for what can be wrong with a certificate, in words: "cert has expired".
_VERIFICATION = {
    number: name.removeprefix("ERR_").replace("_", " ").lower()
    for name, number in vars(X509VerificationCodes).items()
    if isinstance(number, int)
}

#: Most that may come before the handshake is done: two or three kB are usual, and chains of certificates may be long.
MAX_HANDSHAKE_BYTES = 32 * 1024

#: Names of a certificate that a line of the log has, and letters of each: 30 KB of them fit into a handshake.
_MOST_SHOWN, _MOST_LETTERS = 10, 100

#: What the library that reads certificates raises for those that OpenSSL has taken: it is the stricter one.
UNREADABLE = (ValueError, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)


class TLSTransport(BufferingTLSTransport):
    """Twisted's TLS, which also knows what was wrong with the certificate of a peer that is refused for it.

    TLS answers by itself when a peer asks for new keys or a new handshake. One that asks on and on and reads none of it
    would have the answers pile up, and no time limit of a camera's conversation sees that. So it is ended when more
    waits than the connection below likes to hold (64 KiB), which is far more than is ever said to a camera.

    What comes before the handshake is done has a bound, too: OpenSSL would keep messages of 128 KiB for each peer.
    """

    refusal = ""
    _handshake_bytes = 0

    def makeConnection(self, transport: Any) -> None:
        """Have the connection below say when it holds too much."""
        transport.registerProducer(_Outgoing(self), True)
        super().makeConnection(transport)  # type: ignore[no-untyped-call]

    def dataReceived(self, data: bytes) -> None:
        """Take what comes; of a handshake no more than it may take."""
        super().dataReceived(data)  # type: ignore[no-untyped-call]
        if not self._handshakeDone and not self._lostTLSConnection and not self._aborted:
            self._handshake_bytes += len(data)
            if self._handshake_bytes > MAX_HANDSHAKE_BYTES:
                what = f"its handshake takes more than {MAX_HANDSHAKE_BYTES} bytes"
                self.failVerification(Failure(PeerError(what)))  # type: ignore[no-untyped-call]

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        """Keep no more of an error than what it says.

        Its traceback has the whole connection, and the error itself: it would stay until the garbage collector comes.
        """
        if reason is not None:
            reason.cleanFailure()
        super()._tlsShutdownFinished(reason)  # type: ignore[no-untyped-call]

    def outgoing_piles_up(self) -> None:
        """End; but not for what is said in the handshake, which has an end and may be a long chain of certificates."""
        if self._handshakeDone and not self._aborted:
            self.failVerification(Failure(PeerError("it does not read what it is sent")))  # type: ignore[no-untyped-call]


@implementer(IPushProducer)
class _Outgoing:
    """What the connection below takes for the source of what it is to send."""

    __slots__ = ("_transport",)

    def __init__(self, transport: TLSTransport) -> None:
        self._transport = transport

    def pauseProducing(self) -> None:
        """Too much waits."""
        self._transport.outgoing_piles_up()

    def resumeProducing(self) -> None:
        """All has gone out."""

    def stopProducing(self) -> None:
        """The connection has ended, as its protocol is told, too."""


def note_verification(connection: Connection, certificate: X509, error: int, depth: int, good: int) -> bool:
    """What OpenSSL calls for each certificate of the peer: keep why it is refused, which its error does not say."""
    transport = connection.get_app_data()
    if not good and not transport.refusal:
        what = "its certificate" if depth == 0 else f"the certificate {depth} above its own"
        transport.refusal = f"{what}: {_VERIFICATION.get(error, f'OpenSSL error {error}')}"
    return bool(good)


def certificate_names(transport: Any) -> tuple[str, ...]:
    """Every name in the certificate that the peer has shown and TLS has verified: common names and alternative ones."""
    try:
        shown = transport.getPeerCertificate()
        return () if shown is None else names_in(shown.to_cryptography())
    except (*UNREADABLE, CertificateError):
        return ()


def shown_names(names: Sequence[str]) -> list[str]:
    """The names as a line of the log has them: the first ones, cut where they are long, and how many more there are."""
    shown = [name if len(name) <= _MOST_LETTERS else f"{name[:_MOST_LETTERS]}..." for name in names[:_MOST_SHOWN]]
    left_out = len(names) - len(shown)
    return [*shown, f"... and {left_out} more"] if left_out else shown


def names_in(certificate: x509.Certificate) -> tuple[str, ...]:
    """Common names and subject alternative names; none where they cannot be read."""
    try:
        names = [str(one.value) for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        names += _alternative_names(certificate)
    except UNREADABLE:
        return ()
    return tuple(dict.fromkeys(names))


def _alternative_names(certificate: x509.Certificate) -> list[str]:
    try:
        others = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    kinds = (x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier)
    return [str(one.value) for one in others if isinstance(one, kinds)]


def openssl_reason(error: BaseException) -> str:
    """What pyOpenSSL's error says, which has it in a list of tuples."""
    entries = error.args[0] if error.args else ()
    if not isinstance(entries, list | tuple):
        return str(error)
    return "; ".join(str(entry[-1]) for entry in entries if entry) or "no reason given"


def why_lost(transport: Any, failure: Failure, during_handshake: bool) -> str:
    """Why a connection has ended, as one would say it: OpenSSL's reason without its brackets."""
    if isinstance(failure.value, TLSError):
        return getattr(transport, "refusal", "") or openssl_reason(failure.value)
    if during_handshake and failure.check(ConnectionDone, ConnectionLost):
        return "closed by the peer before the handshake was done"
    return failure.getErrorMessage()
