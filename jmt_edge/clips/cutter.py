"""Cuts clips from the samples of one modality, and turns them into network input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..media.chunk import Chunk
from ..preprocessing.actions import CHANNELS, normalise_measures
from ..preprocessing.eda import normalise_eda
from ..preprocessing.face import normalise_face
from ..preprocessing.quality import Verdict
from ..tasks import Modality
from .eda import EdaCutter
from .face import FaceCutter, Find, OnFace
from .plan import ClipPlan
from .voice import VoiceCutter


class Cutter(Protocol):
    """A bounded buffer of one modality: chunks in, clips out, whatever the chunks' sizes.

    Windows are cut in order; all chunks up to a window's end are pushed before its clips are cut.
    start, last: stream times (s) of the first and the newest sample; None and -inf before the first.
    history: seconds before a window's end on which its clips and their verdicts depend.
    """

    start: float | None
    last: float
    history: float

    def push(self, chunk: Chunk) -> None: ...

    def advance(self, window: int) -> None:
        """Windows before `window` are done or dropped."""
        ...

    def begin(self, end: float) -> None:
        """The clip that ends at `end` is cut next: start what that would wait for."""
        ...

    def clip(self, end: float) -> tuple[NDArray[Any], float]:
        """The signal of the clip that ends at `end`, of `signal_format`, and the fraction of it that is real."""
        ...

    def verdict(self, end: float) -> Verdict:
        """The quality of the signal under the clip that ends at `end`."""
        ...


def open_cutter(
    plan: ClipPlan,
    window_end: Callable[[int], float],
    first: int,
    *,
    on_face: OnFace | None = None,
    find: Find | None = None,
    follow: str = "largest",
    actions: bool = False,
    threaded: bool = False,
) -> Cutter:
    """The cutter of the plan's modality for the windows `first`, `first` + 1, ..., window i ending at `window_end(i)`.

    window_end: ascending; inf where there is no further window. on_face, find, follow, actions, threaded: see
    `FaceCutter`.
    Raises ConfigError for a modality without a cutter, and for measures of a face other than those known here.
    """
    if plan.m.measured and plan.m.shape[0] != len(CHANNELS):
        raise ConfigError(
            f"clips with {plan.m.shape[0]} measures of a face cannot be cut, because this version has {len(CHANNELS)}; "
            "use the version that the network was trained with"
        )
    if plan.m.name == "face":
        return FaceCutter(
            plan, window_end, first, on_face=on_face, find=find, follow=follow, actions=actions, threaded=threaded
        )
    if plan.m.name == "voice":
        return VoiceCutter(plan)
    if plan.m.name == "eda":
        return EdaCutter(plan)
    raise ConfigError(f"modality '{plan.m.name}' has no cutter; add one to jmt_edge/clips")


def signal_format(m: Modality) -> tuple[tuple[int, ...], type[np.generic]]:
    """Shape and type of a cutter's signal: face crops (T, H, W, 3) uint8 or measures (T, C) float32, others as the
    network takes them.
    """
    if m.name != "face":
        return m.shape, np.float32
    return (*m.shape[1:], m.shape[0]), np.float32 if m.measured else np.uint8


def network_input(signal: NDArray[Any], m: Modality) -> NDArray[np.float32]:
    """The signal of one clip or many (..., *signal) as the backbone takes it: (..., *m.shape) float32."""
    if m.name == "face":
        return normalise_measures(signal, m) if m.measured else normalise_face(signal, m)
    return normalise_eda(signal, m) if m.name == "eda" else np.asarray(signal, np.float32)
