"""Past recordings: listed, opened, viewed frame by frame, exported.

A recording is identified by the name of a folder found by listing `root`; nothing that a browser sends ever becomes
part of a path.
"""

from __future__ import annotations

import json
import math
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, TypeVar

from ...errors import SourceError, UserError
from ...media.video import lossless_frames
from ...recording.course import Thinned
from ...recording.export import export_csv
from ...recording.gaps import GAP, result_gap
from ...recording.reader import Recording
from ...recording.recorder import video_name
from .frames import blurred, jpeg, shrink

T = TypeVar("T")
S = TypeVar("S")
MAX_LISTED = 500
MAX_POINTS = 3000


class UnknownRecording(UserError):
    """An id that is not in the listing."""


class Recordings:
    """The recordings in `root`. Blocking: call from a worker thread."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _folders(self) -> dict[str, Path]:
        try:
            found = [p for p in self._root.iterdir() if not p.name.startswith(".") and (p / "manifest.json").is_file()]
        except OSError:
            return {}
        found = [p for p in found if p.suffix != ".jmt"]  # bundles have a manifest too
        found.sort(key=lambda p: (p / "manifest.json").stat().st_mtime, reverse=True)
        return {p.name: p for p in found[:MAX_LISTED]}

    def _open(self, id: str) -> Recording:
        folder = self._folders().get(id)
        if folder is None:
            raise UnknownRecording("there is no such recording; list them with GET /api/v1/recordings")
        return Recording(folder)

    def listing(self) -> list[dict[str, Any]]:
        """Newest first; one that cannot be read has only its `id` and `error`, the reason."""
        out: list[dict[str, Any]] = []
        for id, folder in self._folders().items():
            try:
                recording = Recording(folder)
            except SourceError as error:  # a browser need not learn where it is
                out.append({"id": id, "error": str(error).replace(f"{folder}/", "").replace(str(folder), id)})
                continue
            manifest = recording.manifest
            closed = {"closed": manifest["closed"] is not None, "complete": recording.complete}
            out.append({**_about(id, manifest), "raw": manifest["raw"], **closed})
        return out

    def view(self, id: str) -> dict[str, Any]:
        """What is needed to scrub: results, marks and EDA, thinned to at most `MAX_POINTS` points each.

        `gaps` holds [start, end] in seconds of every stretch without outputs, or without EDA, of the whole
        recording: between thinned points they would be indistinguishable from the rest. `remarks`: what a reader
        should know of the recording, one sentence each.
        """
        recording = self._open(id)
        manifest = recording.manifest
        results, without = _read(
            recording.each_result(), _shown, lambda r: r["t"] if r["outputs"] else None, result_gap(manifest["hop"])
        )
        eda, silent = _read(recording.each_eda(), list, lambda row: row[0] if math.isfinite(row[1]) else None, GAP)
        marks, events, unit = recording.marks(), recording.alarms().events, recording.eda_unit
        return {
            **_about(id, manifest),
            "outputs": manifest["outputs"],
            "modalities": manifest["modalities"],
            "video": (recording.folder / video_name(1)).is_file(),
            "gaps": {"results": without, "eda": silent},
            "unread": recording.unread,
            "remarks": [*recording.remarks, *recording.damage],
            "results": results,
            "marks": [asdict(mark) for mark in marks],
            "events": [asdict(event) for event in events],
            "eda": {
                "unit": unit,
                "t": [round(t, 3) for t, _ in eda],
                "v": [round(v, 4) if math.isfinite(v) else None for _, v in eda],
            },
        }

    def frame(self, id: str, t: float, *, blur: bool) -> bytes:
        """JPEG of the recorded picture at or after stream time `t`. Blurring covers the whole picture, because a
        recording does not say where the face is. Raises SourceError where there is none."""
        recording = self._open(id)
        part, best = 1, None
        while best is None and (path := recording.folder / video_name(part)).is_file():
            best = next((image for stamp, image in lossless_frames(path, t) if stamp >= t - 0.05), None)
            part += 1
        if best is None:
            raise SourceError(f"recording '{id}' has no picture at {t:.1f} s; --record-raw face records them")
        image = shrink(best)
        return jpeg(blurred(image, None) if blur else image)

    def export(self, id: str) -> IO[bytes]:
        """A zip of the recording's tables as CSV, and its manifest; the file is deleted when it is closed."""
        recording = self._open(id)
        out = tempfile.TemporaryFile()  # noqa: SIM115
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in export_csv(recording, Path(folder) / "csv"):
                archive.write(file, file.name)
            about = {**recording.manifest, "unread": recording.unread}
            archive.writestr("manifest.json", json.dumps(about, indent=1, ensure_ascii=False))
        out.seek(0)
        return out


def _shown(line: dict[str, Any]) -> dict[str, Any]:
    """What is shown of a result's line; earlier editions lack some."""
    kept = {k: line[k] for k in ("t", "outputs", "reason", "quality", "attention")}
    used = [name for name, share in line["attention"].items() if share is not None]
    return {**kept, "used": used, "uncertainty": line.get("uncertainty"), "without": line.get("without")}


def _about(id: str, manifest: dict[str, Any]) -> dict[str, Any]:
    bundle = manifest["bundle"]
    return {
        "id": id, "created": manifest["created"], "task": manifest["task"], "bundle": bundle["id"],
        "demo": bundle["demo"],
    }  # fmt: skip


def _read(
    lines: Iterable[T], shown: Callable[[T], S], when: Callable[[T], float | None], longest: float
) -> tuple[list[S], list[list[float]]]:
    """At most `MAX_POINTS` of the lines as they are shown, and the gaps of more than `longest` s between all that have
    a time; nothing else of a line is kept.
    """
    kept, missing, before = Thinned[S](MAX_POINTS), list[list[float]](), math.inf
    for line in lines:
        kept.add(shown(line))
        if (t := when(line)) is not None:
            if t - before > longest:
                missing.append([round(before, 3), round(t, 3)])
            before = t
    return kept.kept, missing
