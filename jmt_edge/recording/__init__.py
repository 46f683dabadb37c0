"""Recordings: written by an observer of a run, read, replayed, exported, and used as sources."""

from __future__ import annotations

from pathlib import Path

from ..capture import open_source as open_device_or_file
from ..capture.base import Source


def open_source(modality: str, spec: str, *, delay: float = 0.0) -> Source | None:
    """`capture.open_source`, and `replay:DIR`: the raw samples of that modality in a recording.

    Raises SourceError, also where the recording has no raw samples of it.
    """
    if not spec.startswith("replay:"):
        return open_device_or_file(modality, spec, delay=delay)
    from .reader import RecordedSource

    return RecordedSource(modality, Path(spec.removeprefix("replay:")))
