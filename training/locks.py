"""Work that several processes share: who holds a piece of it is an advisory lock on a file.

The system frees a lock when its process ends, however it ends, so a killed worker's piece is free for the next one.
Works between machines on file systems that carry locks (NFS 4, Lustre, SMB); the locked file stays, empty.
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
    """Hold `path`'s lock; yields whether it is held, which without `wait` may be False."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        except OSError as error:
            raise DataError(
                f"{path.parent} cannot be locked ({error.strerror}); put --out and --cache on a disk with locks"
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
    """Results of all jobs in order, done here or by other processes that were given the same jobs.

    A job is (lock file, what it left if it is finished, how to do it). `wait(name)` is told of a job that another
    process holds when nothing else is left to do.
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
