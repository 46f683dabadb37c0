"""The audit log: one JSON line for each action of a person, append-only, each line naming the one before.

`previous` is the sha256 of the line before, so a changed or deleted line is detected. A rewrite of the whole file is
not.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import deque
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ...errors import ConfigError

FIRST = "0" * 64
RECENT = 200


class AuditLog:
    """Appends to `path`, which is created if missing. Raises ConfigError where that fails."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._recent: deque[dict[str, Any]] = deque(maxlen=RECENT)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o600)
            self._previous = self._last_digest()
        except OSError as error:
            raise ConfigError(
                f"the page's audit log {path} cannot be written ({error.strerror}); run where that folder is writable"
            ) from None

    def _last_digest(self) -> str:
        """Digest of the last line. A line truncated by a crash is ended, so that the next one gets its own line."""
        size = os.fstat(self._file).st_size
        if not size:
            return FIRST
        tail = os.pread(self._file, min(size, 65536), max(0, size - 65536))
        if not tail.endswith(b"\n"):
            os.write(self._file, b"\n")
            tail += b"\n"
        return hashlib.sha256(tail[:-1].rpartition(b"\n")[2]).hexdigest()

    def add(self, action: str, client: str, t: float, **details: Any) -> None:
        """Append one action and wait until it is on the disk. Raises OSError where that fails."""
        with self._lock:
            entry = {
                "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
                "t": round(t, 3),
                "client": client,
                "action": action,
                **details,
                "previous": self._previous,
            }
            line = json.dumps(entry, ensure_ascii=False).encode()
            data = line + b"\n"
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
            self._previous = hashlib.sha256(line).hexdigest()
            self._recent.append(entry)

    def recent(self) -> list[dict[str, Any]]:
        """The newest actions since this run began, oldest first."""
        return list(self._recent)

    def newest(self, action: str, since: str) -> dict[str, Any] | None:
        """The newest entry of `action` not older than `since` (ISO 8601, UTC), of this run or an earlier one."""
        found = None
        with self.path.open("rb") as file:
            for line in file:
                try:
                    entry = json.loads(line)
                    if entry["action"] == action and entry["time"] >= since:
                        found = entry
                except (ValueError, KeyError, TypeError, RecursionError):
                    continue  # `verify` reports it
        return found

    def close(self) -> None:
        os.close(self._file)


def verify(path: Path) -> Iterator[int]:
    """Numbers (from 1) of the lines that do not name the line before them."""
    previous = FIRST
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            named = json.loads(line).get("previous")
        except ValueError:
            named = None
        if named != previous:
            yield number
        previous = hashlib.sha256(line).hexdigest()
