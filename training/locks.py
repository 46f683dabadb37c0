"""Work divided among processes: a process holds a job by an advisory lock on a file.

The system releases a lock when its process ends for any reason, so the job of a killed worker is free again. Works
between machines on file systems with locks (NFS 4, Lustre, SMB); the empty locked file stays.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ..errors import DataError

T = TypeVar("T")


@contextmanager
def lock(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of `path`; yields whether it is held, which may be False without `wait`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        except OSError as error:
            raise DataError(
                f"{path.parent} cannot be locked ({error.strerror}); put --out and --cache on a file system with locks"
            ) from None
        else:
            yield True
    finally:
        os.close(handle)


def share_out(
    jobs: Sequence[tuple[Path, Callable[[], T | None], Callable[[], T]]],
    *,
    wait: Callable[[str], None] = lambda what: None,
    poll: float = 1.0,
) -> list[T]:
    """Results of all jobs in order, run here or by other processes with the same jobs.

    A job is (lock file, function that returns its stored result or None, function that runs it). `wait(name)` is called
    when only jobs of other processes are left.
    """
    results: dict[int, T] = {}
    while len(results) < len(jobs):
        before = len(results)
        for number, (path, find, work) in enumerate(jobs):
            if number in results:
                continue
            with lock(path, wait=False) as mine:
                if mine:
                    found = find()
                    results[number] = work() if found is None else found
        if len(results) == before:
            wait(next(path.parent.name for i, (path, _, _) in enumerate(jobs) if i not in results))
            time.sleep(poll)
    return [results[i] for i in range(len(jobs))]
