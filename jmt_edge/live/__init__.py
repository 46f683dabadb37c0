"""Live inference: window assembly, quality gate, loop, outputs.

A run is `run(bundle, engine, sources, options, observers, controls)`. To receive its results, samples and states, write
an `Observer`; to act on it, keep its `Controls`.
"""

from ..controls import Controls
from ..observer import Mark, Observer, RunInfo
from ..result import Quality, Result
from ..summary import Summary
from .loop import Options, run
from .pipeline import Pipeline

__all__ = ["Controls", "Mark", "Observer", "Options", "Pipeline", "Quality", "Result", "RunInfo", "Summary", "run"]
