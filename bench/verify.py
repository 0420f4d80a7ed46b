"""Whether everything that cameras sent is there: every file of every run, each byte of it, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from footage import File, size_of
from processes import BenchError


class Verifier:
    """What has been looked at in a server's folder; each stored file is read once."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._kind, self._folder = kind, folder
        self._seen: set[Path] = set()
        #: Device and path of files that the gateway says are not what START's CRC says.
        self.flagged: set[tuple[str, ...]] = set()

    def verify(self, sent: list[File], *, damaged: bool = False) -> None:
        """Compare what came since the last time with what was sent; raises `BenchError` where they differ.

        Where frames are ``damaged`` one in 65,536 of those has the right CRC all the same; START's CRC shows it, and a
        file may then be another one if its sidecar says so.
        """
        self.flagged.clear()
        stored = self._stored_by_gateway() if self._kind == "gateway" else self._stored_by_sink()
        due = Counter(_of(file, self._kind) for file in sent)
        if damaged:
            stored, due = self._but_for_flagged(stored), self._but_for_flagged(due)
        if stored != due:
            missing, strange = due - stored, stored - due
            example = next(iter(missing or strange))
            raise BenchError(
                f"{self._kind}: {missing.total()} of {len(sent)} files are missing or differ, {strange.total()} were "
                f"never sent or are there twice, such as {example}"
            )

    def _stored_by_gateway(self) -> Counter[tuple[str, ...]]:
        stored: Counter[tuple[str, ...]] = Counter()
        media = self._folder / "media"
        for path in self._new(media.rglob("*.json")):
            sidecar = json.loads(path.read_bytes())
            sha256 = hashlib.sha256((self._folder / sidecar["path"]).read_bytes()).hexdigest()
            if sha256 != sidecar["sha256"]:
                raise BenchError(f"gateway: {sidecar['path']} is not what its sidecar says")
            stored[sidecar["imei"], sidecar["device_path"], sha256] += 1
            if sidecar["start_crc_matched"] is False:
                self.flagged.add((sidecar["imei"], sidecar["device_path"]))
        return stored

    def _but_for_flagged(self, files: Counter[tuple[str, ...]]) -> Counter[tuple[str, ...]]:
        """Leave the content of flagged files out."""
        return Counter(one[:2] if one[:2] in self.flagged else one for one in files.elements())

    def _stored_by_sink(self) -> Counter[tuple[str, ...]]:
        paths = self._new(self._folder.glob("*.jpg"))
        return Counter((path.name.partition("-")[0], hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths)

    def _new(self, paths: Iterable[Path]) -> list[Path]:
        new = [path for path in paths if path not in self._seen]
        self._seen.update(new)
        return new


def _of(file: File, kind: str) -> tuple[str, ...]:
    return (file.imei, file.path.decode(), file.sha256) if kind == "gateway" else (file.imei, file.sha256)


def sent_files(run: int, sizes: tuple[int, int], counts: list[int], first: int = 0) -> list[File]:
    """Return the files that the cameras from ``first`` on delivered, of which ``counts`` says how many each did."""
    return [
        File(camera, run, number, size_of(sizes, camera, number))
        for camera, count in enumerate(counts, first)
        for number in range(count)
    ]
