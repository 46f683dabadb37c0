"""Whether a recording's files are what was written: each against the manifest, or against the chain where the recording
was not closed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import SourceError
from ..plain_files import blocks, checksum, read_small, walk
from ..signing import SIGNATURE
from .chain import CHAIN, LINES, RECORDING, WAV_HEADER, Chain, Codes, Covered, differences, read_chain
from .recorder import CHECKSUM, LOST_AT_MOST, MANIFEST

NOT_CLOSED = f"not closed: {LOST_AT_MOST:g} s may be missing"
_RECORDED = re.compile(
    r"(results|events|alarms|status|timeline)\.jsonl|eda\.csv|voice\.wav|face(-\d+)?\.mkv|\.manifest\.json"
)
NO_CHAIN = "made by an earlier version, without hashes: a changed value cannot be found"


class Seal:
    """What is known of the files of one recording. Nothing is read before it is asked for, and nothing twice.

    Raises SourceError where `manifest.sha256` does not belong to the manifest of a closed recording.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any], raw: bytes) -> None:
        self.folder = folder
        closed = manifest["closed"] or {}
        self.chained = any(os.path.lexists(folder / name) for name in (CHECKSUM, CHAIN)) or "chain" in manifest
        self.closed = bool(closed)
        self.sealed = "files" in closed
        self._listed: dict[str, dict[str, Any]] = closed.get("files", {})
        self._head = closed.get("chain", "")
        self._continues: dict[str, Any] = manifest.get("continues") or {}
        self._manifest = hashlib.sha256(raw).hexdigest()
        self._chain: Chain | None = None
        self._differs: dict[str, bool] = {}
        if self.chained and closed:
            _check_manifest(folder, raw)

    @property
    def note(self) -> str:
        """What cannot be said of the recording's files; empty where they can be compared to the last byte."""
        if not self.chained:
            return NO_CHAIN
        return "" if self.closed else NOT_CLOSED

    @property
    def identity(self) -> str:
        """The sha256 that stands for all of the recording: of its manifest, or of its chain where it was not closed."""
        return self._manifest if self.sealed else self.chain().head

    @property
    def listed(self) -> frozenset[str]:
        """The files that were written, as far as it is known, the empty ones of a closed recording among them."""
        if self.sealed:
            return frozenset(self._listed)
        try:
            return frozenset(self.chain().files) if self.chained else frozenset()
        except SourceError:
            return frozenset()

    def chain(self) -> Chain:
        """Raises SourceError where it is missing or a link."""
        if self._chain is None:
            self._chain = read_chain(self.folder)
        return self._chain

    def chain_problem(self) -> str:
        """Why the chain is not the recording's, empty where it is."""
        try:
            chain = self.chain()
        except SourceError as error:
            return str(error)
        if self.sealed and (chain.head != self._head or chain.torn) and not chain.problem:
            return f"{CHAIN} was cut off, or lines were added to it"
        return chain.problem

    def covered(self) -> dict[str, Covered]:
        """What is known of each file."""
        if self.sealed:
            return {name: Covered(file["bytes"], file["sha256"]) for name, file in self._listed.items()}
        return self.chain().files

    def differs(self, name: str) -> bool:
        """Whether a file is not what was written. Raises SourceError for a link, and where it cannot be read."""
        if name not in self._differs:
            path, known = self.folder / name, self.covered().get(name)
            if known is None:
                self._differs[name] = self.sealed and os.path.lexists(path)
            elif not os.path.lexists(path):
                self._differs[name] = known.size > 0
            else:
                head = WAV_HEADER if name == "voice.wav" else 0
                found, header, size = _prefix(path, head, known.size)
                listed = self._listed.get(name, {}).get("header", header.hex())
                right = found == known.sha256 and header.hex() == listed
                self._differs[name] = not right or (self.sealed and size != head + known.size)
        return self._differs[name]

    def written(self, name: str) -> Codes | None:
        """CRC-32 of the lines of a file that is not what was written; None for another, and where nothing is known."""
        if not self.chained or self.chain_problem() or not self.differs(name):
            return None
        return self.chain().codes(name)

    def media_problem(self, modality: str) -> str:
        """Why the raw samples of a sealed recording are not those that were recorded; empty where they are.

        A file of lines is not judged as a whole: its bad lines are left out.
        """
        if not self.sealed or modality not in ("face", "voice"):
            return ""
        there = {p.name for p in self.folder.glob(f"{modality}*") if p.suffix in (".mkv", ".wav")}
        listed = {name for name in self._listed if name.startswith(modality)}
        for name in sorted(there | listed):
            if self.differs(name):
                return f"{name} is not what was recorded"
        return ""

    def faults(self) -> Iterator[str]:
        """A sentence for each file that is not what was written. Raises SourceError for links and odd files."""
        present = set(walk(self.folder, RECORDING)) - {MANIFEST, CHECKSUM, CHAIN, SIGNATURE}
        problem = self.chain_problem()
        if problem:
            yield problem
        if before := self._part_before():
            yield before
        covered = {} if problem and not self.sealed else self.covered()
        for name in sorted(covered.keys() - present):
            if self.sealed or covered[name].size:
                yield f"{name} is missing"
        for name in sorted(present - covered.keys()):
            if self.sealed or not _RECORDED.fullmatch(name):  # which may have been made since the chain's last line
                yield f"{name!a} does not belong to the recording"
        for name in sorted(covered.keys() & present):
            if self.differs(name):
                clause = "" if problem or name not in LINES else self._changes(name)
                yield f"{name}: {clause or 'it was changed'}"

    def _part_before(self) -> str:
        """Why the recording beside this one is not the part that this one continues; empty where it is, or is not
        there.
        """
        name, head = self._continues.get("recording"), self._continues.get("chain")
        if not (isinstance(name, str) and isinstance(head, str) and head):
            return ""
        if name != Path(name).name:
            return f"it continues {name!a}, which names no folder beside it"
        if not os.path.lexists(self.folder.parent / name / MANIFEST):
            return ""
        try:
            found = read_chain(self.folder.parent / name)
        except SourceError as error:
            return str(error)
        if found.head != head:
            return f"{name!a} beside it does not end as the part that it continues"
        return ""

    def _changes(self, name: str) -> str:
        return differences(self.folder / name, self.chain().codes(name), closed=self.closed)


def _check_manifest(folder: Path, raw: bytes) -> None:
    if not os.path.lexists(folder / CHECKSUM):
        raise SourceError(
            f"{folder} has no {CHECKSUM}, so its manifest cannot be verified; copy the whole recording again"
        )
    if read_small(folder / CHECKSUM, RECORDING) != checksum(raw, MANIFEST):
        raise SourceError(
            f"{folder / MANIFEST} was altered (its sha256 is not that of {CHECKSUM}); copy the whole recording again, "
            f"or run `sha256sum {MANIFEST} > {CHECKSUM}` in it if you changed it on purpose"
        )


def _prefix(path: Path, head: int, size: int) -> tuple[str, bytes, int]:
    """(sha256 of `size` bytes after the first `head`, those first ones, size of the file)."""
    digest, header, seen = hashlib.sha256(), b"", 0
    for block in blocks(path, RECORDING):
        here = memoryview(block)
        if len(header) < head:
            header += bytes(here[: head - len(header)])
        first, last = max(0, head - seen), max(0, head + size - seen)
        digest.update(here[first:last])
        seen += len(block)
    return digest.hexdigest(), header, seen
