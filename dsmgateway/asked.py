"""The file that a device is asked for: how, and what is known of it before its transfer begins.

Knows nothing of states, and asks for nothing itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from dsmgateway.commands import MetadataRequest, Offer
from dsmgateway.families import IDENTIFIERS, Family, Unit, family_of, unit_of
from dsmgateway.metadata import Metadata


@dataclass(slots=True)
class Asked:
    """A file asked for by its path, or by the identifier of its ``offer`` (4.7).

    ``path`` is as on the wire, with its NUL; of an identifier it is the identifier.
    """

    offer: Offer
    protocol_id: int
    path: bytes = b""
    #: METADATA as it came, or None while it has not.
    metadata_body: bytes | None = None
    #: STARTs that were no repetition of the one before.
    other_starts: int = 0

    @classmethod
    def by(cls, offer: Offer, protocol_id: int) -> Asked:
        """Begin to ask for what ``offer`` says is ready."""
        return cls(offer, protocol_id, IDENTIFIERS.get(offer, b""))

    @property
    def has_path(self) -> bool:
        """Whether it is asked for by a path, which the device has to tell first."""
        return self.offer is Offer.FILE

    @property
    def device_path(self) -> bytes:
        """The path without the NUL that the wire counts, or the identifier."""
        return self.path.rstrip(b"\0")

    @property
    def family(self) -> Family:
        """The family of the camera."""
        return family_of(self.device_path)

    @property
    def unit(self) -> Unit:
        """What START will count, unless the first SYNC shows something else."""
        return unit_of(self.offer, self.protocol_id)

    @property
    def qualifier(self) -> str | None:
        """What tells it from other files under the same name: None where there are none, "" where nothing is known."""
        if self.has_path:
            return None
        metadata = self.metadata
        return metadata.identity if metadata else ""

    @property
    def metadata_request(self) -> MetadataRequest:
        """What asks for its metadata (4.5)."""
        return MetadataRequest(b"" if self.has_path else self.path)

    @property
    def metadata(self) -> Metadata | None:
        """What the device says about it (4.6); read anew each time, which is seldom."""
        if self.metadata_body is None:
            return None
        return Metadata.parse(self.metadata_body, self.protocol_id, self.device_path)


@lru_cache(maxsize=1024)
def in_order(offers: Offer, last: Offer) -> tuple[Offer, ...]:
    """Return what is offered in the order in which it is asked for: paths, photos, videos, and at the end ``last``."""
    return tuple(sorted(offers, key=lambda offer: (offer is last, offer)))
