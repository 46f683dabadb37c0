"""A cache of the plans built on this machine; a hit requires that everything a plan depends on is the same.

A plan is stored with the full text of its key, and both the text and the plan's sha256 are verified when it is read:
a truncated hash, a moved folder or an altered file is a miss, never a wrong engine.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import BackendError


@dataclass(frozen=True)
class PlanKey:
    """Everything that a plan depends on. `graph` hashes the ONNX file, which contains the weights."""

    graph: str  # sha256 of the ONNX bytes that were parsed
    shapes: str  # "clip=1x3x10x112x112" or with a batch range
    precision: str
    calibration: str  # sha256 of the calibration table, "" without one
    library: str
    library_version: str
    cuda: str
    target: str  # sm_NN
    l4t: str
    settings: str  # the builder's remaining settings, as canonical JSON

    def text(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    def digest(self) -> str:
        return hashlib.sha256(self.text().encode()).hexdigest()


def cache_root() -> Path:
    """`$XDG_CACHE_HOME/jmt-edge/plans`, or the same under `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jmt-edge" / "plans"


class PlanCache:
    """Plans on disk under `root`. Writes are atomic; a damaged entry is a miss and is replaced."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_root()

    def get(self, key: PlanKey) -> tuple[bytes, dict[str, object]] | None:
        """The plan and the report stored with it, or None."""
        folder = self.root / key.digest()
        try:
            entry = json.loads((folder / "entry.json").read_text())
            plan = (folder / "plan.bin").read_bytes()
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(entry, dict) or entry.get("key") != key.text():
            return None
        if entry.get("sha256") != hashlib.sha256(plan).hexdigest() or not isinstance(entry.get("report"), dict):
            return None
        return plan, entry["report"]

    def put(self, key: PlanKey, plan: bytes, report: dict[str, object]) -> None:
        """Store a plan. Raises BackendError where writing fails."""
        folder = self.root / key.digest()
        entry = {"key": key.text(), "sha256": hashlib.sha256(plan).hexdigest(), "report": report}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _replace(folder / "plan.bin", plan)
            _replace(folder / "entry.json", json.dumps(entry).encode())
        except OSError as error:
            raise BackendError(f"cannot write the plan to {folder} ({error.strerror}); free some space") from None


def _replace(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
