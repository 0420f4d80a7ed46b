"""What a gateway's log and data folder say at a kill or a power cut, to be compared with what comes after it."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path

from running import Row, RunningGateway

from dsmgateway.commands import PACKET_BYTES
from dsmgateway.store.check import Kind, check

Key = tuple[str, str]


def proven_offset(part: Path) -> tuple[Key, int] | None:
    """Whose part this is, and where its latest checkpoint that holds lets the device go on: reckoned from bytes.

    None where the journal does not say whose it is, and where a name does not tell what will be asked for: of an
    identifier, or of a path whose size is offered in packets.
    """
    content, records = part.read_bytes(), []
    for line in part.with_suffix(".journal").read_bytes().split(b"\n")[:-1]:
        checksum, _, text = line.partition(b" ")
        if checksum != b"%08x" % zlib.crc32(text):
            break
        records.append(json.loads(text))
    if not records or "qualifier" in records[0] or "in_packets" in records[0]:
        return None
    header, *checkpoints = records
    path = bytes.fromhex(header["device_path"]).decode()
    for point in reversed(checkpoints):
        end = point["offset"]
        if end <= len(content) and hashlib.sha256(content[:end]).hexdigest() == point["sha256"]:
            last_packet = (header["size"] - 1) // PACKET_BYTES
            return (header["imei"], path), min(end // PACKET_BYTES, last_packet) * PACKET_BYTES
    return (header["imei"], path), 0


@dataclass
class Account:
    """What was seen at the kills, to be compared with what comes after them."""

    gateway: RunningGateway
    log_ends: list[int] = field(default_factory=list)
    #: SHA-256 of each acknowledged file at the first kill after it, by its path in the data folder.
    acknowledged: dict[str, str] = field(default_factory=dict)
    unfinished: int = 0
    resumable: int = 0
    resumed: int = 0
    #: What each part proves since the last kill, until its file is opened again.
    due: dict[Key, int] = field(default_factory=dict)

    def take(self, *, troubles: Container[str] = ()) -> None:
        """Look at the disk between an end and the next start: nothing acknowledged may be missing.

        The log may tell of these ``troubles`` and of no other.
        """
        gateway = self.gateway
        since = self.log_ends[-1] if self.log_ends else 0
        others = [row for row in gateway.troubles(since) if row["event"] not in troubles or "traceback" in row]
        assert not others, others
        for row in gateway.events("file.stored", since) + gateway.events("file.known", since):
            self.acknowledged[row["path"]] = self._whole(row)
        for path, sha256 in self.acknowledged.items():
            assert hashlib.sha256((gateway.data / path).read_bytes()).hexdigest() == sha256, path
        self._check_resumed()
        self._take_parts()
        self.log_ends.append(gateway.log_end)

    def _whole(self, row: Row) -> str:
        """The file is there with its size, and its sidecar says the same as its bytes."""
        path = self.gateway.data / row["path"]
        content, sidecar = path.read_bytes(), json.loads(path.with_suffix(".json").read_text())
        assert len(content) == row["size"] == sidecar["size"]
        assert hashlib.sha256(content).hexdigest() == sidecar["sha256"]
        return str(sidecar["sha256"])

    def _take_parts(self) -> None:
        finishing = {path.stem for path in self.gateway.spool(".sidecar")}
        parts = [path for path in self.gateway.spool(".part") if path.with_suffix(".journal").exists()]
        told = {row.path: row.offset_bytes for row in check(self.gateway.data) if row.kind is Kind.PART}
        self.due = {}
        for part in parts:
            if part.stem in finishing:
                continue
            proven = proven_offset(part)
            if proven is not None:
                key, offset_bytes = proven
                assert told[f"spool/{part.name}"] == offset_bytes
                self.due[key] = offset_bytes
        self.unfinished += len(self.due)
        self.resumable += sum(offset_bytes > 0 for offset_bytes in self.due.values())

    def _check_resumed(self) -> None:
        """Each part that was there at the last kill went on exactly where it was proven when it was next opened."""
        if not self.log_ends:
            return
        for row in self.gateway.events("file.opened", self.log_ends[-1]):
            expected_bytes = self.due.pop((row["imei"], row["device_path"]), None)
            if expected_bytes is not None:
                assert row["offset"] == expected_bytes, row
                self.resumed += expected_bytes > 0

    def close(self) -> None:
        """After the end: the last parts went on as they should, and all that was acknowledged is still there."""
        self._check_resumed()
        assert not self.due, "unfinished files that no camera went on with"
        for path, sha256 in self.acknowledged.items():
            assert hashlib.sha256((self.gateway.data / path).read_bytes()).hexdigest() == sha256, path
