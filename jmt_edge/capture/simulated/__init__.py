"""A simulated person: face, voice and skin conductance driven by the same latent pain, valence and arousal.

The same generator serves live (`sim:`) and the synthetic cohort (`jmt-edge synth`); see
`docs/reference/simulated-person.md`.
"""

from __future__ import annotations

from .sources import open_simulated, simulated_truth, window_label

__all__ = ["open_simulated", "simulated_truth", "window_label"]
