"""Which layers INT8 harms: each quantised alone, then the fewest given back to FP16 until the scores hold."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from ..engine.session import session
from .quantise import QuantisableLayer, quantise

T = TypeVar("T", bound=Hashable)
Array = NDArray[np.float32]
Feed = Mapping[str, Array]


def sqnr(exact: Array, other: Array) -> float:
    """Signal to quantisation noise in dB: 10 log10(sum x^2 / sum (x - y)^2); inf where nothing changed."""
    noise = float(np.sum((exact.astype(np.float64) - other) ** 2))
    return float("inf") if noise == 0 else 10 * np.log10(float(np.sum(exact.astype(np.float64) ** 2)) / noise)


def answers(model: onnx.ModelProto, feeds: Sequence[Feed], outputs: Sequence[str] = ("features",)) -> Array:
    """(N, k): all `outputs` of the network for each feed, one feed at a time as in a live run."""
    run = session(model.SerializeToString())
    return np.stack([np.concatenate([np.ravel(x) for x in run.run([*outputs], dict(feed))]) for feed in feeds])


def leave_one_in(
    model: onnx.ModelProto,
    layers: Sequence[QuantisableLayer],
    amax: Mapping[str, float],
    feeds: Sequence[Feed],
    outputs: Sequence[str] = ("features",),
    on_layer: Callable[[str], None] = lambda name: None,
) -> dict[str, float]:
    """SQNR (dB) of the outputs with one layer quantised at a time: the lower, the more sensitive the layer."""
    exact = answers(model, feeds, outputs)
    found = {}
    for layer in layers:
        on_layer(layer.name)
        found[layer.name] = sqnr(exact, answers(quantise(model, [layer], amax), feeds, outputs))
    return found


def give_back(
    layers: Sequence[T], order: Sequence[T], holds: Callable[[list[T]], bool], questions: int = 64
) -> tuple[list[T], list[T]]:
    """Layers that stay INT8 and those given back to FP16: the shortest run of `order` (worst first) that `holds`.

    Found by bisection, because each question runs the networks over all windows. The result holds; with one layer
    fewer it did not, or was not tried for lack of `questions`. Bisection starts at an eighth rather than in the middle:
    where `holds` varies by chance, the shorter of two runs that hold is wanted. `holds` of no layers is taken as true.
    """

    def without(count: int) -> list[T]:
        returned = set(order[:count])
        return [layer for layer in layers if layer not in returned]

    if not layers or holds(list(layers)):
        return list(layers), []
    fails, good = 0, len(order)
    middle = len(order) // 8 or len(order) // 2
    while good - fails > 1 and questions > 0:
        questions -= 1
        if holds(without(middle)):
            good = middle
        else:
            fails = middle
        middle = (fails + good) // 2
    return without(good), list(order[:good])
