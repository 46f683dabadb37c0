"""Where the benchmarks keep their results, and when, how and on what machine a report was made."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jmt_edge.machine import describe

ROOT = Path(__file__).resolve().parents[1]
RESULTS, IMAGES = ROOT / "benchmarks" / "results", ROOT / "docs" / "images"


def stamp(command: str) -> dict[str, Any]:
    """The first entries of a report. Call it before the measurement itself shows in the load."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"date": now, "command": command, "machine": describe()}


def write(path: Path, report: dict[str, Any]) -> None:
    path.write_text(json.dumps(report, indent=1) + "\n")
