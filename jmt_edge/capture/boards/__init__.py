"""Simulated EDA boards on a pseudo-terminal, byte for byte what the hardware sends, with faults on request."""

from __future__ import annotations

from .board import Faults, SimulatedBoard
from .firmware import FIRMWARE, Firmware
from .signal import open_signal

__all__ = ["FIRMWARE", "Faults", "Firmware", "SimulatedBoard", "open_signal"]
