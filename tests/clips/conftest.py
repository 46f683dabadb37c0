"""Fixtures of the clips' tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "live"))

from live_fixture import tracker

__all__ = ["tracker"]
