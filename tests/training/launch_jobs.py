"""A job for `test_training_launch.py`, in a module that a new process imports quickly."""

from __future__ import annotations

import os
import time
from pathlib import Path


def mark(folder: Path, gpu: bool) -> None:
    """A file that says who did it and which GPUs it saw; then it waits until it is ended."""
    part = folder / f"{os.getpid()}.part"
    part.write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "") if gpu else "")
    part.rename(folder / f"{os.getpid()}.done")
    time.sleep(600)
