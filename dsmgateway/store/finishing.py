"""Finishes a group of files: which of them are stored already, and where the others are to land.

A step is done for all files of the group before the next one: what it needs stays in the processor's caches from one
file to the next, while the steps of one file after the other take up to twice as long. A file whose step fails drops
out with its error as the answer; the others go on. Two files that may have the same content are never in one group, so
that the second one sees what became of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from dsmgateway.errors import StoreError
from dsmgateway.store.comparison import Comparison
from dsmgateway.store.landing import Ground, Landing
from dsmgateway.store.naming import final_path, folder_of, iso_time, sidecar_path
from dsmgateway.store.part import PartUpload
from dsmgateway.store.sidecar import encode_sidecar, offer_fields, path_fields
from dsmgateway.store.upload import Ended, Upload
from dsmgateway.store.values import Differs, Offered, Record, Stored

Answer = Stored | Differs | StoreError


@dataclass(eq=False, slots=True)
class _File:
    """One file of a group, and how far it has come; ``about`` is what its sidecar shall say besides."""

    upload: Upload
    about: Mapping[str, object]
    answer: Answer | None = None
    landing: Landing | None = None


#: Files of a group that are received, unlike those that are compared.
_Parts = Mapping[_File, PartUpload]


class Finishing:
    """How a store finishes files; ``now`` gives seconds since 1970."""

    def __init__(self, ground: Ground, now: Callable[[], float]) -> None:
        self._ground = ground
        self._now = now

    def finish(self, uploads: Iterable[tuple[Upload, Mapping[str, object]]]) -> list[Answer]:
        """Finish whole files; return an answer for each, in order."""
        files = [_File(upload, about) for upload, about in uploads]
        waiting = files
        while waiting:
            group, waiting = _without_twins(waiting)
            self._finish(group)
        return [file.answer for file in files if file.answer is not None]

    def _finish(self, group: Sequence[_File]) -> None:
        # An upload that has ended already may share its part with the one that took it over.
        parts = {file: file.upload for file in group if isinstance(file.upload, PartUpload) and file.upload.is_open}
        for part in parts.values():
            part.begin_writing()
        _each(group, lambda file: file.upload.require_whole())
        _each(group, self._compare)
        self._find_copies({file: part for file, part in parts.items() if file.answer is None})
        _each(parts, lambda file: parts[file].seal())
        if any(isinstance(file.answer, Stored) for file in group):
            with suppress(StoreError):
                self._ground.spool.sync_deleted()
        self._land(parts)
        for file, part in parts.items():
            if isinstance(file.answer, StoreError):
                with suppress(StoreError):
                    part.tidy()

    def _compare(self, file: _File) -> None:
        """Answer for a file that was only compared."""
        if isinstance(file.upload, Comparison):
            answer = file.upload.result()
            if isinstance(answer, Stored):
                self._ground.forget(file.upload.offered.key)
            file.answer = answer

    def _find_copies(self, parts: _Parts) -> None:
        """Answer for the files that are stored already."""
        index = self._ground.index
        try:
            found = index.find_all([_what(part) for part in parts.values()])
        except StoreError:
            # An index may be damaged in one place only: files that are looked up elsewhere are not harmed.
            _each(parts, lambda file: self._look_for_copy(file, parts[file], index.find(*_what(parts[file]))))
        else:
            _each(parts, lambda file: self._look_for_copy(file, parts[file], found.get(_what(parts[file]), ())))

    def _look_for_copy(self, file: _File, part: PartUpload, records: Iterable[Record]) -> None:
        offered = part.offered
        for record in records:
            if record.sha256 == part.digests.sha256 and self._ground.is_copy(record, offered):
                part.abandon(Ended(f"{offered} is a duplicate"))
                self._ground.forget(offered.key)
                file.answer = _stored(record, offered, duplicate=True)
                return

    def _land(self, parts: _Parts) -> None:
        """Land all that have no answer yet."""
        taken: set[str] = set()
        _each(parts, lambda file: self._prepare(file, parts[file], taken))
        landings = {file: file.landing for file in parts if file.landing is not None}
        self._ground.land(list(landings.values()))
        for file, landing in landings.items():
            file.answer = landing.failure or _stored(landing.record, file.upload.offered, duplicate=False)

    def _prepare(self, file: _File, part: PartUpload, taken: set[str]) -> None:
        """Find a final path that is free, also of those ``taken`` by others of the group, and write the sidecar."""
        offered, sha256 = part.offered, part.digests.sha256
        received_ms = int(self._now() * 1000)
        while not self._is_free(path := final_path(offered.imei, offered.device_path, received_ms, sha256), taken):
            received_ms += 1
        taken.add(path)
        record = Record(
            path=path,
            imei=offered.imei,
            device_path=offered.device_path,
            size_bytes=part.position_bytes,
            sha256=sha256,
            crc16=part.digests.crc16,
            qualifier=offered.qualifier,
        )
        sidecar = encode_sidecar(_fields(part, record, received_ms), file.about)
        file.landing = Landing(offered.key, record, folder_of(self._ground.path(path)), sidecar)

    def _is_free(self, path: str, taken: Container[str]) -> bool:
        return path not in taken and not self._is_there(path) and not self._is_there(sidecar_path(path))

    def _is_there(self, path: str) -> bool:
        return self._ground.disk.size(self._ground.path(path)) is not None


def _each(files: Iterable[_File], step: Callable[[_File], object]) -> None:
    """Do a step for each file that has no answer yet."""
    for file in files:
        if file.answer is None:
            try:
                step(file)
            except StoreError as error:
                file.upload.abandon(error)
                file.answer = error


def _what(part: PartUpload) -> tuple[str, bytes, int]:
    """Return what a file has in common with its copies, but for the content."""
    return part.offered.imei, part.offered.device_path, part.position_bytes


def _stored(record: Record, offered: Offered, *, duplicate: bool) -> Stored:
    crc_differs = offered.start_crc not in (0, record.crc16)
    return Stored(record.path, record.sha256, record.size_bytes, duplicate, crc_differs)


def _fields(part: PartUpload, record: Record, received_ms: int) -> dict[str, object]:
    """Return what we know of a file ourselves, as its sidecar says it."""
    offered, history = part.offered, part.history
    return {
        "imei": offered.imei,
        **path_fields(offered),
        **offer_fields(offered),
        "path": record.path,
        "size": record.size_bytes,
        "sha256": record.sha256,
        "crc16": record.crc16,
        "start_crc": offered.start_crc,
        "start_crc_matched": record.crc16 == offered.start_crc if offered.start_crc else None,
        "first_seen": iso_time(history.first_seen),
        "received": iso_time(received_ms / 1000),
        "connections": history.connections,
        "bytes_received_twice": history.twice_bytes,
        "peer": part.peer,
    }


def _without_twins(waiting: Sequence[_File]) -> tuple[list[_File], list[_File]]:
    """Split off the files whose content another one of the group may have: they must see its result."""
    seen: set[tuple[str, bytes]] = set()
    group: list[_File] = []
    later: list[_File] = []
    for file in waiting:
        offered = file.upload.offered
        offer = (offered.imei, offered.device_path)
        (later if offer in seen else group).append(file)
        seen.add(offer)
    return group, later
